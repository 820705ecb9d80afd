// SHA-256 and SHA-512 (FIPS 180-4) in whole numbers, at once and not by promises,
// so that a page opened from a folder needs nothing of the browser.
"use strict";

/** The first 64 bits of the fractional parts of roots of the first primes. */
function fractions(count, root) {
  const found = [];
  for (let n = 2n; found.length < count; n += 1n) {
    let prime = true;
    for (let d = 2n; d * d <= n; d += 1n) if (n % d === 0n) prime = false;
    if (prime) found.push(floorRoot(n << BigInt(64 * root), BigInt(root)) & ((1n << 64n) - 1n));
  }
  return found;
}

/** The largest whole number whose power is not above a value, by halving. */
function floorRoot(value, power) {
  let low = 0n, high = 1n << 80n;
  while (low < high) {
    const middle = (low + high + 1n) >> 1n;
    if (middle ** power <= value) low = middle; else high = middle - 1n;
  }
  return low;
}

const CUBES = fractions(80, 3);
const SQUARES = fractions(8, 2);
const highs = (words) => Int32Array.from(words, (word) => Number(BigInt.asIntN(32, word >> 32n)));
const lows = (words) => Int32Array.from(words, (word) => Number(BigInt.asIntN(32, word)));
const K256 = highs(CUBES.slice(0, 64));
const K_HIGH = highs(CUBES), K_LOW = lows(CUBES);

/** The message with its padding, in blocks of so many bytes. */
function padded(bytes, block) {
  const tail = block / 8;
  const size = Math.ceil((bytes.length + 1 + tail) / block) * block;
  const all = new Uint8Array(size);
  all.set(bytes);
  all[bytes.length] = 0x80;
  new DataView(all.buffer).setUint32(size - 8, Math.floor(bytes.length / 0x20000000));
  new DataView(all.buffer).setUint32(size - 4, (bytes.length * 8) >>> 0);
  return new DataView(all.buffer);
}

function sha256(bytes) {
  const view = padded(bytes, 64);
  const state = highs(SQUARES);
  const w = new Int32Array(64);
  const turn = (x, n) => (x >>> n) | (x << (32 - n));
  for (let at = 0; at < view.byteLength; at += 64) {
    for (let t = 0; t < 16; t += 1) w[t] = view.getInt32(at + 4 * t);
    for (let t = 16; t < 64; t += 1) {
      const x = w[t - 15], y = w[t - 2];
      const s0 = turn(x, 7) ^ turn(x, 18) ^ (x >>> 3);
      const s1 = turn(y, 17) ^ turn(y, 19) ^ (y >>> 10);
      w[t] = w[t - 16] + s0 + w[t - 7] + s1;
    }
    let [a, b, c, d, e, f, g, h] = state;
    for (let t = 0; t < 64; t += 1) {
      const s1 = turn(e, 6) ^ turn(e, 11) ^ turn(e, 25);
      const one = (h + s1 + ((e & f) ^ (~e & g)) + K256[t] + w[t]) | 0;
      const s0 = turn(a, 2) ^ turn(a, 13) ^ turn(a, 22);
      const two = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      h = g; g = f; f = e; e = (d + one) | 0;
      d = c; c = b; b = a; a = (one + two) | 0;
    }
    [a, b, c, d, e, f, g, h].forEach((value, t) => { state[t] += value; });
  }
  return wordsToBytes(state);
}

function wordsToBytes(words) {
  const view = new DataView(new ArrayBuffer(4 * words.length));
  words.forEach((word, at) => view.setInt32(4 * at, word));
  return new Uint8Array(view.buffer);
}

// A word of 64 bits is two of 32: h and l. Sums of low halves carry into the high ones.
function sha512(bytes) {
  const view = padded(bytes, 128);
  const high = highs(SQUARES), low = lows(SQUARES);
  const wh = new Int32Array(80), wl = new Int32Array(80);
  for (let at = 0; at < view.byteLength; at += 128) {
    for (let t = 0; t < 16; t += 1) {
      wh[t] = view.getInt32(at + 8 * t);
      wl[t] = view.getInt32(at + 8 * t + 4);
    }
    extend512(wh, wl);
    rounds512(high, low, wh, wl);
  }
  const words = [];
  for (let t = 0; t < 8; t += 1) words.push(high[t], low[t]);
  return wordsToBytes(Int32Array.from(words));
}

function extend512(wh, wl) {
  for (let t = 16; t < 80; t += 1) {
    const xh = wh[t - 15], xl = wl[t - 15], yh = wh[t - 2], yl = wl[t - 2];
    const s0h = ((xh >>> 1) | (xl << 31)) ^ ((xh >>> 8) | (xl << 24)) ^ (xh >>> 7);
    const s0l = ((xl >>> 1) | (xh << 31)) ^ ((xl >>> 8) | (xh << 24)) ^ ((xl >>> 7) | (xh << 25));
    const s1h = ((yh >>> 19) | (yl << 13)) ^ ((yl >>> 29) | (yh << 3)) ^ (yh >>> 6);
    const s1l = ((yl >>> 19) | (yh << 13)) ^ ((yh >>> 29) | (yl << 3)) ^ ((yl >>> 6) | (yh << 26));
    const sum = (wl[t - 16] >>> 0) + (s0l >>> 0) + (wl[t - 7] >>> 0) + (s1l >>> 0);
    wl[t] = sum;
    wh[t] = wh[t - 16] + s0h + wh[t - 7] + s1h + Math.floor(sum / 0x100000000);
  }
}

function rounds512(high, low, wh, wl) {
  let [ah, bh, ch, dh, eh, fh, gh, hh] = high;
  let [al, bl, cl, dl, el, fl, gl, hl] = low;
  for (let t = 0; t < 80; t += 1) {
    const s1h = ((eh >>> 14) | (el << 18)) ^ ((eh >>> 18) | (el << 14)) ^ ((el >>> 9) | (eh << 23));
    const s1l = ((el >>> 14) | (eh << 18)) ^ ((el >>> 18) | (eh << 14)) ^ ((eh >>> 9) | (el << 23));
    const chl = (el & fl) ^ (~el & gl), chh = (eh & fh) ^ (~eh & gh);
    const one = (hl >>> 0) + (s1l >>> 0) + (chl >>> 0) + (K_LOW[t] >>> 0) + (wl[t] >>> 0);
    const oneL = one | 0;
    const oneH = (hh + s1h + chh + K_HIGH[t] + wh[t] + Math.floor(one / 0x100000000)) | 0;
    const s0h = ((ah >>> 28) | (al << 4)) ^ ((al >>> 2) | (ah << 30)) ^ ((al >>> 7) | (ah << 25));
    const s0l = ((al >>> 28) | (ah << 4)) ^ ((ah >>> 2) | (al << 30)) ^ ((ah >>> 7) | (al << 25));
    const majL = (al & bl) ^ (al & cl) ^ (bl & cl), majH = (ah & bh) ^ (ah & ch) ^ (bh & ch);
    const two = (s0l >>> 0) + (majL >>> 0);
    const twoH = s0h + majH + Math.floor(two / 0x100000000);
    hh = gh; hl = gl; gh = fh; gl = fl; fh = eh; fl = el;
    const e = (dl >>> 0) + (oneL >>> 0);
    el = e | 0; eh = (dh + oneH + Math.floor(e / 0x100000000)) | 0;
    dh = ch; dl = cl; ch = bh; cl = bl; bh = ah; bl = al;
    const a = (oneL >>> 0) + ((two | 0) >>> 0);
    al = a | 0; ah = (oneH + twoH + Math.floor(a / 0x100000000)) | 0;
  }
  const states = [ah, bh, ch, dh, eh, fh, gh, hh], rests = [al, bl, cl, dl, el, fl, gl, hl];
  for (let t = 0; t < 8; t += 1) {
    const sum = (low[t] >>> 0) + (rests[t] >>> 0);
    low[t] = sum;
    high[t] += states[t] + Math.floor(sum / 0x100000000);
  }
}

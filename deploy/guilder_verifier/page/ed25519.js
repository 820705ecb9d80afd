// Ed25519 signatures, checked (RFC 8032, section 5.1), in BigInt.
// Only checking: no secret comes here, so running time tells nothing that matters.
// Addition: Hisil et al. 2008, section 3.1, on -x^2 + y^2 = 1 + d x^2 y^2; its formula
// holds for every pair of points.
"use strict";

const PRIME = 2n ** 255n - 19n;
const GROUP = 2n ** 252n + 27742317777372353535851937790883648493n;
const mod = (value) => { const rest = value % PRIME; return rest < 0n ? rest + PRIME : rest; };

function power(base, exponent) {
  let result = 1n, square = mod(base);
  for (let rest = exponent; rest > 0n; rest >>= 1n) {
    if (rest & 1n) result = (result * square) % PRIME;
    square = (square * square) % PRIME;
  }
  return result;
}

const inverse = (value) => power(value, PRIME - 2n);
const CURVE = mod(-121665n * inverse(121666n));
const ROOT = power(2n, (PRIME - 1n) / 4n); // of -1
const NEUTRAL = [0n, 1n, 1n, 0n]; // X, Y, Z, T with x = X/Z, y = Y/Z, x y = T/Z

function add([x1, y1, z1, t1], [x2, y2, z2, t2]) {
  const a = ((y1 - x1) * (y2 - x2)) % PRIME, b = ((y1 + x1) * (y2 + x2)) % PRIME;
  const c = (2n * CURVE * ((t1 * t2) % PRIME)) % PRIME, d = (2n * z1 * z2) % PRIME;
  const e = b - a, f = d - c, g = d + c, h = b + a;
  return [(e * f) % PRIME, (g * h) % PRIME, (f * g) % PRIME, (e * h) % PRIME];
}

function littleEndian(bytes) {
  return BigInt("0x" + hexOf(Uint8Array.from(bytes).reverse()));
}

/** The point of 32 bytes; null where there is none, or a second spelling of one. */
function pointOf(bytes) {
  const number = littleEndian(bytes);
  const y = number & (2n ** 255n - 1n), odd = number >> 255n;
  if (y >= PRIME) return null;
  const top = mod(y * y - 1n), bottom = mod(CURVE * y * y + 1n);
  let x = mod(top * power(bottom, 3n) * power(top * power(bottom, 7n), (PRIME - 5n) / 8n));
  if (mod(bottom * x * x) !== top) x = mod(x * ROOT);
  if (mod(bottom * x * x) !== top || (x === 0n && odd === 1n)) return null;
  if ((x & 1n) !== odd) x = PRIME - x;
  return [x, y, 1n, mod(x * y)];
}

function encoded([x, y, z]) {
  const rest = inverse(z);
  const number = mod(y * rest) | ((mod(x * rest) & 1n) << 255n);
  return number.toString(16).padStart(64, "0").match(/../g).reverse().join("");
}

/** For each four bits of a scalar their sixteen multiples: nothing is left to double. */
function multiples(point) {
  const rows = [];
  for (let step = point, window = 0; window < 64; window += 1) {
    const row = [NEUTRAL];
    for (let at = 1; at <= 16; at += 1) row.push(add(row[at - 1], step));
    rows.push(row);
    step = row[16];
  }
  return rows;
}

function addMultiple(total, rows, scalar) {
  let sum = total;
  for (let window = 0, rest = scalar; rest > 0n; window += 1, rest >>= 4n) {
    sum = add(sum, rows[window][Number(rest & 15n)]);
  }
  return sum;
}

const BASE = multiples(pointOf(unhex("58" + "66".repeat(31), 32)));
const KEYS = new Memory();

/** Multiples of minus a key; "none" where it is no key, or one with which all can sign. */
function keyOf(publicHex) {
  if (!isHex(publicHex, 64)) return "none";
  const point = pointOf(unhex(publicHex, 32));
  if (point === null) return "none";
  let small = point;
  for (let doubled = 0; doubled < 3; doubled += 1) small = add(small, small);
  if (small[0] === 0n) return "none";
  const [x, y, z, t] = point;
  return multiples([mod(-x), y, z, mod(-t)]);
}

/** Whether 128 hexadecimal digits are this key's signature over these bytes. */
function isSigned(publicHex, message, signature) {
  if (!isHex(signature, 128)) return false;
  const key = KEYS.of(publicHex, keyOf);
  const scalar = littleEndian(unhex(signature.slice(64), 32));
  if (key === "none" || scalar >= GROUP) return false;
  const hashed = new Uint8Array(64 + message.length);
  hashed.set(unhex(signature.slice(0, 64), 32));
  hashed.set(unhex(publicHex, 32), 32);
  hashed.set(message, 64);
  const challenge = littleEndian(sha512(hashed)) % GROUP;
  // s B = R + h A, so R = s B + h (-A)
  const point = addMultiple(addMultiple(NEUTRAL, BASE, scalar), key, challenge);
  return encoded(point) === signature.slice(0, 64);
}

// Bytes, text and hexadecimal digits; and what a verifier says of a fault.
// Knows no file and no format.
"use strict";

const ENCODER = new TextEncoder();

/** A fault: an id as in docs/errors, and one sentence. */
class Finding extends Error {
  constructor(errorId, what) {
    super(`${errorId}: ${what}`);
    this.errorId = errorId;
    this.what = what;
  }
}

/** What reading something that cannot be throws, until its place is known. */
class Impossible extends Error {}

function demand(holds) {
  if (holds !== true) throw new Impossible("what cannot be");
}

function bytesOf(text) {
  return ENCODER.encode(text);
}

function hexOf(bytes) {
  let digits = "";
  for (const byte of bytes) digits += (byte + 256).toString(16).slice(1);
  return digits;
}

function isHex(value, numDigits) {
  return typeof value === "string" && value.length === numDigits && /^[0-9a-f]*$/.test(value);
}

/** Bytes of exactly so many small hexadecimal digits; throws where they are none. */
function unhex(digits, numBytes) {
  demand(isHex(digits, 2 * numBytes));
  const bytes = new Uint8Array(numBytes);
  for (let at = 0; at < numBytes; at += 1) {
    bytes[at] = parseInt(digits.slice(2 * at, 2 * at + 2), 16);
  }
  return bytes;
}

/** A map that forgets everything when it is full: files share most of their entries. */
class Memory extends Map {
  of(key, make) {
    let found = this.get(key);
    if (found === undefined) {
      if (this.size >= 8192) this.clear();
      found = make(key);
      this.set(key, found);
    }
    return found;
  }
}

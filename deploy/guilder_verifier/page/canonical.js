// Canonical JSON (RFC 8785): what is read must be what would have been written.
// So no second spelling, no member twice and no number that loses digits gets through.
"use strict";

const DEEPEST = 64; // arrays and objects inside one another

/** The value that this text is the canonical JSON of; throws where it is none. */
function parsed(text) {
  const value = JSON.parse(text);
  demand(canonical(value) === text);
  return value;
}

/** A value's canonical JSON; throws where there is none. */
function canonical(value, depth = DEEPEST) {
  if (value === null || typeof value === "boolean") return String(value);
  if (typeof value === "string") {
    demand(!/\p{Surrogate}/u.test(value)); // half a character
    return JSON.stringify(value);
  }
  if (typeof value === "number") {
    demand(Number.isFinite(value));
    // Whole numbers above 2^53 are not exact in every language.
    demand(!Number.isInteger(value) || Number.isSafeInteger(value) || Math.abs(value) >= 1e21);
    return JSON.stringify(value);
  }
  demand(depth > 0 && typeof value === "object");
  if (Array.isArray(value)) return `[${value.map((part) => canonical(part, depth - 1)).join(",")}]`;
  const members = Object.keys(value).sort().map(
    (name) => `${canonical(name)}:${canonical(value[name], depth - 1)}`);
  return `{${members.join(",")}}`;
}

/** Whether an object has a member of its own; nothing is inherited. */
function has(object, name) {
  return Object.prototype.hasOwnProperty.call(object, name);
}

function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Whether an object has exactly these members. */
function hasExactly(object, names) {
  return isObject(object) && Object.keys(object).length === names.length &&
    names.every((name) => has(object, name));
}

/** Whether two values are the same JSON. */
function same(one, other) {
  return canonical(one) === canonical(other);
}

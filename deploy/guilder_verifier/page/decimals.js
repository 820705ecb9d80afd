// Sums of decimals as they were typed, exactly: a whole number times a power of ten.
// Knows no budget.
"use strict";

const NOTHING = { digits: 0n, power: 0 };

/** The shortest decimal that reads back as this number. */
function exact(number) {
  const [mantissa, exponent] = String(number).split("e");
  const [whole, part = ""] = mantissa.split(".");
  return { digits: BigInt(whole + part), power: Number(exponent ?? 0) - part.length };
}

function aligned(one, other) {
  const power = Math.min(one.power, other.power);
  const scaled = ({ digits, power: own }) => digits * 10n ** BigInt(own - power);
  return [scaled(one), scaled(other), power];
}

function plus(one, other) {
  const [a, b, power] = aligned(one, other);
  return { digits: a + b, power };
}

function minus(one, other) {
  return plus(one, { digits: -other.digits, power: other.power });
}

function isAtMost(one, other) {
  const [a, b] = aligned(one, other);
  return a <= b;
}

/** The nearest number. */
function rounded({ digits, power }) {
  return Number(`${digits}e${power}`);
}

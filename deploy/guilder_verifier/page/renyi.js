// Rényi divergences of the Gaussian mechanism, by binomial sums alone.
// Adjacency: add or remove one unit. With a sample the divergence of a whole order a is
// log(sum over k of C(a, k) q^k (1 - q)^(a - k) exp((k^2 - k) / (2 s^2))) / (a - 1);
// the binomial weights sum to 1, so exp(...) - 1 from k = 2 on and log(1 + sum) lose
// nothing to rounding. Source: Mironov, Talwar and Zhang 2019, section 3.3.
"use strict";

const ORDERS = [6, 8, 10, 12, 16, 24, 32, 64];

/**
 * Divergence of one step, in nats; rate 1 is no sampling. A discrete Gaussian has the
 * Gaussian's at whole orders, exactly (Canonne, Kamath and Steinke 2020).
 */
function divergence(order, noise, rate, kind) {
  if (kind === "laplace") return laplace(order, noise);
  if (rate === 1) return order / (2 * noise ** 2);
  const terms = [];
  for (let k = 2; k <= order; k += 1) terms.push(logTerm(order, k, noise, rate));
  const largest = Math.max(...terms);
  const sum = terms.reduce((total, term) => total + Math.exp(term - largest), 0);
  return logOfOnePlusExp(largest + Math.log(sum)) / (order - 1);
}

/** Of a count with Laplace noise. Source: Mironov 2017, proposition 6. */
function laplace(order, scale) {
  const rising = Math.log(order / (2 * order - 1)) + (order - 1) / scale;
  const falling = Math.log((order - 1) / (2 * order - 1)) - order / scale;
  const largest = Math.max(rising, falling);
  return (largest + Math.log(Math.exp(rising - largest) + Math.exp(falling - largest))) / (order - 1);
}

function logTerm(order, k, noise, rate) {
  let ways = 1n;
  for (let at = 1; at <= k; at += 1) ways = (ways * BigInt(order - k + at)) / BigInt(at);
  const weight = Math.log(Number(ways)) + k * Math.log(rate) + (order - k) * Math.log1p(-rate);
  const exponent = (k * k - k) / (2 * noise ** 2);
  if (exponent < 1) return weight + Math.log(Math.expm1(exponent));
  return weight + exponent + Math.log1p(-Math.exp(-exponent));
}

function logOfOnePlusExp(x) {
  return x > 0 ? x + Math.log1p(Math.exp(-x)) : Math.log1p(Math.exp(x));
}

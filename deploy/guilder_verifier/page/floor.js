// A figure that the true epsilon of Gaussian steps is never below.
// Whoever sees all outputs may add them up and look only at the sum: with the unit it is
// normal around a binomial count, without it around 0, and the best test is a threshold
// (Neyman and Pearson). Without sampling nothing is lost (Balle and Wang 2018).
"use strict";

const MOST_SAMPLES = 2000, SPREADS = 9, HALVINGS = 44;
const FLOORS = new Memory();

/** At least this much do these steps [noise, rate, how many] cost at this delta. */
function floorOf(steps, delta) {
  let told = 0, precision = 0;
  for (const [noise, rate, count] of steps) {
    if (rate === 1) precision += count / noise ** 2;
    else told = Math.max(told, remembered(noise, rate, count, delta));
  }
  if (precision > 0) told = Math.max(told, remembered(1 / Math.sqrt(precision), 1, 1, delta));
  return told;
}

function remembered(noise, rate, count, delta) {
  return FLOORS.of([noise, rate, count, delta].join(" "), () => floorAt(noise, rate, count, delta));
}

function floorAt(noise, rate, count, delta) {
  const looked = Math.min(count, Math.max(1, Math.trunc(MOST_SAMPLES / rate)));
  const weights = weightsOf(rate, looked), spread = noise * Math.sqrt(looked);
  const deltaAt = (epsilon) => {
    const threshold = halved(-40 * spread, 40 * spread + weights[weights.length - 1][0],
      (at) => logRatio(weights, spread, at) < epsilon)[1];
    const beyond = weights.reduce((sum, [k, w]) => sum + w * tail((threshold - k) / spread), 0);
    return beyond - Math.exp(epsilon) * tail(threshold / spread);
  };
  if (deltaAt(0) <= delta) return 0;
  let low = 0, high = 1;
  while (deltaAt(high) > delta && high < 512) [low, high] = [high, 2 * high];
  return halved(low, high, (epsilon) => deltaAt(epsilon) > delta)[0];
}

/** The two ends of an interval after many halvings; `isLow` says which half to keep. */
function halved(from, to, isLow) {
  let low = from, high = to;
  for (let step = 0; step < HALVINGS; step += 1) {
    const middle = (low + high) / 2;
    if (isLow(middle)) low = middle; else high = middle;
  }
  return [low, high];
}

function logRatio(weights, spread, at) {
  const parts = weights.map(([k, w]) => Math.log(w) + (2 * k * at - k * k) / (2 * spread ** 2));
  const largest = parts.reduce((most, part) => Math.max(most, part), -Infinity);
  return largest + Math.log(parts.reduce((sum, part) => sum + Math.exp(part - largest), 0));
}

/** Of each number of samples that held the unit: its chance, where there is any. */
function weightsOf(rate, count) {
  if (rate === 1) return [[count, 1]];
  const mean = count * rate, reach = SPREADS * Math.sqrt(mean * (1 - rate)) + 9;
  const first = Math.max(0, Math.trunc(mean - reach)), last = Math.min(count, Math.trunc(mean + reach));
  const weights = [];
  for (let k = first; k <= last; k += 1) {
    const ways = logFactorial(count) - logFactorial(k) - logFactorial(count - k);
    weights.push([k, Math.exp(ways + k * Math.log(rate) + (count - k) * Math.log1p(-rate)) || 5e-324]);
  }
  return weights;
}

/** Logarithm of n!, by Stirling's series from 16 on. */
function logFactorial(n) {
  if (n < 16) {
    let product = 1;
    for (let k = 2; k <= n; k += 1) product *= k;
    return Math.log(product);
  }
  const x = n + 1, z = 1 / (x * x);
  return (x - 0.5) * Math.log(x) - x + 0.5 * Math.log(2 * Math.PI) +
    (1 / 12 - z * (1 / 360 - z * (1 / 1260 - z / 1680))) / x;
}

/** Of the standard normal distribution, above x. */
function tail(x) {
  if (x < 0) return 1 - tail(-x);
  const y = x / Math.SQRT2, scale = Math.exp(-y * y) / Math.sqrt(Math.PI);
  if (y < 2.5) {
    let term = 2 * y, sum = 0;
    for (let n = 1; term > 1e-18 * sum || n < 4; n += 1) {
      sum += term;
      term *= (2 * y * y) / (2 * n + 1);
      if (n > 200) break;
    }
    return (1 - scale * sum) / 2;
  }
  let fraction = 0;
  for (let n = 60; n >= 1; n -= 1) fraction = n / 2 / (y + fraction);
  return scale / (y + fraction) / 2;
}

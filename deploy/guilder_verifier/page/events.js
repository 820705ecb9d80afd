// Mechanisms as data: what one unit may meet, and what each order charges for it.
// An event of a kind that is not documented is refused: nobody could say what it costs.
"use strict";

const LEAST_NOISE = 0.05, MOST_NOISE = 1e6, MOST_STEPS = 1e7, MOST_LEVELS = 4, MOST_PARTS = 16;
const MOST_RENYI = 1e6; // nats charged where the divergence is larger: above any capacity
const NEAR = 1e-5; // between two machines' arithmetic on the same event

const isCount = (value) => Number.isSafeInteger(value) && value >= 1;
const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
const isBelow = (most) => (value) => isNumber(value) && value > 0 && value < most;

/** False where any part is a release without noise; throws where it is no event. */
function isProtected(event, levels = MOST_LEVELS) {
  demand(levels > 0 && isObject(event) && typeof event.event === "string");
  if (event.event === "self-composed") return isProtected(event.of, levels - 1);
  if (event.event === "parallel") {
    demand(Array.isArray(event.of) && event.of.length > 0);
    return event.of.map((part) => isProtected(part, levels - 1)).every(Boolean);
  }
  return event.event !== "none-protected";
}

const UNSAMPLED = ["gaussian", "laplace", "discrete-gaussian"];

/** What one unit may meet: of each case its steps [noise, rate, how many, kind]. */
function casesOf(event, count = 1) {
  demand(isObject(event));
  if (event.event === "none-protected") {
    demand(hasExactly(event, ["event"]));
    return [];
  }
  if (event.event === "self-composed") {
    demand(hasExactly(event, ["event", "count", "of"]) && isCount(event.count));
    return casesOf(event.of, count * event.count);
  }
  if (event.event === "parallel") {
    demand(hasExactly(event, ["event", "of"]) && Array.isArray(event.of));
    demand(event.of.length >= 2 && event.of.length <= MOST_PARTS);
    return event.of.flatMap((part) => casesOf(part, count));
  }
  let rate = 1, step = event;
  if (event.event === "poisson-sampled") {
    demand(hasExactly(event, ["event", "sampling_probability", "of"]));
    rate = event.sampling_probability;
    step = event.of;
  }
  const known = step === event ? UNSAMPLED : ["gaussian"];
  demand(hasExactly(step, ["event", "noise_multiplier"]) && known.includes(step.event));
  const noise = step.noise_multiplier;
  demand(isBelow(MOST_NOISE)(noise) && noise >= LEAST_NOISE);
  demand(isBelow(1.1)(rate) && rate <= 1 && count <= MOST_STEPS);
  return [[[noise, rate, count, step.event]]];
}

/** Whether a turn was charged, order by order, what its event costs. */
function isChargedEnough(event, charged) {
  return ORDERS.every((order) => casesOf(event).every((steps) => {
    const cost = steps.reduce((sum, [noise, rate, n, kind]) => sum + n * divergence(order, noise, rate, kind), 0);
    return charged.get(order) >= Math.min(cost, MOST_RENYI) * (1 - NEAR);
  }));
}

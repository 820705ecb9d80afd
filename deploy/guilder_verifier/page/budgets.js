// Budgets and what studies took from them: sums, Rényi filters, periods.
// Computed anew from the grants, exactly: decimals as they were typed, and whole grains
// of 2^-40 nats. Knows no entry and no order.
"use strict";

const GRAIN = 2 ** -40, KEPT_BACK = 0.01, DAY_S = 86400;

const grainsOf = (nats) => BigInt(Math.ceil(Math.min(nats, MOST_RENYI) / GRAIN));
const noCost = () => ({ epsilon: NOTHING, delta: NOTHING, grains: ORDERS.map(() => 0n) });

function bothCosts(one, other) {
  return {
    epsilon: plus(one.epsilon, other.epsilon), delta: plus(one.delta, other.delta),
    grains: one.grains.map((grains, at) => grains + other.grains[at]),
  };
}

const sumOf = (grants) => grants.reduce((total, grant) => bothCosts(total, grant.taken()), noCost());

/** One study of one run, and what it did. */
class Grant {
  constructor(body) {
    this.body = body;
    this.turns = new Map(); // by number, oldest first
    this.newestTurn = 0;
    this.isClosed = false;
    this.charged = new Map(ORDERS.map((order) => [order, body.renyi[order]]));
  }

  /** Turns, with the next one, whose share of the metrics no turn released. */
  unmeasured() {
    const released = [...this.turns.values()].reduce((sum, turn) => sum + turn.measures, 0);
    return this.turns.size + 1 - released;
  }

  /** What it takes now: all its turns while open, those spent once closed. */
  taken() {
    const numTurns = this.isClosed ? this.turns.size : this.body.num_turns;
    if (!this.body.protected || numTurns === 0) return noCost();
    return {
      epsilon: exact(this.body.epsilon), delta: exact(this.body.delta),
      grains: ORDERS.map((order) => grainsOf(this.charged.get(order)) * BigInt(numTurns)),
    };
  }

  /** A part of the accepted study; empty where the grant does not carry it. */
  part(name) {
    const text = own(this.body.meta, "study");
    const study = text === undefined ? {} : JSON.parse(text);
    const part = own(study, name) ?? {};
    demand(isObject(study) && isObject(part));
    return part;
  }

  get isSimulated() {
    return own(this.body.meta, "simulated") === true;
  }
}

/** One budget as its newest order says, and the grants that count against it. */
class Budget {
  constructor(terms, begun) {
    this.terms = terms;
    this.begun = begun; // seconds of its first order's entry: where periods begin
    this.grants = new Map(); // by id, in the order in which they began to count
    this.isInForce = true;
    this.gap = noCost();
    this.losses = []; // [time in seconds, epsilon]
    this.known = null;
  }

  /** Kept until `forget`: no turn changes what an open grant takes. */
  total() {
    this.known ??= bothCosts(this.gap, sumOf([...this.grants.values()]));
    return this.known;
  }

  /** Add up anew: a grant came or closed, or something was lost. */
  forget() {
    this.known = null;
  }

  /** Charge lost entries: their events are unknown, so no Rényi filter holds them. */
  chargeGap({ epsilon, delta }, time) {
    const lost = { epsilon: exact(epsilon), delta: exact(delta), grains: ORDERS.map(() => grainsOf(MOST_RENYI)) };
    this.gap = bothCosts(this.gap, lost);
    this.losses.push([time, lost.epsilon]);
  }

  /** Whether at least one filter holds all of it. */
  holds(taken) {
    const { epsilon, delta } = this.terms;
    if (isAtMost(taken.epsilon, exact(epsilon)) && isAtMost(taken.delta, exact(delta / 2))) return true;
    return [...this.capacities()].some(([order, room]) => taken.grains[ORDERS.indexOf(order)] <= room / GRAIN);
  }

  /** Of each Rényi filter in use, in nats. */
  capacities() {
    const half = this.terms.delta / 2, { epsilon } = this.terms;
    const kept = ORDERS.filter((order) => capacity(order, epsilon, half / ORDERS.length) > 0);
    return new Map(kept.map((order) => [order, capacity(order, epsilon, half / kept.length)]));
  }

  /** Whether the period has room for a grant that does not count yet. */
  periodHolds(grant) {
    if (this.terms.period === null) return true;
    const taken = plus(this.takenInPeriod(grant.body.time), grant.taken().epsilon);
    return isAtMost(taken, exact(this.terms.period.epsilon));
  }

  /** Epsilon of what was accepted, or charged for a loss, in the period of a time. */
  takenInPeriod(time) {
    const number = this.periodOf(secondsOf(time));
    const accepted = [...this.grants.values()].map((each) => [secondsOf(each.body.time), each.taken().epsilon]);
    return [...accepted, ...this.losses].filter(([at]) => this.periodOf(at) === number)
      .reduce((sum, [, epsilon]) => plus(sum, epsilon), NOTHING);
  }

  periodOf(seconds) {
    return Math.floor((seconds - this.begun) / (this.terms.period.days * DAY_S));
  }
}

/** Source: Canonne, Kamath and Steinke 2020, proposition 12, for the divergence. */
function capacity(order, epsilon, delta) {
  const part = (Math.log(delta * (1 - KEPT_BACK)) + Math.log(order)) / (order - 1);
  return epsilon * (1 - KEPT_BACK) + part - Math.log1p(-1 / order);
}

/** A budget's sums as reports give them. */
function sumsOf(budget) {
  const grants = [...budget.grants.values()];
  const spent = bothCosts(budget.gap, sumOf(grants.filter((grant) => grant.turns.size > 0)));
  const reserved = sumOf(grants.filter((grant) => grant.turns.size === 0));
  const both = bothCosts(spent, reserved);
  const part = (name, limit) => {
    const left = minus(exact(limit), both[name]);
    return {
      limit, spent: rounded(spent[name]), reserved: rounded(reserved[name]),
      left: left.digits < 0n ? 0 : rounded(left),
    };
  };
  const used = [...budget.capacities()].map(
    ([order, room]) => [order, Number(both.grains[ORDERS.indexOf(order)]) / (room / GRAIN)]);
  return {
    epsilon: part("epsilon", budget.terms.epsilon), delta: part("delta", budget.terms.delta / 2), used,
  };
}

/** What the period releases that a time lies in; null where there is none. */
function periodAt(budget, time) {
  const { period } = budget.terms;
  if (period === null) return null;
  const length = period.days * DAY_S;
  const start = budget.begun + budget.periodOf(secondsOf(time)) * length;
  const taken = budget.takenInPeriod(time), left = minus(exact(period.epsilon), taken);
  return {
    begins: stampOf(start), ends: stampOf(start + length - 1), epsilon: period.epsilon,
    taken_epsilon: rounded(taken), left_epsilon: left.digits < 0n ? 0 : rounded(left),
  };
}

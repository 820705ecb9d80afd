// The entries replayed: each must be possible after those before it.
// Written from docs/ledger.md, "Rules that a reader can check".
"use strict";

const FORMAT = 2, NUM_REPEATS = 3, LEAST_SLACK = 1e-3;
const PLAN = ["noise_multiplier", "num_turns", "sensitivity_slack"];

class Replay {
  constructor() {
    this.site = this.key = this.time = this.firstOfficer = "";
    this.orders = new Orders("");
    this.budgets = new Map(); // by name, those withdrawn as well
    this.grants = new Map(); // by id, oldest first
    this.refusals = [];
    this.runs = new Set();
    this.heads = new Map(); // by server: commitments, in the order of their numbers
    this.words = new Map(); // by server: the highest number that it signed for
    this.forgot = new Map(); // by server: what it forgot, by number
    this.cohorts = new Set();
    this.excluded = new Set();
  }

  /** Learn one entry; throws a Finding where it cannot follow those before it. */
  apply(entry) {
    try {
      const body = JSON.parse(entry.body);
      demand((entry.seq === 1) === (entry.kind === "ledger"));
      if (entry.kind === "ledger") checkFormat(own(body, "format"));
      demandEntry(entry.kind, body);
      demand(body.time >= this.time);
      LEARN.get(entry.kind)(this, body, entry);
      if (["order", "reserve", "close"].includes(entry.kind)) {
        for (const budget of this.budgets.values()) budget.forget();
      }
      this.time = body.time;
    } catch (error) {
      if (error instanceof Finding) throw error;
      throw new Finding("GLD-I007", `entry ${entry.seq} (${entry.kind}) cannot follow the entries before it`);
    }
  }

  /** The budgets that are not withdrawn, by name. */
  inForce() {
    const named = [...this.budgets.values()].filter((budget) => budget.isInForce);
    return named.sort((one, other) => compareText(one.terms.name, other.terms.name));
  }

  budgetsOf(grant) {
    return this.inForce().filter((budget) => budget.terms.datasets.includes(grant.body.dataset));
  }

  grant(id) {
    const found = this.grants.get(id);
    demand(found !== undefined);
    return found;
  }

  openTurn(body) {
    const grant = this.grant(body.grant_id), turn = grant.turns.get(body.turn_no);
    demand(turn !== undefined && !turn.isDone);
    return [grant, turn];
  }

  headsFor(server) {
    if (!this.heads.has(server)) this.heads.set(server, []);
    return this.heads.get(server);
  }
}

/** By code points, as other languages sort. */
function compareText(one, other) {
  const a = [...one], b = [...other];
  for (let at = 0; at < Math.min(a.length, b.length); at += 1) {
    if (a[at] !== b[at]) return a[at].codePointAt(0) - b[at].codePointAt(0);
  }
  return a.length - b.length;
}

function checkFormat(format) {
  demand(isCount(format));
  if (format !== FORMAT) {
    throw new Finding(format > FORMAT ? "GLD-I061" : "GLD-I060", `the ledger has format ${format}; this reads ${FORMAT}`);
  }
}

const LEARN = new Map(Object.entries({
  ledger: (book, body) => {
    book.site = body.site;
    book.key = body.public_key;
    book.firstOfficer = body.officer;
    book.orders = new Orders(body.officer);
  },
  order: learnOrder,
  reserve: learnReserve,
  refuse: (book, body) => { book.refusals.push(body); },
  spend: learnSpend,
  seal: learnSeal,
  "give-up": (book, body) => {
    const [, turn] = book.openTurn(body);
    Object.assign(turn, { isDone: true, isGivenUp: true, measures: 0 });
  },
  receipt: learnReceipt,
  forgot: (book, body) => {
    demand(book.words.get(body.server) === body.head_no && body.remembers < body.head_no);
    if (!book.forgot.has(body.server)) book.forgot.set(body.server, new Map());
    const lost = book.forgot.get(body.server);
    demand(!lost.has(body.head_no));
    lost.set(body.head_no, { at: body.time, signed: body.head_no, remembered: body.remembers });
  },
  cohort: (book, body) => {
    const grant = book.grant(body.grant_id);
    demand(grant.turns.size > 0 && !grant.isClosed && !book.cohorts.has(body.grant_id));
    book.cohorts.add(body.grant_id);
  },
  exclude: (book, body) => {
    demand(body.in_force || book.excluded.has(body.dataset));
    if (body.in_force) book.excluded.add(body.dataset); else book.excluded.delete(body.dataset);
  },
  close: (book, body) => {
    const grant = book.grant(body.grant_id);
    demand(!grant.isClosed && body.num_spent === grant.turns.size);
    grant.isClosed = true;
  },
}));

function learnOrder(book, body, entry) {
  const order = book.orders.admit(body, book.site, entry.seq);
  const time = secondsOf(body.time);
  if (order.say === "withdraw" && book.budgets.has(order.name)) book.budgets.get(order.name).isInForce = false;
  if (order.say === "gap") acknowledge(book, order, time);
  if (order.say !== "budget") return;
  if (!book.budgets.has(order.name)) book.budgets.set(order.name, new Budget(order, time));
  const budget = book.budgets.get(order.name);
  Object.assign(budget, { terms: order, isInForce: true });
  for (const [id, grant] of book.grants) {
    if (order.datasets.includes(grant.body.dataset)) budget.grants.set(id, grant);
  }
}

function acknowledge(book, order, time) {
  const budget = book.budgets.get(order.budget);
  demand(budget !== undefined && budget.isInForce);
  budget.chargeGap(order, time);
  const told = book.headsFor(order.server);
  while (told.length < order.head_no) told.push("");
  told[order.head_no - 1] = order.commitment;
}

function learnReserve(book, body) {
  demand(body.protected === isProtected(body.turn_event));
  casesOf(body.turn_event);
  const grant = new Grant(body), run = canonical([body.server, body.run_id, body.study_digest]);
  demand(!book.grants.has(body.grant_id) && !book.runs.has(run));
  demand(book.orders.permits(body.approval, body));
  const named = book.budgetsOf(grant);
  if (body.protected) {
    demand(named.length > 0 && named.every(({ terms }) => terms.unit === null || terms.unit === body.unit));
    demand(named.every((budget) => budget.holds(bothCosts(budget.total(), grant.taken()))));
    demand(named.every((budget) => budget.periodHolds(grant)));
  }
  book.grants.set(body.grant_id, grant);
  book.runs.add(run);
  for (const budget of named) budget.grants.set(body.grant_id, grant);
}

function learnSpend(book, body) {
  const grant = book.grant(body.grant_id), before = grant.turns.get(body.turn_no);
  const measures = own(body, "measures") ?? 0;
  demand(!grant.isClosed && body.attempt <= 1 + NUM_REPEATS);
  if (before === undefined) {
    demand(measures === 0 || measures <= grant.unmeasured());
    demand(grant.newestTurn < body.turn_no && body.turn_no <= grant.body.num_turns);
    demand(body.attempt === 1 && !book.orders.revoked.has(grant.body.approval));
    const named = book.budgetsOf(grant);
    demand(!grant.body.protected || (named.length > 0 && named.every((b) => b.holds(b.total()))));
  } else {
    demand(!before.isDone && before.requestHash === body.request_hash && before.measures === measures);
    demand(body.attempt === before.attempt + 1);
  }
  grant.newestTurn = Math.max(grant.newestTurn, body.turn_no);
  grant.turns.set(body.turn_no, {
    requestHash: body.request_hash, attempt: body.attempt, measures,
    chargedAt: before === undefined ? body.time : before.chargedAt,
    isDone: false, isGivenUp: false, sha256: null, sealedAt: null, received: null,
  });
}

function learnSeal(book, body, entry) {
  const [grant, turn] = book.openTurn(body), told = book.headsFor(grant.body.server);
  demand(body.head_no === told.length + 1);
  const lines = `guilder-head-1\n${body.salt}\n${entry.seq}\n${entry.hash}\n`;
  told.push(hexOf(sha256(bytesOf(lines))));
  Object.assign(turn, { isDone: true, sha256: body.sha256, sealedAt: body.time });
}

function learnReceipt(book, body) {
  const grant = book.grant(body.grant_id), turn = grant.turns.get(body.turn_no);
  demand(turn !== undefined && turn.sha256 !== null && turn.received === null && turn.sha256 === body.receipt);
  turn.received = body.receipt;
  const witness = own(body, "witness") ?? null;
  if (witness === null) return;
  demand(hasExactly(witness, ["server_key", "head_no", "commitment", "signature"]) && isCount(witness.head_no));
  demand(isText(witness.commitment) && book.headsFor(grant.body.server)[witness.head_no - 1] === witness.commitment);
  const said = `guilder-witness-1\n${book.site}\n${witness.head_no}\n${witness.commitment}\n`;
  demand(isSigned(witness.server_key, bytesOf(said), witness.signature));
  const { server } = grant.body;
  book.words.set(server, Math.max(witness.head_no, book.words.get(server) ?? 0));
}

/** Replay all entries and check what each study was charged. */
function replayed(entries) {
  const book = new Replay();
  for (const entry of entries) book.apply(entry);
  for (const grant of book.grants.values()) checkCharge(grant);
  return book;
}

function checkCharge(grant) {
  const { body } = grant;
  let holds = false;
  try {
    holds = (!body.protected || isChargedEnough(body.turn_event, grant.charged)) && isAsked(grant);
  } catch { /* told below */ }
  if (!holds) {
    throw new Finding("GLD-I013", `study '${body.study_name}' was charged less than it costs, or is not the one accepted`);
  }
}

/** Whether the study carried along is the one accepted, and promises the same. */
function isAsked(grant) {
  const { body } = grant, text = own(body.meta, "study");
  if (text === undefined) return true;
  const privacy = grant.part("privacy");
  const asked = [
    grant.part("data").dataset, grant.part("study").recipe, privacy.unit, privacy.epsilon, privacy.delta,
    grant.part("aggregation").min_sites, privacy.mechanism !== "none",
  ];
  const promised = ["dataset", "recipe", "unit", "epsilon", "delta", "cohort", "protected"].map((name) => body[name]);
  return hexOf(sha256(bytesOf(text))) === body.study_digest &&
    asked.every((part, at) => part === promised[at]) && same(plannedEvent(grant), body.turn_event);
}

/** The event of a turn that the study and its plan make. */
function plannedEvent(grant) {
  const { plan } = grant.body.meta, training = grant.part("training");
  const { noise_multiplier: noise, num_turns: numTurns, sensitivity_slack: slack } = plan;
  const measured = own(plan, "measuring_noise");
  demand(hasExactly(plan, [...PLAN, ...(measured === undefined ? [] : ["measuring_noise"])]));
  demand(numTurns === grant.body.num_turns);
  if (noise === null) {
    demand((measured ?? null) === null);
    return { event: "none-protected" };
  }
  demand(isNumber(noise) && isNumber(slack));
  const times = (count, of) => ({ event: "self-composed", count, of });
  const asked = grant.part("statistics");
  if (asked.noise !== undefined) { // its sums are exact: one release, or one of each question
    const count = asked.noise === "gaussian" ? 1 : Object.keys(asked.ask).length;
    return times(count, { event: asked.noise, noise_multiplier: noise });
  }
  let step = { event: "gaussian", noise_multiplier: noise / (1 + Math.max(slack, LEAST_SLACK)) };
  if (training.sample_rate !== 1) {
    step = { event: "poisson-sampled", sampling_probability: training.sample_rate, of: step };
  }
  const steps = times(training.local_steps, step);
  if ((measured ?? null) === null) return steps;
  return { event: "parallel", of: [steps, times(1, { event: "gaussian", noise_multiplier: measured })] };
}

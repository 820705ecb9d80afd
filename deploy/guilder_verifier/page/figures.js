// What a report has to say, from its entries; and a claimed report held against it.
// A Rule stands in each place whose exact value is not computed here: a sentence, a
// figure near another one, an epsilon above its floor.
"use strict";

const PRIORS = [0.01, 0.1, 0.5], MOST_POINTS = 12;
const ADJACENCY = {
  record: "add or remove one record",
  person: "add or remove all rows of one person at this site",
  site: "all rows of this site against none of them; that it takes part is public",
};

const COUNTED = {
  record: "every row, counted once",
  person: "every person, counted once, as the mean of all its rows",
};
const PHRASES = ["SIMULATED", "UNPROTECTED", ...Object.values(ADJACENCY)];

class Rule {
  constructor(kind, value = 0, numbers = [], phrases = []) {
    Object.assign(this, { kind, value, numbers, phrases });
  }
}

const TEXT = new Rule("text");

/** Everything in a report but its signature. */
function figuresOf(book, rows) {
  const last = rows[rows.length - 1], silent = silencesOf(book);
  return {
    schema: REPORT + NEWEST[REPORT],
    as_of: book.time,
    site: { name: book.site, public_key: book.key },
    officer: { public_key: book.orders.officer, fingerprint: fingerprint(book.orders.officer) },
    studies: [...book.grants.values()].map((grant) => studyOf(book, grant)),
    budgets: book.inForce().map((budget) => budgetOf(book, budget)),
    orders: book.orders.lines(),
    refusals: book.refusals,
    not_protected: new Rule("texts"),
    ...(silent.length > 0 ? { silences: silent } : {}),
    ledger: { head: { seq: last.seq, hash: last.hash }, entries: rows },
  };
}

/** Each server that was ever excused or ever forgot, by name. */
function silencesOf(book) {
  const excuses = new Map();
  for (const [id, { order, time }] of book.orders.admitted) {
    if (order.say !== "excuse") continue;
    if (!excuses.has(order.server)) excuses.set(order.server, []);
    const revoked = book.orders.revoked.get(id) ?? null;
    excuses.get(order.server).push({ order_id: id, since: time, expires: order.expires, revoked_at: revoked });
  }
  return [...new Set([...excuses.keys(), ...book.forgot.keys()])].sort(compareText).map((server) => ({
    server, excused: excuses.get(server) ?? [], forgot: [...(book.forgot.get(server)?.values() ?? [])],
  }));
}

/** Whether a grant's events are sure to cost more than was accepted. */
function costsTooMuch(grant) {
  const { body } = grant;
  return body.protected && leastOf(grant, body.num_turns, body.delta) > body.epsilon * (1 + NEAR);
}

/** The most that one of the units an event may meet is sure to pay. */
function leastOf(grant, numTurns, delta) {
  const isGaussian = (steps) => steps.every(([, , , kind]) => kind === "gaussian");
  const floors = casesOf(grant.body.turn_event).filter(isGaussian).map(
    (steps) => floorOf(steps.map(([noise, rate, n]) => [noise, rate, n * numTurns]), delta));
  return Math.max(0, ...floors);
}

function studyOf(book, grant) {
  const { body } = grant, permitted = book.orders.admitted.get(body.approval);
  const software = own(body.meta, "software"); // older sites did not say
  return {
    name: body.study_name, purpose: String(own(grant.part("study"), "purpose") ?? ""),
    digest: body.study_digest, grant_id: body.grant_id, run_id: body.run_id, server: body.server,
    dataset: body.dataset, accepted_at: body.time, ended: grant.isClosed,
    approval: { ...book.orders.line(body.approval), officer: fingerprint(permitted.officer) },
    ...(isObject(software) ? { software } : {}),
    guarantee: guaranteeOf(grant), curve: curveOf(grant), beliefs: beliefsOf(grant),
    events: [eventOf(grant)], totals: totalsOf(grant),
    releases: [...grant.turns].map(([turnNo, turn]) => ({
      turn_no: turnNo, charged_at: turn.chargedAt, started: turn.attempt, sealed_at: turn.sealedAt,
      sha256: turn.sha256, received: turn.received !== null, given_up: turn.isGivenUp,
    })),
  };
}

function guaranteeOf(grant) {
  const { body } = grant, privacy = grant.part("privacy");
  const told = {
    unit: body.unit, adjacency: ADJACENCY[body.unit],
    mechanism: String(own(privacy, "mechanism") ?? "site-noise"), sampling: samplingOf(grant),
    sample_rate: own(grant.part("training"), "sample_rate") ?? null,
    clip_norm: own(privacy, "clip_norm") ?? null,
    noise_multiplier: own(own(body.meta, "plan") ?? {}, "noise_multiplier") ?? null,
    delta: body.delta, epsilon: body.protected ? body.epsilon : null,
    protected: body.protected, simulated: grant.isSimulated,
    against: TEXT, scope: TEXT, sentence: sentenceOf(grant),
  };
  if (body.unit !== "record") told.caveat = TEXT;
  const sites = own(privacy, "max_sites_per_person") ?? null;
  if (sites !== null && body.protected) {
    demand(isNumber(sites));
    told.across_sites = { max_sites: sites, epsilon: sites * body.epsilon, delta: sites * body.delta };
  }
  return told;
}

function sentenceOf({ body, isSimulated }) {
  const phrases = [body.protected ? ADJACENCY[body.unit] : "UNPROTECTED"];
  if (isSimulated) phrases.push("SIMULATED");
  return new Rule("sentence", 0, body.protected ? [body.epsilon, body.delta] : [], phrases);
}

/** Whom a step looks at, in the words of docs/ledger.md. */
function samplingOf(grant) {
  const { unit } = grant.body, always = own(grant.part("training"), "sample_rate") === 1;
  if (Object.keys(grant.part("statistics")).length > 0) return COUNTED[unit === "person" ? unit : "record"];
  if (unit === "person") {
    const who = always ? "every person in every step" : "Poisson over persons";
    return `${who}, at most ${own(grant.part("privacy"), "max_records") ?? "None"} rows of each`;
  }
  if (unit === "site") return `the whole site, ${always ? "in every step" : "Poisson"}`;
  return always ? "every row in every step" : "Poisson";
}

function curveOf(grant) {
  const { body } = grant;
  if (!body.protected) return [];
  return [0.1, 1, 10].map((factor) => Number((body.delta * factor).toPrecision(3))).filter((delta) => delta < 1)
    .map((delta) => ({ delta, epsilon: new Rule("cost", leastOf(grant, body.num_turns, delta)) }));
}

function beliefsOf(grant) {
  if (!grant.body.protected) return [];
  const odds = Math.exp(Math.min(grant.body.epsilon, 700));
  return PRIORS.map((before) => {
    const most = (before * odds) / (before * odds + 1 - before);
    return { before, at_most: new Rule("near", Math.ceil(most * 1e6) / 1e6) };
  });
}

function eventOf({ body, turns }) {
  const line = { event: body.turn_event, num_turns: body.num_turns, num_turns_spent: turns.size };
  return body.unit === "record" ? line : { ...line, unit: body.unit };
}

function totalsOf(grant) {
  const { body, turns } = grant;
  const cost = (numTurns) => {
    if (numTurns === 0) return 0;
    return body.protected ? new Rule("cost", leastOf(grant, numTurns, body.delta)) : null;
  };
  const told = {
    epsilon: body.protected ? body.epsilon : null, delta: body.delta, covers: TEXT,
    recomputed_epsilon: cost(body.num_turns),
    prefix: { covers: TEXT, epsilon: cost(turns.size), num_turns: turns.size },
  };
  const evidence = own(body, "evidence") ?? null;
  return evidence === null ? told : { ...told, evidence };
}

function budgetOf(book, budget) {
  const { epsilon, delta, used } = sumsOf(budget), byUnit = byUnitOf(budget);
  const told = {
    name: budget.terms.name, datasets: budget.terms.datasets, unit: budget.terms.unit,
    period: periodAt(budget, book.time), epsilon, delta, delta_of_all_filters: budget.terms.delta,
    history: historyOf(budget),
    renyi_used: Object.fromEntries(used.map(([order, share]) => [order, new Rule("near", share)])),
  };
  return Object.keys(byUnit).some((unit) => unit !== "record") ? { ...told, by_unit: byUnit } : told;
}

function byUnitOf(budget) {
  const grants = [...budget.grants.values()], told = {};
  for (const unit of new Set(grants.map((grant) => grant.body.unit))) {
    const total = sumOf(grants.filter((grant) => grant.body.unit === unit));
    told[unit] = { epsilon: rounded(total.epsilon), delta: rounded(total.delta) };
  }
  return told;
}

function historyOf(budget) {
  const counted = [...budget.grants.values()].filter((grant) => grant.taken().epsilon.digits > 0n);
  const delta = budget.terms.delta / 2;
  return counted.map((grant, at) => {
    const soFar = counted.slice(0, at + 1), units = new Set(soFar.map((each) => each.body.unit));
    const least = () => Math.max(...soFar.map((each) => leastOf(each, each.body.num_turns, delta)));
    return {
      time: grant.body.time, study: grant.body.study_name, sum: rounded(sumOf(soFar).epsilon),
      composed: units.size > 1 ? null : new Rule("cost", least()),
    };
  }).slice(-MOST_POINTS);
}

/** Throws a Finding at the first place where a claim is not what it must be. */
function compareFigures(truth, claimed, where = "report") {
  const differs = new Finding("GLD-I013", `${where} does not follow from the file's own entries`);
  if (truth instanceof Rule) {
    if (!keeps(truth, claimed)) throw differs;
  } else if (isObject(truth) && isObject(claimed)) {
    const names = Object.keys(truth).sort();
    const added = Object.keys(claimed).filter((name) => !has(truth, name)).sort();
    if (added.length > 0) throw new Finding("GLD-I091", `${where} has a member '${added[0].slice(0, 60)}'`);
    if (names.length !== Object.keys(claimed).length) throw differs;
    for (const name of names) compareFigures(truth[name], claimed[name], `${where}.${name}`);
  } else if (Array.isArray(truth) && Array.isArray(claimed)) {
    if (truth.length !== claimed.length) throw differs;
    truth.forEach((part, at) => compareFigures(part, claimed[at], `${where}[${at + 1}]`));
  } else if (truth !== claimed) {
    throw differs;
  }
}

function keeps(rule, claimed) {
  if (rule.kind === "texts") return Array.isArray(claimed) && claimed.every(isText);
  if (rule.kind === "text") return isText(claimed);
  if (rule.kind === "sentence") return isText(claimed) && says(claimed, rule);
  if (!isNumber(claimed)) return false;
  return rule.kind === "near" ? isNear(claimed, rule.value) : claimed >= rule.value * (1 - NEAR);
}

function isNear(one, other) {
  return Math.abs(one - other) <= NEAR * Math.max(Math.abs(one), Math.abs(other));
}

/** Whether a sentence's figures and phrases are these, however it is worded. */
function says(sentence, { numbers, phrases }) {
  const told = (sentence.match(/[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?/g) ?? []).map(Number);
  return told.length === numbers.length && told.every((number, at) => isNear(number, numbers[at])) &&
    PHRASES.every((phrase) => sentence.includes(phrase) === phrases.includes(phrase));
}

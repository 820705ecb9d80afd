// What the members of each kind of entry, and of each order, must be.
// Written from docs/ledger.md; other members are allowed in entries, none in orders.
"use strict";

const UNITS = ["record", "person", "site"];
const MOST_EPSILON = 1000, MOST_DAYS = 36500, MOST_LIST = 1000, MOST_HEADS = 1e6;

const isText = (value) => typeof value === "string";
const isFlag = (value) => typeof value === "boolean";
const isWhole = (value) => Number.isSafeInteger(value) && value >= 0;
const isUnit = (value) => UNITS.includes(value);
const isDelta = isBelow(1);
const isEpsilon = (value) => isNumber(value) && value > 0 && value <= MOST_EPSILON;
const isDigest = (value) => isHex(value, 64);
const hexOfLength = (digits) => (value) => isHex(value, digits);
const orAbsent = (holds) => (value) => value === undefined || holds(value);
const orNull = (holds) => (value) => value === null || holds(value);
const listOf = (holds, least) => (value) =>
  Array.isArray(value) && value.length >= least && value.length <= MOST_LIST && value.every(holds);

/** A name that can be shown: no control characters, no marks that turn the writing. */
function isName(value) {
  return isText(value) && [...value].length <= 200 && /^(?: |[^\p{C}\p{Z}])+$/u.test(value);
}

/** A time as entries tell it, that is one; seconds since 1970 by `secondsOf`. */
function isTime(value) {
  if (!isText(value) || !/^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$/.test(value)) return false;
  const moment = Date.parse(value);
  return value >= "0001" && !Number.isNaN(moment) && stampOf(moment / 1000) === value;
}

function secondsOf(time) {
  demand(isTime(time));
  return Date.parse(time) / 1000;
}

function stampOf(seconds) {
  return `${new Date(seconds * 1000).toISOString().slice(0, -5)}Z`;
}

const isCharge = (value) => isObject(value) &&
  ORDERS.every((order) => isNumber(value[order]) && value[order] >= 0);
const isMeta = (value) => isObject(value) && orAbsent(isText)(own(value, "study")) &&
  orAbsent(isFlag)(own(value, "simulated")) && orAbsent(isObject)(own(value, "plan"));

/** A member of an object's own; undefined where it has none. */
function own(object, name) {
  return has(object, name) ? object[name] : undefined;
}

const ENTRY_SHAPES = new Map(Object.entries({
  ledger: { format: isCount, site: isText, public_key: isDigest, officer: isDigest },
  order: { order: isObject, signature: hexOfLength(128) },
  reserve: {
    grant_id: isText, run_id: isText, server: isText, study_digest: isText, study_name: isText,
    dataset: isText, recipe: isText, unit: isUnit, cohort: isCount, num_turns: isCount,
    approval: isDigest, epsilon: isBelow(Infinity), delta: isDelta, turn_event: isObject,
    protected: isFlag, renyi: isCharge, meta: isMeta, evidence: orAbsent(orNull(isObject)),
  },
  refuse: {},
  spend: {
    grant_id: isText, request_hash: isText, turn_no: isCount, attempt: isCount,
    measures: orAbsent(isWhole),
  },
  seal: { grant_id: isText, turn_no: isCount, sha256: isText, head_no: isCount, salt: hexOfLength(32) },
  "give-up": { grant_id: isText, turn_no: isCount },
  receipt: { grant_id: isText, turn_no: isCount, receipt: isText, witness: orAbsent(orNull(isObject)) },
  forgot: { server: isText, head_no: isCount, remembers: isWhole },
  cohort: { grant_id: isText, commitment: isDigest },
  exclude: { dataset: (value) => isText(value) && value !== "", commitment: isDigest, in_force: isFlag },
  close: { grant_id: isText, num_spent: isWhole },
}));

const isPeriod = (value) => hasExactly(value, ["days", "epsilon"]) &&
  isCount(value.days) && value.days <= MOST_DAYS && isEpsilon(value.epsilon);
const ORDER_HEADER = { site: isName, serial: isCount, issued: isTime, expires: orNull(isTime) };
const ORDER_SHAPES = new Map(Object.entries({
  budget: {
    name: isName, epsilon: isEpsilon, delta: isDelta, datasets: listOf(isName, 1),
    unit: orNull(isUnit), period: orNull(isPeriod),
  },
  withdraw: { name: isName },
  "public-size": { dataset: isName, rows: isCount, persons: orNull(isCount) },
  rule: {
    name: isName, recipes: listOf(isName, 1), datasets: listOf(isName, 0), units: listOf(isUnit, 1),
    largest_epsilon: isEpsilon, largest_delta: isDelta, smallest_cohort: isCount, allow_unprotected: isFlag,
  },
  approve: { study_digest: isDigest, study_name: isName, epsilon: isEpsilon, delta: isDelta },
  revoke: { order_id: isDigest },
  officer: { public_key: isDigest },
  excuse: { server: isName },
  gap: {
    server: isName, head_no: (value) => isCount(value) && value <= MOST_HEADS, commitment: isDigest,
    budget: isName, epsilon: isEpsilon, delta: isDelta,
  },
}));

function demandEntry(kind, body) {
  const shape = ENTRY_SHAPES.get(kind);
  demand(shape !== undefined && isObject(body) && isTime(own(body, "time")));
  for (const [name, holds] of Object.entries(shape)) demand(holds(own(body, name)));
}

function demandOrder(order) {
  const shape = ORDER_SHAPES.get(own(order, "say"));
  demand(shape !== undefined && order.schema === ORDER_SCHEMA);
  const members = { ...ORDER_HEADER, ...shape };
  demand(hasExactly(order, ["schema", "say", ...Object.keys(members)]));
  for (const [name, holds] of Object.entries(members)) demand(holds(order[name]));
  const expiring = ["rule", "approve", "excuse"].includes(order.say);
  demand(order.expires === null ? order.say !== "rule" : expiring);
}

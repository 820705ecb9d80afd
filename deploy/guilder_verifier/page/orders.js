// The officer's orders: admitted one by one, and what they permit.
// Written from docs/ledger.md, "Orders of the officer". Knows no budget's sums.
"use strict";

const ORDER_SCHEMA = "guilder-order-1";
// A budget and its withdrawal are one subject: an old budget must not undo the latter.
const SUBJECTS = new Map(Object.entries({
  budget: ["budget", "name"], withdraw: ["budget", "name"], "public-size": ["public-size", "dataset"],
  rule: ["rule", "name"], approve: ["approve", "study_digest"], revoke: ["revoke", "order_id"],
  officer: ["officer", "schema"], excuse: ["excuse", "server"], gap: ["gap", "commitment"],
}));

function fingerprint(publicHex) {
  return hexOf(sha256(unhex(publicHex, 32))).slice(0, 16).match(/.{4}/g).join(" ");
}

function subjectOf(order) {
  const [family, member] = SUBJECTS.get(order.say);
  return `${family}\n${order[member]}`;
}

/** Every order so far; `officer` is the key that signs the next one. */
class Orders {
  constructor(officer) {
    this.officer = officer;
    this.revoked = new Map(); // id -> time
    this.admitted = new Map(); // id -> {order, seq, time, officer}
    this.newest = new Map(); // subject -> id
  }

  /** Learn the order of an entry; throws where it is not of this site, not signed, not new. */
  admit(body, site, seq) {
    const order = body.order;
    demandOrder(order);
    const form = canonical(order);
    demand(order.site === site && isSigned(this.officer, bytesOf(`${ORDER_SCHEMA}\n${form}`), body.signature));
    const before = this.admitted.get(this.newest.get(subjectOf(order)));
    demand(before === undefined || order.serial > before.order.serial);
    const id = hexOf(sha256(bytesOf(form)));
    this.admitted.set(id, { order, seq, time: body.time, officer: this.officer });
    this.newest.set(subjectOf(order), id);
    if (order.say === "revoke") this.revoked.set(order.order_id, body.time);
    if (order.say === "officer") this.officer = order.public_key;
    return order;
  }

  /** Whether this very order permits this study at the time of its entry. */
  permits(id, grant) {
    const found = this.admitted.get(id);
    if (found === undefined || !["approve", "rule"].includes(found.order.say)) return false;
    const { order } = found;
    if (this.newest.get(subjectOf(order)) !== id || this.revoked.has(id)) return false;
    if (order.expires !== null && grant.time >= order.expires) return false;
    return order.say === "approve" ? isApproved(order, grant) : isWithin(order, grant);
  }

  /** One order as reports list it. */
  line(id) {
    const { order, seq, time } = this.admitted.get(id);
    const member = order.say === "approve" ? "study_name" : SUBJECTS.get(order.say)[1];
    return {
      order_id: id, say: order.say, name: order.say === "officer" ? "" : String(order[member]),
      entry: seq, admitted_at: time, issued: order.issued, expires: order.expires,
      revoked_at: this.revoked.get(id) ?? null,
    };
  }

  lines() {
    return [...this.admitted.keys()].map((id) => this.line(id));
  }
}

function isApproved(order, grant) {
  if (order.study_digest !== grant.study_digest) return false;
  return !grant.protected || (grant.epsilon <= order.epsilon && grant.delta <= order.delta);
}

function isWithin(rule, grant) {
  const ceilings = grant.protected
    ? grant.epsilon <= rule.largest_epsilon && grant.delta <= rule.largest_delta
    : rule.allow_unprotected;
  return ceilings && rule.recipes.includes(grant.recipe) && rule.units.includes(grant.unit) &&
    (rule.datasets.length === 0 || rule.datasets.includes(grant.dataset)) &&
    grant.cohort >= rule.smallest_cohort;
}

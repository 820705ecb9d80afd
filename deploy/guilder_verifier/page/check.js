// A whole file checked: what there is to say. A file that is not sound has no answer.
"use strict";

/**
 * Check a report, an export or a consortium's report.
 * known: {keys: sites' public keys, officers: officers' first keys}, as the reader has them.
 * ledger: bytes of an export to compare a report with, or null.
 */
function check(bytes, known = { keys: [], officers: [] }, ledger = null) {
  const text = textOf(bytes);
  if (isConsortium(text)) {
    if (ledger !== null) throw new Finding("GLD-I094", "a consortium's report is compared with no ledger");
    return checkConsortium(text, known);
  }
  return checkSigned(text, known, ledger);
}

function checkSigned(text, known, ledger) {
  const signed = readSigned(text, known.keys);
  const book = replayed(signed.entries);
  if (known.officers.length > 0 && !known.officers.includes(book.firstOfficer)) {
    throw new Finding("GLD-I092", `the ledger began with the officer's key ${book.firstOfficer.slice(0, 16)}…, not one you gave`);
  }
  checkContent(signed, book);
  for (const grant of book.grants.values()) checkCost(grant);
  if (ledger !== null) compareWith(signed, readSigned(textOf(ledger), known.keys));
  return answerOf(signed, book, known, ledger !== null);
}

function checkContent(signed, book) {
  const { signature, ...claimed } = signed.content;
  void signature;
  if (!signed.schema.startsWith(REPORT)) {
    compareFigures({ name: book.site, public_key: book.key }, claimed.site, "site");
    return;
  }
  let truth;
  try {
    truth = figuresOf(book, claimed.ledger.entries);
  } catch {
    throw new Finding("GLD-I013", "a part cannot even be computed");
  }
  compareFigures(truth, claimed);
}

function checkCost(grant) {
  if (costsTooMuch(grant)) {
    throw new Finding("GLD-I014",
      `the events of study '${grant.body.study_name}' cost more than the ${grant.body.epsilon} that were accepted`);
  }
}

/** Both of one ledger, and the first the beginning of the second. */
function compareWith(one, other) {
  const sameEntry = (a, b) => a.hash === b.hash && a.signature === b.signature;
  if (one.key !== other.key || !sameEntry(one.entries[0], other.entries[0])) {
    throw new Finding("GLD-I073", "the two files are of different sites or ledgers");
  }
  const at = one.entries.findIndex((entry, n) => n < other.entries.length && !sameEntry(entry, other.entries[n]));
  if (at >= 0) throw new Finding("GLD-I074", `the two files differ from entry ${at + 1} on`);
  if (other.entries.length < one.entries.length) {
    throw new Finding("GLD-I074", `the ledger ends at entry ${other.entries.length}, the other file at ${one.entries.length}`);
  }
  replayed(other.entries);
}

function answerOf(signed, book, known, compared) {
  return {
    ok: true, schema: signed.schema, site: book.site, public_key: book.key,
    key_confirmed: known.keys.length > 0, officer_confirmed: known.officers.length > 0,
    ledger_compared: compared, officer: book.orders.officer,
    as_of: book.time, num_entries: signed.entries.length,
    num_witnessed: signed.entries.filter(({ body }) => body.includes('"witness":{')).length,
    budgets: book.inForce().map((budget) => {
      const { epsilon, delta, used } = sumsOf(budget);
      return { name: budget.terms.name, datasets: budget.terms.datasets, epsilon, delta, renyi_used: Object.fromEntries(used) };
    }),
    studies: [...book.grants.values()].map(studyLine), silences: silencesOf(book),
  };
}

function studyLine(grant) {
  const { body } = grant;
  return {
    name: body.study_name, digest: body.study_digest, unit: body.unit, protected: body.protected,
    simulated: grant.isSimulated, epsilon: body.protected ? body.epsilon : null, delta: body.delta,
    num_turns: body.num_turns, num_turns_spent: grant.turns.size,
    at_least: body.protected ? leastOf(grant, body.num_turns, body.delta) : null,
  };
}

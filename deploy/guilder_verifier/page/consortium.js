// A consortium's report: every report in it checked whole, and its table made anew.
// It bears no signature of its own, for everybody can compute it again.
"use strict";

const CONSORTIUM = "guilder-consortium-", NEWEST_CONSORTIUM = 1, MOST_SITES = 1000;

function isConsortium(text) {
  return text.startsWith('{"reports":');
}

function checkConsortium(text, known) {
  if (!text.endsWith("}\n")) throw cutOff();
  const { reports, ...table } = consortiumIn(text);
  const raws = reports.map((report) => `${canonical(report)}\n`);
  const answers = raws.map((raw) => checkSigned(raw, known, null));
  if (new Set(answers.map((answer) => answer.public_key)).size < answers.length) {
    throw new Finding("GLD-I093", "two of its reports are of one site");
  }
  compareFigures(tableOf(reports, raws), table, "report");
  return {
    ok: true, schema: table.schema, sites: answers,
    key_confirmed: known.keys.length > 0, officer_confirmed: known.officers.length > 0,
  };
}

function consortiumIn(text) {
  let content;
  try {
    content = parsed(text.slice(0, -1));
    demand(isObject(content) && isText(own(content, "schema")) && content.schema.startsWith(CONSORTIUM));
    demand(Array.isArray(content.reports) && content.reports.length > 0 && content.reports.every(isObject));
    demand(content.reports.length <= MOST_SITES);
  } catch {
    throw noFile("it is no canonical JSON, or a part of it is missing");
  }
  const number = content.schema.slice(CONSORTIUM.length);
  if (/^[0-9]{1,9}$/.test(number) && Number(number) > NEWEST_CONSORTIUM) {
    throw new Finding("GLD-I070", `${content.schema} is newer than this page`);
  }
  if (number !== String(NEWEST_CONSORTIUM)) throw noFile("it names no schema that is read here");
  return content;
}

/** What the reports say together. */
function tableOf(reports, raws) {
  const studies = new Map();
  const sites = reports.map((report, at) => ({
    site: report.site.name, public_key: report.site.public_key, as_of: report.as_of,
    head: report.ledger.head, sha256: hexOf(sha256(bytesOf(raws[at]))),
  }));
  for (const report of reports) {
    for (const study of report.studies) {
      if (!studies.has(study.digest)) studies.set(study.digest, sharedLine(study));
      studies.get(study.digest).sites.push(siteLine(report.site.name, study));
    }
  }
  return { schema: CONSORTIUM + NEWEST_CONSORTIUM, sites, studies: [...studies.values()] };
}

function sharedLine({ name, digest, purpose, guarantee }) {
  const { unit } = guarantee;
  const across = own(guarantee, "across_sites") ?? null;
  return { name, digest, purpose, unit, protected: guarantee.protected, across_sites: across, sites: [] };
}

function siteLine(site, { run_id, totals, events, approval, guarantee }) {
  const [{ num_turns, num_turns_spent }] = events;
  return {
    site, run_id, epsilon: totals.epsilon, delta: totals.delta, num_turns, num_turns_spent,
    approval: approval.order_id, simulated: guarantee.simulated,
  };
}

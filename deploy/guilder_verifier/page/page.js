// The page itself: files in, a verdict out. Every value is set as text, never as markup.
"use strict";

const LANGUAGES = ["en", "zh-Hans"];
let language = navigator.language.startsWith("zh") ? 1 : 0;
let shown = () => {};
const chosen = { report: null, ledger: null };
const byId = (id) => document.getElementById(id);
const say = (name) => TEXTS[name][language];

function element(tag, text = "", ...children) {
  const made = document.createElement(tag);
  made.textContent = text;
  made.append(...children);
  return made;
}

function write() {
  document.documentElement.lang = LANGUAGES[language];
  document.title = say("title");
  for (const each of document.querySelectorAll("[data-say]")) each.textContent = say(each.dataset.say);
  byId("language").textContent = say("other");
  byId("language").lang = LANGUAGES[1 - language];
  byId("limits").replaceChildren(...LIMITS.map((texts) => element("li", texts[language])));
  shown();
}

function show(draw) {
  shown = () => byId("verdict").replaceChildren(...draw());
  shown();
}

function told(kind, title, ...rest) {
  const box = element("section", "", element("h2", title), ...rest);
  box.className = `verdict ${kind}`;
  return box;
}

/** The keys that a reader typed, by spaces or lines; throws where one is none. */
function keysIn(id) {
  const typed = byId(id).value.toLowerCase().split(/[\s,;]+/).filter((word) => word !== "");
  if (!typed.every((word) => isHex(word, 64))) throw new Error("bad_key");
  return typed;
}

async function bytesIn(file) {
  // A file that is too large is refused by its size, before it fills the memory.
  const part = file.size > MOST_BYTES ? file.slice(0, MOST_BYTES + 1) : file;
  return new Uint8Array(await part.arrayBuffer());
}

async function verify() {
  byId("verdict").dataset.state = "busy";
  show(() => [element("p", say("waiting"))]);
  try {
    if (chosen.report === null) throw new Error("no_file");
    const known = { keys: keysIn("keys"), officers: keysIn("officers") };
    const raw = await bytesIn(chosen.report);
    const ledger = chosen.ledger === null ? null : await bytesIn(chosen.ledger);
    await new Promise((done) => setTimeout(done)); // let the page be drawn
    const answer = check(raw, known, ledger);
    const sites = answer.sites ?? [answer];
    end("sound", () => [told("sound", say("sound"), ...sites.flatMap((site) => siteParts(site, answer)))]);
  } catch (error) {
    if (error instanceof Finding) {
      end(error.errorId, () => [told("unsound", `${say("unsound")}: ${error.errorId}`,
        element("p", `${error.what}.`), element("p", say("place")))]);
    } else if (has(TEXTS, error.message)) {
      end("asked", () => [element("p", say(error.message))]);
    } else {
      end("GLD-I011", () => [told("unsound", `${say("unsound")}: GLD-I011`, element("p", String(error)))]);
    }
  }
}

function end(state, draw) {
  show(draw);
  byId("verdict").dataset.state = state;
  byId("verdict").focus();
}

function table(caption, head, rows) {
  const line = (cells, tag) => element("tr", "", ...cells.map((cell) => element(tag, String(cell))));
  const heads = line(head, "th");
  for (const cell of heads.children) cell.scope = "col";
  return element("table", "", element("caption", caption), element("thead", "", heads),
    element("tbody", "", ...rows.map((row) => line(row, "td"))));
}

function siteParts(site, answer) {
  const facts = [
    [say("site"), site.site], [say("as_of"), site.as_of], [say("entries"), site.num_entries],
    [say("witnessed"), site.num_witnessed],
    [say("key"), `${site.public_key} (${say(answer.key_confirmed ? "known" : "unknown")})`],
    [say("officer"), `${site.officer} (${say(answer.officer_confirmed ? "known" : "unknown_officer")})`],
    [say("compared"), say(site.ledger_compared ? "yes" : "no")],
  ];
  const rows = facts.map(([name, value]) => {
    const head = element("th", name);
    head.scope = "row";
    return element("tr", "", head, element("td", String(value)));
  });
  return [
    element("h3", site.site), element("table", "", element("tbody", "", ...rows)),
    table(say("budgets"), ["budget", "spent", "reserved", "left", "limit"].map(say), site.budgets.map(budgetRow)),
    table(say("studies"), ["study", "unit", "promise", "floor", "turns"].map(say), site.studies.map(studyRow)),
    ...(site.silences.length === 0 ? []
      : [table(say("silences"), ["server", "why", "when"].map(say), site.silences.flatMap(silentRows))]),
  ];
}

function budgetRow({ name, epsilon, delta }) {
  return [name, epsilon.spent, epsilon.reserved, epsilon.left, `${epsilon.limit}, ${2 * delta.limit}`];
}

function studyRow(study) {
  const unit = say(study.unit === "site" ? "site_unit" : study.unit);
  const promise = study.protected ? `${study.epsilon} (${study.delta})` : say("unprotected");
  const stamp = study.simulated ? ` ${say("simulated")}` : "";
  const least = study.protected ? study.at_least.toFixed(3) : "";
  return [study.name, unit, promise + stamp, least, `${study.num_turns_spent} / ${study.num_turns}`];
}

/** When a server would not have noticed an old ledger: excused, or without its memory. */
function silentRows({ server, excused, forgot }) {
  const ends = ({ expires, revoked_at: revoked }) =>
    [expires, revoked].filter((end) => end !== null).sort()[0] ?? say("no_end");
  return [
    ...excused.map((excuse) => [server, say("excused"), `${excuse.since} – ${ends(excuse)}`]),
    ...forgot.map((lost) => [server, `${say("forgot")}: ${lost.signed} → ${lost.remembered}`, lost.at]),
  ];
}

/** Files by what they are: the last line of an export is no report's. */
async function take(files) {
  for (const file of files) {
    const isExport = (await file.slice(0, BODY.length).text()) === BODY;
    const place = isExport && (chosen.report !== null || files.length > 1) ? "ledger" : "report";
    chosen[place] = file;
  }
  await verify();
}

function start() {
  byId("language").addEventListener("click", () => { language = 1 - language; write(); });
  byId("check").addEventListener("click", verify);
  for (const place of ["report", "ledger"]) {
    byId(place).addEventListener("change", () => { chosen[place] = byId(place).files[0] ?? null; });
  }
  const drop = byId("drop");
  for (const name of ["dragenter", "dragover"]) {
    drop.addEventListener(name, (event) => { event.preventDefault(); drop.classList.add("over"); });
  }
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    take([...event.dataTransfer.files]);
  });
  write();
}

start();

// Reports and exports as files: found, chained, signed and canonical, or refused.
// The order of the checks is that of docs/ledger.md; nothing is parsed before hashes and
// signatures hold. What the entries say is not judged here.
"use strict";

const MOST_BYTES = 2 ** 28;
const REPORT = "guilder-report-", EXPORT = "guilder-ledger-export-";
const NEWEST = { [REPORT]: 2, [EXPORT]: 1 };
const FAMILY = /"schema":"(guilder-(?:report|ledger-export)-)([0-9]{1,9})"/y;
const BODY = '{"body":'; // inside text its quotes would be escaped: it only starts entries
const REST = new RegExp(',"hash":"([0-9a-f]{64})","kind":"([a-z-]{1,40})","prev":"([0-9a-f]{64})"' +
  ',"seq":([0-9]{1,15}),"signature":"([0-9a-f]{128})"\\}');
const SEAL = /,"signature":"([0-9a-f]{128})"/g;
const JOURNAL = "guilder-journal-1";
const ENTRIES = new Memory(), SIGNED = new Memory();

function noFile(reason) {
  return new Finding("GLD-I011", `not a report or export as Guilder wrote it: ${reason}`);
}

function cutOff() {
  return new Finding("GLD-I071", "it ends before its end, or goes on after it: it was cut off, or added to");
}

/** The text of a file's bytes. */
function textOf(bytes) {
  if (bytes.length > MOST_BYTES) throw new Finding("GLD-I090", "the file is larger than any report");
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw noFile("it is not UTF-8");
  }
}

/**
 * Check a file's form, chain and signatures.
 * keys: sites' public keys as the reader knows them; none: as the file says.
 * Returns {schema, content, entries, key}.
 */
function readSigned(text, keys) {
  const schema = schemaOf(text);
  const entries = text.split(BODY).slice(1).map((part) => ENTRIES.of(part, entryOf)).filter((e) => e !== "none");
  if (entries.length === 0 || !text.endsWith("}\n")) throw cutOff();
  checkChain(entries);
  const key = keyIn(entries[0]);
  if (keys.length > 0 && !keys.includes(key)) {
    throw new Finding("GLD-I072", `it names the key ${key.slice(0, 16)}…, not the one you gave`);
  }
  checkSeal(text, schema, key);
  checkSignatures(entries, key);
  return { schema, content: contentOf(text, schema, entries), entries, key };
}

function schemaOf(text) {
  const [family, number] = familyOf(text);
  if (family === "") {
    if (text.startsWith('{"as_of":') || text.startsWith(BODY)) throw cutOff();
    throw noFile("it names no schema that is read here");
  }
  if (Number(number) > NEWEST[family]) {
    throw new Finding("GLD-I070", `${family}${number} is newer than this page`);
  }
  if (number !== String(NEWEST[family])) throw noFile("it names no schema that is read here");
  return family + number;
}

/** The last schema that the file names and that is one of these. */
function familyOf(text) {
  for (let at = text.length; at >= 0;) {
    at = text.lastIndexOf('"schema":"guilder-', at);
    if (at < 0) break;
    FAMILY.lastIndex = at;
    const named = FAMILY.exec(text);
    if (named !== null) return [named[1], named[2]];
    at -= 1;
  }
  return ["", ""];
}

function entryOf(part) {
  const rest = REST.exec(part);
  if (rest === null) return "none";
  const [, hash, kind, prev, digits, signature] = rest;
  const body = part.slice(0, rest.index), seq = Number(digits);
  const lines = `${JOURNAL}\n${seq}\n${kind}\n${prev}\n${body}`;
  return { seq, kind, body, prev, hash, signature, isHashed: hexOf(sha256(bytesOf(lines))) === hash };
}

function checkChain(entries) {
  let prev = "0".repeat(64);
  entries.forEach((entry, at) => {
    if (!entry.isHashed || entry.seq !== at + 1 || entry.prev !== prev) {
      throw new Finding("GLD-I001", `entry ${at + 1} is not what was written, or does not follow entry ${at}`);
    }
    prev = entry.hash;
  });
}

function keyIn(first) {
  try {
    const body = JSON.parse(first.body);
    if (isObject(body) && has(body, "public_key")) return String(body.public_key);
  } catch { /* told below */ }
  throw noFile("its first entry names no key");
}

/** The signature over the report, or over the export's last line. */
function checkSeal(text, schema, key) {
  const line = text.slice(0, -1);
  const whole = schema.startsWith(REPORT) ? line : line.slice(line.lastIndexOf("\n") + 1);
  // Only the outermost signature follows the schema: canonical members are sorted.
  SEAL.lastIndex = Math.max(whole.lastIndexOf(`"schema":"${schema}"`), 0);
  const cut = SEAL.exec(whole);
  if (cut !== null) {
    const unsigned = whole.slice(0, cut.index) + whole.slice(cut.index + cut[0].length);
    if (isSigned(key, bytesOf(`${schema}\n${unsigned}`), cut[1])) return;
  }
  throw new Finding("GLD-I012", `its own signature is not of the key ${key.slice(0, 16)}…`);
}

function checkSignatures(entries, key) {
  for (const { seq, hash, signature } of entries) {
    const holds = SIGNED.of(`${key} ${hash} ${signature}`, () =>
      isSigned(key, bytesOf(`${JOURNAL} entry ${hash}`), signature));
    if (!holds) throw new Finding("GLD-I003", `entry ${seq} was not signed by the key ${key.slice(0, 16)}…`);
  }
}

/** The report or last line, if all the file is canonical and nothing is beside. */
function contentOf(text, schema, entries) {
  let rows, content;
  try {
    const lines = text.slice(0, -1).split("\n").map(parsed);
    content = lines.pop();
    const inside = schema.startsWith(REPORT) && lines.length === 0;
    rows = (inside ? content.ledger.entries : lines).map((row) => canonical(row));
    demand(content.schema === schema);
  } catch {
    throw noFile("it is no canonical JSON, or a part of it is missing");
  }
  const held = entries.map((e) => `${BODY}${e.body},"hash":"${e.hash}","kind":"${e.kind}",` +
    `"prev":"${e.prev}","seq":${e.seq},"signature":"${e.signature}"}`);
  if (rows.length !== held.length || rows.some((row, at) => row !== held[at])) {
    throw noFile("it holds something beside its entries");
  }
  if (schema.startsWith(EXPORT)) checkEnd(content, entries);
  return content;
}

function checkEnd(end, entries) {
  const members = ["schema", "site", "num_entries", "head", "signature"];
  const last = entries[entries.length - 1];
  if (!hasExactly(end, members) || end.num_entries !== entries.length || end.head !== last.hash) {
    throw noFile("its last line does not fit its entries");
  }
}

// Run the page's own checks outside a browser: a line in for each file, its verdict out.
// A file is told as what differs from the one loaded before. Packed behind the checks.
{
  const fs = require("fs");
  let base = new Uint8Array(0);
  const lines = require("readline").createInterface({ input: process.stdin });
  lines.on("line", (line) => {
    const asked = JSON.parse(line);
    if (asked.base !== undefined) {
      base = new Uint8Array(fs.readFileSync(asked.base));
      return;
    }
    const inserted = Buffer.from(asked.insert, "hex");
    const raw = Buffer.concat([base.subarray(0, asked.at), inserted, base.subarray(asked.at + asked.remove)]);
    const ledger = asked.ledger === null ? null : new Uint8Array(fs.readFileSync(asked.ledger));
    let told;
    try {
      const known = { keys: asked.keys, officers: asked.officers };
      told = { id: "", answer: check(new Uint8Array(raw), known, ledger) };
    } catch (error) {
      told = error instanceof Finding ? { id: error.errorId, what: error.what } : { id: "BUG", what: error.stack };
    }
    if (!asked.answer) delete told.answer;
    process.stdout.write(`${JSON.stringify(told)}\n`);
  });
}

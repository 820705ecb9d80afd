// Run the page's own checks outside a browser: a line of questions in, their verdicts out.
// A file is told as what differs from the one loaded before. Packed behind the checks.
{
  const fs = require("fs");
  let base = new Uint8Array(0);
  const read = (path) => new Uint8Array(fs.readFileSync(path));
  const changed = ({ at, remove, insert }) => {
    const whole = [base.subarray(0, at), Buffer.from(insert, "hex"), base.subarray(at + remove)];
    return new Uint8Array(Buffer.concat(whole));
  };
  const verdict = (asked) => {
    if (ENTRIES.size > 1024) ENTRIES.clear(); // each key keeps the whole file it was cut from
    try {
      const known = { keys: asked.keys, officers: asked.officers };
      const ledger = asked.ledger === null ? null : read(asked.ledger);
      const answer = check(changed(asked), known, ledger);
      return asked.answer ? { id: "", answer } : { id: "" };
    } catch (error) {
      return error instanceof Finding ? { id: error.errorId, what: error.what } : { id: "BUG", what: error.stack };
    }
  };
  const lines = require("readline").createInterface({ input: process.stdin });
  lines.on("line", (line) => {
    const told = [];
    for (const asked of JSON.parse(line)) {
      if (asked.base !== undefined) base = read(asked.base);
      else told.push(verdict(asked));
    }
    process.stdout.write(`${JSON.stringify(told)}\n`);
  });
}

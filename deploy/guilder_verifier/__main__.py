"""`python guilder-verify.pyz FILE`: the command line.

Exit code 0: every figure that is checked here follows from signed entries. 5: something
is not what was written. 2: asked for what cannot be.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

from guilder_verifier.check import Answer, check
from guilder_verifier.files import MOST_BYTES
from guilder_verifier.finding import Finding

EPILOG = """Opens no connection and writes no file. Computes no privacy loss
distribution: `guilder privacy verify` does."""


def main() -> int:
    """Check the file that the command line names; see `--help`."""
    parser = argparse.ArgumentParser(
        prog="guilder-verify",
        description="Check a privacy report, or an exported ledger, of Guilder.",
        epilog=EPILOG,
    )
    parser.add_argument("file", type=Path, help="NAME.report.json or an export")
    parser.add_argument(
        "--key",
        type=_key,
        action="append",
        default=[],
        help="the site's public key as you know it; of several sites: repeat",
    )
    parser.add_argument(
        "--officer",
        type=_key,
        action="append",
        default=[],
        help="the officer's key that the ledger began with, as you know it",
    )
    parser.add_argument("--ledger", type=Path, help="an export to compare FILE with")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    asked = parser.parse_args()
    try:
        ledger = None if asked.ledger is None else _read(asked.ledger)
        answer = check(_read(asked.file), asked.key, ledger, asked.officer)
    except OSError as error:
        return _fail("GLD-I011", f"{error.filename} cannot be read: {error.strerror}")
    except Finding as found:
        return _fail(found.error_id, found.what)
    told = json.dumps(answer) if asked.json else text(answer)
    _print(sys.stdout, told)
    return 0


def text(answer: Answer) -> str:
    """An answer for people, in plain ASCII but for names."""
    if "sites" in answer:
        told = {name: answer[name] for name in ("key_confirmed", "officer_confirmed")}
        return "\n\n".join(text({**site, **told}) for site in answer["sites"])
    lines = [
        f"{answer['site']}: {answer['num_entries']} ledger entries, chain and "
        f"signatures hold, as of {answer['as_of']}",
        f"signed by {answer['public_key']}",
    ]
    if not answer["key_confirmed"]:
        lines.append("compare this key with the one the site gave you")
    lines.extend(_budget_line(budget) for budget in answer["budgets"])
    lines.extend(_study_line(study) for study in answer["studies"])
    lines.extend(line for each in answer["silences"] for line in _silent_lines(each))
    return "\n".join(lines)


def _budget_line(budget: Answer) -> str:
    epsilon, delta = budget["epsilon"], budget["delta"]
    return (
        f"budget {budget['name']}: epsilon {epsilon['spent']:g} spent, "
        f"{epsilon['reserved']:g} reserved, {epsilon['left']:g} left of "
        f"{epsilon['limit']:g} at delta {2 * delta['limit']:g}"
    )


def _study_line(study: Answer) -> str:
    turns = f"{study['num_turns_spent']} of {study['num_turns']} turns spent"
    if not study["protected"]:
        return f"study {study['name']}: UNPROTECTED; {turns}"
    stamp = " SIMULATED: NO GUARANTEE" if study["simulated"] else ""
    return (
        f"study {study['name']}: epsilon {study['epsilon']:g} at delta "
        f"{study['delta']:g}, unit {study['unit']}; {turns}{stamp}"
    )


def _silent_lines(each: Answer) -> list[str]:
    """Of a server that would not have noticed an old ledger."""
    lines = []
    for excuse in each["excused"]:
        ends = [end for end in (excuse["expires"], excuse["revoked_at"]) if end]
        until = min(ends, default="revoked")
        lines.append(f"server {each['server']}: EXCUSED, {excuse['since']} to {until}")
    for lost in each["forgot"]:
        lines.append(
            f"server {each['server']}: FORGOT at {lost['at']} what it signed "
            f"(head {lost['signed']}, remembered {lost['remembered']})"
        )
    return lines


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MOST_BYTES + 1)


def _key(typed: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", typed):
        raise argparse.ArgumentTypeError("a public key is 64 hexadecimal digits")
    return typed.lower()


def _fail(error_id: str, what: str) -> int:
    _print(sys.stderr, f"{error_id}: {what}")
    return 5


def _print(stream: object, line: str) -> None:
    # A Windows console may not have every character of a name.
    encoding = getattr(stream, "encoding", None) or "ascii"
    print(line.encode(encoding, "backslashreplace").decode(encoding), file=stream)  # type: ignore[call-overload]


if __name__ == "__main__":
    sys.exit(main())

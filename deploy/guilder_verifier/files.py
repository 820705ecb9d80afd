"""Reports and exported ledgers as files: whole, signed, canonical, or refused.

Cheap checks come first: chain, signature of the whole, signatures of the entries; only
then is anything parsed. What the entries say is the other modules' to judge.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from guilder_verifier import canonical, edwards, entries
from guilder_verifier.entries import Entry
from guilder_verifier.finding import Finding

MOST_BYTES = 2**28
REPORT = "guilder-report-"
EXPORT = "guilder-ledger-export-"
NEWEST = {REPORT: 2, EXPORT: 1}
SCHEMA = re.compile(r'"schema":"(guilder-(?:report|ledger-export)-)([0-9]{1,9})"')
SIGNATURE = re.compile(r',"signature":"([0-9a-f]{128})"')


@dataclass(frozen=True)
class Signed:
    """A file that is whole, and signed by the key that its first entry names.

    Attributes:
        schema: `guilder-report-2`, say.
        content: The report, or the export's last line; parsed.
        entries: All of the ledger up to then.
        public_hex: The site's key.
    """

    schema: str
    content: dict[str, Any]
    entries: list[Entry]
    public_hex: str


def read(raw: bytes, keys: Collection[str] = ()) -> Signed:
    """Check a file's form, chain and signatures.

    Args:
        raw: The file's bytes.
        keys: Sites' public keys as the reader knows them; none: as the file says.

    Raises:
        Finding: GLD-I090 it is too large, GLD-I011 it is neither report nor export as
            Guilder writes them, GLD-I070 it is of a newer form, GLD-I071 it was cut
            off, GLD-I072 it names another key than the reader's, GLD-I001 an entry was
            changed, GLD-I012 the whole was not signed, GLD-I003 an entry was not.
    """
    if len(raw) > MOST_BYTES:
        raise Finding("GLD-I090", "the file is larger than any report")
    try:
        text = raw.decode()
    except ValueError:
        raise no_file("it is not UTF-8") from None
    schema = _schema(text)
    found = entries.find(text)
    if not found or not text.endswith("}\n"):
        raise cut_off()
    entries.check_chain(found)
    key = _key(found[0])
    if keys and key not in keys:
        raise Finding(
            "GLD-I072",
            f"it names the key {key[:16]}..., not the one you gave: it is of another "
            "site, or somebody else made it",
        )
    _check_seal(text, schema, key)
    entries.check_signatures(found, key)
    return Signed(schema, _content(text, schema, found), found, key)


def no_file(reason: str) -> Finding:
    """What to say of a file that is none of ours (GLD-I011)."""
    return Finding("GLD-I011", f"not a report or export as Guilder wrote it: {reason}")


def cut_off() -> Finding:
    """What to say of a file without its end, or with more than it (GLD-I071)."""
    return Finding(
        "GLD-I071",
        "it ends before its end, or goes on after it: it was cut off, or added to",
    )


def _schema(text: str) -> str:
    named = _named(text)
    if named is None:
        if text.startswith(('{"as_of":', entries.BODY)):
            raise cut_off()
        raise no_file("it names no schema that is read here")
    family, number = named
    if int(number) > NEWEST[family]:
        raise Finding("GLD-I070", f"{family}{number} is newer than this verifier")
    if number != str(NEWEST[family]):
        raise no_file("it names no schema that is read here")
    return str(family + number)


def _named(text: str) -> tuple[str, str] | None:
    """Family and number of the last schema in the file that is one of these."""
    at = text.rfind('"schema":"guilder-')
    while at >= 0:
        named = SCHEMA.match(text, at)
        if named is not None:
            return named.group(1), named.group(2)
        at = text.rfind('"schema":"guilder-', 0, at)
    return None


def _key(first: Entry) -> str:
    try:
        body = json.loads(first.body)
        return str(body["public_key"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise no_file("its first entry names no key") from None


def _check_seal(text: str, schema: str, key: str) -> None:
    """The signature over the report, or over the export's last line."""
    whole = text[:-1] if schema.startswith(REPORT) else text[:-1].rpartition("\n")[2]
    # Only the outermost signature follows the schema: canonical members are sorted.
    cut = SIGNATURE.search(whole, max(whole.rfind(f'"schema":"{schema}"'), 0))
    if cut is not None:
        unsigned = schema + "\n" + whole[: cut.start()] + whole[cut.end() :]
        signature = bytes.fromhex(cut.group(1))
        if edwards.verify(key, unsigned.encode(), signature):
            return
    raise Finding("GLD-I012", f"its own signature is not of the key {key[:16]}...")


def _content(text: str, schema: str, found: list[Entry]) -> dict[str, Any]:
    """The report or last line, if all the file is canonical and nothing is beside."""
    try:
        lines = [canonical.parse(line.encode()) for line in text[:-1].split("\n")]
    except ValueError as error:
        raise no_file(str(error)) from None
    content, rows = lines[-1], lines[:-1]
    try:
        if schema.startswith(REPORT):
            rows = rows or content["ledger"]["entries"]
        same = [canonical.dump(row).decode() for row in rows]
    except (KeyError, TypeError):
        raise no_file("a part of it is missing or of another kind") from None
    if same != [entry.to_text() for entry in found] or content["schema"] != schema:
        raise no_file("it holds something beside its entries")
    if schema.startswith(EXPORT):
        _check_end(content, found)
    return dict(content)


def _check_end(end: dict[str, Any], found: list[Entry]) -> None:
    members = {"schema", "site", "num_entries", "head", "signature"}
    counted = (end.get("num_entries"), end.get("head"))
    if end.keys() != members or counted != (len(found), found[-1].hash):
        raise no_file("its last line does not fit its entries")

"""Reports and exports as files: found, chained, signed and canonical, or refused.

The order of the checks is that of `docs/ledger.md`, so that every verifier names the
same first fault: hashes come before signatures, and nothing is parsed before both hold.
What entries and figures say is `verify.py`'s to judge.

Review, mathematics: SHA-256 and Ed25519 over the very bytes of the file; a file whose
bytes are not the canonical form of what they say is refused, so nothing stands beside
what was signed. Review, crash order: reads only.
"""

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import rfc8785

from guilder_shared.chain import Entry, check_hashes, check_signatures
from guilder_shared.errors import IntegrityError
from guilder_shared.identity import unhex
from guilder_shared.identity import verify as verify_signature
from guilder_shared.reports.build import SCHEMA as REPORT
from guilder_shared.reports.build import Report, row
from guilder_shared.reports.export import SCHEMA as EXPORT

MOST_BYTES = 1 << 28
PIECE_BYTES = 1 << 20  # of a file, at a time
DEEPEST = 64  # arrays and objects inside one another
SCHEMA = b'"schema":"guilder-'
FAMILY = re.compile(rb'"schema":"(guilder-(?:report|ledger-export)-)([0-9]{1,9})"')
BODY = b'{"body":'  # inside text its quotes would be escaped, so it only starts entries
REST = re.compile(
    rb',"hash":"([0-9a-f]{64})","kind":"([a-z-]{1,40})","prev":"([0-9a-f]{64})"'
    rb',"seq":([0-9]{1,15}),"signature":"([0-9a-f]{128})"\}'
)
SEAL = re.compile(rb',"signature":"([0-9a-f]{128})"')
NO_JSON = (ValueError, RecursionError, rfc8785.CanonicalizationError)


@dataclass(frozen=True)
class SignedFile:
    """A file that is whole, and signed by the key that its first entry names.

    Attributes:
        schema: `REPORT` or `EXPORT`.
        content: The report, or the export's last line.
        entries: All of the ledger up to then.
        public_key: The site's, 64 hexadecimal digits.
    """

    schema: str
    content: Report
    entries: list[Entry]
    public_key: str


def load(path: Path) -> bytes:
    """The bytes of a file or pipe that somebody else may have made, read once.

    Raises:
        IntegrityError: It cannot be read (GLD-I011) or is too large (GLD-I090).
    """
    try:
        with path.open("rb", buffering=0) as file:
            raw = bytearray()
            while len(raw) <= MOST_BYTES and (piece := file.read(PIECE_BYTES)):
                raw += piece
    except OSError as error:
        raise no_file(f"it cannot be read: {error.strerror}", path.name) from None
    if len(raw) > MOST_BYTES:
        raise IntegrityError(
            "GLD-I090",
            f"{path.name} has more than {MOST_BYTES:,} bytes",
            why="No report is that large, and reading it could fill the memory.",
            fix="Ask the site for the report again.",
        )
    return bytes(raw)


def read(raw: bytes, keys: Collection[str] = ()) -> SignedFile:
    """Check a file's form, chain and signatures.

    Args:
        raw: The file's bytes.
        keys: Sites' public keys as the reader knows them; none: as the file says.

    Raises:
        IntegrityError: It is neither report nor export as Guilder writes them
            (GLD-I011), of a newer form (GLD-I070), cut off (GLD-I071), of another key
            than the reader's (GLD-I072); an entry was changed (GLD-I001) or not
            signed (GLD-I003), or the whole was not (GLD-I012).
    """
    try:
        raw.decode()
    except ValueError:
        raise no_file("it is not UTF-8") from None
    schema = _schema(raw)
    entries = _found(raw)
    if not entries or not raw.endswith(b"}\n"):
        raise cut_off()
    check_hashes(entries)
    key = _key(entries[0])
    if keys and key not in keys:
        raise IntegrityError(
            "GLD-I072",
            f"the file names the key {key[:16]}…, not the one you gave",
            why="It is of another site, or somebody else made it.",
            fix="Compare the key with the one that the site gave you in another way.",
        )
    _check_seal(raw, schema, key)
    check_signatures(entries, key)
    return SignedFile(schema, _content(raw, schema, entries), entries, key)


def canonical(raw: bytes) -> Any:
    """The value that these bytes are the canonical JSON of.

    Raises:
        IntegrityError: They are not that of anything (GLD-I011).
    """
    try:
        value = json.loads(raw)
        same = rfc8785.dumps(value) == raw and not _is_deeper(value, DEEPEST)
    except NO_JSON:
        raise no_file("it is no canonical JSON") from None
    if not same:
        raise no_file("its bytes are not those that were signed")
    return value


def no_file(reason: str, name: str = "the file") -> IntegrityError:
    """What to say of a file that is none of ours (GLD-I011)."""
    return IntegrityError(
        "GLD-I011",
        f"{name} is no report or export as Guilder wrote it: {reason}",
        fix="Ask the site for it again; copy it as a file, never as text.",
    )


def cut_off() -> IntegrityError:
    """What to say of a file without its end, or with more than it (GLD-I071)."""
    return IntegrityError(
        "GLD-I071",
        "the file ends before its end, or goes on after it",
        why="It was cut off on its way, or something was added.",
        fix="Copy it again, as a file and never as text.",
    )


def too_new(found: str, newest: str) -> IntegrityError:
    """What to say of a form that came after this Guilder (GLD-I070)."""
    return IntegrityError(
        "GLD-I070",
        f"{found} is newer than this Guilder, which reads {newest}",
        fix="Verify it with the Guilder that wrote it, or a newer one.",
    )


def _schema(raw: bytes) -> str:
    named = _family(raw)
    if named is None:
        if raw.startswith((b'{"as_of":', BODY)):
            raise cut_off()
        raise no_file("it names no schema that is read here")
    family, number = named[1].decode(), named[2].decode()
    newest = REPORT if REPORT.startswith(family) else EXPORT
    if int(number) > int(newest.removeprefix(family)):
        raise too_new(family + number, newest)
    if family + number != newest:
        raise no_file("it names no schema that is read here")
    return newest


def _family(raw: bytes) -> re.Match[bytes] | None:
    """The last schema named in the file that is one of ours."""
    at = raw.rfind(SCHEMA)
    while at >= 0:
        if named := FAMILY.match(raw, at):
            return named
        at = raw.rfind(SCHEMA, 0, at)
    return None


def _found(raw: bytes) -> list[Entry]:
    """The entries, in order, unchecked: bytes alone, no JSON is read."""
    found = (_entry(part) for part in raw.split(BODY)[1:])
    return [entry for entry in found if entry is not None]


@lru_cache(maxsize=4096)  # entries that a report and an export share
def _entry(part: bytes) -> Entry | None:
    rest = REST.search(part)
    if rest is None:
        return None
    digest, kind, prev, seq, signature = (group.decode() for group in rest.groups())
    return Entry(int(seq), kind, part[: rest.start()], prev, digest, signature)


def _key(first: Entry) -> str:
    try:
        return str(first.content()["public_key"])
    except (*NO_JSON, KeyError, TypeError):
        raise no_file("its first entry names no key") from None


def _check_seal(raw: bytes, schema: str, key: str) -> None:
    """The signature over the report, or over the export's last line."""
    whole = raw[:-1] if schema == REPORT else raw[:-1].rpartition(b"\n")[2]
    # Only the outermost signature follows the schema: canonical members are sorted.
    cut = SEAL.search(whole, max(whole.rfind(b'"schema":"' + schema.encode()), 0))
    if cut is not None:
        signed = schema.encode() + b"\n" + whole[: cut.start()] + whole[cut.end() :]
        if verify_signature(key, signed, unhex(cut[1].decode())):
            return
    raise IntegrityError(
        "GLD-I012",
        f"the file's own signature is not of the key {key[:16]}…",
        why="The entries hold; something beside them was changed, or the key.",
        fix="Ask the site for the file again; keep this one as evidence.",
    )


def _content(raw: bytes, schema: str, entries: list[Entry]) -> Report:
    """The report or last line, if all the file is canonical and nothing is beside."""
    *rows, content = (canonical(line) for line in raw[:-1].split(b"\n"))
    try:
        if schema == REPORT and not rows:
            rows = content["ledger"]["entries"]
        same = rows == [row(entry) for entry in entries]
        if not same or content["schema"] != schema:
            raise no_file("it holds something beside its entries")
        if schema == EXPORT:
            _check_end(content, entries)
    except (*NO_JSON, KeyError, TypeError):
        raise no_file("a part of it is missing or of another kind") from None
    return dict(content)


def _check_end(end: Report, entries: list[Entry]) -> None:
    members = {"schema", "site", "num_entries", "head", "signature"}
    counted = (end["num_entries"], end["head"])
    if end.keys() != members or counted != (len(entries), entries[-1].hash):
        raise no_file("its last line does not fit its entries")


def _is_deeper(value: Any, levels: int) -> bool:
    if not isinstance(value, (dict, list)):
        return False
    parts = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deeper(part, levels - 1) for part in parts)

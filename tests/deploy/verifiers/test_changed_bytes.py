"""One change anywhere in a report or an export of 200 entries is found."""

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

Verdict = Any  # of the fixture of that name
SEED = int(os.environ.get("GUILDER_SEED", "7"))
CASE = 5  # the bit that turns a small letter into a capital


def flipped(raw: bytes, position: int, bit: int) -> bytes:
    return raw[:position] + bytes([raw[position] ^ 1 << bit]) + raw[position + 1 :]


def changes(raw: bytes, position: int) -> Iterator[tuple[str, bytes]]:
    """Files with a change at this place: one bit, of every other letter its case.

    Other seeds take other bits; eight of them take all.
    """
    is_letter = raw[position : position + 1].isalpha()
    bit = CASE if is_letter and (position + SEED) % 2 else (position * 3 + SEED) % 8
    yield "bit", flipped(raw, position, bit)
    if position % 8 == SEED % 8:
        before, here, after = (
            raw[:position],
            raw[position : position + 1],
            raw[position + 1 :],
        )
        kind = position // 8 % 4
        if kind == 0 and after[:1] != here:
            yield "deletion", before + after
        elif kind == 1:
            yield "space", before + b" " + here + after
        elif kind == 2:
            yield "duplicate", before + here + here + after
        else:
            yield "truncation", before


def missed(raw: bytes, verdict: Verdict, positions: range) -> list[tuple[str, int]]:
    """The changes that a verifier does not find: kind and place."""
    named = (
        (kind, position, changed)
        for position in positions
        for kind, changed in changes(raw, position)
        if changed != raw
    )
    told, asked = itertools.tee(named)
    found = verdict.each(changed for *_, changed in asked)
    return [
        (kind, position)
        for (kind, position, _), error_id in zip(told, found, strict=True)
        if error_id == ""
    ]


def ends(raw: bytes) -> range:
    """Most of the last line, where an export is sealed."""
    return range(len(raw) - 240, len(raw))


@pytest.mark.brief
@pytest.mark.parametrize("name", ["report", "ledger"])
def test_a_change_is_found_wherever_it_is(
    written: Any, verdict: Verdict, name: str
) -> None:
    raw = getattr(written, name).read_bytes()

    assert verdict(raw) == ""
    assert missed(raw, verdict, range(0, len(raw), 1499)) == []
    if name == "ledger":
        assert missed(raw, verdict, ends(raw)) == []


@pytest.mark.slow(minutes=1.5)
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("name", ["report", "ledger"])
def test_a_change_of_any_byte_is_found(
    written: Any, verdict: Verdict, name: str
) -> None:
    raw = getattr(written, name).read_bytes()

    assert missed(raw, verdict, range(len(raw))) == []


@pytest.mark.parametrize("name", ["report", "ledger"])
def test_every_digit_of_a_seal_counts(
    written: Any, verdict: Verdict, name: str
) -> None:
    raw = getattr(written, name).read_bytes()
    at = raw.rindex(b'"schema"')
    seal = raw.index(b'"signature":"', at) + 13

    alive = [
        (position, bit)
        for position in range(seal, seal + 128, 11 if name == "report" else 1)
        for bit in (0, CASE, 3 + position % 2)
        if verdict(flipped(raw, position, bit)) == ""
    ]

    assert alive == []


def test_what_stands_after_the_end_is_found(written: Any, verdict: Verdict) -> None:
    for path in (written.report, written.ledger):
        raw = path.read_bytes()
        for more in (b"\n", b" ", b"\0", b"{}\n", raw, raw.splitlines()[-1] + b"\n"):
            assert verdict(raw + more) != "", more
        for before in (b"\xef\xbb\xbf", b" ", b"\n", b"{}\n"):
            assert verdict(before + raw) != "", before


def test_lines_of_an_export_cannot_be_moved(written: Any, verdict: Verdict) -> None:
    lines = written.ledger.read_bytes().splitlines(keepends=True)

    for number in range(0, len(lines) - 1, 20):
        one, two = lines[number : number + 2]
        rest = lines[number + 2 :]
        for changed in ([two, one], [one], [two], [one, one, two], [one, b"\n", two]):
            assert verdict(b"".join([*lines[:number], *changed, *rest])) != ""


def test_a_verdict_by_the_command_is_exit_code_5(written: Any, tmp_path: Path) -> None:
    raw = written.ledger.read_bytes()
    changed = tmp_path / "changed.jsonl"
    changed.write_bytes(raw[:-2] + b" }\n")
    command = [sys.executable, "-m", "guilder", "privacy", "verify"]

    done = subprocess.run([*command, str(changed)], capture_output=True, text=True)

    assert done.returncode == 5
    assert done.stderr.startswith("GLD-I012")

"""A ledger of 200 entries with every kind of entry, its report and export, verdicts."""

import json
import shutil
import subprocess
import tempfile
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from guilder import packing
from guilder_shared import reports, witnessing
from guilder_shared.errors import IntegrityError
from guilder_shared.identity import SigningKey
from guilder_shared.messages import Head
from guilder_shared.officer import Officer
from guilder_shared.privacy.ledger import Ledger
from guilder_shared.reports.export import export
from guilder_verifier.check import check
from guilder_verifier.finding import Finding

NODE = shutil.which("node")
NOON = 1_800_000_000.0
SERVER = "https://s"
SAMPLED = {
    "event": "self-composed",
    "count": 5,
    "of": {
        "event": "poisson-sampled",
        "sampling_probability": 0.02,
        "of": {"event": "gaussian", "noise_multiplier": 1.1},
    },
}
EVENTS = [SAMPLED, {"event": "gaussian", "noise_multiplier": 60.0}]


def key_of(number: int) -> SigningKey:
    return SigningKey(Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32))


KEY, OFFICERS_KEY, SERVERS_KEY = key_of(1), key_of(2), key_of(3)


@dataclass(frozen=True)
class Written:
    """A site's files on a disk, and the ledger they came from."""

    report: Path
    ledger: Path  # an export
    older: Path  # an export of one entry less
    key: SigningKey = KEY
    officers_key: SigningKey = OFFICERS_KEY


def fill(ledger: Ledger, number: int, event: dict[str, Any], unit: str) -> None:
    grant = ledger.reserve(
        run_id=f"run-{number}",
        server=SERVER,
        study_digest=f"{number + 1:064x}",
        study_name=f"study-{number}",
        dataset="d",
        recipe="r",
        unit=unit,
        cohort=2,
        study_epsilon=1.9,
        study_delta=1e-6,
        turn_event=event,
        num_turns=40,
        meta={},
    ).grant_id
    for turn_no in range(1, 34):
        ledger.spend(grant, turn_no, f"{turn_no:064x}")
        if turn_no == 1:
            ledger.cohort(grant, "b" * 64)
        if turn_no == 2:
            ledger.spend(grant, turn_no, f"{turn_no:064x}")
        ledger.seal(grant, turn_no, f"{turn_no + 99:064x}")
        head = ledger.heads(SERVER)[-1]
        told = Head(head.head_no, head.commitment)
        word = witnessing.as_body(witnessing.signed(told, "bank-a", SERVERS_KEY))
        ledger.receipt(grant, turn_no, f"{turn_no + 99:064x}", word)
    if number:
        ledger.close(grant)


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """Of a ledger of over 200 entries with nearly every kind of entry and order."""
    times = iter(range(10_000))
    officer = Officer(OFFICERS_KEY, site="bank-a", clock=lambda: NOON + next(times))
    named: Any = {"site": "bank-a", "officer": officer.public_hex}
    with Ledger.open(None, KEY, clock=lambda: NOON + next(times), **named) as ledger:
        rule = officer.rule("r", recipes=["r"], largest_epsilon=2, largest_delta=1e-5)
        lost = officer.acknowledge(
            SERVER, 3, "c" * 64, budget="people", epsilon=0.5, delta=1e-6
        )
        for order in (
            officer.budget("people", 9.0, 1e-4, ["d"], None, (30, 8.0)),
            officer.budget("old", 1.0, 1e-4, ["e"]),
            officer.public_size("d", 100, 90),
            rule,
            officer.withdraw("old"),
            officer.excuse("https://gone"),
            officer.excuse("https://away", days=2),
            officer.approve("f" * 64, "other", epsilon=1.0, delta=1e-6),
            lost,
        ):
            ledger.admit(order)
        for number, event in enumerate(EVENTS):
            fill(ledger, number, event, ("record", "person")[number])
        ledger.exclude("d", "e" * 64, in_force=True)
        folder = tmp_path_factory.mktemp("written")
        older = folder / "older.jsonl"
        older.write_bytes(export(ledger))
        ledger.admit(officer.revoke(rule.order_id))
        newest = folder / "ledger.jsonl"
        newest.write_bytes(export(ledger))
        assert len(ledger.entries()) >= 200
        return Written(reports.write(ledger, folder), newest, older)


Verdict = Callable[..., str]  # the error's id, or "" for a sound file


@dataclass(frozen=True)
class Question:
    """A file to check, and what its reader knows."""

    raw: bytes
    keys: tuple[str, ...] = ()
    ledger: bytes | None = None
    officers: tuple[str, ...] = ()


def first(asked: Question, folder: Path) -> str:
    path, beside = folder / "x.json", folder / "x.jsonl"
    path.write_bytes(asked.raw)
    if asked.ledger is not None:
        beside.write_bytes(asked.ledger)
    try:
        reports.verify_any(
            path,
            keys=asked.keys,
            officers=asked.officers,
            ledger=None if asked.ledger is None else beside,
        )
    except IntegrityError as error:
        return error.error_id
    return ""


def second(asked: Question, _: Path) -> str:
    try:
        check(asked.raw, asked.keys, asked.ledger, asked.officers)
    except Finding as found:
        return found.error_id
    return ""


class Page:
    """The page's own checks in a process of node; started when first asked."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._folder = Path(tempfile.mkdtemp())
        self._base = b""

    def __call__(self, asked: Question, _: Path) -> str:
        told = self.answer(asked, full=False)
        assert told["id"] != "BUG", told["what"]
        return str(told["id"])

    def answer(self, asked: Question, *, full: bool = True) -> Any:
        """The verdict, and what the page would show."""
        if self._process is None:
            self._process = self._start()
        at, remove, insert = difference(self._base, asked.raw)
        if len(insert) > 4096:
            (self._folder / "base").write_bytes(asked.raw)
            self._base, at, remove, insert = asked.raw, 0, 0, b""
            self._write({"base": str(self._folder / "base")})
        ledger = None
        if asked.ledger is not None:
            ledger = str(self._folder / "ledger")
            Path(ledger).write_bytes(asked.ledger)
        told = {"at": at, "remove": remove, "insert": insert.hex(), "ledger": ledger}
        known = {"keys": asked.keys, "officers": asked.officers, "answer": full}
        self._write({**told, **known})
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def _write(self, line: Any) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(line) + "\n")
        self._process.stdin.flush()

    def _start(self) -> "subprocess.Popen[str]":
        if NODE is None:
            pytest.skip("no node here")
        end = "})();\n"
        script = packing.script_of(packing.CHECKS).removesuffix(end)
        driver = Path(__file__).with_name("drive.js").read_text("utf-8")
        (self._folder / "drive.js").write_text(script + driver + end, "utf-8")
        return subprocess.Popen(
            [NODE, str(self._folder / "drive.js")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._folder)


def difference(old: bytes, new: bytes) -> tuple[int, int, bytes]:
    """Where two files differ: from where on, how many bytes go, and which come."""
    most = min(len(old), len(new))
    start = bisect_right(range(1, most + 1), False, key=lambda n: old[:n] != new[:n])
    most -= start
    end = bisect_right(range(1, most + 1), False, key=lambda n: old[-n:] != new[-n:])
    return start, len(old) - start - end, new[start : len(new) - end]


@pytest.fixture(scope="session")
def page() -> Iterator[Page]:
    started = Page()
    yield started
    started.close()


@pytest.fixture(params=["first", "second", "page"])
def verdict(request: pytest.FixtureRequest, page: Page, tmp_path: Path) -> Verdict:
    """Each verifier in turn: bytes in, the id of its finding out."""
    judges: dict[str, Callable[[Question, Path], str]] = {
        "first": first,
        "second": second,
        "page": page,
    }
    judge = judges[request.param]
    return lambda raw, **known: judge(Question(raw, **known), tmp_path)


@pytest.fixture
def verdicts(page: Page, tmp_path: Path) -> Callable[..., set[str]]:
    """All verifiers at once: the ids they give, one if they agree."""

    def all_of(raw: bytes, **known: Any) -> set[str]:
        asked = Question(raw, **known)
        return {judge(asked, tmp_path) for judge in (first, second, page)}

    return all_of

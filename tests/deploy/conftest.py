"""Ledgers of real studies, their files, and what a dishonest site can make of them."""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from guilder_shared import reports
from guilder_shared.chain import digest, signed_bytes
from guilder_shared.identity import SigningKey
from guilder_shared.officer import Officer
from guilder_shared.privacy import accounting
from guilder_shared.privacy.ledger import Ledger
from guilder_shared.reports import consortium
from guilder_shared.reports.build import signed_bytes as report_bytes
from guilder_shared.reports.export import SCHEMA, export
from guilder_shared.study import Study

Asked = dict[str, Any]
SOFTWARE = {"installed": "e" * 64, "recipe": None}
SPECIAL = {
    "sampled": ("training.sample_rate=0.1",),
    "measured": ('evaluation.on="charged"', "evaluation.share=0.5"),
}
LOANS = Path(__file__).parents[1] / "loans.toml"
NOON = 1_800_000_000.0


def key_of(number: int) -> SigningKey:
    return SigningKey(Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32))


def signed(report: dict[str, Any], key: SigningKey) -> bytes:
    """The report as a dishonest site would write it: whole, canonical, signed."""
    unsigned = {name: part for name, part in report.items() if name != "signature"}
    signature = key.sign(report_bytes(unsigned)).hex()
    return rfc8785.dumps({**unsigned, "signature": signature}) + b"\n"


def chained(rows: Iterable[dict[str, Any]], key: SigningKey) -> list[Any]:
    """Entries hashed and signed anew, as a dishonest site would."""
    prev, made = "0" * 64, []
    for seq, row in enumerate(rows, 1):
        body = rfc8785.dumps(row["body"])
        now = digest(seq, row["kind"], prev, body)
        signature = key.sign(signed_bytes(now)).hex()
        head = {"seq": seq, "kind": row["kind"], "prev": prev}
        made.append({**head, "body": row["body"], "hash": now, "signature": signature})
        prev = now
    return made


def exported(rows: list[dict[str, Any]], key: SigningKey) -> bytes:
    """An export of these entries, signed."""
    first = rows[0]["body"]
    end: dict[str, Any] = {
        "schema": SCHEMA,
        "site": {"name": first.get("site"), "public_key": first.get("public_key")},
        "num_entries": len(rows),
        "head": rows[-1]["hash"],
    }
    seal = key.sign(SCHEMA.encode() + b"\n" + rfc8785.dumps(end)).hex()
    lines = [*rows, {**end, "signature": seal}]
    return b"".join(rfc8785.dumps(line) + b"\n" for line in lines)


@pytest.fixture(scope="session")
def forge() -> Any:
    """What a dishonest site can do with its own key."""

    class Forge:
        sign = staticmethod(signed)
        chain = staticmethod(chained)
        export = staticmethod(exported)
        key_of = staticmethod(key_of)

        @staticmethod
        def rows(raw: bytes) -> list[Any]:
            return [json.loads(line) for line in raw.splitlines()[:-1]]

    return Forge


def study(name: str, unit: str = "record", **privacy: Any) -> Study:
    promise: dict[str, Any] = {"unit": unit, **privacy}
    if unit == "person":
        promise = {"max_records": 5, "max_sites_per_person": 2, **promise}
    changes = (f"privacy.{key}={json.dumps(value)}" for key, value in promise.items())
    named = (f"study.name={json.dumps(name)}", *SPECIAL.get(name, ()))
    return Study.load(LOANS, ("training.local_steps=2", *named, *changes))


def ledger_of(
    key: SigningKey, officers_key: SigningKey, *studies: Study, site: str
) -> Ledger:
    times = iter(range(10_000))
    officer = Officer(officers_key, site=site, clock=lambda: NOON + next(times))
    orders = [
        officer.budget("clients", 6.0, 1e-5, ["loans"], None, (365, 5.9)),
        officer.rule(
            "any",
            recipes=["tabular-classification"],
            largest_epsilon=3,
            largest_delta=1e-5,
            allow_unprotected=True,
        ),
    ]
    named: Any = {"site": site, "officer": officer.public_hex}
    clock = lambda: NOON + next(times)  # noqa: E731 - a clock, used once
    ledger = Ledger.open(None, key, orders=orders, clock=clock, **named)
    for each in studies:
        accept(ledger, each)
    return ledger


def accept(ledger: Ledger, each: Study) -> None:
    plan = accounting.solve(each)
    event = accounting.turn_event(each, plan)
    simulated = {"simulated": True} if each.study.name == "sampled" else {}
    grant = ledger.reserve(
        run_id=f"run-{each.study.name}",
        server="https://server",
        study_digest=each.digest(),
        study_name=each.study.name,
        dataset="loans",
        recipe=each.study.recipe,
        unit=each.privacy.unit,
        cohort=1,
        study_epsilon=each.privacy.epsilon,
        study_delta=each.privacy.delta,
        turn_event=event,
        num_turns=plan.num_turns,
        evidence=accounting.evidence(event, plan.num_turns, each.privacy.delta),
        meta={
            "study": each.canonical().decode(),
            "plan": asdict(plan),
            **simulated,
            **({"software": SOFTWARE} if each.study.name == "risk" else {}),
        },
    )
    ledger.spend(grant.grant_id, 1, "1" * 64)
    ledger.seal(grant.grant_id, 1, "a" * 64)
    ledger.receipt(grant.grant_id, 1, "a" * 64)
    if each.study.name == "measured":
        ledger.spend(grant.grant_id, 2, "2" * 64, measures=True)


class Files:
    """Reports and exports of three ledgers, and what can be made of them."""

    def __init__(self, folder: Path, forge: Any) -> None:
        self.forge, self.folder = forge, folder
        self.key, self.officer = forge.key_of(11), forge.key_of(12)
        self.stranger = forge.key_of(13)
        ours = [study("risk"), study("sampled"), study("plain", mechanism="none")]
        ours += [study("default", "person"), study("measured", epsilon=0.5)]
        self.report, self.ledger = self.written("bank-a", self.key, *ours)
        self.others, self.others_ledger = self.written(
            "bank-b", self.stranger, study("risk"), study("default", "person")
        )
        self.empty, _ = self.written("bank-c", forge.key_of(14))
        self.both = folder / "consortium.json"
        paths = [folder / f"{site}.report.json" for site in ("bank-a", "bank-b")]
        consortium.write(consortium.combine(paths), self.both)

    def open(self, site: str, key: SigningKey, *of: Study) -> Ledger:
        return ledger_of(key, self.officer, *of, site=site)

    def written(self, site: str, key: SigningKey, *of: Study) -> tuple[bytes, bytes]:
        with self.open(site, key, *of) as ledger:
            path = reports.write(ledger, self.folder)
            return path.read_bytes(), export(ledger)

    def signed(self, change: Callable[[Any], Any]) -> Asked:
        """Our report with a change that we sign."""
        report = json.loads(self.report)
        change(report)
        return {"raw": self.forge.sign(report, self.key)}

    def forged(self, change: Callable[[list[Any]], Any], **kept: Any) -> Asked:
        """Our ledger with other entries that we chain and sign anew."""
        rows = self.forge.rows(self.ledger)
        change(rows)
        made = self.forge.chain(rows, self.key)
        return {"raw": self.forge.export(made, self.key), **kept}

    def together(self, change: Callable[[Any], Any]) -> Asked:
        """The consortium's report with a change."""
        found = json.loads(self.both.read_bytes())
        change(found)
        return {"raw": rfc8785.dumps(found) + b"\n"}


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, forge: Any) -> Files:
    return Files(tmp_path_factory.mktemp("made"), forge)

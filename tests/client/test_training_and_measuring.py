"""A turn that trains some units and measures others: charged once, sealed as one."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guilder_client import policy, turn
from guilder_client.site import Site
from guilder_shared.compression import unpack_update
from guilder_shared.messages import (
    MEASURED,
    MEASURED_BESIDE,
    Offer,
    Receipt,
    TurnReply,
    TurnRequest,
    Verdict,
    Weights,
    pack,
    sha256,
    unpack,
)
from guilder_shared.models import registry
from guilder_shared.privacy import accounting
from guilder_shared.privacy.ledger import Ledger
from guilder_shared.study import Study
from guilder_shared.training import charged, fit

ROUNDS = 4  # measured in 3 (with training), and in 5


def study_with(**aggregation: Any) -> Study:
    return Study.model_validate(
        {
            "schema": 1,
            "study": {"name": "t", "recipe": "tabular-classification", "purpose": "t"},
            "data": {
                "kind": "table",
                "dataset": "d",
                "target": "y",
                "columns": {"x": {"kind": "number", "low": 0.0, "high": 1.0}},
            },
            "model": {"name": "logistic"},
            "training": {
                "rounds": ROUNDS,
                "local_steps": 2,
                "sample_rate": 1.0,
                "learning_rate": 1.0,
            },
            "privacy": {
                "unit": "record",
                "mechanism": "site-noise",
                "epsilon": 2.0,
                "delta": 1e-6,
                "clip_norm": 1.0,
            },
            "aggregation": {"min_sites": 2, "spare_turns": 1} | aggregation,
            "evaluation": {"on": "charged", "rows": 0.4, "share": 1.0, "every": 2},
        }
    )


PLAIN = study_with()
SCAFFOLD = study_with(strategy="scaffold", compression="int8")
PLAN = accounting.solve(PLAIN)
SHAPES = registry.shapes(PLAIN)
CONTROL = {n: np.full(shape, 0.25, np.float32) for n, shape in SHAPES.items()}
NUM = sum(charged.widths(PLAIN).values())


@pytest.fixture(params=["plain", "scaffold"])
def study(request: pytest.FixtureRequest) -> Study:
    return PLAIN if request.param == "plain" else SCAFFOLD


@pytest.fixture
def site(tmp_path: Path, site_at: Callable[..., Site]) -> Site:
    rows = "".join(f"{i / 100},{i % 3 % 2}\n" for i in range(100))
    (tmp_path / "data.csv").write_text("x,y\n" + rows)
    return site_at(tmp_path)


def asked(site: Site, study: Study, number: int) -> TurnRequest:
    answer = policy.consider(site, Offer("run-1", study.canonical(), PLAN))
    assert answer.verdict == Verdict.ACCEPTED, answer
    model, digest = pack(registry.initial(study)), study.digest()
    grant_id = answer.grant_id
    request = TurnRequest("run-1", grant_id, number, number, digest, model)
    if study.aggregation.has_controls and number <= ROUNDS:
        request = replace(request, control=pack(CONTROL))
    return request


def taken(site: Site, study: Study, rounds: int) -> list[TurnReply]:
    replies: list[TurnReply] = []
    for number in range(1, rounds + 1):
        request = asked(site, study, number)
        if replies:
            receipt = Receipt(number - 1, sha256(replies[-1].update))
            base = number - 1 if request.control else 0
            request = replace(request, receipt=receipt, control_base=base)
        replies.append(turn.take(site, request))
        assert replies[-1].verdict == Verdict.DONE
    return replies


def both(study: Study, reply: TurnReply) -> tuple[Weights, Any]:
    compression = study.aggregation.compression
    found = unpack_update(reply.update, SHAPES, compression, NUM)
    return found, found.pop(MEASURED_BESIDE)


def test_a_turn_carries_its_update_and_what_it_measured(
    site: Site, study: Study
) -> None:
    replies = taken(site, study, ROUNDS + 1)

    update, measured = both(study, replies[2])
    assert {name: w.shape for name, w in update.items()} == dict(SHAPES)
    assert np.isfinite(measured).all()
    last = unpack(replies[-1].update, {MEASURED: (NUM,)})[MEASURED]
    assert not np.array_equal(last, measured)
    compression = study.aggregation.compression
    for plain in (0, 1, 3):
        unpack_update(replies[plain].update, SHAPES, compression)


def test_each_release_has_the_parts_of_the_turns_since_the_one_before(
    site: Site, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[float] = []
    real = charged.release

    def watch(*rows: Any, noise_multiplier: float, key: bytes) -> Any:
        given.append(noise_multiplier)
        return real(*rows, noise_multiplier=noise_multiplier, key=key)

    monkeypatch.setattr(charged, "release", watch)
    taken(site, study, ROUNDS + 1)

    planned = PLAN.measuring_noise
    assert planned is not None
    assert given == [planned / math.sqrt(3), planned / math.sqrt(2)]
    (grant,) = site.ledger.grants()
    assert [t.measures for t in grant.turns.values()] == [0, 0, 3, 0, 2]
    whole = accounting.epsilon([(grant.turn_event, grant.num_turns)], 1e-6)
    assert whole <= 2.0


def test_in_one_turn_no_unit_is_trained_on_and_measured(
    site: Site, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked(site, study, 1)  # the self-test trains on made-up rows
    seen: dict[str, set[float]] = {}

    def watch(room: Any, name: str, place: int) -> None:
        real = getattr(room, name)

        def told(*given: Any, **named: Any) -> Any:
            seen[name] = set(given[place].inputs[:, 0].tolist())
            return real(*given, **named)

        monkeypatch.setattr(room, name, told)

    watch(fit, "fit", 3)
    watch(charged, "release", 2)
    turn.take(site, asked(site, study, 3))

    assert seen["fit"]
    assert seen["release"]
    assert not seen["fit"] & seen["release"]
    assert len(seen["fit"] | seen["release"]) == 100


def test_killed_before_the_seal_both_are_made_again_and_only_once_sent(
    site: Site, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = asked(site, study, 3)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "seal", killed)
        with pytest.raises(KeyboardInterrupt):
            turn.take(site, request)
    lost = site.sealed.path(request.grant_id, 3).read_bytes()
    reply = turn.take(site, request)

    assert reply.verdict == Verdict.DONE
    unsent, sent = both(study, replace(reply, update=lost)), both(study, reply)
    assert not np.array_equal(unsent[1], sent[1])
    assert pack(unsent[0]) != pack(sent[0])
    assert turn.take(site, request) == reply
    (grant,) = site.ledger.grants()
    assert [(t.attempts, t.measures) for t in grant.turns.values()] == [(2, 1)]

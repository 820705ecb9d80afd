"""A turn that measures: on units that no step ever saw, charged, sealed, once."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guilder_client import policy, turn
from guilder_client.site import Site
from guilder_shared.messages import (
    MEASURED,
    Offer,
    TurnRequest,
    Verdict,
    Weights,
    pack,
    unpack,
)
from guilder_shared.models import registry
from guilder_shared.privacy import accounting, statistics
from guilder_shared.privacy.ledger import Ledger
from guilder_shared.study import Study
from guilder_shared.tensors import Buffer
from guilder_shared.training import charged, fit

SiteAt = Callable[..., Site]
ROUNDS = 3


def study_of(unit: str) -> Study:
    capped = {"max_records": 4} if unit == "person" else {}
    return Study.model_validate(
        {
            "schema": 1,
            "study": {
                "name": "t",
                "recipe": "tabular-classification",
                "purpose": "test",
            },
            "data": {
                "kind": "table",
                "dataset": "d",
                "target": "y",
                "person": "who",
                "columns": {"x": {"kind": "number", "low": 0.0, "high": 1.0}},
            },
            "model": {"name": "logistic"},
            "training": {
                "rounds": ROUNDS,
                "local_steps": 1,
                "sample_rate": 1.0,
                "learning_rate": 1.0,
            },
            "privacy": {
                "unit": unit,
                "mechanism": "site-noise",
                "epsilon": 2.0,
                "delta": 1e-6,
                "clip_norm": 1.0,
                **capped,
            },
            "aggregation": {"min_sites": 2, "spare_turns": 1},
            "evaluation": {"on": "charged", "rows": 0.4, "share": 1.0},
        }
    )


STUDIES = {unit: study_of(unit) for unit in ("record", "person")}
PLANS = {unit: accounting.solve(study) for unit, study in STUDIES.items()}


@pytest.fixture(params=["record", "person"])
def unit(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def site(tmp_path: Path, site_at: SiteAt) -> Site:
    rows = "".join(f"{i / 400},{i % 3 % 2},p{i // 4}\n" for i in range(400))
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / "data.csv").write_text("x,y,who\n" + rows)
    public = "public_size = 100"
    return site_at(
        tmp_path, lambda text: text.replace(public, public + "\npublic_persons = 100")
    )


def asked(site: Site, unit: str, turn_no: int, round_no: int = 0) -> TurnRequest:
    study = STUDIES[unit]
    answer = policy.consider(site, Offer("run-1", study.canonical(), PLANS[unit]))
    assert answer.verdict == Verdict.ACCEPTED, answer
    model = pack(registry.initial(study))
    numbers = (turn_no, round_no or turn_no)
    return TurnRequest("run-1", answer.grant_id, *numbers, study.digest(), model)


def measured(study: Study, update: Buffer) -> statistics.Numbers:
    num = sum(charged.widths(study).values())
    return unpack(update, {MEASURED: (num,)})[MEASURED].astype(float)


def test_units_are_trained_on_or_measured_and_never_both(
    site: Site, unit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked(site, unit, 1)  # the self-test trains on made-up rows
    seen: dict[str, list[set[Any]]] = {"fit": [], "release": []}

    def watch(room: Any, name: str, place: int) -> None:
        real = getattr(room, name)

        def told(*given: Any, **named: Any) -> Any:
            rows = given[place]
            keys = rows.inputs[:, 0] if rows.units is None else rows.units
            seen[name].append(set(keys.tolist()))
            return real(*given, **named)

        monkeypatch.setattr(room, name, told)

    watch(fit, "fit", 3)
    watch(charged, "release", 2)
    for number in range(1, ROUNDS + 2):
        assert turn.take(site, asked(site, unit, number)).verdict == Verdict.DONE

    (once,) = seen["release"]
    assert len(seen["fit"]) == ROUNDS
    assert all(trained == seen["fit"][0] for trained in seen["fit"])
    assert once
    assert not once & seen["fit"][0]
    assert len(once | seen["fit"][0]) == (400 if unit == "record" else 100)


def test_the_noise_is_what_all_turns_have_paid_for(
    site: Site, unit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[float] = []
    real = charged.release

    def watch(*rows: Any, noise_multiplier: float, key: bytes) -> Any:
        given.append(noise_multiplier)
        return real(*rows, noise_multiplier=noise_multiplier, key=key)

    monkeypatch.setattr(charged, "release", watch)
    for number in (1, 3):  # the site was away in round 2
        turn.take(site, asked(site, unit, number))
    turn.take(site, asked(site, unit, 4))

    planned = PLANS[unit].measuring_noise
    assert planned is not None
    assert given == [planned / math.sqrt(3)]
    (grant,) = site.ledger.grants()
    assert {n: t.measures for n, t in grant.turns.items()} == {1: 0, 3: 0, 4: 3}


def test_the_charge_is_durable_before_held_out_rows_are_read(
    site: Site, unit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[dict[int, int]] = []
    read = Site.read

    def look(self: Site, *given: Any) -> Any:
        (grant,) = self.ledger.grants()
        found.append({n: t.measures for n, t in grant.turns.items()})
        return read(self, *given)

    monkeypatch.setattr(Site, "read", look)
    turn.take(site, asked(site, unit, 1, round_no=ROUNDS + 1))

    assert found == [{1: 1}]


def test_killed_before_the_seal_it_is_measured_again_with_fresh_noise(
    site: Site, unit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = asked(site, unit, 1, round_no=ROUNDS + 1)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "seal", killed)
        with pytest.raises(KeyboardInterrupt):
            turn.take(site, request)
    lost = site.sealed.path(request.grant_id, 1).read_bytes()
    reply = turn.take(site, request)

    assert reply.verdict == Verdict.DONE
    assert reply.update != lost  # and the lost bytes were never sent
    assert turn.take(site, request) == reply
    (grant,) = site.ledger.grants()
    assert [(t.attempts, t.measures) for t in grant.turns.values()] == [(2, 1)]


def test_asked_again_and_again_under_new_numbers_each_answer_has_its_own_noise(
    site: Site, unit: str
) -> None:
    """A hostile server that asks for nothing but metrics gets what it paid for."""
    study = STUDIES[unit]

    replies = [
        turn.take(site, asked(site, unit, number, round_no=ROUNDS + 1))
        for number in range(1, PLANS[unit].num_turns + 1)
    ]
    beyond = turn.take(
        site, replace(asked(site, unit, 1, ROUNDS + 1), turn_no=len(replies) + 1)
    )

    vectors = np.stack([measured(study, reply.update) for reply in replies])
    assert len(np.unique(vectors, axis=0)) == len(replies)
    assert beyond.verdict == Verdict.REFUSED_BY_BUDGET
    (grant,) = site.ledger.grants()
    assert [t.measures for t in grant.turns.values()] == [1] * len(replies)


def test_rows_of_nan_and_text_do_not_stop_it(
    site: Site, unit: str, tmp_path: Path
) -> None:
    (tmp_path / "data.csv").write_text("x,y,who\nnan,1,a\ninf,0,b\n,1,\n1e999,0,c\n")

    reply = turn.take(site, asked(site, unit, 1, round_no=ROUNDS + 1))

    assert reply.verdict == Verdict.DONE
    assert np.isfinite(measured(STUDIES[unit], reply.update)).all()


def test_a_model_that_overflows_does_not_stop_it(site: Site, unit: str) -> None:
    study = STUDIES[unit]
    hostile: Weights = {
        name: np.full_like(array, 3e38)
        for name, array in registry.initial(study).items()
    }
    request = asked(site, unit, 1, round_no=ROUNDS + 1)

    reply = turn.take(site, replace(request, model=pack(hostile)))

    assert reply.verdict == Verdict.DONE
    assert np.isfinite(measured(study, reply.update)).all()

"""Every mechanism a study may have: charged by one accountant, checked by two more."""

from collections.abc import Callable
from typing import Any

import pytest

from guilder_shared.messages import Plan
from guilder_shared.privacy import accounting
from guilder_shared.study import Study
from guilder_verifier import events as second

Make = Callable[..., Study]
ORDERS = (6, 8, 10, 12, 16, 24, 32, 64)
SAMPLED: dict[str, Any] = {"rounds": 3, "local_steps": 4, "sample_rate": 0.1}
MEASURED = {"on": "charged", "share": 1.0}


def asking(noise: str) -> Study:
    column = {"kind": "category", "values": ["a", "b"]}
    asks = {"rows": {"ask": "count"}, "ks": {"ask": "histogram", "column": "k"}}
    return Study.model_validate(
        {
            "schema": 1,
            "study": {"name": "f", "recipe": "statistics", "purpose": "p"},
            "data": {"kind": "columns", "dataset": "d", "columns": {"k": column}},
            "statistics": {"noise": noise, "ask": asks},
            "privacy": {"unit": "record", "mechanism": "site-noise"}
            | {"epsilon": 1.0, "delta": 1e-6},
            "aggregation": {"min_sites": 1},
        }
    )


def of_persons(make: Make) -> Study:
    capped = {"unit": "person", "max_records": 3}
    return make(person="who", privacy=capped, **SAMPLED)


KINDS: dict[str, tuple[Callable[[Make], Study], Plan]] = {
    "sampled": (lambda make: make(**SAMPLED), Plan(1.3, 5, 1e-3)),
    "plain": (lambda make: make(rounds=3), Plan(4.0, 5, 1e-3)),
    "adaptive clipping": (
        lambda make: make(adaptive_clip={"quantile": 0.5}, **SAMPLED),
        Plan(1.3, 5, 1e-3),
    ),
    "persons": (of_persons, Plan(1.3, 5, 1e-3)),
    "sites": (
        lambda make: make(privacy={"unit": "site"}, rounds=3),
        Plan(4.0, 5, 1e-3),
    ),
    "charged metrics": (
        lambda make: make(evaluation=MEASURED, **SAMPLED),
        Plan(1.3, 6, 1e-3, 4.0),
    ),
    "metrics by round": (
        lambda make: make(evaluation=MEASURED | {"every": 1}, **SAMPLED),
        Plan(2.0, 6, 1e-3, 4.0),
    ),
    "statistics": (lambda _: asking("gaussian"), Plan(4.0, 1, 1e-3)),
    "laplace": (lambda _: asking("laplace"), Plan(2.0, 1, 1e-3)),
    "discrete": (lambda _: asking("discrete-gaussian"), Plan(4.0, 1, 1e-3)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_accountants_agree_on_what_a_study_is_charged(
    kind: str, study_of: Make
) -> None:
    make, plan = KINDS[kind]
    study = make(study_of)
    event = accounting.turn_event(study, plan)

    told = accounting.evidence(event, plan.num_turns, study.privacy.delta)

    assert told is not None
    assert told["prv"] == pytest.approx(told["pld"], rel=0.02, abs=0.02)
    assert told["pld"] <= told["rdp"] + 1e-3  # one lies on a grid
    charged = dict(zip(ORDERS, accounting.renyi(event, ORDERS), strict=True))
    by_another_hand = second.cost(event)
    for order, divergence in charged.items():
        assert by_another_hand[order] == pytest.approx(divergence, rel=1e-6)

"""A site whose turns several processes share: what is charged when one of them dies."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from guilder_client import policy, turn
from guilder_client.site import Site
from guilder_shared.messages import Offer, Plan, TurnRequest, Verdict, pack
from guilder_shared.models import registry
from guilder_shared.privacy.accounting import SENSITIVITY_SLACK
from guilder_shared.study import Study
from guilder_shared.training import crew, device, draws

ROWS = "\n".join(["x,y", *(f"{n / 200:.3f},{n % 2}" for n in range(200))])


@pytest.fixture
def site(
    site_at: Callable[..., Site], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Site]:
    """Its site.toml asks for two devices."""
    monkeypatch.setattr(device, "_speed", device.current())  # put back afterwards
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "data.csv").write_text(ROWS)
    yield site_at(
        folder, lambda text: f"{text}\n[speed]\ndevices = 2\n", unprotected="true"
    )
    crew.end()


def study() -> Study:
    return Study.model_validate(
        {
            "schema": 1,
            "study": {"name": "t", "recipe": "tabular-classification", "purpose": "p"},
            "data": {
                "kind": "table",
                "dataset": "d",
                "target": "y",
                "columns": {"x": {"kind": "number", "low": 0, "high": 1}},
            },
            "model": {"name": "mlp", "hidden": [4]},
            "training": {
                "rounds": 2,
                "local_steps": 3,
                "sample_rate": 0.5,
                "learning_rate": 1.0,
                "test_seed": 3,
            },
            "privacy": {
                "unit": "record",
                "mechanism": "none",
                "epsilon": 2.0,
                "delta": 1e-6,
                "clip_norm": 0.5,
            },
            "aggregation": {
                "min_sites": 1,
                "spare_turns": 1,
                "reply_quantum_s": 0,
                "round_deadline_s": 1,
            },
            "evaluation": {"on": "none"},
        }
    )


def test_a_turn_whose_worker_died_fails_and_is_taken_again_under_its_charge(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = study()
    plan = Plan(None, 3, SENSITIVITY_SLACK)
    answer = policy.consider(site, Offer("run-1", wanted.canonical(), plan))
    model = pack(registry.initial(wanted))
    request = TurnRequest("run-1", answer.grant_id, 1, 1, wanted.digest(), model)
    draw = draws.Sampler.draw

    def kill_then_draw(self: Any, keys: Any, step: int) -> Any:
        if step == 1:
            assert crew._crew is not None
            os.kill(crew._crew.workers[0].pid, signal.SIGKILL)
        return draw(self, keys, step)

    with monkeypatch.context() as planted:
        planted.setattr(draws.Sampler, "draw", kill_then_draw)
        failed = turn.take(site, request)
    (grant,) = site.ledger.grants()
    started = grant.turns[1]
    done = turn.take(site, request)

    assert device.current().devices == 2
    assert (failed.verdict, failed.update) == (Verdict.TURN_FAILED, b"")
    assert (started.sealed_sha256, started.attempts) == (None, 1)
    assert done.verdict == Verdict.DONE
    (grant,) = site.ledger.grants()
    assert grant.turns.keys() == {1}  # one charge, begun twice
    assert grant.turns[1].attempts == 2
    assert grant.turns[1].spent_at == started.spent_at
    assert grant.turns[1].sealed_sha256

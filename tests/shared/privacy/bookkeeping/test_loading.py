"""Rows read ahead: the same rows, the same result, and no thread left behind."""

import threading
from collections.abc import Callable
from contextlib import closing
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from guilder_shared.messages import Plan
from guilder_shared.models import registry
from guilder_shared.privacy import witness
from guilder_shared.privacy.bookkeeping.loading import Loader
from guilder_shared.privacy.sampling import TurnKeys
from guilder_shared.study import Study
from guilder_shared.tasks import Examples
from guilder_shared.training import device
from guilder_shared.training.fit import fit

Make = Callable[..., Study]
MLP = {"name": "mlp", "hidden": [16, 8]}
CPU = torch.device("cpu")


def fetch(rows: Tensor) -> tuple[Tensor, Tensor]:
    return rows * 10, rows


def pieces(num: int) -> list[Tensor]:
    return list(torch.split(torch.arange(3 * num), 3))


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("rows")]


@pytest.mark.parametrize("num", [0, 1, 2, 7])
@pytest.mark.parametrize("ahead", [False, True])
def test_every_piece_is_fetched_once_and_in_order(num: int, ahead: bool) -> None:
    asked: list[list[int]] = []

    def noted(rows: Tensor) -> tuple[Tensor, Tensor]:
        asked.append(rows.tolist())
        return fetch(rows)

    loader = Loader(CPU, ahead=ahead)
    found = [targets.tolist() for _, targets in loader.read(noted, pieces(num))]
    loader.close()

    assert found == asked == [piece.tolist() for piece in pieces(num)]
    assert not threads()


def test_the_next_piece_is_fetched_while_one_is_used() -> None:
    begun = threading.Event()

    def noted(rows: Tensor) -> tuple[Tensor, Tensor]:
        if rows[0] == 3:
            begun.set()
        return fetch(rows)

    loader = Loader(CPU, ahead=True)
    with closing(loader.read(noted, pieces(3))) as loaded:
        next(loaded)
        seen = begun.wait(timeout=60)  # nobody has asked for the second yet
    loader.close()

    assert seen


def test_what_goes_wrong_is_raised_where_its_rows_were_due() -> None:
    def failing(rows: Tensor) -> tuple[Tensor, Tensor]:
        if rows[0] == 6:
            raise MemoryError
        return fetch(rows)

    loader, got = Loader(CPU, ahead=True), []
    with closing(loader.read(failing, pieces(4))) as loaded:
        got += [next(loaded)[1].tolist(), next(loaded)[1].tolist()]
        with pytest.raises(MemoryError):
            next(loaded)
    again = [t.tolist() for _, t in loader.read(fetch, pieces(2))]
    loader.close()

    assert got == again == [[0, 1, 2], [3, 4, 5]]


def test_a_step_that_stops_in_the_middle_leaves_nothing_running() -> None:
    loader = Loader(CPU, ahead=True)
    with closing(loader.read(fetch, pieces(5))) as loaded:
        next(loaded)

    loader.close()
    assert not threads()


def whole_turn(study: Study, examples: Examples) -> tuple[bytes, list[Any]]:
    with witness.watching() as seen:
        update = fit(
            registry.initial(study),
            study,
            Plan(1.5, 18, 1e-3),
            examples,
            public_size=60,
            keys=TurnKeys.seeded(4, site="site-1", round_no=1),
        )
    read = [step.rows.tolist() for step in seen]
    return b"".join(update[name].tobytes() for name in sorted(update)), read


@pytest.mark.parametrize("kind", ["records", "copies", "persons"])
def test_a_turn_that_reads_ahead_gives_the_same_bytes(
    study_of: Make, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    rng = np.random.default_rng(1)
    inputs = rng.uniform(-1, 1, (1500, 3)).astype(np.float32)
    whose = rng.integers(0, 4, 1500) if kind == "persons" else None
    examples = Examples(inputs, (inputs[:, 0] > 0).astype(np.float32), whose)
    options: dict[str, dict[str, Any]] = {
        "records": {},
        "copies": {"augment": {"copies": 2, "jitter": 0.1}},
        # more records of a person than a pass has rows
        "persons": {
            "privacy": {"unit": "person", "max_records": 300},
            "person": "who",
        },
    }
    study = study_of(model=MLP, local_steps=3, **options[kind])

    monkeypatch.setattr(device, "_speed", device.Speed(prefetch=False))
    plain = whole_turn(study, examples)
    monkeypatch.setattr(device, "_speed", device.Speed(prefetch=True))
    ahead = whole_turn(study, examples)

    assert ahead == plain
    assert not threads()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_card_gets_its_rows_from_pinned_memory() -> None:
    loader = Loader(torch.device("cuda"), ahead=True)

    found = [t for _, t in loader.read(fetch, pieces(4))]
    loader.close()

    assert [t.tolist() for t in found] == [piece.tolist() for piece in pieces(4)]
    assert all(t.is_cuda for t in found)

"""Where a turn computes."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from guilder_shared.errors import DeviceError
from guilder_shared.messages import Plan
from guilder_shared.models import registry
from guilder_shared.privacy.accounting import SENSITIVITY_SLACK
from guilder_shared.privacy.sampling import TurnKeys
from guilder_shared.study import Study
from guilder_shared.tasks import Examples
from guilder_shared.training import device
from guilder_shared.training.fit import fit


def test_the_processor_is_there() -> None:
    assert device.choose() == "cpu"


@pytest.mark.parametrize("name", ["gpu", "cuda:9", ""])
def test_a_device_that_cannot_train_is_refused(name: str) -> None:
    with pytest.raises(DeviceError) as caught:
        device.choose(name)

    assert caught.value.error_id == "GLD-G001"


def test_a_card_that_is_not_here_is_said_before_any_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    with pytest.raises(DeviceError) as caught:
        device.settle(device.Speed(device="cuda"))

    assert caught.value.error_id == "GLD-G002"
    assert device.current() == device.Speed()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_card_kernels_repeat_themselves() -> None:
    assert device.choose("cuda") == "cuda"

    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.benchmark


def test_threads_are_given_back_after_the_last_turn_leaves() -> None:
    before = torch.get_num_threads()

    with device.one_thread():
        with device.one_thread():
            inner = torch.get_num_threads()
        between = torch.get_num_threads()

    assert (inner, between, torch.get_num_threads()) == (1, 1, before)


def fail() -> None:
    with device.one_thread():
        raise RuntimeError("stop")


def test_threads_are_given_back_after_a_failure() -> None:
    before = torch.get_num_threads()

    with pytest.raises(RuntimeError, match="stop"):
        fail()

    assert torch.get_num_threads() == before


def test_a_turn_in_bfloat16_is_nearly_one_in_float32(
    study_of: Callable[..., Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_of(
        model={"name": "mlp", "hidden": [16]}, privacy={"mechanism": "none"}
    )
    rng = np.random.default_rng(1)
    inputs = rng.uniform(-1, 1, (80, 3)).astype(np.float32)
    rows = Examples(inputs, (inputs[:, 0] > 0.2).astype(np.float32))

    def turn() -> NDArray[np.float32]:
        update = fit(
            registry.initial(study),
            study,
            Plan(None, study.training.rounds + 2, SENSITIVITY_SLACK),
            rows,
            public_size=80,
            keys=TurnKeys.seeded(4, site="site-1", round_no=1),
        )
        return np.concatenate([update[name].reshape(-1) for name in sorted(update)])

    whole = turn()
    monkeypatch.setattr(device, "_speed", device.Speed(bfloat16=True))
    half = turn()

    assert half.dtype == np.float32
    assert 0 < np.linalg.norm(half - whole) < 2e-2 * np.linalg.norm(whole)


def settings_of_torch() -> tuple[bool, bool, bool]:
    filling: Any = torch.utils.deterministic
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        filling.fill_uninitialized_memory,
    )


def test_a_turn_takes_only_kernels_that_repeat_themselves() -> None:
    before = settings_of_torch()

    with device.turn():
        with device.turn():
            inner = settings_of_torch()
        between = settings_of_torch()

    assert inner == between == (True, False, False)
    assert settings_of_torch() == before == (False, False, True)


def test_kernels_that_vary_are_a_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_speed", device.Speed(deterministic=False))

    with device.turn():
        assert not torch.are_deterministic_algorithms_enabled()
        assert torch.get_num_threads() == 1


def fail_in_a_turn() -> None:
    with device.turn():
        raise RuntimeError("stop")


def test_torch_is_set_as_before_when_a_turn_fails() -> None:
    before = settings_of_torch()

    with pytest.raises(RuntimeError, match="stop"):
        fail_in_a_turn()

    assert settings_of_torch() == before


def test_what_matrix_kernels_of_a_card_need_is_said_before_the_card_wakes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    said = []
    monkeypatch.setattr(
        torch.cuda,
        "is_available",
        lambda: said.append(os.environ.get("CUBLAS_WORKSPACE_CONFIG")),
    )

    with pytest.raises(DeviceError):
        device.settle(device.Speed(device="cuda"))

    assert said == [":4096:8"]


def test_channels_innermost_change_nothing_but_rounding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    studies = Path(__file__).parents[3] / "simulations" / "studies"
    study = Study.load(studies / "transaction-images.toml", ("privacy.mechanism=none",))
    rng = np.random.default_rng(1)
    images = rng.uniform(-1, 1, (24, 1, 16, 16)).astype(np.float32)
    rows = Examples(images, rng.integers(0, 2, 24).astype(np.float32))
    seen: list[bool] = []
    conv = torch.nn.Conv2d.forward

    def look(self: torch.nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
        if x.shape[1] > 1:  # of one channel both layouts are the same
            seen.append(x.is_contiguous(memory_format=torch.channels_last))
        return conv(self, x)

    def turn() -> NDArray[np.float32]:
        update = fit(
            registry.initial(study),
            study,
            Plan(None, study.training.rounds + 2, SENSITIVITY_SLACK),
            rows,
            public_size=24,
            keys=TurnKeys.seeded(4, site="site-1", round_no=1),
        )
        assert all(array.flags.c_contiguous for array in update.values())
        return np.concatenate([update[name].reshape(-1) for name in sorted(update)])

    plain = turn()
    monkeypatch.setattr(torch.nn.Conv2d, "forward", look)
    monkeypatch.setattr(device, "_speed", device.Speed(channels_last=True))
    innermost = turn()

    assert seen
    assert all(seen)
    assert np.linalg.norm(innermost - plain) <= 1e-4 * np.linalg.norm(plain)

"""Where a turn computes."""

import pytest
import torch

from guilder_shared.errors import DeviceError
from guilder_shared.training import device


def test_the_processor_is_there() -> None:
    assert device.choose() == "cpu"


@pytest.mark.parametrize("name", ["cuda", "gpu", ""])
def test_a_device_that_cannot_train_is_refused(name: str) -> None:
    with pytest.raises(DeviceError) as caught:
        device.choose(name)

    assert caught.value.error_id == "GLD-G001"


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

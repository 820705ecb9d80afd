"""What is trained of a model: all, its head, its biases, or low-rank adapters.

What is not trained stays where it started, never travels, and is charged nothing: no
row has moved it. This module chooses names without torch; the modules are in `parts`.

Source: Hu et al. 2022 for low-rank adapters; Ben Zaken et al. 2022 for biases.
"""

from collections.abc import Mapping
from typing import Literal

from guilder_shared.models.starting import Start, Starts

Train = Literal["all", "head", "bias", "lora"]

HEAD = "head."
ADAPTED = ("query", "value")  # of each attention, as in the source


def trained(starts: Mapping[str, Start], train: Train, rank: int = 8) -> Starts:
    """The parameters that are trained, in the module's order.

    Args:
        starts: All parameters of the model without adapters.
        train: "head" is the last layer; "bias" every bias and the head; "lora" the
            adapters of each attention's query and value, and the head.
        rank: Of the adapters.
    """
    if train == "lora":
        return adapters(starts, rank) | _head(starts)
    if train == "bias":
        biases = {n: s for n, s in starts.items() if n.endswith(".bias")}
        return {n: s for n, s in starts.items() if n in biases or n.startswith(HEAD)}
    return _head(starts) if train == "head" else dict(starts)


def adapters(starts: Mapping[str, Start], rank: int) -> Starts:
    """Two thin matrices beside each adapted layer; the second starts at zero."""
    found: Starts = {}
    for name, start in starts.items():
        layer, _, last = name.rpartition(".")
        if last != "weight" or layer.rpartition(".")[2] not in ADAPTED:
            continue
        fan_out, fan_in = start.shape
        bound = fan_in**-0.5
        found[f"{layer}.down.weight"] = Start((rank, fan_in), "uniform", bound)
        found[f"{layer}.up.weight"] = Start((fan_out, rank), "zeros")
    return found


def _head(starts: Mapping[str, Start]) -> Starts:
    return {n: s for n, s in starts.items() if n.startswith(HEAD)}

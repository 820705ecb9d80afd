"""How replies become one model: the [aggregation] table of a study.

Each strategy has its own bounded keys; `aggregation_rules` says which belong together.
This module sums nothing.
"""

from typing import Annotated, Literal

from pydantic import Field

from guilder_shared.settings.files import Frozen, Listed

Strategy = Literal[
    "fedavg", "fedprox", "fedadam", "scaffold", "median", "trimmed-mean", "norm-bound"
]


class Aggregation(Frozen):
    """How replies become one model, and how long they are waited for."""

    strategy: Strategy = Field(
        default="fedavg",
        description='mean weighted by public sizes; "median" and "trimmed-mean" '
        "count each site once",
    )
    proximal: float | None = Field(
        default=None, gt=0, le=1e6, description="of fedprox: pull to the global model"
    )
    server_learning_rate: float | None = Field(
        default=None, gt=0, le=1e3, description="of fedadam"
    )
    server_betas: Listed[Annotated[float, Field(ge=0, lt=1)]] | None = Field(
        default=None, min_length=2, max_length=2, description="of fedadam; 0.9, 0.99"
    )
    server_floor: float | None = Field(
        default=None, gt=0, le=1e3, description="of fedadam: least denominator; 0.001"
    )
    trim: float | None = Field(
        default=None,
        gt=0,
        lt=0.5,
        description="of trimmed-mean: share of sites left out at either end",
    )
    norm_bound: float | None = Field(
        default=None,
        gt=0,
        le=1e6,
        description="of norm-bound: longest update, L2, beside its noise",
    )
    compression: Literal["int8"] | None = Field(
        default=None, description="of updates, after the noise; none if left out"
    )
    min_sites: int = Field(ge=1, le=1_000_000, description="fewest replies of a round")
    round_deadline_s: float = Field(
        default=600.0, gt=0, le=604_800, description="longest wait for replies"
    )
    spare_turns: int = Field(
        default=2, ge=0, le=100, description="turns that may be lost; part of epsilon"
    )
    reply_quantum_s: float = Field(
        default=1.0, ge=0, le=60, description="replies leave at multiples of this"
    )

    @property
    def has_controls(self) -> bool:
        """Whether control variates travel beside the model."""
        return self.strategy == "scaffold"

    def num_trimmed(self, num_sites: int) -> int:
        """How many of so many sites trimmed-mean leaves out at either end."""
        # 0.29 x 100 is a little below 29 in binary: what was written is meant.
        return int((self.trim or 0.0) * num_sites + 1e-9)

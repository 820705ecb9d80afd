"""Optional tables of [training]: more accuracy at the same epsilon.

None of them changes what a study costs. This module knows no data and no torch.
"""

from typing import Self

from pydantic import Field, model_validator

from guilder_shared.settings.files import Frozen
from guilder_shared.settings.mistakes import Contradiction, ContradictionError


class Augment(Frozen):
    """Several changed copies of each row, averaged into one gradient."""

    copies: int = Field(ge=1, le=64, description="of each row, in every step")
    flip: bool | None = Field(default=None, description="images: mirror half of them")
    shift: int | None = Field(
        default=None, ge=1, le=64, description="images: move by up to so many pixels"
    )
    jitter: float | None = Field(
        default=None, gt=0, le=1, description="numbers and pixels: move by up to this"
    )
    mask: float | None = Field(
        default=None, gt=0, lt=1, description="tables: share of columns left out"
    )

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if self.flip or self.shift or self.jitter or self.mask:
            return self
        what = "has copies that are all the same row"
        fix = "Name what changes them: flip, shift, jitter or mask."
        raise ContradictionError([Contradiction(("copies",), what, fix)])


class AdaptiveClip(Frozen):
    """A clip norm that follows a quantile of the gradients' norms."""

    quantile: float = Field(
        default=0.5, gt=0, lt=1, description="share of units that should not be clipped"
    )
    rate: float = Field(
        default=0.2, gt=0, le=1, description="how fast the clip norm follows, in logs"
    )
    share: float = Field(
        default=0.02, gt=0, lt=0.5, description="of each step's privacy, for the count"
    )

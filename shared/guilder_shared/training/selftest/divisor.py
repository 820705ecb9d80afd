"""Is what is divided by public, and the noise the same whoever is there?

Two turns with the same keys, with and without rows: their noise is the same numbers, so
what is released less the sum must be equal, whatever the number of rows. This module
changes nothing.

Review, mathematics: no chance here, hence no false alarms. Equal up to the rounding to
the grid, which hangs on the sum, and of the release to float32.
Review, crash order: in memory only.
"""

import numpy as np

from guilder_shared.messages import Weights
from guilder_shared.privacy.noise import grid_for
from guilder_shared.tasks import Examples
from guilder_shared.training.selftest.trial import Setting, observe


def check(
    setting: Setting, nobody: Examples, some: Examples, weights: Weights
) -> list[str]:
    """What is wrong with divisor and noise; nothing, if all is well.

    Args:
        setting: With a mechanism that adds noise.
        nobody: No rows, in the study's shapes.
        some: A few rows.
        weights: To start from.
    """
    keys = setting.make_keys()
    full = setting.with_everybody_drawn()
    grid = grid_for(full.std)
    noise = None
    for examples in (nobody, some, _first(some)):
        seen, _ = observe(full, examples, weights, keys)
        if len(seen) != 1 or not len(seen[0].given):
            return ["a step released nothing"]
        released = seen[0].given * full.expected
        left = released - seen[0].total
        rounding = grid + 1e-6 * np.abs(released)
        if noise is not None and not (np.abs(left - noise) <= rounding).all():
            return ["the scale of what is released hangs on the number of rows"]
        noise = left if noise is None else noise
    return []


def _first(some: Examples) -> Examples:
    units = None if some.units is None else some.units[:1]
    return Examples(some.inputs[:1], some.targets[:1], units)

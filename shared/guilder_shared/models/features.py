"""Features of rows by a frozen body, computed once: then only a head is trained.

A feature is a function of its own row and of public weights, to the bit: rows pass the
body one at a time, and a text without the padding behind it. Kernels round a row by
its neighbours, and weights that a server chooses could make that visible.

Review, mathematics: preparation of one row by public constants, as design 5.2 asks.
Review, crash order: in memory only; called on a site's rows after the turn's charge.
"""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from guilder_shared.models import registry
from guilder_shared.models.text import PADDING
from guilder_shared.study import Study
from guilder_shared.tasks import Examples

if TYPE_CHECKING:
    from torch import Tensor


def prepare(examples: Examples, study: Study) -> Examples:
    """Examples as the trained module reads them.

    Args:
        examples: Encoded rows. Those that are features already are given back.
        study: Names model and what is trained.

    Returns:
        The same examples, or, where the head alone is trained, with the body's
        features as inputs: (rows, features), float32.

    Raises:
        StudyError: As `registry.build`.
    """
    if study.model.train != "head":
        return examples
    wanted = registry.inputs(study)
    given = examples.inputs
    done = given.shape[1:] == wanted.shape and given.dtype == np.float32
    if done:
        return examples
    return dataclasses.replace(
        examples, inputs=_features(examples, study, wanted.shape)
    )


def _features(
    examples: Examples, study: Study, shape: tuple[int, ...]
) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    import torch

    from guilder_shared.models import assembly

    body = assembly.body(study)
    found = np.empty((len(examples), *shape), np.float32)
    with torch.inference_mode():
        for place, row in enumerate(examples.inputs):
            found[place] = body(_alone(torch.from_numpy(row.copy())))[0].numpy()
    return found


def _alone(row: "Tensor") -> "Tensor":
    """A batch of one row; tokens without what fills them up, which changes nothing."""
    if row.dtype.is_floating_point:
        return row[None]
    told = (row != PADDING).nonzero()
    last = int(told[-1]) if len(told) else 0
    return row[None, : last + 1]

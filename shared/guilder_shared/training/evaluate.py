"""Measuring a model on public rows: the server's hold-out, a simulation's own.

Nothing here is private: on a site's rows its result would be a release that no ledger
charged. Sites never call it for anything that leaves them.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from guilder_shared import tasks
from guilder_shared.models import features, registry
from guilder_shared.study import Study
from guilder_shared.tasks import Examples

if TYPE_CHECKING:
    from torch import nn

ROWS_PER_PASS = 65_536  # of a table; bounds memory, the result hardly depends on it
HEAVY_ROWS_PER_PASS = 64  # of images and texts


def evaluate(
    weights: registry.Weights, study: Study, examples: Examples
) -> dict[str, float]:
    """Measure the model on public rows by the recipe's metrics.

    Args:
        weights: The study's model.
        study: Names recipe and model.
        examples: Public rows, encoded; features where the head alone is trained.

    Returns:
        For tables of 0 and 1 `auc`, `accuracy` and `loss`; for classes `accuracy`,
        `f1`, `loss` and `auc` or, above two, `macro_auc`; for masks `dice` and `loss`.
        A metric that the rows leave undefined is left out: `auc` where a class is
        absent, all for no rows.

    Raises:
        StudyError: GLD-C062 or GLD-C063 the weights are not this study's.
    """
    examples = features.prepare(examples, study)
    module = registry.load(weights, study)
    if not len(examples):
        return {}
    heavy = examples.inputs.ndim > 2 or study.data.kind == "texts"
    outputs = _outputs(
        module, examples, HEAVY_ROWS_PER_PASS if heavy else ROWS_PER_PASS
    )
    return tasks.recipe(study.study.recipe).metrics(outputs, examples.targets)


def _outputs(
    module: "nn.Module", examples: Examples, rows_per_pass: int
) -> NDArray[np.float32]:
    import torch

    module.eval()
    outputs = []
    with torch.inference_mode():
        for start in range(0, len(examples), rows_per_pass):
            rows = slice(start, start + rows_per_pass)
            inputs = torch.from_numpy(examples.inputs[rows].copy())
            outputs.append(module(inputs).numpy())
    return np.concatenate(outputs)

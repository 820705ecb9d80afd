"""Measuring a model on public rows: the server's hold-out, a simulation's own.

Nothing here is private: on a site's rows its result would be a release that no ledger
charged. Sites never call it for anything that leaves them.
"""

import numpy as np

from guilder_shared import tasks
from guilder_shared.models import registry
from guilder_shared.study import Study
from guilder_shared.tasks import Examples

ROWS_PER_PASS = 65_536  # bounds memory; the result does not depend on it


def evaluate(
    weights: registry.Weights, study: Study, examples: Examples
) -> dict[str, float]:
    """Measure the model on public rows by the recipe's metrics.

    Args:
        weights: The study's model.
        study: Names recipe and model.
        examples: Public rows, encoded.

    Returns:
        For tabular classification `auc`, `accuracy` and `loss`. A metric that the rows
        leave undefined is left out: `auc` where a class is absent, all for no rows.

    Raises:
        StudyError: GLD-C062 or GLD-C063 the weights are not this study's.
    """
    registry.check(weights, study)
    return tasks.recipe(study.study.recipe).metrics(
        _outputs(weights, study, examples), examples.targets
    )


def _outputs(
    weights: registry.Weights, study: Study, examples: Examples
) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    import torch

    model = registry.build(study).eval()
    # Copied: torch must not alias, nor warn about, arrays that came read-only.
    model.load_state_dict({n: torch.from_numpy(w.copy()) for n, w in weights.items()})
    outputs = np.empty(len(examples), dtype=np.float32)
    with torch.inference_mode():
        for start in range(0, len(examples), ROWS_PER_PASS):
            rows = slice(start, start + ROWS_PER_PASS)
            inputs = torch.from_numpy(examples.inputs[rows].copy())
            outputs[rows] = model(inputs).squeeze(-1).numpy()
    return outputs

"""The files of a new recipe's package, ready to be edited.

They are text; nothing is installed or loaded here.
"""

import re
from pathlib import Path
from typing import Final

from guilder_shared.errors import StudyError

NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,60}")
PYPROJECT: Final = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "guilder-recipe-{name}"
version = "1.0.0"
description = "The recipe {name} for Guilder."
requires-python = ">=3.11"

# A study names the recipe by the left side; the right side is one `Recipe`.
[project.entry-points."guilder.recipes"]
{name} = "{module}:RECIPE"

[tool.hatch.build.targets.wheel]
packages = ["{module}"]
"""
MODULE: Final = '''\
"""The recipe `{name}`: what a row's loss is, and what is measured.

Everything else is Guilder's: reading, sampling, clipping, noise, the ledger. A site's
validator and self-test try before every study that this code keeps rows apart.
"""

from typing import Any

from guilder_shared import metrics
from guilder_shared.tasks import Recipe

SMOOTHING = 0.05  # public; nothing here may be learnt from rows outside training


def losses(outputs: Any, targets: Any) -> Any:
    """One loss for each row, rows first. Never a mean over rows.

    Args:
        outputs: What the model says of each row, shape (rows, 1).
        targets: 0 or 1, shape (rows,).
    """
    from torch.nn.functional import binary_cross_entropy_with_logits

    softer = targets * (1 - 2 * SMOOTHING) + SMOOTHING
    return binary_cross_entropy_with_logits(
        outputs.squeeze(-1), softer, reduction="none"
    )


def measured(outputs: Any, targets: Any) -> dict[str, float]:
    """What is measured on public rows."""
    logits = outputs.reshape(len(outputs))
    return {{"auc": metrics.auc(logits, targets)}}


RECIPE = Recipe(
    name="{name}",
    data="table",
    models=("logistic", "mlp"),
    losses=losses,
    metrics=measured,
)
'''
STUDY: Final = """\
schema = 1

[study]
name = "try-{name}"
recipe = "{name}"
purpose = "Try the recipe {name} on made-up rows"

[data]
kind = "table"
dataset = "card-payments"
target = "fraud"
[data.columns]
amount = {{ kind = "number", low = 0, high = 5000 }}
hour = {{ kind = "number", low = 0, high = 23 }}

[model]
name = "logistic"

[training]
rounds = 2
local_steps = 5
sample_rate = 0.01
learning_rate = 4.0

[privacy]
unit = "record"
mechanism = "site-noise"
epsilon = 3.0
delta = 1e-6
clip_norm = 0.25

[aggregation]
min_sites = 2

[evaluation]
on = "public-holdout"
rows = 0.2

[simulation]
sites = 2
source = "card-payments"
partition = {{ kind = "iid" }}
seed = 7
"""
README: Final = """\
# The recipe `{name}`

Edit `{module}/__init__.py`, try it, pack it, and let each site look at it:

    pip install --no-deps -e .
    guilder simulate study.toml
    guilder recipe pack .

A site installs the wheel itself and names it in site.toml; `guilder recipe allow WHEEL`
prints the lines. Change the version with every change.
"""


def write(name: str, folder: Path) -> Path:
    """Write the package `guilder-recipe-NAME` into a folder.

    Raises:
        StudyError: GLD-C152, the name will not do, is Guilder's own, or is there.
    """
    from guilder_shared import tasks

    made = folder / f"guilder-recipe-{name}"
    if not NAME.fullmatch(name) or name in tasks.RECIPES or made.exists():
        raise StudyError(
            "GLD-C152",
            f"no recipe can be written as {name[:80]!r}",
            why=f"{made} exists, or the name is Guilder's own or not of a-z 0-9 -.",
            fix="Choose another name.",
        )
    module = f"guilder_recipe_{name.replace('-', '_')}"
    files = {
        "pyproject.toml": PYPROJECT,
        f"{module}/__init__.py": MODULE,
        "study.toml": STUDY,
        "README.md": README,
    }
    for path, text in files.items():
        (made / path).parent.mkdir(parents=True, exist_ok=True)
        (made / path).write_text(text.format(name=name, module=module), "utf-8")
    return made

"""What the demo's banks reach without privacy: all together, and each one alone.

Two processes of their own (`python -m guilder.comparison`), so that the demo's clock
and the banks are not held up. Nothing here touches the deployed run.
"""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

STUDY: Final = "card-fraud"
UNPROTECTED: Final = ("privacy.mechanism=none", "evaluation.on=none")
SINGLE: Final = ("aggregation.min_sites=1", "simulation.sites=1")
Comparison = tuple[Path, Mapping[str, Path]]  # run folders: together, each bank alone


def train_unprotected(
    folder: Path, names: Sequence[str], settings: Sequence[str]
) -> Comparison:
    """Simulate the study without privacy on the rows that the sites in `folder` hold.

    Args:
        folder: The demo's; runs go to `folder/compare`.
        names: The banks.
        settings: Changes to the study, as for `--set`.

    Raises:
        CalledProcessError: A simulation failed; its words are in `folder/logs`.
    """
    command = [sys.executable, "-m", "guilder.comparison", str(folder), *settings]
    log = folder / "logs" / "comparison.log"
    with log.open("ab") as out:
        processes = [
            subprocess.Popen([*command, "--", *group], stdout=out, stderr=out)  # noqa: S603 - our own module, no shell
            for group in ((), names)
        ]
    for process in processes:
        if process.wait():
            raise subprocess.CalledProcessError(process.returncode, command)
    alone = {name: folder / "compare" / name for name in names}
    return folder / "compare" / "together", alone


def main(arguments: Sequence[str]) -> None:
    """`FOLDER [SETTING ...] -- [NAME ...]`: no name means all banks together."""
    from guilder_shared.study import Study
    from guilder_simulations.engine import simulate
    from guilder_simulations.studies import path_of

    folder = Path(arguments[0])
    cut = list(arguments).index("--")
    settings = (*arguments[1:cut], *UNPROTECTED)
    if not arguments[cut + 1 :]:
        study = Study.load(path_of(STUDY), settings)
        simulate(study, folder / "compare" / "together")
    for name in arguments[cut + 1 :]:
        rows = (folder / "sites" / name / "rows.parquet").absolute()
        single = (*settings, *SINGLE, f"simulation.source={rows}")
        simulate(Study.load(path_of(STUDY), single), folder / "compare" / name)


if __name__ == "__main__":
    main(sys.argv[1:])

"""A small consortium of real processes: one server, three hospitals, loopback."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from guilder.consortium import Consortium, found
from guilder_client.settings import SiteFile
from guilder_client.site import read_ledger
from guilder_shared import reports
from guilder_shared.privacy.ledger import Grant
from guilder_shared.study import Study
from guilder_simulations.studies import path_of

OVERRIDES = (
    "training.rounds=6",
    "simulation.sites=3",
    "aggregation.reply_quantum_s=0",
    "aggregation.round_deadline_s=60",
)


class Hospitals(Consortium):
    """The breast cancer study over three hospitals, ready to be started."""

    study: Study

    @classmethod
    def at(cls, folder: Path, **settings: Any) -> Self:
        """Three hospitals with files in `folder`."""
        study = Study.load(path_of("breast-cancer"), OVERRIDES)
        hospitals = cls(folder, found(folder, study, **settings).sites)
        hospitals.study = study
        return hospitals

    def study_with(self, *overrides: str) -> Study:
        return Study.load(path_of("breast-cancer"), (*OVERRIDES, *overrides))

    def arguments(self) -> list[str]:
        """What follows `guilder run submit` for this study and server."""
        changes = [part for each in OVERRIDES for part in ("--set", each)]
        server = ["--server", str(self.server_file)]
        return [str(path_of("breast-cancer")), *changes, *server]

    def outcome(self, run_id: str) -> dict[str, Any]:
        """The last event of a run, which is waited for."""
        with self.control() as control:
            events: list[dict[str, Any]] = list(control.watch(run_id))
        return events[-1]

    def run(self, study: Study | None = None) -> str:
        """Submit a study; returns the run's id."""
        with self.control() as control:
            run_id: str = control.submit((study or self.study).canonical(), [])
            return run_id

    def grants(self, site: str) -> list[Grant]:
        """What the site's ledger holds, read from its file."""
        with read_ledger(SiteFile.load(self.site_file(site))) as ledger:
            return ledger.grants()

    def verified(self, site: str) -> reports.Verification:
        """The site's report, written and verified."""
        with read_ledger(SiteFile.load(self.site_file(site))) as ledger:
            return reports.verify(reports.write(ledger, self.folder / "reports"))

    def num_rounds(self, run_id: str) -> int:
        """How many rounds of a run have a model on disk."""
        rounds = self._run(run_id) / "rounds"
        return len(list(rounds.iterdir())) if rounds.exists() else 0

    def model(self, run_id: str, round_no: int) -> bytes:
        """A round's model."""
        name = f"rounds/{round_no:03d}/model.safetensors"
        return (self._run(run_id) / name).read_bytes()

    def _run(self, run_id: str) -> Path:
        return self.folder / "server" / "state" / "runs" / run_id


Founding = Callable[..., Hospitals]


@pytest.fixture(name="found")
def founding(tmp_path: Path) -> Iterator[Founding]:
    """Makes a consortium; whatever it started ends with the test."""
    made: list[Hospitals] = []

    def make(**changes: Any) -> Hospitals:
        settings = {"delta": 5e-4, "smallest_cohort": 3, **changes}
        folder = tmp_path / f"consortium-{len(made)}"
        made.append(Hospitals.at(folder, **settings))
        return made[-1]

    yield make
    for hospitals in made:
        hospitals.stop()

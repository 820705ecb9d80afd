"""A small consortium of real processes: one server, three hospitals, loopback."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from guilder.consortium import Consortium, free_ports
from guilder_client.settings import SiteFile
from guilder_client.site import read_ledger
from guilder_server.init import LocalData, init_local
from guilder_shared import reports
from guilder_shared.privacy.ledger import Grant
from guilder_shared.study import Study
from guilder_simulations import partition, synthetic
from guilder_simulations.studies import path_of

OVERRIDES = (
    "training.rounds=6",
    "simulation.sites=3",
    "aggregation.reply_quantum_s=0",
    "aggregation.round_deadline_s=60",
)


class Hospitals(Consortium):
    """The breast cancer study over three hospitals, ready to be started."""

    def __init__(self, folder: Path, data: LocalData) -> None:
        self.study = Study.load(path_of("breast-cancer"), OVERRIDES)
        assert self.study.simulation is not None
        simulation = self.study.simulation
        table = synthetic.generate(simulation.source, simulation.seed)
        dealt, holdout, self.sizes = partition.split(table, simulation, 0.2)
        port, control_port = free_ports(2)
        init_local(
            folder,
            list(dealt),
            host="127.0.0.1",
            port=port,
            control_port=control_port,
            data=data,
            holdout="holdout.parquet",
        )
        pq.write_table(holdout, folder / "server" / "holdout.parquet")
        for name, rows in dealt.items():
            site = folder / "sites" / name
            pq.write_table(rows, site / "rows.parquet")
            text = (site / "site.toml").read_text()
            old = f"public_size = {data.public_size}"
            text = text.replace(old, f"public_size = {self.sizes[name]}")
            (site / "site.toml").write_text(text)
        super().__init__(folder, dealt)

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

    def model(self, run_id: str, round_no: int) -> bytes:
        """A round's model."""
        runs = self.folder / "server" / "state" / "runs"
        path = runs / run_id / "rounds" / f"{round_no:03d}" / "model.safetensors"
        return path.read_bytes()


Founding = Callable[..., Hospitals]


@pytest.fixture
def found(tmp_path: Path) -> Iterator[Founding]:
    """Makes a consortium; whatever it started ends with the test."""
    made: list[Hospitals] = []

    def make(**changes: Any) -> Hospitals:
        defaults = {
            "dataset": "biopsies",
            "kind": "parquet",
            "path": "rows.parquet",
            "delta": 1e-3 / 2,
            "smallest_cohort": 3,
        }
        data = LocalData(**{**defaults, **changes})
        made.append(Hospitals(tmp_path / f"consortium-{len(made)}", data))
        return made[-1]

    yield make
    for hospitals in made:
        hospitals.stop()

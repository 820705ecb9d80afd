"""The preview of each kind of study lists what real turns of it send, no more, no less.

Studies that measure by rounds have three kinds of turn: one that trains, one that
trains and measures, and the last, which measures alone. A tap on the site's TLS
connection captured them all.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow import parquet

from guilder.consortium import Consortium, found
from guilder_client.disclosure import fields
from guilder_shared.messages import MEASURED, MEASURED_BESIDE
from guilder_shared.study import Study
from guilder_simulations import synthetic
from guilder_simulations.studies import path_of

SITES = (
    "simulation.sites=2",
    'simulation.partition={ kind = "iid" }',
    "aggregation.min_sites=2",
    "aggregation.reply_quantum_s=0",
    "aggregation.round_deadline_s=120",
)
SHORT = ("training.rounds=4", "training.local_steps=1", "privacy.epsilon=3")
BY_ROUND = 'evaluation={ on = "charged", rows = 0.3, share = 1.0, every = 2 }'
ROWS = 900  # of what a generator makes
KINDS = {
    "numbers": ("breast-cancer", *SHORT, BY_ROUND),
    "variates": (
        "breast-cancer",
        *SHORT,
        BY_ROUND,
        "aggregation.strategy=scaffold",
        "training.local_steps=2",
        "training.sample_rate=0.5",
    ),
    "eight bits": ("breast-cancer", *SHORT, BY_ROUND, "aggregation.compression=int8"),
    "classes": ("triage", *SHORT, BY_ROUND, "model.hidden=[4]"),
    "persons' pictures": ("patient-scans", *SHORT, BY_ROUND, "privacy.max_records=2"),
    "texts": (
        "customer-intents",
        *SHORT,
        BY_ROUND,
        "model.width=8",
        "data.max_tokens=8",
    ),
    "regions": ("lesions", *SHORT, BY_ROUND),
    "figures": ("payment-figures",),
}


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Any]:
    started: list[Consortium] = []

    def make(name: str, *overrides: str) -> tuple[Consortium, Study]:
        generator = Study.load(path_of(name)).simulation
        assert generator is not None
        table = synthetic.generate(generator.source, 3)
        some = np.random.default_rng(3).permutation(len(table))[:ROWS]
        rows = tmp_path / "rows.parquet"
        parquet.write_table(table.take(np.sort(some)), rows)
        where = f'simulation.source="{rows}"'
        study = Study.load(path_of(name), (*SITES, *overrides, where))
        consortium = found(tmp_path / "sites", study, delta=9e-4, smallest_cohort=2)
        started.append(consortium)
        return consortium, study

    yield make
    for consortium in started:
        consortium.stop()


@pytest.mark.slow(minutes=0.4)  # real processes
@pytest.mark.parametrize("kind", KINDS)
def test_a_preview_lists_the_fields_of_every_kind_of_turn(
    kind: str, made: Any, tapped: Any
) -> None:
    consortium, study = made(*KINDS[kind])
    tap = tapped(consortium, "site-1")
    consortium.start_all()
    with consortium.control() as control:
        run_id = control.submit(study.canonical(), [])
        last = list(control.watch(run_id))[-1]
    consortium.stop("site-1")  # and the site says that it leaves

    told = subprocess.run(
        [sys.executable, "-m", "guilder", "client", "studies", "preview", "--json",
         study.digest()[:8], "--site", str(consortium.site_file("site-1"))],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert last["kind"] == "run-finished", last
    assert told.returncode == 0, told.stderr
    captured = {(f.where, f.name, f.kind) for f in fields(tap.sent())}
    listed = [
        (f["where"], f["name"], f["kind"]) for f in json.loads(told.stdout)["fields"]
    ]
    assert len(listed) == len(set(listed))
    # a heartbeat leaves every 10 to 13 s, so perhaps none did
    beat = {each for each in listed if each[0] == "send-node-heartbeat"}
    assert captured | beat == set(listed)
    names = {name for where, name, _ in captured if where == "reply to train"}
    assert f"update.{MEASURED}" in names  # the last turn measures alone
    if not study.statistics:
        beside = f"update.{MEASURED_BESIDE}"  # with what was trained
        assert beside in names
        assert names - {beside, f"update.{MEASURED}", "verdict"}

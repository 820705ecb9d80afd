"""A deployed site with a million rows: memory does not grow with the logical batch."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from guilder_client.site import Site
from guilder_shared.study import Study

ROWS = 1_000_000

# Opens the deployed site of a folder, accepts the study of stdin, takes two turns, and
# prints how far the second rises above what was held before it, in bytes.
CHILD = """
import sys
from pathlib import Path
from guilder_client import policy, turn
from guilder_client.settings import SiteFile
from guilder_client.site import Site
from guilder_shared.messages import Offer, TurnRequest, Verdict, pack
from guilder_shared.models import registry
from guilder_shared.privacy import accounting
from guilder_shared.study import Study

def held(key):
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith(key))
    return int(line.split()[1]) * 1024

study = Study.from_canonical(sys.stdin.buffer.read())
site = Site.open(SiteFile.load(Path(sys.argv[1]) / "site.toml"))
offer = Offer("run-1", study.canonical(), accounting.solve(study))
answer = policy.consider(site, offer)
assert answer.verdict == Verdict.ACCEPTED, answer.reason
model = pack(registry.initial(study))

def take(no):
    request = TurnRequest("run-1", answer.grant_id, no, no, study.digest(), model)
    reply = turn.take(site, request)
    assert reply.verdict == Verdict.DONE, reply

take(1)
before = held("VmRSS")
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
take(2)
print(held("VmHWM") - before)
site.ledger.shut()
"""


def study(batch: int) -> Study:
    return Study.model_validate(
        {
            "schema": 1,
            "study": {"name": "t", "recipe": "tabular-classification", "purpose": "p"},
            "data": {
                "kind": "table",
                "dataset": "d",
                "target": "y",
                "columns": {
                    f"x{n}": {"kind": "number", "low": 0, "high": 1} for n in range(3)
                },
            },
            "model": {"name": "mlp", "hidden": [64, 64]},
            "training": {
                "rounds": 2,
                "local_steps": 2,
                "sample_rate": batch / ROWS,
                "learning_rate": 1.0,
            },
            "privacy": {
                "unit": "record",
                "mechanism": "site-noise",
                "epsilon": 1.0,
                "delta": 1e-7,
                "clip_norm": 0.5,
            },
            "aggregation": {"min_sites": 1, "spare_turns": 1, "reply_quantum_s": 0},
            "evaluation": {"on": "none"},
        }
    )


def growth_bytes(folder: Path, batch: int) -> int:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(folder)],
        input=study(batch).canonical(),
        stdout=subprocess.PIPE,
        check=True,
    )
    return int(done.stdout.split()[-1])


@pytest.mark.slow
def test_a_deployed_turn_on_a_million_rows_is_flat_in_the_size_of_its_batch(
    site_at: Callable[..., Site], tmp_path: Path
) -> None:
    rng = np.random.default_rng(1)
    columns = {f"x{n}": rng.random(ROWS, dtype=np.float32) for n in range(3)}
    columns["y"] = (columns["x0"] > 0.5).astype(np.int8)
    grown = {}

    for batch in (4_096, 65_536):
        folder = tmp_path / str(batch)
        folder.mkdir()
        parquet.write_table(pa.table(columns), folder / "rows.parquet")
        site = site_at(folder, kind="parquet", path="rows.parquet", public_size=ROWS)
        site.ledger.shut()
        grown[batch] = growth_bytes(folder, batch)

    # 65,536 gradients of 4,545 numbers would take 1.2 GB.
    assert grown[65_536] < grown[4_096] + 32 * 2**20

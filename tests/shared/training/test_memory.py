"""What a turn holds: memory does not grow with its batch, and no thread is left."""

import subprocess
import sys
import threading
from collections.abc import Callable

import numpy as np
import pytest

from guilder_shared.messages import Plan
from guilder_shared.models import registry
from guilder_shared.privacy.sampling import TurnKeys
from guilder_shared.study import Study
from guilder_shared.tasks import Examples
from guilder_shared.training.fit import fit

Make = Callable[..., Study]
ROWS = 1_000_000
MLP = {"name": "mlp", "hidden": [64, 64], "prior": 0.5}

# Prints how far one turn of two steps rises above what was held before it, in bytes.
CHILD = f"""
import sys
import numpy as np
from guilder_shared.messages import Plan
from guilder_shared.models import registry
from guilder_shared.privacy.sampling import TurnKeys
from guilder_shared.study import Study
from guilder_shared.tasks import Examples
from guilder_shared.training.fit import fit

def held(key):
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith(key))
    return int(line.split()[1]) * 1024

study = Study.from_canonical(sys.stdin.buffer.read())
rng = np.random.default_rng(1)
inputs = rng.random(({ROWS}, 3), dtype=np.float32)
rows = Examples(inputs, (inputs[:, 0] > 0.5).astype(np.float32))

def turn(public_size):
    fit(registry.initial(study), study, Plan(1.0, 18, 1e-3), rows,
        public_size=public_size, keys=TurnKeys.from_os())

turn({ROWS})
before = held("VmRSS")
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
turn({ROWS})
print(held("VmHWM") - before)
"""


def growth_bytes(study: Study) -> int:
    done = subprocess.run(
        [sys.executable, "-c", CHILD],
        input=study.canonical(),
        stdout=subprocess.PIPE,
        check=True,
    )
    return int(done.stdout)


@pytest.mark.slow
def test_a_turn_on_a_million_rows_is_flat_in_the_size_of_its_batch(
    study_of: Make,
) -> None:
    large, small = (
        study_of(sample_rate=batch / ROWS, local_steps=2, model=MLP)
        for batch in (65_536, 4_096)
    )

    # Who was drawn, as 8 bytes a row, and no copy of the rows nor of their gradients:
    # 65,536 gradients of 4,545 numbers would take 1.2 GB.
    assert growth_bytes(large) < growth_bytes(small) + 32 * 2**20


def test_no_thread_of_a_turns_noise_is_left(study_of: Make) -> None:
    study = study_of(
        local_steps=2, model={"name": "mlp", "hidden": [160, 160], "prior": 0.5}
    )
    rows = Examples(np.zeros((4, 3), np.float32), np.zeros(4, np.float32))

    fit(
        registry.initial(study),
        study,
        Plan(1.0, 18, 1e-3),
        rows,
        public_size=4,
        keys=TurnKeys.from_os(),
    )

    assert not [t for t in threading.enumerate() if t.name.startswith("noise")]

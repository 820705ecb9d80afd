"""What the ledger needs of the machine: disk, one thread at a time, no torch."""

import resource
import subprocess
import sys
import threading
from pathlib import Path

from guilder_shared.errors import BudgetSpent
from guilder_shared.identity import SigningKey
from guilder_shared.officer import Officer
from guilder_shared.privacy.ledger import Ledger

OFFICER = Officer(SigningKey.generate(), site="bank-a")
ORDERS = [
    OFFICER.budget("patients", 3.0, 1e-5, ["scans"]),
    OFFICER.rule("any", recipes=["r"], largest_epsilon=100, largest_delta=0.5),
]
FULL_DISK = """
import resource, sys
from pathlib import Path
from guilder_shared.errors import IntegrityError
from guilder_shared.identity import SigningKey
from guilder_shared.privacy.ledger import Ledger

folder = Path(sys.argv[1])
ledger = Ledger.open(
    folder / "ledger.db", SigningKey.load(folder / "key"), site="bank-a",
    officer=sys.argv[2],
)
(grant,) = ledger.grants()
limit = (folder / "ledger.db-wal").stat().st_size + 40_000
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
for turn_no in range(1, grant.num_turns + 1):
    try:
        ledger.spend(grant.grant_id, turn_no, "h" * 64)
        print("spent", turn_no)
    except IntegrityError as error:
        print(error.error_id)
"""


def open_ledger(folder: Path, key: SigningKey) -> Ledger:
    return Ledger.open(
        folder / "ledger.db",
        key,
        site="bank-a",
        officer=OFFICER.public_hex,
        orders=ORDERS,
    )


def reserve(ledger: Ledger, num_turns: int) -> str:
    return ledger.reserve(
        run_id="run-1",
        server="https://server",
        study_digest="d" * 64,
        study_name="risk",
        dataset="scans",
        recipe="r",
        unit="record",
        cohort=2,
        study_epsilon=1.0,
        study_delta=1e-6,
        turn_event={"event": "gaussian", "noise_multiplier": 0.5},
        num_turns=num_turns,
        meta={},
    ).grant_id


def test_a_full_disk_refuses_the_turn_and_loses_nothing(
    tmp_path: Path,
) -> None:
    key = SigningKey.generate()
    assert resource.RLIMIT_FSIZE  # a file that may not grow stands for a full disk
    key.save(tmp_path / "key")
    with open_ledger(tmp_path, key) as ledger:
        reserve(ledger, num_turns=100)

    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path), OFFICER.public_hex],
        capture_output=True,
        text=True,
    )
    lines = done.stdout.split("\n")[:-1]
    spent = [line for line in lines if line.startswith("spent")]

    assert 0 < len(spent) < 100, done.stderr
    assert lines[len(spent) :] == ["GLD-I005"] * (100 - len(spent))
    with open_ledger(tmp_path, key) as ledger:
        (grant,) = ledger.grants()
        assert len(grant.turns) == len(spent)


def test_threads_that_ask_for_the_same_turn_charge_it_once(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path, SigningKey.generate())
    grant = reserve(ledger, num_turns=8)
    states: list[str] = []

    def take_all() -> None:
        for turn_no in range(1, 9):
            try:
                states.append(ledger.spend(grant, turn_no, f"h{turn_no}").state)
            except BudgetSpent:
                states.append("refused")

    threads = [threading.Thread(target=take_all) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    found = ledger.find(grant)
    ledger.shut()
    assert found is not None
    assert states.count("new") == len(found.turns) <= 8


def test_entries_tell_the_time_in_whole_seconds(tmp_path: Path) -> None:
    key, path = SigningKey.generate(), tmp_path / "ledger.db"
    moment = 1_700_000_000.987
    with Ledger.open(
        path, key, site="a", officer=OFFICER.public_hex, clock=lambda: moment
    ) as ledger:
        times = {entry.content()["time"] for entry in ledger.entries()}

    assert times == {"2023-11-14T22:13:20Z"}


def test_the_ledger_loads_no_torch() -> None:
    code = (
        "import sys, guilder_shared.privacy.ledger, guilder_shared.reports\n"
        "from guilder_shared.privacy import accounting\n"
        "accounting.renyi({'event': 'gaussian', 'noise_multiplier': 1.0}, [6])\n"
        "print('torch' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert done.stdout.strip() == "False", done.stderr

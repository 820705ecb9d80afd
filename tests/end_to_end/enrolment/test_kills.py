"""kill -9 at any instant of joining, in real processes: one certificate comes of it."""

import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from guilder_shared import tls
from guilder_shared.certificates import load_certificate
from guilder_shared.invitation import Token

Office = Any  # the fixture `office`; see conftest.py
NUM_KILLS = 20


def begin(token: Token, folder: Path) -> subprocess.Popen[str]:
    words = ["client", "join", token.text(), "--dir", str(folder)]
    return subprocess.Popen(
        [sys.executable, "-m", "guilder", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_killed_at_random_instants_the_same_command_joins_once(office: Office) -> None:
    instants = random.Random(5)
    for number in range(NUM_KILLS):
        token = office.invite(f"bank-{number}")
        folder = office.folder / f"bank-{number}"
        killed = begin(token, folder)
        assert killed.stderr is not None
        for _ in range(instants.randrange(3)):  # how many steps it tells of first
            killed.stderr.readline()
        time.sleep(instants.uniform(0, 0.1))
        killed.kill()
        killed.communicate()

        done = begin(token, folder)
        told, errors = done.communicate(timeout=120)

        assert done.returncode == 0, errors
        assert "site.toml" in told
        tls.client_context(folder)
    kinds = office.kinds()
    assert kinds.count("issued") == 1 + NUM_KILLS  # the admin's, and one for each site
    assert "used-twice" not in kinds


@pytest.mark.slow
def test_a_server_that_starts_anew_between_two_tries_gives_the_same_certificate(
    office: Office,
) -> None:
    token, folder = office.invite(), office.folder / "bank"
    done = begin(token, folder)
    done.communicate(timeout=120)
    shown = load_certificate(folder / "site.pem")
    (folder / "site.pem").unlink()  # as if killed just before it was written
    office.stop()
    office.start()

    done = begin(token, folder)
    _, errors = done.communicate(timeout=120)

    assert done.returncode == 0, errors
    assert load_certificate(folder / "site.pem") == shown

"""A study over lines that delay, slow, lose, double, spoil and cut what passes."""

import contextlib
import re
import secrets
from collections import Counter
from typing import Any

import pytest

from guilder_server.settings import ServerFile
from guilder_simulations.engine import simulate

Founding = Any  # the fixture `found`; see conftest.py
Line = Any  # and the fixture `line`; see the conftest.py above

# Chance per piece of what passes, in either direction.
USUAL = {
    "delay": 0.02,  # up to 50 ms
    "throttle": 0.002,  # this piece in 16 parts, 2 ms apart
    "cut": 0.002,  # both ends are reset
    "corrupt": 0.001,  # one bit
    "duplicate": 0.001,
    "drop": 0.0005,  # this piece, and all that follow: the line is half open
}
DISTURBING = ("cut", "corrupt", "duplicate", "drop")


def proxied(
    found: Founding, line: Line, rounds: int, seed: int, chances: dict[str, float]
) -> Any:
    """Run a study whose every site has a bad line; returns what the lines did.

    The study's model is compared with that of an undisturbed run, and each turn must
    have been charged and sealed once.
    """
    hospitals = found(allow_unprotected=True)
    study = hospitals.study_with(
        f"training.rounds={rounds}", "privacy.mechanism=none", "training.test_seed=5"
    )
    port = ServerFile.load(hospitals.server_file).server.port
    done: Counter[str] = Counter()
    with contextlib.ExitStack() as stack:
        lines = [
            stack.enter_context(line(port, seed + number, chances))
            for number in range(len(hospitals.sites))
        ]
        for site, bad in zip(hospitals.sites, lines, strict=True):
            path = hospitals.site_file(site)
            text = re.sub(r":\d+\"", f':{bad.port}"', path.read_text(), count=1)
            path.write_text(text)
            hospitals.sign(site)
        hospitals.start_all()
        run_id = hospitals.run(study)
        last = hospitals.outcome(run_id)
        assert last["kind"] == "run-finished", (seed, last)
        for bad in lines:
            done += bad.counts
    print(f"seed {seed}: {dict(done)}")
    simulate(study, hospitals.folder / "undisturbed")
    name = f"rounds/{rounds:03d}/model.safetensors"
    model = (hospitals.folder / "undisturbed" / name).read_bytes()
    assert hospitals.model(run_id, rounds) == model
    for site in hospitals.sites:
        (grant,) = hospitals.grants(site)
        sealed = [turn for turn in grant.turns.values() if turn.sealed_sha256]
        assert len(sealed) == len(grant.turns) == rounds
    return done


@pytest.mark.slow(minutes=0.5)
def test_over_bad_lines_the_model_is_that_of_an_undisturbed_run(
    found: Founding, line: Line
) -> None:
    done = proxied(found, line, 6, seed=1, chances={k: 5 * v for k, v in USUAL.items()})

    assert sum(done[fault] for fault in DISTURBING) >= 3


@pytest.mark.slow(minutes=5)
@pytest.mark.timeout(2400)
def test_a_thousand_rounds_over_bad_lines(found: Founding, line: Line) -> None:
    done = proxied(found, line, 1_000, seed=secrets.randbelow(2**31), chances=USUAL)

    assert all(done[fault] >= 10 for fault in DISTURBING)

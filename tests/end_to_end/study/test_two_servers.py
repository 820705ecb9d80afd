"""Two consortia, two real servers, one hospital with one ledger: one budget."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from guilder_client.settings import SiteFile
from guilder_client.site import read_ledger

Founding = Any  # the fixture `found`; see conftest.py
SITE = "site-1"
DATA = """
[data.tissue]                        # the same rows under another name
kind = "parquet"
path = "rows.parquet"
public_size = {size}
"""


class Hospital:
    """One site of both consortia: the ledger, the keys and the officer are the first's.

    Each of its two site files names the other server as a witness.
    """

    def __init__(self, first: Any, second: Any) -> None:
        self.first, self.second = first, second
        self.state = first.site_file(SITE).parent / "state"
        for here, there in ((first, second), (second, first)):
            self._edit(here, there)
        first.sign(SITE)

    def _edit(self, here: Any, there: Any) -> None:
        path, keys = here.site_file(SITE), there.site_file(SITE).parent
        home = self.first.site_file(SITE).parent
        text = path.read_text()
        size = SiteFile.load(path).data["biopsies"].public_size
        address = SiteFile.load(there.site_file(SITE)).site.server
        for key, value in (
            ('state_dir = "state"', f'state_dir = "{self.state}"'),
            ('"signing.key"', f'"{home / "signing.key"}"'),
            ('"officer.pub"', f'"{home / "officer.pub"}"'),
            ('datasets = ["biopsies"]', 'datasets = ["biopsies", "tissue"]'),
        ):
            assert key in text
            text = text.replace(key, value)
        text += DATA.format(size=size)
        text += (
            f'\n[witness.other]\nserver = "{address}"\nauthority = "{keys}/ca.pem"\n'
        )
        text += f'key = "{keys}/site.key"\ncertificate = "{keys}/site.pem"\n'
        path.write_text(text)

    @contextmanager
    def working_for(self, consortium: Any) -> Iterator[None]:
        consortium.start(SITE)
        try:
            yield
        finally:
            consortium.stop(SITE)

    def outcome(self, consortium: Any, *overrides: str) -> dict[str, Any]:
        """How a study of epsilon 3 ends that asks this hospital alone."""
        study = consortium.study_with(
            "aggregation.min_sites=1",
            "training.rounds=2",
            "aggregation.spare_turns=0",
            "evaluation.on=none",
            *overrides,
        )
        with self.working_for(consortium), consortium.control() as control:
            run_id = control.submit(study.canonical(), [SITE])
            events: list[dict[str, Any]] = list(control.watch(run_id))
        return events[-1]

    def spent(self) -> float:
        with read_ledger(SiteFile.load(self.first.site_file(SITE))) as ledger:
            return ledger.totals()["people"].spent_epsilon


@pytest.fixture
def hospital(found: Founding) -> Hospital:
    settings = {"smallest_cohort": 1, "epsilon": 9.0}
    made = Hospital(found(**settings), found(**settings))
    made.first.start("server")
    made.second.start("server")
    return made


@pytest.mark.slow  # half a minute: two servers, six starts of a client
@pytest.mark.timeout(600)
def test_two_servers_draw_on_one_budget_whatever_is_renamed_and_yesterday_is_refused(
    hospital: Hospital, tmp_path: Path
) -> None:
    first, second = hospital.first, hospital.second
    outcome = hospital.outcome

    assert outcome(first)["kind"] == "run-finished"
    shutil.copytree(hospital.state, tmp_path / "yesterday")
    assert outcome(second, "study.name=another")["kind"] == "run-finished"
    renamed = outcome(first, "study.name=third", "data.dataset=tissue")
    assert renamed["kind"] == "run-finished"
    assert hospital.spent() == 9

    for consortium, changes in (
        (second, ("study.name=fourth",)),
        (first, ("study.name=fifth", "data.dataset=tissue")),
    ):
        refused = outcome(consortium, *changes)
        assert refused.get("exit_code") == 4, refused
        assert "GLD-B003" in refused["why"]

    first.stop("server")  # so that the second alone could tell
    shutil.rmtree(hospital.state)
    shutil.copytree(tmp_path / "yesterday", hospital.state)
    assert hospital.spent() == 3
    silent = outcome(second, "study.name=sixth")
    assert (silent["exit_code"], hospital.spent()) == (4, 3)
    assert "GLD-I080" in silent["why"]  # which the study's own server says first
    first.start("server")
    with first.control():
        pass
    told = outcome(first, "study.name=seventh")
    assert "GLD-I080" in told["why"]
    assert hospital.spent() == 3


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_server_is_told_of_what_the_other_one_remembers_alone(
    hospital: Hospital, tmp_path: Path
) -> None:
    first, second = hospital.first, hospital.second
    shutil.copytree(hospital.state, tmp_path / "yesterday")
    assert hospital.outcome(second)["kind"] == "run-finished"
    shutil.rmtree(hospital.state)
    shutil.copytree(tmp_path / "yesterday", hospital.state)

    known = hospital.outcome(first)  # a server that this hospital never worked for
    second.stop("server")
    unknown = hospital.outcome(first)

    address = SiteFile.load(second.site_file(SITE)).site.server
    for last, word in ((known, "GLD-I080"), (unknown, "GLD-S050")):
        assert last["exit_code"] == 4
        assert word in last["why"]
        assert address not in str(last)
        assert address in first.log(SITE).read_text()
    assert hospital.spent() == 0
    assert first.grants(SITE) == []

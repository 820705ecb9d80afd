"""A turn that sends nothing: what would leave is listed, and nothing else happens."""

from pathlib import Path

from guilder_client.offers import Offered
from guilder_client.rehearsal import preview
from guilder_client.settings import SiteFile
from guilder_server.init import LocalData, init_local
from guilder_shared.models import registry
from guilder_shared.privacy import accounting
from guilder_shared.study import Study
from guilder_simulations.studies import path_of


def test_a_preview_lists_reply_and_update_and_touches_no_ledger(tmp_path: Path) -> None:
    data = LocalData(dataset="biopsies", public_size=140)
    init_local(
        tmp_path, ["a"], host="127.0.0.1", port=1, control_port=2, data=data
    )  # its rows are not there, and no server is
    study = Study.load(path_of("breast-cancer"), ["training.rounds=2"])
    plan = accounting.solve(study)
    text = study.canonical().decode()
    offered = Offered(study.digest(), "run-1", text, plan, 0.0, 0.0, "busy", "")
    site = tmp_path / "sites" / "a"

    found = preview(SiteFile.load(site / "site.toml"), offered)

    names = {(each.where, each.name) for each in found}
    assert ("reply to train", "verdict") in names
    assert ("reply to query.offer", "verdict") in names
    for tensor in registry.shapes(study):
        assert ("reply to train", f"update.{tensor}") in names
    assert not (site / "state" / "ledger.db").exists()

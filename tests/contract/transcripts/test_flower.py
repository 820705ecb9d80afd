"""Who runs stock Flower types its page: a SuperLink, SuperNodes over TLS, two runs."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import tomli_w

from guilder.consortium import Consortium, found, free_ports
from guilder.stock_flower import BIN
from guilder_shared.study import Study
from guilder_simulations.studies import path_of

ROOT = Path(__file__).parents[3]
PAGE = "deploy/flower/README.md"
OVERRIDES = (
    "training.rounds=1",
    "simulation.sites=2",
    "privacy.epsilon=2",
    "aggregation.min_sites=2",
    "aggregation.round_deadline_s=200",
    "aggregation.reply_quantum_s=0",
)
CONFIG = """\
[superlink]
default = "ours"

[superlink.ours]
address = "127.0.0.1:{port}"
root-certificates = "{authority}"
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """Flower's own folder; whatever has it in its environment ends with the test."""
    place = tmp_path / "flower-home"
    place.mkdir()
    yield place
    for process in psutil.process_iter(["environ"]):
        if (process.info["environ"] or {}).get("FLWR_HOME") == str(place):
            process.kill()


def study_in(folder: Path, *overrides: str) -> Study:
    """study.toml, as somebody has written it."""
    study = Study.load(path_of("breast-cancer"), (*OVERRIDES, *overrides))
    parts = study.model_dump(mode="json", by_alias=True, exclude_none=True)
    (folder / "study.toml").write_text(tomli_w.dumps(parts))
    return study


def events(run_folder: Path) -> list[Any]:
    file = run_folder / "events.jsonl"
    return [json.loads(each) for each in file.read_text().splitlines() if each]


def ended(run_folder: Path) -> Callable[[], Any]:
    def look() -> Any:
        try:
            last = events(run_folder)[-1]
        except (OSError, ValueError, IndexError):
            return None
        return last if last["kind"] in ("run-finished", "run-failed") else None

    return look


@pytest.mark.slow(minutes=3)  # stock Flower starts a process for every message
@pytest.mark.timeout(1200)
def test_a_consortium_on_stock_flower_types_its_page(
    reader: Any, home: Path, eventually: Callable[..., Any]
) -> None:
    folder, srv = reader.folder, reader.folder / "srv"
    srv.mkdir()
    study = study_in(folder)
    kept: Consortium = found(folder / "c", study, delta=5e-4, smallest_cohort=2)
    one, two = kept.sites
    port, *nodes = free_ports(3)
    config = CONFIG.format(port=port, authority=folder / "c/server/ca.pem")
    (home / "config.toml").write_text(config)
    reader.env |= {"PATH": f"{reader.env['PATH']}:{BIN}", "FLWR_HOME": str(home)}

    # the same words for everybody, and what each must put in: addresses, paths, names
    told = reader.shell(f"{reader.line(PAGE, 'export ').text}; env", ".")
    reader.env |= {
        name: value
        for name, _, value in (line.partition("=") for line in told.splitlines())
        if name.startswith("FLWR_")
    }
    assert reader.env["FLWR_TELEMETRY_ENABLED"] == "0"
    own = f"superlink --host 127.0.0.1 --port {port} "
    reader.begin(PAGE, "flower-superlink", "c/server", **{"superlink ": own})
    pages = {one: PAGE, two: "docs/errors/GLD-N071.md"}
    for (site, page), node in zip(pages.items(), nodes, strict=True):
        words = {
            "supernode ": f"supernode --host 127.0.0.1 --port {node} ",
            "HOST:8000": f"127.0.0.1:{port}",
            "/srv/guilder/site.toml": str(kept.site_file(site)),
        }
        reader.begin(page, "flower-supernode", f"c/sites/{site}", **words)
    reader.type(PAGE, "mkdir", ".", **{"/srv/guilder": str(srv)})
    reader.type(PAGE, "cp", ".", **{"/srv/guilder": str(srv)})
    run = {"deploy/flower NAME": f"{ROOT}/deploy/flower ours", "/srv/guilder": str(srv)}
    shutil.copy(kept.server_file, srv / "server.toml")
    server = {"/srv/guilder/server.toml": str(kept.server_file)}
    text = reader.line(PAGE, "flwr run").text
    for old, new in {**server, **run}.items():
        assert old in text
        text = text.replace(old, new)
    eventually(lambda: tried(reader, text), timeout_s=60)
    first = eventually(ended(srv / "run-1"), timeout_s=400)

    # another run, without rows of the server's, as the error's page has it
    (srv / "run-2").mkdir()
    study_in(srv / "run-2", 'evaluation={ on = "none" }')
    run |= {"run-1": "run-2"}
    reader.type("docs/errors/GLD-N070.md", "flwr run", ".", **run)
    second = eventually(ended(srv / "run-2"), timeout_s=400)

    assert first["kind"] == second["kind"] == "run-finished", (first, second)
    reader.demand_all_typed("test_a_consortium_on_stock_flower_types_its_page")


def tried(reader: Any, text: str) -> bool:
    """Typed again until the SuperLink is there, as a person would."""
    try:
        reader.shell(text, ".")
    except AssertionError as error:
        if "Connection" in str(error) or "UNAVAILABLE" in str(error):
            return False
        raise
    return True

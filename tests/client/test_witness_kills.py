"""kill -9 at every durable write of witnessing: the memory of both sides stays one."""

import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from guilder_client import app as client_app
from guilder_client.site import Site
from guilder_server import rounds
from guilder_server.grid import Sites
from guilder_server.heads import Heads
from guilder_server.runstore import RunStore
from guilder_shared import durable, witnessing
from guilder_shared.identity import SigningKey
from guilder_shared.journal import Journal
from guilder_shared.privacy import accounting
from guilder_shared.study import Study
from guilder_simulations.inprocess import InProcessGrid

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
SiteAt = Callable[..., Site]
ROUNDS = 3
STUDY = Study.model_validate(
    {
        "schema": 1,
        "study": {"name": "t", "recipe": "tabular-classification", "purpose": "test"},
        "data": {
            "kind": "table",
            "dataset": "d",
            "target": "y",
            "columns": {"x": {"kind": "number", "low": 0.0, "high": 1.0}},
        },
        "model": {"name": "logistic"},
        "training": {
            "rounds": ROUNDS,
            "local_steps": 1,
            "sample_rate": 1.0,
            "learning_rate": 1.0,
        },
        "privacy": {
            "unit": "record",
            "mechanism": "site-noise",
            "epsilon": 2.0,
            "delta": 1e-6,
            "clip_norm": 1.0,
        },
        "aggregation": {"min_sites": 1, "round_deadline_s": 5.0, "spare_turns": 1},
        "evaluation": {"on": "none"},
    }
)
PLAN = accounting.solve(STUDY)
MEASURED = Study.model_validate(
    {
        **STUDY.model_dump(mode="json", by_alias=True, exclude_none=True),
        "evaluation": {"on": "charged", "rows": 0.4, "share": 1.0},
    }
)


def killed_at(
    owner: Any, name: str, number: int, which: str | None = None, *, done: bool
) -> None:
    """Die at this call of `owner.name`, of this file or kind: before it or after it."""
    real, calls = getattr(owner, name), Counter[str]()

    def dying(*args: Any, **named: Any) -> Any:
        names = {getattr(each, "name", each) for each in args[:2] if each is not None}
        if which is not None and which not in names:
            return real(*args, **named)
        calls[name] += 1
        if calls[name] == number and not done:
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*args, **named)
        if calls[name] == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, dying)


POINTS: dict[str, tuple[Any, ...]] = {
    "the server has its key": (SigningKey, "save", 1),
    "the server has a memory": (durable, "write", 1, "heads.json"),
    "the server remembers the first head": (durable, "write", 2, "heads.json"),
    "the server remembers the last head": (durable, "write", 4, "heads.json"),
    "a round is committed": (RunStore, "commit", 2),
    "a site seals": (Journal, "append", 2, "seal"),
    "a site keeps a receipt": (Journal, "append", 1, "receipt"),
    "a site keeps the last receipt": (Journal, "append", ROUNDS, "receipt"),
    "a site closes": (Journal, "append", 1, "close"),
}


def carry_through(
    folder: Path, site: Site, study: Study = STUDY, name: str = "r"
) -> Heads:
    """A server's run with one deployed site, from wherever it was."""
    storage = folder / "server"
    storage.mkdir(exist_ok=True)
    run = storage / "runs" / name
    heads = Heads.open(storage, has_runs=(storage / "runs").exists())
    plan = PLAN if study is STUDY else accounting.solve(study)
    if (run / "run.db").exists():
        store = RunStore.open(run)
    else:
        store = RunStore.create(run, study, {"run_id": name, "plan": plan.facts()})
    grid = InProcessGrid(client_app.make_app(lambda _context: site), ("a",))
    try:
        task = rounds.Run(study, plan, store, lambda _weights: {}, heads=heads)
        rounds.run(task, Sites(grid))
    finally:
        store.close()
    return heads


ALSO_BEFORE = ("the server remembers the first head", "a site keeps the last receipt")


def killed(
    site_at: SiteAt, folder: Path, point: tuple[Any, ...], *, done: bool, **run: Any
) -> Site:
    """A server and a site that died there, both; the site opened again."""
    child = os.fork()
    if child == 0:  # pragma: no cover
        try:
            site = site_at(folder)
            killed_at(*point, done=done)
            carry_through(folder, site, **run)
        finally:
            os._exit(3)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), status
    return site_at(folder)  # checks chain and signatures


@pytest.mark.parametrize(
    ("point", "done"),
    [
        *((point, True) for point in POINTS),
        *((point, False) for point in ALSO_BEFORE),
        *(  # near another's after
            pytest.param(point, False, marks=pytest.mark.slow)
            for point in sorted(POINTS.keys() - set(ALSO_BEFORE))
        ),
    ],
)
def test_killed_at_a_durable_write_both_sides_remember_the_same(
    site_at: SiteAt, tmp_path: Path, point: str, done: bool
) -> None:
    (tmp_path / "data.csv").write_text("x,y\n" + "0.2,0\n0.9,1\n" * 50)
    site_at(tmp_path).ledger.shut()  # its keys and its officer's orders are there

    site = killed(site_at, tmp_path, POINTS[point], done=done)

    heads = carry_through(tmp_path, site)

    (grant,) = site.ledger.grants()
    assert grant.closed
    assert list(site.sealed.folder.iterdir()) == []
    assert list(grant.turns) == list(range(1, ROUNDS + 1))
    assert site.ledger.totals()["people"].spent_epsilon == 2
    witness = site.ledger.witnesses()[grant.server]
    newest = heads.newest("a")
    assert newest is not None
    assert newest.head_no == len(witness.heads) == ROUNDS
    assert newest.commitment == witness.heads[-1].commitment
    assert witness.word is not None  # signed for in a receipt, by the one key
    assert witness.word.server_key == heads.server_key == newest.server_key
    told = [
        e.content()["witness"] for e in site.ledger.entries() if e.kind == "receipt"
    ]
    assert len(told) == ROUNDS
    assert all(witnessing.is_signed(each, "a") for each in told)


MEASURING: dict[str, tuple[Any, ...]] = {
    "the server remembers what was measured": (durable, "write", 5, "heads.json"),
    "the server keeps what was measured": (RunStore, "measure", 1),
}


@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("point", list(MEASURING))
@pytest.mark.slow
def test_killed_while_it_measures_both_sides_remember_the_same(
    site_at: SiteAt, tmp_path: Path, point: str, done: bool
) -> None:
    (tmp_path / "data.csv").write_text("x,y\n" + "0.2,0\n0.9,1\n" * 50)
    site_at(tmp_path).ledger.shut()
    run: dict[str, Any] = {"study": MEASURED, "name": "measured"}

    site = killed(site_at, tmp_path, MEASURING[point], done=done, **run)
    heads = carry_through(tmp_path, site, **run)

    (grant,) = site.ledger.grants()
    assert grant.closed
    assert list(grant.turns) == list(range(1, ROUNDS + 2))
    assert [bool(turn.measures) for turn in grant.turns.values()] == [
        *[False] * ROUNDS,
        True,
    ]
    newest, witness = heads.newest("a"), site.ledger.witnesses()[grant.server]
    assert newest is not None
    assert newest.head_no == len(witness.heads) == ROUNDS + 1
    assert newest.commitment == witness.heads[-1].commitment


@pytest.mark.parametrize("done", [False, True])
def test_killed_while_it_states_what_a_server_forgot_a_site_states_it_once(
    site_at: SiteAt, tmp_path: Path, done: bool
) -> None:
    (tmp_path / "data.csv").write_text("x,y\n" + "0.2,0\n0.9,1\n" * 50)
    site = site_at(tmp_path)
    carry_through(tmp_path, site)
    site.ledger.shut()
    (tmp_path / "server" / "heads.json").unlink()

    point = (Journal, "append", 1, "forgot")
    site = killed(site_at, tmp_path, point, done=done, name="next")
    carry_through(tmp_path, site, name="next")

    kinds = [entry.kind for entry in site.ledger.entries()]
    (stated,) = [e.content() for e in site.ledger.entries() if e.kind == "forgot"]
    assert (stated["head_no"], stated["remembers"]) == (ROUNDS, 0)
    assert kinds.index("forgot") < len(kinds) - 1 - kinds[::-1].index("reserve")

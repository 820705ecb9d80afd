"""A whole study on one machine: the same rounds, the same turns, another Grid.

The engine deals data to simulated sites, opens a real ledger for each, and runs the
deployed ServerApp and ClientApp. A simulation is resumable like a deployed run. The
seed replaces the operating system's randomness, so its models carry no guarantee.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guilder_client.sealed import SealedTurns
from guilder_client.settings import SiteFile, SiteKeys
from guilder_client.site import Site
from guilder_server import rounds
from guilder_server.runstore import RunStore
from guilder_shared import durable, recipes, reports
from guilder_shared.claims import claimed
from guilder_shared.errors import StudyError
from guilder_shared.identity import SigningKey
from guilder_shared.messages import Plan, Weights
from guilder_shared.officer import Officer
from guilder_shared.orders import Order
from guilder_shared.privacy import accounting
from guilder_shared.privacy.ledger import Ledger
from guilder_shared.study import Study

SERVER = "https://simulation.invalid"  # never resolved: a name for the ledger's rows
Watch = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class _Dealt:
    """Each site's rows, the public hold-out, and what each site would type."""

    tables: Mapping[str, Any]
    holdout: Any
    public_sizes: Mapping[str, int]
    public_persons: Mapping[str, int] | None

    def persons(self, site: str) -> int | None:
        """The public number of persons, where the unit is a person."""
        return None if self.public_persons is None else self.public_persons[site]


@dataclass(frozen=True)
class Run:
    """What a simulation gives back; the folder holds the rest.

    Attributes:
        epsilon: By site, of the accepted study; None where mechanism is "none".
        rounds: Rounds committed.
        seconds: Wall time of this call, imports included.
    """

    model: Weights
    metrics: dict[str, float]
    epsilon: dict[str, float | None]
    delta: dict[str, float]
    rounds: int
    seconds: float
    run_dir: Path

    def to_json(self) -> str:
        """The machine contract of `guilder simulate --json`, one line."""
        return json.dumps(
            {
                "metrics": self.metrics,
                "epsilon": self.epsilon,
                "delta": self.delta,
                "rounds": self.rounds,
                "seconds": round(self.seconds, 3),
                "run_dir": str(self.run_dir),
            }
        )


def new_folder(study: Study) -> Path:
    """Where a run goes if nobody says: runs/NAME-DATE-TIME."""
    return Path("runs") / f"{study.study.name}-{time.strftime('%Y%m%d-%H%M%S')}"


def simulate(study: Study, out: Path, *, watch: Watch | None = None) -> Run:
    """Run `study` in this process; call again with the same `out` to go on.

    The same study and seed give the same model bytes.

    Raises:
        StudyError: No `[simulation]` part, or `out` holds another study's run.
        PlanError: The self-test failed on this machine (GLD-P070, GLD-P071).
        RunFailed: Another process runs in `out` (GLD-R030), or it cannot be written
            (GLD-R031); and as in a deployment, as are PlanError and DataError.
    """
    start = time.monotonic()
    if study.simulation is None:
        raise StudyError(
            "GLD-C082",
            "the study has no [simulation] part",
            fix="add one: sites, source, partition, seed (see docs/researcher.md)",
        )
    recipes.trust_installed(study.study.recipe)
    dealt = _deal(study)
    plan = None if RunStore.begun(out) else accounting.solve(study)
    with claimed(out):
        return _carry_through(study, out, dealt, plan, start, watch)


def _carry_through(
    study: Study,
    out: Path,
    dealt: _Dealt,
    plan: Plan | None,
    start: float,
    watch: Watch | None,
) -> Run:
    from guilder_client.app import make_app
    from guilder_server.app import on_holdout, run_on
    from guilder_simulations.inprocess import InProcessGrid

    store = _open_store(study, out, dealt, plan)
    store.notify = watch or store.notify
    sites: dict[str, Site] = {}
    try:
        _self_test(study, store.plan, dealt)
        for name in dealt.tables:
            sites[name] = _open_site(study, out, name, dealt)
        task = rounds.Run(study, store.plan, store, on_holdout(study, dealt.holdout))
        grid = InProcessGrid(
            make_app(lambda context: sites[str(context.node_config["site"])]),
            sites,
        )
        run_on(grid, task)
        return _finish(study, store, sites, time.monotonic() - start)
    except KeyboardInterrupt:
        store.event("interrupted", round=store.last_round())
        raise
    finally:
        for site in sites.values():
            site.ledger.shut()
        store.close()


def _self_test(study: Study, plan: Plan, dealt: _Dealt) -> None:
    """Once for all simulated sites, at the smallest one's size: its code is theirs."""
    from guilder_shared.training import selftest

    sizes = dealt.public_sizes if dealt.public_persons is None else dealt.public_persons
    selftest.ensure(study, plan, public_size=min(sizes.values()))


def _deal(study: Study) -> _Dealt:
    from guilder_shared import tables
    from guilder_shared.models import features
    from guilder_simulations import partition, synthetic

    assert study.simulation is not None
    table = synthetic.generate(study.simulation.source, study.simulation.seed)
    tables.check(table, study.site_contract)
    held = study.evaluation.on == "public-holdout"
    share = study.evaluation.rows if held else 0.0
    dealt, holdout, public_sizes = partition.split(
        table, study.simulation, share, identity=study.identity
    )
    persons = None
    if study.identity is not None:
        persons = partition.public_persons(dealt, study.identity)
    examples = None
    if held:
        examples = tables.encode(holdout, study.public_contract)
        examples = features.prepare(examples, study)
    return _Dealt(dealt, examples, public_sizes, persons)


def _open_store(study: Study, out: Path, dealt: _Dealt, plan: Plan | None) -> RunStore:
    simulation = study.model_dump(mode="json", by_alias=True)["simulation"]
    if RunStore.begun(out):
        store = RunStore.open(out)
        if (store.study.digest(), store.fact("simulation")) != (
            study.digest(),
            simulation,
        ):
            store.close()
            raise StudyError(
                "GLD-C083",
                f"{out} holds the run of another study or seed",
                fix="choose another --out, or remove that folder",
            )
        return store
    facts = {
        "run_id": f"simulation-{study.digest()[:16]}",
        "mode": "simulation",
        "digest": study.digest(),
        "simulation": simulation,
        "plan": (plan or accounting.solve(study)).facts(),
        "public_sizes": dict(dealt.public_sizes),
    }
    if dealt.public_persons is not None:
        facts["public_persons"] = dict(dealt.public_persons)
    return RunStore.create(out, study, facts)


def _open_site(study: Study, out: Path, name: str, dealt: _Dealt) -> Site:
    from guilder_client.data.source import from_table

    assert study.simulation is not None
    folder = out / "sites" / name
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = _key(folder / "signing.key")
    public_size, persons = dealt.public_sizes[name], dealt.persons(name)
    settings = _settings(study, folder, name, public_size)
    officer = Officer(_key(folder / "officer.key"), site=name)
    ledger = Ledger.open(
        folder / "ledger.db", key, site=name, officer=officer.public_hex
    )
    if not ledger.permissions():  # the approval comes last, also after a crash
        for order in _orders(study, officer, public_size, persons):
            ledger.admit(order)
    return Site(
        name=name,
        settings=settings,
        ledger=ledger,
        sealed=SealedTurns(folder / "turns"),
        sources={
            study.data.dataset: from_table(dealt.tables[name], public_size, persons)
        },
        seed=study.simulation.seed,
        paced=False,
    )


def _orders(
    study: Study, officer: Officer, public_size: int, persons: int | None
) -> Iterator[Order]:
    """What a simulated site's officer signs: room for this one study."""
    privacy, dataset = study.privacy, study.data.dataset
    yield officer.budget("simulation", privacy.epsilon, 2 * privacy.delta, [dataset])
    yield officer.public_size(dataset, public_size, persons)
    yield officer.approve(
        study.digest(),
        study.study.name,
        epsilon=privacy.epsilon,
        delta=privacy.delta,
    )


def _key(path: Path) -> SigningKey:
    if not path.exists():
        SigningKey.generate().save(path)
    return SigningKey.load(path)


def _settings(study: Study, folder: Path, name: str, public_size: int) -> SiteFile:
    """The site.toml that a simulated site would have: it allows this one study."""
    nowhere = str(folder / "none")
    keys = dict.fromkeys(SiteKeys.model_fields, nowhere)
    dataset = study.data.dataset
    return SiteFile.model_validate(
        {
            "schema": 1,
            "site": {"name": name, "server": SERVER, "state_dir": str(folder)},
            "keys": keys,
            "data": {
                dataset: {"kind": "csv", "path": nowhere, "public_size": public_size}
            },
            "policy": {
                "recipes": [study.study.recipe],
                "largest_epsilon": 100.0,
                "smallest_cohort": 1,
                "accept": "auto",
                "allow_unprotected": True,
            },
            "budget": {
                "simulation": {"epsilon": 100.0, "delta": 1e-4, "datasets": [dataset]}
            },
        }
    )


def _finish(
    study: Study, store: RunStore, sites: Mapping[str, Site], seconds: float
) -> Run:
    for site in sites.values():
        reports.write(site.ledger, store.folder / "reports")
    protected = study.privacy.mechanism != "none"
    epsilon = accounting.confirm(study, store.plan) if protected else None
    run = Run(
        model=store.model(),
        metrics=store.metrics(),
        epsilon=dict.fromkeys(sites, epsilon),
        delta=dict.fromkeys(sites, study.privacy.delta),
        rounds=store.last_round(),
        seconds=seconds,
        run_dir=store.folder,
    )
    durable.write(store.folder / "summary.json", (run.to_json() + "\n").encode())
    return run

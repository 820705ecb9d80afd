"""`guilder demo`: three banks on this machine, from keys to verified reports.

Real processes, real mutual TLS, real ledgers; the payments are made up. The story is
told on stdout; everything else is in the folder it leaves.
"""

import json
import math
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from guilder.comparison import STUDY, Comparison, train_unprotected
from guilder_shared.errors import RunFailed, StudyError

ROUNDS: Final = 10
BANKS: Final = 3
KILL_AFTER_ROUND: Final = 4
KILL_AFTER_S: Final = 0.4  # the open turn is charged by then, and not yet answered
SETTINGS: Final = (f"training.rounds={ROUNDS}", f"simulation.sites={BANKS}")
MARK: Final = ".guilder-demo"


@dataclass
class Story:
    """The demo's folder and its voice."""

    folder: Path
    quiet: bool = False
    start: float = field(default_factory=time.monotonic)

    def say(self, text: str) -> None:
        """One line of the story, with the seconds so far."""
        stream = sys.stderr if self.quiet else sys.stdout
        seconds = time.monotonic() - self.start
        print(f"[{seconds:5.1f} s] {text}", file=stream, flush=True)


def tell(story: Story) -> dict[str, Any]:
    """The whole demo; returns and writes summary.json."""
    from guilder_shared.study import Study
    from guilder_simulations.studies import path_of

    study = Study.load(path_of(STUDY), SETTINGS)
    with _prepare(story, study) as banks, ThreadPoolExecutor(1) as beside:
        names = banks.sites
        banks.start_all()
        story.say(f"1 server and {BANKS} clients started; mutual TLS on loopback")
        comparison: list[Future[Comparison]] = []
        run_id, killed = _train(
            story,
            study,
            banks,
            victim=names[1],
            meanwhile=lambda: comparison.append(
                beside.submit(train_unprotected, story.folder, names, SETTINGS)
            ),
        )
        banks.stop()
        reports = _report(story, names)
        run_dir = story.folder / "server" / "state" / "runs" / run_id
        scores = _compare(story, study, run_dir, comparison[0].result())
    once = all(r["num_turns_spent"] == ROUNDS for r in reports.values())
    summary = {
        **scores,
        "epsilon_spent": {name: r["epsilon"] for name, r in reports.items()},
        "killed_and_resumed": killed and once,
        "reports_verified": all(r["verified"] for r in reports.values()),
        "seconds": round(time.monotonic() - story.start, 1),
    }
    text = json.dumps(summary, indent=2) + "\n"
    (story.folder / "summary.json").write_text(text, "utf-8")
    _conclude(story, summary)
    return summary


def _prepare(story: Story, study: Any) -> Any:
    """Keys, certificates, each bank's payments, and the server's public hold-out."""
    from guilder.consortium import found

    _clear(story.folder)
    banks = found(
        story.folder,
        study,
        smallest_cohort=BANKS,
        epsilon=study.privacy.epsilon,
        delta=2 * study.privacy.delta,
    )
    story.say("keys, certificates and each bank's made-up payments written")
    return banks


def _clear(folder: Path) -> None:
    """Make an empty folder; only a folder that a demo made is ever removed."""
    if folder.exists() and any(folder.iterdir()):
        if not (folder / MARK).exists():
            raise StudyError(
                "GLD-C086", f"{folder} is not empty and is no demo's", fix="--out OTHER"
            )
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).touch()


def _train(
    story: Story,
    study: Any,
    banks: Any,
    *,
    victim: str,
    meanwhile: Callable[[], object],
) -> tuple[str, bool]:
    """Submit, follow, and kill one client in the middle of a round.

    After the first round `meanwhile` is called: rounds wait for the reply quantum, so
    there is time for other work.
    """
    control = banks.control()
    run_id: str = control.submit(study.canonical(), [])
    story.say(
        f"study submitted: {ROUNDS} rounds, epsilon {study.privacy.epsilon:g}, "
        f"delta {study.privacy.delta:g} for every payment"
    )
    killed_at, killed = math.inf, False
    last: dict[str, Any] = {}
    for event in control.watch(run_id):
        last = event
        if event["kind"] != "round":
            continue
        story.say(
            f"round {event['round']:2}/{ROUNDS}   AUC {event['metrics']['auc']:.4f}"
        )
        if event["round"] == 1:
            meanwhile()
        killed = killed or event["t"] > killed_at  # the round ended after the kill
        if not killed and KILL_AFTER_ROUND <= event["round"] < ROUNDS:
            time.sleep(KILL_AFTER_S)
            killed_at = time.time()
            banks.kill(victim)
            banks.start(victim)
            story.say(f"killed the client of {victim} with -9, and started it again")
    if last["kind"] != "run-finished":
        raise RunFailed(
            "GLD-R020",
            f"the demo's run ended as {last['kind']}: {last.get('what', '')}",
            why=str(last.get("why", "")),
            fix=f"read {banks.log('server')}",
        )
    return run_id, killed


def _report(story: Story, names: Sequence[str]) -> Mapping[str, dict[str, Any]]:
    """Every bank's signed report, written and verified."""
    from guilder_client.settings import SiteFile
    from guilder_client.site import read_ledger
    from guilder_shared import reports

    found: dict[str, dict[str, Any]] = {}
    for name in names:
        settings = SiteFile.load(story.folder / "sites" / name / "site.toml")
        with read_ledger(settings) as ledger:
            path = reports.write(ledger, story.folder / "reports")
        checked = reports.verify(path)
        (study,) = checked.studies
        found[name] = {
            "verified": checked.ok,
            "epsilon": study.epsilon,
            "num_turns_spent": study.num_turns_spent,
        }
    story.say(f"{len(found)} signed privacy reports written and verified")
    return found


def _compare(
    story: Story, study: Any, run_dir: Path, comparison: Comparison
) -> dict[str, Any]:
    """AUC on the same hold-out: private, without privacy, and each bank alone."""
    from guilder_server.runstore import RunStore
    from guilder_shared import tables
    from guilder_shared.training.evaluate import evaluate

    held = tables.read("parquet", story.folder / "server" / "holdout.parquet")
    holdout = tables.encode(held, study.public_contract)

    def auc(folder: Path) -> float:
        store = RunStore.open(folder)
        model = store.model()
        store.close()
        return round(evaluate(model, study, holdout)["auc"], 4)

    together, alone = comparison
    return {
        "auc_federated_private": auc(run_dir),
        "auc_federated_nonprivate": auc(together),
        "auc_local": {name: auc(folder) for name, folder in alone.items()},
    }


def _conclude(story: Story, summary: Mapping[str, Any]) -> None:
    alone = summary["auc_local"].values()
    spent = max(summary["epsilon_spent"].values())
    for line in (
        f"AUC {summary['auc_federated_private']:.4f} together and private; "
        f"{summary['auc_federated_nonprivate']:.4f} together without privacy; "
        f"{min(alone):.4f} to {max(alone):.4f} each bank alone, without privacy",
        f"epsilon spent per bank: {spent:.3f}, each turn charged once",
        f"look around: {story.folder}/   the reports: {story.folder}/reports/",
    ):
        story.say(line)

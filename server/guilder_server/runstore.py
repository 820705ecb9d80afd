"""The durable truth of one run: a folder of plain files and one small SQLite file.

Written before it is relied on: a turn's number before the site is asked, a model
before the round counts as done. metrics.jsonl and events.jsonl are for people and
are rebuilt from the database on opening. This module knows no network and no torch.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Self

from guilder_server.database import connect, damage_as_integrity
from guilder_server.runfiles import append, as_toml, described, metric_lines
from guilder_shared import durable
from guilder_shared.errors import GuilderError, IntegrityError, RunFailed
from guilder_shared.messages import Plan, Receipt, Weights, pack, sha256, unpack
from guilder_shared.models import registry
from guilder_shared.study import Study


class RunStore:
    """One run's folder; one process at a time writes it."""

    def __init__(self, folder: Path, study: Study) -> None:
        self.folder = folder
        self.study = study
        self._shapes = registry.shapes(study)
        self._db = connect(folder / "run.db")
        self.notify: Callable[[dict[str, Any]], None] = lambda _event: None

    @classmethod
    def create(cls, folder: Path, study: Study, facts: Mapping[str, Any]) -> Self:
        """A new run. `facts` must hold run_id and plan (`Plan.facts`).

        Killed in here, the folder holds a whole run or none (`begun`).
        """
        folder.mkdir(parents=True, exist_ok=True)
        durable.write(folder / "study.toml", as_toml(study))
        store = cls(folder, study)
        with store.at_once():
            own = {"digest": study.digest(), "rounds": study.training.rounds}
            for key, value in {**facts, **own}.items():
                store._set(key, value)
            event = store._record_state("queued", None)
        store._tell(event)
        store._write_run_json()
        return store

    @staticmethod
    def begun(folder: Path) -> bool:
        """Whether a run was begun in `folder`; one killed in `create` was not.

        Raises:
            IntegrityError: Its database is damaged.
        """
        path = folder / "run.db"
        if not path.exists():
            return False
        with damage_as_integrity(path), closing(connect(path)) as database:
            found = database.execute("SELECT 1 FROM facts WHERE key='digest'")
            return found.fetchone() is not None

    @classmethod
    def open(cls, folder: Path) -> Self:
        """A run as it was left, whatever stopped it.

        Raises:
            RunFailed: There is no run in `folder`.
            IntegrityError: Its study was changed, or its database is damaged.
        """
        if not cls.begun(folder):
            raise RunFailed("GLD-R010", f"no run in {folder}", fix="guilder run list")
        store = cls(folder, Study.load(folder / "study.toml"))
        if store.fact("digest") != store.study.digest():
            store.close()
            raise IntegrityError(
                "GLD-I050", f"{folder / 'study.toml'} is not the study that was begun"
            )
        return store

    @property
    def run_id(self) -> str:
        """The run's id, as text."""
        return str(self.fact("run_id"))

    @property
    def plan(self) -> Plan:
        """The privacy plan solved at submit."""
        return Plan(**self.fact("plan"))

    def fact(self, key: str) -> Any:
        """A stored fact, or None."""
        row = self._db.execute("SELECT value FROM facts WHERE key=?", (key,)).fetchone()
        return None if row is None else json.loads(row[0])

    def enter(
        self,
        state: str,
        error: GuilderError | None = None,
        *,
        waits: Mapping[str, Any] | None = None,
    ) -> None:
        """Record the run's state: queued, running, finished, failed, stopped or waits.

        `waits` says for whom (see `Consents`); it holds as long as the state does.
        """
        if state == "running":
            self._rebuild_files()
        with self.at_once():  # whoever watches stops at the final state
            event = self._record_state(state, error, waits)
        self._tell(event)
        self._write_run_json()

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Names and shapes of the model's tensors."""
        return self._shapes

    def remaining(self, rounds: int) -> Iterator[int]:
        """Round numbers that are not committed yet, in order."""
        yield from range(self.last_round() + 1, rounds + 1)

    def last_round(self) -> int:
        """The last committed round; 0 before the first."""
        (number,) = self._db.execute("SELECT MAX(round_no) FROM rounds").fetchone()
        return number or 0

    def model(self) -> Weights:
        """The model of the last committed round, or the initial one.

        Where the study keeps an average, it is that.

        Raises:
            IntegrityError: The model file is not the one that was committed.
        """
        last = self.last_round()
        if last == 0:
            return registry.initial(self.study)
        (expected,) = self._db.execute(
            "SELECT model_sha256 FROM rounds WHERE round_no=?", (last,)
        ).fetchone()
        return self._read(self.model_path(last), last, expected, self._shapes)

    def iterate(self) -> Weights:
        """The model that the next round trains; raises as `model`."""
        found = self.beside("iterate", self._shapes)
        return self.model() if found is None else found

    def beside(
        self, name: str, shapes: Mapping[str, tuple[int, ...]]
    ) -> Weights | None:
        """What was committed beside the last round's model; raises as `model`."""
        last, expected = self.last_round(), self.fact(name)
        if expected is None:
            return None
        return self._read(self._beside(last, name), last, expected, shapes)

    def _read(
        self,
        path: Path,
        round_no: int,
        expected: str,
        shapes: Mapping[str, tuple[int, ...]],
    ) -> Weights:
        data = path.read_bytes()
        if sha256(data) != expected:
            raise IntegrityError(
                "GLD-I049", f"{path} is not what round {round_no} wrote"
            )
        return unpack(data, shapes)

    def _beside(self, round_no: int, name: str) -> Path:
        return self.model_path(round_no).with_name(f"{name}.safetensors")

    def model_path(self, round_no: int) -> Path:
        """Where a round's model lies."""
        return self.folder / "rounds" / f"{round_no:03d}" / "model.safetensors"

    def last_sites(self) -> list[str]:
        """Sites that were asked in the open or the last round."""
        rows = self._db.execute(
            "SELECT site FROM turns WHERE round_no=(SELECT MAX(round_no) FROM turns)"
        )
        return sorted({site for (site,) in rows})

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """What is written inside is durable, all or nothing, when the block ends."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def turn_no(self, round_no: int, site: str, grant_id: str) -> int:
        """The number of this site's turn, durable before it is returned.

        Numbers count up within a grant and are never used for another round. Within
        `at_once` they are durable when its block ends.
        """
        row = self._db.execute(
            "SELECT turn_no FROM turns WHERE round_no=? AND site=? AND grant_id=? "
            "AND dropped=0",
            (round_no, site, grant_id),
        ).fetchone()
        if row is not None:
            return int(row[0])
        (last,) = self._db.execute(
            "SELECT MAX(turn_no) FROM turns WHERE grant_id=?", (grant_id,)
        ).fetchone()
        number = (last or 0) + 1
        self._db.execute(
            "INSERT INTO turns VALUES (?,?,?,?,0)", (round_no, site, grant_id, number)
        )
        return number

    def drop_turn(self, round_no: int, site: str) -> None:
        """The site gave this turn up; the next request takes the next number."""
        self._db.execute(
            "UPDATE turns SET dropped=1 WHERE round_no=? AND site=?", (round_no, site)
        )

    def receipts(self, since: int = 0) -> dict[str, Receipt]:
        """The last committed receipt of every site, from a round on."""
        latest: dict[str, Receipt] = {}
        select = (
            "SELECT receipts FROM (SELECT round_no, receipts FROM rounds "
            "UNION ALL SELECT round_no, receipts FROM measures) "
            "WHERE round_no>=? ORDER BY round_no"
        )
        rows = self._db.execute(select, (since,))
        for (text,) in rows:
            for site, (turn_no, digest) in json.loads(text).items():
                latest[site] = Receipt(turn_no, digest)
        return latest

    def commit(
        self,
        round_no: int,
        model: Weights,
        receipts: Mapping[str, Receipt],
        metrics: Mapping[str, float],
        told: Mapping[str, float] | None = None,
        beside: Mapping[str, Weights] | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        """Make a round's model durable; afterwards the round is never run again.

        `beside` it lies what else the next round needs, by name (`beside`), and
        `facts` hold from then on. Of both only the last round's are kept. What the
        sites `told` is of the model that the round began with.
        """
        data, known = pack(model), dict(facts or {})
        durable.write(self.model_path(round_no), data)
        for name, weights in (beside or {}).items():
            further = pack(weights)
            durable.write(self._beside(round_no, name), further)
            known[name] = sha256(further)
        now = time.time()
        fields = {"metrics": dict(metrics), "sites": sorted(receipts)}
        events = []
        with self.at_once():
            if told is not None:  # receipts are the round's
                measured = {"metrics": dict(told), "sites": sorted(receipts)}
                events.append(self._measured(round_no, {}, measured, now))
            row = (sha256(data), _as_json(receipts), json.dumps(dict(metrics)), now)
            self._db.execute("INSERT INTO rounds VALUES (?,?,?,?,?)", (round_no, *row))
            for key, value in known.items():
                self._set(key, value)
            events.append(self._record("round", {"round": round_no, **fields}))
        for name in beside or {}:  # training never goes back to the one before
            self._beside(round_no - 1, name).unlink(missing_ok=True)
        lines = metric_lines(round_no - 1, told or {}, now)
        for line in [*lines, *metric_lines(round_no, metrics, now)]:
            append(self.folder / "metrics.jsonl", line)
        for event in events:
            self._tell(event)

    def measure(
        self,
        round_no: int,
        receipts: Mapping[str, Receipt],
        metrics: Mapping[str, float],
    ) -> None:
        """Make what the sites measured of the last model durable; once."""
        now, told = time.time(), {"metrics": dict(metrics), "sites": sorted(receipts)}
        with self.at_once():
            event = self._measured(round_no, receipts, told, now)
        for line in metric_lines(round_no - 1, metrics, now):
            append(self.folder / "metrics.jsonl", line)
        self._tell(event)

    def _measured(
        self,
        round_no: int,
        receipts: Mapping[str, Receipt],
        told: dict[str, Any],
        now: float,
    ) -> dict[str, Any]:
        row = (round_no, _as_json(receipts), json.dumps(told["metrics"]), now)
        self._db.execute("INSERT INTO measures VALUES (?,?,?,?)", row)
        return self._record("measured", {"round": round_no - 1, **told})

    def is_measured(self, round_no: int) -> bool:
        """Whether what the sites measured in this round is durable."""
        select = "SELECT 1 FROM measures WHERE round_no=?"
        return self._db.execute(select, (round_no,)).fetchone() is not None

    def metrics(self) -> dict[str, float]:
        """The metrics of the last committed round, and what the sites measured."""
        found: dict[str, float] = {}
        for table in ("rounds", "measures"):
            row = self._db.execute(
                f"SELECT metrics FROM {table} ORDER BY round_no DESC LIMIT 1"  # noqa: S608 - one of two names
            ).fetchone()
            found |= {} if row is None else json.loads(row[0])
        return found

    def event(self, kind: str, **fields: Any) -> None:
        """Append one event and tell whoever watches."""
        self._tell(self._record(kind, fields))

    def events(self, after: int = 0) -> list[dict[str, Any]]:
        """All events but the first `after`, oldest first."""
        rows = self._db.execute(
            "SELECT time_s, kind, fields FROM events WHERE number>? ORDER BY number",
            (after,),
        )
        return [{"t": t, "kind": kind, **json.loads(f)} for t, kind, f in rows]

    def close(self) -> None:
        """Release the files."""
        self._db.close()

    def _record_state(
        self,
        state: str,
        error: GuilderError | None,
        waits: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        told = None if error is None else described(error)
        for key, value in (("error", told), ("state", state), ("waits", waits)):
            self._set(key, value)
        sites = {} if waits is None else {"sites": waits["sites"]}
        return self._record("run-" + state, told or sites)

    def _record(self, kind: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        now = time.time()
        self._db.execute(
            "INSERT INTO events (time_s, kind, fields) VALUES (?,?,?)",
            (now, kind, json.dumps(fields)),
        )
        return {"t": now, "kind": kind, **fields}

    def _tell(self, event: dict[str, Any]) -> None:
        append(self.folder / "events.jsonl", event)
        self.notify(event)

    def _set(self, key: str, value: Any) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO facts VALUES (?,?)", (key, json.dumps(value))
        )

    def _write_run_json(self) -> None:
        rows = self._db.execute("SELECT key, value FROM facts ORDER BY key")
        facts = {key: json.loads(value) for key, value in rows}
        text = json.dumps(facts, indent=2, sort_keys=True) + "\n"
        durable.write(self.folder / "run.json", text.encode())

    def _rebuild_files(self) -> None:
        """metrics.jsonl and events.jsonl as the database has them: no gap, no twin."""
        rounds = self._db.execute(
            "SELECT round_no, metrics, time_s FROM rounds UNION ALL "
            "SELECT round_no - 1, metrics, time_s FROM measures "
            "ORDER BY time_s, round_no"
        )
        lines = [
            line
            for number, metrics, t in rounds
            for line in metric_lines(number, json.loads(metrics), t)
        ]
        for name, rows in (("metrics", lines), ("events", self.events())):
            text = "".join(json.dumps(row) + "\n" for row in rows)
            durable.write(self.folder / f"{name}.jsonl", text.encode())


def _as_json(receipts: Mapping[str, Receipt]) -> str:
    return json.dumps({s: [r.turn_no, r.sha256] for s, r in receipts.items()})

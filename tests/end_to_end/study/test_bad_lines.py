"""A study over lines that delay, slow, lose, double, spoil and cut what passes."""

import asyncio
import contextlib
import random
import re
import secrets
import threading
from collections import Counter
from typing import Any, Self

import pytest

from guilder_server.settings import ServerFile
from guilder_simulations.engine import simulate

Founding = Any  # the fixture `found`; see conftest.py
PIECE_BYTES = 1 << 14
STALL_S = 2.0  # a line that says nothing more is cut after this

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


class FaultProxy:
    """Relays TCP from a port of its own to another one, badly.

    It sees TLS records, so nothing it does can be mistaken for an answer: a spoilt or
    doubled piece ends the connection, a lost one leaves it half open until somebody's
    patience ends.

    Args:
        target: A port of loopback.
        seed: Of the faults.
        chances: Fault -> chance per piece; see `USUAL`.
    """

    def __init__(self, target: int, seed: int, chances: dict[str, float]) -> None:
        self._target, self._chances = target, chances
        self._random = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        starting = asyncio.start_server(self._relay, "127.0.0.1", 0)
        server = asyncio.run_coroutine_threadsafe(starting, self._loop).result(10)
        self.port = server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(_cancel_all(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    async def _relay(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.counts["connections"] += 1
        try:
            inner = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        pumps = [
            asyncio.ensure_future(self._pump(reader, inner[1])),
            asyncio.ensure_future(self._pump(inner[0], writer)),
        ]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()
        writer.transport.abort()
        inner[1].transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(PIECE_BYTES):
                fault = self._fault()
                if fault is None:
                    writer.write(piece)
                    await writer.drain()
                    continue
                self.counts[fault] += 1
                if await self._harm(fault, piece, writer):
                    return

    def _fault(self) -> str | None:
        drawn = self._random.random()
        for fault, chance in self._chances.items():
            drawn -= chance
            if drawn < 0:
                return fault
        return None

    async def _harm(
        self, fault: str, piece: bytes, writer: asyncio.StreamWriter
    ) -> bool:
        """Let a piece pass badly; returns whether the line ends with it."""
        if fault == "cut":
            return True
        if fault == "drop":
            await asyncio.sleep(STALL_S)
            return True
        if fault == "delay":
            await asyncio.sleep(0.05 * self._random.random())
        elif fault == "duplicate":
            writer.write(piece)
        elif fault == "corrupt":
            place = self._random.randrange(len(piece))
            flipped = piece[place] ^ 1 << self._random.randrange(8)
            piece = piece[:place] + bytes([flipped]) + piece[place + 1 :]
        elif fault == "throttle":
            step = len(piece) // 16 + 1
            for start in range(0, len(piece) - step, step):
                writer.write(piece[start : start + step])
                await writer.drain()
                await asyncio.sleep(0.002)
            piece = piece[(len(piece) - 1) // step * step :]
        writer.write(piece)
        await writer.drain()
        return False


async def _cancel_all() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def proxied(found: Founding, rounds: int, seed: int, chances: dict[str, float]) -> Any:
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
            stack.enter_context(FaultProxy(port, seed + number, chances))
            for number in range(len(hospitals.sites))
        ]
        for site, line in zip(hospitals.sites, lines, strict=True):
            path = hospitals.site_file(site)
            text = re.sub(r":\d+\"", f':{line.port}"', path.read_text(), count=1)
            path.write_text(text)
            hospitals.sign(site)
        hospitals.start_all()
        run_id = hospitals.run(study)
        last = hospitals.outcome(run_id)
        assert last["kind"] == "run-finished", (seed, last)
        for line in lines:
            done += line.counts
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


def test_over_bad_lines_the_model_is_that_of_an_undisturbed_run(
    found: Founding,
) -> None:
    done = proxied(found, 6, seed=1, chances={k: 5 * v for k, v in USUAL.items()})

    assert sum(done[fault] for fault in DISTURBING) >= 3


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_thousand_rounds_over_bad_lines(found: Founding) -> None:
    done = proxied(found, 1_000, seed=secrets.randbelow(2**31), chances=USUAL)

    assert all(done[fault] >= 10 for fault in DISTURBING)

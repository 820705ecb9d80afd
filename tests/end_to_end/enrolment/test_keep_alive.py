"""Lines that are silent for a long time, and lines that all broke at one moment."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flwr.clientapp import ClientApp

from guilder_client import control, outbound
from guilder_client import line as lines
from guilder_client.control import Bell
from guilder_client.node import Pace
from guilder_client.settings import SiteFile
from guilder_server import enrol
from guilder_server.console.control import ControlClient
from guilder_shared import tls, witnessing

Office = Any  # the fixture `office`; see conftest.py
LONGEST_S = 25.0  # that a line may be silent: firewalls forget it after 30 s
LATE_S = 2.0  # a busy machine's
NUM_SITES = 12
RETRY_S = 2.0  # so after 1 to 2 s: a busy machine cannot blur it
MOMENT_S = 0.05
# Twelve sites that draw from 20 such moments meet in three or fewer with a chance of
# at most C(20, 3) (3/20)^12 = 1.5e-7.
FEWEST_MOMENTS = 4


def bell_of(folder: Path, port: int) -> Bell:
    url = f"https://127.0.0.1:{port}"
    overrides = (f"site.control={url}", f"site.server={url}")
    return Bell(SiteFile.load(folder / "site.toml", overrides))


@pytest.fixture
def stop() -> Iterator[threading.Event]:
    ends = threading.Event()
    yield ends
    ends.set()


def start(work: Callable[..., Any], *arguments: Any) -> None:
    threading.Thread(target=work, args=arguments, daemon=True).start()


def longest_silence(line: Any, way: str, during_s: float) -> float:
    """Seconds between two words of one side, from now on; it may yet speak."""
    began_s = time.monotonic()
    threading.Event().wait(during_s)
    ended_s = time.monotonic()
    moments: list[float] = [
        began_s,
        *[at for at in line.heard[way] if at > began_s],
        ended_s,
    ]
    return max(b - a for a, b in itertools.pairwise(moments))


@pytest.mark.slow(minutes=0.5)
def test_the_server_speaks_often_enough_for_a_firewall_to_remember_a_line(
    office: Office, line: Any, eventually: Callable[..., Any], stop: threading.Event
) -> None:
    with line(office.hub.port) as between:
        bell = bell_of(office.join_filled(office.invite()), between.port)
        start(bell.listen, stop)
        eventually(lambda: bell.is_up)

        assert longest_silence(between, "down", LONGEST_S + LATE_S) < LONGEST_S


@pytest.mark.slow(minutes=0.5)
def test_a_client_notices_in_time_that_the_server_says_nothing(
    office: Office,
    line: Any,
    eventually: Callable[..., Any],
    stop: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(enrol, "KEEP_ALIVE_S", 1e6)
    with line(office.hub.port) as between:
        bell = bell_of(office.join_filled(office.invite()), between.port)
        start(bell.listen, stop)
        eventually(lambda: bell.is_up)
        eventually(lambda: between.heard["up"][-1] < time.monotonic() - 1)

        silence_s = longest_silence(between, "up", LONGEST_S + LATE_S)

    assert silence_s < LONGEST_S + LATE_S


@pytest.mark.slow(minutes=2)  # as gRPC does by itself, the third ping would be late
@pytest.mark.timeout(240)
def test_an_operators_watch_of_a_silent_run_is_never_silent_for_long(
    office: Office, line: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(office.runs, "silent_s", 300)
    keys = office.settings.operator
    with (
        line(office.hub.port) as between,
        ControlClient(
            "127.0.0.1",
            between.port,
            key=keys.key,
            certificate=keys.certificate,
            authority=office.settings.keys.authority,
        ) as operator,
    ):
        watch = operator.watch("run-1")
        next(watch)

        silence_s = longest_silence(between, "up", 4 * LONGEST_S + LATE_S)

    assert silence_s < LONGEST_S + LATE_S


def test_a_connection_that_a_firewall_may_have_forgotten_is_not_used_again(
    consortium: Any, line: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lines.FRESH_S <= LONGEST_S
    hub, keys = consortium.hub(), tls.client_context(consortium.site("alder"))
    counts = list[int]()
    with line(hub.port) as between:
        url = f"https://127.0.0.1:{between.port}"
        with outbound.client(url, keys) as client:
            for fresh_s in (lines.FRESH_S, lines.FRESH_S, 0.0):
                monkeypatch.setattr(lines, "FRESH_S", fresh_s)
                assert client.post(url + witnessing.PATH).status_code == 200
                counts.append(between.counts["connections"])

    assert counts == [1, 1, 2]


def num_moments(arrivals: list[float]) -> int:
    return len({int(at / MOMENT_S) for at in arrivals})


def test_sites_that_lost_their_server_together_do_not_come_back_together(
    consortium: Any,
    line: Any,
    eventually: Callable[..., Any],
    tmp_path: Path,
) -> None:
    many = type(consortium)(tmp_path / "many", [f"s{n}" for n in range(NUM_SITES)])
    hub, pace = many.hub(), Pace(first_retry_s=RETRY_S, longest_retry_s=RETRY_S)
    with line(hub.port) as between:
        for name in many.names:
            many.node(name, between.port, ClientApp(), pace=pace)
        eventually(lambda: len(hub.online()) == NUM_SITES)

        hub.stop()
        time.sleep(0.5)  # each has seen it
        between.reached.clear()
        hub = many.hub(port=hub.port)
        eventually(lambda: len(hub.online()) == NUM_SITES)
        many.close()

    assert num_moments(between.reached[:NUM_SITES]) >= FEWEST_MOMENTS


def test_lines_that_broke_together_are_not_made_anew_together(
    office: Office,
    line: Any,
    eventually: Callable[..., Any],
    stop: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(control, "FIRST_RETRY_S", RETRY_S)
    names = [f"s{n}" for n in range(NUM_SITES)]
    folders = [office.join_filled(office.invite(name)) for name in names]
    with line(office.hub.port) as between:
        bells = [bell_of(folder, between.port) for folder in folders]
        for bell in bells:
            start(bell.listen, stop)
        eventually(lambda: all(bell.is_up for bell in bells))

        between.reached.clear()
        for bell in bells:
            bell._call.cancel()
        eventually(lambda: len(between.reached) >= NUM_SITES)

    assert num_moments(between.reached[:NUM_SITES]) >= FEWEST_MOMENTS

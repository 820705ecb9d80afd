"""A study that waits for people: seen at the site, previewed, accepted, and the wire.

The preview's list of fields is compared with what a tap on the site's TLS connection
captured of a real turn.
"""

import json
import subprocess
import sys
from typing import Any

import pytest

from guilder_client.disclosure import fields
from guilder_shared.models import registry

Founding = Any  # the fixture `found`; see conftest.py


def guilder(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "guilder", *words],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow  # a dozen processes: about 20 seconds
def test_a_study_waits_is_previewed_accepted_and_sends_what_the_preview_listed(
    found: Founding, tapped: Any
) -> None:
    hospitals = found()
    tap = tapped(hospitals, "site-1")
    file = hospitals.site_file("site-1")
    file.write_text(file.read_text().replace('accept = "auto"', 'accept = "ask"'))
    site = ("--site", str(file))
    hospitals.start_all()

    run_id = hospitals.run()
    with hospitals.control() as control:
        events = control.watch(run_id)
        waits = next(event for event in events if event["kind"] == "site-waits")
        listed = json.loads(guilder("client", "studies", "list", "--json", *site))
        digest = listed[0]["digest"]
        shown = guilder("client", "studies", "show", digest[:8], *site)
        previewed = json.loads(
            guilder("client", "studies", "preview", digest[:8], "--json", *site)
        )
        charged = [grant.turns for grant in hospitals.grants("site-1")]
        guilder("client", "studies", "accept", digest[:8], *site)
        last = list(events)[-1]
    hospitals.stop("site-1")  # and says that it leaves

    assert waits["site"] == "site-1"
    assert waits["why"].startswith("GLD-S006")
    assert [each["digest"] for each in listed] == [hospitals.study.digest()]
    assert listed[0]["state"].startswith("waits")
    assert "takes epsilon 3" in shown
    assert charged == []  # neither the offer nor the preview
    assert last["kind"] == "run-finished", last
    captured = {(f.where, f.name, f.kind) for f in fields(tap.sent())}
    listed_fields = {(f["where"], f["name"], f["kind"]) for f in previewed["fields"]}
    # a heartbeat leaves every 10 to 13 s, so perhaps none did
    beat = {each for each in listed_fields if each[0] == "send-node-heartbeat"}
    assert len(beat) == 2
    assert captured | beat == listed_fields
    names = {(where, name) for where, name, _ in captured}
    assert ("reply to train", "verdict") in names
    for tensor in registry.shapes(hospitals.study):
        assert ("reply to train", f"update.{tensor}") in names


@pytest.mark.slow  # two studies over real processes: about 30 seconds
def test_a_study_of_others_runs_while_one_waits_for_a_persons_consent(
    found: Founding,
) -> None:
    hospitals = found()
    other = hospitals.study_with("study.name=other", "privacy.epsilon=1.0")
    file = hospitals.site_file("site-1")
    asks = f'accept = "ask"\naccepted = ["{other.digest()}"]'
    file.write_text(file.read_text().replace('accept = "auto"', asks))
    hospitals.start_all()
    server = ("--server", str(hospitals.server_file))

    waiting = hospitals.run()
    with hospitals.control() as control:
        events = control.watch(waiting)
        next(e for e in events if e["kind"] == "run-waits-for-consent")
        second = control.submit(other.canonical(), [])
        outcome = list(control.watch(second))[-1]
        listed = guilder("run", "list", *server).splitlines()
        awaited = next(e for e in events if e["kind"] == "awaiting")
        digest = hospitals.study.digest()
        guilder("client", "studies", "accept", digest[:8], "--site", str(file))
        last = list(events)[-1]

    assert outcome["kind"] == "run-finished", outcome
    (line,) = [line for line in listed if line.startswith(waiting)]
    assert line.split()[1:] == ["waits-for-consent", "round", "0/6", "site-1"]
    assert awaited["sites"]["site-1"].startswith("GLD-S006")
    assert last["kind"] == "run-finished", last
    assert all(grant.closed for grant in hospitals.grants("site-1"))

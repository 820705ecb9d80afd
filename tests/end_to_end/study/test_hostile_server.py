"""A server with the consortium's own keys that lies, and a real client that says no."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from flwr.app import Message, RecordDict

from guilder_server.hub import Hub
from guilder_server.settings import ServerFile
from guilder_shared import certificates, tls, wire
from guilder_shared.messages import (
    Answer,
    Offer,
    Plan,
    TurnReply,
    TurnRequest,
    Verdict,
    pack,
)
from guilder_shared.models import registry
from guilder_shared.privacy import accounting
from guilder_shared.study import Study

Founding = Any  # the fixture `found`; see conftest.py
SITE = "site-1"
ENDLESS = ("training.rounds=100000", "training.local_steps=100000")
ESCAPE = "\x1b]0;owned\x07\x1b[2J\n"


class Liar:
    """The consortium's server certificate in hands that do not follow the protocol."""

    def __init__(self, hospitals: Any) -> None:
        settings = ServerFile.load(hospitals.server_file)
        keys = settings.keys
        sites = certificates.roster(settings.sites.folder)
        self.hub = Hub(
            (settings.server.host, settings.server.port),
            tls.server_context(
                tls.KeyFiles(keys.key, keys.certificate, keys.authority)
            ),
            {name: site.node_key for name, site in sites.items()},
        )
        self.hub.start()
        self.grid = self.hub.grid("lies")

    def send(self, content: RecordDict, kind: str) -> Message:
        (node_id,) = self.grid.get_node_ids()
        message = self.grid.create_message(content, kind, node_id, "1", ttl=120.0)
        (reply,) = self.grid.send_and_receive([message], timeout=90)
        return reply

    def offer(self, study: Study, plan: Plan, run_id: str = "run-1") -> Answer:
        offer = Offer(run_id, study.canonical(), plan)
        return wire.decode_answer(
            self.send(wire.encode_offer(offer), wire.OFFER).content
        )

    def ask(self, request: TurnRequest) -> TurnReply:
        records = {wire.MODEL: wire.model_record(request.model)}
        content = wire.encode_request(request, records)
        return wire.decode_reply(self.send(content, wire.TURN).content)


@pytest.fixture
def lied_to(found: Founding, eventually: Any) -> Iterator[tuple[Any, Liar]]:
    hospitals = found()
    liar = Liar(hospitals)
    hospitals.start(SITE)
    eventually(lambda: list(liar.grid.get_node_ids()), 60)
    yield hospitals, liar
    liar.hub.stop()


@pytest.mark.attack("a server", "a plan with too little noise", "GLD-P002")
@pytest.mark.attack("a server", "a study that would never end", "GLD-C091")
@pytest.mark.attack("a server", "terminal tricks in a run's id", "GLD-I044")
@pytest.mark.attack("a server", "path tricks in the name of a grant", "GLD-S007")
@pytest.mark.attack("a server", "a model that is pickled code", "GLD-I040")
@pytest.mark.attack("a server", "a digest that nobody accepted", "GLD-S008")
@pytest.mark.attack("a server", "turns beyond the plan", "GLD-B004")
def test_a_site_grants_no_lie_and_charges_a_turn_once(
    lied_to: tuple[Any, Liar],
) -> None:
    hospitals, liar = lied_to
    study = hospitals.study
    plan = accounting.solve(study)
    assert plan.noise_multiplier is not None
    lies = {
        "GLD-C060": (hospitals.study_with("study.recipe=mind-reading"), plan, "r"),
        "GLD-P002": (study, replace(plan, noise_multiplier=0.3), "r"),
        "GLD-C091": (hospitals.study_with(*ENDLESS), plan, "r"),
        "GLD-S002": (hospitals.study_with("privacy.mechanism=none"), plan, "r"),
    }

    for error_id, (offered, claimed, run_id) in lies.items():
        answer = liar.offer(offered, claimed, run_id)
        assert answer.verdict == Verdict.REFUSED_BY_POLICY
        assert answer.reason.startswith(error_id)
    for run_id in (ESCAPE, "r" * 3_000_000):
        assert liar.offer(study, plan, run_id).reason.startswith("GLD-I044")
    assert hospitals.grants(SITE) == []
    unread = liar.send(RecordDict(), "query.rows")
    assert unread.error.reason == "unknown-request"

    granted = liar.offer(study, plan)
    model = registry.initial(study)
    other = {name: weights + 1 for name, weights in model.items()}
    request = TurnRequest("run-1", granted.grant_id, 1, 1, study.digest(), pack(model))
    first = liar.ask(request)
    assert first.verdict == Verdict.DONE
    assert liar.ask(request).update == first.update
    for lie, error_id in (
        (replace(request, model=pack(other)), "GLD-I008"),
        (replace(request, round_no=2), "GLD-I008"),
        (replace(request, grant_id="../../../etc/passwd"), "GLD-S007"),
        (replace(request, turn_no=2**40), "GLD-B004"),
        (replace(request, turn_no=2, model=b"\x80\x04."), "GLD-I040"),
        (replace(request, turn_no=2, run_id="run-2"), "GLD-S008"),
        (replace(request, turn_no=2, study_digest="0" * 64), "GLD-S008"),
    ):
        refused = liar.ask(lie)
        assert refused.verdict != Verdict.DONE
        assert refused.update == b""
        assert refused.reason.startswith(error_id), (lie.turn_no, refused.reason)
    (grant,) = hospitals.grants(SITE)
    assert sorted(grant.turns) == [1]
    log = hospitals.log(SITE).read_bytes()
    assert b"\x1b" not in log
    assert b"Traceback" not in log
    assert len(log) < 20_000

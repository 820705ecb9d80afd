"""What a member does later: renew its certificate, and leave."""

import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from guilder_client import join, leaving, policy, renewal, terms
from guilder_client.node import Node
from guilder_client.settings import SiteFile
from guilder_client.site import Site
from guilder_shared import authority, reports, tls
from guilder_shared.certificates import load_certificate
from guilder_shared.errors import EnrolmentError, IntegrityError, NetworkError
from guilder_shared.identity import SigningKey
from guilder_shared.messages import Offer, Verdict
from guilder_shared.officer import Officer, make_key, put
from guilder_shared.privacy import accounting
from guilder_shared.study import Study

Office = Any  # the fixture `office`; see conftest.py
STUDY = Study.load(Path(__file__).parents[2] / "small.toml")


@pytest.fixture
def settings(office: Office) -> SiteFile:
    """A site that joined, filled in its file and has an officer."""
    folder = office.join_filled(office.invite())
    path = folder / "site.toml"
    text = path.read_text()
    path.write_text(text.replace('"ask"', '"auto"').replace("cohort = 3", "cohort = 1"))
    (folder / "data.csv").write_text("x,y\n" + "0.2,0\n0.9,1\n" * 20)
    make_key(folder)
    settings = SiteFile.load(path)
    officer = Officer(SigningKey.load(folder / "officer.key"), site="bank-a")
    for order in terms.sign(settings, officer, days=1):
        put(order, settings.site.state_dir / "orders")
    return settings


@pytest.fixture
def half_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of every certificate's life is over."""
    monkeypatch.setattr(authority, "half_life", lambda _certificate: 0.0)


def test_a_young_certificate_is_left_alone(office: Office, settings: SiteFile) -> None:
    before = settings.keys.certificate.read_bytes()

    assert join.renew(settings) is False

    assert settings.keys.certificate.read_bytes() == before
    assert "renewed" not in office.kinds()


@pytest.mark.usefixtures("half_over")
def test_a_certificate_is_renewed_for_the_same_keys(
    office: Office, settings: SiteFile
) -> None:
    old = load_certificate(settings.keys.certificate)

    assert join.renew(settings) is True

    new = load_certificate(settings.keys.certificate)
    assert new.serial_number != old.serial_number
    assert new.public_key() == old.public_key()
    assert office.kinds()[-1] == "renewed"


@pytest.mark.usefixtures("half_over")
def test_a_renewal_lost_on_its_way_is_asked_for_again(
    office: Office, settings: SiteFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(authority, "write_pem", lambda *_: 1 / 0)  # killed before it
        with pytest.raises(ZeroDivisionError):
            join.renew(settings)

    assert join.renew(settings) is True
    tls.client_context(settings.keys.certificate.parent)


@pytest.mark.usefixtures("half_over")
def test_a_running_node_shows_the_renewed_certificate_and_stays_the_same_node(
    office: Office, settings: SiteFile, eventually: Callable[..., Any]
) -> None:
    from flwr.clientapp import ClientApp

    folder, stop = settings.keys.key.parent, threading.Event()
    node = Node(f"https://127.0.0.1:{office.hub.port}", folder, ClientApp(), {})
    threading.Thread(target=node.run_forever, args=(stop,), daemon=True).start()
    (before,) = eventually(lambda: office.hub.grid("run-1").get_node_ids())

    renewal.look(settings, node.show_anew)
    office.hub.stop()  # its connections are lost, and made anew
    office.control.stop()
    office.register.close()
    office.start()
    office.hub.admit("bank-a", node_key(folder))
    (after,) = eventually(lambda: office.hub.grid("run-1").get_node_ids())

    stop.set()
    assert office.hub.site_names() == {after: "bank-a"}
    assert before != after  # the hub is new; the key, and so the site, is the same


def node_key(folder: Path) -> bytes:
    from guilder_shared.certificates import public_pem

    return public_pem(load_certificate(folder / "site.pem"))


@pytest.mark.usefixtures("half_over")
@pytest.mark.attack("a site", "a revoked certificate, to be renewed", "GLD-E060")
def test_who_is_shut_out_does_not_renew(
    office: Office, settings: SiteFile, caplog: pytest.LogCaptureFixture
) -> None:
    with office.admin() as admin:
        admin.decide("bank-a", "revoke")

    with pytest.raises(EnrolmentError) as caught:
        join.renew(settings)

    assert caught.value.error_id == "GLD-E060"
    renewal.look(settings, lambda: None)  # the running client goes on, and says so
    assert "GLD-E060" in caplog.text


@pytest.mark.usefixtures("half_over")
def test_a_server_that_is_away_does_not_stop_a_site(
    office: Office, settings: SiteFile, caplog: pytest.LogCaptureFixture
) -> None:
    office.stop()

    with pytest.raises(NetworkError) as caught:
        join.renew(settings)

    assert caught.value.error_id == "GLD-N081"
    renewal.look(settings, lambda: None)
    assert "GLD-N081" in caplog.text
    office.start()


@pytest.mark.usefixtures("half_over")
def test_the_servers_certificate_is_renewed_for_its_key_and_hosts(
    office: Office,
) -> None:
    path = office.settings.keys.certificate
    old = load_certificate(path)

    assert office.register.renew_server(path) is True

    new = load_certificate(path)
    assert new.serial_number != old.serial_number
    assert new.public_key() == old.public_key()
    tls.server_context(path.parent)
    port = office.control.enrolment_port  # the running server shows it already
    shown = ssl.get_server_certificate(("127.0.0.1", port))
    assert x509.load_pem_x509_certificate(shown.encode()) == new
    tls.client_context(office.join(office.invite()))


def test_a_new_issuing_key_changes_nothing_for_who_is_a_member_or_invited(
    office: Office, settings: SiteFile
) -> None:
    invited, server = office.invite("bank-b"), office.folder / "server"
    office.stop()

    authority.reissue(server, server / "root.key")
    office.start()
    assert office.register.renew_server(office.settings.keys.certificate) is True

    tls.client_context(office.join(invited))
    with office.admin() as admin:  # certificates of the old key still count
        assert len(admin.members()) == 3
    assert join.renew(settings) is False


def test_a_root_of_another_consortium_makes_no_issuing_key(
    office: Office, tmp_path: Path
) -> None:
    authority.make_authority(tmp_path, ["localhost"])
    before = (office.folder / "server" / "issuing.key").read_bytes()

    with pytest.raises(EnrolmentError) as caught:
        authority.reissue(office.folder / "server", tmp_path / "root.key")

    assert caught.value.error_id == "GLD-E009"
    assert (office.folder / "server" / "issuing.key").read_bytes() == before


def quiet(_line: str) -> None: ...


def accepted(settings: SiteFile) -> str:
    """A study in its first steps at a site; its grant."""
    site = Site.open(settings)
    try:
        offer = Offer("r", STUDY.canonical(), accounting.solve(STUDY))
        answer = policy.consider(site, offer)
        assert answer.verdict == Verdict.ACCEPTED, answer.reason
        return answer.grant_id
    finally:
        site.ledger.shut()


@pytest.mark.slow
def test_a_site_that_leaves_ends_its_studies_and_keeps_ledger_and_keys(
    office: Office, settings: SiteFile, tmp_path: Path
) -> None:
    grant = accepted(settings)
    lines: list[str] = []

    report = leaving.leave(settings, tmp_path / "out", resign=True, tell=lines.append)

    assert any("ended" in line for line in lines)
    assert reports.verify(report).site == "bank-a"
    again = Site.open(settings)  # ledger and keys are there
    try:
        closed = again.ledger.find(grant)
        assert closed is not None
        assert closed.closed
    finally:
        again.ledger.shut()
    assert office.kinds()[-1] == "left"
    assert office.hub.site_names() == {}


@pytest.mark.slow
def test_killed_while_leaving_the_same_command_does_the_rest(
    office: Office,
    settings: SiteFile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    accepted(settings)
    for owner, name in ((join, "resign"), (reports, "write")):
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                leaving.leave(settings, tmp_path, resign=True, tell=quiet)

    leaving.leave(settings, tmp_path, resign=True, tell=quiet)

    assert office.kinds().count("left") == 1
    assert (tmp_path / "bank-a.report.json").exists()


def test_nobody_leaves_beside_a_running_client(
    settings: SiteFile, office: Office, tmp_path: Path
) -> None:
    site = Site.open(settings)
    try:
        with pytest.raises(IntegrityError) as caught:
            leaving.leave(settings, tmp_path, resign=True, tell=quiet)
    finally:
        site.ledger.shut()

    assert caught.value.error_id == "GLD-I006"
    assert "left" not in office.kinds()


@pytest.mark.slow
def test_with_a_server_that_does_not_answer_nothing_is_ended(
    office: Office, settings: SiteFile, tmp_path: Path
) -> None:
    grant = accepted(settings)
    office.stop()

    with pytest.raises(NetworkError):
        leaving.leave(settings, tmp_path, resign=True, tell=quiet)

    site = Site.open(settings)
    found = site.ledger.find(grant)
    site.ledger.shut()
    office.start()
    assert found is not None
    assert not found.closed
    leaving.leave(
        settings, tmp_path, resign=False, tell=quiet
    )  # no result was ever sent


def test_who_left_comes_back_by_invitation_alone(
    office: Office, settings: SiteFile, tmp_path: Path
) -> None:
    leaving.leave(settings, tmp_path, resign=True, tell=quiet)
    ledger_key = settings.keys.signing_key.read_bytes()

    office.join(office.invite())

    assert settings.keys.signing_key.read_bytes() == ledger_key
    assert time.time() < authority.half_life(
        load_certificate(settings.keys.certificate)
    )

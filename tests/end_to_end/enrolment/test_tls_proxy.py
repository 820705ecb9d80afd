"""Joining, renewing and being rung through a proxy that itself speaks TLS."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from guilder_client import join, relay
from guilder_client.control import Bell
from guilder_client.settings import ProxyLines, SiteFile
from guilder_shared import authority, certificates
from guilder_shared.certificates import load_certificate
from guilder_shared.errors import NetworkError

Office = Any  # the fixture `far_office`; see conftest.py
HOST = "fl.example.test"  # no such name exists: only the proxy knows the way
DATA = """
[data.d]
kind = "csv"
path = "d.csv"
public_size = 9
[budget.b]
epsilon = 6.0
delta = 1e-5
datasets = ["d"]
"""


class Way:
    """A TLS proxy to a server, and a site that joined through it."""

    def __init__(self, office: Office, connect_proxy: Any, folder: Path) -> None:
        certificates.init_local_sites(folder, ["x"], [HOST, "127.0.0.1"])
        keys, self.authority = folder / "server", folder / "server" / "ca.pem"
        self.proxy = connect_proxy(HOST, office.hub.port, tls_keys=keys)
        self.url = f"https://127.0.0.1:{self.proxy.port}"
        self.login = self.url.replace("https://", "https://ward-3:s3cret@")
        self.password = folder / "password"
        self.password.write_text("s3cret")
        self.password.chmod(0o600)
        self._office = office

    def join(self, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("SSL_CERT_FILE", str(self.authority))
        monkeypatch.setenv("HTTPS_PROXY", self.login)
        token = self._office.register.invite(
            "admin", "bank-a", role="site", hours=1.0, needs_approval=False,
            place=(HOST, self._office.hub.port),
        )  # fmt: skip
        folder: Path = self._office.join(token)
        monkeypatch.delenv("HTTPS_PROXY")
        monkeypatch.delenv("SSL_CERT_FILE")
        return folder

    def settings(self, folder: Path, **changes: Any) -> SiteFile:
        file = folder / "site.toml"
        file.write_text(file.read_text() + DATA)
        given: dict[str, Any] = {"url": self.url, "authority": self.authority}
        given |= {"user": "ward-3", "password": self.password} | changes
        loaded = SiteFile.load(file)
        return loaded.model_copy(update={"proxy": ProxyLines(**given)})


@pytest.fixture
def way(far_office: Office, connect_proxy: Any, tmp_path: Path) -> Way:
    return Way(far_office, connect_proxy, tmp_path / "proxy")


def test_a_site_joins_renews_and_is_rung_through_a_proxy_that_speaks_tls(
    way: Way, monkeypatch: pytest.MonkeyPatch, eventually: Callable[..., Any]
) -> None:
    folder = way.join(monkeypatch)
    settings = way.settings(folder)
    before = load_certificate(folder / "site.pem").serial_number
    monkeypatch.setattr(authority, "half_life", lambda _certificate: 0.0)
    bell, stop = Bell(settings), threading.Event()

    renewed = join.renew(settings)
    threading.Thread(target=bell.listen, args=(stop,), daemon=True).start()
    eventually(lambda: bell.is_up)
    stop.set()

    assert renewed
    assert load_certificate(folder / "site.pem").serial_number != before
    assert {line.split(":")[0] for line in way.proxy.asked} == {f"CONNECT {HOST}"}


def test_a_proxy_of_another_authority_is_told_no_login(
    way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = way.join(monkeypatch)
    asked = list(way.proxy.asked)
    settings = way.settings(folder, authority=folder / "ca.pem")
    monkeypatch.setattr(authority, "half_life", lambda _certificate: 0.0)
    monkeypatch.setattr(join, "REPLY_S", 2.0)

    with pytest.raises(NetworkError) as caught:
        join.renew(settings)

    assert caught.value.error_id == "GLD-N081"
    assert way.proxy.asked == asked


def test_one_door_leads_to_one_proxy(way: Way) -> None:
    assert relay.door(way.url, way.authority) == relay.door(way.url, way.authority)

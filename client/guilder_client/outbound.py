"""One HTTPS client to a server of ours: our TLS, no redirect, no endless answer.

Every connection that a site opens to a server is made here, through the institution's
proxy where there is one. TLS to the server runs inside the proxy's tunnel (CONNECT), so
a proxy sees the server's name and nothing else. It knows no request.
"""

import socket
import ssl
from pathlib import Path
from urllib.parse import quote, urlsplit

import httpx

from guilder_client.line import Line
from guilder_client.outage import is_loopback
from guilder_client.settings import ProxyLines
from guilder_shared.errors import EnrolmentError
from guilder_shared.identity import read_private
from guilder_shared.tunnel import parts_of, proxy_to, through

LARGEST_ANSWER = 16 << 20  # Flower sends objects in pieces of 5 MiB


def client(
    url: str,
    tls: ssl.SSLContext,
    *,
    proxy: ProxyLines | None = None,
    timeout_s: float = 30.0,
    transport: httpx.BaseTransport | None = None,
) -> httpx.Client:
    """A client for one server.

    Args:
        url: Where it is; no proxy is asked on the way to this machine itself.
        tls: From `tls.client_context`.
        proxy: Of site.toml; None: what HTTPS_PROXY and NO_PROXY say.
        timeout_s: For each step of a request.
        transport: What carries it; None: the ordinary one.

    Raises:
        EnrolmentError: The proxy's password or authority cannot be read.
    """
    here = is_loopback(url)
    return httpx.Client(
        verify=tls,
        transport=transport or _line(url, tls, proxy),
        proxy=None if here or proxy is None else _tunnel(proxy),
        timeout=timeout_s,
        follow_redirects=False,
        trust_env=not here and proxy is None,
        headers={"accept-encoding": "identity"},
        event_hooks={"response": [_refuse_endless]},
    )


def _line(url: str, tls: ssl.SSLContext, proxy: ProxyLines | None) -> Line | None:
    """Our own connections; None where a proxy itself speaks TLS, which httpx can."""
    place = urlsplit(url)
    host, port = place.hostname or "", place.port or 443
    way = proxy_of(url, proxy)
    if not way:
        return Line(tls, host, lambda s: socket.create_connection((host, port), s))
    if parts_of(way).scheme != "http":
        return None
    return Line(tls, host, lambda s: through(way, host, port, s))


def proxy_of(url: str, proxy: ProxyLines | None) -> str:
    """The proxy's URL, login and all, on the way to a server; empty if there is none.

    Args:
        url: Of the server; no proxy is asked on the way to this machine itself.
        proxy: Of site.toml; None: what HTTPS_PROXY and NO_PROXY say.

    Raises:
        EnrolmentError: The proxy's password cannot be read.
    """
    if is_loopback(url):
        return ""
    if proxy is not None:
        return with_login(proxy)
    return proxy_to(urlsplit(url).hostname or "")


def with_login(proxy: ProxyLines) -> str:
    """The proxy's URL with user and password in it, if it wants them.

    Raises:
        EnrolmentError: The password cannot be read, or others can read it.
    """
    if proxy.user is None or proxy.password is None:
        return proxy.url
    password = read_private(proxy.password).decode("utf-8", "replace").strip()
    scheme, _, rest = proxy.url.partition("://")
    return f"{scheme}://{quote(proxy.user, '')}:{quote(password, '')}@{rest}"


def _tunnel(proxy: ProxyLines) -> httpx.Proxy:
    context = None if proxy.authority is None else trusting(proxy.authority)
    return httpx.Proxy(with_login(proxy), ssl_context=context)


def trusting(authority: Path) -> ssl.SSLContext:
    """TLS to the proxy itself: its institution's authority, and no other."""
    try:
        return ssl.create_default_context(cafile=str(authority))
    except (OSError, ssl.SSLError) as error:
        raise EnrolmentError(
            "GLD-E001",
            f"the proxy's authority {authority} cannot be read: "
            f"{getattr(error, 'strerror', None) or 'no certificate'}",
            fix="Ask your network's people for the proxy's CA certificate, as PEM.",
        ) from None


def _refuse_endless(response: httpx.Response) -> None:
    """Refuse an answer by its head, before a byte of it is read or unpacked."""
    size = response.headers.get("content-length", "")
    if (
        not (size.isascii() and size.isdigit() and int(size) <= LARGEST_ANSWER)
        or "content-encoding" in response.headers
    ):
        raise httpx.RemoteProtocolError("GLD-N128 an answer of no or too large a size")

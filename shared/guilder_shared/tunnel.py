"""A plain connection to a server, straight or through the proxy that stands before it.

The proxy is the one that HTTPS_PROXY or ALL_PROXY names, unless NO_PROXY or the
server's being this machine says otherwise; it is asked for a tunnel (CONNECT) and
learns the server's host and port. What runs inside is the caller's.
"""

import base64
import ipaddress
import socket
import urllib.request
from urllib.parse import SplitResult, unquote, urlsplit

from guilder_shared.plain_text import one_line

MOST_HEAD = 32 << 10  # of the proxy's answer
NO_ANSWER = "no answer"
PROXY_PORT = 3128  # of a proxy whose URL names none


class TunnelRefusedError(OSError):
    """The proxy let nobody through; `strerror` is what it said."""


def proxy_to(host: str) -> str:
    """The URL of the proxy on the way to a host; empty where there is none."""
    if is_this_machine(host) or urllib.request.proxy_bypass(host):
        return ""
    known = urllib.request.getproxies()
    return known.get("https") or known.get("all", "")


def is_this_machine(host: str) -> bool:
    """Whether a host is this machine, by its name or address alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def connect(
    host: str, port: int, timeout_s: float, proxy: str | None = None
) -> socket.socket:
    """Connect to `host:port`; each step has `timeout_s`.

    Args:
        host: The server.
        port: Its port.
        timeout_s: In seconds.
        proxy: URL of the proxy; empty: none; None: as `proxy_to` says.

    Raises:
        OSError: It cannot be reached. TunnelRefusedError: the proxy refused, or is
            no HTTP proxy; one that itself speaks TLS is not.
    """
    proxy = proxy_to(host) if proxy is None else proxy
    if not proxy:
        return socket.create_connection((host, port), timeout_s)
    try:
        return through(proxy, host, port, timeout_s)
    except TunnelRefusedError as error:
        raise TunnelRefusedError(0, f"the proxy said: {error.strerror}") from None


def through(proxy: str, host: str, port: int, timeout_s: float | None) -> socket.socket:
    """Connect to `host:port` through one proxy; raises as `ask`.

    Args:
        proxy: Its URL, or its host and port alone; it does not itself speak TLS.
        host: Of the server.
        port: And its port.
        timeout_s: For each step; None waits as long as it takes.
    """
    plain = socket.create_connection(place_of(proxy), timeout_s)
    try:
        ask(plain, address(host, port), parts_of(proxy))
    except BaseException:
        plain.close()
        raise
    return plain


def parts_of(proxy: str) -> SplitResult:
    """The parts of a proxy's URL; one without a scheme is plain HTTP."""
    return urlsplit(proxy if "//" in proxy else f"http://{proxy}")


def place_of(url: str) -> tuple[str, int]:
    """Host and port of a URL: 443 where an https:// names none, else a proxy's."""
    parts = parts_of(url)
    usual = 443 if parts.scheme == "https" else PROXY_PORT
    return parts.hostname or "", parts.port or usual


def address(host: str, port: int) -> str:
    """`host:port`, brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def ask(plain: socket.socket, target: str, proxy: SplitResult) -> None:
    """Have the proxy at the other end of `plain` open a tunnel to `target`.

    Args:
        plain: Connected to the proxy; nothing but the proxy's answer is read.
        target: As `address` writes it.
        proxy: The proxy's URL, for the name and password in it.

    Raises:
        OSError: The connection failed. TunnelRefusedError: the proxy refused, or is
            no HTTP proxy.
    """
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if proxy.username:
        pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
        coded = base64.b64encode(pair.encode()).decode()
        lines.append(f"Proxy-Authorization: Basic {coded}")
    plain.sendall("\r\n".join([*lines, "", ""]).encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):  # byte by byte: what follows is TLS
        byte = plain.recv(1)
        head += byte
        if not byte or len(head) > MOST_HEAD:
            raise TunnelRefusedError(0, NO_ANSWER)
    status = head.split(b"\r\n", 1)[0].decode("latin-1")
    if status.split()[1:2] != ["200"]:
        raise TunnelRefusedError(0, one_line(status, 80))

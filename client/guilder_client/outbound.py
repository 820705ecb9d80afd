"""One HTTPS client to a server of ours: our TLS, no redirect, no endless answer.

Every connection that a site opens to a server is made here. It knows no request.
"""

import ssl

import httpx

from guilder_client.outage import is_loopback

LARGEST_ANSWER = 16 << 20  # Flower sends objects in pieces of 5 MiB


def client(
    url: str,
    tls: ssl.SSLContext,
    *,
    timeout_s: float = 30.0,
    transport: httpx.BaseTransport | None = None,
) -> httpx.Client:
    """A client for one server.

    Args:
        url: Where it is; no proxy is asked on the way to this machine itself.
        tls: From `tls.client_context`.
        timeout_s: For each step of a request.
        transport: What carries it; None: the ordinary one.
    """
    return httpx.Client(
        verify=tls,
        transport=transport,
        timeout=timeout_s,
        follow_redirects=False,
        trust_env=not is_loopback(url),
        headers={"accept-encoding": "identity"},
        event_hooks={"response": [_refuse_endless]},
    )


def _refuse_endless(response: httpx.Response) -> None:
    """Refuse an answer by its head, before a byte of it is read or unpacked."""
    size = response.headers.get("content-length", "")
    if (
        not (size.isascii() and size.isdigit() and int(size) <= LARGEST_ANSWER)
        or "content-encoding" in response.headers
    ):
        raise httpx.RemoteProtocolError("an answer of no or too large a size")

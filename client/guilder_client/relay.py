"""A door on loopback to a proxy that itself speaks TLS, for gRPC, which cannot.

What comes in by it goes to the proxy inside TLS, byte for byte; CONNECT, the login and
the server's own TLS are the caller's and pass through untouched. Others on this machine
who find the door reach the proxy and no further without a login. It opens one listener
for each proxy and process, and holds no key.
"""

import asyncio
import contextlib
import logging
import ssl
import threading
from concurrent.futures import Future
from functools import lru_cache
from pathlib import Path

from guilder_client.outbound import proxy_of, trusting
from guilder_client.settings import ProxyLines
from guilder_shared import tunnel

log = logging.getLogger(__name__)
PIECE_BYTES = 1 << 16
PROXY_S = 10.0  # to reach the proxy and shake hands with it


def grpc_way(url: str, proxy: ProxyLines | None) -> list[tuple[str, str | int]]:
    """The way that `outbound.client` takes, as options of a gRPC channel.

    Args:
        url: Of the server.
        proxy: Of site.toml; None: what HTTPS_PROXY and NO_PROXY say.

    Raises:
        EnrolmentError: The proxy's password or authority cannot be read.
    """
    found = plain_proxy(url, proxy)
    # gRPC would send even loopback through one
    return [("grpc.http_proxy", found) if found else ("grpc.enable_http_proxy", 0)]


def plain_proxy(url: str, proxy: ProxyLines | None) -> str:
    """The proxy on the way to a server as one that speaks no TLS; errors as above."""
    found = proxy_of(url, proxy)
    if not found:
        return ""
    place = tunnel.parts_of(found)
    who, at, _ = place.netloc.rpartition("@")
    host = tunnel.address(*tunnel.place_of(found))
    if place.scheme == "https":
        host = f"127.0.0.1:{door(found, proxy.authority if proxy else None)}"
    return f"http://{who}{at}{host}"


@lru_cache(maxsize=16)
def door(url: str, authority: Path | None) -> int:
    """The port on 127.0.0.1 that leads to a proxy.

    Args:
        url: https://HOST:PORT of the proxy, with or without a login.
        authority: Who signed the proxy's certificate; None: whom this machine trusts.

    Raises:
        EnrolmentError: The authority cannot be read.
    """
    place = tunnel.place_of(url)
    context = ssl.create_default_context() if authority is None else trusting(authority)
    opened: Future[int] = Future()
    serving = _serve(place, context, opened)
    threading.Thread(
        target=lambda: asyncio.run(serving), daemon=True, name="relay"
    ).start()
    return opened.result()


async def _serve(
    place: tuple[str, int], context: ssl.SSLContext, opened: Future[int]
) -> None:
    async def bring(caller: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(PROXY_S):
                proxy, on = await asyncio.open_connection(*place, ssl=context)
        except (OSError, TimeoutError) as error:  # ssl.SSLError is one
            log.warning("the proxy %s:%d: %s", *place, type(error).__name__)
            back.close()
            return
        await asyncio.gather(_pump(caller, on), _pump(proxy, back))

    try:
        server = await asyncio.start_server(bring, "127.0.0.1", 0)
    except BaseException as error:
        opened.set_exception(error)
        raise
    opened.set_result(server.sockets[0].getsockname()[1])
    await server.serve_forever()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Copy until the source ends; then the sink ends too."""
    with contextlib.suppress(OSError):
        while piece := await source.read(PIECE_BYTES):
            sink.write(piece)
            await sink.drain()
    sink.close()

"""Reading a TLS client's first message: real ones, cut anywhere, and no message."""

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guilder_server.hello import LARGEST_BYTES, Hello, NoHelloError, read_hello


def hello_of(protocols: list[str], name: str | None) -> bytes:
    """The first message of a real client."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = name is not None
    if protocols:
        context.set_alpn_protocols(protocols)
    sent = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return sent.read()


REAL = hello_of(["grpc-exp", "h2"], "fl.example.org")


def test_protocols_and_name_of_a_real_client_are_read() -> None:
    assert read_hello(REAL) == Hello((b"grpc-exp", b"h2"), b"fl.example.org")


def test_a_client_that_offers_and_calls_nothing_is_read_too() -> None:
    assert read_hello(hello_of([], None)) == Hello()


def test_a_message_that_is_not_whole_is_waited_for() -> None:
    assert {read_hello(REAL[:end]) for end in range(len(REAL))} == {None}


def test_what_comes_after_the_message_is_left_alone() -> None:
    assert read_hello(REAL + b"more") == read_hello(REAL)


def test_a_message_in_two_records_is_read() -> None:
    message = REAL[5:]
    halves = (message[:100], message[100:])
    records = b"".join(
        REAL[:3] + len(half).to_bytes(2, "big") + half for half in halves
    )

    assert read_hello(records) == read_hello(REAL)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"\x15\x03\x03\x00\x02\x01\x00",  # an alert
        b"\x16\x03\x01\x00\x00",  # an empty record
        b"\x16\x03\x01\xff\xff",  # longer than a record may be
        b"\x16\x03\x01\x00\x05\x02\x00\x00\x01\x00",  # another message
        b"\x16\x03\x01\x00\x04\x01\xff\xff\xff",  # a message of 16 MiB
        b"\x16\x03\x01\x00\x04\x01\x00\x00\x00",  # an empty ClientHello
    ],
)
def test_what_can_become_no_hello_is_refused_at_once(data: bytes) -> None:
    with pytest.raises(NoHelloError):
        read_hello(data)


@given(
    changes=st.lists(
        st.tuples(st.integers(0, len(REAL) - 1), st.integers(0, 255)), max_size=8
    ),
    tail=st.binary(max_size=LARGEST_BYTES),
)
def test_no_bytes_make_the_reader_fail_otherwise(
    changes: list[tuple[int, int]], tail: bytes
) -> None:
    data = bytearray(REAL)
    for place, value in changes:
        data[place] = value
    try:
        found = read_hello(bytes(data) + tail)
    except NoHelloError:
        return
    assert found is None or isinstance(found, Hello)

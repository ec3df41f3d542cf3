"""Header blocks are read as RFC 7541 says: its own examples, the table's limits, and nothing but ValueError otherwise."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.review.hpack import Decoder, unhuffman

REQUEST = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"www.example.com")]
CACHED = [*REQUEST, (b"cache-control", b"no-cache")]
CUSTOM = [
    (b":method", b"GET"),
    (b":scheme", b"https"),
    (b":path", b"/index.html"),
    (b":authority", b"www.example.com"),
    (b"custom-key", b"custom-value"),
]


@pytest.mark.parametrize(
    "blocks",
    [
        # Appendix C.3, then C.4 with Huffman codes: three requests on one connection.
        (
            "828684410f7777772e6578616d706c652e636f6d",
            "828684be58086e6f2d6361636865",
            "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
        ),
        (
            "828684418cf1e3c2e5f23a6ba0ab90f4ff",
            "828684be5886a8eb10649cbf",
            "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
        ),
    ],
    ids=["plain", "huffman"],
)
def test_the_rfcs_requests_are_read(blocks: tuple[str, ...]) -> None:
    decoder = Decoder()
    assert [decoder.fields(bytes.fromhex(block)) for block in blocks] == [REQUEST, CACHED, CUSTOM]


def test_literals_that_no_table_keeps_leave_it_alone() -> None:
    decoder = Decoder()
    # Appendix C.2.2 and C.2.3.
    assert decoder.fields(bytes.fromhex("040c2f73616d706c652f70617468")) == [(b":path", b"/sample/path")]
    assert decoder.fields(bytes.fromhex("100870617373776f726406736563726574")) == [(b"password", b"secret")]
    with pytest.raises(ValueError, match="isn't there"):
        decoder.fields(b"\xbe")


def test_the_oldest_entries_leave_a_full_table() -> None:
    decoder = Decoder()
    entry = b"\x40\x01%c\x7f\xe1\x1e" + b"v" * 4064  # with 1 + 32 bytes just over the table's 4096
    decoder.fields(b"\x40\x01a\x01b")
    assert decoder.fields(b"\xbe") == [(b"a", b"b")]
    decoder.fields(entry % b"c")
    with pytest.raises(ValueError, match="isn't there"):
        decoder.fields(b"\xbe")


def test_a_table_made_smaller_forgets() -> None:
    decoder = Decoder()
    decoder.fields(b"\x40\x01a\x01b")
    assert decoder.fields(b"\x20\x82") == [(b":method", b"GET")]
    with pytest.raises(ValueError, match="isn't there"):
        decoder.fields(b"\xbe")


@pytest.mark.parametrize(
    "block",
    [
        b"\x80",  # no entry 0
        b"\x82\x20",  # a size change after a field
        b"\x3f\xe2\x1f",  # a size above 4096
        b"\x00\x05ab",  # a name cut short
        b"\x00\x01a\x05ab",  # a value cut short
        b"\x40",  # nothing after the first byte
        b"\xff\xff\xff\xff\xff\xff\x01",  # an integer without end
        b"\x00\x01a\x81\x00",  # padding that isn't the end mark's
        b"\x00\x01a\x84\xff\xff\xff\xff",  # the end mark itself
    ],
)
def test_a_malformed_block_is_refused(block: bytes) -> None:
    with pytest.raises(ValueError, match=r"header|Huffman"):
        Decoder().fields(block)


def test_a_block_that_unpacks_to_too_much_is_refused() -> None:
    decoder = Decoder(limit=1000)
    decoder.fields(b"\x40\x01a\x7f\x81\x02" + b"v" * 384)
    with pytest.raises(ValueError, match="too long"):
        decoder.fields(b"\xbe" * 3)


def test_huffman_codes_of_several_lengths_are_read() -> None:
    # Appendix C.6.1: digits, capitals, colon and space.
    assert unhuffman(bytes.fromhex("d07abe941054d444a8200595040b8166e082a62d1bff")) == b"Mon, 21 Oct 2013 20:13:21 GMT"


@given(st.binary(max_size=200))
def test_whatever_arrives_is_read_or_refused(block: bytes) -> None:
    decoder = Decoder()
    for _ in range(2):
        try:
            decoder.fields(block)
        except ValueError:
            return

"""Reads HTTP/2 header blocks (RFC 7541, HPACK). Only the decoder: what a server here sends needs no table.

Any breach of the format raises ValueError: after one, both ends no longer agree on the table, and the connection ends.
"""

from __future__ import annotations

from collections import deque
from functools import cache, lru_cache

# RFC 7541, appendix A; first the entries from 17 on, which are names alone.
_WITHOUT_VALUE = (
    "accept-language",
    "accept-ranges",
    "accept",
    "access-control-allow-origin",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "link",
    "location",
    "max-forwards",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "refresh",
    "retry-after",
    "server",
    "set-cookie",
    "strict-transport-security",
    "transfer-encoding",
    "user-agent",
    "vary",
    "via",
    "www-authenticate",
)
_STATIC: tuple[tuple[bytes, bytes], ...] = tuple(
    (name.encode(), value.encode())
    for name, value in (
        (":authority", ""),
        (":method", "GET"),
        (":method", "POST"),
        (":path", "/"),
        (":path", "/index.html"),
        (":scheme", "http"),
        (":scheme", "https"),
        *((":status", code) for code in ("200", "204", "206", "304", "400", "404", "500")),
        ("accept-charset", ""),
        ("accept-encoding", "gzip, deflate"),
        *((name, "") for name in _WITHOUT_VALUE),
    )
)
# RFC 7541, appendix B: bits of each byte's code, then of the end mark. Codes of one length ascend with the byte, and each
# length goes on where the one before ended, so that the lengths tell the codes.
_CODE_BITS = (
    *(13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28),
    *(28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28),
    *(6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6),
    *(5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10),
    *(13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7),
    *(7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6),
    *(15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5),
    *(6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28),
    *(20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23),
    *(24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24),
    *(22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23),
    *(21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23),
    *(26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25),
    *(19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27),
    *(20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23),
    *(26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26),
    30,
)
_END_MARK = 256
# Section 4.1: what an entry counts for besides its bytes; 6.5.2 of RFC 9113: a table's size unless settings say otherwise.
_ENTRY_BYTES = 32
_TABLE_BYTES = 4096


@cache
def _codes() -> dict[tuple[int, int], int]:
    """(bits, code) → byte."""
    found: dict[tuple[int, int], int] = {}
    code = bits = 0
    for symbol in sorted(range(len(_CODE_BITS)), key=lambda symbol: (_CODE_BITS[symbol], symbol)):
        code <<= _CODE_BITS[symbol] - bits
        bits = _CODE_BITS[symbol]
        found[bits, code] = symbol
        code += 1
    return found


@lru_cache(maxsize=256)
def unhuffman(data: bytes) -> bytes:
    """The text behind a Huffman-coded string. Raises ValueError."""
    codes = _codes()
    text = bytearray()
    code = bits = 0
    for byte in data:
        for shift in range(7, -1, -1):
            code, bits = code << 1 | (byte >> shift & 1), bits + 1
            symbol = codes.get((bits, code))
            if symbol is not None:
                if symbol == _END_MARK:
                    raise ValueError("a Huffman-coded string holds the end mark")
                text.append(symbol)
                code = bits = 0
    # Section 5.2: padding is the most significant bits of the end mark, fewer than a byte of them.
    if bits > 7 or code != (1 << bits) - 1:
        raise ValueError("a Huffman-coded string is padded wrongly")
    return bytes(text)


class Decoder:
    """The decoder of one connection. limit: bytes of names and values that one block may come to."""

    def __init__(self, limit: int = 65536):
        self._limit = limit
        self._entries: deque[tuple[bytes, bytes]] = deque()
        self._size, self._max = 0, _TABLE_BYTES

    def fields(self, block: bytes) -> list[tuple[bytes, bytes]]:
        """The header fields of a whole block, in order. Raises ValueError."""
        try:
            return self._fields(block)
        except IndexError:
            raise ValueError("a header block ends too early") from None

    def _fields(self, block: bytes) -> list[tuple[bytes, bytes]]:
        found: list[tuple[bytes, bytes]] = []
        at, total = 0, 0
        while at < len(block):
            first = block[at]
            if first & 0x80:
                index, at = _integer(block, at, 7)
                field = self._entry(index)
            elif first & 0xE0 == 0x20:
                size, at = _integer(block, at, 5)
                if found or size > _TABLE_BYTES:
                    raise ValueError("a header table's size changes where or to what it may not")
                self._max = size
                self._evict()
                continue
            else:
                field, at = self._literal(block, at, 6 if first & 0x40 else 4)
                if first & 0x40:
                    self._add(field)
            total += len(field[0]) + len(field[1])
            if total > self._limit:
                raise ValueError("a header block is too long")
            found.append(field)
        return found

    def _literal(self, block: bytes, at: int, bits: int) -> tuple[tuple[bytes, bytes], int]:
        index, at = _integer(block, at, bits)
        if index:
            name = self._entry(index)[0]
        else:
            name, at = _string(block, at)
        value, at = _string(block, at)
        return (name, value), at

    def _entry(self, index: int) -> tuple[bytes, bytes]:
        if 1 <= index <= len(_STATIC):
            return _STATIC[index - 1]
        if not 0 <= index - len(_STATIC) - 1 < len(self._entries):
            raise ValueError("a header block names an entry that isn't there")
        return self._entries[index - len(_STATIC) - 1]

    def _add(self, field: tuple[bytes, bytes]) -> None:
        self._entries.appendleft(field)
        self._size += len(field[0]) + len(field[1]) + _ENTRY_BYTES
        self._evict()

    def _evict(self) -> None:
        while self._size > self._max:
            name, value = self._entries.pop()
            self._size -= len(name) + len(value) + _ENTRY_BYTES


def _integer(block: bytes, at: int, bits: int) -> tuple[int, int]:
    """Section 5.1."""
    limit = (1 << bits) - 1
    value = block[at] & limit
    at += 1
    if value < limit:
        return value, at
    for shift in range(0, 28, 7):
        byte = block[at]
        at += 1
        value += (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, at
    raise ValueError("an integer of a header block is too large")


def _string(block: bytes, at: int) -> tuple[bytes, int]:
    """Section 5.2."""
    coded = block[at] & 0x80
    length, at = _integer(block, at, 7)
    data = block[at : at + length]
    if len(data) < length:
        raise ValueError("a string of a header block ends too early")
    return unhuffman(data) if coded else data, at + length

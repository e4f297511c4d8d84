"""The container of bitstreams that have no file format of their own.

``varint height, varint width``, then for each section ``varint length, bytes``. A varint holds seven bits a byte, low
bits first, high bit set on all but the last byte (LEB128). Everything the decoder needs is inside; nothing is free:
a 768 x 512 image with one section pays 4 bytes for its size and 1 or 2 for the length.
"""

from __future__ import annotations

from collections.abc import Mapping

from rdpbench.codecs.contract import Bitstream
from rdpbench.errors import BitstreamError

MAX_SIDE = 1 << 16
"""Larger heights or widths are refused: a damaged size must not become an allocation."""


def varint(value: int) -> bytes:
    """Encode a non-negative integer.

    >>> varint(768).hex()
    '8006'
    """
    if value < 0:
        raise ValueError(f"a varint holds no negative number: {value}")
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_varint(data: bytes, offset: int) -> tuple[int, int]:
    """Decode the varint at an offset; returns ``(value, next offset)``.

    >>> read_varint(bytes.fromhex("8006"), 0)
    (768, 2)
    """
    value = 0
    for shift in range(0, 63, 7):
        if offset >= len(data):
            raise BitstreamError(f"the container ends inside a number, at byte {offset}")
        byte = data[offset]
        offset += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, offset
    raise BitstreamError(f"a number of more than 63 bits ends at byte {offset}")


def pack(height: int, width: int, sections: Mapping[str, bytes], **info: str) -> Bitstream:
    """Pack named sections; the names are for the byte breakdown and are not transmitted.

    >>> pack(512, 768, {"payload": b"12345"}).parts
    {'header': 5, 'payload': 5}
    """
    out = bytearray(varint(height) + varint(width))
    for section in sections.values():
        out += varint(len(section)) + section
    sizes = {name: len(section) for name, section in sections.items()}
    return Bitstream(bytes(out), {"header": len(out) - sum(sizes.values()), **sizes}, info)


def unpack(data: bytes, sections: int) -> tuple[int, int, list[bytes]]:
    """Read ``(height, width, sections)``; the number of sections is part of a codec's format.

    >>> unpack(pack(512, 768, {"payload": b"12345"}).data, 1)
    (512, 768, [b'12345'])
    """
    height, offset = read_varint(data, 0)
    width, offset = read_varint(data, offset)
    if not 0 < height <= MAX_SIDE or not 0 < width <= MAX_SIDE:
        raise BitstreamError(f"the container states an impossible size: {height} x {width}")
    contents: list[bytes] = []
    for number in range(1, sections + 1):
        length, offset = read_varint(data, offset)
        if offset + length > len(data):
            raise BitstreamError(f"section {number} of {sections} is cut: {len(data) - offset} of {length} bytes")
        contents.append(data[offset : offset + length])
        offset += length
    if offset != len(data):
        raise BitstreamError(f"{len(data) - offset} bytes follow the last section")
    return height, width, contents

"""What an encoder may hand over: bytes of 8 bits, counted as what they are."""

from __future__ import annotations

import array
import math
from typing import Any

import numpy as np
import pytest

from rdpbench import Bitstream
from rdpbench.errors import CodecError


class Fat(bytes):
    def __len__(self) -> int:
        return 1

    def __bytes__(self) -> bytes:
        return b"x"


@pytest.mark.parametrize(
    "data",
    [
        bytearray(b"abcdefgh"),
        memoryview(b"abcdefgh"),
        memoryview(b"a.b.c.d.e.f.g.h.")[::2],
        array.array("B", b"abcdefgh"),
        np.frombuffer(b"abcdefgh", np.uint8),
        np.frombuffer(b"abcdefgh", np.int8).reshape(2, 4),
        Fat(b"abcdefgh"),
    ],
)
def test_items_of_8_bits_are_copied_to_plain_bytes(data: Any) -> None:
    for bitstream in (Bitstream(data, {"payload": np.int64(8)}), Bitstream.whole(data)):
        assert type(bitstream.data) is bytes
        assert bitstream.data == b"abcdefgh"
        assert [type(size) for size in bitstream.parts.values()] == [int]


def test_what_the_codec_changes_afterwards_is_not_in_the_bitstream() -> None:
    buffer, parts = bytearray(b"abcd"), {"payload": 4}
    bitstream = Bitstream(buffer, parts)
    buffer[0], parts["payload"] = 0, 1
    assert bitstream.data == b"abcd"
    assert bitstream.parts == {"payload": 4}


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (array.array("I", b"abcdefgh"), "array of 4-byte items, whose length is not the number of bytes"),
        (memoryview(b"abcdefgh").cast("I"), "memoryview of 4-byte items"),
        (np.frombuffer(b"abcdefgh", np.uint16), "ndarray of 2-byte items"),
        (np.zeros(3), "ndarray of 8-byte items"),
        ("abcdefgh", "found str; write text.encode()"),
        (8, "found int; write bytes(...)"),
        (None, "found NoneType"),
        ([1, 2, 3], "found list; write bytes(...)"),
    ],
)
def test_items_of_another_size_are_refused_in_a_sentence(data: Any, told: str) -> None:
    count = len(data) if hasattr(data, "__len__") else 1
    for make in (lambda: Bitstream(data, {"payload": count}), lambda: Bitstream.whole(data)):
        with pytest.raises(CodecError) as refused:
            make()
        assert told in str(refused.value)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ({"payload": 5, "header": -1}, "Bitstream.parts['header'] is -1 (int)"),
        ({"payload": 2.5, "header": 1.5}, "Bitstream.parts['payload'] is 2.5 (float)"),
        ({"payload": 4.0}, "is 4.0 (float)"),
        ({"payload": np.float64(4)}, "(float64)"),
        ({"payload": 3, "header": True}, "is True (bool)"),
        ({"payload": 3, "header": np.bool_(True)}, "(bool"),
        ({"payload": math.nan}, "is nan (float)"),
        ({"payload": "4"}, "is '4' (str)"),
        ({"payload": None}, "is None (NoneType)"),
        ({"": 4}, "a part without a name, ''"),
        ({" ": 4}, "a part without a name, ' '"),
        ({3: 4}, "a part without a name, 3"),
        ([4], "holds bytes by part, found list"),
        ({"payload": 3}, "do not add up to the 4 bytes"),
        ({}, "do not add up to the 4 bytes"),
    ],
)
def test_parts_that_are_no_numbers_of_bytes_are_refused(parts: Any, told: str) -> None:
    with pytest.raises(CodecError) as refused:
        Bitstream(b"abcd", parts)
    assert told in str(refused.value)

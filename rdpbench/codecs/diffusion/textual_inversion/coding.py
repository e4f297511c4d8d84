"""Vectors as bytes: uniform quantisation with the step that fills a budget, and adaptive binary arithmetic coding.

A coefficient x becomes the whole number ``sign(x) floor(|x| / step + 1/3)`` and comes back as that number times the
step. The offset 1/3 widens the zone of zero, as video encoders do; at about one bit a coefficient the values of a
normal distribution then come back near the means of their cells.

The step is the smallest half-precision number at which the section fits the budget, so that the length hardly depends
on the image, and the budget is kept whatever the distribution.

In the section: the number of vectors (a byte), the step (2 bytes, half precision, big endian), the code. Of each number
the magnitude comes first, in unary up to 15 with a count of zeros and ones for each place, which both sides learn from
what was coded before; then, of 15 and more, the rest as Exp-Golomb bits; then the sign. Nothing is fitted or assumed
before: the counts start at one. All arithmetic is that of whole numbers, so that any machine reads the same.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rdpbench.errors import BitstreamError, CodecError

Vectors: TypeAlias = NDArray[np.float32]
"""``(K, D)``."""
Values: TypeAlias = NDArray[np.floating[Any]]
Symbols: TypeAlias = NDArray[np.int64]

MOST = 75
"""Vectors that fit between the ends of what a text tower makes."""
PLACES = 15
"""Of the unary part; larger magnitudes go on as Exp-Golomb bits."""
LARGEST = PLACES + (1 << 16) - 2
"""Larger magnitudes are cut to it."""
OFFSET = 1 / 3
"""Of the quantiser: 1/2 would be plain rounding."""
HEAD = 3
"""Bytes before the code."""
_LARGEST_STEP = 0x7BFF
"""The pattern of the largest half-precision number; patterns of positive ones are in order."""


def quantise(values: Values, step: float) -> Symbols:
    """Whole numbers of values of any shape.

    >>> quantise(np.array([0.6, 0.7, -1.8]), 1.0).tolist()
    [0, 1, -2]
    """
    with np.errstate(over="ignore"):  # beyond all bounds is cut, as beyond ours
        magnitudes = np.floor(np.abs(values.astype(np.float64)) / step + OFFSET)
    symbols: Symbols = (np.sign(values) * np.minimum(magnitudes, LARGEST)).astype(np.int64)
    return symbols


def values_of(symbols: Symbols, step: float) -> Vectors:
    """What the decoder makes of the numbers.

    >>> float(values_of(np.array([3]), 0.5)[0])
    1.5
    """
    # A damaged step may make values that are not finite; the networks' output is checked.
    with np.errstate(over="ignore"):
        return symbols.astype(np.float32) * np.float32(step)


def code_bits(symbols: Symbols) -> float:
    """Bits of the code, from how often each magnitude is there; the coder takes less than 1 % more.

    A place that sees a zeros and b ones in any order takes ``log2 ((a + b + 1)! / (a! b!))`` bits when its
    probabilities are the counts so far.

    >>> round(code_bits(np.zeros(12288, np.int64)), 2)
    13.59
    """
    magnitudes = np.abs(symbols).reshape(-1)
    counts = np.bincount(np.minimum(magnitudes, PLACES), minlength=PLACES + 1)
    bits = float(np.count_nonzero(magnitudes))
    left = int(magnitudes.size)
    for here in counts[:PLACES].tolist():
        if not left:
            break
        more = left - here
        bits += (math.lgamma(left + 2) - math.lgamma(here + 1) - math.lgamma(more + 1)) / math.log(2)
        left = more
    rest = magnitudes[magnitudes >= PLACES] - PLACES + 1
    return bits + float((2 * np.floor(np.log2(rest)) + 1).sum())


def fit_step(values: Values, budget: float) -> float:
    """The smallest step at which the code of values takes no more than so many bits.

    Raises:
        CodecError: values that are not finite.

    >>> fit_step(np.zeros(768), 20)
    6.103515625e-05
    """
    if not np.isfinite(values).all():
        raise CodecError("the vectors are not finite: the network's weights are broken, or the learning rate too high")
    # Smaller ones would cut the largest value, or are numbers that some machines take for zero.
    least = min(float(np.abs(values).max()) / LARGEST, _half(_LARGEST_STEP))
    low, high = max(0x0400, int(np.float16(least).view(np.uint16)) + 1), _LARGEST_STEP
    while low < high:
        middle = (low + high) // 2
        if code_bits(quantise(values, _half(middle))) <= budget:
            high = middle
        else:
            low = middle + 1
    return _half(low)


def pack(values: Vectors, budget: float) -> bytes:
    """The section of vectors ``(K, D)`` with a code of at most ``budget`` bits, filled up to a byte.

    The code of zeros alone takes a few bytes, which no step makes fewer.

    Raises:
        CodecError: no vectors or more than `MOST`, or values that are not finite.

    >>> len(pack(np.random.default_rng(0).normal(size=(16, 768)).astype(np.float32), 12288))
    1539
    """
    if not 1 <= len(values) <= MOST:
        raise CodecError(f"{len(values)} vectors cannot be sent, 1 to {MOST} can")
    step = fit_step(values, budget)
    while True:
        symbols = quantise(values, step)
        code = encode(symbols)
        pattern = int(np.float16(step).view(np.uint16))
        if 8 * len(code) < budget + 8 or not symbols.any() or pattern == _LARGEST_STEP:
            return bytes([len(values)]) + pattern.to_bytes(2, "big") + code
        step = _half(pattern + 1)


def unpack(section: bytes, width: int) -> Vectors:
    """The vectors ``(K, width)`` of a section.

    Raises:
        BitstreamError: bytes that are no such section.
    """
    return values_of(*read(section, width))


def read(section: bytes, width: int) -> tuple[Symbols, float]:
    """Whole numbers ``(K, width)`` and the step of a section.

    Raises:
        BitstreamError: bytes that are no such section.
    """
    if len(section) < HEAD or not 1 <= section[0] <= MOST:
        raise BitstreamError(f"{len(section)} bytes are no section of 1 to {MOST} vectors")
    pattern = int.from_bytes(section[1:HEAD], "big")
    if not 0 < pattern <= _LARGEST_STEP:
        raise BitstreamError("the step of the vectors is not a positive number")
    symbols = decode(section[HEAD:], section[0] * width)
    return symbols.reshape(section[0], width), _half(pattern)


def encode(symbols: Symbols) -> bytes:
    """The code of whole numbers.

    >>> encode(np.array([0, 1, -2])).hex(), len(encode(np.zeros(768, np.int64)))
    ('5f', 0)
    """
    coder = _Encoder()
    learned = [_Place() for _ in range(PLACES)]
    for symbol in symbols.reshape(-1).tolist():
        magnitude = abs(symbol)
        for place in learned[: magnitude + 1]:
            more = magnitude > 0
            coder.put(more, place.zero())
            place.saw(more)
            magnitude -= more
            if not more:
                break
        else:
            more = (magnitude + 1).bit_length() - 1
            coder.put_plain((2 << more) - 2, more + 1)
            coder.put_plain(magnitude + 1 - (1 << more), more)
        if symbol:
            coder.put_plain(symbol < 0, 1)
    return coder.finish()


def decode(code: bytes, count: int) -> Symbols:
    """So many whole numbers of a code.

    Raises:
        BitstreamError: bytes are left over, or a number that is never sent.
    """
    coder = _Decoder(code)
    learned = [_Place() for _ in range(PLACES)]
    out = np.zeros(count, np.int64)
    for at in range(count):
        magnitude = 0
        for place in learned:
            more = coder.get(place.zero())
            place.saw(more)
            if not more:
                break
            magnitude += 1
        else:
            magnitude += _rest(coder)
        out[at] = -magnitude if magnitude and coder.get(1 << 15) else magnitude
    coder.check_done()
    return out


def _rest(coder: _Decoder) -> int:
    length = 0
    while coder.get(1 << 15):
        length += 1
        if length > 15:
            raise BitstreamError("a coefficient is larger than any that is sent: the bitstream is damaged")
    rest = 1
    for _ in range(length):
        rest = 2 * rest + coder.get(1 << 15)
    return rest - 1


def _half(pattern: int) -> float:
    return float(np.uint16(pattern).view(np.float16))


class _Place:
    """How often a place of the unary part was zero and one."""

    __slots__ = ("all", "zeros")

    def __init__(self) -> None:
        self.zeros, self.all = 1, 2

    def zero(self) -> int:
        """Probability of a zero, in 1/65536."""
        return min(max((self.zeros << 16) // self.all, 1), 65535)

    def saw(self, one: bool) -> None:
        self.zeros += not one
        self.all += 1


class _Encoder:
    """Binary arithmetic coding: an interval of whole numbers that gets finer. Python's own numbers carry."""

    def __init__(self) -> None:
        self._low, self._span, self._length = 0, 1 << 32, 4

    def put(self, one: bool, zero: int) -> None:
        bound = (self._span >> 16) * zero
        if one:
            self._low += bound
            self._span -= bound
        else:
            self._span = bound
        while self._span < 1 << 24:
            self._low <<= 8
            self._span <<= 8
            self._length += 1

    def put_plain(self, value: int, bits: int) -> None:
        for place in range(bits - 1, -1, -1):
            self.put(bool(value >> place & 1), 1 << 15)

    def finish(self) -> bytes:
        """The number of the interval that ends in most zeros, which are not sent."""
        if not self._low:
            return b""
        last = self._low + self._span - 1
        zeros = 0
        while (last >> zeros + 1) << zeros + 1 >= self._low:
            zeros += 1
        return ((last >> zeros) << zeros).to_bytes(self._length, "big").rstrip(b"\0")


class _Decoder:
    """The inverse; beyond the end there are zeros."""

    def __init__(self, code: bytes) -> None:
        self._code, self._at, self._span = code, 4, 1 << 32
        self._value = int.from_bytes(code[:4].ljust(4, b"\0"), "big")

    def get(self, zero: int) -> bool:
        bound = (self._span >> 16) * zero
        one = self._value >= bound
        if one:
            self._value -= bound
            self._span -= bound
        else:
            self._span = bound
        while self._span < 1 << 24:
            self._value = self._value << 8 | (self._code[self._at] if self._at < len(self._code) else 0)
            self._span <<= 8
            self._at += 1
        return one

    def check_done(self) -> None:
        if self._at < len(self._code):
            raise BitstreamError(f"{len(self._code) - self._at} bytes follow the last coefficient")

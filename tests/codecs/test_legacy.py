"""Legacy calculators against what they stand for, and against figures in publications."""

from __future__ import annotations

import pickle
import random
import sys
import zlib

import pytest

from rdpbench.codecs import legacy


def test_getsizeof_is_that_of_this_interpreter() -> None:
    for size in (0, 1, 16, 1000):
        assert legacy.getsizeof([bytes(size)]) == 8 * sys.getsizeof(bytes(size))
    assert legacy.getsizeof([b"ab", b"c"]) == 8 * (33 + 2 + 33 + 1)


def test_binary_digits_drop_what_is_zero_at_the_end() -> None:
    """A stored string of Text+Sketch of 64 bits is charged as 35: its number has 33 binary digits."""
    eight = (1 << 32 | 12345).to_bytes(8, "little")
    assert legacy.headerless([eight]) == 64
    assert legacy.binary_digits([eight]) == 35
    rng = random.Random(0)
    string = rng.randbytes(200)
    assert legacy.binary_digits([string]) == len(bin(int.from_bytes(string, sys.byteorder)))
    assert legacy.binary_digits([bytes(8)]) == 3


def test_percos_pickle_adds_81_bytes() -> None:
    """Three pickles in one: text, indexes, height and width."""
    text, indexes = zlib.compress(b"a red door in a white wall", 9), bytes(range(200))
    inner = {0: pickle.dumps(text), 1: pickle.dumps(indexes), 2: pickle.dumps((512, 768))}
    assert legacy.pickled(inner) - legacy.headerless([text, indexes]) == 8 * 81


def test_a_padded_denominator_makes_rates_smaller() -> None:
    bits = legacy.padded(3000, (100, 120), (128, 128))
    assert bits / (100 * 120) == pytest.approx(3000 / (128 * 128))


def test_fixed_headers_of_taco_and_hifics_port() -> None:
    """0.00057 bpp for TACO and 0.00085 for HiFiC's port on Kodak."""
    kodak = 512 * 768
    assert legacy.framed([], 28) / kodak == pytest.approx(0.00057, abs=5e-6)
    assert legacy.framed([], 42) / kodak == pytest.approx(0.00085, abs=5e-6)


def test_rates_are_given_by_name() -> None:
    found = legacy.rates({"z": b"12345678", "y": b"1234567890123456"}, (100, 120), (128, 128))
    assert found["headerless"] == 192
    assert found["getsizeof"] == 192 + 2 * 264
    assert found["padded"] < found["headerless"] < found["pickle"]
    assert list(found) == ["headerless", "padded", "getsizeof", "binary-digits", "pickle"]

"""Columns of a store: groups of equal places, hashes, and files that two threads read at a time."""

from __future__ import annotations

import random
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from rdpbench.results.store.columns import (
    FEW,
    SMALL,
    Codes,
    Hashes,
    Segment,
    agree,
    find,
    groups_of,
    open_file,
    split_by,
    table_of,
    write_table,
)
from rdpbench.results.store.records import Records
from rdpbench.results.store.schema import Score

RNG = np.random.default_rng(7)
ODD_NAN = np.frombuffer(np.uint64(0xFFF8_0000_0000_0001).tobytes(), np.float64)[0]
"""Not a number in other bits than numpy's own."""


@pytest.mark.parametrize(
    "columns",
    [
        [RNG.integers(-1, 3, 400, np.int32)],
        [RNG.integers(-1, 3, 400, np.int32), RNG.choice([0.0, -0.0, 1.5, np.nan, ODD_NAN], 400)],
        [RNG.integers(0, SMALL + 9, 400), RNG.integers(0, 30, 400, np.int32), RNG.integers(0, 2, 400)],
        [RNG.integers(0, 1 << 40, 400), RNG.integers(0, SMALL, 400), RNG.integers(0, SMALL, 400)],
        [np.arange(400) // (400 // FEW)],
        [np.empty(0, np.int32), np.empty(0)],
    ],
)
@pytest.mark.parametrize("small", [10, SMALL])
def test_groups_are_of_equal_places_in_the_order_of_their_first(
    columns: list[Any], small: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rdpbench.results.store.columns.SMALL", small)  # more places are numbered by Arrow
    number_of: dict[tuple[Any, ...], int] = {}
    expected, firsts = [], []
    for place, values in enumerate(zip(*(column.tolist() for column in columns), strict=True)):
        key = tuple("nan" if np.isnan(value) else value + 0.0 for value in values)
        if key not in number_of:
            number_of[key] = len(number_of)
            firsts.append(place)
        expected.append(number_of[key])

    groups, first = groups_of(columns)

    assert groups.tolist() == expected
    assert first.tolist() == firsts
    for number, places in enumerate(split_by(groups, len(first)) if len(first) else ()):
        assert places.tolist() == [place for place, group in enumerate(expected) if group == number]


def test_columns_agree_if_equal_places_are_equal_in_the_other() -> None:
    image = Codes(np.array([0, 1, 0, 1], np.int32), ["a", "b"])
    assert agree(image, Codes(np.array([5, 5, 5, 5], np.int32), [*"abcdef"]))
    assert agree(image, Codes(np.array([-1, 2, -1, 2], np.int32), [*"abc"]))
    assert not agree(image, Codes(np.array([0, 2, -1, 2], np.int32), [*"abc"]))
    assert not agree(image, image, Codes(np.array([0, 2, 0, 1], np.int32), [*"abc"]))


def test_two_threads_read_one_file_and_one_may_forget_what_the_other_reads(tmp_path: Path) -> None:
    """Arrow's reader of a file fails if two threads read at a time: 'did not find matching cache entry'."""
    scores = [Score(f"{n:064x}", f"{n // 5:064x}", "psnr", float(n), "", "", "e", "s") for n in range(5_000)]
    write_table(table_of("score", scores), tmp_path / "scores.parquet")
    file, _ = open_file("score", tmp_path / "scores.parquet", "here")
    segment = Segment("score", file, "here")
    segment.sealed = True
    expected = {name: segment.column(name).to_pylist() for name in ("task_key", "value", "metric")}

    def read(name: str) -> bool:
        same = True
        for _ in range(15):
            for other in expected:
                segment.forget(other)
            same &= bool(segment.column(name).to_pylist() == expected[name])
        return same

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(3) as pool:
            assert all(pool.map(read, expected))
    finally:
        sys.setswitchinterval(interval)


@pytest.mark.parametrize("odd", ["", "ab", "Z" * 64])
def test_hashes_are_found_as_texts_are(odd: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that share their start, in a part of an array, and beside texts that are none."""
    rng = random.Random(3)
    texts = [rng.randbytes(32).hex() for _ in range(40)] + ["ab" * 8 + rng.randbytes(24).hex() for _ in range(9)]
    rng.shuffle(texts)
    known, wanted = texts[::2], [*rng.sample(texts, 30), "ab" * 8 + "00" * 24]
    known_raw = Hashes.of(pa.array([odd, *known, odd]).slice(1, len(known)))
    wanted_hashes = Hashes.of(wanted)
    assert known_raw is not None
    assert wanted_hashes is not None
    assert [*known_raw] == known
    order = np.argsort(known_raw.raw["start"])
    places = find(known_raw.raw[order], wanted_hashes.raw)
    assert [known[order[place]] if place >= 0 else None for place in places] == [
        w if w in known else None for w in wanted
    ]
    assert Hashes.of([*known, odd]) is None
    monkeypatch.setattr("rdpbench.results.store.records.INDEXED", 3)
    for keys in (known, [*known, odd]):
        rows = Records("score", {key: Score(key, "", "", 0.0, "", "", "", "") for key in keys})
        rows.freeze()
        assert rows.locate(wanted).tolist() == [keys.index(key) if key in keys else -1 for key in wanted]
        hashes, are = rows.hashes("score_key")
        assert [text if good else odd for text, good in zip(hashes, are, strict=True)] == keys

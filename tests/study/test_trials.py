"""Sheets: each pair as often as another, each codec as often on the left, and the same for the same seed."""

from __future__ import annotations

from collections import Counter

import pytest

from rdpbench.errors import ConfigError
from rdpbench.study.pack import Trial, pairs, sheets

KNOWN = pairs([f"image{n}" for n in range(6)], [0.1, 0.3], ["a", "b", "c", "d"])


@pytest.fixture(scope="module")
def made() -> list[list[Trial]]:
    return sheets(KNOWN, count=9, length=20, catch=3, seed=7)


def test_each_pair_is_seen_equally_often(made: list[list[Trial]]) -> None:
    assert len(KNOWN) == 6 * 2 * 6
    seen = Counter(trial.pair for sheet in made for trial in sheet if trial.pair)
    assert set(seen.values()) <= {2, 3}
    assert sum(seen.values()) == 9 * 20
    for sheet in made:
        asked = [trial.pair for trial in sheet if trial.pair]
        assert len(asked) == len(set(asked)) == 20
        assert sum(trial.catch for trial in sheet) == 3


def test_each_codec_is_on_the_left_equally_often(made: list[list[Trial]]) -> None:
    lead: Counter[tuple[str, str]] = Counter()
    for sheet in made:
        for trial in sheet:
            if trial.pair:
                lead[trial.pair.first, trial.pair.second] += -1 if trial.swapped else 1
    assert max(map(abs, lead.values())) <= 2
    whole = sheets(KNOWN, count=4, length=None, catch=0, seed=1)
    own: Counter[object] = Counter()
    for sheet in whole:
        for trial in sheet:
            own[trial.pair] += -1 if trial.swapped else 1
    assert set(own.values()) == {0}  # each pair, seen four times, twice this way and twice the other


def test_catch_trials_are_on_both_sides() -> None:
    made = sheets(KNOWN, count=10, length=5, catch=4, seed=2)
    assert {sum(trial.swapped for trial in sheet if trial.catch) for sheet in made} == {2}


def test_the_order_is_the_seed_s() -> None:
    assert sheets(KNOWN, 3, 10, 2, seed=5) == sheets(KNOWN, 3, 10, 2, seed=5)
    assert sheets(KNOWN, 3, 10, 2, seed=5) != sheets(KNOWN, 3, 10, 2, seed=6)
    first = [sheet[0].pair for sheet in sheets(KNOWN, 12, None, 0, seed=0)]
    assert len(set(first)) > 6  # sheets do not begin alike


@pytest.mark.parametrize(("count", "length", "catch"), [(0, 5, 1), (2, 0, 1), (2, 999, 1), (2, 5, -1)])
def test_numbers_that_cannot_be_meant(count: int, length: int, catch: int) -> None:
    with pytest.raises(ConfigError, match="cannot be made"):
        sheets(KNOWN, count, length, catch, seed=0)

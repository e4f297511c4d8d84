"""Scores of paired comparisons: closed forms, an optimiser of others, and a simulated population that is recovered."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.optimize import minimize

from rdpbench.errors import ConfigError, MetricError
from rdpbench.study.bradley_terry import FIRST, SECOND, TIE, Comparisons, Fit, fit, groups

TRUE = np.array([0.9, 0.3, -0.3, -0.9])


def votes(*lines: tuple[int, int, int, int, int]) -> Comparisons:
    """Of (first, second, outcome, rater, image)."""
    first, second, outcome, rater, image = np.array(lines, np.int64).T
    return Comparisons(first, second, outcome, rater, image)


def population(
    seed: int, *, raters: int = 16, images: int = 12, spread: float = 0.4, tie: float | None = None
) -> Comparisons:
    """Every rater compares all pairs on all images; raters and images have tastes of their own."""
    rng = np.random.default_rng(seed)
    of_rater, of_image = rng.normal(0, spread, (raters, 4)), rng.normal(0, spread, (images, 4))
    pairs = [(a, b) for a in range(4) for b in range(a + 1, 4)]
    lines = np.array([(r, i, a, b) for r, i, (a, b) in itertools.product(range(raters), range(images), pairs)])
    r, i, a, b = lines.T
    chance = _chances(TRUE[a] + of_rater[r, a] + of_image[i, a], TRUE[b] + of_rater[r, b] + of_image[i, b], tie)
    outcome = (rng.random(len(r))[:, None] > chance.cumsum(axis=1)).sum(axis=1)
    return Comparisons(a, b, outcome, r, i)


def _chances(first: np.ndarray, second: np.ndarray, tie: float | None) -> np.ndarray:
    middle = (first + second) / 2 + (tie if tie is not None else -np.inf)
    weights = np.exp(np.stack([first, second, middle], axis=1))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def truth(spread: float, tie: float | None) -> np.ndarray:
    """Scores of an endless population: tastes that differ draw shares towards one half."""
    rng = np.random.default_rng(99)
    lines, weights = [], []
    for a, b in itertools.combinations(range(4), 2):
        noise = rng.normal(0, math.sqrt(2) * spread, (2, 100_000))
        shares = _chances(TRUE[a] + noise[0], TRUE[b] + noise[1], tie).mean(axis=0)
        for outcome in (FIRST, SECOND, *([TIE] if tie is not None else [])):
            lines.append((a, b, outcome, 0, 0))
            weights.append(shares[outcome])
    first, second, outcome, rater, image = np.array(lines, np.int64).T
    return fit(4, Comparisons(first, second, outcome, rater, image, np.array(weights))).scores


def covered(seeds: range, spread: float, tie: float | None, **size: int) -> tuple[float, float]:
    """Share of the intervals of scores, and of their differences, that hold the truth."""
    true = truth(spread, tie)
    scores, differences = [], []
    for seed in seeds:
        found = fit(4, population(seed, spread=spread, tie=tie, **size))
        scores.append((found.low <= true) & (true <= found.high))
        for a, b in itertools.combinations(range(4), 2):
            _, low, high = found.difference(a, b)
            differences.append(low <= true[a] - true[b] <= high)
    return float(np.mean(scores)), float(np.mean(differences))


def test_two_items_have_the_odds_of_their_votes() -> None:
    lines = [(0, 1, FIRST, k, k) for k in range(6)] + [(0, 1, SECOND, k, k) for k in range(6, 8)]
    found = fit(2, votes(*lines))
    assert found.scores[0] - found.scores[1] == pytest.approx(math.log(6 / 2), abs=1e-9)
    assert found.scores.sum() == pytest.approx(0, abs=1e-12)
    assert found.tie is None


def test_the_search_ends_at_the_maximum_and_not_near_it() -> None:
    """However the likelihood's sum is rounded, which differs between processors: all odds of up to 25 votes each."""
    off = []
    for wins, losses in itertools.product(range(1, 26), repeat=2):
        lines = [(0, 1, FIRST if k < wins else SECOND, k, k) for k in range(wins + losses)]
        scores = fit(2, votes(*lines)).scores
        off.append(abs(scores[0] - scores[1] - math.log(wins / losses)))
    assert max(off) < 1e-13


@pytest.mark.parametrize("tie", [None, -0.5])
def test_no_vote_pulls_at_the_scores_that_are_found(tie: float | None) -> None:
    """Where the likelihood is largest, each item is chosen as often as the scores expect."""
    for seed in range(20):
        data = population(seed, raters=7, images=5, tie=tie)
        found = fit(4, data)
        chance = _chances(found.scores[data.first], found.scores[data.second], found.tie)
        pull = np.zeros(4)
        for outcome, gain in ((FIRST, (1, 0)), (SECOND, (0, 1)), (TIE, (0.5, 0.5))):
            happened = (data.outcome == outcome) - chance[:, outcome]
            np.add.at(pull, data.first, gain[0] * happened)
            np.add.at(pull, data.second, gain[1] * happened)
        assert np.abs(pull).max() < 1e-11


def test_two_items_with_ties_have_davidsons_solution() -> None:
    """Of w, l and t votes: odds w / l, and exp(t) is the ties over the geometric mean of the other two."""
    lines = [(0, 1, outcome, k, k) for k, outcome in enumerate([FIRST] * 8 + [SECOND] * 2 + [TIE] * 5)]
    found = fit(2, votes(*lines))
    assert found.scores[0] - found.scores[1] == pytest.approx(math.log(8 / 2), abs=1e-9)
    assert found.tie == pytest.approx(math.log(5 / math.sqrt(8 * 2)), abs=1e-9)


@pytest.mark.parametrize("tie", [None, -0.5])
def test_an_optimiser_of_others_finds_the_same(tie: float | None) -> None:
    data = population(3, raters=5, images=4, tie=tie)

    def cost(theta: np.ndarray) -> float:
        scores = np.append(theta[:3], -theta[:3].sum())
        chance = _chances(scores[data.first], scores[data.second], None if tie is None else float(theta[3]))
        return -float(np.log(chance[np.arange(len(data.outcome)), data.outcome]).sum())

    best = minimize(cost, np.zeros(3 if tie is None else 4), method="BFGS", options={"gtol": 1e-8})
    found = fit(4, data)
    assert found.scores[:3] == pytest.approx(best.x[:3], abs=1e-5)
    if tie is not None:
        assert found.tie == pytest.approx(best.x[3], abs=1e-5)


def test_who_stood_first_does_not_matter() -> None:
    data = population(4, raters=5, images=4, tie=-0.5)
    turned = np.array([SECOND, FIRST, TIE])[data.outcome]
    one, other = fit(4, data), fit(4, Comparisons(data.second, data.first, turned, data.rater, data.image))
    for name in ("scores", "low", "high"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), abs=1e-9)


def test_independent_votes_have_the_interval_of_a_share() -> None:
    """Each vote of its own rater on its own image: the variance of log odds is 1 / w + 1 / l, but for n / (n - 1)."""
    lines = [(0, 1, FIRST if k % 3 else SECOND, k, k) for k in range(90)]
    found = fit(2, votes(*lines))
    value, low, high = found.difference(0, 1)
    assert value == pytest.approx(math.log(2), abs=1e-9)
    spread = math.sqrt((1 / 60 + 1 / 30) * 90 / 89)
    assert (high - low) / 2 == pytest.approx(1.9870 * spread, rel=1e-3)  # Student's, 89 degrees of freedom
    assert found.freedom == 89


def test_votes_of_one_rater_are_not_many_raters() -> None:
    """The same votes, once of 30 raters and once of 3 who each vote alike: the second interval is far wider."""
    outcome = [FIRST] * 20 + [SECOND] * 10
    alone = fit(2, votes(*[(0, 1, one, k, k) for k, one in enumerate(outcome)]))
    alike = fit(2, votes(*[(0, 1, one, k // 10, k) for k, one in enumerate(outcome)]))
    assert np.allclose(alone.scores, alike.scores)

    def width(one: Fit) -> float:
        return float(one.high[0] - one.low[0])

    assert width(alike) > 4 * width(alone)


def test_scores_that_would_be_infinite_are_refused() -> None:
    never = votes((0, 1, FIRST, 0, 0), (1, 2, FIRST, 0, 0), (2, 1, FIRST, 1, 1))
    assert groups(3, never) == [[0], [1, 2]]
    with pytest.raises(MetricError, match="2 groups"):
        fit(3, never)
    apart = votes((0, 1, FIRST, 0, 0), (1, 0, FIRST, 0, 0), (2, 3, FIRST, 0, 0), (2, 3, SECOND, 0, 0))
    assert groups(4, apart) == [[0, 1], [2, 3]]
    with pytest.raises(MetricError, match="ties"):
        fit(2, votes((0, 1, TIE, 0, 0), (0, 1, TIE, 1, 1)))
    with pytest.raises(ConfigError, match="two items"):
        fit(2, votes((1, 1, FIRST, 0, 0)))


def test_a_ring_of_wins_connects() -> None:
    assert groups(3, votes((0, 1, FIRST, 0, 0), (1, 2, FIRST, 0, 0), (2, 0, FIRST, 0, 0))) == [[0, 1, 2]]


def test_a_long_chain_connects_over_all_its_links() -> None:
    ring = [(k, (k + 1) % 37, FIRST, 0, 0) for k in range(37)]
    assert groups(37, votes(*ring)) == [list(range(37))]


@pytest.mark.parametrize("tie", [None, -0.5])
def test_a_population_is_recovered_within_its_interval(tie: float | None) -> None:
    scores, differences = covered(range(60), 0.4, tie)
    assert scores > 0.9
    assert differences > 0.9
    found = fit(4, population(0, tie=tie))
    assert (np.argsort(-found.scores) == np.arange(4)).all()
    assert (found.high - found.low < 1).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spread", "tie", "size"),
    [
        (0.0, None, {}),
        (0.4, None, {}),
        (0.4, -0.5, {}),
        (0.4, None, {"raters": 8, "images": 6}),
        (0.4, None, {"raters": 30, "images": 24}),
    ],
)
def test_intervals_hold_the_truth_as_often_as_they_say(spread: float, tie: float | None, size: dict[str, int]) -> None:
    """400 studies each; what was found stands in docs/study.md."""
    scores, differences = covered(range(1000, 1400), spread, tie, **size)
    print(f"{spread} {tie} {size}: scores {scores:.3f}, differences {differences:.3f}")
    assert 0.93 < scores <= 1
    assert 0.93 < differences <= 1

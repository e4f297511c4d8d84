"""Bootstrap intervals: they cover what they should, repeat exactly, keep patches together."""

from __future__ import annotations

import math
import time
from functools import partial

import numpy as np
import pytest
from scipy.special import stdtrit

from rdpbench.errors import MetricError
from rdpbench.metrics.miou import confusion, merge, scores
from rdpbench.results.stats import bootstrap
from rdpbench.results.stats.bd import bd_metric, bd_rate
from rdpbench.results.stats.bootstrap import draws, mean, of_curves, of_means, shares, student
from rdpbench.results.stats.summary import with_interval


def skewed(rng, n):
    return rng.lognormal(sigma=0.8, size=n)


@pytest.mark.parametrize(
    ("draw", "truth", "least", "most"),
    [(lambda rng, n: rng.normal(size=n), 0.0, 0.93, 0.97), (skewed, math.exp(0.32), 0.88, 0.95)],
)
def test_intervals_cover_the_truth(draw, truth, least, most):
    """Of 95 % intervals over 24 images. Over 1,000 data sets the share is known to 0.7 % (0.95) or 1 % (0.9)."""
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(1000):
        found = mean(draw(rng, 24), resamples=400)
        inside += found.low <= truth <= found.high
    assert least < inside / 1000 < most


def test_more_images_cover_as_promised():
    rng = np.random.default_rng(2)
    found = [mean(rng.normal(size=150), resamples=300) for _ in range(1000)]
    inside = sum(one.low <= 0 <= one.high for one in found) / 1000
    assert 0.93 < inside < 0.965


def test_the_width_is_that_of_theory():
    values = np.random.default_rng(3).normal(size=400)
    found = mean(values)
    error = values.std() / math.sqrt(400)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert found.value == pytest.approx(values.mean(), abs=1e-15)


def test_equals_what_summaries_draw():
    values = np.random.default_rng(4).normal(size=24)
    found = mean(values)
    assert (found.value, found.low, found.high) == pytest.approx(with_interval(values), abs=1e-12)


def test_students_quantiles_are_those_of_the_tables():
    """Student's own table, and the normal distribution in the limit."""
    assert student(1, 0.975) == pytest.approx(12.7062047, rel=1e-8)
    assert student(23, 0.975) == pytest.approx(2.0686576, rel=1e-8)
    assert student(10**7, 0.975) == pytest.approx(1.959964, rel=1e-6)
    for freedom in (*range(1, 50), 999, 3999, 30_000):
        assert student(freedom, 0.975) == pytest.approx(float(stdtrit(freedom, 0.975)), rel=1e-10)


@pytest.mark.parametrize("n", range(2, 8))
@pytest.mark.parametrize(
    ("draw", "truth", "least"), [(lambda rng, n: rng.normal(size=n), 0.0, 0.93), (skewed, math.exp(0.32), 0.83)]
)
def test_intervals_of_few_images_hold_what_they_say(draw, truth, least, n):
    """Between the smallest and the largest of two values is the mean in every second case, of three in 75 %."""
    rng = np.random.default_rng(n)
    found = [mean(draw(rng, n)) for _ in range(2000)]
    assert {one.method for one in found} == {"student"}
    assert least < sum(one.low <= truth <= one.high for one in found) / 2000 < 0.97


def test_few_images_within_bounds_hold_as_often():
    """On the scale on which bounds are far, that of a positive mean is above zero, and holds it more often."""
    rng = np.random.default_rng(0)
    found = [mean(skewed(rng, 4), bounds=(0, math.inf)) for _ in range(2000)]
    assert min(one.low for one in found) > 0
    assert 0.89 < sum(one.low <= math.exp(0.32) <= one.high for one in found) / 2000 < 0.97
    shares_of = [mean(rng.beta(8, 2, 4), bounds=(0, 1)) for _ in range(2000)]
    assert all(0 < one.low < one.value < one.high < 1 for one in shares_of)
    assert 0.92 < sum(one.low <= 0.8 <= one.high for one in shares_of) / 2000 < 0.97
    assert mean([0.2, 0.9, 1.0], bounds=(0, 1)).high < 1
    stuck = mean([1.0, 1.0, 1.0, 0.2], bounds=(0, 1))
    assert (stuck.reason, math.isnan(stuck.low)) == ("4 images, and a value at the end of its range", True)


def test_a_thousand_resamples_have_the_quantiles_of_ten_thousand():
    """Of one seed a thousand are narrow here and wide there by 3 %, and alike for all that is measured on one set."""
    rng = np.random.default_rng(20)
    widths = []
    many = np.concatenate(list(draws(24, 200_000, seed=7)))
    for _ in range(40):
        values = rng.normal(size=24)
        low, high = np.quantile(values[many].mean(axis=1), shares(24))
        found = mean(values)
        widths.append((found.high - found.low) / (high - low))
    assert np.std(widths) < 0.015
    assert np.mean(widths) == pytest.approx(1, abs=0.005)


def test_expanded_shares_undo_both_effects_of_few_images():
    """A mean of normal values has Student's interval: the resamples' spread, times sqrt(n / (n - 1)), times t."""
    from scipy.stats import norm, t

    for n in (5, 24, 428):
        low, high = shares(n)
        assert norm.ppf(low) * math.sqrt((n - 1) / n) == pytest.approx(-t.ppf(0.975, n - 1), rel=1e-5)
        assert low + high == 1
    values = np.random.default_rng(18).normal(size=24)
    found = mean(values, resamples=100_000)
    half = t.ppf(0.975, 23) * values.std(ddof=1) / math.sqrt(24)
    # Resampled values of 24 images still have lighter tails than a normal distribution's.
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.03)


def test_the_same_call_gives_the_same_interval():
    values = np.random.default_rng(7).normal(size=24)
    assert mean(values) == mean(values) == mean(list(values))


def test_draws_in_blocks_are_the_same_stream(monkeypatch):
    whole = np.concatenate(list(draws(24, 100)))
    monkeypatch.setattr(bootstrap, "_DRAWN", 24 * 7)
    blocks = list(draws(24, 100))
    assert len(blocks) == 15
    assert np.array_equal(np.concatenate(blocks), whole)
    assert (whole.min(), whole.max()) == (0, 23)


def test_a_thousand_resamples_of_kodak_take_milliseconds():
    values = np.random.default_rng(8).normal(size=24)
    mean(values)
    started = time.perf_counter()
    for _ in range(20):
        mean(values)
    # Measured: 1 ms; the bound only tells a loop over resamples (30 ms) from none, on a busy machine too.
    assert (time.perf_counter() - started) / 20 < 0.025


def test_paired_differences_are_narrower_than_the_codecs():
    rng = np.random.default_rng(9)
    images = [f"kodim{number:02d}" for number in range(24)]
    first = dict(zip(images, rng.normal(32, 3, 24), strict=True))
    second = {image: value + rng.normal(0.3, 0.1) for image, value in first.items()}
    found = mean([second[image] - first[image] for image in images])
    assert 0.2 < found.low < found.value < found.high < 0.4
    alone = mean(list(first.values()))
    assert found.high - found.low < (alone.high - alone.low) / 10


def test_miou_is_a_function_of_means():
    rng = np.random.default_rng(11)
    truths = rng.integers(0, 4, (20, 16, 16))
    predictions = np.where(rng.random(truths.shape) < 0.7, truths, rng.integers(0, 4, truths.shape))
    counts = [confusion(*pair, classes=4) for pair in zip(truths, predictions, strict=True)]

    def miou(means):
        matrices = means.reshape(-1, 4, 4)
        right = np.einsum("kii->ki", matrices)
        return (right / (matrices.sum(1) + matrices.sum(2) - right)).mean(axis=1)

    fast = of_means(np.array(counts).reshape(20, 16), miou, resamples=60)
    slow = [scores(merge([counts[n] for n in picks])).miou for block in draws(20, 60) for picks in block]
    assert fast.value == pytest.approx(scores(merge(counts)).miou, abs=1e-12)
    assert (fast.low, fast.high) == pytest.approx(np.quantile(slow, shares(20)), abs=1e-12)


def curves(rng, images=24, gain=0.5):
    """Rates and PSNR of four points; the test codec is better by ``gain`` dB on each image, and a bit of noise."""
    rates = np.outer([0.1, 0.2, 0.4, 0.8], rng.lognormal(0, 0.3, images))
    hard = rng.normal(30, 3, images)
    anchor = hard + 8 * np.log10(rates / 0.1)
    return (rates, anchor), (rates, anchor + gain + rng.normal(0, 0.05, anchor.shape))


def test_bd_intervals_draw_the_images_of_both_curves_together():
    anchor, test = curves(np.random.default_rng(15))
    found = of_curves(anchor, test, bd_metric, resamples=200)
    assert found.value == pytest.approx(0.5, abs=0.03)
    assert 0.45 < found.low < found.value < found.high < 0.55
    rate = of_curves(anchor, test, partial(bd_rate, method="pchip"), resamples=200)
    assert rate.high < 0
    assert rate.value == pytest.approx(100 * (10 ** (-0.5 / 8) - 1), abs=1)
    assert rate == of_curves(anchor, test, bd_rate, resamples=200)
    # Had each curve met images of its own, the spread of the images would be in it.
    shuffled = tuple(one[:, ::-1] for one in test)
    assert of_curves(anchor, shuffled, bd_metric, resamples=200).high - found.low > 5 * (found.high - found.low)


def test_resamples_without_a_delta_are_counted():
    rng = np.random.default_rng(16)
    anchor, test = curves(rng)
    values = test[1].copy()
    values[2] = values[1] + rng.normal(0.1, 2, 24)
    found = of_curves(anchor, (test[0], values), bd_rate, resamples=200)
    assert 0 < found.failed < 200
    assert math.isnan(found.low)
    assert found.reason == f"{found.failed} of 200 resamples gave no number"
    values[2] = values[1] - 1
    none = of_curves(anchor, (test[0], values), bd_rate, resamples=10)
    assert math.isnan(none.value)
    assert none.reason == "there is no value"


def test_one_image_has_no_interval():
    found = mean([3.0])
    assert found.value == 3.0
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert found.reason == "one image has no interval"


def test_equal_values_have_an_interval_of_no_width():
    found = mean([2.5] * 10)
    assert (found.low, found.high) == (2.5, 2.5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean([]), "no image"),
        (lambda: mean([1.0, math.inf]), "NaN or infinite"),
        (lambda: mean([1.0, math.nan]), "NaN or infinite"),
        (lambda: of_curves((np.ones((4, 3)), np.ones((4, 2))), (np.ones((4, 3)),) * 2, bd_rate), "of one shape"),
        (lambda: of_curves((np.ones((4, 3)),) * 2, (np.ones((4, 2)),) * 2, bd_rate), "3 and 2 images, not of the same"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(MetricError, match=message):
        call()

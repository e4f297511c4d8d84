"""Bootstrap intervals: they cover what they should, repeat exactly, keep patches together."""

from __future__ import annotations

import math
import time
from functools import partial

import numpy as np
import pytest

from rdpbench.errors import MetricError, UnknownName
from rdpbench.metrics.confusion import confusion, merge, scores
from rdpbench.metrics.frechet import distance_of_rows
from rdpbench.metrics.mmd import polynomial_mmd
from rdpbench.metrics.mmd_sums import kid_sums
from rdpbench.results import bootstrap
from rdpbench.results.bd import bd_metric, bd_rate
from rdpbench.results.bootstrap import (
    clustered_mean,
    draws,
    mean,
    of_curves,
    of_means,
    of_occurrences,
    of_sets,
    over_seeds,
    paired,
)
from rdpbench.results.summary import with_interval


def skewed(rng, n):
    return rng.lognormal(sigma=0.8, size=n)


@pytest.mark.parametrize(
    ("draw", "truth", "method", "least", "most"),
    [
        (lambda rng, n: rng.normal(size=n), 0.0, "percentile", 0.91, 0.96),
        (lambda rng, n: rng.normal(size=n), 0.0, "bca", 0.91, 0.96),
        (lambda rng, n: rng.normal(size=n), 0.0, "centred", 0.91, 0.96),
        (skewed, math.exp(0.32), "percentile", 0.85, 0.93),
        (skewed, math.exp(0.32), "bca", 0.87, 0.95),
    ],
)
def test_intervals_cover_the_truth(draw, truth, method, least, most):
    """Of 95 % intervals over 24 images. Over 1,000 data sets the share is known to 0.7 % (0.95) or 1 % (0.9)."""
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(1000):
        found = mean(draw(rng, 24), method=method, resamples=400)
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
    narrow = mean(values, level=0.5)
    assert found.low < narrow.low < narrow.value < narrow.high < found.high


def test_equals_what_summaries_draw():
    values = np.random.default_rng(4).normal(size=24)
    found = mean(values)
    assert (found.value, found.low, found.high) == pytest.approx(with_interval(values), abs=1e-12)


def test_bca_equals_scipy():
    from scipy.stats import bootstrap as theirs

    values = skewed(np.random.default_rng(5), 60)
    expected = theirs((values,), np.mean, method="BCa", n_resamples=20000, rng=np.random.default_rng(6))
    found = mean(values, method="bca", resamples=20000)
    width = found.high - found.low
    # Both draw 20,000 times, with another stream: their ends agree to about a fiftieth of the width.
    assert found.low == pytest.approx(expected.confidence_interval.low, abs=width / 50)
    assert found.high == pytest.approx(expected.confidence_interval.high, abs=width / 50)
    assert found.high > mean(values, resamples=20000).high + width / 100, "skewness moves it up"


def test_the_same_call_gives_the_same_interval():
    values = np.random.default_rng(7).normal(size=24)
    assert mean(values) == mean(values) == mean(list(values))
    assert mean(values) != mean(values, seed=1)


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
    found = paired(first, second)
    assert 0.2 < found.low < found.value < found.high < 0.4
    alone = mean(list(first.values()))
    assert found.high - found.low < (alone.high - alone.low) / 10
    # Whatever the order of the images.
    assert paired(dict(reversed(first.items())), second) == found
    back = paired(second, first)
    assert (back.value, back.low, back.high) == pytest.approx((-found.value, -found.high, -found.low))


def test_paired_differences_need_the_same_images():
    with pytest.raises(MetricError, match="only one side has b, c"):
        paired({"a": 1.0, "b": 2.0}, {"a": 1.0, "c": 2.0})
    many = {f"i{number}": 1.0 for number in range(9)}
    with pytest.raises(MetricError, match="i0, i1, i2 and 6 more"):
        paired(many, {})


def test_lossless_images_are_left_out_of_differences():
    found = paired({"a": 30.0, "b": math.inf, "c": 33.0, "d": 1.0}, {"a": 31.0, "b": math.inf, "c": 34.0, "d": 2.0})
    assert (found.value, found.n) == (1.0, 3)


def test_patches_of_an_image_stay_together():
    """Nine equal patches per image are one image: the interval must be that of the images, not three times narrower."""
    values = np.random.default_rng(10).normal(size=30)
    names = [f"image{number:02d}" for number in range(30)]
    found = clustered_mean(np.repeat(values, 9), np.repeat(names, 9))
    alone = mean(values)
    assert found.n == 30
    assert (found.value, found.low, found.high) == pytest.approx((alone.value, alone.low, alone.high), abs=1e-12)
    wrong = mean(np.repeat(values, 9))
    assert wrong.high - wrong.low < (found.high - found.low) / 2.5


def test_images_with_more_patches_weigh_more():
    found = clustered_mean([1.0] * 8 + [10.0], ["big"] * 8 + ["small"])
    assert found.value == 2.0
    # Of two images, a quarter of the resamples hold only one of them: the ends are their means.
    assert (found.low, found.high) == (1.0, 10.0)


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
    slow = of_sets([None] * 20, counts, lambda _, some: scores(merge(some)).miou, resamples=60, method="percentile")
    assert fast.value == pytest.approx(scores(merge(counts)).miou, abs=1e-12)
    assert (fast.low, fast.high) == pytest.approx((slow.low, slow.high), abs=1e-12)


def patches(rng, images, shift=0.0):
    """A few rows of two entries per image, alike within an image."""
    return [rng.normal(rng.normal(shift, 1, 2), 0.3, (int(rng.integers(2, 5)), 2)) for _ in range(images)]


def frechet(reference, distorted):
    return distance_of_rows(np.concatenate(reference), np.concatenate(distorted)).value


def test_set_distances_are_drawn_by_image():
    rng = np.random.default_rng(12)
    reference, distorted = patches(rng, 40), patches(rng, 40, shift=1.0)
    found = of_sets(reference, distorted, frechet)
    assert found.value == frechet(reference, distorted)
    assert found.low < found.value < found.high
    assert (found.n, found.resamples, found.failed, found.method) == (40, 200, 0, "centred")
    assert found == of_sets(reference, distorted, frechet)
    # By patches as if they were images it would be too narrow.
    flat = [[row[None] for image in side for row in image] for side in (reference, distorted)]
    loose = of_sets(*flat, frechet, pairs=False)
    assert loose.high - loose.low < 0.8 * (found.high - found.low)


def test_kid_over_resampled_images_needs_one_pass():
    rng = np.random.default_rng(17)
    reference, distorted = patches(rng, 30), patches(rng, 30, shift=1.0)
    fast = of_occurrences(30, kid_sums(reference, distorted).estimate, resamples=100)
    slow = of_sets(
        reference, distorted, lambda x, y: polynomial_mmd(np.concatenate(x), np.concatenate(y)), resamples=100
    )
    assert (fast.value, fast.low, fast.high) == pytest.approx((slow.value, slow.low, slow.high), rel=1e-10)
    assert fast.low < fast.value < fast.high
    with pytest.raises(MetricError, match="no image"):
        of_occurrences(0, lambda times: times[:, 0])
    with pytest.raises(MetricError, match="not offered for sets"):
        of_occurrences(3, lambda times: times[:, 0], method="bca")


def test_resampling_raises_a_distance_and_centring_takes_that_out():
    """Equal distributions and few images: all plain quantiles may lie above the value; centred ones hold it."""
    rng = np.random.default_rng(13)
    reference, distorted = ([rng.normal(size=(1, 12)) for _ in range(30)] for _ in "ab")
    plain = of_sets(reference, distorted, frechet, pairs=False, method="percentile")
    assert plain.low > plain.value
    assert plain.shift > 0
    centred = of_sets(reference, distorted, frechet, pairs=False)
    assert centred.low < centred.value < centred.high
    assert centred.high - centred.low == pytest.approx(plain.high - plain.low)
    assert centred.shift == plain.shift


def test_centred_intervals_cover_the_mean_of_sets_of_this_size():
    """What the interval speaks of: where the distances of other sets of 40 images lie on average."""
    rng = np.random.default_rng(14)

    def sets():
        return [[rng.normal(shift, 1, (1, 2)) for _ in range(40)] for shift in (0, 1)]

    expected = np.mean([frechet(*sets()) for _ in range(800)])
    found = [of_sets(*sets(), frechet, pairs=False, resamples=60) for _ in range(120)]
    inside = sum(one.low <= expected <= one.high for one in found) / 120
    assert 0.86 < inside < 0.99


def test_a_set_that_is_no_pair_is_drawn_by_itself():
    entries = list(range(10))
    gaps = of_sets(entries, entries, lambda x, y: float(np.mean(y) - np.mean(x)))
    assert (gaps.low, gaps.high) == (0, 0)
    apart = of_sets(entries, entries, lambda x, y: float(np.mean(y) - np.mean(x)), pairs=False)
    assert apart.low < -1
    assert apart.high > 1
    assert of_sets(entries, entries[:4], lambda x, y: float(np.mean(y)), pairs=False).n == 4


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


def test_over_seeds():
    values = np.array([[1.0, 3.0], [2.0, 4.0], [6.0, 8.0]])
    centre, spread = over_seeds(values)
    assert centre == 4.0
    assert spread == pytest.approx(np.std([2, 3, 7], ddof=1))
    assert math.isnan(over_seeds(values[:1])[1])
    for wrong in (values[0], values[:0], values * np.nan):
        with pytest.raises(MetricError, match="seeds"):
            over_seeds(wrong)


def test_one_image_has_no_interval():
    for found in (mean([3.0]), mean([3.0], method="bca"), of_sets([1], [2], lambda x, y: 3.0)):
        assert found.value == 3.0
        assert math.isnan(found.low)
        assert math.isnan(found.high)
        assert found.reason == "one image has no interval"


def test_equal_values_have_an_interval_of_no_width():
    for method in bootstrap.METHODS:
        found = mean([2.5] * 10, method=method)
        assert (found.low, found.high) == (2.5, 2.5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean([]), "no image"),
        (lambda: mean([1.0, math.inf]), "NaN or infinite"),
        (lambda: mean([1.0, math.nan]), "NaN or infinite"),
        (lambda: clustered_mean([1.0], ["a", "b"]), "1 values and 2 clusters"),
        (lambda: of_sets([], [], lambda x, y: 0.0), "no image in the set"),
        (lambda: of_sets([1, 2], [1], lambda x, y: 0.0), "2 originals and 1 reconstructions are no pairs"),
        (lambda: of_sets([1, 2], [1, 2], lambda x, y: 0.0, method="bca"), "not offered for sets"),
        (lambda: of_curves((np.ones((4, 3)), np.ones((4, 2))), (np.ones((4, 3)),) * 2, bd_rate), "of one shape"),
        (lambda: of_curves((np.ones((4, 3)),) * 2, (np.ones((4, 2)),) * 2, bd_rate), "3 and 2 images, not of the same"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(MetricError, match=message):
        call()


def test_an_unknown_method():
    with pytest.raises(UnknownName, match="methods that exist: bca, centred, percentile"):
        of_means(np.ones((3, 1)), lambda means: means[:, 0], method="studentised")

"""SSIMULACRA 2: against a plain computation, against libjxl's program where it is here, and at its edges."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import correlate1d

from rdpbench.errors import MetricError
from rdpbench.metrics.programs import SSIMULACRA2 as PROGRAM
from rdpbench.metrics.programs import SSIMULACRA2Program
from rdpbench.metrics.ssimulacra2 import SSIMULACRA2, WINDOW, score_of


def score(x, y, metric=None):
    metric = metric or SSIMULACRA2()
    return metric.score(metric.prepare(x), y)


def plainly(x, y):
    """The same as the formulas at the head of the module say it, whole planes at a time."""
    norms = []
    linear = [np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4) for v in (x / 255, y / 255)]
    for scale in range(6):
        if scale:
            if min(linear[0].shape[:2]) < 8:
                break
            linear = [np.pad(v, [(0, v.shape[0] % 2), (0, v.shape[1] % 2), (0, 0)], mode="edge") for v in linear]
            linear = [(v[0::2, 0::2] + v[1::2, 0::2] + v[0::2, 1::2] + v[1::2, 1::2]) / 4 for v in linear]
        a, b = (colours(v) for v in linear)
        ma, mb, aa, bb, ab = (blurred(v) for v in (a, b, a * a, b * b, a * b))
        fraction = (2 * (ab - ma * mb) + 0.0009) / ((aa - ma * ma) + (bb - mb * mb) + 0.0009)
        structure = np.maximum(1 - (1 - (ma - mb) ** 2) * fraction, 0)
        ratio = (1 + np.abs(b - mb)) / (1 + np.abs(a - ma)) - 1
        maps = np.stack([structure, np.maximum(ratio, 0), np.maximum(-ratio, 0)], axis=-1)
        norms.append(np.stack([maps.mean((0, 1)), (maps**4).mean((0, 1)) ** 0.25], axis=1))
    return score_of(norms)


def colours(linear):
    b = 0.0037930732552754493
    red, green, blue = np.moveaxis(linear, -1, 0)
    long = np.cbrt(0.3 * red + 0.622 * green + 0.078 * blue + b) - np.cbrt(b)
    middle = np.cbrt(0.23 * red + 0.692 * green + 0.078 * blue + b) - np.cbrt(b)
    other = 0.24342268924547819, 0.20476744424496821
    short = np.cbrt(other[0] * red + other[1] * green + (1 - sum(other)) * blue + b) - np.cbrt(b)
    luma = (long + middle) / 2
    return np.stack([7 * (long - middle) + 0.42, luma + 0.01, short - luma + 0.55], axis=-1)


def blurred(plane):
    return correlate1d(correlate1d(plane, WINDOW, axis=0, mode="constant"), WINDOW, axis=1, mode="constant")


def test_the_window_is_the_response_of_the_recursive_filter():
    """Charalampidis 2016 for sigma 1.5: three cosines of a half width of 5, cut there."""
    sigma, half = 1.5, 5
    omega = np.array([1, 3, 5]) * np.pi / (2 * half)
    sign = np.array([1, -1, 1])
    p = sign / np.tan(omega / 2)
    r = sign * p * p / np.sin(omega)
    rho = np.exp(-0.5 * sigma**2 * omega**2) / half
    pairs_of = [p[i] * r[j] - r[i] * p[j] for i, j in ((0, 1), (1, 2), (2, 0))]
    zeta = np.array([pairs_of[1], pairs_of[2]]) / pairs_of[0]
    system = np.array([p, r, [*zeta, 1]])
    beta = np.linalg.solve(system, [1, half**2 - sigma**2, zeta @ rho[:2] + rho[2]])
    response = [(beta * np.cos(omega * place)).sum() for place in range(-4, 5)]
    assert np.allclose(WINDOW, response, rtol=0, atol=1e-15)


@pytest.mark.parametrize("size", [(8, 8), (9, 15), (31, 33), (64, 127), (129, 200), (255, 257)])
def test_equals_the_formulas_at_any_size(photograph, distortions, size):
    x = photograph[: size[0], : size[1]]
    for distort in distortions.values():
        assert score(x, distort(x)) == pytest.approx(plainly(x, distort(x)), abs=1e-3)  # colours are float32 here


def test_values_of_libjxl(synthetic):
    """What ssimulacra2 of libjxl 0.11.1 prints for arrays made by arithmetic."""
    x, y = synthetic(192, 192)
    assert score(x, y) == pytest.approx(44.27374701, abs=0.01)
    x, y = synthetic(255, 257)
    assert score(x, y) == pytest.approx(41.75334173, abs=0.01)
    black = np.zeros((100, 100, 3), np.uint8)
    assert score(black, black + 255) == pytest.approx(-1048.52435733, abs=0.2)


@pytest.mark.parametrize("count", [1, pytest.param(10, marks=pytest.mark.slow)])
def test_equals_libjxls_program(pairs, count):
    """Of ten photographs at four distortions: its float32 takes rounding for lost structure, at high scores most."""
    if PROGRAM.missing():
        pytest.skip(f"no libjxl to compare with: {PROGRAM.missing()}")
    ours, theirs = SSIMULACRA2(), SSIMULACRA2Program()
    for name, x, y in pairs(count):
        expected = theirs.score(theirs.prepare(x), y)
        tolerance = 0.05 if expected < 72 else 0.4
        assert ours.score(ours.prepare(x), y) == pytest.approx(expected, abs=tolerance), name


def test_edges(photograph, distortions):
    x = photograph[:64, :96]
    assert score(x, x) == 100
    grey = np.full((50, 41, 3), 128, np.uint8)
    assert score(grey, grey) == 100
    assert 99 < score(grey, grey + 1) < 100
    one = x.copy()
    one[30, 40] ^= 1
    assert 99 < score(x, one) < 100
    values = [score(x, np.clip(x.astype(int) + step, 0, 255).astype(np.uint8)) for step in (1, 4, 16, 64)]
    assert values == sorted(values, reverse=True)
    luma = np.repeat(x[:, :, 1:2], 3, axis=2)
    assert score(luma, distortions["blur"](luma)) == pytest.approx(plainly(luma, distortions["blur"](luma)), abs=1e-3)
    with pytest.raises(MetricError, match=r"at least 8 pixels.*found 9 x 7"):
        SSIMULACRA2().prepare(x[:7, :9])

"""MS-SSIM against a plain float64 computation, pytorch-msssim and numbers computed elsewhere."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest

from rdpbench.metrics import msssim
from rdpbench.metrics.msssim import MSSSIM, TorchmetricsMSSSIM
from rdpbench.metrics.ssimulacra2 import SSIMULACRA2


def score(x, y):
    metric = MSSSIM()
    return metric.score(metric.prepare(x), y)


@pytest.fixture(autouse=True)
def one_thread():
    if importlib.util.find_spec("torch") is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)  # with a busy machine beside it, torch's threads wait for each other
    yield
    torch.set_num_threads(before)


def gaussian():
    """The window of the definition: 11 taps, sigma 1.5, which add up to 1."""
    taps = np.exp(-(np.arange(-5.0, 6.0) ** 2) / 4.5)
    return taps / taps.sum()


def reference(x, y, *, double=False):
    """pytorch-msssim; with ``double``, in float64 throughout."""
    pytorch_msssim, torch = pytest.importorskip("pytorch_msssim"), pytest.importorskip("torch")

    dtype = torch.float64 if double else torch.float32
    window = torch.from_numpy(gaussian()).repeat(3, 1, 1, 1)
    planes = [torch.from_numpy(image.transpose(2, 0, 1)[None].copy()).to(dtype) for image in (x, y)]
    return pytorch_msssim.ms_ssim(*planes, data_range=255, win=window if double else None).item()


@pytest.mark.parametrize(
    ("size", "value"),
    [((192, 192), 0.97803414), ((256, 256), 0.97726976), ((255, 257), 0.97730200), ((512, 768), 0.97735200)],
)
def test_the_synthetic_pair(synthetic, size, value):
    # 255 x 257 tells TensorFlow's padding (.977302) from pytorch-msssim's (.977211), piq's and torchmetrics'.
    assert score(*synthetic(*size)) == pytest.approx(value, abs=5.1e-9)  # the digits that were written down


def flat(size, value):
    return np.full((*size, 3), value, np.uint8)


@pytest.mark.parametrize("size", [(161, 161), (163, 175), (192, 192), (200, 200), (321, 187), (512, 768)])
@pytest.mark.parametrize(("first", "second"), [(0, 255), (100, 120), (255, 254), (3, 250), (0, 1)])
def test_flat_images_have_their_closed_form_at_every_size(size, first, second):
    """No contrast in either: the luminance of the last scale is all that is left."""
    a, b = float(first), float(second)
    light = (2 * a * b + 6.5025) / (a * a + b * b + 6.5025)
    assert score(flat(size, first), flat(size, second)) == pytest.approx(light**0.1333, abs=1e-12)


def test_black_against_white_is_what_it_is():
    assert round(score(flat((200, 200), 0), flat((200, 200), 255)), 6) == 0.292950
    assert score(flat((192, 192), 100), flat((192, 192), 120)) == pytest.approx(0.9977996602602436, abs=1e-12)


@pytest.mark.parametrize("quality", [5, 40, 95])
def test_equals_pytorch_msssim(photograph, compress, quality):
    y = compress(photograph, quality)
    # The library sums in float32, with a window that adds up to 1 - 3e-8.
    assert score(photograph, y) == pytest.approx(reference(photograph, y), abs=5e-6)
    assert score(photograph, y) == pytest.approx(reference(photograph, y, double=True), abs=1e-12)


@pytest.mark.parametrize("size", [(176, 176), (176, 352), (272, 192), (176, 1104)])
def test_sizes_whose_strips_and_blocks_end_anywhere(size):
    rng = np.random.default_rng(2)
    x = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    y = np.clip(x + rng.normal(0, 25, x.shape), 0, 255).astype(np.uint8)
    assert score(x, y) == pytest.approx(reference(x, y, double=True), abs=1e-12)


def tensorflow_by_hand(x, y):
    """The definition, without any shortcut, in float64."""
    from scipy.ndimage import correlate1d

    window = gaussian()

    def blur(plane):
        return correlate1d(correlate1d(plane, window, axis=0), window, axis=1)[5:-5, 5:-5]

    def halve(plane):
        plane = np.pad(plane, [(0, side % 2) for side in plane.shape], mode="symmetric")
        return (plane[0::2, 0::2] + plane[1::2, 0::2] + plane[0::2, 1::2] + plane[1::2, 1::2]) / 4

    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    channels = []
    for channel in range(3):
        a, b = x[..., channel].astype(np.float64), y[..., channel].astype(np.float64)
        product = 1.0
        for scale, weight in enumerate(msssim.WEIGHTS):
            if scale:
                a, b = halve(a), halve(b)
            ma, mb = blur(a), blur(b)
            cs = (2 * (blur(a * b) - ma * mb) + c2) / (blur(a * a) - ma**2 + blur(b * b) - mb**2 + c2)
            light = (2 * ma * mb + c1) / (ma**2 + mb**2 + c1)
            product *= max((cs * light if scale == 4 else cs).mean(), 0) ** weight
        channels.append(product)
    return np.mean(channels)


@pytest.mark.parametrize("size", [(161, 161), (161, 200), (163, 175), (177, 250), (321, 187)])
def test_odd_sizes_follow_tensorflow(size):
    rng = np.random.default_rng(3)
    x = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    y = np.clip(x + rng.normal(0, 40, x.shape), 0, 255).astype(np.uint8)
    assert score(x, y) == pytest.approx(tensorflow_by_hand(x, y), abs=1e-12)


def other(kind, x):
    """An image far from ``x``, or hardly another."""
    return {
        "negative": 255 - x,
        "white": np.full_like(x, 255),
        "black": np.zeros_like(x),
        "upside down": x[::-1],
        "noise": np.random.default_rng(8).integers(0, 256, x.shape, dtype=np.uint8),
        "half black, half white": np.where(np.arange(x.shape[1])[:, None] < 80, np.zeros_like(x), np.full_like(x, 255)),
        "one pixel": np.where(np.arange(x.size).reshape(x.shape) == 777, x ^ 1, x),
    }[kind]


KINDS = ("negative", "white", "black", "upside down", "noise", "half black, half white", "one pixel")


@pytest.mark.parametrize("size", [(192, 208), (163, 175), (161, 250)])
@pytest.mark.parametrize("kind", KINDS)
def test_images_that_are_far_apart_keep_their_digits_whichever_comes_first(photograph, kind, size):
    x = photograph[: size[0], : size[1]]
    y = other(kind, x)
    assert score(x, y) == score(y, x)
    assert score(x, y) == pytest.approx(tensorflow_by_hand(x, y), abs=1e-12)


THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


@pytest.mark.parametrize(
    "settings",
    [{"OPENBLAS_CORETYPE": kernel} for kernel in ("Prescott", "HASWELL", "SKYLAKEX")]
    + [dict.fromkeys(THREADS, count) for count in ("1", "7")],
    ids=str,
)
def test_no_bit_depends_on_blas(settings):
    """Nor do those of SSIMULACRA 2. numpy's BLAS reads its settings when it is imported, hence another process."""
    x = np.random.default_rng(0).integers(0, 256, (300, 500, 3), dtype=np.uint8)
    others = (x // 2 + 40, 255 - x, x * 0, x ^ 1)
    program = (
        "import numpy as np\nfrom rdpbench.metrics.msssim import MSSSIM\n"
        "from rdpbench.metrics.ssimulacra2 import SSIMULACRA2\n"
        "x = np.random.default_rng(0).integers(0, 256, (300, 500, 3), dtype=np.uint8)\n"
        "for metric in (MSSSIM(), SSIMULACRA2()):\n"
        "    for y in (x // 2 + 40, 255 - x, x * 0, x ^ 1): print(metric.score(metric.prepare(x), y))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | settings, capture_output=True, text=True, check=True
    )
    here = [metric.score(metric.prepare(x), y) for metric in (MSSSIM(), SSIMULACRA2()) for y in others]
    assert [float(line) for line in done.stdout.split()] == here


def test_channels_are_averaged_after_the_product(synthetic):
    x, _ = synthetic(256, 256)
    y = x.copy()
    y[..., 2] = np.random.default_rng(0).integers(0, 256, y.shape[:2])
    assert score(x, y) == pytest.approx(reference(x, y, double=True), abs=1e-12)


def test_identical_is_one_and_a_negative_is_zero(photograph):
    assert score(photograph, photograph) == 1.0
    assert score(photograph, 255 - photograph) == pytest.approx(
        reference(photograph, 255 - photograph, double=True), abs=1e-12
    )


@pytest.mark.parametrize(
    ("size", "value"),
    [((192, 192), 0.97803756), ((256, 256), 0.97727252), ((255, 257), 0.97726052), ((512, 768), 0.97735062)],
)
def test_the_variant_of_torchmetrics(synthetic, size, value):
    metric = TorchmetricsMSSSIM()
    x, y = synthetic(*size)
    assert metric.score(metric.prepare(x), y) == pytest.approx(value, abs=1e-6)
    assert abs(score(x, y) - value) > 1e-6  # it is another metric


def test_the_variants_part_where_one_channel_is_damaged(synthetic):
    x, _ = synthetic(256, 256)
    y = x.copy()
    noise = np.random.default_rng(0).normal(0, 60, y.shape[:2])
    y[..., 2] = np.clip(y[..., 2] + noise, 0, 255).astype(np.uint8)
    metric = TorchmetricsMSSSIM()
    assert abs(metric.score(metric.prepare(x), y) - score(x, y)) > 0.001

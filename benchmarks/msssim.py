"""Pair metrics over 8 codecs of one image, one thread: ours beside the libraries called once for each codec.

    python benchmarks/msssim.py [IMAGE] [--rounds 5]

One original and its 8 reconstructions (JPEG, qualities 10 to 80), by default scikit-image's astronaut at 512 x 768.
Ours prepares the original once and scores 8 times; the library is given the pair 8 times, as benchmarks that loop over
codecs do. MS-SSIM is held against pytorch-msssim, LPIPS against ``lpips`` on the same random trunk (AlexNet).
Contestants take turns; medians over the rounds and the largest difference of values are printed.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"  # before numpy is imported, which reads it then

import numpy as np  # noqa: E402 (after the number of threads is set)

QUALITIES = range(10, 90, 10)


def read(path: Path | None) -> Any:
    """The image, or the astronaut widened to 512 x 768 by its mirror image."""
    from rdpbench.image import read_image

    if path:
        return read_image(path).pixels
    from skimage import data

    whole = np.array(data.astronaut())
    return np.concatenate([whole, whole[:, :255:-1]], axis=1)


def compress(image: Any, quality: int) -> Any:
    """The image after JPEG."""
    from PIL import Image as pil

    stream = io.BytesIO()
    pil.fromarray(image).save(stream, "JPEG", quality=quality)
    return np.array(pil.open(stream))


def ours(metric: Any, original: Any, reconstructions: Sequence[Any]) -> list[float]:
    """Prepare once, score each."""
    prepared = metric.prepare(original)
    return [metric.score(prepared, one) for one in reconstructions]


def planes(image: Any, scale: float = 1, shift: float = 0) -> Any:
    """``float32 (1, 3, H, W)``."""
    import torch

    return torch.tensor(image).permute(2, 0, 1)[None].float() / scale + shift


def pytorch_msssim(original: Any, reconstructions: Sequence[Any]) -> list[float]:
    """The library on each pair."""
    import pytorch_msssim as library

    return [library.ms_ssim(planes(one), planes(original), data_range=255).item() for one in reconstructions]


def lpips_pair() -> tuple[Callable[..., list[float]], Callable[..., list[float]]]:
    """Ours and the package's, with one random trunk."""
    import lpips
    import torch
    import torchvision

    from rdpbench.metrics.lpips import LPIPSAlex

    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchvision's, of how the package names weights
        trunk = torchvision.models.alexnet(weights=None).state_dict()
        module = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    for part in module.net.children():
        for index, layer in part.named_children():
            start = f"features.{index}."
            layer.load_state_dict({name.removeprefix(start): trunk[name] for name in trunk if name.startswith(start)})
    metric = LPIPSAlex(trunk)

    def theirs(original: Any, reconstructions: Sequence[Any]) -> list[float]:
        with torch.inference_mode():
            first = planes(original, 127.5, -1)
            return [module(first, planes(one, 127.5, -1)).item() for one in reconstructions]

    return lambda original, reconstructions: ours(metric, original, reconstructions), theirs


def compare(name: str, contestants: Sequence[Callable[..., list[float]]], given: tuple[Any, Any], rounds: int) -> None:
    """One line of the table: medians of ours and the library, their ratio, the largest difference."""
    seconds: list[list[float]] = [[], []]
    values: list[list[float]] = [[], []]
    for round_ in range(rounds + 1):
        for number, contestant in enumerate(contestants):
            started = time.perf_counter()
            values[number] = contestant(*given)
            if round_:  # the first warms up
                seconds[number].append(time.perf_counter() - started)
    mine, theirs = map(statistics.median, seconds)
    apart = max(abs(one - other) for one, other in zip(*values, strict=True))
    print(
        f"| {name} | {1e3 * mine:.0f} ms | {1e3 * theirs:.0f} ms | **{theirs / mine:.1f}x** | {apart:.1e} |", flush=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", type=Path, nargs="?", metavar="IMAGE")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    import torch

    from rdpbench.metrics.msssim import MSSSIM

    torch.set_num_threads(1)
    original = read(options.image)
    given = (original, [compress(original, quality) for quality in QUALITIES])
    print(f"{original.shape[0]} x {original.shape[1]} pixels, 8 reconstructions, one thread, {options.rounds} rounds\n")
    print("| metric | rdpbench | library, once for each codec | ratio | largest difference |")
    print("| --- | ---: | ---: | ---: | ---: |")
    metric = MSSSIM()
    pair = (lambda original, reconstructions: ours(metric, original, reconstructions), pytorch_msssim)
    compare("MS-SSIM, pytorch-msssim", pair, given, options.rounds)
    compare("LPIPS (alex), lpips", lpips_pair(), given, options.rounds)


if __name__ == "__main__":
    main()

"""FID of two folders, end to end, beside clean-fid and torch-fidelity: same images, same weights, one run.

    python benchmarks/fid.py FOLDER [--images 500] [--size 512] [--rounds 3] [--threads 2]
                             [--only ours clean-fid torch-fidelity]

FOLDER holds any images, at least one. Each set has as many squares as asked for, cut from them at seeded places, and
stored as PNG; the second set is the first through JPEG. Weights are random ones of the real network, written once as
``.pth`` and loaded by all, so no download is needed and the times are those of the real thing.

Each contestant reads both folders, and computes features and the distance, in batches of 16. rdpbench does so under
both presets, ``legacy-tf`` against torch-fidelity and ``clean`` against clean-fid, as its runs do: in as many worker
processes of one thread as the others have threads. Its time outside the network's forward pass is everything that the
workers did not spend in it, their waiting for each other and for the distance included. clean-fid's own file of weights
is a TorchScript program under another licence; it is given torch-fidelity's class instead, which computes the same. The
others run in this process. All take turns; medians over the rounds are printed. Use a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import multiprocessing
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from rdpbench.image import EXTENSIONS, Image, read_image
from rdpbench.metrics.inception_distances import BATCH, METRICS
from rdpbench.networks import inception
from rdpbench.runners.pool import set_up


def cut_images(source: Path, root: Path, count: int, size: int) -> tuple[Path, Path]:
    """Two folders of ``count`` squares: cut from the images of ``source``, and the same through JPEG."""
    from PIL import Image as pil

    paths = sorted(path for path in source.iterdir() if path.suffix.lower() in EXTENSIONS)
    if not paths:
        sys.exit(f"no images in {source}")
    images = [read_image(path).pixels for path in paths[: min(count, 50)]]
    folders = root / "reference", root / "distorted"
    for folder in folders:
        folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        image = images[number % len(images)]
        repeats = [-(-size // side) for side in image.shape[:2]]
        image = np.tile(image, (*repeats, 1))
        top, left = (int(rng.integers(0, side - size + 1)) for side in image.shape[:2])
        square = pil.fromarray(image[top : top + size, left : left + size])
        square.save(folders[0] / f"{number:05}.png", compress_level=6)
        stream = io.BytesIO()
        square.save(stream, "JPEG", quality=20)
        pil.open(stream).save(folders[1] / f"{number:05}.png", compress_level=6)
    return folders


def random_weights(path: Path) -> None:
    """A file of random numbers under the names of the published one, such that features stay near 1."""
    import torch
    from torchvision.models import inception_v3

    torch.manual_seed(0)
    network = inception_v3(weights=None, num_classes=1008, aux_logits=False, init_weights=False)
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
    torch.save(network.state_dict(), path)


PRESETS = {preset: METRICS[f"fid/{preset}"] for preset in ("legacy-tf", "clean")}
PARTS = ("loading", "resizing and the rest", "forward")


class Ours:
    """rdpbench under one preset, in worker processes."""

    def __init__(self, preset: str, pool: ProcessPoolExecutor, workers: int) -> None:
        self.preset, self.pool, self.workers = preset, pool, workers
        self.parts: dict[str, float] = {}
        """Seconds of each part, of all workers together over their number."""

    def __call__(self, folders: tuple[Path, ...]) -> float:
        sets = [sorted(folder.iterdir()) for folder in folders]
        shards = [(self.preset, paths[n :: self.workers]) for paths in sets for n in range(self.workers)]
        done = list(self.pool.map(extract_shard, *zip(*shards, strict=True)))
        self.parts = {part: sum(spent[part] for _, spent in done) / self.workers for part in PARTS}
        arrays = [array for array, _ in done]
        start = time.perf_counter()
        sides = (chain(*arrays[: self.workers]), chain(*arrays[self.workers :]))
        value = PRESETS[self.preset]().reduce(*map(list, sides)).value
        self.parts["distance"] = time.perf_counter() - start
        return float(value)


_features: dict[str, Any] = {}
"""A worker's networks, by preset."""


def start_worker(weights: Path) -> None:
    """Set a worker up as those of a run are."""
    import torch

    set_up()
    tensors = torch.load(weights, weights_only=True)
    for preset, metric in PRESETS.items():
        _features[preset] = metric.features(tensors)


def extract_shard(preset: str, paths: list[Path]) -> tuple[list[Any], dict[str, float]]:
    """Arrays of some files, and what they took."""
    spent, found = dict.fromkeys(PARTS, 0.0), []
    real = inception.pool3

    def timed_pool3(*given: Any) -> Any:
        start = time.perf_counter()
        done = real(*given)
        spent["forward"] += time.perf_counter() - start
        return done

    inception.pool3 = timed_pool3
    try:
        for begin in range(0, len(paths), BATCH):
            start = time.perf_counter()
            images: list[Image] = [read_image(path).pixels for path in paths[begin : begin + BATCH]]
            spent["loading"] += time.perf_counter() - start
            start, forward = time.perf_counter(), spent["forward"]
            found += _features[preset].extract(images)
            spent["resizing and the rest"] += time.perf_counter() - start - (spent["forward"] - forward)
    finally:
        inception.pool3 = real
    return found, spent


def torch_fidelity(weights: Path) -> Callable[[tuple[Path, ...]], float]:
    """Its own entry point."""
    import torch_fidelity as library

    def run(folders: tuple[Path, ...]) -> float:
        found = library.calculate_metrics(
            input1=str(folders[0]), input2=str(folders[1]), fid=True, cuda=False, verbose=False, batch_size=BATCH,
            feature_extractor_weights_path=str(weights), datasets_num_workers=0, cache=False, save_cpu_ram=True,
        )  # fmt: skip
        return float(found["frechet_inception_distance"])

    return run


def clean_fid(weights: Path) -> Callable[[tuple[Path, ...]], float]:
    """Its folder loop, resize and distance, around torch-fidelity's network."""
    import torch
    from cleanfid import fid
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    network = FeatureExtractorInceptionV3("x", ["2048"], feature_extractor_weights_path=str(weights))

    def forward(images: Any) -> Any:
        with torch.no_grad():
            return inception.pool3(network, (images - 128) / 128)

    def run(folders: tuple[Path, ...]) -> float:
        sets = [
            fid.get_folder_features(
                str(folder), forward, num_workers=0, batch_size=BATCH, device=torch.device("cpu"), verbose=False
            )
            for folder in folders
        ]
        return float(fid.fid_from_feats(*sets))

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--threads", type=int, default=0, help="of torch; by default as many as it takes")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", nargs="+", default=["ours", "clean-fid", "torch-fidelity"])
    options = parser.parse_args()

    import torch

    warnings.simplefilter("ignore")  # of the libraries that are measured
    if options.threads:
        torch.set_num_threads(options.threads)
    workers = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as stack:
        root = Path(temporary)
        folders = cut_images(options.folder, root, options.images, options.size)
        weights = root / "random.pth"
        random_weights(weights)
        first = tuple(root / f"warm-up-{folder.name}" for folder in folders)
        for folder, source in zip(first, folders, strict=True):
            folder.mkdir()
            for path in sorted(source.iterdir())[:2]:
                (folder / path.name).write_bytes(path.read_bytes())
        contestants: dict[str, Callable[[tuple[Path, ...]], float]] = {}
        if "ours" in options.only:
            context = multiprocessing.get_context("spawn")
            pool = stack.enter_context(ProcessPoolExecutor(workers, context, start_worker, (weights,)))
            contestants["rdpbench fid/legacy-tf"] = Ours("legacy-tf", pool, workers)
        if "torch-fidelity" in options.only:
            contestants["torch-fidelity"] = torch_fidelity(weights)
        if "ours" in options.only:
            contestants["rdpbench fid/clean"] = Ours("clean", pool, workers)
        if "clean-fid" in options.only:
            contestants["clean-fid"] = clean_fid(weights)
        print(f"{options.images} + {options.images} images of {options.size} x {options.size}", end=", ")
        print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
        measure(contestants, first, folders, options.rounds)


def measure(
    contestants: dict[str, Callable[[tuple[Path, ...]], float]],
    first: tuple[Path, ...],
    folders: tuple[Path, ...],
    rounds: int,
) -> None:
    """Print value and median wall time of each, and where rdpbench's time went; they take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    outside: dict[str, list[float]] = {name: [] for name in contestants}
    values: dict[str, float] = {}
    for run in contestants.values():
        if isinstance(run, Ours):
            run(first)  # the others' distance of 2 images would take a minute
    for _ in range(rounds):
        for name, run in contestants.items():
            start = time.perf_counter()
            values[name] = run(folders)
            seconds[name].append(time.perf_counter() - start)
            if isinstance(run, Ours):
                outside[name].append(100 * (1 - run.parts["forward"] / seconds[name][-1]))
                parts = ", ".join(f"{part} {value:.2f} s" for part, value in run.parts.items())
                print(f"    {name}: {parts}", flush=True)
    for name, times in seconds.items():
        share = f"  outside the forward pass {statistics.median(outside[name]):.1f} %" if outside[name] else ""
        print(f"{name:24} FID {values[name]:.6f}  {statistics.median(times):8.1f} s{share}", flush=True)


if __name__ == "__main__":
    main()

"""rdpbench's learned codecs at batch 1 and in batches, beside the loop that publications run: CompressAI's own.

    python benchmarks/throughput.py [--codec mbt2018-mean elic ...] [--quality 3] [--images 8] [--size 512 768]
                                    [--batch 1 4] [--rounds 3] [--threads 1] [--device cpu] [--clock wall]
                                    [--tiny]

Same images (squares and rectangles cut from the embedded samples), same random weights at full width (``--tiny``: at a
tiny one), one process. The reference loop takes one image after the other: to a tensor, padded to multiples of 64,
``model.compress``, the bytes of the strings added up, ``model.decompress``, cut, clamped, rounded to 8 bits. rdpbench
encodes to bytes with their container and decodes from these; that is what a run does for each image, without scores
and store. All networks are CompressAI's classes, so that what differs is what is around them. The process keeps its
memory, as a run's workers do: that serves all contestants.

The contestants take turns, forwards in one round and backwards in the next; medians of seconds per image are printed,
and ratios of medians: above 1 is faster than CompressAI. ``symbols`` says for how many images the batch wrote the very
bytes of batch 1, ``pixels`` how far its images are from those decoded alone. Use a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rdpbench import registry
from rdpbench.codecs.contract import Side
from rdpbench.codecs.learned.systems import to_images, to_planes
from rdpbench.datasets.folder import Samples
from rdpbench.image import Image, read_image
from rdpbench.runners.pool import reuse_memory
from rdpbench.runners.worker import synchronise

CODECS = ("bmshj2018-hyperprior", "mbt2018-mean", "mbt2018", "cheng2020-anchor", "elic")
"""Those whose network CompressAI has, each with another way of coding."""


def cut_images(count: int, height: int, width: int) -> list[Image]:
    """Pieces of the embedded photographs, mirrored where they are too small."""
    sources = [read_image(sample.path).pixels for sample in Samples(tag="photo").samples()]
    found = []
    for number in range(count):
        source = sources[number % len(sources)]
        margins = [(0, max(0, need - side)) for need, side in zip((height, width), source.shape[:2], strict=True)]
        source = np.pad(source, (*margins, (0, 0)), mode="symmetric")
        top, left = (number * 37) % (source.shape[0] - height + 1), (number * 53) % (source.shape[1] - width + 1)
        found.append(np.ascontiguousarray(source[top : top + height, left : left + width]))
    return found


@dataclass
class Contestant:
    """A way to code all images, and what it took."""

    name: str
    encode: Callable[[Sequence[Image]], list[Any]]
    decode: Callable[[list[Any]], list[Image]]
    size: Callable[[Any], int]
    clock: Callable[[], float] = time.perf_counter
    encode_s: list[float] = field(default_factory=list)
    decode_s: list[float] = field(default_factory=list)
    made: list[Any] = field(default_factory=list)
    images: list[Image] = field(default_factory=list)

    def run(self, images: Sequence[Image], *, timed: bool) -> None:
        """Code all images once."""
        synchronise()
        start = self.clock()
        self.made = self.encode(images)
        synchronise()
        middle = self.clock()
        self.images = self.decode(self.made)
        synchronise()
        if timed:
            self.encode_s.append((middle - start) / len(images))
            self.decode_s.append((self.clock() - middle) / len(images))


def ours(codec: Any, batch: int) -> Contestant:
    """rdpbench's codec, so many images at a time."""

    def encode(images: Sequence[Image]) -> list[Any]:
        if batch == 1:
            return [codec.encode(image, Side()).data for image in images]
        parts = [images[at : at + batch] for at in range(0, len(images), batch)]
        return [one.data for part in parts for one in codec.encode_batch(part, [Side()] * len(part))]

    def decode(datas: list[Any]) -> list[Image]:
        if batch == 1:
            return [codec.decode(data) for data in datas]
        return [one for at in range(0, len(datas), batch) for one in codec.decode_batch(datas[at : at + batch])]

    return Contestant(f"rdpbench, batch {batch}", encode, decode, len)


def reference(net: Any, device: str) -> Contestant:
    """CompressAI's compress and decompress, with the padding of its evaluation script."""
    import torch
    from torch.nn import functional

    net = net.to(device)

    def encode(images: Sequence[Image]) -> list[Any]:
        made = []
        with torch.no_grad():
            for image in images:
                planes = to_planes([image], device, torch.float32)
                height, width = planes.shape[2:]
                padded = functional.pad(planes, (0, -width % 64, 0, -height % 64))
                made.append((net.compress(padded), height, width))
        return made

    def decode(made: list[Any]) -> list[Image]:
        images = []
        with torch.no_grad():
            for found, height, width in made:
                planes = net.decompress(found["strings"], found["shape"])["x_hat"]
                images += to_images(planes[:, :, :height, :width])
        return images

    return Contestant("CompressAI's loop", encode, decode, lambda one: _length(one[0]["strings"]))


def _length(strings: Any) -> int:
    """Bytes of nested lists of strings: ELIC's are one list deeper."""
    return len(strings) if isinstance(strings, bytes) else sum(map(_length, strings))


def compare(name: str, images: Sequence[Image], options: argparse.Namespace) -> list[str]:
    """Run the contestants on one codec; lines of the table."""
    import torch

    codec: Any = registry.load("codec", name)(
        quality=options.quality, weights="random" if options.tiny else "random-full", device=options.device
    )
    # The codec's own network is taken over by it: masked, moved. CompressAI gets the same one, drawn again.
    net = deepcopy(codec.make().net).float()
    net.update(force=True)
    contestants = [reference(net, options.device), *(ours(codec, batch) for batch in options.batch)]
    for one in contestants:
        one.clock = time.process_time if options.clock == "cpu" else time.perf_counter
    codec.ready()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the library that is measured
        for turn in range(options.rounds + 1):
            for contestant in contestants if turn % 2 else contestants[::-1]:
                contestant.run(images[: max(options.batch)] if not turn else images, timed=turn > 0)
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    return [_line(name, one, contestants, images) for one in contestants]


def _line(name: str, one: Contestant, contestants: Sequence[Contestant], images: Sequence[Image]) -> str:
    theirs, alone = contestants[0], next((c for c in contestants if c.name.endswith("batch 1")), contestants[1])
    encode, decode = statistics.median(one.encode_s), statistics.median(one.decode_s)
    ratios = [
        statistics.median(before) / after
        for before, after in ((theirs.encode_s, encode), (theirs.decode_s, decode))
    ]  # fmt: skip
    pixels = sum(image.shape[0] * image.shape[1] for image in images)
    bpp = 8 * sum(map(one.size, one.made)) / pixels
    symbols = differ = "–"
    if one not in (theirs, alone):
        symbols = f"{sum(a == b for a, b in zip(one.made, alone.made, strict=True))} of {len(images)}"
        far = max(int(np.abs(a.astype(int) - b).max()) for a, b in zip(one.images, alone.images, strict=True))
        differ = f"≤ {far}"
    cells = [name, one.name, f"{encode:.3f}", f"{decode:.3f}", *(f"{ratio:.2f}" for ratio in ratios), f"{bpp:.2f}"]
    return "| " + " | ".join([*cells, symbols, differ]) + " |"


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--codec", nargs="+", choices=CODECS, default=list(CODECS))
    parser.add_argument("--quality", type=int, default=3)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--size", type=int, nargs=2, default=(512, 768), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of torch; a worker has one")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: where other work runs, too")
    parser.add_argument("--tiny", action="store_true", help="tiny networks: to try the script")
    options = parser.parse_args()
    if min(*options.batch, options.images, options.rounds, *options.size) < 1:
        parser.error("numbers of images, rounds and pixels are whole numbers from 1")

    import torch

    reuse_memory()
    torch.set_num_threads(options.threads)
    images = cut_images(options.images, *options.size)
    where = (
        torch.cuda.get_device_name(options.device) if options.device != "cpu" else f"CPU, threads: {options.threads}"
    )
    weights = "random weights at a tiny width" if options.tiny else "random weights"
    clock = "CPU time" if options.clock == "cpu" else "wall time"
    height, width = options.size
    print(f"{len(images)} images of {height} x {width}, quality {options.quality}, {weights}, {clock}, ", end="")
    print(f"{options.rounds} rounds, {where}, torch {torch.__version__}, load average {os.getloadavg()[0]:.2f}\n")
    print("| codec | way | encode, s per image | decode, s | encode, times CompressAI | decode, times | bpp", end="")
    print(" | symbols as alone | pixels as alone |\n| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name in options.codec:
        for line in compare(name, images, options):
            print(line, flush=True)
        print(f"{name} is done", file=sys.stderr)


if __name__ == "__main__":
    main()

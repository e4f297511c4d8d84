"""How fast images are read, beside a bare Pillow loop over the same files, and in how much memory.

    python benchmarks/loading.py FOLDER_OF_IMAGES [--rounds 5] [--samples 30000]

The contestants take turns, forwards in one round and backwards in the next, so that a drifting machine is fair to all;
medians over the rounds are printed. All read the files from the page cache.

``bare``          open, convert to RGB, numpy: what a loop of one's own would do
``read``          `load_under`: the same with all checks (deep colours, alpha, animations, damage)
``ahead``         the same through `ahead` with one thread
``ahead 2``       with two threads
``processes``     two worker processes, each with `ahead`, as a sweep over two workers reads
``index, new``    size and pixel hash of every image, nothing remembered: before the first sweep, once
``index, known``  the same when remembered: before every other sweep

``--busy`` gives each loop's consumer as much to do per image as reading it takes, in native code that lets other
threads run: what `ahead` is for.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image as pil

from rdpbench.datasets.contract import Sample
from rdpbench.datasets.folder import ImageFolder
from rdpbench.datasets.index import ahead, index
from rdpbench.datasets.protocols import load_under
from rdpbench.image import Image
from rdpbench.needs import Need

Consumer = Callable[[Image], object]


def bare(path: Path) -> Image:
    """What the others are held against."""
    with pil.open(path) as opened:
        return np.asarray(opened.convert("RGB"))


def read(path: Path) -> Image:
    """As the workers read."""
    return load_under("as-is", path).pixels


def consume(images: Iterable[Image], consumer: Consumer) -> None:
    for image in images:
        consumer(image)


def share(paths: list[Path]) -> None:
    """The part of one worker process; it gives nothing back, as pixels are used where they were read."""
    consume(ahead(paths, read), len)


def processes(paths: list[Path], pool: object) -> None:
    assert hasattr(pool, "map")
    pool.map(share, [paths[start : start + 8] for start in range(0, len(paths), 8)], chunksize=1)


def fresh_index(folder: ImageFolder) -> None:
    with tempfile.TemporaryDirectory() as cache:
        os.environ["RDPBENCH_CACHE"] = cache
        index(folder)


def known_index(folder: ImageFolder, cache: str) -> None:
    os.environ["RDPBENCH_CACHE"] = cache
    index(folder)


def seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def busy_consumer(paths: list[Path]) -> Consumer:
    """Work of about the time that reading takes, which runs beside other threads as an encoder does."""
    image_s = seconds(lambda: consume(map(read, paths), len)) / len(paths)
    sample = np.random.default_rng(0).integers(0, 256, 1 << 20, np.uint8).tobytes()
    byte_s = seconds(lambda: zlib.compress(sample, 1)) / len(sample)
    work = sample[: max(1, round(image_s / byte_s))]
    return lambda _: zlib.compress(work, 1)


def compare(contestants: dict[str, Callable[[], object]], images: int, rounds: int) -> None:
    """Run all in turn and print medians."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for run in contestants.values():
        run()  # files and code are in memory from here on
    for number in range(rounds):
        for name in list(contestants)[:: -1 if number % 2 else 1]:
            times[name].append(seconds(contestants[name]))
    print(f"{'':<14} {'images/s':>9} {'speed':>7}   spread of seconds")
    base = statistics.median(next(iter(times.values())))
    for name, took in times.items():
        middle = statistics.median(took)
        print(f"{name:<14} {images / middle:>9.1f} {base / middle:>7.2f}   {min(took):.2f} to {max(took):.2f}")


@dataclass(frozen=True)
class Cycle:
    """A few files over and over, under ever new ids: as many samples as the largest sets have, on little disk."""

    folder: Path
    count: int
    name: str = "cycle"
    protocol: str = "as-is"
    needs: ClassVar[tuple[Need, ...]] = ()

    def samples(self) -> Iterator[Sample]:
        """Yield the samples; none is kept."""
        files = cycle(sorted(self.folder.iterdir()))
        for number, path in enumerate(islice(files, self.count)):
            yield Sample(f"{number:06}", path)

    def __len__(self) -> int:
        return self.count


def resident_mb() -> float:
    """Memory of this process now; Linux only."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def memory(count: int) -> None:
    """Resident memory while ``count`` samples are read, and while they are indexed."""
    with tempfile.TemporaryDirectory() as folder:
        rng = np.random.default_rng(0)
        for number in range(8):
            pil.fromarray(rng.integers(0, 256, (128, 128, 3), np.uint8)).save(Path(folder) / f"{number}.png")
        dataset = Cycle(Path(folder), count)
        before = 0.0
        for done, _ in enumerate(ahead((sample.path for sample in dataset.samples()), read), 1):
            if done == count // 10:
                before = resident_mb()
        after = resident_mb()
        print(
            f"\nread {count} samples: {before:.1f} MB at a tenth, {after:.1f} MB at the end, {after - before:+.1f} MB"
        )
        os.environ["RDPBENCH_CACHE"] = folder + "/cache"
        kept = index(dataset)
        print(f"index of {len(kept)} samples: {resident_mb() - after:+.1f} MB while it is held")


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("folder")
    asked.add_argument("--rounds", type=int, default=5)
    asked.add_argument("--samples", type=int, default=30_000)
    asked.add_argument("--busy", action="store_true")
    given = asked.parse_args()
    folder = ImageFolder(given.folder)
    paths = [sample.path for sample in folder.samples()]
    pixels = sum(read(path).size // 3 for path in paths)
    print(f"{len(paths)} images, {pixels / len(paths) / 1e6:.2f} megapixels on average, {given.rounds} rounds")
    consumer = busy_consumer(paths) if given.busy else len
    contestants: dict[str, Callable[[], object]] = {
        "bare": lambda: consume(map(bare, paths), consumer),
        "read": lambda: consume(map(read, paths), consumer),
        "ahead": lambda: consume(ahead(paths, read), consumer),
        "ahead 2": lambda: consume(ahead(paths, read, threads=2), consumer),
    }
    if given.busy:
        compare(contestants, len(paths), given.rounds)
        return
    memory(given.samples)
    with tempfile.TemporaryDirectory() as cache, multiprocessing.get_context("forkserver").Pool(2) as pool:
        contestants["processes"] = partial(processes, paths, pool)
        contestants["index, new"] = partial(fresh_index, folder)
        contestants["index, known"] = partial(known_index, folder, cache)
        compare(contestants, len(paths), given.rounds)


if __name__ == "__main__":
    main()

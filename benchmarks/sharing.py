"""What the queue costs, and what a second worker brings; beside another checkout, in turns, since machines are shared.

    python benchmarks/sharing.py [CHECKOUT] [--turns 5]

Prints medians over the turns: CPU seconds per task in one process beyond a run of a few tasks, wall seconds with one
and two workers, and each as a ratio to the other checkout.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).parents[1]
WORDS = ("run", "metrics=psnr", "figures=false", "verify=0")


def images(folder: Path, count: int, size: tuple[int, int]) -> str:
    rng = np.random.default_rng(0)
    folder.mkdir()
    for number in range(count):
        noise = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
        noise.resize(size, Image.Resampling.BICUBIC).save(folder / f"{number:05}.png")
    return f"data=folder:{folder}"


def seconds(tree: Path, base: Path, *words: str) -> tuple[float, float]:
    """CPU and wall seconds of a command in a new folder."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "RDPBENCH_CACHE": str(base / "cache")}
    with tempfile.TemporaryDirectory(dir=base) as folder:
        before, started = os.times(), time.perf_counter()
        line = [sys.executable, "-m", "rdpbench", *WORDS, *words]
        subprocess.run(line, cwd=folder, env=environment, check=True, capture_output=True)
        after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return cpu, time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", nargs="?", type=Path)
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    trees = {"here": HERE, **({"there": options.checkout.resolve()} if options.checkout else {})}
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        few, many = images(base / "few", 4, (32, 32)), images(base / "many", 600, (32, 32))
        large = images(base / "large", 24, (768, 512))
        taken: dict[str, dict[str, list[float]]] = {tree: {} for tree in trees}
        for _ in range(options.turns):
            for tree, path in trees.items():
                small = ("codec=jpeg", "rate=30", "workers=0")
                start = seconds(path, base, *small, few)
                all_of_them = seconds(path, base, *small, many)
                heavy = ("codec=jpegxl", "rate=1", large)
                one, two = (seconds(path, base, *heavy, f"workers={count}")[1] for count in (1, 2))
                quick = seconds(path, base, "codec=jpeg,webp", few, "workers=2")
                for what, value in {
                    "ms per task, CPU, in process": 1000 * (all_of_them[0] - start[0]) / 596,
                    "small run, CPU s": quick[0],
                    "small run, wall s": quick[1],
                    "one worker, wall s": one,
                    "two workers, wall s": two,
                    "efficiency of two": one / two / 2,
                }.items():
                    taken[tree].setdefault(what, []).append(value)
    for what in taken["here"]:
        medians = {tree: statistics.median(values[what]) for tree, values in taken.items()}
        ratio = f"  ratio {medians['here'] / medians['there']:.2f}" if "there" in medians else ""
        print(f"{what:32}" + "".join(f"{tree} {value:8.3f}  " for tree, value in medians.items()) + ratio)


if __name__ == "__main__":
    main()

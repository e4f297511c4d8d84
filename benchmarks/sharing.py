"""What rdpbench's own work costs, and what a second worker brings; beside another checkout, in turns.

    python benchmarks/sharing.py [CHECKOUT] [--turns 5]

Prints medians over the turns, and each as a ratio to the other checkout. CPU time per task in one process is that of a
run of many images beyond a run of four, so that start and end do not count; *own* is what a loop does not take that
only reads with Pillow, encodes, decodes and scores with the same classes. Then CPU and wall seconds of small commands,
and wall seconds of 24 photographs with one worker and with two.
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
RUN = ("-m", "rdpbench", "run", "metrics=psnr", "figures=false", "verify=0")


def images(folder: Path, count: int, size: tuple[int, int]) -> str:
    rng = np.random.default_rng(0)
    folder.mkdir()
    for number in range(count):
        noise = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
        noise.resize(size, Image.Resampling.BICUBIC).save(folder / f"{number:05}.png")
    return f"data=folder:{folder}"


def bare(folder: Path) -> None:
    """The loop without us."""
    from rdpbench import registry
    from rdpbench.codecs.contract import Side

    jpeg, psnr = registry.load("codec", "jpeg"), registry.load("metric", "psnr")()
    for path in sorted(folder.iterdir()):
        with Image.open(path) as opened:
            pixels = np.array(opened.convert("RGB"))
        data = jpeg(quality=30).encode(pixels, Side()).data
        psnr.score(pixels, jpeg(quality=30).decode(data))


def seconds(tree: Path, base: Path, *words: str) -> tuple[float, float]:
    """CPU and wall seconds of a Python command in a new folder."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "RDPBENCH_CACHE": str(base / "cache")}
    with tempfile.TemporaryDirectory(dir=base) as folder:
        before, started = os.times(), time.perf_counter()
        subprocess.run([sys.executable, *words], cwd=folder, env=environment, check=True, capture_output=True)
        after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return cpu, time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", nargs="?", type=Path)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--bare", action="store_true", help="the loop alone, over the folder in the checkout's place")
    options = parser.parse_args()
    if options.bare:
        return bare(options.checkout)
    trees = {"here": HERE, **({"there": options.checkout.resolve()} if options.checkout else {})}
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        sets = {"64 x 64": (600, (64, 64)), "768 x 512": (104, (768, 512))}
        many = {size: images(base / f"many {size}", *made) for size, made in sets.items()}
        few = {size: images(base / f"few {size}", 4, side) for size, (_, side) in sets.items()}
        large = images(base / "large", 24, (768, 512))
        taken: dict[str, dict[str, list[float]]] = {tree: {} for tree in trees}
        for tree, path in list(trees.items()) * options.turns:
            found: dict[str, float] = {}
            for size, (count, _) in sets.items():
                ways = {"run": (*RUN, "codec=jpeg", "rate=30", "workers=0"), "bare": (__file__, "--bare")}
                of_way = {}
                for way, words in ways.items():
                    places = [data if way == "run" else data.partition(":")[2] for data in (few[size], many[size])]
                    start, end = (seconds(path, base, *words, place)[0] for place in places)
                    of_way[way] = 1000 * (end - start) / (count - 4)
                found[f"ms per task of {size}"] = of_way["run"]
                found[f"ms of these, own, {size}"] = of_way["run"] - of_way["bare"]
            small = ("-m", "rdpbench", "--help"), ("-m", "rdpbench", "plan", "codec=jpeg", few["64 x 64"])
            run = (*RUN, "codec=jpeg,webp", few["64 x 64"], "workers=2")
            for what, words in zip(("help", "plan", "small run"), (*small, run), strict=True):
                found[f"{what}, CPU s"], found[f"{what}, wall s"] = seconds(path, base, *words)
            heavy = (*RUN, "codec=jpegxl", "rate=1", large)
            one, two = (seconds(path, base, *heavy, f"workers={count}")[1] for count in (1, 2))
            found |= {"one worker, wall s": one, "two workers, wall s": two, "efficiency of two": one / two / 2}
            for what, value in found.items():
                taken[tree].setdefault(what, []).append(value)
    for what in taken["here"]:
        medians = {tree: statistics.median(values[what]) for tree, values in taken.items()}
        ratio = f"  ratio {medians['here'] / medians['there']:.2f}" if "there" in medians else ""
        print(f"{what:32}" + "".join(f"{tree} {value:8.3f}  " for tree, value in medians.items()) + ratio)
    return None


if __name__ == "__main__":
    main()

"""rdpbench beside CompressAI's own ``compressai.utils.bench`` and beside a bare loop, in one run on one machine.

    python benchmarks/compare_compressai.py KODAK_FOLDER [--codec jpeg|webp|bpg] [--rounds 3]

Same images, codec, qualities and metrics (PSNR and MS-SSIM). Every wall time is that of a whole process: start-up,
reading, coding, scoring and storing are in it; rdpbench's figures are timed apart. The contestants take turns, so that
a drifting machine is fair to all; medians over the rounds are printed, and ratios of medians.

``--dense`` takes five times as many qualities: what a command costs once fades, what a task costs stays. The cost of a
task alone is the difference of both sweeps over the difference of their tasks.

CompressAI is run at its settings ``-j 1``, ``-j 2`` and ``-j 2`` with one thread each. The bare loop uses rdpbench's
codec and metric classes and as many worker processes, and does nothing else: no plan, no store, no hashes. With
``--codec jpeg`` a second one takes the libraries of CompressAI's benchmark, Pillow and pytorch-msssim.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

QUALITIES = {"jpeg": list(range(5, 100, 5)), "webp": list(range(5, 100, 5)), "bpg": [47, 42, 37, 32, 27, 22, 17, 12]}


def rdpbench(codec: str, folder: Path, root: str, workers: int, *extra: str) -> list[str]:
    """The command of a run on an empty store."""
    rates = ",".join(map(str, QUALITIES[codec]))
    line = [sys.executable, "-m", "rdpbench", "run", f"codec={codec}", f"rate={rates}", f"data=folder:{folder}"]
    return [*line, "metrics=psnr,ms-ssim", f"root={root}", "run=timed", f"workers={workers}", "figures=false", *extra]


def compressai(codec: str, folder: Path, jobs: int) -> list[str]:
    """The command of CompressAI's benchmark."""
    rates = ",".join(map(str, QUALITIES[codec]))
    line = [sys.executable, "-W", "ignore", "-m", "compressai.utils.bench", codec, str(folder), "-q", rates]
    return [*line, "--metrics", "psnr-rgb", "ms-ssim-rgb", "-j", str(jobs)]


def bare(codec: str, folder: Path, workers: int) -> None:
    """The bare loop: each image is read once and coded and scored at every quality, over worker processes."""
    paths = sorted(folder.glob("*.png"))
    with multiprocessing.get_context("fork").Pool(workers) as pool:
        scores = pool.starmap(_bare_image, [(codec, path) for path in paths], chunksize=1)
    print(sum(map(len, scores)), "pairs scored")


def _bare_image(codec: str, path: Path) -> list[tuple[float, float, float]]:
    from rdpbench import registry
    from rdpbench.codecs.contract import Side
    from rdpbench.image import read_image
    from rdpbench.results.store.keys import build
    from rdpbench.setting import CodecSetting

    original = read_image(path).pixels
    metrics = [registry.load("metric", name)() for name in ("psnr", "ms-ssim")]
    prepared = [metric.prepare(original) for metric in metrics]
    out = []
    for rate in QUALITIES[codec]:
        coder = build(CodecSetting(codec, codec, (), ()), rate)
        data = coder.encode(original, Side()).data
        decoded = coder.decode(data)
        psnr, msssim = (metric.score(ready, decoded) for metric, ready in zip(metrics, prepared, strict=True))
        out.append((8 * len(data) / original.shape[0] / original.shape[1], psnr, msssim))
    return out


def bare_with_libraries(folder: Path, workers: int) -> None:
    """The same for JPEG, with nothing of rdpbench: Pillow and pytorch-msssim."""
    with multiprocessing.get_context("fork").Pool(workers) as pool:
        scores = pool.map(_bare_jpeg, sorted(folder.glob("*.png")), chunksize=1)
    print(sum(map(len, scores)), "pairs scored")


def _bare_jpeg(path: Path) -> list[tuple[float, float, float]]:
    import io

    import numpy as np
    import torch
    from PIL import Image as pil
    from pytorch_msssim import ms_ssim

    torch.set_num_threads(1)
    image = pil.open(path).convert("RGB")
    original = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
    out = []
    for quality in QUALITIES["jpeg"]:
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=quality)
        decoded = torch.from_numpy(np.array(pil.open(stream).convert("RGB"))).permute(2, 0, 1)[None].float()
        psnr = 10 * math.log10(255**2 / float((original - decoded).square().mean()))
        msssim = float(ms_ssim(original, decoded, data_range=255))
        out.append((8 * stream.tell() / image.width / image.height, psnr, msssim))
    return out


def timed(line: list[str], **environment: str) -> float:
    """Wall seconds of a process that must succeed."""
    started = time.perf_counter()
    done = subprocess.run(line, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        sys.exit(f"{' '.join(line)}\nfailed with {done.returncode}:\n{done.stderr[-2000:]}")
    return seconds


def main() -> None:
    """Run the contestants in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the Kodak images")
    parser.add_argument("--codec", choices=sorted(QUALITIES), default="jpeg")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--skip", action="append", default=[], help="a contestant to leave out, by its name")
    parser.add_argument("--dense", action="store_true", help="every quality from 1 to 95 (jpeg, webp)")
    parser.add_argument("--bare", choices=["ours", "libraries"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    folder, codec, workers = options.folder.resolve(), options.codec, options.workers
    if options.dense:
        QUALITIES[codec] = list(range(1, 96))
    if options.bare == "libraries":
        bare_with_libraries(folder, workers)
        return
    if options.bare:
        bare(codec, folder, workers)
        return

    def fresh(*extra: str) -> float:
        with tempfile.TemporaryDirectory() as root:
            return timed(rdpbench(codec, folder, root, workers, *extra))

    def figures() -> float:
        with tempfile.TemporaryDirectory() as root:
            timed(rdpbench(codec, folder, root, workers))
            return timed([sys.executable, "-m", "rdpbench", "show", "timed", "--root", root])

    loop = [sys.executable, __file__, str(folder), "--codec", codec, "--workers", str(workers)]
    loop += ["--dense"] if options.dense else []
    contestants: dict[str, Callable[[], float]] = {
        "rdpbench": fresh,
        "rdpbench, verify=0": lambda: fresh("verify=0"),
        "bare loop": lambda: timed([*loop, "--bare", "ours"], OMP_NUM_THREADS="1"),
        "bare loop, pytorch-msssim": lambda: timed([*loop, "--bare", "libraries"], OMP_NUM_THREADS="1"),
        "compressai -j 1": lambda: timed(compressai(codec, folder, 1)),
        "compressai -j 2, one thread each": lambda: timed(compressai(codec, folder, 2), OMP_NUM_THREADS="1"),
        "compressai -j 2": lambda: timed(compressai(codec, folder, 2)),
    }
    if wrong := [name for name in options.skip if name not in contestants or name == "rdpbench"]:
        parser.error(f"--skip {wrong[0]!r}: contestants that can be left out are {', '.join(list(contestants)[1:])}")
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(options.rounds):
        for name, contestant in contestants.items():
            if name in options.skip or (codec != "jpeg" and name.endswith("pytorch-msssim")):
                continue
            if turn and name == "compressai -j 2":
                continue  # two processes of two threads each fight over two cores: many times slower, once is enough
            seconds[name].append(contestant())
            print(f"round {turn + 1}: {name}: {seconds[name][-1]:.2f} s", file=sys.stderr, flush=True)
    drawn = figures()
    ours = statistics.median(seconds["rdpbench"])
    print(f"\n{codec}, {len(QUALITIES[codec])} settings, {len(list(folder.glob('*.png')))} images, {workers} workers, ")
    print(f"{os.cpu_count()} cores, {options.rounds} rounds; load average now {os.getloadavg()[0]:.2f}\n")
    print("| contestant | median s | all s | rdpbench / it |\n| --- | ---: | --- | ---: |")
    for name, values in ((name, values) for name, values in seconds.items() if values):
        median = statistics.median(values)
        print(f"| {name} | {median:.2f} | {' '.join(f'{v:.2f}' for v in values)} | {ours / median:.2f} |")
    print(f"\nrdpbench's tables and figures from a finished store: {drawn:.2f} s")


if __name__ == "__main__":
    main()

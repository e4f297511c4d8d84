"""The Fréchet distance at d = 2048 beside scipy's matrix square root, and what KID and CMMD of 30,000 rows take.

    python benchmarks/frechet.py [--rounds 5] [--rows 30000] [--only speed|memory]

*Speed*: both ways take turns, so that a drifting machine is fair to both; ratios of medians are printed, of wall and of
CPU time. With 4,096 rows both start from the same moments. With 500 rows, where the covariances are singular, ours
starts from the rows, as it does in use, and scipy's still from moments that are there for free. With one thread
(OMP_NUM_THREADS=1) CPU time hardly depends on what else the machine does.

*Memory*: each statistic runs in a process of its own on two sets of float32 rows; the peak is that of the whole
process, with the rows (30,000 x 2048 twice are 492 MB) and Python.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

DIM = 2048
CLIP = 768
STATISTICS = ("rows only", "fid", "kid 100x1000", "kid full", "cmmd")


def features(rows: int, dim: int, seed: int) -> np.ndarray:
    """Sparse, positive, correlated rows, as pooled activations are; float32."""
    rng = np.random.default_rng(seed)
    mix = rng.standard_normal((64, dim), np.float32)
    out = np.empty((rows, dim), np.float32)
    for start in range(0, rows, 2048):
        block = out[start : start + 2048]
        hidden = rng.standard_normal((len(block), 64), np.float32)
        np.maximum(hidden @ mix / 8 + rng.standard_normal(block.shape, np.float32), 0, out=block)
    return out


def speed(rounds: int) -> None:
    """Seconds of both ways, and how far their values are apart."""
    from scipy import linalg

    from rdpbench.metrics.frechet import Moments, distance, distance_of_rows, moments

    def scipy_distance(first: Moments, second: Moments) -> float:
        gap, one, other = first.mean - second.mean, first.covariance(), second.covariance()
        root = linalg.sqrtm(one @ other)
        return float(gap @ gap + np.trace(one) + np.trace(other) - 2 * np.trace(root).real)

    for rows in (2 * DIM, 500):
        first, second = features(rows, DIM, 1), features(rows, DIM, 2)
        both = moments(first), moments(second)
        few = rows < DIM
        seconds = []
        # What is imported once is no part of a distance.
        distance(moments(first[:8, :4]), moments(second[:8, :4]))
        for _ in range(rounds):
            ours, value = timed(lambda: (distance_of_rows(first, second) if few else distance(*both)).value)  # noqa: B023
            theirs, expected = timed(lambda: scipy_distance(*both))  # noqa: B023
            seconds.append((*ours, *theirs))
            print(
                f"{rows} rows: rdpbench {ours[0]:.2f} s ({ours[1]:.2f} s of CPU), sqrtm {theirs[0]:.2f} s "
                f"({theirs[1]:.2f} s of CPU), relative difference {abs(value - expected) / expected:.1e}",
                flush=True,
            )
        wall, cpu, their_wall, their_cpu = (statistics.median(column) for column in zip(*seconds, strict=True))
        print(f"{rows} rows, ratio of medians: {their_wall / wall:.1f} wall, {their_cpu / cpu:.1f} CPU")


def timed(call: Callable[[], float]) -> tuple[tuple[float, float], float]:
    """Wall and CPU seconds, and the value."""
    wall, cpu = time.perf_counter(), time.process_time()
    value = call()
    return (time.perf_counter() - wall, time.process_time() - cpu), value


def measure(what: str, rows: int) -> None:
    """One statistic in this process; prints seconds, peak memory and the value as JSON."""
    from rdpbench.metrics import frechet, mmd

    dim = CLIP if what == "cmmd" else DIM
    first, second = features(rows, dim, 1), features(rows, dim, 2)
    if what == "cmmd":
        first /= np.linalg.norm(first, axis=1, keepdims=True)
        second /= np.linalg.norm(second, axis=1, keepdims=True)
    calls = {
        "rows only": lambda: 0.0,
        "fid": lambda: frechet.distance_of_rows(first, second).value,
        "kid 100x1000": lambda: mmd.kid(first, second).value,
        "kid full": lambda: mmd.polynomial_mmd(first, second),
        "cmmd": lambda: mmd.cmmd(first, second),
    }
    started = time.perf_counter()
    value = calls[what]()
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "peak": peak, "value": value}))


def memory(rows: int) -> None:
    """Each statistic in its own process."""
    for what in STATISTICS:
        line = [sys.executable, __file__, "--rows", str(rows), "--measure", what]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stderr[-2000:])
        found = json.loads(done.stdout)
        print(f"{what}: {found['seconds']:.1f} s, peak {found['peak']:.0f} MB, value {found['value']:.6g}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=30000)
    parser.add_argument("--only", choices=["speed", "memory"])
    parser.add_argument("--measure", choices=STATISTICS, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.measure:
        measure(chosen.measure, chosen.rows)
        return
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    if chosen.only != "memory":
        speed(chosen.rounds)
    if chosen.only != "speed":
        memory(chosen.rows)


if __name__ == "__main__":
    main()

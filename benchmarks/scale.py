"""How plan, resume, append, show and report grow with the tasks of a run: rows of the store's own writer, five metrics.

    python benchmarks/scale.py FOLDER --images 300 3000 30000

Of each number of images a run of ten codecs at eight rates is written, but for the last hundred tasks: images of
16 x 16 pixels, rows as a run writes them, with made-up values, and a small bitstream each. Then each command runs in a
process of its own: its seconds, those of its processors, and the most memory that it took. What is in FOLDER is kept.

Of more than `BY_WRITER` tasks the rows do not go through the store's writer, which takes a millisecond each, and
compaction another: the files that it would leave are written by the store's own functions, column by column.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from rdpbench.config.bench import read_bench
from rdpbench.results.store.bitstreams import _ENTRY
from rdpbench.results.store.columns import schema_of, write_table
from rdpbench.results.store.keys import definition, score_key
from rdpbench.results.store.schema import Score
from rdpbench.results.store.store import _ORDER, Store, _sorted
from rdpbench.runners.task import cells, new_row

CODECS = "jpeg,jpeg-444,mozjpeg,mozjpeg-444,webp,avif,avif-420,jpeg2000,jpegxl,heif"
METRICS = ("psnr", "psnr-pooled", "ms-ssim", "flip", "ssimulacra2")
BY_WRITER = 500_000
"""Tasks up to which rows are written line by line."""
LEFT = 100
"""Tasks that are left to do."""
AT_ONCE = 40_000
"""Rows that a part has when it is compacted."""


def pictures(folder: Path, count: int) -> Path:
    """A folder of images of noise."""
    place = folder / f"pictures-{count}"
    place.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(len(list(place.iterdir())), count):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(place / f"{number:06d}.png", compress_level=0)
    return place


def words(images: Path) -> list[str]:
    """What is typed."""
    return [
        f"codec={CODECS}",
        "points=8",
        f"data=folder:{images}",
        f"metrics={','.join(METRICS)}",
        f"run={images.name}",
    ]


def write(images: Path) -> tuple[int, float, float]:
    """Rows, scores and bitstreams of all tasks but the last; returns how many, and seconds of writing and merging."""
    bench = read_bench([*words(images), "figures=false"])
    store, number = Store(Path("results/runs") / images.name), 0
    rng = random.Random(1)  # noqa: S311 (no secret)
    writing = merging = 0.0
    every = list(cells(bench))
    total = sum(map(len, every)) - LEFT
    if store.exists():
        return total, 0.0, 0.0
    editions = {name: definition(name) for name in METRICS}
    writer, session = None, ""
    for cell in every:
        for entry in range(len(cell)):
            if number == total:
                break
            if number % AT_ONCE == 0:
                if writer:
                    writer.close()
                    started = time.perf_counter()
                    store.compact()
                    merging += time.perf_counter() - started
                    print(
                        f"{number} of {total} rows, {writing:.0f} s writing, {merging:.0f} s merging", file=sys.stderr
                    )
                session = store.new_session()
                writer = store.writer(session)
            started = time.perf_counter()
            task = cell.task(entry)
            data = rng.randbytes(40)
            row = replace(
                new_row(task, session, "cpu", status="ok"), bytes=len(data), bpp=8 * len(data) / 256,
                bitstream_sha256=store.bitstreams.put(data), reconstruction_sha256=rng.randbytes(32).hex(),
                verified="fresh_object", encode_s=0.01, decode_s=0.01, score_s=0.1,
            )  # fmt: skip
            scores = [
                vars(
                    Score(score_key(task.key, name), task.key, name, 30 + rng.random(), "", "", editions[name], session)
                )
                for name in METRICS
            ]
            assert writer is not None
            writer.append({"row": vars(row), "scores": scores})
            writing += time.perf_counter() - started
            number += 1
    assert writer is not None
    writer.close()
    started = time.perf_counter()
    store.compact()
    return total, writing, merging + time.perf_counter() - started


def hashes(rng: np.random.Generator, count: int) -> list[str]:
    """Texts that look like hashes."""
    text = rng.bytes(32 * count).hex()
    return [text[start : start + 64] for start in range(0, len(text), 64)]


def write_columns(images: Path) -> int:
    """The files that as many rows would leave; returns their number."""
    every = list(cells(read_bench([*words(images), "figures=false"])))
    store, total = Store(Path("results/runs") / images.name), sum(map(len, every)) - LEFT
    if store.exists():
        return total
    rng, lines, editions = np.random.default_rng(1), [], {name: definition(name) for name in METRICS}
    (store.folder / "segments").mkdir(parents=True)
    (store.bitstreams.folder / "packs").mkdir(parents=True)
    for start in range(0, len(every), 4):
        rows, scores, streams = [], [], []
        for cell in every[start : start + 4]:
            count = len(cell) - LEFT if cell is every[-1] else len(cell)
            data = [rng.bytes(40) for _ in range(count)]
            digests = [hashlib.sha256(stream).digest() for stream in data]
            streams += zip(digests, data, strict=True)
            template = replace(
                new_row(cell.task(0), "a", "cpu", status="ok"), bytes=40, bpp=1.25, verified="fresh_object",
                encode_s=0.01, decode_s=0.01, score_s=0.1,
            )  # fmt: skip
            own = {
                "task_key": cell.keys[:count],
                "image": [entry.sample.id for entry in cell.entries[:count]],
                "path": [entry.sample.path.name for entry in cell.entries[:count]],
                "pixel_sha256": [entry.sha256 for entry in cell.entries[:count]],
                "bitstream_sha256": [digest.hex() for digest in digests],
                "reconstruction_sha256": hashes(rng, count),
                "bpp": 1 + rng.random(count),
            }
            rows.append(columns("row", count, vars(template), own))
            keys = np.repeat(cell.keys[:count], len(METRICS)).tolist()
            of_scores = {
                "score_key": hashes(rng, len(keys)), "task_key": keys, "metric": [*METRICS] * count,
                "value": 30 + rng.random(len(keys)), "definition": [editions[name] for name in METRICS] * count,
            }  # fmt: skip
            plain = vars(Score("", "", "", 0.0, "", "", "", "a"))
            scores.append(columns("score", len(keys), plain, of_scores))
        first = 1 + 4 * start
        for kind, tables, order in (("row", rows, _ORDER["row"]), ("score", scores, _ORDER["score"])):
            name = f"segments/{kind}s-{first:06d}-{first + 15:06d}.parquet"
            write_table(_sorted(pa.concat_tables(tables), order), store.folder / name)
            lines.append((hashlib.sha256((store.folder / name).read_bytes()).hexdigest(), name))
        index = np.zeros(len(streams), _ENTRY)
        place = 0
        with (store.bitstreams.folder / "packs" / f"{first:06d}.bin").open("wb") as pack:
            for number, (digest, stream) in enumerate(sorted(streams)):
                index[number] = int.from_bytes(digest[:8]), digest[8:], place, len(stream)
                pack.write(stream)
                place += len(stream)
        np.save(store.bitstreams.folder / "packs" / f"{first:06d}.npy", index)
        print(f"{start + 4} of {len(every)} cells", file=sys.stderr)
    store._write_checksums(lines)
    return total


def columns(kind: str, count: int, plain: Mapping[str, Any], own: Mapping[str, Any]) -> pa.Table:
    """A table of records that differ in some columns."""
    schema = schema_of(kind)
    held = [
        pa.array(own[field.name], field.type)
        if field.name in own
        else pa.repeat(pa.scalar(plain[field.name], field.type), count)
        for field in schema
    ]
    return pa.Table.from_arrays(held, schema=schema)


USED = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:]).returncode
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print("USED", used.ru_utime + used.ru_stime, used.ru_maxrss, code)
"""


def measured(*line: str) -> tuple[float, float, float]:
    """Run a command; its seconds, those of its processors, and the most memory of one of its processes, in GB."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", USED, sys.executable, *line], capture_output=True, text=True, check=True
    )
    seconds = time.perf_counter() - started
    used = done.stdout[done.stdout.rindex("USED") :].split()
    if int(used[3]) not in (0, 1):
        sys.exit(done.stdout + done.stderr)
    return seconds, float(used[1]), int(used[2]) / 1e6


APPEND = """
import sys, time
from dataclasses import replace
from pathlib import Path
from rdpbench.results.store.store import Store
store = Store(Path(sys.argv[1]))
rows = store.read().of_kind("row")
new = [replace(row, task_key=f"{number:064x}", codec="appended") for number, row in enumerate(rows.at(range(1000)))]
started = time.perf_counter()
writer = store.writer(store.new_session())
for row in new:
    writer.append({"row": vars(row)})
writer.close()
store.compact()
print(time.perf_counter() - started, file=sys.stderr)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, nargs="+", default=[300, 3000, 30000])
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    os.chdir(options.folder)
    os.environ.setdefault("RDPBENCH_CACHE", str(Path("cache").absolute()))
    print("| tasks | | seconds | of processors | GB |\n| --- | --- | ---: | ---: | ---: |")
    for count in options.images:
        images = pictures(Path(), count)
        if 80 * count > BY_WRITER:
            total, writing, merging = write_columns(images), 0.0, 0.0
        else:
            total, writing, merging = write(images)
        run = Path("results/runs") / images.name
        files = sum(len(names) for _, _, names in os.walk(run))
        size = sum(path.stat().st_size for path in run.rglob("*") if path.is_file()) / 1e9
        print(f"| {total} | {files} files of {size:.2f} GB | | | |")
        if writing:
            print(f"| {total} | written | {writing:.0f} | | |")
            print(f"| {total} | compacted | {merging:.0f} | | |")
        commands = {
            "plan": ("-m", "rdpbench", "plan", *words(images)),
            "resume, and 100 tasks": (
                "-m",
                "rdpbench",
                "run",
                *words(images),
                "figures=false",
                "verify=0",
                "workers=0",
            ),
            "append 1,000 rows": ("-c", APPEND, str(run)),
            "show": ("-m", "rdpbench", "show", images.name),
            "report": ("-m", "rdpbench", "report", images.name, "--images", "none"),
        }
        for name, line in commands.items():
            seconds, used, memory = measured(*line)
            print(f"| {total + LEFT} | {name} | {seconds:.1f} | {used:.1f} | {memory:.2f} |", flush=True)
    print(f"\npeak of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB", file=sys.stderr)


if __name__ == "__main__":
    main()

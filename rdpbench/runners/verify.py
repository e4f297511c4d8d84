"""Is what is stored still true? Every stored file is checked, and a sample of bitstreams is decoded in a fresh process.

Findings name the file, row or image. A run without findings has: no damaged part or Parquet file, every bitstream with
the bytes that were counted, every image with the pixels that were coded, and bitstreams that decode to the recorded
pixels from the bytes alone.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rdpbench.datasets.protocols import load_under
from rdpbench.errors import RdpbenchError, StoreError
from rdpbench.image import pixel_sha256
from rdpbench.results.parts import read_part
from rdpbench.results.schema import Row
from rdpbench.results.store import Contents, Store


@dataclass(frozen=True)
class Verified:
    """What was checked, and what was found wrong."""

    findings: tuple[str, ...]
    bitstreams: int
    images: int
    decoded: tuple[str, ...]
    """Task keys whose bitstream gave the recorded pixels in a fresh process."""


def verify(store: Store, sample: int | None, seed: int = 0, keys: Container[str] | None = None) -> Verified:
    """Check a store; ``sample`` bitstreams are decoded (None: all), chosen by ``seed``.

    ``keys`` restricts bitstreams and images to the tasks of a command: rows of an image that has since been replaced
    are no fault of those that were made of the new one.
    """
    findings: list[str] = []
    for path in sorted(store.parts.glob("*.jsonl")):
        try:
            part = read_part(path)
        except StoreError as error:
            findings.append(str(error))
        else:
            if not part.closed:
                end = "ends inside a record" if part.cut else "has no closing line"
                findings.append(
                    f"{path} {end}: it is still being written, its writer was killed, or it was cut; "
                    f"{len(part.records)} records are whole. The command that made it does what is missing"
                )
    findings += [f"{path} is missing" for path in store.missing_files()]
    try:
        contents = store.read()
    except StoreError as error:
        if str(error) not in findings:
            findings.append(str(error))
        contents = Contents()
    good = [row for row in contents.rows.values() if row.status == "ok" and (keys is None or row.task_key in keys)]
    intact: list[Row] = []
    for row in good:
        try:
            store.get_bitstream(row.bitstream_sha256)
            intact.append(row)
        except StoreError as error:
            findings.append(f"{_name(row)}: {error}")
    images = _check_images(good, findings)
    chosen = intact if sample is None else random.Random(seed).sample(intact, min(sample, len(intact)))  # noqa: S311
    decoded = decode_elsewhere(store, chosen)
    for row in chosen:
        answer = decoded.get(row.task_key, "the process ended before it was decoded")
        if answer != row.reconstruction_sha256:
            findings.append(f"{_name(row)}: bitstream {row.bitstream_sha256[:12]} decodes to other pixels: {answer}")
    true = tuple(row.task_key for row in chosen if decoded.get(row.task_key) == row.reconstruction_sha256)
    return Verified(tuple(findings), len(good), images, true)


def decode_elsewhere(store: Store, rows: Sequence[Row]) -> dict[str, str]:
    """Decode stored bitstreams in a fresh process; returns pixel hash, or what went wrong, by task key."""
    if not rows:
        return {}
    asked = "".join(json.dumps(row.record()) + "\n" for row in rows)
    # -P and this process's own search path: the working folder must not shadow modules, nor hide rdpbench.
    line = [sys.executable, "-P", "-m", "rdpbench.runners.verify", str(store.folder)]
    places = {**os.environ, "PYTHONPATH": os.pathsep.join(str(Path(place).absolute()) for place in sys.path)}
    done = subprocess.run(line, input=asked, capture_output=True, text=True, check=False, env=places)
    answers: dict[str, str] = {}
    for answer in done.stdout.splitlines():
        key, _, text = answer.partition(" ")
        answers[key] = text
    if done.returncode and len(answers) < len(rows):
        victim = rows[len(answers)]
        answers[victim.task_key] = f"the decoding process died with {done.returncode}: {done.stderr.strip()[-300:]}"
        answers |= decode_elsewhere(store, rows[len(answers) :])
    return answers


def _check_images(rows: Iterable[Row], findings: list[str]) -> int:
    seen: dict[tuple[str, str, str], Row] = {(row.path, row.protocol, row.pixel_sha256): row for row in rows}
    for row in seen.values():
        try:
            found = pixel_sha256(load_under(row.protocol, Path(row.path)).pixels)
        except RdpbenchError as error:
            findings.append(f"image {row.image}: {error}")
            continue
        if found != row.pixel_sha256:
            was = row.pixel_sha256[:12]
            findings.append(f"image {row.image} changed: {row.path} has pixels {found[:12]}, coded were {was}")
    return len(seen)


def _name(row: Row) -> str:
    return f"{row.codec} {row.rate_field} {row.rate:g} {row.image}" if row.rate is not None else row.codec


def main(folder: str) -> None:
    """The fresh process: rows on stdin, ``task_key pixel_sha256`` on stdout."""
    from rdpbench.runners.local import one_thread
    from rdpbench.runners.worker import decode_row

    one_thread()
    store = Store(Path(folder))
    # Codecs may print; their output must not mix with the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        row = Row(**json.loads(line))
        try:
            answer = pixel_sha256(decode_row(store, row))
        except Exception as error:
            answer = f"{type(error).__name__}: {error}".replace("\n", " ")
        print(row.task_key, answer, file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])

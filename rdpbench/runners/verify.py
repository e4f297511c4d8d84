"""Is what is stored still true? Every stored file is checked, and a sample of bitstreams is decoded in a fresh process.

Findings name the file, row or image. In a run without findings no part or Parquet file is damaged, every bitstream has
the bytes that were counted, every image has the pixels that were coded, and bitstreams decode to the recorded pixels
from the bytes alone. If values were computed from several decodes of a bitstream, all of these are checked.
"""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from rdpbench import registry
from rdpbench.assets.hashes import files_now
from rdpbench.datasets.protocols import load_under
from rdpbench.errors import RdpbenchError, StoreError
from rdpbench.image import pixel_sha256
from rdpbench.results.stats.points import grouped
from rdpbench.results.store.bitstreams import get_picture
from rdpbench.results.store.contents import Contents
from rdpbench.results.store.log import PartReader, load_arrays
from rdpbench.results.store.schema import OF_THE_MACHINE, Row, Score, error_text
from rdpbench.results.store.store import Store
from rdpbench.runners.coding import NOBODY, Named, decode_row, fingerprint, further_of, noted, setting_of
from rdpbench.runners.pool import START_S, Apart, Ended, died, limit_s, sender, set_up_apart, was_killed
from rdpbench.setting import CodecSetting


@dataclass(frozen=True)
class Verified:
    """What was checked, and what was found wrong."""

    findings: tuple[str, ...]
    bitstreams: int
    images: int
    decoded: tuple[str, ...]
    """Task keys whose bitstream gave the recorded pixels in a fresh process."""
    refuted: tuple[str, ...] = ()
    """Those whose bitstream gave others, or none."""
    undecoded: tuple[str, ...] = ()
    """Why bitstreams were not decoded: by codecs or options that the user must name first."""


def verify(store: Store, sample: int | None, seed: int = 0, named: Named = NOBODY) -> Verified:
    """Check a store; ``sample`` bitstreams are decoded (None: all), chosen by ``seed``.

    No class of one's own is taken from rows, which anybody may have written: ``named`` says which are the user's.
    """
    findings: list[str] = []
    for path in sorted(store.parts.glob("*.jsonl")):
        with _noting(findings):
            part = PartReader(path)
            for _ in part:
                pass
            if not part.closed:
                findings.append(
                    f"{path} {'ends inside a record' if part.cut else 'has no closing line'}: it is still being "
                    f"written, its writer was killed, or it was cut; {part.records} records are whole. The "
                    "command that made it does what is missing"
                )
    findings += [f"{path} is missing" for path in store.missing_files()]
    contents = Contents()
    with _noting(findings):
        contents = store.read()
    findings += [line for line in store.damaged_notes(contents.sessions) if not any(line in told for told in findings)]
    good = [row for row in contents.rows.values() if row.status == "ok"]
    intact: list[Row] = []
    for row in good:
        with _noting(findings, f"{row.point}, {row.image}: "):
            store.bitstreams.get(row.bitstream_sha256)
            intact.append(row)
    images = {(row.path, row.protocol, row.pixel_sha256): row for row in good}.values()
    for row in images:
        with _noting(findings, f"image {row.image}: "):
            sha256, was = pixel_sha256(load_under(row.protocol, Path(row.path)).pixels), row.pixel_sha256
            if sha256 != was:
                line = f"image {row.image} changed: {row.path} has pixels {sha256[:12]}, coded were {was[:12]}"
                findings.append(line)
    for kind in store.features.kinds():
        with _noting(findings):
            places = store.features.places(kind)
            load_arrays(places, [*places])  # checks them
    by_task = grouped(contents.scores.values(), lambda score: score.task_key)
    trials: list[Trial] = []
    undecoded: Counter[str] = Counter()
    for row in intact if sample is None else random.Random(seed).sample(intact, min(sample, len(intact))):  # noqa: S311 (no secret)
        if not row.proven:
            with _noting(findings):
                get_picture(store, row)
            continue
        try:
            setting = setting_of(row, named)
        except (RdpbenchError, ValueError) as error:
            undecoded[f"{row.codec}: {error}"] += 1
        else:
            typed = setting if setting.use not in registry.BUILTIN["codec"] else named
            trials += trials_of(row, by_task.get(row.task_key, ()), typed)
    answers = decode_elsewhere(store, trials)
    wrong = [trial for trial in trials if answers[trial] != trial.expected]
    findings += [unlike(trial, answers[trial]) for trial in wrong]
    refuted = dict.fromkeys(trial.row.task_key for trial in wrong if trial.decodes == 1)
    keys = (trial.row.task_key for trial in trials if trial.decodes == 1)
    decoded = tuple(key for key in keys if key not in refuted)
    reasons = tuple(f"{count} bitstreams of {why}" for why, count in undecoded.items())
    return Verified(tuple(findings), len(good), len(images), decoded, tuple(refuted), reasons)


@contextlib.contextmanager
def _noting(findings: list[str], where: str = "") -> Iterator[None]:
    """An error inside is a finding, once."""
    try:
        yield
    except RdpbenchError as error:
        if f"{where}{error}" not in findings:
            findings.append(f"{where}{error}")


@dataclass(frozen=True)
class Trial:
    """What is decoded in a fresh process, and what must come out."""

    row: Row
    decodes: int
    """1: the reconstruction. Above: decodes 1 to ``decodes - 1``, drawn with other seeds."""
    expected: str
    """Hash of the pixels."""
    codec: CodecSetting | Named = field(default=NOBODY, compare=False)
    """What decodes it, as for `decode_row`."""


def trials_of(row: Row, scores: Iterable[Score], codec: CodecSetting | Named = NOBODY) -> Iterator[Trial]:
    """What there is to check of a row: its reconstruction, and the further decodes that its values were made of."""
    if not row.proven:
        return  # its picture is kept, since no decoder makes it
    yield Trial(row, 1, row.reconstruction_sha256, codec)
    if further := noted(scores):
        yield Trial(row, *further, codec)


def decode_elsewhere(store: Store, trials: Sequence[Trial]) -> dict[Trial, str]:
    """Decode stored bitstreams in a fresh process; the hash of their pixels, or what went wrong, for each.

    The process is a new child of the fork server, which never saw an image: what is not in the bytes is not there.
    """
    answers: dict[Trial, str] = {}
    # Last first: a bitstream that needs what an earlier one left in its decoder does not find it.
    left, tried = list(reversed(trials)), set()
    while left:
        apart = Apart(_decode_all, Store(store.folder.resolve()), left)
        while left:
            limit = START_S + limit_s(None, left[0].row.height * left[0].row.width, left[0].decodes)
            try:
                answers[left[0]] = apart.answer(limit)
                left.pop(0)
            except Ended as ended:
                killed = not ended.late and was_killed(ended.exitcode)
                if killed and left[0] not in tried:  # the system did that; once more
                    tried.add(left[0])
                    break
                how = f"the decoding process died: {died(ended.exitcode)}"
                how = f"no answer within {limit:g} seconds" if ended.late else how
                answers[left.pop(0)] = f"{OF_THE_MACHINE}{how}" if killed else how
                break
        apart.stop()
    return answers


def _decode_all(pipe: Connection, store: Store, trials: Sequence[Trial]) -> None:
    """The fresh process: a hash of pixels or an error for each."""
    set_up_apart()
    send = sender(pipe)
    for trial in trials:
        row, codec = trial.row, trial.codec
        try:
            if trial.decodes == 1:
                answer = pixel_sha256(decode_row(store, row, codec))
            else:
                answer = fingerprint(further_of(store, row, trial.decodes, codec))
        except StoreError as error:
            answer = f"{OF_THE_MACHINE}{error}"
        except Exception as error:
            answer = error_text(f"{type(error).__name__}: {error}")
        send(answer)


def unlike(trial: Trial, answer: str) -> str:
    """The finding for a bitstream that does not give the recorded pixels."""
    row, last = trial.row, trial.decodes - 1
    which = f"{row.bitstream_sha256[:12]}{f', decodes 1 to {last},' if last else ''}"
    why = "" if files_now(row.files) else "; a file of its codec changed since, or is gone"
    return f"{row.point}, {row.image}: bitstream {which} decodes to other pixels: {answer}{why}"

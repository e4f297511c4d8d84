"""Is what is stored still true? Every stored file is checked, and a sample of bitstreams is decoded in a fresh process.

Findings name the file, row or image. In a run without findings no part or Parquet file is damaged, every bitstream has
the bytes that were counted, every image has the pixels that were coded, and bitstreams decode to the recorded pixels
from the bytes alone. If values were computed from several decodes of a bitstream, all of these are checked.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from rdpbench import registry
from rdpbench.assets.hashes import files_changed
from rdpbench.codecs.contract import Codec, Side, facts_of, make_ready
from rdpbench.datasets.protocols import load_under
from rdpbench.errors import ImageError, RdpbenchError, StoreError, WorkerError, few
from rdpbench.image import Image, pixel_sha256, read_image
from rdpbench.networks.precision import is_here
from rdpbench.paths import write_file
from rdpbench.provenance import hardware
from rdpbench.results.stats.points import grouped
from rdpbench.results.store.bitstreams import get_picture, reconstruction_path
from rdpbench.results.store.calls import NOBODY, CodecFiles, Named, original_path, setting_of
from rdpbench.results.store.columns import coded, groups_of
from rdpbench.results.store.contents import Contents
from rdpbench.results.store.keys import facts
from rdpbench.results.store.log import PartReader, load_arrays
from rdpbench.results.store.records import Rows
from rdpbench.results.store.schema import OF_THE_MACHINE, Row, Score, error_text
from rdpbench.results.store.store import Store
from rdpbench.results.tables import CROSSINGS
from rdpbench.runners.coding import (
    bound_to_device,
    check_own,
    codec_of,
    decode_row,
    encode,
    fingerprint,
    further_of,
    noted,
    on_hardware,
    why_other_pixels,
)
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
    _check_parts(store, findings)
    findings += [f"{path} is missing" for path in store.missing_files()]
    contents = Contents()
    with _noting(findings):
        contents = store.read()
    findings += [line for line in store.damaged_notes(contents.sessions) if not any(line in told for told in findings)]
    rows = contents.of_kind("row")
    good = Rows(rows, np.flatnonzero(rows.codes("status").where("ok".__eq__)), {})
    intact: list[int] = []
    for number, sha256 in enumerate(good.texts("bitstream_sha256")):
        try:
            store.bitstreams.get(sha256)
            intact.append(number)
        except RdpbenchError as error:
            findings.append(f"{good[number].point}, {good[number].image}: {error}")
    images = _check_images(store, good, findings)
    for kind in store.features.kinds():
        with _noting(findings):
            places = store.features.places(kind)
            load_arrays(places, [*places])  # checks them
    if sample is not None:
        intact = random.Random(seed).sample(intact, min(sample, len(intact)))  # noqa: S311 (no secret)
    chosen, scores = good.where(intact), contents.of_kind("score")
    of_chosen = np.flatnonzero(np.isin(scores.owners(rows), chosen.places))
    by_task = grouped(scores.at(of_chosen), lambda score: score.task_key)
    trials: list[Trial] = []
    undecoded: Counter[str] = Counter()
    for row in chosen:
        if not row.proven:
            with _noting(findings):
                get_picture(store, row)
            continue
        try:
            setting = setting_of(store, row, named)
        except (RdpbenchError, ValueError) as error:
            undecoded[f"{row.codec}: {error}"] += 1
            continue
        if not is_here(row.device):
            where = on_hardware(row.device, row.hardware)
            undecoded[f"{row.codec}: coded on {where}, which is not here; --device cpu tries what is here"] += 1
        else:
            typed = setting if setting.use not in registry.BUILTIN["codec"] else named
            trials += trials_of(row, by_task.get(row.task_key, ()), typed)
    answers = decode_elsewhere(store, trials)
    wrong = [trial for trial in trials if answers[trial] != trial.expected]
    by_others = {trial: why for trial in wrong if (why := _other_files(store, trial.row, named))}
    undecoded.update(f"{trial.row.codec}: not decoded: {why}" for trial, why in by_others.items())
    findings += [unlike(trial, answers[trial]) for trial in wrong if trial not in by_others]
    judged = [trial for trial in trials if trial.decodes == 1 and trial not in by_others]
    right, doubted = _by_answer(judged, answers)
    reasons = tuple(f"{count} bitstreams of {why}" for why, count in undecoded.items())
    return Verified(tuple(findings), len(good), images, right, doubted, reasons)


def _by_answer(trials: Sequence[Trial], answers: Mapping[Trial, str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Tasks of bitstreams that gave their pixels, and of those that did not, but for what this machine could not do."""
    right = (trial.row.task_key for trial in trials if answers[trial] == trial.expected)
    wrong = (trial for trial in trials if answers[trial] != trial.expected)
    return tuple(right), tuple(t.row.task_key for t in wrong if not answers[t].startswith(OF_THE_MACHINE))


def _check_parts(store: Store, findings: list[str]) -> None:
    """Read all parts, line by line."""
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


def _check_images(store: Store, good: Rows, findings: list[str]) -> int:
    """Read all images that were coded; returns how many."""
    _, first = groups_of([coded(good.texts(name)).codes for name in ("root", "path", "protocol", "pixel_sha256")])
    for row in good.where(first):
        with _noting(findings, f"image {row.image}: "):
            path = original_path(store, row)
            sha256, was = pixel_sha256(load_under(row.protocol, path).pixels), row.pixel_sha256
            if sha256 != was:
                line = f"image {row.image} changed: {path} has pixels {sha256[:12]}, coded were {was[:12]}"
                findings.append(line)
    return len(first)


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
    """Decode stored bitstreams in fresh processes; the hash of their pixels, or what went wrong, for each.

    Each process is a new child of the fork server, which never saw an image: what is not in the bytes is not there. It
    sees no other GPU than that of its rows.
    """
    answers: dict[Trial, str] = {}
    # Last first: a bitstream that needs what an earlier one left in its decoder does not find it. And by rate point,
    # whose weights are loaded once.
    order = list(reversed(trials))
    order.sort(key=lambda trial: (trial.row.device, trial.row.point))
    for device, group in groupby(order, lambda trial: trial.row.device):
        answers |= dict(_answers(_decode_all, store, list(group), device))
    return answers


J = TypeVar("J", bound="Trial | Job")
STARTS = 2
"""How often a process is started that ends before it has anything to decode."""


def _answers(target: Callable[..., None], store: Store, jobs: Sequence[J], device: str) -> Iterator[tuple[J, Any]]:
    """What a fresh process of a device sends for each job, in order; after one that it died over there is a new one.

    Raises:
        WorkerError: no process comes up, which is no bitstream's fault.
    """
    left, tried, unstarted = list(jobs), set(), 0
    while left:
        apart = Apart(target, Store(store.folder.resolve()), left, device)
        try:
            apart.answer(START_S)  # that it is there
        except Ended as ended:
            unstarted += 1
            if unstarted == STARTS:
                raise WorkerError(
                    f"a process that decodes did not start in {STARTS} tries: {died(ended.exitcode)}; its error is "
                    "above. Nothing was decoded, and no bitstream is doubted for it; type: rdpbench verify RUN"
                ) from None
            continue
        while left:
            job = left[0]
            limit = START_S + limit_s(None, job.row.height * job.row.width, job.decodes)
            try:
                answer = apart.answer(limit)
            except Ended as ended:
                killed = not ended.late and was_killed(ended.exitcode)
                if killed and job not in tried:  # the system did that; once more
                    tried.add(job)
                    break
                how = f"the decoding process died: {died(ended.exitcode)}"
                how = f"no answer within {limit:g} seconds" if ended.late else how
                left.pop(0)
                yield job, f"{OF_THE_MACHINE}{how}" if killed else how
                break
            left.pop(0)
            yield job, answer
        apart.stop()


def _decode_all(pipe: Connection, store: Store, trials: Sequence[Trial], device: str) -> None:
    """The fresh process: a hash of pixels or an error for each."""
    here = set_up_apart(device)
    send = sender(pipe)
    send("here")
    for trial in trials:
        row, codec = trial.row, trial.codec
        try:
            if trial.decodes == 1:
                answer = pixel_sha256(decode_row(store, row, codec, here))
            else:
                answer = fingerprint(further_of(store, row, trial.decodes, codec, here))
            if answer != trial.expected:
                answer += f" ({why_other_pixels(row, here)})"
        except StoreError as error:
            answer = f"{OF_THE_MACHINE}{error}"
        except Exception as error:
            answer = error_text(f"{type(error).__name__}: {error}")
        send(answer)


def unlike(trial: Trial, answer: str) -> str:
    """The finding for a bitstream that does not give the recorded pixels."""
    row, last = trial.row, trial.decodes - 1
    which = f"{row.bitstream_sha256[:12]}{f', decodes 1 to {last},' if last else ''}"
    codec = trial.codec
    lies = CodecFiles.of(codec.use, dict(codec.options)).path if isinstance(codec, CodecSetting) else Path
    why = "; a file of its codec changed since, or is gone" if files_changed(row.files, lies) else ""
    return f"{row.point}, {row.image}: bitstream {which} decodes to other pixels: {answer}{why}"


def _other_files(store: Store, row: Row, named: Named) -> str:
    """Of a bitstream that gave other pixels: files of options that did not code it; empty where all did."""
    setting = setting_of(store, row, named)
    lies = CodecFiles.of(setting.use, dict(setting.options)).path
    if changed := [name for name in files_changed(row.files, lies) if "=" in name]:
        return f"{few([str(lies(name)) for name in changed], 3)}: another file than coded it, or gone"
    try:
        with codec_of(store, row, named) as codec:
            check_own(codec, json.loads(row.coder))
    except RdpbenchError as error:
        return str(error)
    return ""


# Does one device decode what another coded?


@dataclass(frozen=True)
class Job:
    """A row to code again, or one of its bitstreams to decode."""

    row: Row
    codec: CodecSetting | Named = field(compare=False)
    coded_on: str = ""
    data: bytes = b""
    """Empty: code."""
    decodes: ClassVar[int] = 1


def cross(store: Store, sample: int | None, seed: int, named: Named, devices: Sequence[str]) -> dict[str, Any]:
    """Code a sample of a run on each device, decode each bitstream on each, and count how far the pixels are apart.

    What is compared with are the pixels that the device that coded makes of its bitstream. The stored bitstream stands
    for the device that coded it; if that is not here, its pixels are known by their hash, or as a kept picture.

    Returns:
        ``cells``: for each codec, device that coded and device that decoded, how many bitstreams gave the ``same``
        pixels, were ``within one`` level, gave ``other`` pixels, or ``failed``; ``largest`` is the greatest difference
        in levels of 255, ``share`` the greatest share of an image's pixels that differ, both None where nothing but
        the hash is known. ``notes``: what else to know.
    """
    crossing = _Crossing()
    stored: list[Job] = []
    rows = store.read().of_kind("row")
    proven = rows.codes("grade").where(("decoded", "").__contains__)
    places = np.flatnonzero(rows.codes("status").where("ok".__eq__) & proven).tolist()
    if sample is not None:
        places = random.Random(seed).sample(places, len(places))  # noqa: S311 (no secret)
    for row in Rows(rows, np.array(places, np.int64), {}):
        if len(stored) == sample:
            break
        try:
            setting = setting_of(store, row, named)
        except (RdpbenchError, ValueError) as error:
            crossing.note(f"not decoded: {row.codec}: {error}")
            continue
        if facts(setting).uses_device:
            typed = setting if setting.use not in registry.BUILTIN["codec"] else named
            coded_on = on_hardware(row.device, row.hardware)
            stored.append(Job(row, typed, coded_on, store.bitstreams.get(row.bitstream_sha256)))
    stored.sort(key=lambda job: (job.row.point, job.row.image))
    jobs = list(stored)
    for device in devices:
        for job, answer in _answers(_code_all, store, [replace(job, data=b"") for job in stored], device):
            jobs += crossing.coded(job, device, answer)
    jobs.sort(key=lambda job: (job.row.point, job.row.image))
    # All devices go through them side by side, so that the pictures of one bitstream at a time are in memory.
    for answers in zip(*(_answers(_code_all, store, jobs, device) for device in devices), strict=True):
        crossing.decoded(store, dict(zip(devices, answers, strict=True)))
    return crossing.record()


def note_crossings(folder: Path, record: Mapping[str, Any]) -> None:
    """Store them in a run's folder, beside those of other devices, from another machine perhaps.

    Raises:
        StoreUnwritable: the file cannot be written.
    """
    path = folder / CROSSINGS
    before: Any = {}
    with contextlib.suppress(OSError, ValueError):
        before = json.loads(path.read_text(encoding="utf-8"))
    new = {_key(cell): cell for cell in record["cells"]}
    with contextlib.suppress(KeyError, TypeError, AttributeError):  # of a damaged file nothing is kept
        old = {_key(cell): cell for cell in before["cells"] if _key(cell) not in new}
        notes = list(dict.fromkeys(before["notes"] + record["notes"]))
        record = {"cells": [*old.values(), *new.values()], "notes": notes}
    write_file(path, json.dumps(record, indent=1) + "\n")


def _key(cell: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(cell[name] for name in PLACE)


PLACE = ("codec", "coded on", "decoded on")


class _Crossing:
    """What becomes of bitstreams, as it is counted."""

    def __init__(self) -> None:
        self._cells: dict[tuple[str, str, str], dict[str, Any]] = {}
        self._equal: dict[tuple[str, str, str], list[int]] = {}
        self._notes: dict[str, None] = {}

    def note(self, text: str) -> None:
        self._notes[text] = None

    def coded(self, job: Job, device: str, answer: Any) -> list[Job]:
        """What a device made of a row's image; nothing of one that it coded in the run."""
        where, data = answer if isinstance(answer, tuple) else (device, answer)
        if not isinstance(data, bytes):
            self.note(f"{job.row.point}, {job.row.image}: not coded on {where}: {data}")
            return []
        if not data:
            return []
        same = self._equal.setdefault((job.row.codec, where, job.coded_on), [])
        same.append(hashlib.sha256(data).hexdigest() == job.row.bitstream_sha256)
        return [replace(job, coded_on=where, data=data)]

    def decoded(self, store: Store, answers: Mapping[str, tuple[Job, Any]]) -> None:
        """What each device made of one bitstream."""
        job = next(iter(answers.values()))[0]
        pairs = (answer if isinstance(answer, tuple) else (device, answer) for device, (_, answer) in answers.items())
        pictures: dict[str, Any] = dict(pairs)
        reference = pictures.get(job.coded_on)
        if not isinstance(reference, np.ndarray):
            reference = self._known(store, job, pictures.values())
        for where, picture in pictures.items():
            fresh = {**dict.fromkeys(COUNTS, 0), "largest": 0, "share": 0.0}
            cell = self._cells.setdefault((job.row.codec, job.coded_on, where), fresh)
            if not isinstance(picture, np.ndarray):
                cell["failed"] += 1
                self.note(f"{job.row.codec}: coded on {job.coded_on}, decoded on {where}: {picture}")
            elif reference is None or picture.shape != reference.shape:
                right = reference is None and pixel_sha256(picture) == job.row.reconstruction_sha256
                cell["same" if right else "other"] += 1
                cell |= {} if right else {"largest": None, "share": None}
            else:
                apart = np.abs(picture.astype(np.int16) - reference)
                largest = int(apart.max())
                cell["same" if not largest else "within one" if largest == 1 else "other"] += 1
                if cell["largest"] is not None:
                    share = float(apart.any(axis=2).mean())
                    cell |= {"largest": max(cell["largest"], largest), "share": max(cell["share"], share)}
            if cell["other"] + cell["failed"] and (hint := bound_to_device(job.row)):
                self.note(f"{job.row.codec}: coded on {job.coded_on}, decoded on {where}{hint}")

    @staticmethod
    def _known(store: Store, job: Job, pictures: Iterable[Any]) -> Image | None:
        """The pixels that a device which is not here made of a stored bitstream, if anything has them."""
        if hashlib.sha256(job.data).hexdigest() != job.row.bitstream_sha256:
            return None
        kept = reconstruction_path(store, job.row)
        pictures = [*pictures, *([read_image(kept).pixels] if kept.is_file() else [])]
        shown = [picture for picture in pictures if isinstance(picture, np.ndarray)]
        return next((picture for picture in shown if pixel_sha256(picture) == job.row.reconstruction_sha256), None)

    def record(self) -> dict[str, Any]:
        for (codec, where, other), same in self._equal.items():
            self.note(f"{codec}: {where} coded {sum(same)} of {len(same)} images to the bytes that {other} wrote")
        cells = [dict(zip(PLACE, key, strict=True)) | cell for key, cell in self._cells.items()]
        return {"cells": cells, "notes": list(self._notes)}


COUNTS = ("same", "within one", "other", "failed")


def _code_all(pipe: Connection, store: Store, jobs: Sequence[Job], device: str) -> None:
    """A fresh process of a device: for each job its bytes, its picture, or an error; with what the device is."""
    here = set_up_apart(device)
    send, where = sender(pipe), on_hardware(device, json.dumps(hardware(here)))
    send("here")
    for job in jobs:
        try:
            with codec_of(store, job.row, job.codec, here) as codec:
                make_ready(codec)
                if job.data:
                    answer: Any = decode_row(store, job.row, job.codec, here, job.data)
                else:
                    answer = b"" if where == job.coded_on else _coded_again(store, job.row, codec)
        except Exception as error:
            answer = error_text(f"{type(error).__name__}: {error}")
        send((where, answer))


def _coded_again(store: Store, row: Row, codec: Codec) -> bytes:
    check_own(codec, json.loads(row.coder))
    image = load_under(row.protocol, original_path(store, row)).pixels
    if pixel_sha256(image) != row.pixel_sha256:
        raise ImageError(f"{row.path} changed since it was coded")
    named = row.image if getattr(type(codec), "uses_image_id", False) else ""
    caption = row.caption if facts_of(type(codec)).uses_caption else None
    return encode(codec, image, Side(caption, row.seed, named))[0].data

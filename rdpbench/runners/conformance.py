"""``rdpbench check``: do a codec, a dataset and a metric keep their contracts on this machine?

One suite for every codec, shipped or of the user's own. It codes six small images with the machinery of a run, twice
and in batches, decodes them in a fresh process after the originals are gone, and lets the decoder read damaged bytes.
A metric is asked what follows from its contract; the values that shipped ones must give are in `metrics.self_check`.
"""

from __future__ import annotations

import io
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from rdpbench import registry
from rdpbench.codecs.contract import Codec, Side, facts_of
from rdpbench.datasets.contract import KINDS, Dataset
from rdpbench.datasets.index import index
from rdpbench.errors import CodecError, ConfigError, ImageError, UnsupportedImage
from rdpbench.image import Image, pixel_sha256
from rdpbench.lazy import pil
from rdpbench.metrics.contract import beside as cls_beside
from rdpbench.metrics.contract import faults_of, meaning_of, number_of
from rdpbench.provenance import peak_memory_mb
from rdpbench.results.store.keys import build
from rdpbench.results.store.schema import Row, error_text
from rdpbench.runners.coding import check_untouched, decode_all, decode_row
from rdpbench.runners.execute import Done, execute
from rdpbench.runners.pool import START_S, Apart, Ended, died, sender, set_up_apart
from rdpbench.runners.task import pin_of
from rdpbench.runners.verify import decode_elsewhere, trials_of
from rdpbench.setting import Bench, CodecSetting

Verdict = Literal["ok", "FAILS", "-"]
"""``-``: the codec does not claim it, so there is nothing to check."""
PROOFS = {
    "decoded": "decoded: the bytes alone give the pixels",
    "joint": "joint: one command makes bitstream and picture, so nothing shows that the bytes give the picture",
    "reported": "reported: somebody else states the rate",
}
SMALL = 1000
"""Bytes of raw pixels below which the head of a format may be larger."""
DAMAGED = 120
"""Damaged bitstreams that a decoder is given."""
DECODE_S = 30.0
"""Seconds that the decoding of a damaged bitstream of a small image may take."""
OTHER_ERROR = "is no CodecError: a run says so less clearly"
MEMORY = 1 << 30
"""Bytes that it may take beside what the process had."""


@dataclass(frozen=True)
class Check:
    """One line of the card."""

    name: str
    verdict: Verdict
    note: str = ""


def _judged(name: str, findings: Sequence[str], promise: str) -> Check:
    return Check(name, "FAILS" if findings else "ok", "; ".join(findings) or promise)


def pictures(seed: int = 0) -> dict[str, Image]:
    """Six small images: odd and even sizes, two of one size, one pixel, wide, grey.

    >>> {name: image.shape[:2] for name, image in pictures().items()}["odd"]
    (61, 99)
    """
    random = np.random.default_rng(seed)

    def picture(height: int, width: int) -> Image:
        coarse = random.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
        return np.ascontiguousarray(coarse.repeat(8, 0).repeat(8, 1)[:height, :width])

    sizes = {"odd": (61, 99), "even": (64, 64), "even2": (64, 64), "pixel": (1, 1), "wide": (3, 130)}
    images = {name: picture(*size) for name, size in sizes.items()}
    images["grey"] = np.ascontiguousarray(picture(48, 80)[..., :1].repeat(3, 2))
    return images


def damaged(data: bytes, number: int) -> bytes:
    """Bytes that are no bitstream, or no longer this one: flips, cuts, noise, other heads and tails, in turn.

    >>> damaged(bytes(64), 2) == damaged(bytes(64), 2), len(damaged(bytes(64), 3))
    (True, 64)
    """
    random = np.random.default_rng(number)
    changed = bytearray(data)
    start = int(random.integers(len(data)))
    match number % 6:
        case 0 | 1:
            for _ in range(int(random.integers(1, 6))):
                changed[int(random.integers(len(data)))] ^= 1 << int(random.integers(8))
        case 2:
            del changed[start:]
        case 3:
            changed[start:] = random.bytes(len(data) - start)
        case 4:
            changed[int(random.integers(min(9, len(data))))] = int(random.integers(256))
        case _:
            start = min(8, len(data) - 1)
            changed[start:] = bytes([int(random.choice([0, 255]))]) * (len(data) - start)
    return bytes(changed)


def conform(read: Callable[[Sequence[str]], Bench], typed: Sequence[str], folder: Path) -> Iterator[Check]:
    """Check the codec that the settings name, at its middle rate point unless they name rates.

    Args:
        read: composes settings (`rdpbench.config.bench.read_bench`).
        typed: settings as for ``rdpbench run``; exactly one codec.
        folder: an empty folder for images and runs.

    Raises:
        RdpbenchError: the codec cannot be built, or needs what is not here.
    """
    images = pictures()
    first, again = folder / "images", folder / "again"
    for place, names in ((first, list(images)), (again, list(reversed(images)))):
        place.mkdir()
        for position, name in enumerate(names):
            pil.fromarray(images[name]).save(place / f"{position}-{name}.png")
    rates = [] if any(word.startswith(("rate=", "points=", "bpp=")) for word in typed) else ["points=1"]

    def bench(place: Path, *more: str) -> Bench:
        settings = [*typed, *rates, f"data=folder:{place}", "metrics=psnr", "verify=0", "figures=false", *more]
        settings += [f"captions=file:{place}.json"] if captioned else []
        composed = read([*settings, f"root={folder / 'runs'}"])
        return replace(composed, run=f"{place.name}-{composed.batch}")

    captioned = False
    (setting,) = bench(first).codecs
    facts = facts_of(setting.cls)
    if facts.grade == "reported":
        raise ConfigError("pictures of somebody else are scored, not coded: there is nothing to check")
    captioned = facts.uses_caption
    for place in (first, again):
        captions = {path.stem: "a photograph" for path in place.iterdir()}
        place.with_suffix(".json").write_text(json.dumps(captions))
    done = execute(bench(first))
    rows = [row for row in done.contents.rows.values() if row.status == "ok"]
    yield _sizes(done, images)
    if not rows:
        return
    twice = execute(bench(again))
    yield _equal("repeat", rows, twice, "the same bytes and pixels again, in another order and another process")
    if facts.batches:
        batches = execute(bench(first, "batch=2"))
        yield _equal("batches", rows, batches, "the same bytes in batches, decoded values at most 1 off")
        if moved := list(_moved(done, batches, setting)):
            yield Check("batches", "FAILS", "; ".join(moved))
    else:
        yield Check("batches", "-", "it codes one image at a time")
    yield from _worth(rows, images)
    shutil.rmtree(first)
    shutil.rmtree(again)
    if facts.grade != "decoded":
        yield Check("elsewhere", "-", f"no decoder makes the pictures from the bytes: its grade is {facts.grade}")
        return
    trials = [trial for row in rows for trial in trials_of(row, (), setting)]
    answers = decode_elsewhere(done.store, trials)
    wrong = [f"{_of(trial.row)}: {answers[trial]}" for trial in trials if answers[trial] != trial.expected]
    note = f"{len(trials)} bitstreams give the same pixels in a fresh process, without the originals"
    yield _judged("elsewhere", wrong, note)
    smallest = min(rows, key=lambda row: row.width * row.height if row.width * row.height > 1 else 1 << 30)
    side = Side("a photograph" if facts.uses_caption else None, smallest.seed)
    data = done.store.bitstreams.get(smallest.bitstream_sha256)
    examples = list(images.values())[:3]
    suspect = _Suspect(setting, smallest.rate, smallest.device, examples, side, data, smallest.reconstruction_sha256)
    yield from _examined_apart(suspect)


def _of(row: Row) -> str:
    return f"{row.image.partition('-')[2]} ({row.height} x {row.width})"


def _sizes(done: Done, images: dict[str, Image]) -> Check:
    """Does it code every image, or refuse it for a reason?"""
    refused = f"{UnsupportedImage.__name__}: "
    failed = [row for row in done.contents.rows.values() if row.status == "error"]
    broken = [f"{_of(row)}: {row.error}" for row in failed if not row.error.startswith(refused)]
    if broken:
        return Check("images", "FAILS", "; ".join(broken))
    if failed:
        return Check("images", "ok", "it refuses " + "; ".join(f"{_of(row)}: {row.error}" for row in failed))
    return Check("images", "ok", f"odd, even, one pixel, wide, grey: {len(images)} images, parts add up to the bytes")


def _equal(name: str, rows: Sequence[Row], done: Done, promise: str) -> Check:
    """Are bytes the same, and pixels too where images were coded one by one?"""
    other = {(row.pixel_sha256, row.rate): row for row in done.contents.rows.values()}
    findings = []
    for row in rows:
        twin = other[row.pixel_sha256, row.rate]
        if twin.status != "ok":
            findings.append(f"{_of(row)}: {twin.error}")
        elif twin.bitstream_sha256 != row.bitstream_sha256:
            findings.append(f"{_of(row)}: {twin.bytes} other bytes, first {row.bytes}")
        elif twin.reconstruction_sha256 != row.reconstruction_sha256 and twin.batch == 1:
            findings.append(f"{_of(row)}: the same bytes gave other pixels")
    return _judged(name, findings, promise)


def _worth(rows: Sequence[Row], images: dict[str, Image]) -> Iterator[Check]:
    """Do the bytes buy anything? Weights that were silently not loaded give many bytes and no picture."""
    costly = []
    for row in rows if not any("random" in row.weights for row in rows) else ():
        image = images[row.image.partition("-")[2]]
        buffer = io.BytesIO()
        pil.fromarray(image).save(buffer, "WEBP", quality=0)
        if row.bytes and row.bytes > 10 * buffer.tell() and row.bytes > image.size > SMALL:
            costly.append(f"{_of(row)}: {row.bytes} bytes, WebP at its worst {buffer.tell()}, raw pixels {image.size}")
    if costly:
        yield Check("rate", "-", f"{'; '.join(costly)}. Were the weights loaded?")


def _moved(done: Done, batches: Done, setting: CodecSetting) -> Iterator[str]:
    """Images whose decoded values are more than 1 off in a batch, where sums may have another order."""
    alone = {(row.pixel_sha256, row.rate): row for row in done.contents.rows.values() if row.status == "ok"}
    for row in batches.contents.rows.values():
        single = alone.get((row.pixel_sha256, row.rate))
        if row.status == "ok" and single and row.reconstruction_sha256 != single.reconstruction_sha256:
            images = (decode_row(run.store, of, setting) for run, of in ((done, single), (batches, row)))
            if (apart := _apart_by(*images)) > 1:
                yield f"{_of(row)}: a decoded value is {apart} off"


def _apart_by(image: Image, other: Image) -> int:
    return int(np.abs(image.astype(int) - other).max())


class _Suspect(NamedTuple):
    """What a process apart examines."""

    setting: CodecSetting
    rate: float | None
    device: str
    images: Sequence[Image]
    side: Side
    data: bytes
    """A bitstream."""
    pixels: str
    """The hash of what it decodes to."""

    def built(self) -> Codec:
        return build(self.setting, self.rate, self.device)


def _examined_apart(suspect: _Suspect) -> Iterator[Check]:
    """What a process that may crash, hang or fill the memory is asked."""
    apart = Apart(_examine, suspect)
    asked = ["state", "threads", *[f"damaged bitstream {number}" for number in range(DAMAGED)]]
    pictures_given, errors = 0, 0
    for question in asked:
        try:
            answer = apart.answer(DECODE_S + 5 if question.startswith("damaged") else START_S)
        except Ended as ended:
            how = "gave no answer in time" if ended.late else f"died: {died(ended.exitcode)}"
            yield Check(question.partition(" ")[0], "FAILS", f"{question}: the process {how}; {_again(question)}")
            return
        if isinstance(answer, Check):
            yield answer
        elif isinstance(answer, str):
            apart.stop(0)
            yield Check("damaged", "FAILS", f"{question}: {answer}; {_again(question)}")
            return
        else:
            pictures_given, errors = pictures_given + answer, errors + (not answer)
    note = f"of {DAMAGED} damaged bitstreams {pictures_given} gave another image, which is allowed, {errors} an error"
    if unlike := apart.answer(START_S):
        note += f"; some raised {unlike}, which {OTHER_ERROR}"
    apart.stop()
    yield Check("damaged", "ok", note)


def _again(question: str) -> str:
    number = question.rpartition(" ")[2]
    if not number.isdecimal():
        return "it ends a run in the same way"
    return f"the bytes are rdpbench.runners.conformance.damaged(data, {number})"


def _examine(pipe: Connection, suspect: _Suspect) -> None:
    """The process apart: a `Check` for state and threads, then a bool or a fault for each damaged bitstream."""
    set_up_apart()
    send = sender(pipe)
    for check in (_state, _threads):
        try:
            send(check(suspect))
        except Exception as error:
            send(Check(check.__name__.strip("_"), "FAILS", error_text(f"{type(error).__name__}: {error}")))
    codec, data = suspect.built(), suspect.data
    with suppress(CodecError):
        codec.decode(data)  # what it loads is no part of what a damaged bitstream takes
    if not registry.parse(suspect.setting.use).apart:  # what decodes is another process then, and may start again
        _limit_memory()
    unlike = ""
    for number in range(DAMAGED):
        started = time.perf_counter()
        answer: bool | str
        try:
            codec.decode(damaged(data, number))
            answer = True
        except CodecError as error:
            answer = False if "memory" not in str(error) else error_text(str(error))
        except MemoryError as error:
            answer = error_text(f"MemoryError: {error}")
        except Exception as error:
            answer, unlike = False, type(error).__name__
        if (taken := time.perf_counter() - started) > DECODE_S:
            answer = f"took {taken:.0f} s"
        send(answer)
    send(unlike)


def _state(suspect: _Suspect) -> Check:
    """One object codes an image, others, and the image again."""
    codec = suspect.built()
    lent = [image.copy() for image in suspect.images]
    first, *_, last = [codec.encode(image, suspect.side).data for image in (*lent, lent[0])]
    for image, original in zip(lent, suspect.images, strict=True):
        check_untouched(image, original, "its encoder")
    if first != last:
        return Check("state", "FAILS", "one object wrote other bytes for an image after it had coded others")
    return Check("state", "ok", "no image changes the bytes of the next")


def _threads(suspect: _Suspect) -> Check:
    """Two threads of torch in place of one."""
    import sys

    torch = sys.modules.get("torch")
    if registry.parse(suspect.setting.use).apart:
        return Check("threads", "-", "it runs in processes of its own, which a run binds to one thread")
    if torch is None:
        return Check("threads", "-", "it does not use torch; a run binds its worker to one thread")
    codec, image, side = suspect.built(), suspect.images[0].copy(), suspect.side
    alone, bytes_alone = codec.decode(suspect.data), codec.encode(image, side).data
    if pixel_sha256(alone) != suspect.pixels:
        return Check("threads", "FAILS", "another process decoded other pixels")
    torch.set_num_threads(2)
    try:
        [two] = decode_all(codec, [suspect.data])
        apart = _apart_by(two, alone)
        same = codec.encode(image, side).data == bytes_alone
    finally:
        torch.set_num_threads(1)
    if not same:
        return Check("threads", "FAILS", "with two threads it writes other bytes")
    if apart > 1:
        return Check("threads", "FAILS", f"with two threads a decoded value is {apart} off")
    return Check("threads", "ok", f"with two threads the same bytes, decoded values at most {apart} off")


def _limit_memory() -> None:
    """Bound the memory of this process, where the system can (Linux, macOS)."""
    try:
        import resource
    except ImportError:
        return
    limit = int(peak_memory_mb() * 2**20) + MEMORY
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def conform_dataset(dataset: Dataset, limit: int | None = None) -> Iterator[Check]:
    """Check a dataset: all images can be read, with ids of their own in one order; and what it says of itself.

    Nothing is downloaded.
    """
    if (lack := getattr(dataset, "missing", lambda: None)()) is not None:
        odd = [] if isinstance(lack, str) else [f"missing() gives {lack!r:.60}; give None, or a text that says how"]
        yield Check("missing", "FAILS" if odd else "-", "; ".join(odd) or lack)
        return
    try:
        samples = [entry.sample for entry in index(dataset, limit)]
    except (ConfigError, ImageError) as error:
        yield Check("images", "FAILS", str(error))
        return
    yield Check("images", "ok", f"{len(samples)} can be read ({dataset.protocol}), each with an id of its own")
    again = [sample.id for sample in islice(dataset.samples(), limit)]
    other = "samples() yields other ids, or another order, the second time; sort what it goes through"
    yield _judged("order", [other] if again != [sample.id for sample in samples] else [], "the same ids in one order")
    if limit is None:
        wrong = f"len() is {len(dataset)}, and samples() yields {len(samples)}"
        yield _judged("length", [wrong] if len(dataset) != len(samples) else [], f"len() is {len(dataset)}")
    kinds = {"references": "captions to score against", "caption": "a caption for encoders", "labels": "label maps"}
    counts = {text: sum(bool(getattr(sample, name)) for sample in samples) for name, text in kinds.items()}
    beside = ", ".join(f"{count} have {text}" for text, count in counts.items())
    yield Check("beside", "ok" if any(counts.values()) else "-", f"of {len(samples)} images {beside}")
    try:
        pin = pin_of(dataset)
        yield Check("pinned", "ok", f"every row has the hash {pin.sha256[:12]}... ({pin.kind}: {KINDS[pin.kind]})")
    except ConfigError as error:
        yield Check("pinned", "FAILS", str(error))
    notes: Any = getattr(dataset, "notes", tuple)()
    plain = isinstance(notes, tuple | list) and all(isinstance(note, str) for note in notes)
    yield _judged("notes", [] if plain else [f"notes() gives {notes!r:.60}; give a tuple of texts"], "texts, or none")


def conform_metric(name: str, device: str = "cpu") -> Iterator[Check]:
    """Check a metric: what its class states, equal values twice, untouched images, the direction that it states.

    Raises:
        RdpbenchError: no such metric, or it needs what is not here.
    """
    cls: Any = registry.load("metric", name)
    if faults := faults_of(cls):
        yield Check("contract", "FAILS", "; ".join(faults))
        return
    meaning = meaning_of(cls)
    better = "higher" if meaning.higher_is_better else "lower"
    yield Check("contract", "ok", f"a metric of kind {meaning.kind}, {better} is better")
    missing = [text.splitlines()[0] for need in cls.needs if (text := need.missing())]
    if missing or cls_beside(cls) or meaning.kind != "pair":
        reason = "; ".join(missing) or "it needs more than an original and a reconstruction: a run scores with it"
        yield Check("values", "-", reason)
        return
    metric = cls(device=device) if getattr(cls, "uses_device", False) else cls()
    original = pictures()["odd"].repeat(4, 0).repeat(4, 1)
    noise = np.random.default_rng(0).normal(size=original.shape)
    copies = [np.clip(original + spread * noise, 0, 255).round().astype(np.uint8) for spread in (0, 4, 32)]
    first, *others = lent = [image.copy() for image in (original, *copies)]
    prepared = metric.prepare(first)
    scores = [number_of(metric.score(prepared, copy)) for copy in others]
    again = [number_of(metric.score(metric.prepare(first), copy)) for copy in others]
    yield _judged("repeat", [f"{scores}, and again {again}"] if scores != again else [], "the same values twice")
    changed = not all(map(np.array_equal, lent, (original, *copies)))
    yield _judged("images", ["it writes into its images"] if changed else [], "it leaves its images as they are")
    best, mild, strong = (score if meaning.higher_is_better else -score for score in scores)
    values = f"itself {scores[0]:.6g}, with little noise {scores[1]:.6g}, with much {scores[2]:.6g}"
    wrong = f"{values}, but {better} is better"
    yield _judged("direction", [] if best >= mild >= strong and best > strong else [wrong], values)

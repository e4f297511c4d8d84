"""From an image to a row and back: encode, store, decode with a fresh object; alone, or images of one size together.

Codecs that say ``batches`` have ``encode_batch(images, sides)``, and most of them ``decode_batch(datas)``. Every image
keeps a bitstream of its own, which decodes alone. Transforms of a batch may sum in another order than those of one
image, so that a decoded value may differ by 1: the row says how large the batch was, and `decode_row` finds its pixels
again.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import math
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

from rdpbench import registry
from rdpbench.assets.hashes import hashes_of
from rdpbench.codecs.contract import (
    Bitstream,
    Codec,
    Side,
    coder_of,
    decode_notes_of,
    facts_of,
    make_ready,
    weights_kind_of,
)
from rdpbench.errors import CodecError, ConfigError
from rdpbench.image import Image, check_image, is_untouched, lent, pixel_sha256
from rdpbench.opened import opened
from rdpbench.provenance import hardware, peak_memory_mb
from rdpbench.results.store.bitstreams import get_picture, put_picture, put_reconstruction
from rdpbench.results.store.calls import NOBODY, Named, setting_of
from rdpbench.results.store.keys import axis_of, build, device_of, facts, file_hashes
from rdpbench.results.store.schema import Row, Score
from rdpbench.results.store.store import Store
from rdpbench.runners.search import search
from rdpbench.runners.task import Task, configuration, judged, new_row
from rdpbench.setting import CodecSetting


@dataclass(frozen=True)
class Setup:
    """What a worker needs to know, beside its chunks."""

    store: Store
    session: str
    device: str
    """As rows name it."""
    batch: int = 1
    """Images of one size that are coded together, by codecs that can."""
    seen_as: str = ""
    """What this process calls the device, if it sees no other."""

    @property
    def here(self) -> str:
        """The device, as codecs and metrics of this process must call it."""
        return self.seen_as or self.device

    def decodes_on(self, row: Row) -> str:
        """Where a stored bitstream is decoded: on a GPU if it was coded on one, which may have been another."""
        return self.here if row.device.startswith("cuda") and self.here.startswith("cuda") else row.device


Coded: TypeAlias = tuple[Row, Image | None]
"""A row with its reconstruction; nothing is done with one whose target is out of range, so there is none."""


class _Encoded(NamedTuple):
    """A bitstream, and what it took."""

    bitstream: Bitstream
    seconds: float
    rate: float | None
    attempts: int = 1


def code(setup: Setup, task: Task, original: Image) -> Coded:
    """Encode an image, at the task's rate or at the one that comes nearest to its target, and decode it again.

    Raises:
        CodecError: what comes back is no bitstream, or no image of this size; or whatever the codec raises.
    """
    note_opened(task)
    if task.setting.target is None:
        codec = _ready(setup, task)
        encoded = _Encoded(*encode(codec, original, side_of(task)), task.setting.rate)
    else:
        encoded = _searched(setup, task, original, task.setting.target)
    [coded] = _finished(setup, [task], [original], [encoded])
    assert not isinstance(coded, CodecError)
    return coded


def code_batch(setup: Setup, tasks: Sequence[Task], originals: Sequence[Image]) -> list[Coded | CodecError]:
    """The same for images at one rate point, together, or why one failed. Seconds are each image's share of all.

    Raises:
        CodecError: as `code`, or another number of bitstreams or images than were given.
    """
    note_opened(tasks[0])
    codec: Any = _ready(setup, tasks[0])
    copies, sides = [lent(original) for original in originals], [side_of(task) for task in tasks]
    started = time.perf_counter()
    given = codec.encode_batch([*copies], sides)
    seconds = (time.perf_counter() - started) / len(tasks)
    for copy, original in zip(copies, originals, strict=True):
        check_untouched(copy, original, "encode_batch()")
    if len(given) != len(tasks):
        raise CodecError(f"a batch of {len(tasks)} images gave {len(given)} bitstreams")
    # What knows which of its images failed says so in their places.
    outcomes: list[Coded | CodecError | None] = [each if isinstance(each, CodecError) else None for each in given]
    good = [number for number, outcome in enumerate(outcomes) if outcome is None]
    encoded = [_Encoded(_checked(given[number]), seconds, tasks[0].setting.rate) for number in good]
    if good:
        chosen, images = [tasks[number] for number in good], [originals[number] for number in good]
        for number, coded in zip(good, _finished(setup, chosen, images, encoded), strict=True):
            outcomes[number] = coded
    return [outcome for outcome in outcomes if outcome is not None]


def _ready(setup: Setup, task: Task) -> Codec:
    """The codec of a task at its rate, loaded: with the own weights that were planned with."""
    codec = build(task.codec, task.setting.rate, setup.here)
    make_ready(codec)
    check_own(codec, json.loads(task.identity)["coder"])
    return codec


def encode(codec: Codec, original: Image, side: Side) -> tuple[Bitstream, float]:
    """The bitstream of an image, and the seconds that it took. The codec gets a copy of its own.

    Raises:
        CodecError: it wrote into its image, or what comes back is no bitstream; or whatever the codec raises.
    """
    copy = lent(original)
    started = time.perf_counter()
    bitstream = codec.encode(copy, side)
    seconds = time.perf_counter() - started
    check_untouched(copy, original, "encode()")
    return _checked(bitstream), seconds


def check_untouched(copy: Image, original: Image, by: str) -> None:
    """Raise `CodecError` if a codec wrote into the image that it was lent: what it coded may not be that image."""
    if not is_untouched(copy, original):
        raise CodecError(
            f"{by} wrote into the image that it was given, so the bits may be of another image. Let it work on a copy: "
            "image.copy(), or torch.from_numpy(image).clone(), since torch does not see that the image is read-only"
        )


def _checked(bitstream: object) -> Bitstream:
    if not isinstance(bitstream, Bitstream):
        raise CodecError(f"encode must return a Bitstream, found {type(bitstream).__name__}; see Bitstream.whole(data)")
    # One of a class of the codec's own is made plain: its length might be another each time.
    return bitstream if type(bitstream) is Bitstream else Bitstream(bitstream.data, bitstream.parts, bitstream.info)


def side_of(task: Task) -> Side:
    """What the encoder sees beside the image."""
    image = task.entry.sample.id if getattr(task.codec.cls, "uses_image_id", False) else ""
    return Side(task.caption.text if task.caption else None, task.seed, image)


def captioning_s(task: Task) -> float:
    """Seconds that a model took for the caption: they are the encoder's."""
    return (task.caption.seconds or 0) if task.caption else 0


def _searched(setup: Setup, task: Task, original: Image, target: float) -> _Encoded:
    """The bitstream that comes nearest to a target, however near that is."""
    axis = axis_of(task.codec)
    assert axis is not None
    bitstreams: dict[float, Bitstream] = {}
    started = time.perf_counter()

    def measure(rate: float) -> float:
        bitstreams[rate], _ = encode(build(task.codec, rate, setup.here), original, side_of(task))
        return 8 * len(bitstreams[rate].data) / (original.shape[0] * original.shape[1])

    nearest = search(axis, target, measure, task.tolerance)
    seconds = (time.perf_counter() - started) / nearest.attempts
    return _Encoded(bitstreams[nearest.setting], seconds, float(nearest.setting), nearest.attempts)


def _finished(
    setup: Setup, tasks: Sequence[Task], originals: Sequence[Image], encoded: Sequence[_Encoded]
) -> list[Coded | CodecError]:
    """Decode with a fresh object, check the images, store the bitstreams; a row for each, or why there is none."""
    decoder = build(tasks[0].codec, encoded[0].rate, setup.here)
    make_ready(decoder)
    datas, count = [piece.bitstream.data for piece in encoded], len(tasks)
    started = time.perf_counter()
    images = [decoder.decode(datas[0])] if count == 1 else decode_all(decoder, datas)
    seconds = (time.perf_counter() - started) / count
    if len(encoded) != count or len(images) != count:
        raise CodecError(f"a batch of {count} images gave {len(encoded)} bitstreams and {len(images)} images")
    decoded = _Batch(setup, decoder, seconds, count, files_of(tasks[0], decoder))
    outcomes: list[Coded | CodecError] = []
    for task, original, piece, image in zip(tasks, originals, encoded, images, strict=True):
        try:
            outcomes.append(decoded.row(task, original, piece, image))
        except CodecError as error:
            if count == 1:
                raise
            outcomes.append(error)
    return outcomes


@dataclass(frozen=True)
class _Batch:
    """What images that were decoded together share."""

    setup: Setup
    decoder: Codec
    seconds: float
    count: int
    files: str

    def row(self, task: Task, original: Image, encoded: _Encoded, image: Image | CodecError) -> Coded:
        """Check an image and store its bitstream."""
        if isinstance(image, CodecError):
            raise image
        setup, (bitstream, encode_s, rate, attempts) = self.setup, encoded
        reconstruction = check_image(image, "the decoded image")
        if reconstruction.shape != original.shape:
            raise CodecError(f"decoded to {reconstruction.shape}, but the image is {original.shape}")
        planned = new_row(task, setup.session, setup.device, status="ok")
        grade = planned.grade
        bits: float | None = 8 * len(bitstream.data)
        if grade == "reported":  # the bitstream may be a note that stands for it
            stated = bitstream.info["reported bits"]
            bits = float(stated) if stated else None
        row = replace(
            planned,
            rate=rate,
            configuration=configuration(task.codec, rate),
            bytes=None if bits is None else math.ceil(bits / 8),
            parts=json.dumps(dict(bitstream.parts) if grade != "reported" else {}),
            bpp=None if bits is None else bits / (original.shape[0] * original.shape[1]),
            legacy=_legacy(bitstream.info.get("legacy", "{}")),
            bitstream_sha256=setup.store.bitstreams.put(bitstream.data),
            reconstruction_sha256=pixel_sha256(reconstruction),
            verified="fresh_object" if grade == "decoded" else "",
            encode_s=encode_s + captioning_s(task),
            decode_s=self.seconds,
            peak_memory_mb=peak_memory_mb(),
            hardware=json.dumps(hardware(device_of(task.codec, setup.here))),
            batch=self.count,
            command=bitstream.info.get("command", ""),
            info=_texts({**bitstream.info, **decode_notes_of(self.decoder)}),
            attempts=attempts,
            files=self.files,
        )
        if not row.proven:  # no decoder gives it again
            put_picture(setup.store, row, reconstruction)
        if task.setting.target is not None:
            row = judged(row, task.tolerance)
        in_range = row.status == "ok"
        if task.keep and in_range:
            put_reconstruction(setup.store, row, reconstruction)
        return row, reconstruction if in_range else None


def decode_all(codec: Codec, datas: Sequence[bytes]) -> Sequence[Image]:
    """Decode bitstreams of a batch, together where the codec can."""
    if facts_of(type(codec)).decodes_batches:
        together: Any = codec
        images: Sequence[Image] = together.decode_batch(datas)
        return images
    # Copies: a decoder may use one buffer for all that it decodes.
    return [check_image(codec.decode(data), "the decoded image").copy() for data in datas]


def _legacy(text: str) -> str:
    """Rates as other publications count them, if that is what they are: a column that readers add up."""
    try:
        bits = json.loads(text)
    except ValueError:
        bits = None
    if not isinstance(bits, dict) or not all(isinstance(number, (int, float)) for number in bits.values()):
        raise CodecError(f"Bitstream.info['legacy'] must be JSON of bits by name, found {text!r:.80}")
    return text


LONGEST_TEXT, MOST_TEXTS = 2000, 50
"""Of what a codec tells beside an image: characters of a text, and texts; more is cut, with a mark."""


def _texts(info: Mapping[str, str]) -> str:
    """What a codec tells beside an image, as JSON; what has a column of its own is not in it."""
    texts = {name: text for name, text in info.items() if name not in ("legacy", "command")}
    kept = {_cut(name): _cut(text) for name, text in list(texts.items())[:MOST_TEXTS]}
    if len(texts) > MOST_TEXTS:
        kept["…"] = f"{len(texts) - MOST_TEXTS} more are not kept"
    return json.dumps(kept)


def _cut(text: str) -> str:
    if len(text) <= LONGEST_TEXT:
        return text
    return f"{text[:LONGEST_TEXT]}… (cut here: {len(text):,} characters)"


# Files of the user's that a result depends on


def check_own(codec: Codec, then: Mapping[str, str]) -> None:
    """Raise `CodecError` if own weights are not those that a row or plan names: such files change under one name."""
    if weights_kind_of(codec) != "own":
        return
    hashes = {name: text for name, text in coder_of(codec).items() if text.startswith(("own:", "sha256:", "missing"))}
    if changed := [name for name, text in hashes.items() if text != then.get(name)]:
        raise CodecError(
            f"the user's files of {', '.join(changed)} hold other weights now than were planned or coded with"
        )


def note_opened(task: Task) -> None:
    """From here on, what a codec of the user's opens is noted as of this task."""
    if place := registry.own_place("codec", task.codec.use):
        opened(place).begin()


def opened_by(task: Task) -> str:
    """The files that a codec of the user's opened in this process, with their sha256, as JSON."""
    place = registry.own_place("codec", task.codec.use)
    return json.dumps(hashes_of(opened(place).now()), sort_keys=True) if place else "{}"


def files_of(task: Task, codec: Codec) -> str:
    """The files that a codec of the user's opened in this process or has as fields, with their sha256, as JSON.

    None are noted of codecs that ship: their keys say what they are made of.

    Raises:
        CodecError: it is not what was planned any more, so what it made is not the result of this task.
    """
    place = registry.own_place("codec", task.codec.use)
    if not place:
        return "{}"
    declared = file_hashes(codec)
    now = [registry.source_sha256("codec", task.codec.use), *declared.values()]
    if any(sha256 not in task.identity for sha256 in now):
        raise CodecError(
            f"{place}, what it imports, or a file that it has as a field, changed since this run was planned; "
            "run the command again"
        )
    return json.dumps({**json.loads(opened_by(task)), **declared}, sort_keys=True)


# Decoding what is stored


@contextlib.contextmanager
def codec_of(store: Store, row: Row, codec: CodecSetting | Named, device: str = "") -> Iterator[Codec]:
    """The codec that made a row, to decode with inside; ``codec`` and ``device`` as for `decode_row`."""
    setting = codec if isinstance(codec, CodecSetting) else setting_of(store, row, codec)
    from_row = setting is not codec and setting.use in registry.BUILTIN["codec"]
    with registry.installed_only() if from_row else contextlib.nullcontext():
        yield build(setting, row.rate, device or row.device)


def decode_row(
    store: Store, row: Row, codec: CodecSetting | Named = NOBODY, device: str = "", data: bytes = b""
) -> Image:
    """Decode a row's stored bitstream as it was decoded, or on another ``device``; or other ``data`` of its image.

    By ``codec``: the setting, where the command at hand names it; else what the user says of codecs (`setting_of`).
    """
    if not row.proven:
        return get_picture(store, row)
    with codec_of(store, row, codec, device) as decoder:
        data = data or store.bitstreams.get(row.bitstream_sha256)
        check_own(decoder, json.loads(row.coder))
        image = check_image(decoder.decode(data), "the decoded image")
        decodes_batches = facts_of(type(decoder)).decodes_batches
        if row.batch > 1 and decodes_batches and pixel_sha256(image) != row.reconstruction_sha256:
            # What an image becomes in a batch depends on its size and on its place in it, not on the other images.
            copies = [check_image(copy, "the decoded image") for copy in decode_all(decoder, [data] * row.batch)]
            return next((copy for copy in copies if pixel_sha256(copy) == row.reconstruction_sha256), image)
        return image


def on_hardware(device: str, stated: str) -> str:
    """A device in words, with what a row or process states of it as JSON.

    >>> on_hardware("cuda:1", '{"name": "NVIDIA L4"}'), on_hardware("cpu", "")
    ('cuda:1 (NVIDIA L4)', 'cpu')
    """
    return f"{device} ({name})" if (name := json.loads(stated or "{}").get("name")) else device


def why_other_pixels(row: Row, device: str) -> str:
    """What to know of a bitstream that a device, as it is called here, decodes to other pixels than were recorded."""
    coded, here = on_hardware(row.device, row.hardware), on_hardware(device, json.dumps(hardware(device)))
    return f"coded on {coded}, decoded on {here}{bound_to_device(row)}"


def bound_to_device(row: Row) -> str:
    """What to type where a codec's bitstreams are sure to decode on their own kind of device only; or nothing."""
    if json.loads(row.configuration or "{}").get("portable") is not False:
        return ""
    return "; codec.options.portable=true writes bitstreams whose symbols do not depend on the machine"


# Several decodes of one bitstream: what a stochastic decoder invents differs, and `metrics.diversity` says how much.
#
# Decode 0 is the row's reconstruction, drawn with the seed in the container. The seeds of the others follow from the
# bitstream and their number, so that anybody who has the bytes can repeat them, and the first five of eight are those
# of five. They are not stored: their hash stands in the note of each value made of them.

DETERMINISTIC = "not decoded again: this decoder draws no random numbers"
_NOTE = re.compile(r"pixels of decodes 1 to (\d+): sha256 ([0-9a-f]{64})")


def decodes_of(metric: str) -> int:
    """How many decodes a metric compares; 0 for a metric of one reconstruction.

    >>> decodes_of("psnr")
    0
    """
    return int(getattr(registry.load("metric", metric), "decodes", 0))


def is_stochastic(setting: CodecSetting) -> bool:
    """Does the decoder draw random numbers with a seed that can be given? False: it is deterministic.

    Raises:
        ConfigError: it may draw random numbers, and nobody can give it a seed.
    """
    stated, takes = facts(setting), "seed" in inspect.signature(setting.cls.decode).parameters
    if stated.stochastic and takes:
        return True
    if stated.stochastic:
        why = "its class says stochastic, but its decode() takes no seed"
    elif takes:
        why = "its decode() takes a seed, but its class does not say stochastic = True"
    elif stated.seeded:
        why = "it draws random numbers (seeded), but its decode() takes no seed"
    else:
        return False
    raise ConfigError(
        f"codec {setting.name!r} cannot decode one bitstream several times with other random numbers: {why}.\n"
        "Leave it out of this command, or leave out decodes= and the metrics diversity/...; a codec of your own needs "
        "both: stochastic = True, and decode(self, data, *, seed=None)"
    )


def decode_seed(data: bytes, index: int) -> int:
    """The seed of decode ``index``, from 1: 32 bits of the sha256 of the bitstream, its own seed in it, and the index.

    >>> decode_seed(b"bitstream", 1)
    2889982954
    """
    digest = hashlib.sha256(hashlib.sha256(data).digest() + index.to_bytes(4, "big"))
    return int.from_bytes(digest.digest()[:4], "big")


def decode_further(codec: Codec, data: bytes, count: int) -> list[Image]:
    """Decodes 1 to ``count - 1`` of a bitstream.

    Raises:
        CodecError: or whatever the codec raises.
    """
    seeded: Any = codec
    seeds = [decode_seed(data, index) for index in range(1, count)]
    # Copies: a decoder may use one buffer for all that it decodes.
    images = [check_image(seeded.decode(data, seed=seed), "a further decode").copy() for seed in seeds]
    if len({image.shape for image in images}) > 1:
        raise CodecError(f"decodes of one bitstream have several sizes: {sorted({image.shape for image in images})}")
    return images


def further_of(
    store: Store, row: Row, count: int, codec: CodecSetting | Named = NOBODY, device: str = ""
) -> list[Image]:
    """Decodes 1 to ``count - 1`` of a row's stored bitstream; ``codec`` and ``device`` as for `decode_row`."""
    with codec_of(store, row, codec, device) as decoder:
        return decode_further(decoder, store.bitstreams.get(row.bitstream_sha256), count)


def fingerprint(images: Iterable[Image]) -> str:
    """sha256 over the pixel hashes of images, in their order.

    >>> len(fingerprint([]))
    64
    """
    return hashlib.sha256("".join(pixel_sha256(image) for image in images).encode()).hexdigest()


def note_of(further: Sequence[Image]) -> str:
    """What stands beside a value made of these further decodes."""
    return f"pixels of decodes 1 to {len(further)}: sha256 {fingerprint(further)}"


def noted(scores: Iterable[Score]) -> tuple[int, str] | None:
    """The most decodes that one of a row's values was made of, the reconstruction counted, and their fingerprint.

    >>> noted([Score("", "", "diversity/deviation/5", 2.5, note=f"pixels of decodes 1 to 4: sha256 {'0' * 64}")])[0]
    5
    """
    matches = [match for score in scores if score.value is not None and (match := _NOTE.fullmatch(score.note))]
    return max(((int(match[1]) + 1, match[2]) for match in matches), default=None)


def refuted(scores: Iterable[Score], finding: str) -> list[Score]:
    """Values made of further decodes that did not come out again, taken back."""
    wrong = [score for score in scores if _NOTE.fullmatch(score.note)]
    return [replace(score, value=None, error=f"refuted: {finding}", note="") for score in wrong]

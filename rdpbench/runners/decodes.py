"""Several decodes of one bitstream: what a stochastic decoder invents differs, and `metrics.diversity` says how much.

Decode 0 is the row's reconstruction, drawn with the seed in the container. The others are drawn with seeds that follow
from the bitstream and their number, so that anybody who has the bytes can repeat them, and the first five of eight are
those of five. They are not stored: their hash stands in the note of each value made of them, and `rdpbench verify`
decodes them again.

A deterministic decoder has a diversity of exactly 0: it is not asked again. A codec that draws random numbers
(``seeded``), but whose ``decode`` takes no seed, stops the plan: its decodes would all be one, which says nothing of
it. So does one that says neither or both: ``stochastic`` and the seed of ``decode`` belong together.
"""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from rdpbench import registry
from rdpbench.codecs.contract import Codec
from rdpbench.errors import CodecError, ConfigError
from rdpbench.image import Image, check_image, pixel_sha256
from rdpbench.results.store.schema import Row, Score
from rdpbench.results.store.store import Store
from rdpbench.runners.coding import NOBODY, Named, codec_of
from rdpbench.setting import CodecSetting

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
    cls: Any = registry.load("codec", setting.use)
    stated, takes = bool(getattr(cls, "stochastic", False)), "seed" in inspect.signature(cls.decode).parameters
    if stated and takes:
        return True
    if stated:
        why = "its class says stochastic, but its decode() takes no seed"
    elif takes:
        why = "its decode() takes a seed, but its class does not say stochastic = True"
    elif getattr(cls, "seeded", False):
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
    found = [check_image(seeded.decode(data, seed=seed), "a further decode").copy() for seed in seeds]
    if len({image.shape for image in found}) > 1:
        raise CodecError(f"decodes of one bitstream have several sizes: {sorted({image.shape for image in found})}")
    return found


def further_of(store: Store, row: Row, count: int, codec: CodecSetting | Named = NOBODY) -> list[Image]:
    """Decodes 1 to ``count - 1`` of a row's stored bitstream; ``codec`` as for `decode_row`."""
    with codec_of(row, codec) as decoder:
        return decode_further(decoder, store.get_bitstream(row.bitstream_sha256), count)


def fingerprint(images: Iterable[Image]) -> str:
    """sha256 over the pixel hashes of images, in their order.

    >>> len(fingerprint([]))
    64
    """
    return hashlib.sha256("".join(pixel_sha256(image) for image in images).encode()).hexdigest()


def note(further: Sequence[Image]) -> str:
    """What stands beside a value made of these further decodes."""
    return f"pixels of decodes 1 to {len(further)}: sha256 {fingerprint(further)}"


def noted(scores: Iterable[Score]) -> tuple[int, str] | None:
    """The most decodes that one of a row's values was made of, the reconstruction counted, and their fingerprint.

    >>> noted([Score("", "", "diversity/deviation/5", 2.5, note=f"pixels of decodes 1 to 4: sha256 {'0' * 64}")])[0]
    5
    """
    found = [match for score in scores if score.value is not None and (match := _NOTE.fullmatch(score.note))]
    stated = [(int(match[1]) + 1, match[2]) for match in found]
    return max(stated) if stated else None


def refuted(scores: Iterable[Score], finding: str) -> list[Score]:
    """Values made of further decodes that did not come out again, taken back."""
    wrong = [score for score in scores if _NOTE.fullmatch(score.note)]
    return [replace(score, value=None, error=f"refuted: {finding}", note="") for score in wrong]

"""What generative codecs send, as bytes: seeds, numbers below V, tokens, captions, floats.

A **seed** is the first section of the container, a varint: the number that the decoder's noise is drawn with. Of N
candidates of run seed s, number k is drawn with ``s N + k``, so that runs share no noise; the index that chooses a
candidate is thereby in the field, and paid for. `with_seed` writes another one: another sample of the same bitstream.

**Indices** of a codebook with V entries are one number in base V, big endian, filled up to bytes: ``ceil(n log2 V)``
bits.

**Tokens** of a prompt or caption are ``fixed``, 16 bits each, big endian; ``rank``, as indices of the vocabulary, whose
number the bytes tell; or ``zlib-text``, the text that they spell, deflated, as Text+Sketch sends it. Four of five
prompts come back from text as other tokens: the decoder, and thus the encoder's choice of a candidate, goes by these.

**Captions** are coded as tokens (``fixed``, ``rank``; at most 75, all that the text tower reads) or as deflated text
(``zlib``, as PerCo has it; ``deflate`` without zlib's 6 bytes of header and checksum). All paint the same.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from rdpbench.codecs.container import read_varint, varint
from rdpbench.codecs.diffusion.bases import Vocabulary
from rdpbench.errors import BitstreamError, CodecError

CODES = ("fixed", "rank", "zlib-text")
CAPTION_CODES = ("zlib", "deflate", "fixed", "rank")
MOST = 75
"""Tokens that fit between both ends of what a text tower reads."""
MOST_TEXT = 1 << 14
"""Bytes of text; more are refused, so that a small section cannot inflate without bound."""


def pack_seed(seed: int) -> bytes:
    """A seed of 0 to 2^63 - 1.

    >>> pack_seed(3)
    b'\\x03'
    """
    if not 0 <= seed < 1 << 63:
        raise CodecError(f"seed {seed} is not within 0 and 2^63 - 1")
    return varint(seed)


def unpack_seed(section: bytes) -> int:
    """The seed of a section that holds nothing else."""
    seed, end = read_varint(section, 0)
    if end != len(section) or pack_seed(seed) != section:
        raise BitstreamError("the seed's section holds more than a seed")
    return seed


def with_seed(data: bytes, seed: int) -> bytes:
    """The same bitstream with another seed, for another sample of what it describes.

    Raises:
        BitstreamError: these bytes have no seed where generative codecs have theirs.

    >>> from rdpbench.codecs.container import pack
    >>> with_seed(pack(64, 64, {"seed": pack_seed(3), "prompt": b"ab"}).data, 300).hex()
    '404002ac02026162'
    """
    _, width_at = read_varint(data, 0)
    _, seed_at = read_varint(data, width_at)
    length, start = read_varint(data, seed_at)
    if start + length > len(data):
        raise BitstreamError("the bitstream ends inside its seed")
    unpack_seed(data[start : start + length])
    section = pack_seed(seed)
    return data[:seed_at] + varint(len(section)) + section + data[start + length :]


@cache
def index_bits(count: int, entries: int) -> int:
    """Bits of so many indices as one number.

    >>> index_bits(1024, 256), index_bits(1024, 8196), index_bits(16, 49408)
    (8192, 13313, 250)
    """
    largest: int = entries**count - 1
    return largest.bit_length()


def index_bytes(count: int, entries: int) -> int:
    """Bytes of so many indices."""
    return -(-index_bits(count, entries) // 8)


def pack_indices(indices: Sequence[int] | NDArray[np.int64], entries: int) -> bytes:
    """Indices of a codebook of so many entries.

    Raises:
        CodecError: an index that is in no codebook of this size.

    >>> pack_indices([1, 2], 256)
    b'\\x01\\x02'
    """
    flat = np.asarray(indices, np.int64).ravel()
    if flat.size and not 0 <= int(flat.min()) <= int(flat.max()) < entries:
        raise CodecError(f"indices from {flat.min()} to {flat.max()} are not of a codebook of {entries} entries")
    if not entries & (entries - 1):  # a power of two: the same number, bit by bit
        width = entries.bit_length() - 1
        bits = flat[:, None] >> np.arange(width - 1, -1, -1) & 1
        filled = np.concatenate([np.zeros(-bits.size % 8, np.int64), bits.ravel()])
        return np.packbits(filled.astype(np.uint8)).tobytes()
    number = 0
    for index in flat.tolist():
        number = number * entries + index
    return number.to_bytes(index_bytes(flat.size, entries), "big")


def unpack_indices(section: bytes, count: int, entries: int) -> NDArray[np.int64]:
    """So many indices.

    Raises:
        BitstreamError: bytes that are not as many, or of another codebook.

    >>> unpack_indices(b"\\x01\\x02", 2, 256).tolist()
    [1, 2]
    """
    size = index_bytes(count, entries)
    if len(section) != size:
        raise BitstreamError(f"{count} indices among {entries} are {size} bytes, found {len(section)}")
    if not entries & (entries - 1):
        width = entries.bit_length() - 1
        bits = np.unpackbits(np.frombuffer(section, np.uint8))
        first = bits.size - count * width
        if bits[:first].any():
            raise BitstreamError(f"bits before {count} indices among {entries} are not zero")
        return bits[first:].reshape(count, width).astype(np.int64) @ (1 << np.arange(width - 1, -1, -1))
    number = int.from_bytes(section, "big")
    if number >= entries**count:
        raise BitstreamError(f"{size} bytes are no {count} indices among {entries}")
    indices = np.empty(count, np.int64)
    for place in range(count - 1, -1, -1):
        number, indices[place] = divmod(number, entries)
    return indices


def pack_tokens(ids: Sequence[int], code: str, words: Vocabulary) -> bytes:
    """Token ids as bytes; raises `CodecError` for ids that are not in the vocabulary, or more than a tower reads."""
    if len(ids) > MOST or not all(0 <= token < words.size for token in ids):
        raise CodecError(f"{len(ids)} ids up to {max(ids, default=0)} are no prompt of at most {MOST} tokens")
    if code == "zlib-text":
        return zlib.compress(words.decode(ids).encode(), 9)
    return np.array(ids, ">u2").tobytes() if code == "fixed" else pack_indices(ids, words.size)


def unpack_tokens(section: bytes, code: str, words: Vocabulary, suffix: str = "") -> list[int]:
    """The ids of a prompt as the decoder reads them, those of a suffix after them; raises `BitstreamError`."""
    if code == "zlib-text":
        return words.encode(inflate(section) + suffix)
    if code == "fixed":
        if len(section) % 2:
            raise BitstreamError(f"{len(section)} bytes are no tokens of 16 bits")
        ids = np.frombuffer(section, ">u2").tolist()
    else:
        # Each token adds more than a byte, so that no two counts have the same number of bytes.
        counts = [count for count in range(MOST + 1) if index_bytes(count, words.size) == len(section)]
        if not counts or int.from_bytes(section, "big") >= words.size ** counts[0]:
            raise BitstreamError(f"{len(section)} bytes are no tokens in base {words.size}")
        ids = unpack_indices(section, counts[0], words.size).tolist()
    if len(ids) > MOST or max(ids, default=0) >= words.size:
        raise BitstreamError(f"{len(ids)} ids up to {max(ids, default=0)} are no prompt of at most {MOST} tokens")
    return [*ids, *words.encode(suffix)]


def pack_caption(caption: str, code: str, words: Vocabulary) -> bytes:
    """A caption; of a long one, only what the text tower reads is sent as tokens, and a long text is a `CodecError`."""
    if code in CODES:
        return pack_tokens(words.encode(caption)[:MOST], code, words)
    text = caption.encode()
    if len(text) > MOST_TEXT:
        raise CodecError(f"a caption of {len(text)} bytes; at most {MOST_TEXT} are taken")
    return zlib.compress(text, 9, wbits=_wbits(code))


def unpack_caption(section: bytes, code: str, words: Vocabulary) -> list[int]:
    """The tokens of a caption; raises `BitstreamError` for bytes that are none."""
    if code in CODES:
        return unpack_tokens(section, code, words)
    return words.encode(inflate(section, "caption", _wbits(code)))


def _wbits(code: str) -> int:
    return zlib.MAX_WBITS if code == "zlib" else -zlib.MAX_WBITS  # below zero: no header, no checksum


def inflate(section: bytes, what: str = "text", wbits: int = zlib.MAX_WBITS) -> str:
    """A deflated text of at most `MOST_TEXT` bytes.

    >>> inflate(zlib.compress("naïve".encode()))
    'naïve'
    """
    inflater = zlib.decompressobj(wbits)
    try:
        text = inflater.decompress(section, MOST_TEXT)
        if not inflater.eof or inflater.unused_data:
            raise BitstreamError(f"the {what} does not end with its section, or has more than {MOST_TEXT} bytes")
        return text.decode("utf-8")
    except (zlib.error, UnicodeDecodeError) as error:
        raise BitstreamError(f"the {what} is damaged: {error}") from error


def unpack_floats(section: bytes, shape: tuple[int, ...], bits: int = 32) -> NDArray[np.float32]:
    """Little-endian numbers of 16 or 32 bits.

    Raises:
        BitstreamError: bytes that are not as many, or not finite.

    >>> float(unpack_floats(np.ones((1, 2), "<f4").tobytes(), (1, 2)).sum())
    2.0
    """
    count, size = math.prod(shape), math.prod(shape) * bits // 8
    if len(section) != size:
        raise BitstreamError(f"{count} numbers are {size} bytes, found {len(section)}")
    numbers = np.frombuffer(section, f"<f{bits // 8}").reshape(shape).astype(np.float32)
    if not np.isfinite(numbers).all():
        raise BitstreamError("numbers that are not finite: the bitstream is damaged")
    return numbers

"""PerCo's sections as bytes: indices into a codebook, captions, and vectors that were not quantised.

**Indices** are one number in base V, big endian, filled up to bytes: ``ceil(n log2 V)`` bits. Where V is a power of two
these are ``log2 V`` bits each, one after the other.

**Captions** are coded in one of four ways:

===========  ========================================================================================================
``zlib``     UTF-8, deflated, as PerCo has it
``deflate``  the same without zlib's header and checksum, which are 6 bytes
``fixed``    CLIP's tokens, 16 bits each: at most 75, all that the text tower reads
``rank``     the same tokens as one number: 15.6 bits each
===========  ========================================================================================================

All four condition the decoder equally: it is shown tokens, and text goes through the same table at either end.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from rdpbench.codecs import legacy
from rdpbench.codecs.diffusion import fields
from rdpbench.codecs.diffusion.bases import Vocabulary
from rdpbench.errors import BitstreamError, CodecError

CAPTION_CODES = ("zlib", "deflate", "fixed", "rank")
_RAW = -zlib.MAX_WBITS
"""zlib's word for a stream without header and checksum."""


@cache
def index_bits(count: int, entries: int) -> int:
    """Bits of so many indices as one number.

    >>> index_bits(1024, 256), index_bits(1024, 8196)
    (8192, 13313)
    """
    largest: int = entries**count - 1
    return largest.bit_length()


def index_bytes(count: int, entries: int) -> int:
    """Bytes of so many indices.

    >>> index_bytes(64, 256)
    64
    """
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
    if not entries & (entries - 1):
        width = entries.bit_length() - 1
        bits = flat[:, None] >> np.arange(width - 1, -1, -1) & 1
        filled = np.concatenate([np.zeros(-bits.size % 8, np.int64), bits.ravel()])
        return np.packbits(filled.astype(np.uint8)).tobytes()
    number = 0
    for one in flat.tolist():
        number = number * entries + one
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
    out = np.empty(count, np.int64)
    for at in range(count - 1, -1, -1):
        number, out[at] = divmod(number, entries)
    return out


def pack_vectors(vectors: NDArray[np.float32]) -> bytes:
    """Vectors in single precision, little endian."""
    return vectors.astype("<f4").tobytes()


def unpack_vectors(section: bytes, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Vectors of a shape.

    Raises:
        BitstreamError: bytes that are not as many, or not finite.

    >>> float(unpack_vectors(pack_vectors(np.ones((1, 2), np.float32)), (1, 2)).sum())
    2.0
    """
    if len(section) != 4 * math.prod(shape):
        raise BitstreamError(f"{math.prod(shape)} numbers are {4 * math.prod(shape)} bytes, found {len(section)}")
    found = np.frombuffer(section, "<f4").reshape(shape)
    if not np.isfinite(found).all():
        raise BitstreamError("vectors that are not finite: the bitstream is damaged")
    return found.astype(np.float32)


def pack_caption(caption: str, code: str, words: Vocabulary) -> bytes:
    """A caption; what the text tower would not read of a long one is left out where tokens are sent.

    Raises:
        CodecError: a text of more than `fields.MOST_TEXT` bytes.
    """
    if code in ("fixed", "rank"):
        return fields.pack_tokens(words.encode(caption)[: fields.MOST], code, words)
    text = caption.encode()
    if len(text) > fields.MOST_TEXT:
        raise CodecError(f"a caption of {len(text)} bytes; at most {fields.MOST_TEXT} are taken")
    return zlib.compress(text, 9, wbits=zlib.MAX_WBITS if code == "zlib" else _RAW)


def unpack_caption(section: bytes, code: str, words: Vocabulary) -> list[int]:
    """The tokens of a caption.

    Raises:
        BitstreamError: bytes that are no caption.
    """
    if code in ("fixed", "rank"):
        return fields.unpack_tokens(section, code, words)
    return words.encode(_inflated(section, zlib.MAX_WBITS if code == "zlib" else _RAW))


def _inflated(section: bytes, kind: int) -> str:
    inflater = zlib.decompressobj(kind)
    try:
        text = inflater.decompress(section, fields.MOST_TEXT)
        if not inflater.eof or inflater.unused_data:
            raise BitstreamError(
                f"the caption does not end with its section, or has more than {fields.MOST_TEXT} bytes"
            )
        return text.decode("utf-8")
    except (zlib.error, UnicodeDecodeError) as error:
        raise BitstreamError(f"the caption is damaged: {error}") from error


def coded_bytes(count: int, entries: int) -> int:
    """Bytes that the official arithmetic coder makes of as many indices: two bits more to end, filled up.

    >>> coded_bytes(64, 256)
    65
    """
    return -(-(index_bits(count, entries) + 2) // 8)


def printed(caption: str | None, count: int, entries: int, size: tuple[int, int]) -> dict[str, float]:
    """Bits as PerCo (SD) prints them: ``perco`` for a dataset, ``pickle`` for a file, with what is in them.

    Args:
        caption: None if none is sent.
        count: of the indices; 0 if none are sent.
        entries: V.
        size: height and width.

    >>> printed("a red door", 64, 256, (512, 512))["indices"]
    512
    """
    text = b"" if caption is None else zlib.compress(caption.encode(), 9)
    coded = coded_bytes(count, entries) if count else 0
    # Lengths alone make the size of a pickle.
    inner = [bytes(legacy.pickled(part) // 8) for part in (text, bytes(coded), size)]
    return {
        "perco": 8 * (len(text) + coded),
        "pickle": legacy.pickled(dict(enumerate(inner))),
        "caption-zlib": 8 * len(text),
        "indices": index_bits(count, entries),
    }

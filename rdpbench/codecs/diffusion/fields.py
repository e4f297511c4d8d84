"""Seed and tokens as bytes.

The seed is the first section of a generative codec's container, a varint: the number that the decoder's noise is drawn
with. Of N candidates of run seed s, number k is drawn with ``s N + k``, so that runs share no noise; the index that
chooses a candidate is thereby in the field, and paid for. `with_seed` writes another one: another sample of the same
bitstream, nothing encoded again.

Tokens are coded in one of three ways:

=============  ======================================================================================================
``fixed``      16 bits each, big endian: 16 tokens are 256 bits
``rank``       all of them as one number in base V, the size of the vocabulary: ``ceil(n log2 V)`` bits, filled up to
               bytes; 16 tokens of CLIP's 49408 are 250 bits. The number of bytes tells the number of tokens
``zlib-text``  the text that they spell, in UTF-8, deflated, as Text+Sketch sends it. It does not survive: four of five
               sequences of tokens come back as others. What comes back is what the decoder, and thus the encoder's
               choice of a candidate, goes by
=============  ======================================================================================================
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

from rdpbench.codecs.container import read_varint, varint
from rdpbench.codecs.diffusion.bases import Vocabulary
from rdpbench.errors import BitstreamError, CodecError

CODES = ("fixed", "rank", "zlib-text")
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
    _, at = read_varint(data, 0)
    _, at = read_varint(data, at)
    length, start = read_varint(data, at)
    if start + length > len(data):
        raise BitstreamError("the bitstream ends inside its seed")
    unpack_seed(data[start : start + length])
    made = pack_seed(seed)
    return data[:at] + varint(len(made)) + made + data[start + length :]


def rank_bits(count: int, size: int) -> int:
    """Bits of so many tokens as one number.

    >>> rank_bits(16, 49408)
    250
    """
    largest: int = size**count - 1
    return largest.bit_length()


def pack_tokens(ids: Sequence[int], code: str, words: Vocabulary) -> bytes:
    """Token ids as bytes.

    Raises:
        CodecError: an id that is not in the vocabulary, or more ids than a text tower reads.
    """
    if len(ids) > MOST or not all(0 <= one < words.size for one in ids):
        raise CodecError(f"{len(ids)} ids up to {max(ids, default=0)} are no prompt of at most {MOST} tokens")
    if code == "zlib-text":
        return zlib.compress(words.decode(ids).encode(), 9)
    if code == "fixed":
        return b"".join(one.to_bytes(2, "big") for one in ids)
    number = 0
    for one in ids:
        number = number * words.size + one
    return number.to_bytes(math.ceil(rank_bits(len(ids), words.size) / 8), "big")


def unpack_tokens(section: bytes, code: str, words: Vocabulary, suffix: str = "") -> list[int]:
    """The ids of a prompt as the decoder reads them, those of a suffix after them.

    Raises:
        BitstreamError: bytes that are no prompt.
    """
    if code == "zlib-text":
        return words.encode(inflate(section) + suffix)
    ids = _fixed(section) if code == "fixed" else _ranked(section, words.size)
    if len(ids) > MOST or any(one >= words.size for one in ids):
        raise BitstreamError(f"{len(ids)} ids up to {max(ids, default=0)} are no prompt of at most {MOST} tokens")
    return ids + words.encode(suffix)


def inflate(section: bytes) -> str:
    """A deflated text of at most `MOST_TEXT` bytes.

    >>> inflate(zlib.compress("naïve".encode()))
    'naïve'
    """
    inflater = zlib.decompressobj()
    try:
        text = inflater.decompress(section, MOST_TEXT)
        if not inflater.eof or inflater.unused_data:
            raise BitstreamError(f"the text does not end where its section does, or has more than {MOST_TEXT} bytes")
        return text.decode("utf-8")
    except (zlib.error, UnicodeDecodeError) as error:
        raise BitstreamError(f"the text is damaged: {error}") from error


def _fixed(section: bytes) -> list[int]:
    if len(section) % 2:
        raise BitstreamError(f"{len(section)} bytes are no tokens of 16 bits")
    return [int.from_bytes(section[at : at + 2], "big") for at in range(0, len(section), 2)]


def _ranked(section: bytes, size: int) -> list[int]:
    # Each token adds more than a byte, so that no two counts have the same number of bytes.
    counts = range(MOST + 1)
    found = [count for count in counts if math.ceil(rank_bits(count, size) / 8) == len(section)]
    number = int.from_bytes(section, "big")
    if not found or number >= size ** found[0]:
        raise BitstreamError(f"{len(section)} bytes are no tokens in base {size}")
    ids = []
    for _ in range(found[0]):
        number, one = divmod(number, size)
        ids.append(one)
    return ids[::-1]

"""CLIP's tokens: text to ids and back. All CLIP networks and Stable Diffusion's text towers share them.

Ids do not survive a trip through text: most sequences of ids spell a text that is cut into other ids (`survives`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

ENDS = ("<|startoftext|>", "<|endoftext|>")
SPELLED = {"<|startoftext|>": "<start_of_text>", "<|endoftext|>": "<end_of_text>"}
"""OpenCLIP's names of the ends, which stand in texts that Text+Sketch sends."""
PRINTED = 188
"""Bytes that stand for themselves."""


def letters() -> list[str]:
    """The printable stand-ins of the 256 bytes, in the order of the vocabulary.

    >>> len(set(letters())), letters()[0]
    (256, '!')
    """
    return [chr(byte if at < PRINTED else 256 + at - PRINTED) for at, byte in enumerate(_order())]


def _order() -> list[int]:
    """Bytes that print come first."""
    printed = [*range(ord("!"), 127), *range(0xA1, 0xAD), *range(0xAE, 256)]
    return printed + sorted(set(range(256)) - set(printed))


class Vocabulary:
    """A CLIP tokenizer and the size of the embedding that goes with it."""

    def __init__(self, tokenizer: Any, size: int = 0) -> None:
        """Take a ``CLIPTokenizer``; with ``size`` beyond its own, the two ends are the last ids of that size."""
        self._tokenizer = tokenizer
        words = tokenizer.get_vocab()
        self.size = size or len(words)
        """Ids are below it."""
        self.begin, self.end = self.size - 2, self.size - 1
        self._words = {number: word for word, number in words.items() if word not in ENDS}
        self._words |= dict(zip((self.begin, self.end), map(SPELLED.__getitem__, ENDS), strict=True))
        self._bytes = dict(zip(letters(), _order(), strict=True))

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without its ends."""
        ids = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return [int(one) for one in ids]

    def decode(self, ids: Sequence[int]) -> str:
        """The text that ids spell, as OpenCLIP has it: bytes that are no UTF-8 become U+FFFD, words end in a space."""
        out = bytearray()
        for number in ids:
            word = self._words.get(number, f"<{number}>")
            if number >= self.begin or number not in self._words:
                out += word.encode()
            else:
                out += bytes(self._bytes[letter] for letter in word.removesuffix("</w>"))
                out += b" " if word.endswith("</w>") else b""
        return out.decode("utf-8", errors="replace")

    def survives(self, ids: Sequence[int]) -> bool:
        """Does the text of these ids become the same ids again?"""
        return self.encode(self.decode(ids)) == list(ids)

    def sequence(self, ids: Sequence[int], pad: int, length: int = 77) -> list[int]:
        """Ids between both ends, cut or filled up with ``pad`` to what a text tower reads."""
        held = [self.begin, *list(ids)[: length - 2], self.end]
        return held + [pad] * (length - len(held))


@cache
def byte_vocabulary(size: int = 0) -> Vocabulary:
    """A vocabulary of single bytes, 514 ids with both ends: what needs no file.

    >>> words = byte_vocabulary()
    >>> words.size, words.decode(words.encode("a cat"))
    (514, 'a cat ')
    """
    from rdpbench.codecs.diffusion.library import transformers

    single = letters()
    words = [*single, *(f"{letter}</w>" for letter in single), *ENDS]
    return Vocabulary(transformers.CLIPTokenizer(vocab={word: at for at, word in enumerate(words)}, merges=[]), size)


def clip_vocabulary() -> Vocabulary:
    """The published one, from OpenAI's byte-pair table.

    Raises:
        MissingNeed: the table is not on this machine.
    """
    from rdpbench.metrics.clip_weights import TOKENS, read_tokens
    from rdpbench.weights import resolve

    return Vocabulary(read_tokens(resolve(TOKENS)))

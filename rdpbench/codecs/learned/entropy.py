"""Symbols to strings and back: a `Writer` and a `Reader` with the same methods.

The part of a system that both sides run is written once, against `Coder`: at the encoder it is handed the latents and
writes them, at the decoder it is handed None and gets them. So the two cannot differ by a slip.

Strings are those of CompressAI's range coder (rANS, 64-bit state, 16-bit probabilities). Its decoder reads on where a
string ends; a damaged one would make it read foreign memory. What it can read at most is known, and so many zeros are
put after the string: a symbol takes one word of 4 bytes, an escaped one at most 76 bytes once the string has ended,
and inside the string an escape can ask for 15 times its own length.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from rdpbench.codecs.learned.portable import Decisions
from rdpbench.codecs.learned.tables import Tables
from rdpbench.errors import BitstreamError, CodecError

if TYPE_CHECKING:
    from torch import Tensor

MAX_SYMBOL = 1 << 15
"""Larger symbols are refused: no trained network makes them, and from 2**28 on the coder never ends."""
MIN_SYMBOLS = 4
"""The coder's buffer has a word for each symbol, and its end takes two: fewer symbols would be written beside it."""
OVERRUN = 76
"""Bytes that the coder can read for one symbol after the end of a string."""


class Coder(ABC):
    """One image's symbols, in coding order."""

    def __init__(self, sections: Mapping[str, int], decisions: Decisions | None, device: str) -> None:
        """Take the strings' names and numbers of symbols, and with ``decisions`` settle everything (`portable`)."""
        self._left = dict(sections)
        self._decisions = decisions
        self._device = device

    def factorized(self, section: str, tables: Tables, shape: tuple[int, int, int], latents: Tensor | None) -> Tensor:
        """Code ``(1, C, H, W)`` with one distribution for each channel; returns it quantised around the medians."""
        import torch

        channels, height, width = shape
        assert tables.medians is not None
        medians = tables.medians.to(self._device, self._dtype()).reshape(1, channels, 1, 1)
        indexes = torch.arange(channels, dtype=torch.int32).reshape(-1, 1).expand(channels, height * width)
        symbols = self._symbols(section, tables, indexes, None if latents is None else latents - medians)
        return symbols.reshape(1, channels, height, width) + medians

    def gaussian(
        self, section: str, tables: Tables, scales: Tensor, means: Tensor | None, latents: Tensor | None
    ) -> Tensor:
        """Code values of any shape under normal distributions of their own; returns them quantised around the means."""
        import torch

        check_finite(scales, "scale", self._error())
        assert tables.edges is not None
        edges = tables.edges[tables.first :].to(scales.device, scales.dtype)
        decide = torch.bucketize if self._decisions is None else self._decisions.index
        indexes = tables.first + decide(scales.contiguous(), edges)
        if means is None:
            return self._symbols(section, tables, indexes, latents).reshape(scales.shape)
        means = self.exact(means)
        symbols = self._symbols(section, tables, indexes, None if latents is None else latents - means)
        return symbols.reshape(scales.shape) + means

    def exact(self, values: Tensor) -> Tensor:
        """The values as both sides will have them: with ``portable`` on its grid, else as they are.

        For whatever is computed, added to latents and read by later steps, such as a latent residual prediction; means
        go through it already.
        """
        check_finite(values, "mean", self._error())
        return values if self._decisions is None else self._decisions.snap(values)

    def _dtype(self) -> Any:
        import torch

        return torch.float32 if self._decisions is None else torch.float64

    def _take(self, section: str, count: int) -> None:
        if self._left[section] < count:
            raise CodecError(f"section {section!r} was to end {count - self._left[section]} symbols ago")
        self._left[section] -= count

    def _check_done(self) -> None:
        if left := {name: count for name, count in self._left.items() if count}:
            raise CodecError(f"symbols are missing, by section: {left}")

    @abstractmethod
    def _symbols(self, section: str, tables: Tables, indexes: Tensor, values: Tensor | None) -> Tensor: ...

    @abstractmethod
    def _error(self) -> type[CodecError]: ...


class Writer(Coder):
    """Encodes."""

    def __init__(self, sections: Mapping[str, int], *, portable: bool, device: str) -> None:
        from rdpbench.codecs.learned.library import compressai

        super().__init__(sections, Decisions() if portable else None, device)
        if small := [name for name, count in sections.items() if count < MIN_SYMBOLS]:
            raise CodecError(f"sections {small} hold fewer than {MIN_SYMBOLS} symbols, for which the coder has no room")
        self._encoders = {name: compressai.ans.BufferedRansEncoder() for name in sections}

    def finish(self) -> dict[str, bytes]:
        """The strings by section; with ``portable`` the doubtful cases as ``guard`` before them."""
        self._check_done()
        strings = {name: bytes(encoder.flush()) for name, encoder in self._encoders.items()}
        return strings if self._decisions is None else {"guard": self._decisions.listing(), **strings}

    def _symbols(self, section: str, tables: Tables, indexes: Tensor, values: Tensor | None) -> Tensor:
        import torch

        assert values is not None, "the encoder's side of a system hands over its latents"
        rounded = torch.round(values)
        # NaN fails the comparison, too.
        if not bool((rounded.abs() <= MAX_SYMBOL).all()):
            raise CodecError(f"latents of section {section!r} are not within {MAX_SYMBOL}: are these its weights?")
        self._take(section, rounded.numel())
        symbols = rounded.reshape(-1).int().tolist()
        lists = (tables.rows, tables.sizes, tables.offsets)
        self._encoders[section].encode_with_indexes(symbols, indexes.reshape(-1).tolist(), *lists)
        return rounded

    def _error(self) -> type[CodecError]:
        return CodecError


class Reader(Coder):
    """Decodes."""

    def __init__(
        self, sections: Mapping[str, int], strings: Mapping[str, bytes], *, portable: bool, device: str
    ) -> None:
        from rdpbench.codecs.learned.library import compressai

        super().__init__(sections, Decisions(strings["guard"]) if portable else None, device)
        self._decoders = {}
        for name, count in sections.items():
            string = strings[name]
            if len(string) < 8 or len(string) % 4:
                raise BitstreamError(f"section {name!r} of {len(string)} bytes is no string of the range coder")
            self._decoders[name] = compressai.ans.RansDecoder()
            self._decoders[name].set_stream(string + bytes(OVERRUN * count + 16 * len(string)))

    def finish(self) -> None:
        """Check that the system read all there is.

        Raises:
            BitstreamError: doubtful cases are listed that never came.
        """
        self._check_done()
        if self._decisions is not None:
            self._decisions.check_used()

    def _symbols(self, section: str, tables: Tables, indexes: Tensor, values: Tensor | None) -> Tensor:
        import torch

        assert values is None, "the decoder's side of a system has no latents"
        self._take(section, indexes.numel())
        lists = (tables.rows, tables.sizes, tables.offsets)
        # Through NumPy: torch is five times slower with lists.
        decoded = np.array(self._decoders[section].decode_stream(indexes.reshape(-1).tolist(), *lists), np.int64)
        if (np.abs(decoded) > MAX_SYMBOL).any():
            raise BitstreamError(f"section {section!r} holds symbols beyond {MAX_SYMBOL}: damage, or other weights")
        return torch.from_numpy(decoded).to(self._device, self._dtype())

    def _error(self) -> type[CodecError]:
        return BitstreamError


def check_finite(values: Tensor, what: str, error: type[CodecError]) -> None:
    """Raise ``error`` if a value is infinite or no number."""
    import torch

    if not bool(torch.isfinite(values).all()):
        raise error(f"a {what} that decides a symbol is not finite: damage, or other weights")

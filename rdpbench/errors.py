"""Every error rdpbench raises on purpose, in one tree.

Messages quote what was written, list what exists and say what to type. Library code never exits.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RdpbenchError(Exception):
    """Base of all errors meant for the user; the command line prints it without a traceback."""


class ConfigError(RdpbenchError):
    """What the user wrote cannot be meant."""


class UnknownName(ConfigError):
    """No codec, dataset, metric or run of that name.

    >>> print(UnknownName("codec", "jpg", ["jpeg", "webp"]))
    unknown codec 'jpg': did you mean 'jpeg'?
      codecs that exist: jpeg, webp
    """

    def __init__(
        self, kind: str, given: str, available: Iterable[str], hint: str = "", *, near: str | None = None
    ) -> None:
        """``near`` is the suggestion; None looks for the nearest by its letters, and an empty one suggests nothing."""
        known = sorted(available)
        if near is None:
            folded = {name.casefold(): name for name in known}
            close = difflib.get_close_matches(given.casefold(), folded, n=1, cutoff=0.5)
            near = folded[close[0]] if close else ""
        guess = f": did you mean {near!r}?" if near else ""
        plural = {"class": "classes", "metrics": "metrics"}.get(kind, f"{kind}s")
        lines = [f"unknown {kind} {given!r}{guess}", f"  {plural} that exist: {', '.join(known) or 'none'}"]
        if hint:
            lines.append(f"  {hint}")
        super().__init__("\n".join(lines))


class OutOfRange(ConfigError):
    """A rate or number outside what is legal."""


class MissingNeed(RdpbenchError):
    """A package, binary, weight file or data file is not here; the message says how to get it."""


class ImageError(RdpbenchError):
    """A file that is no image, or one that we do not read."""


class CodecError(RdpbenchError):
    """Base of what goes wrong inside a codec; becomes a row with ``status=error``."""


class BitstreamError(CodecError):
    """Bytes that are not a bitstream of this codec."""


class UnsupportedImage(CodecError):
    """The format cannot hold this image."""


class CoderFailed(CodecError):
    """A foreign encoder or decoder crashed, timed out or wrote nothing."""


class MetricError(RdpbenchError):
    """A metric was given what it must not accept."""


class VotesRefused(RdpbenchError):
    """A file of votes of a human study that breaks a rule; the message says which."""


class WorkerError(RdpbenchError):
    """Worker processes do not start; no task is to blame."""


class StoreError(RdpbenchError):
    """Base of what goes wrong with stored results."""


class StoreBusy(StoreError):
    """Another rdpbench is writing to the same run folder."""


class StoreCorrupt(StoreError):
    """A stored file is not what was written."""


class StoreUnwritable(StoreError):
    """A read-only folder or a full disk; what was stored before is safe."""


def few(names: Iterable[str], most: int = 5) -> str:
    """The first of many names, for a message.

    >>> few("abcdefg")
    'a, b, c, d, e and 2 more'
    """
    listed = list(names)
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")

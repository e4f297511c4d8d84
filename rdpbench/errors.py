"""Every error rdpbench raises on purpose, in one tree.

Messages quote what was written, list what exists and say what to type. Library code never exits.
"""

from __future__ import annotations

import codecs
import difflib
import re
import unicodedata
from collections.abc import Iterable


class RdpbenchError(Exception):
    """Base of all errors meant for the user; the command line prints it without a traceback."""


class ConfigError(RdpbenchError):
    """What the user wrote cannot be meant."""


MOST_LISTED = 50
"""Names that are all listed; of more only those that are like what was written."""
LISTS = {
    "codec": "rdpbench ls codecs",
    "dataset": "rdpbench ls datasets",
    "metric": "rdpbench ls metrics",
    "figure": "rdpbench figure --list",
    "setting": "rdpbench run --help",
    "name": "rdpbench ls",
}
"""What lists all names of a kind."""


_OTHERS = {
    "codec": {"hevc": "h265 h.265", "jpegxl": "jxl", "jpeg2000": "jp2 jpeg2k", "avif": "av1", "vtm": "vvc h266"},
    "metric": {"ms-ssim": "ssim"},
    "command": {"fetch": "download get", "ls": "list", "figure": "plot draw", "run": "benchmark", "show": "table"},
    "setting": {
        "codec": "model",
        "data": "dataset",
        "device": "gpu cuda",
        "root": "output out outdir output_dir hydra.run.dir hydra.sweep.dir",
        "run": "name",
        "limit": "n images num_images",
        "workers": "jobs threads num_workers",
        "keep": "save save_images",
        "bpp": "bitrate",
        "python": "interpreter",
    },
}
CALLED = {
    kind: {word: name for name, words in names.items() for word in words.split()} for kind, names in _OTHERS.items()
}
"""What others call our names, by kind."""


def nearest(given: str, names: Iterable[str], most: int = 1, cutoff: float = 0.6) -> list[str]:
    """The names that are most like what was written, the nearest first; capitals count as small letters.

    >>> nearest("JPG", ["jpeg", "webp"]), nearest("zzz", ["jpeg", "webp"])
    (['jpeg'], [])
    """
    folded = {name.casefold(): name for name in names}
    return [folded[name] for name in difflib.get_close_matches(given.casefold(), folded, most, cutoff)]


class UnknownName(ConfigError):
    """No codec, dataset, metric or run of that name.

    >>> print(UnknownName("codec", "jpg", ["jpeg", "webp"]))
    unknown codec 'jpg': did you mean 'jpeg'?
      codecs that exist: jpeg, webp
    >>> print(UnknownName("metric", "fid", ["fid/clean", "fid/legacy-tf", "flip"]))
    unknown metric 'fid': did you mean 'fid/clean'?
      metrics that begin with 'fid': fid/clean, fid/legacy-tf
    >>> print(UnknownName("codec", "jpg; webp", ["jpeg", "webp"]))
    unknown codec 'jpg; webp': did you mean 'jpeg,webp'?
      codecs that exist: jpeg, webp
    """

    def __init__(
        self, kind: str, given: str, available: Iterable[str], hint: str = "", *, near: str | None = None
    ) -> None:
        """``near`` is the suggestion; None looks for the nearest by its letters, and an empty one suggests nothing."""
        known = sorted(available)
        stem = given.partition("/")[0]
        family = [name for name in known if len(stem) > 2 and name.casefold().startswith(stem.casefold())]
        if near is None:
            near = next(iter(nearest(given, family or known) or family), "")
        # Several names in one word, as other programs separate them.
        words = re.split(r"\s*[;|+&\s]\s*", given)
        several = [next(iter(nearest(word, known, cutoff=0.5)), "") for word in words]
        near = ",".join(several) if len(words) > 1 and all(several) and not set("/:") & set(given) else near
        called = CALLED.get(kind, {}).get(given.casefold(), "")
        near = called if called in known else near
        guess = f": did you mean {near!r}?" if near else ""
        plural = {"class": "classes", "metrics": "metrics"}.get(kind, f"{kind}s")
        if family:
            listed = f"{plural} that begin with {stem!r}: {', '.join(family)}"
        elif len(known) > MOST_LISTED:
            like = nearest(given, known, 6, 0.4)
            listed = f"{plural} like it: {', '.join(like)}; " if like else ""
            listed += (
                f"{len(known)} {plural} exist, and `{LISTS[kind]}` lists them" if kind in LISTS else ", ".join(known)
            )
        else:
            listed = f"{plural} that exist: {', '.join(known) or 'none'}"
        lines = [f"unknown {kind} {given!r}{guess}", f"  {listed}"]
        if hint:
            lines.append(f"  {hint}")
        super().__init__("\n".join(lines))


def check_names(kind: str, names: Iterable[str], known: Iterable[str], hint: str = "") -> None:
    """Raise `UnknownName` for the first of some names that is not known.

    >>> check_names("codec", ["jpeg"], ["jpeg", "webp"])
    """
    listed = list(known)
    for name in names:
        if name not in listed:
            raise UnknownName(kind, name, listed, hint)


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


SPELLED = "rdpbench-spelled"
"""How streams are opened whose encoding lacks some of our signs: these are spelled by others (`spelled`)."""
_SIGNS = str.maketrans({**dict(zip("±→↑↓–×·øé", ("+-", "->", *"^v-x.oe"), strict=True)), "…": "...", "∞": "inf"})


def spelled(text: str, encoding: str) -> str:
    """A text as a terminal of an encoding can show it.

    >>> spelled("28.3 ±0.5 ↑", "ascii"), spelled("28.3 ±0.5", "utf-8"), spelled("Kynkäänniemi", "ascii")
    ('28.3 +-0.5 ^', '28.3 ±0.5', 'Kynkaanniemi')
    """
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        plain = unicodedata.normalize("NFKD", text.translate(_SIGNS))  # an accent is a sign of its own then
        letters = "".join(sign for sign in plain if not unicodedata.combining(sign))
        return letters.encode(encoding, "replace").decode(encoding)
    return text


def _spell(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return spelled(error.object[error.start : error.end], "ascii"), error.end


codecs.register_error(SPELLED, _spell)

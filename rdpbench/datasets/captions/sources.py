"""The axis ``captions=``: a caption for each image from the source that was typed, and what making them takes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rdpbench.assets.download import download
from rdpbench.datasets.captions.files import match, read_captions
from rdpbench.datasets.captions.models import (
    CARDS,
    CaptionSettings,
    cached_captions,
    captioner_identity,
    describe,
    label,
    locate,
)
from rdpbench.datasets.index import Entry
from rdpbench.errors import ConfigError, MissingNeed, UnknownName
from rdpbench.paths import data_folders
from rdpbench.progress import Report

NAMES = ("human", "ofa", *CARDS)
"""The sources, but for ``file:PATH``."""


@dataclass(frozen=True)
class PublishedList:
    """A file of OFA's captions that TACO published in a repository without a licence, so that it does not ship.

    It is downloaded at a pinned commit, or found in ``$RDPBENCH_DATA/captions``, and must have the sha256.
    """

    file: str
    sha256: str
    size: int
    """In bytes."""
    captions: int

    @property
    def url(self) -> str:
        """Where it is, at the commit that its hash was computed at."""
        commit = "004f488977530b3e4a0e27bc1b07b2eb6670ceef"
        return f"https://raw.githubusercontent.com/effl-lab/TACO/{commit}/materials/{self.file}"

    def find(self) -> Path | None:
        """The file on this machine."""
        return next((path for folder in data_folders("captions") if (path := folder / self.file).is_file()), None)

    def read(self) -> bytes:
        """Its bytes, downloaded if it is not here."""
        path = self.find()
        if path is None:
            path = data_folders("captions")[-1] / self.file
            download(self.url, path, sha256=self.sha256, size=self.size, hint=self.how_to_get())
        raw = path.read_bytes()
        if (sha256 := hashlib.sha256(raw).hexdigest()) != self.sha256:
            raise MissingNeed(
                f"{path} is not the list that TACO published: sha256 {sha256}, expected {self.sha256}; remove it\n"
                f"{self.how_to_get()}"
            )
        return raw

    def how_to_get(self) -> str:
        """Lines that say where it is and where to put it."""
        return "\n".join(
            [
                f"the OFA captions {self.file} are not here ({self.captions} captions)",
                f"  from     {self.url}",
                f"  size     {self.size} bytes",
                "  licence  none is stated, so they do not ship with rdpbench",
                f"  put it   at {data_folders('captions')[-1] / self.file}",
                "           or into a folder 'captions' below the one that RDPBENCH_DATA names",
            ]
        )


OFA = {
    "kodak": PublishedList(
        "kodak_ofa.json", "31c1757490e7a5a1400656374beea38705525c89d3292cc6bd7f9f370ef93a63", 1_553, 24
    ),
    "clic2020": PublishedList(
        "clic_ofa.json", "e629a6f74a6b85c0850fb6f6dd956f0e32b076ebf18aed4394e2b2b625cee9a5", 39_415, 428
    ),
}
"""TACO's lists, by the dataset name or what it begins with (the parts of CLIC 2020 share one list).

One caption of Kodak's (kodim17) holds two U+FFFD: it is kept as it was published.

>>> OFA["clic2020"].captions
428
"""


@dataclass(frozen=True)
class CaptionSource:
    """One value of the ``captions=`` axis."""

    kind: str
    path: str = ""
    """Of ``file:PATH``."""
    sha256: str = ""
    """Of that file's bytes."""

    @property
    def name(self) -> str:
        """The source in a row; a file also by its content, as two files may have one name.

        >>> CaptionSource("file", "lists/names.json", "31c1757490e7a5a1").name
        'file:names.json@31c1757490e7'
        """
        return f"file:{Path(self.path).name}@{self.sha256[:12]}" if self.kind == "file" else self.kind


@dataclass(frozen=True)
class Caption:
    """The caption of one image, and where it is from."""

    text: str
    seconds: float | None
    """Of making it; None where that is not known. Counts as encode time of a codec that needs the caption."""
    source: str
    """For a row: the source's name, with what of a model's settings is not the default."""
    identity: str
    """What vouches for it: a file's sha256, or a model with revision and settings, as JSON."""
    made_on: str = ""
    """Device and threads that the seconds are of."""


@dataclass(frozen=True)
class Captions:
    """The captions of a set, by image id."""

    by_id: Mapping[str, Caption]
    notes: tuple[str, ...] = ()
    """For the user: names in a file that are no image of the set."""


@dataclass(frozen=True)
class Survey:
    """What a source would cost; nothing is made or downloaded to know it."""

    to_make: int = 0
    """Captions that a model has yet to make: the keys of these tasks are not known before."""
    lacks: str | None = None
    """What is missing on this machine and how to get it; None if nothing is."""


def parse(text: str) -> CaptionSource:
    """A caption source from what the user wrote.

    Raises:
        UnknownName: none of the sources; the nearest one is suggested.
        ConfigError: ``file:`` without a file that can be read.

    >>> parse("blip2").name
    'blip2'
    """
    kind, colon, path = text.partition(":")
    if kind == "file" and colon:
        return CaptionSource("file", path, hashlib.sha256(_bytes_of(path)).hexdigest())
    if text not in NAMES:
        hint = f"a JSON file of captions: captions=file:{text if text.endswith('.json') else 'PATH'}"
        raise UnknownName("caption source", text, [*NAMES, "file:PATH"], hint)
    return CaptionSource(text)


def captions_of(
    source: CaptionSource,
    entries: Sequence[Entry],
    *,
    dataset: str,
    protocol: str,
    settings: CaptionSettings | None = None,
    progress: Report | None = None,
) -> Captions:
    """The caption of each image; downloads a published list, and runs a model for images that it has not seen yet.

    ``protocol`` and ``settings`` (by default the pinned revision, fp32 and the CPU) are for models; ``progress`` is
    called with the captions that are made and all that are to be made.

    Raises:
        ConfigError: images without a caption, counted; or a file that cannot be read.
        MissingNeed: a list or model that is not here and cannot be downloaded; says how to get it.
    """
    if source.kind == "human":
        return Captions(_human(entries, dataset))
    if source.kind in CARDS:
        card, settings = CARDS[source.kind], settings or CaptionSettings()
        captions = describe(card, entries, protocol, settings, progress)
        shown, made_by = label(card, settings), captioner_identity(card, settings)
        return Captions(
            {
                entry.sample.id: Caption(caption.text, caption.seconds, shown, made_by, caption.made_on)
                for entry in entries
                for caption in [captions[entry.sha256]]
            }
        )
    if source.kind == "ofa":
        raw, what = _ofa_list(dataset).read(), f"OFA's list for {dataset!r}"
    else:
        raw, what = _bytes_of(source.path), source.path
        if hashlib.sha256(raw).hexdigest() != source.sha256:
            raise ConfigError(f"{source.path} has changed since this command began")
    listed = read_captions(raw, what)
    names = match(listed, [entry.sample for entry in entries], what, dataset)
    sha256 = hashlib.sha256(raw).hexdigest()
    unused = len(listed) - len(names)
    notes = (f"{what}: {unused} of {len(listed)} captions are not used",) if unused and source.kind == "file" else ()
    return Captions({id_: Caption(listed[name], None, source.name, sha256) for id_, name in names.items()}, notes)


def survey(
    source: CaptionSource, entries: Sequence[Entry], *, dataset: str, settings: CaptionSettings | None = None
) -> Survey:
    """What `captions_of` would have to do. Loads no model.

    Raises:
        ConfigError: a source that this dataset cannot have.

    >>> survey(parse("human"), [], dataset="kodak").to_make
    0
    """
    if source.kind == "ofa":
        published = _ofa_list(dataset)
        return Survey(lacks=None if published.find() else published.how_to_get())
    if source.kind not in CARDS:
        return Survey()
    card, settings = CARDS[source.kind], settings or CaptionSettings()
    pixels = {entry.sha256 for entry in entries}
    to_make = len(pixels) - len(cached_captions(pixels, captioner_identity(card, settings)))
    try:
        if to_make:
            locate(card, settings)
    except MissingNeed as error:
        return Survey(to_make, f"{to_make} of {len(pixels)} images have no caption yet; {error}")
    return Survey(to_make)


def _human(entries: Sequence[Entry], dataset: str) -> dict[str, Caption]:
    texts = {entry.sample.id: (entry.sample.caption or "").strip() for entry in entries}
    if without := [id_ for id_, text in texts.items() if not text]:
        shown = ", ".join(without[:3])
        raise ConfigError(
            f"captions=human: {len(without)} of {len(texts)} images of {dataset!r} have no caption of people's "
            f"({shown} ...). The MS-COCO sets bring theirs; for others name a file, captions=file:PATH, or let a model "
            "make them, captions=blip2"
        )
    return {id_: Caption(text, None, "human", "human") for id_, text in texts.items()}


def _ofa_list(dataset: str) -> PublishedList:
    for begin, published in OFA.items():
        if dataset == begin or dataset.startswith(f"{begin}-"):
            return published
    raise ConfigError(
        f"captions=ofa: TACO published captions of OFA for {' and '.join(OFA)} only, not for {dataset!r}; "
        "name a file, captions=file:PATH, or let a model make them, captions=blip2"
    )


def _bytes_of(path: str) -> bytes:
    if not path:
        raise ConfigError("which file? Write captions=file:/path/to/captions.json")
    try:
        return Path(path).expanduser().read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path}, named by captions=file:{path}: {error.strerror}") from error

"""Pictures that somebody else made: ``codec=folder:RECONSTRUCTIONS``, scored with all metrics; nothing is decoded.

Two layouts are read. A plain folder holds a picture for each image of the dataset, of equal stem: a codec with a single
rate point. The layout of the JPEG AI assessment has ``rec/`` and ``bit/`` with names such as
``CODEC_00001_TE_1976x1312_8bit_sRGB_012.png``: the number at the end tells the rate points apart.

Rates are stated, not proven: their grade is ``reported``. They come from files of bitstreams of equal stem, from a CSV
file with ``image`` and one of ``bytes``, ``bits`` or ``bpp``, or from nowhere: then there is none.
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from rdpbench.assets.hashes import content_sha256
from rdpbench.codecs.contract import Bitstream, Rate, Side
from rdpbench.errors import CodecError, ConfigError, UnknownName
from rdpbench.image import Image, pixel_sha256, read_image
from rdpbench.paths import read_table

PREFIX = "folder:"
SUFFIXES = (".png", ".webp", ".jpg", ".jpeg", ".ppm", ".bmp", ".tif", ".tiff")
_JPEG_AI = re.compile(r"(?P<head>.+)_\d+x\d+_\d+bit_[A-Za-z0-9]+_(?P<rate>\d+)")
"""Names of the JPEG AI assessment: codec and image, size, bits, colours, rate."""
SIZES = ("bytes", "bits", "bpp")

WAITING = 64
"""Pictures that are kept until they are asked for: those of a chunk, or of the rates that a search tried."""
K = TypeVar("K")


class Aside(Generic[K]):
    """Pictures that came with their bitstreams, until decoding asks for them; of one batch in its order.

    >>> aside = Aside[str]()
    >>> aside.put([(b"same", "first"), (b"same", "second")])
    >>> aside.take(b"same"), aside.take(b"same"), aside.take(b"same")
    ('first', 'second', None)
    """

    def __init__(self) -> None:
        self._waiting: OrderedDict[bytes, deque[K]] = OrderedDict()

    def put(self, batch: Iterable[tuple[bytes, K]]) -> None:
        """What waits of an earlier batch under the same bytes is of other images, and goes."""
        pictures: dict[bytes, deque[K]] = defaultdict(deque)
        for data, picture in batch:
            pictures[data].append(picture)
            self._waiting.pop(data, None)
        self._waiting |= pictures
        while len(self._waiting) > WAITING:
            self._waiting.popitem(last=False)

    def take(self, data: bytes) -> K | None:
        """The next picture of these bytes; None if there is none."""
        pictures = self._waiting.get(data)
        return pictures.popleft() if pictures else None


_shown: Aside[Image] = Aside()


@dataclass(frozen=True)
class Pictures:
    """One folder; `pictures_class` makes a class for each, with its rate axis."""

    folder: ClassVar[Path]
    sizes: ClassVar[str]
    grade = "reported"
    uses_image_id = True
    rate: ClassVar[Rate | None] = None

    point: float = 0
    """The number at the end of a file's name, where there are several."""

    def encode(self, image: Image, side: Side) -> Bitstream:
        """What stands for the bitstream of an image: the file that is beside its picture, or a note of its size.

        Raises:
            CodecError: the folder has no picture of this image, or no size where the others have one.
        """
        path = picture_of(self.folder, self.point, side.image)
        if path is None:
            raise CodecError(f"{self.folder} has no picture named {side.image}{SUFFIXES[0]}")
        picture = read_image(path).pixels
        if picture.shape != image.shape:
            raise CodecError(f"{path.name} is {picture.shape[1]} x {picture.shape[0]}, the image is another size")
        data, bits = self._stream(side.image, path.stem, image.shape[0] * image.shape[1])
        info = {"picture": path.name, "reported bits": "" if bits is None else f"{bits:.17g}"}
        data = data or f"{pixel_sha256(picture)} {info['reported bits'] or 'no rate'}".encode()
        _shown.put([(data, picture)])
        return Bitstream.whole(data, **info)

    def decode(self, data: bytes) -> Image:
        picture = _shown.take(data)
        if picture is None:
            raise CodecError("nothing decodes a picture of somebody else's; it is kept with the run")
        return picture

    def coder(self) -> dict[str, str]:
        """What the folder and the sizes hold."""
        sizes = {"sizes": content_sha256(Path(self.sizes))} if self.sizes else {}
        return {"pictures": content_sha256(self.folder), **sizes}

    def _stream(self, image: str, stem: str, pixels: int) -> tuple[bytes, float | None]:
        """The bitstream of an image, or its number of bits; neither where nobody says."""
        place = Path(self.sizes) if self.sizes else self.folder / "bit"
        names = dict.fromkeys((stem,) if self.rate else (stem, image))  # an image's name is not that of a rate point
        if place.is_dir():
            streams = [path for path in sorted(place.iterdir()) if path.stem in names and path.is_file()]
            if len(streams) != 1:
                found = " and ".join(path.name for path in streams) or "none"
                raise CodecError(f"{place} must have one bitstream named {' or '.join(names)}, and has {found}")
            return streams[0].read_bytes(), 8.0 * streams[0].stat().st_size
        if not self.sizes:
            return b"", None
        stated = next((sizes_in(place)[name] for name in names if name in sizes_in(place)), None)
        if stated is None:
            raise CodecError(f"{place} has no line for {' or '.join(names)}")
        kind, number = stated
        return b"", number * {"bytes": 8, "bits": 1, "bpp": pixels}[kind]


def picture_of(folder: Path, point: float, image: str) -> Path | None:
    """The picture of an image at a rate point; None if there is none.

    In the layout of JPEG AI a name holds the codec in front of the image's, whose file may end in its size.
    """
    pictures = pictures_in(folder)
    plain = re.sub(r"_\d+x\d+$", "", image)
    ends = (f"_{plain}", f"_{plain}_TE")
    named = [path for (at, head), path in pictures.items() if at == point and head.endswith(ends)]
    return pictures.get((point, image)) or (named[0] if len(named) == 1 and (folder / "rec").is_dir() else None)


@cache
def pictures_in(folder: Path) -> Mapping[tuple[float, str], Path]:
    """The pictures of a folder, by rate point (0 for the only one) and by the name of their image, maybe with more."""
    rec = folder / "rec"
    files = sorted(path for path in (rec if rec.is_dir() else folder).iterdir() if path.suffix.lower() in SUFFIXES)
    pictures: dict[tuple[float, str], Path] = {}
    for path in files:
        parts = _JPEG_AI.fullmatch(path.stem) if rec.is_dir() else None
        point, image = (float(parts["rate"]), parts["head"]) if parts else (0.0, path.stem)
        if (point, image) in pictures:
            raise ConfigError(f"{path} and {pictures[point, image].name} are both pictures of {image}; keep one")
        pictures[point, image] = path
    return pictures


@cache
def sizes_in(path: Path) -> Mapping[str, tuple[str, float]]:
    """What a CSV file says of each image: the kind of number, and the number."""
    names, lines = read_table(path)
    kinds = [name for name in SIZES if name in names]
    if "image" not in names or len(kinds) != 1:
        listed = ", ".join(names) or "none"
        raise ConfigError(f"{path} has columns {listed}; write image, and one of {', '.join(SIZES)}")
    stated: dict[str, tuple[str, float]] = {}
    for line in lines.values():
        try:
            number = float(line[kinds[0]])
        except ValueError:
            number = math.nan
        if not (math.isfinite(number) and number > 0):
            raise ConfigError(f"{path}: {kinds[0]} of {line['image']} is {line[kinds[0]]!r}; write a number above 0")
        if (stem := Path(line["image"]).stem) in stated:
            raise ConfigError(f"{path} has two lines for {stem}; keep one")
        stated[stem] = kinds[0], number
    return stated


def pictures_class(folder: Path, apart: Mapping[str, Any]) -> type[Pictures]:
    """The codec for a folder of pictures.

    Raises:
        ConfigError: no such folder, or none with pictures.
    """
    if not folder.is_dir():
        raise ConfigError(f"codec={PREFIX}{folder}: no such folder")
    pictures_in.cache_clear()
    sizes_in.cache_clear()
    points = tuple(sorted({point for point, _ in pictures_in(folder)}))
    if not points:
        raise ConfigError(f"codec={PREFIX}{folder}: no pictures in it ({', '.join(SUFFIXES)})")
    sizes = str(apart.get("sizes", ""))
    if sizes and not Path(sizes).exists():
        raise UnknownName("CSV file", sizes, [path.name for path in Path(sizes).parent.glob("*.csv")])
    several = Rate("point", points[0], points[-1], 0, points=points, listed=True) if len(points) > 1 else None
    return type(folder.name, (Pictures,), {"folder": folder, "sizes": sizes, "rate": several, "__module__": __name__})

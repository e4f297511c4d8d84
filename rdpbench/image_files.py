"""The bytes of an image file: is it whole, what does it say beside its pixels, which way up is it stored?

`rdpbench.image` decodes with Pillow, which stays silent where a decoder only warns, checks no sum over the pixels of a
PNG, and turns a TIFF by its orientation tag. So files are looked at before.

====================  ==========================================================================================
JPEG, also in TIFF    libjpeg (in libvips) reads all coded data and must not warn; all scans must be there
PNG                   the CRC of each chunk, known critical chunks, an end
WebP                  lengths of the file and of its chunks; no decoder warns, but the last bytes must be needed
TIFF                  sums of Deflate; warnings of libtiff (fax, PackBits)
BMP, GIF, PPM, LZW    nothing but what Pillow refuses, such as a cut: they hold no sums
====================  ==========================================================================================
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from rdpbench.lazy import pil

if TYPE_CHECKING:
    import PIL.ImageFile

PngChunk = tuple[bytes, bytes]
"""Name and data."""

_ORIENTATION = 274
_JPEG_IN_TIFF, _DEFLATE, _FAX_AND_PACKBITS = 7, (8, 32946), (2, 3, 4, 32773)
# Type in a TIFF's directory: size of a value and how `struct` calls it; others hold nothing that is asked for here.
_TYPES = {1: "B", 3: "H", 4: "I", 7: "B", 13: "I", 16: "Q", 18: "Q"}
_TAGS = frozenset({254, 256, 257, 259, 273, _ORIENTATION, 279, 324, 325, 330, 347})
# In coded data a byte FF is followed by 0, or by D0 to D7, which mark restarts; more FF before a marker are filling.
_MARKER = re.compile(rb"\xff+[\x01-\xcf\xd8-\xfe]")
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_FRAMES_OF_DCT = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})
_SPARE, _UNREAD = 8, 4
_MOST_PIXELS = 89_478_485  # as many as Pillow opens without a warning
_PNG_CRITICAL = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})


class Damaged(ValueError):
    """A file that is not what its writer wrote; the message says how that is known."""


@dataclass(frozen=True)
class Page:
    """A directory of a TIFF."""

    tags: dict[int, tuple[int, ...]]
    orientation_entries: tuple[int, ...]
    """Where in the file its entries for the orientation are."""

    @property
    def pixels(self) -> int:
        """How many it holds."""
        return self.first(256, 0) * self.first(257, 0)

    def first(self, tag: int, default: int) -> int:
        """A tag's first value."""
        return (self.tags.get(tag) or (default,))[0]


@dataclass(frozen=True)
class Tiff:
    """The directories of a TIFF or BigTIFF."""

    order: str
    """``<`` or ``>``, as `struct` has it."""
    big: bool
    pages: tuple[Page, ...]
    inside: tuple[Page, ...]
    """Directories below the first page (SubIFDs): cameras keep the photograph there, and a thumbnail in front."""

    @property
    def starts_with_thumbnail(self) -> bool:
        """Is there a larger image behind the first page?"""
        largest = max((page.pixels for page in (*self.pages[1:], *self.inside)), default=0)
        return largest > self.pages[0].pixels or bool(self.pages[0].first(254, 0) & 1)


def check_damage(data: bytes) -> None:
    """Raise `Damaged` for what Pillow does not see; ``data`` is the whole file.

    >>> check_damage(b"P5 1 1 255 x")
    """
    if data.startswith(b"\xff\xd8"):
        _check_jpeg(data)
    elif data.startswith(b"\x89PNG\r\n\x1a\n"):
        png_chunks(data)
    elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        _check_webp(data)
    elif data.startswith((b"II", b"MM")):
        _check_tiff(data)


def without_orientation(data: bytes) -> bytes:
    """A TIFF whose first page says that it is stored upright, whatever it said; its pixels are untouched."""
    tiff = read_tiff(data)
    if not tiff.pages or not tiff.pages[0].orientation_entries:
        return data
    upright = bytearray(data)
    # Tag, type SHORT, one value, and the value, which fills the rest of the entry.
    entry = struct.pack(tiff.order + ("HHQH6x" if tiff.big else "HHIH2x"), _ORIENTATION, 3, 1, 1)
    for start in tiff.pages[0].orientation_entries:
        upright[start : start + len(entry)] = entry
    return bytes(upright)


def remarks(opened: PIL.ImageFile.ImageFile, data: bytes) -> str:
    """What one should know of a file that its pixels do not say, for `Loaded.mode`; empty for most.

    ``+icc``, ``+orientation=6``, ``+pages=3``, ``+images=2`` (MPO), ``+thumbnail``, ``+cicp=9-16-0-1+pq``,
    ``+gamma=0.45455``.
    """
    told = ["+icc"] if opened.info.get("icc_profile") else []
    beside = [chunk for chunk in png_chunks(data, known=True) if chunk[0] != b"IDAT"] if opened.format == "PNG" else []
    if (turned := _orientation(opened, data, beside)) != 1:
        told.append(f"+orientation={turned}")
    if opened.format == "TIFF":
        tiff = read_tiff(data)
        told += [f"+pages={len(tiff.pages)}"] if len(tiff.pages) > 1 else []
        told += ["+thumbnail"] if tiff.starts_with_thumbnail else []
    elif getattr(opened, "n_frames", 1) > 1:
        told.append(f"+images={getattr(opened, 'n_frames', 1)}")
    for name, value in beside:
        if name == b"cICP" and len(value) == 4:
            told.append("+cicp=" + "-".join(map(str, value)) + {16: "+pq", 18: "+hlg"}.get(value[1], ""))
        if name == b"gAMA" and len(value) == 4:
            told.append(f"+gamma={struct.unpack('>I', value)[0] / 100_000:g}")
    return "".join(told)


def _orientation(opened: PIL.ImageFile.ImageFile, data: bytes, beside: list[PngChunk]) -> int:
    """What the tag says, in EXIF or XMP; 1 is upright, and what is out of range counts as that."""
    marks = b"eXIf", b"exif", b"tiff:Orientation"
    if opened.format == "PNG" and not any(mark in name + value for name, value in beside for mark in marks):
        return 1  # Pillow would decode a PNG again to look behind its pixels
    try:
        source = pil.open(io.BytesIO(data), formats=["TIFF"]) if opened.format == "TIFF" else opened
        turned = source.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF trips Pillow in many ways, and says nothing of the pixels
        return 1
    return turned if isinstance(turned, int) and 1 <= turned <= 8 else 1


# PNG


def png_chunks(data: bytes, *, known: bool = False) -> list[PngChunk]:
    """The chunks of a PNG, from its header to its end; what follows the end is not looked at. ``known`` ones are right.

    Raises:
        Damaged: a wrong checksum, a cut, or a critical chunk that no decoder of the standard knows.
    """
    chunks: list[PngChunk] = []
    start = 8
    while start + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, start)
        name, end = data[start + 4 : start + 8], start + 8 + length
        if end + 4 > len(data):
            break
        if not known and struct.unpack_from(">I", data, end)[0] != zlib.crc32(memoryview(data)[start + 4 : end]):
            raise Damaged(f"the checksum of its chunk {name!r} at byte {start} is wrong")
        if not name[0] & 32 and name not in _PNG_CRITICAL:
            raise Damaged(f"its chunk {name!r} is needed to show the image, and is in no standard")
        chunks.append((name, data[start + 8 : end]))
        if name == b"IEND":
            return chunks
        start = end + 4
    raise Damaged("it is cut: the chunk that ends a PNG is missing")


# WebP


def _check_webp(data: bytes) -> None:
    """Lengths, and whether the decoder needs all of the coded data.

    libwebp notices damage only if it runs out of bytes. Out of step, it comes to the last pixel too late, or too early:
    then it also decodes the file without its last bytes. Encoders end with 4 bytes at most that nobody needs.
    """
    stated = struct.unpack_from("<I", data, 4)[0] + 8
    if stated != len(data) and stated + stated % 2 != len(data):
        raise Damaged(f"its header states {stated} bytes, the file has {len(data)}")
    chunks: list[tuple[bytes, bytes]] = []
    start = 12
    while start < stated:
        length = struct.unpack_from("<I", data, start + 4)[0] if start + 8 <= stated else stated
        if start + 8 + length > stated:
            raise Damaged(f"its chunk {data[start : start + 4]!r} at byte {start} is cut")
        chunks.append((data[start : start + 4], data[start + 8 : start + 8 + length]))
        start += 8 + length + length % 2
    for number, (name, body) in enumerate(chunks):
        if name not in (b"VP8 ", b"VP8L", b"ALPH") or len(body) <= _SPARE:
            continue
        # All of these lengths: a decoder that lacks bytes may come by chance to the last pixel just where they end.
        cuts = range(_SPARE, _UNREAD, -1)
        if all(_is_webp([*chunks[:number], (name, body[:-cut]), *chunks[number + 1 :]]) for cut in cuts):
            raise Damaged(f"its chunk {name!r} has more bytes than its pixels need")


def _is_webp(chunks: list[tuple[bytes, bytes]]) -> bool:
    padded = (name + struct.pack("<I", len(body)) + body + bytes(len(body) % 2) for name, body in chunks)
    body = b"WEBP" + b"".join(padded)
    try:
        with pil.open(io.BytesIO(b"RIFF" + struct.pack("<I", len(body)) + body), formats=["WEBP"]) as opened:
            opened.load()
    except Exception:  # whatever is wrong with it
        return False
    return True


# JPEG


def _check_jpeg(data: bytes) -> None:
    """Read all coded data with a libjpeg whose warnings count, and see whether all scans are there.

    libjpeg decodes a JPEG of a single scan row by row, and notices only after the last row that bytes are left, where
    nobody asks any more. If the frame has more components than the first scan, it reads to the end of the file before
    the first row: so the copy that is checked says that one component more is to come. Nothing but coded data is in
    that copy, since libjpeg also warns of harmless things, such as a version in a header.
    """
    copy, frame, components = _one_component_more(data)
    if frame in _FRAMES_OF_DCT:
        _check_scans(data, progressive=frame in (0xC2, 0xCA), components=components)
    if warning := _warning("jpegload_buffer", copy, one_row=frame in _FRAMES_OF_DCT):
        raise Damaged(f"libjpeg warns: {warning}")


def _segments(data: bytes, start: int) -> Iterator[tuple[int, int, int]]:
    """Marker, begin and end of each segment from ``start`` to the end of the image; coded data is passed over."""
    for _ in range(len(data)):
        marker = _MARKER.search(data, start)
        if marker is None or data[marker.end() - 1] == 0xD9:
            return
        begin, kind = marker.end() - 2, data[marker.end() - 1]
        if kind in (0x01, 0xD8):
            start = begin + 2
            continue
        if begin + 4 > len(data):
            return
        end = begin + 2 + max(2, struct.unpack_from(">H", data, begin + 2)[0])
        if end > len(data):
            return
        yield kind, begin, end
        start = end


def _one_component_more(data: bytes) -> tuple[bytes, int, list[int]]:
    """The copy that is checked, the kind of frame, and its components."""
    kept = [b"\xff\xd8"]
    frame, components = 0, list[int]()
    for kind, begin, end in _segments(data, 2):
        segment = data[begin:end]
        if kind == 0xDA:
            if not frame:
                break
            return b"".join([*kept, data[begin:]]), frame, components
        if kind in _FRAMES and len(segment) > 10:
            frame, components = kind, list(segment[10::3][: segment[9]])
            height, width = struct.unpack_from(">HH", segment, 5)
            if height * width > _MOST_PIXELS:
                raise Damaged(f"its JPEG states {width} x {height} pixels")
        if kind in _FRAMES_OF_DCT and components:
            # Of two components libvips makes nothing.
            more = [name for name in range(1, 256) if name not in components][: 2 if len(components) == 1 else 1]
            head = segment[:2] + struct.pack(">H", end - begin - 2 + 3 * len(more)) + segment[4:9]
            head += bytes([len(components) + len(more)])
            segment = head + segment[10:] + b"".join(bytes([name, 0x11, 0]) for name in more)
        if not (0xE0 <= kind <= 0xEF or kind == 0xFE):
            kept.append(segment)
    raise Damaged("a JPEG without a frame and a scan")


def _check_scans(data: bytes, *, progressive: bool, components: list[int]) -> None:
    """A file that was cut between two scans and closed decodes without a warning, to an unfinished image."""
    bits_left = {name: [255] * 64 for name in components}
    for kind, begin, _ in _segments(data, 2):
        if kind != 0xDA:
            continue
        count = data[begin + 4]
        first, last, bits = data[begin + 5 + 2 * count : begin + 8 + 2 * count]
        for name in data[begin + 5 : begin + 5 + 2 * count : 2]:
            if name in bits_left:
                lowest = bits & 15 if progressive else 0
                bits_left[name][first : last + 1] = [lowest] * len(bits_left[name][first : last + 1])
        if not any(map(any, bits_left.values())):
            return
    raise Damaged("scans are missing: it was cut while it was sent, and closed")


# TIFF


def read_tiff(data: bytes) -> Tiff:
    """The directories of a TIFF, as far as they can be read."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2], "")
    if not order or len(data) < 8:
        return Tiff("<", False, (), ())
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    pages = _pages(data, order, big, _integer(data, order, big, 8 if big else 4))
    below = pages[0].tags.get(330, ()) if pages else ()
    inside = [page for start in below for page in _pages(data, order, big, start, only=1)]
    return Tiff(order, big, tuple(pages), tuple(inside))


def _integer(data: bytes, order: str, big: bool, start: int) -> int:
    form = order + ("Q" if big else "I")
    return int(struct.unpack_from(form, data, start)[0]) if start + struct.calcsize(form) <= len(data) else 0


def _pages(data: bytes, order: str, big: bool, start: int, only: int | None = None) -> list[Page]:
    pages: list[Page] = []
    seen: set[int] = set()
    entry, inline, count_form = (20, 8, "Q") if big else (12, 4, "H")
    while start and start not in seen and start + struct.calcsize(count_form) <= len(data) and len(pages) != only:
        seen.add(start)
        (count,) = struct.unpack_from(order + count_form, data, start)
        begin = start + (8 if big else 2)
        end = begin + count * entry
        if end > len(data):
            break
        tags: dict[int, tuple[int, ...]] = {}
        turned: list[int] = []
        for where in range(begin, end, entry):
            tag, kind, values = struct.unpack_from(f"{order}HH{'Q' if big else 'I'}", data, where)
            if tag == _ORIENTATION:
                turned.append(where)
            if kind in _TYPES and tag in _TAGS:
                form = f"{order}{values}{_TYPES[kind]}"
                size = values * struct.calcsize(_TYPES[kind])
                place = where + (12 if big else 8)
                place = place if size <= inline else _integer(data, order, big, place)
                if place + size <= len(data):
                    tags.setdefault(tag, struct.unpack_from(form, data, place))
        pages.append(Page(tags, tuple(turned)))
        start = _integer(data, order, big, end)
    return pages


def _check_tiff(data: bytes) -> None:
    tiff = read_tiff(data)
    if not tiff.pages:
        return  # Pillow says what is wrong
    page = tiff.pages[0]
    places = page.tags.get(273) or page.tags.get(324) or ()
    lengths = page.tags.get(279) or page.tags.get(325) or ()
    pieces = [data[place : place + length] for place, length in zip(places, lengths, strict=False)]
    compression = page.first(259, 1)
    if compression == _JPEG_IN_TIFF:
        tables = bytes(page.tags.get(347, ()))
        for piece in pieces:
            _check_jpeg(tables[:-2] + piece[2:] if len(tables) > 4 else piece)
    elif compression in _DEFLATE:
        for number, piece in enumerate(pieces):
            inflate, rest = zlib.decompressobj(), piece
            try:
                while rest and not inflate.eof:  # in parts, whatever size comes out
                    inflate.decompress(rest, 1 << 20)
                    rest = inflate.unconsumed_tail
            except zlib.error as error:
                raise Damaged(f"its strip or tile {number} of {len(pieces)}: {error}") from error
    elif compression in _FAX_AND_PACKBITS and (warning := _warning("tiffload_buffer", data)):
        raise Damaged(f"libtiff warns: {warning}")


# Warnings


@cache
def _vips() -> Any:
    import pyvips

    pyvips.concurrency_set(1)  # images are read by several threads already
    pyvips.cache_set_max(0)  # it would keep the files in memory
    return pyvips


def _warning(loader: str, data: bytes, *, one_row: bool = False) -> str:
    """What a decoder says against a file, be it only a warning; empty where it is content, or does not know such files.

    With libvips, since Pillow and imagecodecs drop the warnings of these decoders.
    """
    vips = _vips()
    try:
        image = getattr(vips.Image, loader)(data, fail_on="warning", access="sequential")
        (image.crop(0, 0, image.width, 1) if one_row else image).avg()
    except vips.Error as error:
        text = " ".join(str(error).split("\n")[1:])
        said = re.split(r"(?:VipsJpeg|tiff2vips): ", text)[-1].strip() or "damage in the coded data"
        return "" if re.search("unsupported|not supported|not configured|sorry", said, re.IGNORECASE) else said
    return ""

"""What is read is the grid that is stored, or the file is refused: orientations, damage, and what a mode says."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image as pil

from rdpbench.assets.hashes import file_facts
from rdpbench.datasets.labels import load_labels, write_labels
from rdpbench.errors import ImageError
from rdpbench.image import EXTENSIONS, pixel_sha256, read_image

ORIENTATION, XMP = 274, 700
RNG = np.random.default_rng(11)
# More rows than columns and as wide as tall; several strips of each compression; nothing is equal to its mirror image.
GRIDS = {shape: RNG.integers(0, 256, (*shape, 4), dtype=np.uint8) for shape in [(37, 22), (24, 24), (1, 9)]}
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I;16B", "YCbCr")
COMPRESSIONS = ("raw", "packbits", "tiff_lzw", "tiff_adobe_deflate", "zstd", "lzma", "jpeg", "group3", "group4")
lenient = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def pillow_image(mode: str, shape: tuple[int, int]) -> pil.Image:
    grid = GRIDS[shape]
    if mode.startswith("I;16"):
        values = grid[:, :, 0].astype(np.uint16) * 256 + grid[:, :, 1]
        big = mode.endswith("B")
        return pil.frombytes(mode, shape[::-1], values.astype(">u2" if big else "<u2").tobytes())
    colour = pil.fromarray(grid[:, :, :3])
    if mode == "RGBA":
        return pil.fromarray(grid)
    if mode == "LA":
        return pil.merge("LA", [pil.fromarray(grid[:, :, 0]), pil.fromarray(grid[:, :, 3])])
    return colour.quantize(64) if mode == "P" else colour.convert(mode)


def written(path: Path, image: pil.Image, **options: Any) -> Path | None:
    """None where the format cannot hold the mode."""
    try:
        image.save(path, **options)
    except (OSError, KeyError, ValueError, RuntimeError):
        return None
    return path


def noisy(height: int = 96, width: int = 128) -> pil.Image:
    """Smooth with some noise: as a photograph, its JPEG has many different codes."""
    coarse = pil.fromarray(np.random.default_rng(5).integers(0, 256, (7, 9, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), pil.Resampling.BICUBIC)).astype(int)
    noise = np.random.default_rng(6).integers(-14, 15, smooth.shape)
    return pil.fromarray(np.clip(smooth + noise, 0, 255).astype(np.uint8))


# Orientation


@lenient
@given(
    mode=st.sampled_from(MODES),
    compression=st.sampled_from(COMPRESSIONS),
    shape=st.sampled_from(sorted(GRIDS)),
    orientation=st.integers(0, 9),
    place=st.sampled_from(["tag", "xmp", "both"]),
    big=st.booleans(),
)
@example(mode="L", compression="raw", shape=(37, 22), orientation=6, place="tag", big=False)
@example(mode="RGB", compression="tiff_lzw", shape=(37, 22), orientation=3, place="xmp", big=False)
def test_a_tiff_is_the_grid_that_it_stores(
    tmp_path: Path, mode: str, compression: str, shape: tuple[int, int], orientation: int, place: str, big: bool
) -> None:
    assume(not (big and mode == "I;16B"))  # Pillow writes what it does not read
    image = pillow_image(mode, shape)
    plain = written(tmp_path / "plain.tif", image, compression=compression, big_tiff=big)
    assume(plain)
    assert plain
    tags: dict[int, object] = {} if place == "xmp" else {ORIENTATION: orientation}
    if place != "tag":
        tags[XMP] = f'<x tiff:Orientation="{orientation}"/>'.encode()
    turned = tmp_path / "turned.tif"
    assume(written(turned, image, compression=compression, big_tiff=big, tiffinfo=tags))
    expected, found = read_image(plain), read_image(turned)
    assert found.pixels.shape == (*shape, 3)
    assert np.array_equal(found.pixels, expected.pixels)
    if compression not in ("jpeg", "group3", "group4") and mode in ("L", "RGB"):
        assert np.array_equal(found.pixels, np.asarray(image.convert("RGB")))
    said = f"+orientation={orientation}" if 2 <= orientation <= 8 else ""
    assert found.mode == expected.mode + said
    [(_, facts)] = file_facts([turned], remembered=False)
    assert (facts.height, facts.width) == shape, "sets are told by the sizes of their files"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("order", "big"), [("<", False), ("<", True), (">", False)])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_tiff_of_another_writer(
    tmp_path: Path, orientation: int, order: Any, big: bool, planar: str, kind: Any
) -> None:
    """Both byte orders, BigTIFF (Pillow knows it in one), tiles, planes, 8 and 16 bits, and a tag of another type."""
    colour = GRIDS[37, 22][:, :, :3].astype(kind) * (1 if kind is np.uint8 else 257)
    path = tmp_path / "a.tif"
    stored = np.moveaxis(colour, 2, 0) if planar == "separate" else colour
    tag = (ORIENTATION, "I" if big else "H", 1, orientation, True)
    options = {"tile": (16, 16)} if orientation % 2 else {"rowsperstrip": 5}
    tifffile.imwrite(
        path, stored, byteorder=order, bigtiff=big, photometric="rgb", planarconfig=planar, extratags=[tag], **options
    )
    assert np.array_equal(read_image(path).pixels, GRIDS[37, 22][:, :, :3])


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_format_with_an_orientation_is_its_stored_grid(tmp_path: Path, ending: str, orientation: int) -> None:
    exif = pil.Exif()
    exif[ORIENTATION] = orientation
    image = pillow_image("RGB", (37, 22))
    options = {"lossless": True} if ending == "webp" else {}
    plain, turned = tmp_path / f"plain.{ending}", tmp_path / f"turned.{ending}"
    image.save(plain, **options)
    image.save(turned, exif=exif, **options)
    found = read_image(turned)
    assert np.array_equal(found.pixels, read_image(plain).pixels)
    assert found.mode == "RGB" + (f"+orientation={orientation}" if orientation > 1 else "")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_label_map_is_its_stored_grid(tmp_path: Path, orientation: int) -> None:
    labels = GRIDS[37, 22][:, :, 0] % 100
    exif = pil.Exif()
    exif[ORIENTATION] = orientation
    pil.fromarray(labels).save(tmp_path / "labels.tif", exif=exif)
    assert np.array_equal(load_labels(tmp_path / "labels.tif"), labels)


def test_a_format_whose_reading_nobody_holds_is_refused(tmp_path: Path) -> None:
    """AVIF turns by `irot`, JPEG 2000 is read without its end: content decides, whatever a file is called."""
    for file_format in ("AVIF", "JPEG2000", "ICO"):
        path = tmp_path / "a.png"
        pillow_image("RGB", (24, 24)).save(path, format=file_format)
        with pytest.raises(ImageError, match=f"it is {file_format}; rdpbench reads PNG, JPEG, .*: convert it to PNG"):
            read_image(path)


# Damage

JPEGS: dict[str, dict[str, Any]] = {
    "4:2:0": {},
    "4:4:4": {"subsampling": 0},
    "4:2:2": {"subsampling": 1},
    "progressive": {"progressive": True},
    "optimised": {"optimize": True, "quality": 95},
    "restarts": {"restart_marker_rows": 1},
    "restart blocks": {"restart_marker_blocks": 3, "subsampling": 0},
    "coarse": {"quality": 5},
}


def jpeg(kind: str, mode: str, height: int = 96, width: int = 128) -> bytes:
    file = BytesIO()
    image = noisy(height, width).convert("RGB" if mode == "CMYK" else mode)
    (pil.merge("CMYK", [*image.split(), image.split()[0]]) if mode == "CMYK" else image).save(
        file, "JPEG", **JPEGS[kind]
    )
    return file.getvalue()


def read_bytes(folder: Path, data: bytes, ending: str) -> Any:
    path = folder / f"a.{ending}"
    path.write_bytes(data)
    return read_image(path).pixels


def by_pillow(data: bytes) -> Any:
    with pil.open(BytesIO(data)) as opened:
        return np.asarray(opened.convert("RGB"))


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("kind", JPEGS)
def test_a_whole_jpeg_is_read_as_pillow_reads_it(tmp_path: Path, kind: str, mode: str) -> None:
    data = jpeg(kind, mode)
    assert np.array_equal(read_bytes(tmp_path, data, "jpg"), by_pillow(data))
    for trailer in (b"\0" * 100, b"\xff\xd8\xff\xe1 a preview", data):
        assert np.array_equal(read_bytes(tmp_path, data + trailer, "jpg"), by_pillow(data)), "what follows is not read"
    filled = data.replace(b"\xff\xda", b"\xff\xff\xff\xda", 1)
    assert np.array_equal(read_bytes(tmp_path, filled, "jpg"), by_pillow(data)), "FF before a marker is filling"


@pytest.mark.parametrize("options", [{"lossless": True}, {"subsampling": "411"}, {"subsampling": "440"}])
def test_a_whole_jpeg_of_another_writer(tmp_path: Path, options: dict[str, Any]) -> None:
    data = imagecodecs.jpeg8_encode(np.asarray(noisy()), level=90, **options)
    assert np.array_equal(read_bytes(tmp_path, data, "jpg"), by_pillow(data))


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("kind", JPEGS)
def test_a_jpeg_that_was_cut_and_closed_is_refused(tmp_path: Path, kind: str, mode: str) -> None:
    """Anywhere: between two scans as well, and inside the last row of blocks, after which nobody asked for warnings."""
    data = jpeg(kind, mode)
    begin = data.find(b"\xff\xda") + 16
    cuts = [*range(begin, len(data) - 40, max(1, (len(data) - begin) // 12)), *range(len(data) - 40, len(data) - 12, 7)]
    scans = [at for at in range(begin, len(data) - 1) if data[at : at + 2] == b"\xff\xda"]
    for cut in [*cuts, *scans]:
        with pytest.raises(ImageError, match="damaged"):
            read_bytes(tmp_path, data[:cut] + b"\xff\xd9", "jpg")


@pytest.mark.parametrize("kind", JPEGS)
def test_a_jpeg_with_bytes_too_many_is_refused(tmp_path: Path, kind: str) -> None:
    """Before its end, where a decoder that reads row by row has what it wants and looks no further."""
    data = jpeg(kind, "RGB")
    with pytest.raises(ImageError, match="libjpeg warns"):
        read_bytes(tmp_path, data[:-2] + bytes(range(1, 40)) + b"\xff\xd9", "jpg")


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("kind", ["4:2:0", "4:4:4", "4:2:2", "progressive", "optimised", "restarts"])
def test_most_jpegs_with_a_hole_are_refused(tmp_path: Path, kind: str, mode: str) -> None:
    """Huffman codes fall into step again: where as many blocks come out as went in, no decoder sees anything."""
    data = jpeg(kind, mode, 320, 416)
    begin = data.find(b"\xff\xda") + 16
    length = (len(data) - begin) // 5
    refused = 0
    for start in np.linspace(begin, len(data) - length - 2, 20).astype(int).tolist():
        try:
            read_bytes(tmp_path, data[:start] + bytes(length) + data[start + length :], "jpg")
        except ImageError:
            refused += 1
    assert refused >= 17, f"{refused} of 20"


@pytest.mark.parametrize("kind", ["4:2:0", "progressive"])
def test_a_size_that_no_memory_holds_is_refused_before_anything_is_decoded(tmp_path: Path, kind: str) -> None:
    data = bytearray(jpeg(kind, "RGB"))
    frame = next(at for at in range(len(data)) if data[at] == 0xFF and data[at + 1] in (0xC0, 0xC2))
    data[frame + 5 : frame + 9] = struct.pack(">HH", 65000, 65000)
    with pytest.raises(ImageError, match="DecompressionBomb"):
        read_bytes(tmp_path, bytes(data), "jpg")


def test_restarts_out_of_order_are_refused(tmp_path: Path) -> None:
    data = bytearray(jpeg("restarts", "RGB"))
    places = [at for at in range(len(data) - 1) if data[at] == 0xFF and 0xD0 <= data[at + 1] <= 0xD7]
    data[places[1] + 1] ^= 3
    with pytest.raises(ImageError, match="libjpeg warns"):
        read_bytes(tmp_path, bytes(data), "jpg")
    whole = jpeg("restarts", "RGB")
    with pytest.raises(ImageError, match="libjpeg warns"):
        read_bytes(tmp_path, whole[: places[0]] + whole[places[1] :], "jpg")


@lenient
@given(
    at=st.integers(0, 10_000), value=st.integers(1, 255), mode=st.sampled_from(["L", "LA", "P", "RGB", "RGBA", "I;16"])
)
def test_any_changed_byte_of_a_png_is_refused(tmp_path: Path, at: int, value: int, mode: str) -> None:
    file = BytesIO()
    pillow_image(mode, (24, 24)).save(file, "PNG", dpi=(72, 72))
    data = bytearray(file.getvalue())
    data[at % len(data)] ^= value
    with pytest.raises(ImageError):
        read_bytes(tmp_path, bytes(data), "png")


def png(*chunks: tuple[bytes, bytes], after: tuple[tuple[bytes, bytes], ...] = ()) -> bytes:
    file = BytesIO()
    pillow_image("RGB", (24, 24)).save(file, "PNG")
    data = file.getvalue()
    extra, last = (
        b"".join(
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
            for name, body in some
        )
        for some in (chunks, after)
    )
    return data[:33] + extra + data[33:-12] + last + data[-12:]


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("name", [b"tEXt", b"gAMA", b"XXXX"])
def test_chunks_of_a_png(tmp_path: Path, name: bytes, place: str) -> None:
    """A wrong sum of a chunk without pixels is damage as well, and so is what must be understood and nobody can."""
    chunk = (name, b"\0\1\0\0")
    data = png(chunk) if place == "before" else png(after=(chunk,))
    if name == b"XXXX":
        with pytest.raises(ImageError, match="is needed to show the image"):
            read_bytes(tmp_path, data, "png")
        return
    assert np.array_equal(read_bytes(tmp_path, data + b"garbage", "png"), by_pillow(data))
    at = data.index(name) + 5
    with pytest.raises(ImageError, match="checksum"):
        read_bytes(tmp_path, data[:at] + b"\7" + data[at + 1 :], "png")
    with pytest.raises(ImageError, match="cut"):
        read_bytes(tmp_path, data[:-12], "png")


@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"alpha": True}])
def test_a_webp_of_another_length_is_refused(tmp_path: Path, options: dict[str, bool]) -> None:
    file = BytesIO()
    image = noisy().convert("RGBA") if options.pop("alpha", False) else noisy()
    image.putalpha(image.convert("L")) if image.mode == "RGBA" else None
    image.save(file, "WEBP", **options)
    data = file.getvalue()
    assert read_bytes(tmp_path, data, "webp").shape == (96, 128, 3)
    for wrong in (data[:200] + b"12" + data[200:], data + b"garbage", data[:-20], data[:300] + data[302:]):
        with pytest.raises(ImageError, match=r"damaged|cannot read"):
            read_bytes(tmp_path, wrong, "webp")


WEBPS: dict[str, dict[str, Any]] = {"lossy": {}, "coarse": {"quality": 5}, "fine": {"quality": 100, "method": 0}}


@pytest.mark.parametrize("kind", WEBPS)
def test_most_webps_with_a_flipped_bit_are_refused(tmp_path: Path, kind: str) -> None:
    """libwebp says nothing, but comes out of step, and ends before or after the data does."""
    file = BytesIO()
    noisy(160, 208).save(file, "WEBP", **WEBPS[kind])
    data, rng = file.getvalue(), np.random.default_rng(4)
    refused = 0
    for at in rng.integers(60, len(data) - 20, 30).tolist():
        damaged = bytearray(data)
        damaged[at] ^= 1 << int(rng.integers(8))
        try:
            refused += bool(np.array_equal(read_bytes(tmp_path, bytes(damaged), "webp"), by_pillow(data)))
        except ImageError:
            refused += 1
    assert refused >= 27, f"{refused} of 30"


@lenient
@example(19, 14, "noise", "step", {"quality": 0, "lossless": True, "method": 1})  # decodes without 8 bytes, not 7
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    content=st.sampled_from(["solid", "noise", "smooth", "step"]),
    alpha=st.sampled_from(["none", "clear", "noise", "step"]),
    options=st.fixed_dictionaries(
        {"quality": st.integers(0, 100), "lossless": st.booleans(), "method": st.integers(0, 6)}
    ),
)
def test_a_whole_webp_is_read_as_pillow_reads_it(
    tmp_path: Path, height: int, width: int, content: str, alpha: str, options: dict[str, Any]
) -> None:
    rng = np.random.default_rng(height * 100 + width)
    shape = (height, width)
    step = np.broadcast_to(np.where(np.arange(width) < width // 2, 0, 255), shape)
    grids = {"solid": np.full(shape, 90), "clear": np.zeros(shape), "noise": rng.integers(0, 256, shape), "step": step}
    grids["smooth"] = np.asarray(noisy(height, width))[:, :, 0]
    planes = [pil.fromarray(grids[content].astype(np.uint8))] * 3
    if alpha != "none":
        planes.append(pil.fromarray(grids[alpha].astype(np.uint8)))
    file = BytesIO()
    pil.merge("RGBA"[: len(planes)], planes).save(file, "WEBP", **options)
    found = read_bytes(tmp_path, file.getvalue(), "webp")
    if alpha == "none":
        assert np.array_equal(found, by_pillow(file.getvalue()))


def strip_of(data: bytes, compression: str) -> tuple[int, int]:
    with tifffile.TiffFile(BytesIO(data)) as opened:
        page: Any = opened.pages[0]
        last = len(page.dataoffsets) // 2
        assert len(page.dataoffsets) > 1, compression
        return page.dataoffsets[last], page.databytecounts[last]


@pytest.mark.parametrize(
    ("compression", "mode"),
    [("jpeg", "RGB"), ("jpeg", "L"), ("tiff_adobe_deflate", "RGB"), ("packbits", "L"), ("group4", "1")],
)
def test_damage_in_a_tiff_is_refused(tmp_path: Path, compression: str, mode: str) -> None:
    file = BytesIO()
    image = noisy(128, 160).convert(mode)
    image.save(file, "TIFF", compression=compression, strip_size=1024)
    data = file.getvalue()
    whole = read_bytes(tmp_path, data, "tif")
    if compression != "jpeg":
        assert np.array_equal(whole, np.asarray(image.convert("RGB")))
    start, length = strip_of(data, compression)
    middle, size = start + length // 2, length // 4
    # A hole; and, since a run of zeros is harmless in PackBits, one of the longest runs.
    fill = b"\x7f" if compression == "packbits" else b"\0"
    with pytest.raises(ImageError, match=r"damaged|cannot read"):
        read_bytes(tmp_path, data[:middle] + fill * size + data[middle + size :], "tif")


def test_a_jpeg_in_a_tiff_states_no_size_that_no_memory_holds(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    noisy(64, 64).save(path, compression="jpeg")
    data = bytearray(path.read_bytes())
    frame = data.index(b"\xff\xc0\x00\x11")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 65000, 65000)
    with pytest.raises(ImageError, match="its JPEG states 65000 x 65000 pixels"):
        read_bytes(tmp_path, bytes(data), "tif")


@pytest.mark.parametrize("tables", [False, True])
def test_a_jpeg_in_a_tiff_is_checked_with_its_tables(tmp_path: Path, tables: bool) -> None:
    """tifffile writes each tile with its tables, libtiff the tables once."""
    path = tmp_path / "a.tif"
    image = noisy(128, 160)
    if tables:
        image.save(path, compression="jpeg", strip_size=1024)
    else:
        tifffile.imwrite(path, np.asarray(image), photometric="ycbcr", compression="jpeg", tile=(64, 64))
    assert read_image(path).pixels.shape == (128, 160, 3)
    data = path.read_bytes()
    start, length = strip_of(data, "jpeg")
    with pytest.raises(ImageError, match="libjpeg warns"):
        read_bytes(
            tmp_path,
            data[: start + length * 2 // 3]
            + b"\xff\xd9"
            + bytes(length - length * 2 // 3 - 2)
            + data[start + length :],
            "tif",
        )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_whole_tiff_is_read_as_pillow_reads_it(tmp_path: Path, compression: str, mode: str) -> None:
    path = written(tmp_path / "a.tif", pillow_image(mode, (37, 22)), compression=compression, strip_size=512)
    if path is None or mode.startswith("I;16") or mode in ("RGBA", "LA"):
        return  # Pillow writes no such file, or our rule for its pixels is another than Pillow's
    assert np.array_equal(read_image(path).pixels, by_pillow(path.read_bytes()))


def test_a_damaged_label_map_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.png"
    write_labels(path, GRIDS[37, 22][:, :, 0] % 100, "coco-stuff-171")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ImageError, match=r"as a label map: .*damaged"):
        load_labels(path)


def test_no_real_image_is_refused(shared: Path) -> None:
    """As they were before files were looked at: all decode to what Pillow decodes."""
    paths = sorted(path for path in (shared / "data").rglob("*") if path.suffix.lower() in EXTENSIONS)
    assert len(paths) > 100
    for path in paths[:: max(1, len(paths) // 150)]:
        found = read_image(path)
        if found.mode.startswith(("RGB", "L")) and not found.mode.startswith(("RGBA", "LA")):
            assert pixel_sha256(found.pixels) == pixel_sha256(by_pillow(path.read_bytes())), path


# What a mode says


@pytest.mark.parametrize(
    ("chunk", "said"),
    [
        ((b"cICP", bytes([9, 16, 0, 1])), "+cicp=9-16-0-1+pq"),
        ((b"cICP", bytes([9, 18, 0, 1])), "+cicp=9-18-0-1+hlg"),
        ((b"cICP", bytes([1, 13, 0, 1])), "+cicp=1-13-0-1"),
        ((b"gAMA", struct.pack(">I", 45455)), "+gamma=0.45455"),
        ((b"gAMA", struct.pack(">I", 100_000)), "+gamma=1"),
    ],
)
def test_png_with_another_meaning_of_its_values(tmp_path: Path, chunk: tuple[bytes, bytes], said: str) -> None:
    (tmp_path / "a.png").write_bytes(png(chunk))
    found = read_image(tmp_path / "a.png")
    assert found.mode == f"RGB{said}"
    assert np.array_equal(found.pixels, GRIDS[24, 24][:, :, :3])


def pages(path: Path, sizes: list[int], **first: Any) -> Path:
    with tifffile.TiffWriter(path) as writer:
        for number, size in enumerate(sizes):
            writer.write(
                np.full((size, size), size, np.uint8), photometric="minisblack", **(first if not number else {})
            )
    return path


def sub_ifd(path: Path) -> Path:
    with tifffile.TiffWriter(path) as writer:
        writer.write(np.zeros((8, 8), np.uint8), photometric="minisblack", subifds=1)
        writer.write(np.zeros((32, 32), np.uint8), photometric="minisblack")
    return path


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: pages(path, [16]), ""),
        (lambda path: pages(path, [16, 8]), "+pages=2"),
        (lambda path: pages(path, [16, 16, 16]), "+pages=3"),
        (lambda path: pages(path, [8, 16]), "+pages=2+thumbnail"),
        (lambda path: pages(path, [16], subfiletype=1), "+thumbnail"),
        (sub_ifd, "+thumbnail"),
    ],
)
def test_what_a_tiff_holds_beside_its_first_page(tmp_path: Path, make: Callable[[Path], Path], said: str) -> None:
    assert read_image(make(tmp_path / "a.tif")).mode == f"L{said}"


def test_what_follows_in_an_mpo_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    noisy().save(path, "MPO", save_all=True, append_images=[noisy(32, 48)])
    found = read_image(path)
    assert found.mode == "RGB+images=2"
    assert found.pixels.shape == (96, 128, 3)

"""Reading images: one test per line of the table at the top of `rdpbench.image`, and what must be refused."""

from __future__ import annotations

import contextlib
import struct
import warnings
import zlib
from io import BytesIO
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image as pil
from PIL import ImageCms

from rdpbench.errors import ImageError
from rdpbench.image import as_image, check_image, pixel_sha256, read_image, to_uint8

RNG = np.random.default_rng(1)
RGB = RNG.integers(0, 256, (9, 14, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (9, 14, 4), dtype=np.uint16)
# The values at which another rule (v >> 8, v / 256) would differ are among them.
DEEP[0, :4, 0] = [128, 129, 385, 386]


def from16(values: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """The rule for 16 bits, written another way: nearest multiple of 257."""
    return ((values.astype(np.int64) * 2 + 257) // 514).astype(np.uint8)


def saved(path: Path, image: pil.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


@pytest.mark.parametrize("ending", ["png", "bmp", "tif", "ppm", "webp"])
def test_rgb_is_what_was_stored(tmp_path: Path, ending: str) -> None:
    options = {"lossless": True} if ending == "webp" else {}
    found = read_image(saved(tmp_path / f"a.{ending}", pil.fromarray(RGB), **options))
    assert np.array_equal(found.pixels, RGB)
    assert found.mode == "RGB"
    assert found.pixels.flags.writeable


def test_one_pixel(tmp_path: Path) -> None:
    found = read_image(saved(tmp_path / "one.png", pil.fromarray(RGB[:1, :1])))
    assert found.pixels.tolist() == [[RGB[0, 0].tolist()]]


def test_grey_becomes_three_equal_channels(tmp_path: Path) -> None:
    found = read_image(saved(tmp_path / "grey.png", pil.fromarray(RGB[:, :, 0])))
    assert np.array_equal(found.pixels, np.repeat(RGB[:, :, :1], 3, axis=2))
    assert found.mode == "L"


def test_bilevel_is_black_and_white(tmp_path: Path) -> None:
    found = read_image(saved(tmp_path / "one.png", pil.fromarray(RGB[:, :, 0] > 127)))
    assert np.array_equal(found.pixels[:, :, 1], np.where(RGB[:, :, 0] > 127, 255, 0))


def test_palette_gives_its_colours(tmp_path: Path) -> None:
    indexed = pil.fromarray(RGB).quantize(16)
    expected = np.array(indexed.getpalette()).reshape(-1, 3)[np.asarray(indexed)]
    for name in ("p.png", "p.gif"):
        found = read_image(saved(tmp_path / name, indexed))
        assert np.array_equal(found.pixels, expected), name
        assert found.mode == "P"


def test_opaque_alpha_is_dropped(tmp_path: Path) -> None:
    every = np.arange(256, dtype=np.uint8).reshape(16, 16)
    rgba = np.dstack([every, every[::-1], every.T, np.full_like(every, 255)])
    found = read_image(saved(tmp_path / "a.png", pil.fromarray(rgba)))
    assert np.array_equal(found.pixels, rgba[:, :, :3])
    assert found.mode == "RGBA"


def test_transparent_is_composited_over_white(tmp_path: Path) -> None:
    rgba = np.dstack([RGB, RNG.integers(0, 256, RGB.shape[:2], dtype=np.uint8)])
    rgba[0, 0] = [9, 9, 9, 0]
    found = read_image(saved(tmp_path / "a.png", pil.fromarray(rgba))).pixels.astype(int)
    alpha = rgba[:, :, 3:].astype(float) / 255
    expected = rgba[:, :, :3] * alpha + 255 * (1 - alpha)
    assert np.abs(found - expected).max() <= 1
    assert found[0, 0].tolist() == [255, 255, 255]


def test_transparent_palette_entry_is_white(tmp_path: Path) -> None:
    indexed = pil.fromarray(RGB).quantize(4)
    found = read_image(saved(tmp_path / "p.png", indexed, transparency=2)).pixels
    assert (found[np.asarray(indexed) == 2] == 255).all()
    expected = np.array(indexed.getpalette()).reshape(-1, 3)[np.asarray(indexed)]
    opaque = np.asarray(indexed) != 2
    assert np.array_equal(found[opaque], expected[opaque])


def test_grey_of_16_bits(tmp_path: Path) -> None:
    grey = np.ascontiguousarray(DEEP[:, :, 0])
    for name in ("g.png", "g.tif"):
        found = read_image(saved(tmp_path / name, pil.fromarray(grey)))
        assert np.array_equal(found.pixels, np.repeat(from16(grey)[:, :, None], 3, axis=2)), name
        assert found.mode.startswith("I;16")
    (tmp_path / "g.pgm").write_bytes(b"P5 14 9 65535\n" + grey.astype(">u2").tobytes())
    assert np.array_equal(read_image(tmp_path / "g.pgm").pixels[:, :, 2], from16(grey))


def test_colour_of_16_bits_png(tmp_path: Path) -> None:
    """Pillow alone would cut each value to its high byte: a quarter of all pixels would be off by one."""
    path = tmp_path / "c.png"
    path.write_bytes(imagecodecs.png_encode(DEEP[:, :, :3].copy()))
    found = read_image(path)
    assert np.array_equal(found.pixels, from16(DEEP[:, :, :3]))
    assert found.mode == "RGB;16"


def test_colour_of_16_bits_that_pillow_holds_is_refused(tmp_path: Path) -> None:
    """Before and after it cut them; of what Pillow does not cut, the pixels are those of the file."""
    colour, grey = DEEP[:, :, :3].copy(), DEEP[:, :, 0].copy()
    for name, values in (("c.png", colour), ("a.png", DEEP[:, :, -2:].copy()), ("c.tif", colour)):
        path = tmp_path / name
        if path.suffix == ".png":
            path.write_bytes(imagecodecs.png_encode(values))
        else:
            tifffile.imwrite(path, values, photometric="rgb")
        for source, loaded in ((path, False), (path, True), (BytesIO(path.read_bytes()), False)):
            with pil.open(source) as held:
                if loaded:
                    held.load()
                with pytest.raises(ImageError, match="original has 16 bits, of which Pillow keeps the high ones"):
                    as_image(held, "original")
    (tmp_path / "g.png").write_bytes(imagecodecs.png_encode(grey))
    (tmp_path / "c.ppm").write_bytes(b"P6 14 9 65535\n" + colour.astype(">u2").tobytes())
    for path in (tmp_path / "g.png", tmp_path / "c.ppm"):
        with pil.open(path) as held:
            assert np.array_equal(as_image(held), read_image(path).pixels)


def test_colour_of_16_bits_ppm(tmp_path: Path) -> None:
    path = tmp_path / "c.ppm"
    path.write_bytes(b"P6 14 9 65535\n" + DEEP[:, :, :3].astype(">u2").tobytes())
    assert np.array_equal(read_image(path).pixels, from16(DEEP[:, :, :3]))


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_colour_of_16_bits_tiff(tmp_path: Path, planar: bool, compression: str | None) -> None:
    colour = DEEP[:3, :3, :3]  # as many rows, columns and planes: a mix-up of axes cannot be seen from the shape
    stored = np.moveaxis(colour, 2, 0) if planar else colour
    config = "separate" if planar else "contig"
    path = tmp_path / "c.tif"
    tifffile.imwrite(path, stored, photometric="rgb", planarconfig=config, compression=compression)
    assert np.array_equal(read_image(path).pixels, from16(colour))


@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_of_16_bits(tmp_path: Path, channels: int) -> None:
    path = tmp_path / "a.png"
    values = DEEP[:, :, -channels:].copy()
    path.write_bytes(imagecodecs.png_encode(values))
    alpha = values[:, :, -1:] / 65535
    over = values[:, :, :-1] * alpha + 65535 * (1 - alpha)
    expected = np.broadcast_to(over / 257, (9, 14, 3))
    assert np.abs(read_image(path).pixels - expected).max() <= 0.5 + 1e-9


@pytest.mark.parametrize(
    ("depth", "kind", "clear", "line", "expected"),
    [
        (16, 0, 6000, struct.pack(">HH", 2570, 6000), [10, 255]),
        (8, 0, 17, bytes([10, 17]), [10, 255]),
        (4, 0, 1, bytes([0x21]), [34, 255]),
        (2, 0, 2, bytes([0b01100000]), [85, 255]),
        (1, 0, 0, bytes([0b10000000]), [255, 255]),
        (2, 3, None, bytes([0b00010000]), [8, 255]),
    ],
)
def test_transparent_grey(
    tmp_path: Path, depth: int, kind: int, clear: int | None, line: bytes, expected: list[int]
) -> None:
    """One grey, or the second of a palette, is transparent."""
    path = tmp_path / "t.png"

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 2, 1, depth, kind, 0, 0, 0)
    colours = [(b"PLTE", bytes([8] * 3 + [9] * 3)), (b"tRNS", bytes([255, 0]))]
    more = colours if clear is None else [(b"tRNS", struct.pack(">H", clear))]
    chunks = (b"IHDR", header), *more, (b"IDAT", zlib.compress(b"\0" + line)), (b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in chunks))
    assert read_image(path).pixels[0, :, 0].tolist() == expected


def test_cmyk_is_the_plain_conversion(tmp_path: Path) -> None:
    cmyk = RNG.integers(0, 256, (8, 8, 4), dtype=np.uint8)
    found = read_image(saved(tmp_path / "c.tif", pil.frombytes("CMYK", (8, 8), cmyk.tobytes())))
    assert found.mode == "CMYK"
    ink = 255 - cmyk.astype(float)
    expected = ink[:, :, :3] * ink[:, :, 3:] / 255
    assert np.abs(found.pixels - expected).max() <= 1
    # A JPEG of inks, as print shops write it, is stored inverted (Adobe): white must stay white.
    white = saved(tmp_path / "w.jpg", pil.new("CMYK", (8, 8), (0, 0, 0, 0)), quality=95)
    assert read_image(white).pixels.min() == 255


def test_icc_profile_is_dropped_and_said(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    found = read_image(saved(tmp_path / "a.png", pil.fromarray(RGB), icc_profile=profile))
    assert np.array_equal(found.pixels, RGB)
    assert found.mode == "RGB+icc"


def test_exif_orientation_is_ignored(tmp_path: Path) -> None:
    exif = pil.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    plain = read_image(saved(tmp_path / "a.jpg", pil.fromarray(RGB), quality=95))
    turned = read_image(saved(tmp_path / "b.jpg", pil.fromarray(RGB), quality=95, exif=exif))
    assert turned.pixels.shape == RGB.shape
    assert np.array_equal(turned.pixels, plain.pixels)


@pytest.mark.parametrize("ending", ["gif", "png", "webp"])
def test_animation_is_refused(tmp_path: Path, ending: str) -> None:
    frames = [pil.fromarray(RGB), pil.fromarray(255 - RGB)]
    path = saved(tmp_path / f"a.{ending}", frames[0], save_all=True, append_images=frames[1:])
    with pytest.raises(ImageError, match=r"animation of 2 frames"):
        read_image(path)


def test_first_page_of_a_tiff(tmp_path: Path) -> None:
    pages = [pil.fromarray(RGB), pil.fromarray(255 - RGB)]
    assert np.array_equal(
        read_image(saved(tmp_path / "a.tif", pages[0], save_all=True, append_images=pages[1:])).pixels, RGB
    )


@pytest.mark.parametrize("array", [DEEP[:, :, 0].astype(np.float32), DEEP[:, :, 0].astype(np.int32)])
def test_floats_and_32_bits_are_refused(tmp_path: Path, array: NDArray[np.float32]) -> None:
    """Nothing says which value is white."""
    with pytest.raises(ImageError, match=r"32 bits|signed numbers or floats"):
        read_image(saved(tmp_path / "f.tif", pil.fromarray(array)))


@pytest.mark.parametrize("kind", [np.int8, np.int16, np.float16, np.uint32])
def test_signed_numbers_are_refused(tmp_path: Path, kind: type[np.generic]) -> None:
    """Pillow reads -1 as 255."""
    tifffile.imwrite(tmp_path / "s.tif", np.full((4, 4), 3, kind), photometric="minisblack")
    with pytest.raises(ImageError, match=r"signed numbers or floats|32 bits|cannot read"):
        read_image(tmp_path / "s.tif")


def test_missing_empty_text_and_truncated(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"no such image: .*gone.png"):
        read_image(tmp_path / "gone.png")
    (tmp_path / "empty.png").write_bytes(b"")
    with pytest.raises(ImageError, match=r"empty.png is empty \(0 bytes\)"):
        read_image(tmp_path / "empty.png")
    (tmp_path / "text.png").write_text("not an image at all\n" * 50)
    with pytest.raises(ImageError, match=r"cannot read .*text.png"):
        read_image(tmp_path / "text.png")


@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "bmp", "gif", "webp", "ppm"])
def test_any_cut_is_an_image_error_or_the_image(tmp_path: Path, ending: str) -> None:
    """Cut anywhere, a file is refused as an image; never another exception, never other pixels."""
    whole = saved(tmp_path / f"whole.{ending}", pil.fromarray(RGB))
    pixels, data = read_image(whole).pixels, whole.read_bytes()
    path = tmp_path / f"cut.{ending}"
    for length in range(1, len(data), max(1, len(data) // 60)):
        path.write_bytes(data[:length])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                found = read_image(path).pixels
            except ImageError:
                continue
        # Some formats end in bytes that carry no pixels.
        assert np.array_equal(found, pixels), f"{length} of {len(data)} bytes"


@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "bmp", "gif", "webp", "ppm"])
def test_damage_is_an_image_error_or_an_image(tmp_path: Path, ending: str) -> None:
    whole = saved(tmp_path / f"whole.{ending}", pil.fromarray(RGB)).read_bytes()
    path = tmp_path / f"damaged.{ending}"
    rng = np.random.default_rng(7)
    for _ in range(150):
        data = bytearray(whole)
        for at in rng.integers(0, min(len(data), 200), 3):
            data[at] = rng.integers(0, 256)
        path.write_bytes(data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with contextlib.suppress(ImageError):
                check_image(read_image(path).pixels)


def test_rounding_is_half_up() -> None:
    halves = (np.arange(255) + 0.5) / 255
    assert to_uint8(halves).tolist() == list(range(1, 256))
    assert to_uint8(np.array([-5.0, 0.0, 1.0, 7.0])).tolist() == [0, 0, 255, 255]


def test_pixel_hash_tells_shapes_apart() -> None:
    flat = np.zeros((2, 3, 3), np.uint8)
    assert pixel_sha256(flat) != pixel_sha256(flat.reshape(3, 2, 3))
    turned = RGB.transpose(1, 0, 2)
    assert pixel_sha256(turned) == pixel_sha256(np.ascontiguousarray(turned))


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8), 3],
)
def test_check_image_refuses(wrong: object) -> None:
    with pytest.raises(ImageError, match="the thing"):
        check_image(wrong, "the thing")  # type: ignore[arg-type]

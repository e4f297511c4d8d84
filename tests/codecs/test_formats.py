"""Facts of single formats: what exactly is in the bytes, and that options do what they say."""

from __future__ import annotations

import re
from io import BytesIO

import numpy as np
import pytest
from PIL import Image as pil

from rdpbench.codecs.contract import Side
from rdpbench.config.bench import read_bench
from rdpbench.image import Image
from rdpbench.results.store.keys import build


def encode(name: str, image: Image, rate: float | None = None) -> bytes:
    """Encode with a shipped configuration, at the middle of its default points unless told."""
    setting = read_bench([f"codec={name}"]).grid[0][0]
    return build(setting, setting.rates[len(setting.rates) // 2] if rate is None else rate).encode(image, Side()).data


def psnr(one: Image, other: Image) -> float:
    return float(10 * np.log10(255**2 / np.mean((one.astype(np.float64) - other) ** 2)))


def stripe() -> Image:
    from skimage import data

    picture: Image = data.astronaut()[100:228]
    return np.concatenate([picture, picture[:, ::-1]], axis=1)


@pytest.mark.parametrize(("name", "file_format"), [("jpeg", "JPEG"), ("webp", "WEBP")])
def test_jpeg_and_webp_are_pillow_with_its_defaults(name: str, file_format: str, photograph: Image) -> None:
    for quality in (5, 50, 95):
        buffer = BytesIO()
        pil.fromarray(photograph).save(buffer, format=file_format, quality=quality)
        assert encode(name, photograph, quality) == buffer.getvalue()


def test_optimised_jpeg_is_smaller_for_the_same_pixels(photograph: Image) -> None:
    from rdpbench.codecs.classical.pillow import JPEG

    plain, optimised = (JPEG(60, "4:4:4", optimize).encode(photograph, Side()).data for optimize in (False, True))
    assert len(optimised) < 0.97 * len(plain)
    assert np.array_equal(JPEG().decode(plain), JPEG().decode(optimised))


def test_mozjpeg_is_mozjpeg(photograph: Image) -> None:
    """Where libjpeg-turbo cannot go below 0.2 bpp."""
    assert len(encode("mozjpeg", photograph, 1)) < 0.6 * len(encode("jpeg", photograph, 1))


def test_jpeg2000_gives_the_ratio_that_was_asked_for(photograph: Image) -> None:
    for ratio in (12, 24.5, 60):
        data = encode("jpeg2000", photograph, ratio)
        assert photograph.size / len(data) == pytest.approx(ratio, rel=0.01)


def test_nothing_is_paid_for_that_a_decoder_does_not_need(photograph: Image) -> None:
    codestream = encode("jpeg2000", photograph)
    assert codestream.startswith(b"\xff\x4f\xff\x51")
    assert b"OpenJPEG" not in codestream
    assert encode("jpegxl", photograph).startswith(b"\xff\x0a")
    stream = encode("hevc", photograph)
    units = [stream[match.end()] >> 1 & 63 for match in re.finditer(b"\0\0\1", stream)]
    assert units in ([32, 33, 34, 19], [32, 33, 34, 20]), "VPS, SPS, PPS and one IDR slice; no SEI"
    grey = np.full((64, 64, 3), 128, np.uint8)
    assert len(encode("hevc", grey, 51)) < 120
    assert len(encode("avif", grey, 0)) < 400
    assert len(encode("heif", grey, 0)) < 550


@pytest.mark.parametrize("chroma", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 64), (191, 255)])
def test_an_avif_file_is_one_that_others_read(chroma: str, size: tuple[int, int], photograph: Image) -> None:
    """Nothing of the alpha that the image was handed over with is written; Pillow's decoder is off by a little."""
    from rdpbench.codecs.classical.avif import AVIF

    image = np.ascontiguousarray(photograph[: size[0], : size[1]])
    data = AVIF(90, chroma).encode(image, Side()).data
    assert not any(word in data for word in (b"auxC", b"auxl", b"prem"))
    opened = pil.open(BytesIO(data))
    assert opened.mode == "RGB"
    ours = AVIF().decode(data)
    assert ours.shape == image.shape
    assert np.abs(np.array(opened).astype(int) - ours).mean() < 1
    assert np.abs(ours.astype(int) - image).mean() < (2.5 if chroma == "4:4:4" else 4)


def has_wavefronts(data: bytes) -> bool:
    """``entropy_coding_sync_enabled_flag`` of the picture parameter set (ITU-T H.265, 7.3.2.3.1)."""
    at = data.index(b"\x44\x01") + 2
    bits = "".join(f"{byte:08b}" for byte in data[at : at + 16].replace(b"\0\0\3", b"\0\0"))
    place = 0

    def fixed(count: int) -> int:
        nonlocal place
        place += count
        return int(bits[place - count : place], 2)

    def golomb() -> int:
        zeros = bits.index("1", place) - place
        return fixed(2 * zeros + 1) - 1

    golomb(), golomb(), fixed(7), golomb(), golomb(), golomb(), fixed(2)  # ids, flags, references, initial QP, flags
    if fixed(1):  # cu_qp_delta_enabled_flag
        golomb()
    golomb(), golomb(), fixed(5)  # chroma QP offsets; slice offsets, weights, bypass and tiles
    return bool(fixed(1))


@pytest.mark.parametrize("name", ["hevc", "heif", "heif-420"])
def test_x265_codes_without_threads(name: str) -> None:
    """x265 counts the cores of the machine, not those of the process: the affinity test cannot see its pool.

    Wavefronts, which change the bytes, are on wherever it has one.
    """
    assert not has_wavefronts(encode(name, stripe()))


def test_ten_bit_hevc_goes_beyond_the_rounding_of_eight(photograph: Image) -> None:
    from rdpbench.codecs.classical.hevc import HEVC

    for qp, gain in ((1, 1.0), (32, -0.3)):
        eight, ten = (HEVC(qp, bits).encode(photograph, Side()).data for bits in (8, 10))
        assert psnr(HEVC().decode(ten), photograph) > psnr(HEVC().decode(eight), photograph) + gain


def test_a_library_that_fails_to_encode_is_quoted(monkeypatch: pytest.MonkeyPatch, photograph: Image) -> None:
    from rdpbench.errors import CoderFailed

    def broken(*_: object, **__: object) -> None:
        raise OSError("broken data stream")

    monkeypatch.setattr(pil.Image, "save", broken)
    with pytest.raises(CoderFailed, match="jpeg could not encode: OSError: broken data stream"):
        encode("jpeg", photograph)


def test_a_libvips_without_mozjpeg_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from rdpbench.codecs.classical import pillow
    from rdpbench.errors import MissingNeed

    monkeypatch.setattr(pillow, "_save", lambda *_, **__: b"the same whatever the table")
    pillow._vips.cache_clear()
    with pytest.raises(MissingNeed, match="mozjpeg"):
        encode("mozjpeg", np.full((16, 16, 3), 90, np.uint8))
    pillow._vips.cache_clear()

"""The in-process codecs, through the configurations that ship: what they write, read back, refuse and survive."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image as pil
from PIL import ImageCms

from rdpbench import registry
from rdpbench.codecs.classical import pillow
from rdpbench.codecs.classical.avif import AVIF
from rdpbench.codecs.classical.hevc import HEVC
from rdpbench.codecs.classical.pillow import JPEG
from rdpbench.codecs.contract import Codec, Side, coder_of, facts_of, rate_of
from rdpbench.errors import (
    BitstreamError,
    CoderFailed,
    ConfigError,
    ImageError,
    MissingNeed,
    OutOfRange,
    UnsupportedImage,
)
from rdpbench.image import Image, check_image, read_image

CONF = Path(__file__).parents[2] / "conf" / "codec"
CODECS = [
    *("jpeg", "jpeg-444", "mozjpeg", "mozjpeg-444", "jpeg2000", "webp", "avif", "avif-420", "avif-psnr"),
    *("hevc", "heif", "heif-420", "jpegxl"),
]
CLASSES = ["avif", "heif", "hevc", "jpeg", "jpeg2000", "jpegxl", "mozjpeg", "webp"]
ODD_SIZES = [(1, 1), (1, 9), (9, 1), (2, 2), (7, 9), (33, 17)]
X265_SIZES = [(16, 16), (17, 33), (33, 17), (16, 95)]


@cache
def conf(name: str) -> dict[str, Any]:
    """A file of ``conf/codec`` as plain data."""
    loaded = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
    assert isinstance(loaded, dict)
    return {str(key): value for key, value in loaded.items()}


def build(name: str, rate: float | None = None) -> Codec:
    """The codec of a configuration, at the middle of its default points unless told."""
    one = conf(name)
    cls = registry.load("codec", one["use"])
    axis = rate_of(cls)
    assert axis is not None
    value = axis.check(name, one["rates"][len(one["rates"]) // 2] if rate is None else rate)
    built = cls(**one["options"], **{axis.field: value})
    assert isinstance(built, Codec)
    return built


def fresh(name: str) -> Codec:
    """A codec that knows nothing of how the bytes were made: the class with its defaults."""
    built = registry.load("codec", conf(name)["use"])()
    assert isinstance(built, Codec)
    return built


def encode(name: str, image: Image, rate: float | None = None) -> bytes:
    return build(name, rate).encode(image, Side()).data


def psnr(one: Image, other: Image) -> float:
    return float(10 * np.log10(255**2 / np.mean((one.astype(np.float64) - other) ** 2)))


def ramp(height: int, width: int) -> Image:
    """Different in every direction and channel, so that a swap or a turn shows; smooth, so that any codec keeps it."""
    y, x = np.mgrid[0:height, 0:width]
    down, right = min(2, 100 / height), min(2, 100 / width)
    planes = [60 + down * y, 180 - right * x, 40 + (down * y + right * x) / 2]
    return np.stack(planes, axis=-1).astype(np.uint8)


@pytest.mark.parametrize("name", CODECS)
def test_the_configuration_is_whole_and_legal(name: str) -> None:
    one = conf(name)
    assert list(one) == ["name", "title", "use", "options", "rates", "role", "paper"]
    assert one["name"] == name
    assert one["role"] == "codec"
    cls = registry.load("codec", one["use"])
    axis = rate_of(cls)
    assert axis is not None
    for rate in one["rates"]:
        build(name, rate)
    assert one["rates"] == sorted(one["rates"], reverse=not axis.rises), "points go from few bytes to many"
    # All options stand there, so that one can be overridden from the command line without a plus sign.
    fields = set(cls.__dataclass_fields__) - {axis.field}
    assert {field for field in fields if cls.__dataclass_fields__[field]._field_type.name == "_FIELD"} == set(
        one["options"]
    )
    assert [need.missing() for need in facts_of(cls).needs] == [None] * len(facts_of(cls).needs)


@pytest.mark.parametrize("name", CODECS)
def test_odd_and_tiny_images_come_back(name: str) -> None:
    axis = rate_of(type(fresh(name)))
    assert axis is not None
    best = axis.high if axis.rises else axis.low
    for height, width in X265_SIZES if name == "hevc" else ODD_SIZES:
        image = ramp(height, width)
        found = fresh(name).decode(encode(name, image, best))
        assert check_image(found).shape == image.shape
        assert np.abs(found.astype(int) - image).mean() < 8, f"{name} at {width} x {height}"


@pytest.mark.slow
@pytest.mark.parametrize("name", CODECS)
def test_a_large_odd_image_comes_back(name: str) -> None:
    image = ramp(511, 767)
    assert psnr(fresh(name).decode(encode(name, image, conf(name)["rates"][-1])), image) > 33


@pytest.mark.parametrize("name", CODECS)
def test_points_rise_in_bytes_and_in_quality(name: str, photograph: Image) -> None:
    sizes, values = [], []
    for rate in conf(name)["rates"]:
        data = encode(name, photograph, rate)
        sizes.append(len(data))
        values.append(psnr(fresh(name).decode(data), photograph))
    assert sizes == sorted(set(sizes))
    assert values == sorted(values)
    assert values[-1] > 32


@pytest.mark.parametrize("name", CODECS)
def test_the_same_image_gives_the_same_bytes_and_pixels(name: str, photograph: Image) -> None:
    before = photograph.copy()
    first, second = (build(name).encode(photograph, Side(seed=seed)) for seed in (0, 1))
    assert first.data == second.data
    assert dict(first.parts) == {"file": len(first.data)}
    assert np.array_equal(photograph, before), "the encoder wrote into the image"
    assert np.array_equal(fresh(name).decode(first.data), fresh(name).decode(first.data))


@pytest.fixture
def one_core() -> Iterator[None]:
    """This process, and what it starts, on a single core."""
    if not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs an affinity that can be changed, and two cores")
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    yield
    os.sched_setaffinity(0, cores)


@pytest.fixture(scope="module")
def on_all_cores() -> dict[str, bytes]:
    """A stripe wide enough for tiles and wavefronts, coded with every core there is."""
    return {name: encode(name, stripe()) for name in CODECS}


def stripe() -> Image:
    from skimage import data

    picture: Image = data.astronaut()[100:228]
    return np.concatenate([picture, picture[:, ::-1]], axis=1)


@pytest.mark.parametrize("name", CODECS)
def test_the_number_of_cores_changes_nothing(name: str, on_all_cores: dict[str, bytes], one_core: None) -> None:
    assert encode(name, stripe()) == on_all_cores[name]


@pytest.mark.parametrize("name", ["avif", "heif", "hevc", "mozjpeg"])
def test_pixels_are_the_same_in_a_process_with_other_threads(name: str, photograph: Image, tmp_path: Path) -> None:
    data = encode(name, photograph)
    (tmp_path / "bits").write_bytes(data)
    script = (
        "import hashlib, pathlib, sys; from rdpbench import registry;"
        "codec = registry.load('codec', sys.argv[1])();"
        "pixels = codec.decode(pathlib.Path(sys.argv[2]).read_bytes());"
        "print(hashlib.sha256(pixels.tobytes()).hexdigest())"
    )
    hashes = set()
    for threads in ("1", "3"):
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "VIPS_CONCURRENCY": threads}
        command = [sys.executable, "-c", script, conf(name)["use"], str(tmp_path / "bits")]
        hashes.add(subprocess.run(command, env=environment, capture_output=True, check=True, text=True).stdout)
    assert len(hashes) == 1


@pytest.mark.parametrize("name", CODECS)
def test_nothing_of_the_source_file_is_in_the_bytes(name: str, photograph: Image, tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = pil.Exif()
    exif[0x010E] = "a description that must not be paid for"
    opaque = np.full((*photograph.shape[:2], 1), 255, np.uint8)
    tagged = pil.fromarray(np.concatenate([photograph, opaque], axis=2))
    tagged.save(tmp_path / "tagged.png", icc_profile=profile, exif=exif)
    pil.fromarray(photograph).save(tmp_path / "plain.png")
    loaded = read_image(tmp_path / "tagged.png")
    assert loaded.mode == "RGBA+icc"
    data = encode(name, loaded.pixels)
    assert data == encode(name, read_image(tmp_path / "plain.png").pixels)
    assert not any(word in data for word in (b"acsp", b"ICC_PROFILE", b"Exif", b"description"))


@pytest.mark.parametrize("name", CODECS)
def test_a_view_of_an_array_is_coded_as_what_it_shows(name: str, photograph: Image) -> None:
    view = photograph[::2, ::-2]
    assert not view.flags.c_contiguous
    assert encode(name, view) == encode(name, np.ascontiguousarray(view))


def damaged(data: bytes) -> Iterator[bytes]:
    """Cut, flipped, overwritten and lengthened in many places; always the same ones."""
    draw = random.Random(len(data))
    for _ in range(12):
        yield data[: draw.randrange(1, len(data))]
        flipped = bytearray(data)
        flipped[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        yield bytes(flipped)
        header = bytearray(data)
        header[draw.randrange(min(200, len(data)))] = draw.randrange(256)
        yield bytes(header)
        at = draw.randrange(len(data))
        yield data[:at] + draw.randbytes(9) + data[at:]


@pytest.mark.parametrize("name", CODECS)
def test_damage_gives_an_error_of_ours_or_an_image(name: str, photograph: Image) -> None:
    codec = fresh(name)
    refused = 0
    for bits in damaged(encode(name, photograph[:48, :80])):
        try:
            check_image(codec.decode(bits))
        except BitstreamError:
            refused += 1
    assert refused > 0


@pytest.mark.parametrize("name", CODECS)
def test_what_is_no_bitstream_is_refused(name: str) -> None:
    other = encode("webp" if conf(name)["use"] == "jpeg" else "jpeg", ramp(16, 16))
    for bits in (
        b"",
        b"\0",
        bytes(1000),
        random.Random(1).randbytes(1000),
        other if "jpeg" not in name else b"\xff\xd8",
    ):
        with pytest.raises(BitstreamError):
            fresh(name).decode(bits)


def test_files_that_we_would_not_write_are_refused() -> None:
    """Grey, alpha or animation can only mean that the bytes are not those that were stored."""
    for file_format, name in (("JPEG", "jpeg"), ("JPEG2000", "jpeg2000")):
        buffer = BytesIO()
        pil.new("L", (16, 16)).save(buffer, format=file_format)
        with pytest.raises(BitstreamError, match="of ours"):
            fresh(name).decode(buffer.getvalue())


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("hevc", (15, 64)),
        ("hevc", (64, 15)),
        ("hevc", (1, 1)),
        ("hevc", (16, 4097)),
        ("heif", (4097, 31)),
        ("heif", (64, 16385)),
        ("webp", (1, 16384)),
        ("jpeg", (65501, 1)),
        ("mozjpeg", (1, 65501)),
        ("avif", (32769, 1)),
    ],
)
def test_sizes_that_a_format_cannot_hold_are_refused(name: str, shape: tuple[int, int]) -> None:
    height, width = shape
    with pytest.raises(UnsupportedImage, match=f"{width} x {height}"):
        encode(name, np.zeros((height, width, 3), np.uint8))


@pytest.mark.parametrize("name", ["jpeg2000", "heif", "hevc", "webp", "jpegxl"])
def test_arrays_that_are_no_images_are_refused(name: str) -> None:
    for wrong in (np.zeros((32, 32, 3), np.float32), np.zeros((32, 32), np.uint8), np.zeros((32, 32, 4), np.uint8)):
        with pytest.raises(ImageError, match="uint8"):
            encode(name, wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("use", "options", "legal"),
    [
        ("jpeg", {"chroma": "444"}, "'4:4:4'"),
        ("mozjpeg", {"chroma": "4:2:2"}, "'4:2:0'"),
        ("webp", {"method": 7}, "6"),
        ("avif", {"tune": "vmaf"}, "'psnr'"),
        ("avif", {"speed": -1}, "0, 1"),
        ("heif", {"chroma": 444}, "'4:4:4'"),
        ("hevc", {"bit_depth": 12}, "8, 10"),
        ("hevc", {"preset": "slowest"}, "'slow'"),
        ("jpegxl", {"effort": 11}, "7"),
    ],
)
def test_options_that_do_not_exist_are_refused_with_those_that_do(
    use: str, options: dict[str, Any], legal: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(legal)):
        registry.load("codec", use)(**options)


@pytest.mark.parametrize(
    ("use", "field", "value"),
    [
        ("jpeg", "quality", 0),
        ("mozjpeg", "quality", 101),
        ("webp", "quality", -1),
        ("avif", "quality", 100),
        ("heif", "quality", -1),
        ("hevc", "qp", 52),
        ("jpegxl", "distance", 25.5),
        ("jpeg2000", "ratio", float("nan")),
    ],
)
def test_rates_out_of_range_are_refused(use: str, field: str, value: float) -> None:
    with pytest.raises(OutOfRange, match=field):
        registry.load("codec", use)(**{field: value})


@pytest.mark.parametrize("use", CLASSES)
def test_the_coding_library_tells_its_version(use: str) -> None:
    coder = coder_of(registry.load("codec", use)())
    assert len(coder) >= 2
    assert all(re.search(r"\d+\.\d+", version) for version in coder.values()), coder


def test_importing_the_codecs_imports_no_library() -> None:
    heavy = ["PIL", "av", "imagecodecs", "pillow_heif", "pyvips", "torch"]
    script = (
        "import sys; from rdpbench import registry\n"
        f"for name in {CLASSES!r}: registry.load('codec', name)\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "[]"


# Single formats: what exactly is in the bytes, and that options do what they say


@pytest.mark.parametrize(("name", "file_format"), [("jpeg", "JPEG"), ("webp", "WEBP")])
def test_jpeg_and_webp_are_pillow_with_its_defaults(name: str, file_format: str, photograph: Image) -> None:
    for quality in (5, 50, 95):
        buffer = BytesIO()
        pil.fromarray(photograph).save(buffer, format=file_format, quality=quality)
        assert encode(name, photograph, quality) == buffer.getvalue()


def test_optimised_jpeg_is_smaller_for_the_same_pixels(photograph: Image) -> None:
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
    for qp, gain in ((1, 1.0), (32, -0.3)):
        eight, ten = (HEVC(qp, bits).encode(photograph, Side()).data for bits in (8, 10))
        assert psnr(HEVC().decode(ten), photograph) > psnr(HEVC().decode(eight), photograph) + gain


def test_a_library_that_fails_to_encode_is_quoted(monkeypatch: pytest.MonkeyPatch, photograph: Image) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError("broken data stream")

    monkeypatch.setattr(pil.Image, "save", broken)
    with pytest.raises(CoderFailed, match="jpeg could not encode: OSError: broken data stream"):
        encode("jpeg", photograph)


def test_a_libvips_without_mozjpeg_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pillow, "_save", lambda *_, **__: b"the same whatever the table")
    pillow._vips.cache_clear()
    with pytest.raises(MissingNeed, match="mozjpeg"):
        encode("mozjpeg", np.full((16, 16, 3), 90, np.uint8))
    pillow._vips.cache_clear()

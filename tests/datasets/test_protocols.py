"""Protocols: geometry at any size, filters beside their reference libraries, labels beside their image."""

from __future__ import annotations

import hashlib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image as pil

from rdpbench.datasets.protocols import (
    LARGEST,
    PROTOCOLS,
    Crop,
    Resize,
    Step,
    apply,
    apply_to_labels,
    find,
    labels_under,
    load_under,
)
from rdpbench.errors import ImageError, UnknownName
from rdpbench.image import Image, pixel_sha256, read_image

SIDES = st.integers(1, 2000)
CROPS = ("centre-crop-256", "centre-crop-512", "centre-crop-17")
SQUARES = {"taco-256": 256, "perco-512": 512, "dalle-256": 256, "dalle-256-random": 256}
ENLARGE = {"taco-256": 256, "text-sketch-512": 512}
SHAPES = [(427, 640), (640, 480), (300, 1000), (256, 256), (512, 768), (1365, 700)]


def noise(height: int, width: int, seed: int = 0) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def size_after(steps: tuple[Step, ...], height: int, width: int) -> tuple[int, int]:
    """Follow the steps without pixels; no crop may reach outside."""
    for step in steps:
        if isinstance(step, Crop):
            assert 0 <= step.top <= height - step.height
            assert 0 <= step.left <= width - step.width
        height, width = step.height, step.width
    return height, width


@pytest.fixture(scope="module")
def photos(shared: Path) -> list[Path]:
    """Real images: Kodak both ways, COCO at several sizes, three of which have a side below 256."""
    coco = [shared / "data" / "coco" / "train2017" / f"{number:012}.jpg" for number in (357, 472, 597)]
    coco += sorted((shared / "data" / "coco" / "val2017").glob("*.jpg"))[:5]
    kodak = [shared / "data" / "kodak" / f"kodim{number:02}.png" for number in (3, 4)]
    found = [path for path in coco + kodak if path.is_file()]
    if len(found) < 10:
        pytest.skip("not all of these images of COCO and Kodak are in the folder 'shared'")
    return found


# Geometry, at sizes from 1 to 2000


@given(SIDES, SIDES, st.text("0123456789abcdef", min_size=1, max_size=8))
def test_every_protocol_gives_its_size_or_refuses(height: int, width: int, digest: str) -> None:
    for name, protocol in PROTOCOLS.items():
        if min(height, width) < protocol.smallest:
            with pytest.raises(ImageError, match=f"{name} takes images of at least {protocol.smallest} pixels"):
                protocol.steps(height, width, digest)
            continue
        if ENLARGE.get(name, 0) ** 2 * max(height, width) > 0.9 * LARGEST * min(height, width):
            continue  # so long and thin that it may become huge: refused, see below
        found = size_after(protocol.steps(height, width, digest), height, width)
        if name == "as-is":
            assert found == (height, width)
        elif name == "text-sketch-512":
            assert min(found) == 512
            assert found[0] % 64 == found[1] % 64 == 0
            assert abs(max(found) - 512 * max(height, width) / min(height, width)) <= 32 + 1e-6
        else:
            side = SQUARES.get(name) or protocol.smallest
            assert found == (side, side)


@settings(deadline=None)  # torchvision is imported in the first
@given(st.integers(256, 2000), st.integers(256, 2000), st.integers(1, 256))
def test_crops_lie_in_the_middle_where_torchvision_puts_them(height: int, width: int, side: int) -> None:
    from torchvision.transforms import functional

    found = size_after(find(f"centre-crop-{side}").steps(height, width), height, width)
    (crop,) = find(f"centre-crop-{side}").steps(height, width)
    assert isinstance(crop, Crop)
    assert found == (side, side)
    for start, length in ((crop.top, height), (crop.left, width)):
        rest = length - side - start
        assert abs(start - rest) <= 1
        assert (length - side) % 2 == 0 or start % 2 == 0  # half a pixel goes to the even side
    # One bright pixel where we start: torchvision's crop must start with it.
    picture = pil.new("1", (width, height))
    picture.putpixel((crop.left, crop.top), 1)
    assert functional.center_crop(picture, [side, side]).getpixel((0, 0))


@settings(max_examples=25, deadline=None)
@given(SIDES, SIDES)
@example(427, 640)
@example(1999, 513)
def test_label_and_image_keep_the_same_pixels_where_only_cropped(height: int, width: int) -> None:
    rows, columns = np.indices((height, width), dtype=np.int32, sparse=True)
    image = np.empty((height, width, 3), np.uint8)
    image[..., 0], image[..., 1], image[..., 2] = rows % 256, rows // 256 + 16 * (columns // 256), columns % 256
    before = hashlib.sha256(image).digest()
    image.flags.writeable = False
    for name in (*CROPS, "taco-256"):
        if min(height, width) < max(find(name).smallest, 256 if name == "taco-256" else 1):
            continue
        cropped, places = find(name)(image), labels_under(name, rows * 2048 + columns, image)
        assert np.array_equal(places // 2048, cropped[..., 0] + 256 * (cropped[..., 1].astype(int) % 16))
        assert np.array_equal(places % 2048, cropped[..., 2] + 256 * (cropped[..., 1].astype(int) // 16))
    assert hashlib.sha256(image).digest() == before


def test_known_offsets() -> None:
    """One line each that a reader can check by hand."""
    assert find("centre-crop-256").steps(427, 640) == (Crop(86, 192, 256, 256),)  # 85.5 rounds to 86
    assert find("centre-crop-256").steps(425, 640) == (Crop(84, 192, 256, 256),)  # 84.5 rounds to 84
    assert find("taco-256").steps(427, 640) == (Crop(86, 192, 256, 256),)
    assert find("taco-256").steps(218, 640) == (Resize(256, 752, "bicubic"), Crop(0, 248, 256, 256))
    assert find("dalle-256").steps(427, 640) == (Resize(256, 384, "lanczos"), Crop(0, 64, 256, 256))
    assert find("text-sketch-512").steps(512, 768) == (Resize(512, 768, "area"),)
    assert find("text-sketch-512").steps(2048, 1365) == (Resize(768, 512, "area"),)
    assert find("text-sketch-512").steps(512, 544) == (Resize(512, 512, "area"),)  # 8.5 rounds to 8


# Pixels, beside the reference libraries. Tolerance 0 wherever the reference is the same library.


def references(name: str, path: Path) -> Image | None:
    """What the papers' own code makes of a file, step by step with its own libraries; None where it refuses."""
    import cv2
    from torchvision.transforms import functional

    picture = pil.open(path).convert("RGB")
    if name == "perco-512":  # Nikolai10/PerCo: read_png, then ToPILImage
        resized = functional.resize(picture, [512, 512], functional.InterpolationMode.BICUBIC)
        return np.asarray(functional.to_pil_image(functional.to_tensor(resized)))
    if name == "dalle-256":  # openai/DALL-E: preprocess
        short = min(picture.size)
        if short < 256:
            return None
        height, width = round(256 / short * picture.size[1]), round(256 / short * picture.size[0])
        resized = functional.resize(picture, [height, width], functional.InterpolationMode.LANCZOS)
        return np.asarray(functional.center_crop(resized, [256, 256]))
    if name == "text-sketch-512":  # ToTensor, 8 bits again by cutting, then ControlNet's resize_image
        pixels = (255 * functional.to_tensor(picture).permute(1, 2, 0)).numpy().astype(np.uint8)
        factor = 512.0 / min(pixels.shape[:2])
        height, width = (int(np.round(side * factor / 64.0)) * 64 for side in map(float, pixels.shape[:2]))
        return cv2.resize(
            pixels, (width, height), interpolation=cv2.INTER_LANCZOS4 if factor > 1 else cv2.INTER_AREA
        )  # fmt: skip
    if min(picture.size) < 256:  # taco-256 enlarges first: our rule
        factor = 256 / min(picture.size)
        picture = picture.resize(tuple(round(factor * side) for side in picture.size), pil.Resampling.BICUBIC)
    return np.asarray(functional.center_crop(picture, [256, 256]))


@pytest.mark.parametrize("name", ["perco-512", "dalle-256", "text-sketch-512", "taco-256"])
def test_real_images_equal_the_reference_code_exactly(name: str, photos: list[Path]) -> None:
    refused = 0
    for path in photos:
        expected = references(name, path)
        if expected is None:
            refused += 1
            with pytest.raises(ImageError, match=f"{path.name}: {name} takes images of at least 256"):
                load_under(name, path)
        else:
            assert np.array_equal(load_under(name, path).pixels, expected), path
    assert refused == (3 if name == "dalle-256" else 0)


@pytest.mark.parametrize("name", ["perco-512", "dalle-256", "text-sketch-512", "taco-256"])
@pytest.mark.parametrize("shape", [(257, 300), (256, 256), (90, 100), (600, 511), (512, 512)])
def test_synthetic_images_equal_the_reference_code_exactly(name: str, shape: tuple[int, int], tmp_path: Path) -> None:
    pil.fromarray(noise(*shape)).save(tmp_path / "a.png")
    expected = references(name, tmp_path / "a.png")
    if expected is None:
        with pytest.raises(ImageError, match=r"taco-256, perco-512, text-sketch-512"):
            load_under(name, tmp_path / "a.png")
    else:
        assert np.array_equal(load_under(name, tmp_path / "a.png").pixels, expected)


# Any change of these bytes, by us or by another version of a library, makes other numbers out of the same images.
# Pillow 9.5, 11.3, 12.0 and 13.0 and OpenCV 4.8, 4.10, 4.11 and 5.0 agree on them, with and without SIMD and threads.
GOLDEN = {
    "as-is": ["ef68707a7c625051", "8f9ce021281618da"],
    "centre-crop-256": ["c30049a222a3daff", "d133383b6dbfff91"],
    "centre-crop-512": ["047ac5f2587ea5d9"],
    "dalle-256": ["203e912758a83595", "c315b64009ce4b5c"],
    "dalle-256-random": ["e9d6bde4d54f066a", "2f5a12208603ff40"],
    "perco-512": ["22be3fa6b7237d50", "631e5e748446c4ac"],
    "taco-256": ["c30049a222a3daff", "d133383b6dbfff91"],
    "text-sketch-512": ["766282248763b0f3", "3835f94c98b80686"],
}


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_bytes_stay_the_same(name: str) -> None:
    shapes = [shape for shape in ((427, 640), (1030, 700)) if min(shape) >= PROTOCOLS[name].smallest]
    found = [pixel_sha256(PROTOCOLS[name](noise(*shape)))[:16] for shape in shapes]
    assert found == GOLDEN[name]


def area_by_definition(line: list[int], size: int) -> list[int]:
    """Means over areas of ``(in - 1) / (out - 1)`` pixels, in exact fractions, the last pixel repeated."""
    scale = Fraction(len(line) - 1, size - 1)
    means = []
    for number in range(size):
        total, place = Fraction(0), scale * number
        while place < scale * (number + 1):
            until = min(Fraction(int(place) + 1), scale * (number + 1))
            total += line[min(int(place), len(line) - 1)] * (until - place)
            place = until
        means.append(round(total / scale))
    return means


@given(st.lists(st.integers(0, 255), min_size=2, max_size=40), st.data())
def test_the_area_filter_is_its_definition(line: list[int], data: st.DataObject) -> None:
    size = data.draw(st.integers(2, len(line)))
    image = np.broadcast_to(np.array(line, np.uint8)[None, :, None], (2, len(line), 3))
    assert apply([Resize(2, size, "area-corners")], image)[1, :, 2].tolist() == area_by_definition(line, size)


def test_the_area_filter_equals_tensorflow() -> None:
    """Values of ``tf.compat.v1.image.resize_area(..., align_corners=True)``, TensorFlow 2.21, rounded by ``rint``.

    On larger images (noise and COCO, 256 to 2000 pixels) TensorFlow's float32 sums differ from ours by one grey level
    in at most 0.16 % of the values.
    """
    image = np.repeat((np.arange(49).reshape(7, 7, 1) ** 2 * 3 % 256).astype(np.uint8), 3, axis=2)
    found = apply([Resize(4, 4, "area-corners")], image)[..., 0].tolist()
    assert found == [[86, 82, 102, 180], [114, 86, 146, 158], [102, 114, 150, 160], [172, 182, 216, 0]]


def test_the_area_filter_does_not_enlarge() -> None:
    with pytest.raises(ImageError, match="not from 5 to 6"):
        apply([Resize(5, 6, "area-corners")], noise(5, 5))


# Label maps


@pytest.mark.parametrize("shape", [*SHAPES, (200, 130), (133, 147)])
@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_labels_follow_the_image_through_every_filter(name: str, shape: tuple[int, int]) -> None:
    """Pixels rise by 4 a row (and a column), over and over: so a value says where it came from, to a part of a pixel.

    The nearest label lies half a pixel beside at most, that is 2 grey levels; one more for rounding and ripple.
    """
    rows, columns = np.indices(shape, dtype=np.uint16)
    image = np.stack([4 * rows % 256, 4 * columns % 256, 0 * rows], axis=2).astype(np.uint8)
    if min(shape) < PROTOCOLS[name].smallest:
        with pytest.raises(ImageError, match=name):
            labels_under(name, rows, image)
        return
    out = PROTOCOLS[name](image)
    for channel, places in enumerate((rows, columns)):
        found = labels_under(name, places, image)
        assert found.dtype == np.uint16
        assert found.shape == out.shape[:2]
        clear = (found % 64 >= 16) & (found % 64 < 48) & (found < places.max() - 16)  # far from jumps and edges
        assert clear.sum() > 0.3 * clear.size
        assert np.abs(out[..., channel] - 4.0 * (found % 64))[clear].max() <= 3


@pytest.mark.parametrize(("before", "after"), [((427, 640), (512, 512)), ((33, 47), (64, 20)), ((600, 5), (7, 11))])
def test_nearest_is_pillows(before: tuple[int, int], after: tuple[int, int]) -> None:
    labels = noise(*before)[..., 0]
    found = apply_to_labels([Resize(*after, "bicubic")], labels)
    assert np.array_equal(found, np.asarray(pil.fromarray(labels).resize(after[::-1], pil.Resampling.NEAREST)))


def test_labels_that_cannot_be_meant_are_refused() -> None:
    with pytest.raises(ImageError, match=r"float64 \(256, 256\)"):
        labels_under("as-is", np.zeros((256, 256)))
    with pytest.raises(ImageError, match=r"uint8 \(256, 256, 3\)"):
        labels_under("as-is", np.zeros((256, 256, 3), np.uint8))
    with pytest.raises(ImageError, match="label map is 300 x 256 and its image 256 x 300"):
        labels_under("as-is", np.zeros((256, 300), np.uint8), noise(300, 256))
    with pytest.raises(ImageError, match="draws its crop by the image's pixels"):
        labels_under("dalle-256-random", np.zeros((256, 300), np.uint8))


# Purity, and what else must hold


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_protocols_are_pure_and_done_once(name: str) -> None:
    image = noise(300, 420)[:, ::-1]
    contiguous, before = image.copy(), pixel_sha256(image)
    image.flags.writeable = False
    protocol = PROTOCOLS[name] if min(image.shape[:2]) >= PROTOCOLS[name].smallest else find("centre-crop-300")
    once = protocol(image)
    assert once.dtype == np.uint8
    assert once.flags.c_contiguous
    assert pixel_sha256(image) == before
    assert np.array_equal(once, protocol(contiguous))
    assert np.array_equal(once, protocol(once.copy()))


def test_random_crops_depend_on_the_pixels_and_stay_in_their_range() -> None:
    image = noise(427, 640)
    other = image.copy()
    other[0, 0, 0] ^= 1
    protocol = PROTOCOLS["dalle-256-random"]
    assert np.array_equal(protocol(image), protocol(image.copy()))
    assert not np.array_equal(protocol(image), protocol(other))

    drawn = [protocol.steps(427, 640, str(number)) for number in range(2000)]
    assert {first.top for first, *_ in drawn} == {0}
    assert {first.left for first, *_ in drawn} == set(range(79, 133))  # 3/8 and 5/8 of 213 pixels of slack
    assert {resize.height for _, resize, _ in drawn} == set(range(256, 289))
    assert max(last.top for *_, last in drawn) == max(last.left for *_, last in drawn) == 32
    sizes = [resize.height for _, resize, _ in drawn]
    assert abs(np.mean(sizes) - 272) < 4 * 9.52 / 2000**0.5  # uniform over 256..288: mean 272, deviation 9.52
    assert all(last.top <= resize.height - 256 for _, resize, last in drawn)


def test_an_image_that_would_become_huge_is_refused() -> None:
    for name in ("taco-256", "text-sketch-512"):
        with pytest.raises(ImageError, match=f"{name} would enlarge 2000 x 1 to [0-9]+ x [0-9]+"):
            PROTOCOLS[name](np.zeros((1, 2000, 3), np.uint8))


def test_only_8_bit_images_pass() -> None:
    for protocol in PROTOCOLS.values():
        with pytest.raises(ImageError, match="float32"):
            protocol(np.zeros((600, 600, 3), np.float32))  # type: ignore[arg-type]


# Names and files


WRONG_NAMES = [
    ("taco256", "did you mean 'taco-256'"),
    ("center-crop-256", "did you mean 'centre-crop-256'"),
    ("centre-crop-0", "centre-crop-N for every N"),
    ("centre-crop-0256", "centre-crop-N for every N"),
    ("centre-crop-", "centre-crop-N for every N"),
    ("centre-crop-٢٥٦", "centre-crop-N for every N"),
    ("", "protocols that exist: as-is, centre-crop-256"),
]


@pytest.mark.parametrize(("name", "hint"), WRONG_NAMES)
def test_unknown_names_give_the_nearest(name: str, hint: str, tmp_path: Path) -> None:
    for attempt in (
        find,
        lambda name: load_under(name, tmp_path),
        lambda name: labels_under(name, np.eye(2, dtype=int)),
    ):
        with pytest.raises(UnknownName) as caught:
            attempt(name)
        assert hint in str(caught.value)


def test_each_name_is_said_once() -> None:
    assert all(find(name) is protocol for name, protocol in PROTOCOLS.items())
    assert all(name == protocol.name for name, protocol in PROTOCOLS.items())
    assert find("centre-crop-300").name == "centre-crop-300"


def test_the_documentation_has_every_protocol() -> None:
    text = (Path(__file__).parents[2] / "docs" / "protocols.md").read_text()
    assert all(f"| `{name}` |" in text for name in PROTOCOLS)


def test_the_files_own_size_is_kept(tmp_path: Path) -> None:
    pil.fromarray(noise(300, 420)).save(tmp_path / "a.png")
    loaded = load_under("centre-crop-256", tmp_path / "a.png")
    assert loaded.pixels.shape == (256, 256, 3)
    assert (loaded.source_height, loaded.source_width, loaded.mode) == (300, 420, "RGB")
    plain = read_image(tmp_path / "a.png")
    assert (plain.source_height, plain.source_width) == plain.pixels.shape[:2]


def test_a_refused_file_is_named(tmp_path: Path) -> None:
    pil.fromarray(noise(100, 300)).save(tmp_path / "small.png")
    with pytest.raises(ImageError, match=r"small\.png: centre-crop-256 takes images of at least 256 .* 300 x 100"):
        load_under("centre-crop-256", tmp_path / "small.png")

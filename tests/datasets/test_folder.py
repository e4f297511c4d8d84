"""A folder of images: which files are read, which are named because they are not, and names that cannot be written."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image as pil

from rdpbench.datasets.captions import read_captions
from rdpbench.datasets.contract import Sample
from rdpbench.datasets.folder import ImageFolder, Listed, make_manifest
from rdpbench.datasets.index import index, notes
from rdpbench.datasets.manifest import Manifest
from rdpbench.errors import ConfigError, ImageError

FORMATS = {
    ".jfif": "JPEG",
    ".jpe": "JPEG",
    ".pnm": "PPM",
    ".pbm": "PPM",
    ".JPG": "JPEG",
    ".Tiff": "TIFF",
    ".gif": "GIF",
}
LATIN = b"caf\xe9.png"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RDPBENCH_CACHE", str(tmp_path / "cache"))


def told(folder: Path) -> list[str]:
    dataset = ImageFolder(str(folder))
    return notes(dataset, index(dataset))


def latin(folder: Path, name: bytes = LATIN) -> Path:
    """A copy of an image under a name of another encoding, as an old archive unpacks it."""
    path = folder / os.fsdecode(name)
    path.parent.mkdir(exist_ok=True)
    shutil.copy(next(folder.glob("*.png")), path)
    return path


def test_every_ending_of_a_format_that_is_read_is_read(images: Any) -> None:
    folder = images(1)
    (folder / "deeper").mkdir()
    for number, (ending, file_format) in enumerate(FORMATS.items()):
        pil.new("L", (8 + number, 8), 40 * number).save(folder / "deeper" / f"{number}{ending}", format=file_format)
    entries = index(ImageFolder(str(folder)))
    assert len(entries) == 1 + len(FORMATS)
    assert told(folder) == []


def test_images_that_are_not_read_are_named(images: Any, tmp_path: Path) -> None:
    folder = images(2)
    names = ["a.avif", "b.HEIC", "c.jxl", "d.jp2", "e.svg", "f.exr", "g.psd", "h.CR2", "deeper/i.dng"]
    (folder / "deeper").mkdir()
    for name in [*names, "notes.txt", ".h.avif", "captions.json"]:
        (folder / name).write_bytes(b"x")
    shutil.copytree(folder, tmp_path / "elsewhere")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / ".hidden.png").write_bytes(b"x")
    (folder / ".thumbs").mkdir()
    (folder / ".thumbs" / "image00.jpg").write_bytes(b"x")
    unread, hidden, links = told(folder)
    assert unread.startswith("'folder-pictures': 9 images of a format that is not read (convert them to PNG): a.avif, ")
    assert hidden == "'folder-pictures': 2 hidden images, which are not read: .hidden.png, .thumbs/image00.jpg"
    assert links == "'folder-pictures': 1 links to folders, which are not followed: linked"
    assert len(ImageFolder(str(folder))) == 2


def test_what_rdpbench_wrote_below_a_folder_is_none_of_its_images(images: Any) -> None:
    folder = images(1)
    for name in ("results/runs/a/figures", "results/figures", "elsewhere/run/figures", "elsewhere/results"):
        (folder / name).mkdir(parents=True)
        shutil.copy(folder / "image00.png", folder / name / "figure.png")
    for name in ("sessions", "parts"):
        (folder / "elsewhere" / "run" / name).mkdir()
    dataset = ImageFolder(str(folder))
    assert [sample.id for sample in dataset.samples()] == ["elsewhere/results/figure", "image00"]
    left_out = "2 folders of results of rdpbench, which are left out: elsewhere/run, results"
    assert dataset.notes() == (f"'folder-pictures': {left_out}",)
    assert len(ImageFolder(str(folder / "elsewhere" / "run" / "figures"))) == 1


def test_a_folder_of_other_formats_alone_says_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "a.heic").write_bytes(b"x")
    with pytest.raises(ImageError, match=r"(?s)no images in .*1 images of a format that is not read .*: a.heic"):
        ImageFolder(str(tmp_path)).samples().__next__()


@pytest.mark.parametrize("make", ["link", "pipe"])
def test_a_name_without_a_file_is_refused(images: Any, make: str) -> None:
    folder = images(1)
    if make == "link":
        (folder / "gone.png").symlink_to("nowhere.png")
    else:
        os.mkfifo(folder / "gone.png")
    with pytest.raises(ImageError, match=r"1 images in .* are no files, but for example broken links: gone.png"):
        index(ImageFolder(str(folder)))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file and folder")
def test_a_file_or_folder_that_may_not_be_read_is_refused(images: Any) -> None:
    folder = images(2)
    (folder / "image01.png").chmod(0)
    with pytest.raises(ImageError, match=r"cannot read .*image01.png: Permission denied"):
        index(ImageFolder(str(folder)))
    (folder / "locked").mkdir(mode=0)
    with pytest.raises(ImageError, match=r"cannot search the folder .*locked"):
        index(ImageFolder(str(folder)))


def test_an_image_under_two_names_is_said(images: Any) -> None:
    folder = images(3)
    with pil.open(folder / "image00.png") as opened:
        opened.save(folder / "same.bmp")
    (folder / "linked.png").symlink_to("image01.png")
    [line] = told(folder)
    assert line == (
        "4 of 5 images of 'folder-pictures' have equal pixels, and each counts: image00 = same, image01 = linked"
    )


def test_what_a_file_says_beside_its_pixels_is_said(images: Any) -> None:
    folder = images(1)
    exif = pil.Exif()
    exif[274] = 6
    pil.new("RGB", (20, 10), "red").save(folder / "phone.jpg", exif=exif)
    grey = [np.full((size, size), size, np.uint8) for size in (8, 32)]
    with tifffile.TiffWriter(folder / "scan.tif") as writer:
        for page in grey:
            writer.write(page, photometric="minisblack")
    lines = told(folder)
    assert [line.split(":")[0].split("' ")[1] for line in lines] == [
        "hold several images, of which only the first is read",
        "begin with a thumbnail, and only that is read",
        "are shown turned by viewers; pixels are read as they are stored",
    ]
    assert lines[0].endswith(": scan (pages=2)")
    assert lines[2].endswith(": phone (orientation=6)")


@pytest.mark.parametrize("gamma", ["0.45455", "0.4545", "0.46"])
def test_the_gamma_of_srgb_is_nothing_to_tell(gamma: str) -> None:
    entry = SimpleNamespace(mode=f"RGB+gamma={gamma}", sha256="1", sample=Sample("a", Path("a.png")))
    dataset: Any = SimpleNamespace(name="mine")
    assert notes(dataset, [entry]) == []  # type: ignore[list-item]  # what is read of it
    entry.mode = "RGB+gamma=1"
    assert "state a gamma that is not applied" in notes(dataset, [entry])[0]  # type: ignore[list-item]


def test_a_run_tells_it_once(rdpbench: Any, images: Any) -> None:
    folder = images(2)
    shutil.copy(folder / "image00.png", folder / "twin.PNG")
    (folder / "a.avif").write_bytes(b"x")
    line = ["codec=jpeg,webp", "rate=30,60", f"data=folder:{folder}", "metrics=psnr", "workers=0"]
    done = rdpbench("run", *line, code=0)
    assert done.stderr.count("a.avif") == 1
    assert done.stderr.count("image00 = twin") == 1
    assert done.stderr.count("a.avif") == rdpbench("plan", *line, code=0).stderr.count("a.avif")
    assert "a.avif" in rdpbench("data", "manifest", str(folder), code=0).stderr


# Names that are not UTF-8


@pytest.mark.parametrize("name", [LATIN, b"d\xe9per/a.png"])
def test_a_folder_with_a_name_that_is_not_utf_8_is_refused(rdpbench: Any, images: Any, name: bytes) -> None:
    folder = images(2)
    latin(folder, name)
    for line in (["run", "codec=jpeg", f"data=folder:{folder}"], ["data", "manifest", str(folder)]):
        done = rdpbench(*line, code=2)
        assert "the names of 1 files are not UTF-8: b'" in done.stderr
        assert "\\xe9" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("setting", ["data=folder:", "data=manifest:", "captions=file:", "run="])
def test_an_argument_that_is_not_utf_8_is_refused(rdpbench: Any, setting: str) -> None:
    done = rdpbench("run", "codec=jpeg", setting + os.fsdecode(LATIN), code=2)
    assert f"rdpbench: b'{setting}caf\\xe9.png' is not UTF-8" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_that_is_named_from_inside(rdpbench: Any, images: Any, tmp_path: Path) -> None:
    folder = images(1)
    target = tmp_path / os.fsdecode(b"caf\xe9")
    folder.rename(target)
    done = rdpbench("plan", "codec=jpeg", "data=folder:.", "metrics=psnr", code=2, cwd=target)
    assert "are not UTF-8" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_manifest_with_a_name_that_is_not_utf_8_is_refused(images: Any, tmp_path: Path) -> None:
    folder = images(2)
    make_manifest(folder, "mine", tmp_path / "mine.sha256")
    whole = (tmp_path / "mine.sha256").read_bytes()
    (tmp_path / "mine.sha256").write_bytes(whole.replace(b"image01.png", LATIN))
    with pytest.raises(ConfigError, match=r"mine.sha256: line \d, b'[0-9a-f]{64}  caf\\xe9.png', is not UTF-8"):
        Listed(str(tmp_path / "mine.sha256"))


def test_names_may_hold_what_python_takes_for_the_end_of_a_line(tmp_path: Path) -> None:
    written = Manifest({"a\x85b.png": "1" * 64, "c\u2028d.png": "2" * 64, "e\x0cf.png": "3" * 64})
    written.write(tmp_path / "m.sha256")
    assert Manifest.read(tmp_path / "m.sha256") == written


def test_a_sample_or_its_label_map_with_a_name_that_is_not_utf_8_is_refused(images: Any) -> None:
    folder = images(2)
    image, wrong = folder / "image00.png", latin(folder)
    for sample in (Sample("a", wrong), Sample("a", image, labels=wrong)):
        dataset: Any = SimpleNamespace(name="mine", protocol="as-is", samples=lambda sample=sample: iter([sample]))
        with pytest.raises(ImageError, match=r"not UTF-8: b'.*caf\\xe9.png'"):
            index(dataset)


def test_captions_for_names_that_are_not_utf_8() -> None:
    with pytest.raises(ConfigError, match=r"is not UTF-8: byte 0xe9 in line 1"):
        read_captions(b'{"caf\xe9.png": "a cup"}', "names.json")
    told = r"1 of 1 captions cannot be used: 'caf\\udce9.png': its name has half of a surrogate pair"
    with pytest.raises(ConfigError, match=told) as caught:
        read_captions(b'{"caf\\udce9.png": "a cup"}', "names.json")
    assert str(caught.value).encode(errors="strict")

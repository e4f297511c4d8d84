"""Manifests: what is written is read, what is not one is refused, and a folder that one pins is a dataset."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as pil

from rdpbench.assets.hashes import file_facts
from rdpbench.datasets import folder
from rdpbench.datasets.folder import ImageFolder, Kodak, Listed, Samples, make_manifest
from rdpbench.datasets.index import index
from rdpbench.datasets.manifest import Manifest
from rdpbench.errors import ConfigError, ImageError

SHA = hashlib.sha256(b"").hexdigest()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RDPBENCH_CACHE", str(tmp_path / "cache"))


def flip(path: Path) -> None:
    with pil.open(path) as opened:
        pixels = np.array(opened)
    pixels[0, 0] ^= 1
    pil.fromarray(pixels).save(path)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    manifest = Manifest({"b c.png": SHA, "a/ü.png": "1" * 64}, {"name": "mine", "archive": "x: y.zip"})
    manifest.write(tmp_path / "m.sha256")
    again = Manifest.read(tmp_path / "m.sha256")
    assert again == manifest
    assert list(again.files) == ["b c.png", "a/ü.png"], "the order is the set's"
    assert os.listdir(tmp_path) == ["m.sha256"]  # noqa: PTH208 (also hidden files)


def test_the_hash_is_that_of_what_sha256sum_writes(tmp_path: Path) -> None:
    manifest = Manifest({"a.png": SHA, "b.png": "1" * 64}, {"name": "mine"})
    text = f"{SHA}  a.png\n{'1' * 64}  b.png\n"
    assert manifest.sha256() == hashlib.sha256(text.encode()).hexdigest()
    (tmp_path / "binary").write_text(text.replace("  ", " *"))
    assert Manifest.read(tmp_path / "binary").sha256() == manifest.sha256()
    assert Manifest({"b.png": "1" * 64, "a.png": SHA}).sha256() != manifest.sha256()


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("abc  a.png", "is no 'sha256  name'"),
        (f"{SHA}", "is no 'sha256  name'"),
        (f"{SHA.upper()}  a.png", "is no 'sha256  name'"),
        (f"{SHA}  ../a.png", "leads out of the folder"),
        (f"{SHA}  /etc/a.png", "leads out of the folder"),
        (f"{SHA}  a.png\n{SHA}  a.png", "line 3: 'a.png' is there twice"),
        (f"{SHA}  a.png\n{SHA}  ./a.png", "line 3: './a.png' is there twice"),
    ],
)
def test_what_is_no_manifest_is_refused_with_its_line(tmp_path: Path, line: str, told: str) -> None:
    (tmp_path / "m").write_text(f"# name: mine\n{line}\n")
    with pytest.raises(ConfigError, match=r"m, line [23]: ") as caught:
        Manifest.read(tmp_path / "m")
    assert told in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the manifest .*gone"):
        Manifest.read(tmp_path / "gone")
    (tmp_path / "image").write_bytes(b"\x89PNG\xff")
    with pytest.raises(ConfigError, match=r"cannot read the manifest .*image"):
        Manifest.read(tmp_path / "image")


def test_the_manifest_of_kodak_is_the_one_that_ships(shared: Path, tmp_path: Path) -> None:
    made = make_manifest(shared / "data" / "kodak", "kodak", tmp_path / "kodak.sha256")
    shipped = Manifest.read(Path(folder.__file__).with_name("kodak.sha256"))
    assert len(made.files) == 24
    assert made.sha256() == shipped.sha256() == Kodak().pinned().sha256
    # NeuralCompression publishes the SHA1 of the 24 files one after another.
    whole = hashlib.sha1(usedforsecurity=False)
    for name in made.files:
        whole.update((shared / "data" / "kodak" / name).read_bytes())
    assert whole.hexdigest() == "076e2a5fd4515b5fda677f15fe63dd112d266bc5"


def test_a_manifest_is_a_dataset(images, tmp_path: Path) -> None:
    folder = images(4, name="sets/mine")
    (folder / "more").mkdir()
    (folder / "image03.png").rename(folder / "more" / "image00.png")
    make_manifest(folder, "mine", tmp_path / "sets" / "mine.sha256")
    listed = Listed(str(tmp_path / "sets" / "mine.sha256"))
    entries = index(listed)
    assert [entry.sample.id for entry in entries] == ["image00", "image01", "image02", "more/image00"]
    assert [entry.sha256 for entry in entries] == [entry.sha256 for entry in index(ImageFolder(str(folder)))]
    assert (listed.name, listed.protocol, len(listed), listed.verify()) == ("mine", "as-is", 4, [])
    # The folder that a manifest lies beside is the set, wherever it goes; the pin is of names and bytes alone.
    pin = listed.pinned()
    (tmp_path / "sets").rename(tmp_path / "moved")
    moved = Listed(str(tmp_path / "moved" / "mine.sha256"))
    assert [index(moved)[0].sha256, moved.pinned()] == [entries[0].sha256, pin]
    assert (pin.kind, pin.sha256) == ("made", ImageFolder(str(tmp_path / "moved" / "mine")).pinned().sha256)
    flip(tmp_path / "moved" / "mine" / "image01.png")
    with pytest.raises(
        ImageError, match=r"1 of 4 images of 'mine' are not those of the set:\n.*image01.png is not the"
    ):
        index(moved)
    assert ["image01.png" in line for line in moved.verify()] == [True]
    (tmp_path / "moved" / "mine" / "image01.png").unlink()
    with pytest.raises(ImageError, match=r"1 of the 4 images in .* are missing .*: image01.png; data.path=FOLDER"):
        index(moved)
    part = Listed(moved.file, allow_partial=True)
    assert (len(index(part)), len(part), part.here().images) == (3, 4, 3)


def test_a_manifest_elsewhere_says_that_it_needs_a_path(images, tmp_path: Path) -> None:
    folder = images(2)
    make_manifest(folder, "mine", tmp_path / "far" / "away.sha256")
    with pytest.raises(ImageError, match=r"2 of the 2 images in .*away.sha256 are missing .*data.path=FOLDER"):
        index(Listed(str(tmp_path / "far" / "away.sha256")))
    assert len(index(Listed(str(tmp_path / "far" / "away.sha256"), path=str(folder)))) == 2


def test_a_protocol_of_its_own(images, tmp_path: Path) -> None:
    folder = images(1, size=(300, 400))
    manifest = make_manifest(folder, "mine", tmp_path / "mine.sha256")
    header = {**manifest.header, "protocol": "centre-crop-256"}
    Manifest(manifest.files, header).write(tmp_path / "mine.sha256")
    [entry] = index(Listed(str(tmp_path / "mine.sha256")))
    assert (entry.height, entry.width, entry.source_height, entry.source_width) == (256, 256, 300, 400)


@pytest.mark.parametrize(("folder", "told"), [("../up", "leads out of its folder"), ("/etc", "out of its folder")])
def test_a_manifest_of_somebody_elses_leads_nowhere(tmp_path: Path, folder: str, told: str) -> None:
    Manifest({"a.png": SHA}, {"name": "x", "folder": folder}).write(tmp_path / "x.sha256")
    with pytest.raises(ConfigError, match=told):
        list(Listed(str(tmp_path / "x.sha256")).samples())
    Manifest({"a.png": SHA}, {"name": "../x"}).write(tmp_path / "x.sha256")
    with pytest.raises(ConfigError, match=r"names its set '../x'"):
        Listed(str(tmp_path / "x.sha256"))


def test_files_that_are_no_images_are_not_pinned(images, tmp_path: Path) -> None:
    folder = images(2)
    (folder / "broken.png").write_bytes(b"half an image")
    with pytest.raises(ImageError, match=r"1 files in .* are no images: broken.png"):
        make_manifest(folder, "mine", tmp_path / "mine.sha256")
    with pytest.raises(ConfigError, match=r"--name 'my set'"):
        make_manifest(folder, "my set", tmp_path / "mine.sha256")
    with pytest.raises(ConfigError, match=r"which manifest\? Write data=manifest:FILE"):
        Listed("")


def test_a_folder_is_pinned_by_all_its_files(images) -> None:
    folder = images(3)
    pin = ImageFolder(str(folder)).pinned()
    lines = "".join(
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in sorted(folder.iterdir())
    )
    assert (pin.kind, pin.sha256) == ("made", hashlib.sha256(lines.encode()).hexdigest())
    flip(folder / "image02.png")
    assert ImageFolder(str(folder)).pinned() != pin


def test_samples_are_pinned_by_what_ships() -> None:
    whole, photos = Samples().pinned(), Samples(tag="photo").pinned()
    assert whole.kind == photos.kind == "pinned"
    assert whole.sha256 != photos.sha256
    assert Samples().verify() == []


def test_what_was_read_is_remembered_until_the_file_changes(images) -> None:
    folder = images(1)
    path = folder / "image00.png"
    [(_, first)] = file_facts([path])
    assert (first.sha256, first.height, first.width) == (hashlib.sha256(path.read_bytes()).hexdigest(), 40, 56)
    stamp = path.stat()
    flip(path)
    # As a tool that keeps times would leave it: only the time of change of the inode tells.
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    [(_, second)] = file_facts([path])
    assert second.sha256 == hashlib.sha256(path.read_bytes()).hexdigest() != first.sha256

"""Caption sources: names, files of every kind of wrong, published lists, and what a plan is told."""

from __future__ import annotations

import hashlib
import http.server
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as pil

from rdpbench.datasets import captions
from rdpbench.datasets.captions import OFA, Captions, PublishedList, captions_of, match, parse, read_captions, survey
from rdpbench.datasets.contract import Sample
from rdpbench.datasets.folder import ImageFolder
from rdpbench.datasets.index import Entry, index
from rdpbench.errors import ConfigError, MissingNeed, UnknownName


@pytest.fixture(autouse=True)
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of the test's own, no data and no models of the user's."""
    monkeypatch.setenv("RDPBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("RDPBENCH_DATA", "RDPBENCH_WEIGHTS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def entries(clean: None, images: Callable[..., Path]) -> list[Entry]:
    """image00 to image02."""
    return index(ImageFolder(str(images(3))))


def _written(folder: Path, content: object, name: str = "names.json") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def _from_file(path: Path, entries: list[Entry]) -> Captions:
    return captions_of(parse(f"file:{path}"), entries, dataset="pictures", protocol="as-is")


def _texts(found: Captions) -> list[str]:
    return [one.text for one in found.by_id.values()]


# Names


def test_sources_have_the_names_of_rows(tmp_path: Path) -> None:
    assert [parse(text).name for text in ("human", "ofa", "blip", "blip2")] == ["human", "ofa", "blip", "blip2"]
    path = _written(tmp_path, {"a": "a red door"})
    known = hashlib.sha256(path.read_bytes()).hexdigest()
    assert parse(f"file:{path}").name == f"file:names.json@{known[:12]}"
    (tmp_path / "other").mkdir()
    assert parse(f"file:{_written(tmp_path / 'other', {'a': 'a barn'})}").name != parse(f"file:{path}").name


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("blip3", "did you mean 'blip"),
        ("OFA", "did you mean 'ofa'"),
        ("", "blip, blip2, file:PATH, human, ofa"),
        ("names.json", "captions=file:names.json"),
        ("blip2:folder", "unknown caption source 'blip2:folder'"),
    ],
)
def test_an_unknown_source_is_told_with_the_nearest(written: str, told: str) -> None:
    with pytest.raises(UnknownName, match=told):
        parse(written)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="which file"):
        parse("file:")
    with pytest.raises(ConfigError, match=r"cannot read .*none\.json.*: No such file"):
        parse(f"file:{tmp_path}/none.json")
    with pytest.raises(ConfigError, match="Is a directory"):
        parse(f"file:{tmp_path}")


# Files


COCO = {
    "images": [{"id": 7, "file_name": "image00.jpg"}, {"id": 3, "file_name": "image02.jpg"}],
    "annotations": [
        {"image_id": 3, "id": 90, "caption": "A barn.\n"},
        {"image_id": 7, "id": 50, "caption": " A red door "},
        {"image_id": 3, "id": 12, "caption": "A house."},
    ],
}


@pytest.mark.parametrize(
    "content",
    [
        {"image00": "A red door", "image02": "A barn."},
        {"image02.png": "A barn.", "image00.png": "A red door"},
        {"image00": ["A red door", "not this"], "image02": " A barn. "},
        COCO,
    ],
)
def test_all_forms_give_the_first_caption_of_each_image(content: object, tmp_path: Path, entries: list[Entry]) -> None:
    path = _written(tmp_path, content)
    found = _from_file(path, [entries[0], entries[2]])
    assert {name: one.text for name, one in found.by_id.items()} == {"image00": "A red door", "image02": "A barn."}
    one = found.by_id["image00"]
    assert one.seconds is None
    assert one.source == parse(f"file:{path}").name
    assert one.identity == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.notes == ()


def test_real_captions_of_coco_are_read(shared: Path) -> None:
    source = shared / "data" / "coco" / "annotations" / "captions_val2017.json"
    read = read_captions(source.read_bytes(), source.name)
    raw = json.loads(source.read_text())
    assert len(read) == len({one["image_id"] for one in raw["annotations"]})
    for image in raw["images"][:50]:
        own = [one["caption"] for one in raw["annotations"] if one["image_id"] == image["id"]]
        assert len(own) >= 5
        assert read[image["file_name"]] == own[0].strip()


def test_names_that_are_no_image_are_a_note(tmp_path: Path, entries: list[Entry]) -> None:
    path = _written(tmp_path, {"image00": "one", "image01": "two", "image02": "three", "image99": "four"})
    assert _from_file(path, entries).notes == (f"{path}: 1 of 4 captions are not used",)


def test_images_without_a_caption_are_counted_and_named(tmp_path: Path, entries: list[Entry]) -> None:
    path = _written(tmp_path, {"image01.png": "one", "imagE00.png": "two"})
    with pytest.raises(ConfigError, match=r"no caption for 2 of 3 images of 'pictures': image00\.png, image02\.png;"):
        _from_file(path, entries)
    many = [Sample(f"{k:03}", Path(f"{k:03}.png")) for k in range(30)]
    with pytest.raises(ConfigError, match=r"29 of 30 images .* 005\.png and 24 more"):
        match({"000.png": "one"}, many, "names.json", "pictures")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'{"image00": "one", "image01": "two", "image00": "three"}', "1 names more than once: 'image00'"),
        (b'{"image00": "one", "image01"', "not JSON: .* in line 1, column 29"),
        (b"", "not JSON: .* line 1"),
        (b"\xef\xbb\xbf{}", "UTF-8 with a byte order mark; save it as UTF-8 without"),
        ('{"image00": "one"}'.encode("utf-16"), "is UTF-16; save"),
        ('{"image00": "one"}'.encode("utf-32"), "is UTF-32; save"),
        ('{\n"image00": "caf\u00e9"}'.encode("latin-1"), "not UTF-8: byte 0xe9 in line 2"),
        ({"image00": 5, "image01": None, "image02": "one"}, "2 of 3 captions .*'image00': a JSON int, not a text"),
        ({"image00": ["one"], "image01": [], "image02": "  "}, "2 of 3 .* an empty list, 'image02': an empty text"),
        ({"image00": [["one"]]}, "a JSON list, not a text"),
        (b'{"image00": "\\ud83d"}', "half of a surrogate pair"),
        ([{"image_id": 7, "caption": "one"}], "holds a JSON list; write"),
        ("one", "holds a JSON str; write"),
        ({}, "holds no captions"),
        (b'{"a": ' + b"[" * 200_000, "cannot be read as captions"),
        (b'{"a": ' + b"7" * 5_000 + b"}", "cannot be read as captions"),
        ({**COCO, "images": [*COCO["images"], {"id": 7, "file_name": "x.jpg"}]}, "the image id 7 twice"),
        ({**COCO, "images": [*COCO["images"], {"id": 8, "file_name": "image00.jpg"}]}, "1 file names more than once"),
        ({**COCO, "images": [{"id": 7}]}, "lacks 'id' or 'file_name'"),
        (
            {**COCO, "annotations": [{"image_id": 99, "caption": "one"}]},
            "of the image 99, which 'images' does not list",
        ),
        ({**COCO, "annotations": [{"image_id": [7], "caption": "one"}]}, r"of the image \[7\]"),
        ({**COCO, "annotations": [{"image_id": 7, "bbox": []}]}, r"take captions_\*\.json, not instances_\*\.json"),
        ({**COCO, "annotations": [{"image_id": 7, "caption": 5}]}, "a JSON int"),
    ],
)
def test_a_file_that_cannot_be_meant_is_told(content: object, told: str, tmp_path: Path, entries: list[Entry]) -> None:
    with pytest.raises(ConfigError, match=told):
        _from_file(_written(tmp_path, content), entries)


def test_a_file_that_changes_under_way_is_refused(tmp_path: Path, entries: list[Entry]) -> None:
    path = _written(tmp_path, {"image00": "one", "image01": "two", "image02": "three"})
    source = parse(f"file:{path}")
    assert _texts(captions_of(source, entries, dataset="pictures", protocol="as-is")) == ["one", "two", "three"]
    _written(tmp_path, {"image00": "one", "image01": "two", "image02": "four"})
    with pytest.raises(ConfigError, match="has changed since this command began"):
        captions_of(source, entries, dataset="pictures", protocol="as-is")


def test_names_are_matched_by_path_before_file_name() -> None:
    samples = [Sample("x", Path("set/x.png")), Sample("sub/x", Path("set/sub/x.png")), Sample("y", Path("set/y.webp"))]
    named = {"x.png": "above", "sub/x.png": "below", "y.jpg": "converted"}
    assert match(named, samples, "names.json", "set") == {"x": "x.png", "sub/x": "sub/x.png", "y": "y.jpg"}
    both = [Sample("z.png", Path("set/z.png")), Sample("z.jpg", Path("set/z.jpg"))]
    assert match({"z.jpg": "one", "z.png": "two"}, both, "names.json", "set") == {"z.png": "z.png", "z.jpg": "z.jpg"}


def test_ambiguous_names_are_refused() -> None:
    one = [Sample("a", Path("set/a.png"))]
    with pytest.raises(ConfigError, match=r"names the image 'a' 2 times: 'a', 'a\.png'"):
        match({"a": "one", "a.png": "two"}, one, "names.json", "set")
    with pytest.raises(ConfigError, match=r"names the image 'a' 2 times: 'a\.jpg', 'a\.webp'"):
        match({"a.jpg": "one", "a.webp": "two"}, one, "names.json", "set")
    two = [Sample("p/a", Path("set/p/a.png")), Sample("q/a", Path("set/q/a.png"))]
    with pytest.raises(ConfigError, match="the name 'a' stands for 2 images of 'set': p/a, q/a"):
        match({"a": "one"}, two, "names.json", "set")


# The dataset's own


def test_captions_of_people_come_from_the_dataset(entries: list[Entry]) -> None:
    own = [replace(e, sample=replace(e.sample, caption=f" picture {k} ")) for k, e in enumerate(entries)]
    found = captions_of(parse("human"), own, dataset="pictures", protocol="as-is")
    assert _texts(found) == ["picture 0", "picture 1", "picture 2"]
    assert {(one.source, one.seconds) for one in found.by_id.values()} == {("human", None)}
    with pytest.raises(ConfigError, match=r"1 of 3 images of 'pictures' .*image01.*captions=file:PATH"):
        captions_of(parse("human"), [own[0], entries[1], own[2]], dataset="pictures", protocol="as-is")


# Published lists


def _kodak(folder: Path) -> list[Entry]:
    """Stand-ins with the names of Kodak: the lists are matched by name."""
    folder.mkdir()
    for k in range(1, 25):
        pil.fromarray(np.full((8, 8, 3), k, np.uint8)).save(folder / f"kodim{k:02}.png")
    return index(ImageFolder(str(folder)))


@pytest.fixture
def lists(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as RDPBENCH_DATA names it, with the lists under their official names."""
    folder = tmp_path / "data" / "captions"
    folder.mkdir(parents=True)
    for name in ("kodak_ofa.json", "clic_ofa.json"):
        shutil.copy(shared / "data" / "lists" / f"taco_{name}", folder / name)
    monkeypatch.setenv("RDPBENCH_DATA", str(tmp_path / "data"))
    return folder


def test_ofa_captions_of_all_of_kodak(lists: Path, tmp_path: Path) -> None:
    entries = _kodak(tmp_path / "kodak")
    found = captions_of(parse("ofa"), entries, dataset="kodak", protocol="as-is")
    assert len(found.by_id) == OFA["kodak"].captions == 24
    assert found.by_id["kodim01"].text == "a brick building with red doors and windows"
    assert "\ufffd" in found.by_id["kodim17"].text
    assert all(one.text and one.source == "ofa" and one.seconds is None for one in found.by_id.values())
    assert {one.identity for one in found.by_id.values()} == {OFA["kodak"].sha256}
    # The dossier's mean: 41.4 bytes.
    mean = sum(len(one.text.encode()) for one in found.by_id.values()) / 24
    assert mean == pytest.approx(41.4, abs=0.05)
    assert survey(parse("ofa"), entries, dataset="kodak").lacks is None
    first = captions_of(parse("ofa"), entries[:3], dataset="kodak", protocol="as-is")
    assert first.notes == ()


def test_ofa_captions_of_clic_serve_each_part_of_its_test_set(lists: Path, shared: Path) -> None:
    names = (shared / "data" / "lists" / "clic2020_test_428_names.txt").read_text().split()
    samples = [Sample(name.removesuffix(".png"), Path(name)) for name in names]
    read = read_captions((lists / "clic_ofa.json").read_bytes(), "clic_ofa.json")
    assert len(match(read, samples, "clic_ofa.json", "clic2020")) == OFA["clic2020"].captions == 428
    for dataset in ("clic2020", "clic2020-professional", "clic2020-mobile"):
        assert survey(parse("ofa"), [], dataset=dataset).lacks is None


def test_ofa_captions_of_other_sets_are_not_there(entries: list[Entry]) -> None:
    for dataset in ("pictures", "kodak2", "clic2021"):
        with pytest.raises(ConfigError, match=f"for kodak and clic2020 only, not for '{dataset}'"):
            captions_of(parse("ofa"), entries, dataset=dataset, protocol="as-is")


def test_an_absent_list_is_told_with_all_it_takes(tmp_path: Path) -> None:
    told = survey(parse("ofa"), [], dataset="kodak").lacks
    assert told is not None
    for part in ("effl-lab/TACO/004f4889", "1553 bytes", "none is stated", "24 captions", "RDPBENCH_DATA"):
        assert part in told
    assert not (tmp_path / "cache" / "data").exists()  # asking downloads nothing


def test_a_list_of_other_bytes_is_refused(lists: Path, tmp_path: Path) -> None:
    changed = (lists / "kodak_ofa.json").read_bytes().replace(b"brick", b"stone")
    (lists / "kodak_ofa.json").write_bytes(changed)
    with pytest.raises(MissingNeed, match=f"not the list that TACO published: .* expected {OFA['kodak'].sha256}"):
        captions_of(parse("ofa"), _kodak(tmp_path / "kodak"), dataset="kodak", protocol="as-is")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A real HTTP server of a folder."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(folder))

        def log_message(self, *arguments: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_a_list_is_downloaded_once_and_checked(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    raw = json.dumps({f"kodim{k:02}.png": f"picture {k}" for k in range(1, 25)}).encode()
    (tmp_path / "served" / "small.json").write_bytes(raw)
    small = PublishedList("small.json", hashlib.sha256(raw).hexdigest(), len(raw), 24)
    monkeypatch.setattr(PublishedList, "url", property(lambda self: f"{server}/{self.file}"))
    monkeypatch.setitem(captions.OFA, "kodak", small)
    entries = _kodak(tmp_path / "kodak")
    for _ in range(2):
        found = captions_of(parse("ofa"), entries, dataset="kodak", protocol="as-is")
        assert found.by_id["kodim24"].text == "picture 24"
        (tmp_path / "served" / "small.json").unlink(missing_ok=True)
    monkeypatch.setenv("RDPBENCH_CACHE", str(tmp_path / "other"))
    (tmp_path / "served" / "small.json").write_bytes(raw.replace(b"24", b"25"))
    with pytest.raises(MissingNeed, match="none is stated"):
        captions_of(parse("ofa"), entries, dataset="kodak", protocol="as-is")
    assert not list((tmp_path / "other").rglob("small.json"))


# What a plan is told


def test_a_plan_is_told_that_nothing_is_to_be_made(tmp_path: Path, entries: list[Entry]) -> None:
    path = _written(tmp_path, {"image00": "one"})
    for text in ("human", f"file:{path}"):
        asked = survey(parse(text), entries, dataset="pictures")
        assert (asked.to_make, asked.lacks) == (0, None)


def test_a_plan_is_told_what_a_model_would_have_to_do(entries: list[Entry]) -> None:
    asked = survey(parse("blip"), entries, dataset="pictures")
    assert asked.to_make == 3
    assert asked.lacks is not None
    assert asked.lacks.startswith("3 of 3 images have no caption yet; the captioning model 'blip' is not on this")
    with pytest.raises(MissingNeed, match="hf download Salesforce/blip-image-captioning-large --revision 353689b8"):
        captions_of(parse("blip"), entries, dataset="pictures", protocol="as-is")

"""Official sets: published lists, archives of the official layout fetched from a real server, lookalikes refused.

The official images are not here and may not be copied: archives are made of flat images under the official names, and
stand for a release by having their own hashes written where the published ones stand. All else is the code of a run.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as pil

from rdpbench.datasets import coco as coco_beside
from rdpbench.datasets import official
from rdpbench.datasets.coco import COCO
from rdpbench.datasets.fetching import MANIFEST, OfficialArchive, listed_names
from rdpbench.datasets.index import index
from rdpbench.datasets.labels import load_labels
from rdpbench.datasets.manifest import Manifest
from rdpbench.datasets.official import CLIC, DIV2K, Official, Release, hific_patches, names_sha256
from rdpbench.errors import ConfigError, ImageError, MissingNeed, UnknownName

NOWHERE = "http://127.0.0.1:9/"
Serve = Callable[[Path], str]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RDPBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RDPBENCH_DATA", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "cache"


def image_bytes(height: int, width: int, value: int = 0, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    pil.fromarray(np.full((height, width), value, np.uint8)).save(out, kind)
    return out.getvalue()


def zipped(path: Path, members: Mapping[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
            archive.writestr(f"__MACOSX/{Path(name).parent}/._{Path(name).name}", b"litter of a Macintosh")
    return path


def published(archive: OfficialArchive, path: Path, **more: object) -> OfficialArchive:
    """The archive, with the hashes of a made one where those of the official one stand."""
    content = path.read_bytes()
    return replace(
        archive,
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest() if archive.sha256 else None,
        md5=hashlib.md5(content, usedforsecurity=False).hexdigest() if archive.md5 else None,
        **more,
    )


def stand_for(
    monkeypatch: pytest.MonkeyPatch, cls: type[Official], split: str, folder: Path, **more: object
) -> Release:
    """Let the made archives in a folder stand for the official ones of a set."""
    release = cls.RELEASES[split]
    archives = tuple(published(archive, folder / archive.file) for archive in release.archives)
    made = replace(release, **{"archives": archives, **more})
    monkeypatch.setitem(cls.RELEASES, split, made)  # type: ignore[arg-type]
    return made


def write_images(folder: Path, names: Iterator[str] | list[str], contents: list[bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in zip(names, cycle(contents), strict=False):
        (folder / name).write_bytes(content)
    return folder


# What is published


def test_the_lists_have_the_published_counts_and_overlap() -> None:
    restval = [int(name[13:25]) for name in listed_names("coco-restval")]
    perco = [int(name[:12]) for name in listed_names("coco-train2017-perco")]
    clic = list(listed_names("clic2020-test"))
    assert [len(restval), len(perco), len(clic)] == [30_504, 30_000, 428]
    assert [len(set(restval)), len(set(perco)), len(set(clic))] == [30_504, 30_000, 428]
    assert len(set(restval) & set(perco)) == 6_810
    assert all(len(name) == 36 and set(name[:32]) <= set("0123456789abcdef") for name in clic)
    assert [sorted(one) == one for one in (restval, perco, clic)] == [True] * 3
    for name in ("coco-restval", "coco-train2017-perco", "clic2020-test"):
        assert "commit" in (Path(official.__file__).with_name("lists") / f"{name}.txt").read_text()[:300]


def test_the_lists_are_those_that_were_published(shared: Path) -> None:
    folder = shared / "data" / "lists"
    taco = json.loads((folder / "taco_mscoco_30k_list.json").read_text())
    perco = (folder / "perco_sd_coco2017train_30k_names.txt").read_text().split()
    clic = (folder / "clic2020_test_428_names.txt").read_text().split()
    assert list(listed_names("coco-restval")) == sorted(taco)
    assert list(listed_names("coco-train2017-perco")) == sorted(perco)
    assert list(listed_names("clic2020-test")) == sorted(clic)


def test_our_own_draws_follow_their_stated_rules() -> None:
    restval = list(listed_names("coco-restval"))
    drawn = sorted(restval, key=lambda name: hashlib.sha256(f"rdpbench coco-100:{name}".encode()).digest())[:100]
    assert list(listed_names("coco-100")) == sorted(drawn)
    rule = COCO.RELEASES["30k-dalle"].drawn
    assert rule is not None
    places = [rule.place(name) for name in restval]
    assert rule.place(restval[0]) == hashlib.sha256(f"rdpbench coco-30k-dalle:{restval[0]}".encode()).hexdigest()
    # Of the 40,504 names 30,000 are drawn: of the 30,504 of restval 22,593 are expected, with a deviation of 38.
    assert abs(sum(place <= rule.last for place in places) - 22_593) < 4 * 38
    assert abs(sum(rule.last < place <= rule.last_stand_in for place in places) - 380) < 4 * 20


def test_each_set_has_its_size_and_protocol() -> None:
    sizes = {
        release.name: (release.count, release.protocol)
        for cls in (CLIC, COCO, DIV2K)
        for release in cls.RELEASES.values()
    }
    assert sizes == {
        "clic2020-test": (428, "as-is"),
        "clic2020-mobile-test": (178, "as-is"),
        "clic2020-professional-test": (250, "as-is"),
        "clic2020-professional-valid": (41, "as-is"),
        "clic2020-mobile-valid": (61, "as-is"),
        "clic2020-train": (1633, "as-is"),
        "clic2021-test": (60, "as-is"),
        "clic2022-test": (30, "as-is"),
        "div2k-valid": (100, "as-is"),
        "div2k-train": (800, "as-is"),
        "coco-30k-taco": (30_504, "taco-256"),
        "coco-30k-perco": (30_000, "perco-512"),
        "coco-30k-dalle": (30_000, "dalle-256"),
        "coco-100": (100, "as-is"),
        "coco-val2014": (40_504, "as-is"),
        "coco-val2017": (5_000, "as-is"),
    }
    with pytest.raises(UnknownName, match=r"unknown split '2020-tset': did you mean '2020-test'"):
        CLIC("2020-tset")


def test_kodaks_patches_are_counted_as_published() -> None:
    """192 over Kodak, as others count them: 18 images of 768 x 512 and 6 of 512 x 768."""
    assert 18 * hific_patches(512, 768) + 6 * hific_patches(768, 512) == 192


# Fetched, unpacked, recorded


def made_clic(folder: Path) -> Path:
    names = list(listed_names("clic2020-test"))
    for file, some in (("CLIC2020Mobile_test.zip", names[:178]), ("CLIC2020Professional_test.zip", names[178:])):
        zipped(
            folder / file, {f"test/{name}": image_bytes(40 + len(some) % 7, 48, n % 256) for n, name in enumerate(some)}
        )
    return folder


def test_clic_2020_from_the_archives_to_entries(
    serve: Serve, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = made_clic(tmp_path / "served")
    stand_for(monkeypatch, CLIC, "2020-test", folder)
    for split in ("2020-mobile-test", "2020-professional-test"):
        stand_for(monkeypatch, CLIC, split, folder)
    clic = CLIC("2020-test", source=serve(folder))
    assert "CLIC2020Mobile_test.zip" in (clic.missing() or "")
    assert clic.here().images == 0
    entries = index(clic)
    assert clic.missing() is None
    assert [entry.sample.id for entry in entries] == [name[:-4] for name in listed_names("clic2020-test")]
    assert {entry.sample.tags for entry in entries} == {("mobile",), ("professional",)}
    assert all(entry.file_sha256 == entry.sample.sha256 for entry in entries)
    pin = clic.pinned()
    lines = "".join(f"{entry.file_sha256}  {entry.sample.path.name}\n" for entry in entries)
    assert (pin.kind, pin.sha256) == ("recorded", hashlib.sha256(lines.encode()).hexdigest())
    # Nothing is asked of a server again, and the parts are sets of their own.
    mobile, professional = CLIC("2020-mobile-test", source=NOWHERE), CLIC("2020-professional-test", source=NOWHERE)
    assert [len(list(one.samples())) for one in (mobile, professional)] == [178, 250]
    assert len({one.pinned().sha256 for one in (clic, mobile, professional)}) == 3
    assert (clic.here().images, clic.here().kind) == (428, "recorded")
    header = Manifest.read(cache / "data" / "clic" / "mobile-test" / MANIFEST).header
    assert header["archive"] == "CLIC2020Mobile_test.zip"
    assert header["sha256"] == hashlib.sha256((folder / "CLIC2020Mobile_test.zip").read_bytes()).hexdigest()
    assert header["checked"] == "sha256"
    assert not list(cache.rglob("*.zip")), "a downloaded archive is deleted when its files are recorded"


def test_what_was_recorded_is_held_against_every_byte(
    serve: Serve, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = made_clic(tmp_path / "served")
    stand_for(monkeypatch, CLIC, "2020-mobile-test", folder)
    clic = CLIC("2020-mobile-test", source=serve(folder))
    clic.fetch()
    assert clic.verify() == []
    unpacked = cache / "data" / "clic" / "mobile-test"
    victim = next(iter(sorted(unpacked.glob("*.png"))))
    with pil.open(victim) as opened:
        pixels = np.array(opened)
    pixels[0, 0] ^= 1
    pil.fromarray(pixels).save(victim)
    assert [victim.name in line for line in clic.verify()] == [True]
    with pytest.raises(
        ImageError, match=rf"1 of 178 images .* are not those of the set:\n.*{victim.name}.*PNG of 48 x"
    ):
        index(clic)
    victim.unlink()
    with pytest.raises(ImageError, match=r"177 images are there, and clic2020-mobile-test has 178; allow_partial=true"):
        index(clic)
    part = replace(clic, allow_partial=True)
    assert len(index(part)) == 177
    assert (len(part), part.pinned().kind) == (178, "recorded")
    # Another archive's record is not believed.
    manifest = Manifest.read(unpacked / MANIFEST)
    replace(manifest, header={**manifest.header, "sha256": "0" * 64}).write(unpacked / MANIFEST)
    assert part.pinned().kind == "names"


def test_an_archive_of_the_users_own_is_verified_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RDPBENCH_DATA", str(tmp_path / "mine"))
    mine = tmp_path / "mine" / "archives" / "professional_test_2021.zip"
    zipped(mine, {f"{n:064x}.png": image_bytes(30 + n, 50, n) for n in range(60)})
    clic = CLIC("2021-test", source=NOWHERE)
    with pytest.raises(MissingNeed, match=r"is not the official archive: md5 \w+, published is 4476b708ea4c492505dd70"):
        clic.fetch()
    stand_for(monkeypatch, CLIC, "2021-test", mine.parent)
    clic.fetch()
    assert mine.is_file()
    assert "unpacking professional_test_2021.zip" in capsys.readouterr().err
    assert clic.pinned().kind == "recorded"


def test_an_archive_that_nobody_hashed_is_recorded_but_proves_nothing(
    serve: Serve, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{n:064x}.png" for n in range(30)]
    zipped(tmp_path / "served" / "image_test_30.zip", {f"clic2022/{name}": image_bytes(20, 30) for name in names})
    stand_for(monkeypatch, CLIC, "2022-test", tmp_path / "served", names_sha256=names_sha256(names))
    clic = CLIC("2022-test", source=serve(tmp_path / "served"))
    clic.fetch()
    assert Manifest.read(cache / "data" / "clic" / "test-2022" / MANIFEST).header["checked"] == "nothing published"
    assert clic.pinned().kind == "names"
    assert all(sample.sha256 for sample in clic.samples()), "yet a file that changes later is found"


def test_an_archive_with_other_contents_is_refused(
    serve: Serve, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = tmp_path / "served"
    zipped(served / "DIV2K_valid_HR.zip", {f"DIV2K_valid_HR/{n:04}.png": image_bytes(8, 2040) for n in range(801, 850)})
    div2k = DIV2K("valid", source=serve(served))
    with pytest.raises(MissingNeed, match=r"DIV2K_valid_HR.zip"):  # its size and its hash are not the published ones
        div2k.fetch()
    stand_for(monkeypatch, DIV2K, "valid", served)
    with pytest.raises(ImageError, match=r"holds 49 of the 100 files that it should hold"):
        div2k.fetch()
    assert not list(cache.rglob("*.png"))


def test_div2k_from_the_archive(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served = tmp_path / "served"
    members = {f"DIV2K_valid_HR/{n:04}.png": image_bytes(8, 2040, n % 256) for n in range(801, 901)}
    zipped(served / "DIV2K_valid_HR.zip", members)
    stand_for(monkeypatch, DIV2K, "valid", served)
    div2k = DIV2K("valid", source=serve(served))
    assert [entry.sample.id for entry in index(div2k, limit=3)] == ["0801", "0802", "0803"]
    assert (div2k.pinned().kind, div2k.verify(), len(div2k)) == ("recorded", [], 100)


def test_without_network_one_message_has_all_that_is_needed(cache: Path) -> None:
    with pytest.raises(MissingNeed) as caught:
        list(DIV2K("valid", source=NOWHERE).samples())
    text = str(caught.value)
    assert text.count("\n") < 8
    for part in ("449 MB", "https://data.vision.ee.ethz.ch/cvl/DIV2K/DIV2K_valid_HR.zip", "academic research only"):
        assert part in text
    assert str(cache / "data" / "archives") in text
    assert "data.path=FOLDER" in text


def test_the_disk_is_looked_at_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    release = COCO.RELEASES["val2014"]
    huge = replace(release, archives=(replace(release.archives[0], bytes=10**17),))
    monkeypatch.setitem(COCO.RELEASES, "val2014", huge)  # type: ignore[arg-type]
    with pytest.raises(MissingNeed, match=r"val2014.zip and its files need 200,000,000,000 MB and .* has .* MB left"):
        COCO("val2014", source=NOWHERE).fetch()


# Lookalikes


def test_crops_of_div2k_are_refused_for_what_they_are(shared: Path) -> None:
    for partial in (False, True):
        with pytest.raises(ImageError, match=r"0801.png is 256 x 256: one side of a DIV2K HR image has 2040 pixels"):
            index(DIV2K("valid", path=str(shared / "data" / "div2k_val_256"), allow_partial=partial))


def test_unnamed_files_are_not_clic(shared: Path) -> None:
    with pytest.raises(ImageError, match=r"of the 3 images there none of them is in the list of clic2020-test"):
        index(CLIC("2020-test", path=str(shared / "data" / "clic2020_full"), allow_partial=True))


def test_clic_2021_given_as_clic_2020_is_refused(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "mine", [f"{n:064x}.png" for n in range(60)], [image_bytes(50, 60)])
    for split in ("2020-test", "2020-mobile-test"):
        with pytest.raises(ImageError, match=rf"none of them is in the list of clic{split}: .*; clic2021-test has 60"):
            index(CLIC(split, path=str(folder)))
    with pytest.raises(ImageError, match=r"60 images are there, and clic2020-professional-valid has 41; clic2021"):
        index(CLIC("2020-professional-valid", path=str(folder)))


def test_resized_copies_with_official_names_are_refused(tmp_path: Path) -> None:
    """An image of each right name is not enough: all squares of one size, or too few patches in all."""
    squares = write_images(tmp_path / "squares", listed_names("clic2020-test"), [image_bytes(64, 64)])
    with pytest.raises(ImageError, match=r"all 428 images are 64 x 64: a cropped or resized copy"):
        index(CLIC("2020-test", path=str(squares)))
    mixed = write_images(
        tmp_path / "mixed", listed_names("clic2020-test"), [image_bytes(512, 768), image_bytes(512, 512)]
    )
    with pytest.raises(ImageError, match=r"the images hold \d+ patches of 256 pixels .* hold 28650: they were cropped"):
        index(CLIC("2020-test", path=str(mixed)))


def test_a_folder_with_the_right_names_and_sizes_is_taken_but_not_vouched_for(tmp_path: Path) -> None:
    # 360 images of 68 patches, 62 of 60 and 6 of 75 are 28,650.
    contents = [image_bytes(1280, 2048)] * 360 + [image_bytes(1152, 2048)] * 62 + [image_bytes(1408, 2048)] * 6
    folder = write_images(tmp_path / "mine", listed_names("clic2020-test"), contents)
    clic = CLIC("2020-test", path=str(folder))
    assert len(list(clic.samples())) == 428
    assert {sample.sha256 for sample in clic.samples()} == {None}
    pin = clic.pinned()
    lines = "".join(
        f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n"
        for name in listed_names("clic2020-test")
    )
    assert (pin.kind, pin.sha256) == ("names", hashlib.sha256(lines.encode()).hexdigest())
    (folder / "holiday.png").write_bytes(contents[0])
    with pytest.raises(ImageError, match=r"1 are not in the list of clic2020-test: holiday.png"):
        list(clic.samples())
    (folder / "holiday.png").rename(folder / "holiday.jpg")
    with pytest.raises(
        ImageError, match=r"1 of the images there have names that clic2020-test does not use: holiday.jpg"
    ):
        list(clic.samples())


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    names = [f"{n:04}.png" for n in range(801, 901) if n not in (805, 806)]
    folder = write_images(tmp_path / "DIV2K_valid_HR", names, [image_bytes(1408, 2040), image_bytes(1356, 2040)])
    with pytest.raises(ImageError, match=r"2 of its 100 images are missing: 0805.png, 0806.png; allow_partial=true"):
        list(DIV2K("valid", path=str(folder.parent)).samples())
    part = DIV2K("valid", path=str(folder.parent), allow_partial=True)
    assert (len(list(part.samples())), len(part), part.here().images) == (98, 100, 98)
    with pytest.raises(ImageError, match=r"no such folder: .*gone"):
        list(DIV2K("valid", path=str(tmp_path / "gone")).samples())
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match=r"no image of div2k-valid is there"):
        list(DIV2K("valid", path=str(tmp_path / "empty"), allow_partial=True).samples())


def test_rdpbench_data_is_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RDPBENCH_DATA", str(tmp_path))
    # 61 images of 63 patches and 39 of 70 are 6,573.
    contents = [image_bytes(1356, 2040)] * 61 + [image_bytes(1408, 2040)] * 39
    write_images(tmp_path / "div2k-valid", [f"{n:04}.png" for n in range(801, 901)], contents)
    assert len(list(DIV2K("valid", source=NOWHERE).samples())) == 100


# MS-COCO


def test_a_part_of_val2017_with_captions_and_labels(shared: Path) -> None:
    folder = shared / "data" / "coco"
    with pytest.raises(ImageError, match=r"images are there, and coco-val2017 has 5000; allow_partial=true"):
        index(COCO("val2017", path=str(folder)))
    coco = COCO("val2017", path=str(folder), allow_partial=True, captions="human", labels="panoptic")
    entries = index(coco)
    here = sorted(path.stem for path in (folder / "val2017").glob("*.jpg"))
    assert [entry.sample.id for entry in entries] == here
    assert (len(coco), coco.pinned().kind) == (5_000, "names")
    stated = json.loads((folder / "annotations" / "captions_val2017.json").read_text())["annotations"]
    for entry in entries[:10]:
        sample = entry.sample
        texts = [one["caption"].strip() for one in stated if one["image_id"] == int(sample.id)]
        assert [sample.caption, *sample.references] == texts
        assert len(texts) >= 5
        assert sample.labels is not None
        labels = load_labels(sample.labels, classes="coco-panoptic-133")
        assert labels.shape == (entry.source_height, entry.source_width)
        # Made by others from the same files: category ids, 0 where nothing is labelled.
        with pil.open(folder / "semantic_val2017" / f"{sample.id}.png") as opened:
            categories = np.array(opened)
        pairs = np.unique(np.stack([categories.ravel(), labels.ravel()]), axis=1)
        assert all(len(np.unique(side)) == pairs.shape[1] for side in pairs), "one class for each category"
        assert ((pairs[0] == 0) == (pairs[1] == 255)).all()
    third = next(iter(replace(coco, conditions=2, labels="none").samples()))
    assert third.caption == entries[0].sample.references[1]
    assert entries[0].sample.caption in third.references
    with pytest.raises(MissingNeed, match=r"images have no labels.*\n.*--with stuff.*stuffthingmaps_trainval2017.zip"):
        index(replace(coco, labels="stuff"))


def test_a_webp_run_needs_neither_captions_nor_labels(shared: Path, tmp_path: Path) -> None:
    folder = tmp_path / "alone" / "val2017"
    folder.mkdir(parents=True)
    for path in sorted((shared / "data" / "coco" / "val2017").glob("*.jpg"))[:2]:
        shutil.copy(path, folder)
    coco = COCO("val2017", path=str(folder), allow_partial=True)
    assert [(one.caption, one.references, one.labels) for one in coco.samples()] == [(None, (), None)] * 2
    with pytest.raises(
        MissingNeed, match=r"captions=human are not here\ntype `rdpbench data fetch coco-val2017 --with"
    ):
        list(replace(coco, captions="human").samples())
    with pytest.raises(ConfigError, match=r"captions='humans' is none of auto, human, karpathy, none"):
        COCO("val2017", captions="humans")


def test_the_sizes_that_annotations_state_tell_crops(shared: Path, tmp_path: Path) -> None:
    shutil.copytree(shared / "data" / "coco" / "annotations", tmp_path / "annotations")
    (tmp_path / "val2017").mkdir()
    with pil.open(shared / "data" / "coco" / "val2017" / "000000000139.jpg") as opened:
        opened.crop((0, 0, 256, 256)).save(tmp_path / "val2017" / "000000000139.jpg")
    with pytest.raises(ImageError, match=r"000000000139.jpg is 256 x 256, and captions_val2017.json states 640 x 426"):
        index(COCO("val2017", path=str(tmp_path), allow_partial=True))


def test_percos_and_tacos_images_are_told_from_each_other(shared: Path) -> None:
    perco = COCO("30k-perco", path=str(shared / "data" / "coco"), allow_partial=True)
    listed = set(listed_names("coco-train2017-perco"))
    samples = list(perco.samples())
    folder = shared / "data" / "coco" / "train2017"
    assert {one.path.name for one in samples} == {path.name for path in folder.iterdir()} & listed
    assert 0 < len(samples) < len(list(folder.iterdir())), "others of train2017 lie there and are passed over"
    with pytest.raises(ImageError, match=r"have names that coco-30k-taco does not use"):
        list(COCO("30k-taco", path=str(folder), allow_partial=True).samples())


def made_coco(folder: Path) -> list[str]:
    """Archives of val2017's layout, with six images, their captions, and both kinds of label maps."""
    names = [f"{n:012}.jpg" for n in (139, 285, 632, 724, 776, 785)]
    sizes = [(40 + n, 60) for n in range(6)]
    zipped(
        folder / "val2017.zip",
        {f"val2017/{n}": image_bytes(*size, kind="JPEG") for n, size in zip(names, sizes, strict=True)},
    )
    images = [
        {"id": int(name[:12]), "height": size[0], "width": size[1], "file_name": name}
        for name, size in zip(names, sizes, strict=True)
    ]
    texts = [{"image_id": int(name[:12]), "id": n, "caption": f"caption {n} \n"} for n in range(5) for name in names]
    captions = json.dumps({"images": images, "annotations": texts}).encode()
    zipped(
        folder / "annotations_trainval2017.zip",
        {
            "annotations/captions_val2017.json": captions,
            "annotations/captions_train2017.json": b'{"images": [], "annotations": []}',
            "annotations/instances_val2017.json": b"{}",
        },
    )
    segments = [{"image_id": int(name[:12]), "segments_info": [{"id": 7, "category_id": 92}]} for name in names]
    colours = {}
    for name, (height, width) in zip(names, sizes, strict=True):
        out = io.BytesIO()
        pixels = np.zeros((height, width, 3), np.uint8)
        pixels[:, : width // 2, 0] = 7
        pil.fromarray(pixels).save(out, "PNG")
        colours[f"panoptic_val2017/{name[:12]}.png"] = out.getvalue()
    inner = zipped(folder / "inner" / "panoptic_val2017.zip", colours)
    other = zipped(
        folder / "inner" / "panoptic_train2017.zip", {"panoptic_train2017/000000000009.png": image_bytes(2, 2)}
    )
    zipped(
        folder / "panoptic_annotations_trainval2017.zip",
        {
            "annotations/panoptic_val2017.json": json.dumps({"images": images, "annotations": segments}).encode(),
            "annotations/panoptic_train2017.json": b'{"images": [], "annotations": []}',
            "annotations/panoptic_val2017.zip": inner.read_bytes(),
            "annotations/panoptic_train2017.zip": other.read_bytes(),
        },
    )
    stuff = {f"val2017/{n[:12]}.png": image_bytes(*size, 181) for n, size in zip(names, sizes, strict=True)}
    zipped(folder / "stuffthingmaps_trainval2017.zip", stuff)
    return names


def test_coco_with_all_that_lies_beside_it(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served = tmp_path / "served"
    names = made_coco(served)
    release = COCO.RELEASES["val2017"]
    archives = (replace(release.archives[0], count=6),)
    made = replace(release, archives=archives, names_sha256=names_sha256(names), count=6)
    monkeypatch.setitem(COCO.RELEASES, "val2017", made)  # type: ignore[arg-type]
    stand_for(monkeypatch, COCO, "val2017", served)
    for name, count in (("CAPTIONS_2017", 2), ("PANOPTIC", 4), ("STUFF", 6)):
        beside = getattr(coco_beside, name)
        monkeypatch.setattr(coco_beside, name, published(beside, served / beside.file, count=count))
    coco = COCO("val2017", source=serve(served))
    with pytest.raises(ConfigError, match=r"'masks' does not come with COCO's images"):
        coco.fetch(["masks"])
    coco.fetch(["captions", "panoptic", "stuff"])
    assert coco.pinned().kind == "recorded"
    assert coco.verify() == []
    for labels, classes, value in (("panoptic", "coco-panoptic-133", 80), ("stuff", "coco-stuff-171", 170)):
        entries = index(replace(coco, source=NOWHERE, labels=labels))
        assert [entry.sample.path.name for entry in entries] == names
        assert entries[0].sample.caption == "caption 0"
        assert entries[0].sample.references == ("caption 1", "caption 2", "caption 3", "caption 4")
        assert entries[0].sample.labels is not None
        found = load_labels(entries[0].sample.labels, classes=classes)  # type: ignore[arg-type]
        assert found[0, 0] == value
        assert found.shape == (40, 60)
    coco.fetch(["captions", "panoptic", "stuff"])  # nothing is left to do


def test_the_draw_of_coco_30k_dalle_passes_over_small_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"COCO_val2014_{n:012}.jpg" for n in range(1, 21)]
    rule = COCO.RELEASES["30k-dalle"].drawn
    assert rule is not None
    order = sorted(names, key=rule.place)
    small = replace(rule, last=rule.place(order[9]), stand_ins=4, last_stand_in=rule.place(order[13]), short_side=30)
    release = replace(COCO.RELEASES["30k-dalle"], count=10, drawn=small)
    monkeypatch.setitem(COCO.RELEASES, "30k-dalle", release)  # type: ignore[arg-type]
    folder = write_images(tmp_path / "val2014", names, [image_bytes(30 + n, 50, kind="JPEG") for n in range(20)])
    for name in (order[2], order[5]):
        (folder / name).write_bytes(image_bytes(29, 50, kind="JPEG"))
    coco = COCO("30k-dalle", path=str(folder), protocol="as-is")
    expected = [name for name in order[:12] if name not in (order[2], order[5])]
    assert [sample.path.name for sample in coco.samples()] == sorted(expected)
    (folder / order[0]).unlink()
    with pytest.raises(ImageError, match=r"1 of its 10 images are missing; allow_partial=true"):
        list(coco.samples())
    part = replace(coco, allow_partial=True)
    # Which stand-ins belong to the set cannot be told then: none is taken.
    assert [one.path.name for one in part.samples()] == sorted(set(order[1:10]) - {order[2], order[5]})


def test_30_000_images_are_listed_in_constant_memory(cache: Path) -> None:
    folder = cache / "data" / "coco" / "train2017"
    folder.mkdir(parents=True)
    (folder / "first").write_bytes(b"")
    files = dict.fromkeys(listed_names("coco-train2017-perco"), hashlib.sha256(b"").hexdigest())
    for name in files:
        os.link(folder / "first", folder / name)
    archive = COCO.RELEASES["30k-perco"].archives[0]
    Manifest(files, {"archive": archive.file, "sha256": archive.sha256 or "", "md5": archive.md5 or ""}).write(
        folder / MANIFEST
    )
    samples = COCO("30k-perco", source=NOWHERE).samples()
    tracemalloc.start()
    try:
        first = next(samples)
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        count = 1 + sum(sample.sha256 is not None for sample in samples)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (first.id, count) == ("000000000009", 30_000)
    assert held < 32e6, "names, hashes and nothing else"
    assert peak - held < 1e6

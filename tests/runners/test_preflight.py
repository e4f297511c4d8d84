"""What is missing is told at once and in full, before anything is downloaded or coded."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as pil

from rdpbench import registry
from rdpbench.assets.weights import Weights
from rdpbench.codecs.learned.elic import ELIC
from rdpbench.datasets.labels import write_labels
from rdpbench.results.store.store import Store

OWN = """
import numpy as np
from rdpbench.metrics.contract import Estimate

class Words:
    name, version, higher_is_better, unit, perceptual, source, needs = "words", "1", True, "", True, "test", ()
    beside = ("captions",)

    def prepare(self, original, *, captions):
        return captions

    def score(self, prepared, reconstruction):
        return float(sum(len(caption.split()) for caption in prepared))

    def reduce(self, values):
        return sum(values) / len(values)

class Counts:
    id, version, needs, dim, beside, uses_device = "labelled", "1", (), 1, ("labels",), False

    def extract(self, images, labels):
        return [np.array([[float((one != 255).sum())]], np.float32) for one in labels]

class Labelled:
    name, kind, version, higher_is_better, unit, perceptual = "labelled", "set", "1", True, "", True
    source, needs, features, minimum_images, classes = "test", (), Counts, 1, "coco-panoptic-133"

    def reduce(self, reference, distorted):
        return Estimate(float(np.concatenate(distorted).mean()))
"""
LINE = ["run", "codec=jpeg", "rate=30", "figures=false", "verify=0", "workers=0"]


@pytest.fixture
def own(tmp_path: Path, images: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four images with captions and label maps of all, in a file and a folder beside them."""
    monkeypatch.chdir(tmp_path)  # where ./own.py is
    (tmp_path / "own.py").write_text(OWN)
    folder: Path = images(4)
    names = sorted(path.name for path in folder.iterdir())
    (tmp_path / "words.json").write_text(json.dumps({name: ["a red door", "a barn"] for name in names}))
    (tmp_path / "maps").mkdir()
    for number, name in enumerate(names):
        write_labels((tmp_path / "maps" / name), np.full((40, 56), number, np.uint8), "coco-panoptic-133")
    return folder


BESIDE = ["data.options.references=words.json", "data.options.labels=maps"]
BOTH = "metrics=psnr,./own.py:Words,./own.py:Labelled"


def point(tmp_path: Path, metric: str) -> float:
    import rdpbench

    frame = rdpbench.read_results(tmp_path / "results/runs/folder-pictures")
    return float(frame[frame["metric"] == metric]["value"].iloc[0])


def test_a_folder_brings_captions_and_label_maps(tmp_path: Path, rdpbench: Any, own: Path) -> None:
    rdpbench(*LINE, f"data=folder:{own}", *BESIDE, BOTH, code=0)
    assert point(tmp_path, "own.py:Words") == 5.0
    assert point(tmp_path, "own.py:Labelled") == 40 * 56
    # Another caption or another map is another score, and codes nothing.
    words = json.loads((tmp_path / "words.json").read_text())
    (tmp_path / "words.json").write_text(
        json.dumps(words | {"image00": "a house with a red door"} | {"image00.png": ["x"]})
    )
    refused = rdpbench(*LINE, f"data=folder:{own}", *BESIDE, BOTH, code=2)
    assert "names the image 'image00' 2 times" in refused.stderr
    (tmp_path / "words.json").write_text(json.dumps(words | {"image00.png": "one"}))
    write_labels(tmp_path / "maps" / "image00.png", np.full((40, 56), 255, np.uint8), "coco-panoptic-133")
    again = rdpbench(*LINE, f"data=folder:{own}", *BESIDE, BOTH, code=0)
    assert "0 tasks coded" in again.stdout
    scores = Store(tmp_path / "results/runs/folder-pictures").read().scores.values()
    assert sorted(one.value for one in scores if one.metric.endswith("Words")) == [1.0, 5.0, 5.0, 5.0, 5.0]
    assert point(tmp_path, "own.py:Labelled") == 0.75 * 40 * 56


def test_a_manifest_brings_captions_and_label_maps(tmp_path: Path, rdpbench: Any, own: Path) -> None:
    from rdpbench.datasets.folder import make_manifest
    from rdpbench.datasets.manifest import Manifest

    made = make_manifest(own, "folder-pictures", tmp_path / "mine.sha256")
    header = {**made.header, "references": "words.json", "labels": "maps"}
    Manifest(made.files, header).write(tmp_path / "mine.sha256")
    rdpbench(*LINE, f"data=manifest:{tmp_path / 'mine.sha256'}", BOTH, code=0)
    assert point(tmp_path, "own.py:Words") == 5.0
    assert point(tmp_path, "own.py:Labelled") == 40 * 56
    Manifest(made.files, {**header, "labels": "../maps"}).write(tmp_path / "mine.sha256")
    refused = rdpbench(*LINE, f"data=manifest:{tmp_path / 'mine.sha256'}", BOTH, code=2)
    assert "its labels '../maps' leads out of its folder; say data.options.labels=FOLDER" in refused.stderr


@pytest.mark.parametrize("target", [[], ["bpp=1", "search=dataset", "rate=null"]])
def test_a_metric_that_the_images_cannot_serve_stops_the_plan(
    tmp_path: Path, rdpbench: Any, own: Path, target: list[str]
) -> None:
    """Nothing is coded, also by a search that codes before the plan; and what is missing can be left out."""
    line = [*(word for word in LINE if not target or not word.startswith("rate=")), *target[:2], f"data=folder:{own}"]
    stopped = rdpbench(*line, BOTH, code=2)
    assert "own.py:Words: 4 of the 4 images of folder-pictures cannot be scored, such as image00: it has no" in (
        stopped.stderr
    )
    assert "data.options.references=FILE names a JSON file" in stopped.stderr
    assert "own.py:Labelled: 4 of the 4 images of folder-pictures cannot be scored" in stopped.stderr
    assert "data.options.labels=FOLDER names a folder of PNGs" in stopped.stderr
    assert "metrics=available" in stopped.stderr
    assert not (tmp_path / "results").exists()


def test_what_a_metric_needs_is_asked_of_each_dataset_with_its_own_advice(tmp_path: Path, rdpbench: Any) -> None:
    (tmp_path / "own.py").write_text(OWN)
    stopped = rdpbench(*LINE, "data=samples", "limit=2", BOTH, code=2)
    assert "2 of the 2 images of samples cannot be scored, such as astronaut: it has no caption" in stopped.stderr
    assert "the sets of MS-COCO bring it, and folders and manifests can" in stopped.stderr


def test_some_images_without_stop_the_plan_too(tmp_path: Path, rdpbench: Any, own: Path) -> None:
    """Their number is told; with allow_partial the metric is over the others, and the table says of how many."""
    (tmp_path / "maps" / "image01.png").unlink()
    line = [*LINE, f"data=folder:{own}", *BESIDE, "metrics=psnr,./own.py:Labelled"]
    stopped = rdpbench(*line, code=2)
    assert (
        "1 of the 4 images of folder-pictures cannot be scored, such as image01: it has no label map" in stopped.stderr
    )
    assert "allow_partial=true scores the others" in stopped.stderr
    assert not (tmp_path / "results").exists()
    assert "(3 of 4, " in rdpbench(*line, "allow_partial=true", code=0).stdout


def other_classes(path: Path) -> None:
    write_labels(path, np.zeros((40, 56), np.uint8), "coco-stuff-171")


def no_classes(path: Path) -> None:
    pil.fromarray(np.zeros((40, 56), np.uint8)).save(path)


def other_size(path: Path) -> None:
    write_labels(path, np.zeros((56, 40), np.uint8), "coco-panoptic-133")


def colours(path: Path) -> None:
    pil.fromarray(np.zeros((40, 56, 3), np.uint8)).save(path)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (other_classes, "counts coco-stuff-171, and the metric coco-panoptic-133"),
        (no_classes, "counts classes of a list that it does not name, and the metric coco-panoptic-133"),
        (other_size, "is 40 x 56, and the image 56 x 40 (width x height)"),
        (colours, "is no label map: an 8-bit grey PNG of class indices is, this is RGB"),
        (lambda path: path.write_bytes(b"no image"), "as a label map"),
    ],
)
@pytest.mark.parametrize("partial", [False, True])
def test_label_maps_of_another_kind_stop_the_plan(
    tmp_path: Path, here: Any, capsys: Any, own: Path, damage: Any, told: str, partial: bool
) -> None:
    """One of four is enough, and no word of the user's leaves it out but metrics=available."""
    damage(tmp_path / "maps" / "image02.png")
    line = ["plan", *LINE[1:], f"data=folder:{own}", *BESIDE, BOTH, f"allow_partial={str(partial).lower()}"]
    assert here(*line) == 2
    stopped = " ".join(capsys.readouterr().err.split())
    assert "own.py:Labelled: 1 of the 4 images of folder-pictures cannot be scored, such as image02" in stopped
    assert told in stopped
    assert "own.py:Words" not in stopped


def test_what_lies_nowhere_is_said(tmp_path: Path, here: Any, capsys: Any, own: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "others.json").write_text('{"kodim01": "a barn"}')
    for option, told in (
        ("references=gone.json", "cannot read the references"),
        ("references=others.json", "has no caption for 4 of 4 images of 'folder-pictures'"),
        ("labels=gone", "no such folder of label maps"),
        ("labels=empty", "has a label map for no image of 'folder-pictures'; the first would be"),
    ):
        assert here("plan", *LINE[1:], f"data=folder:{own}", "metrics=psnr", f"data.options.{option}") == 2
        assert told in " ".join(capsys.readouterr().err.split())


def test_label_maps_among_the_images_are_no_images(tmp_path: Path, own: Path) -> None:
    from rdpbench.datasets.folder import ImageFolder

    (tmp_path / "maps").rename(own / "maps")
    folder = ImageFolder(str(own), labels=str(own / "maps"))
    assert len(folder) == 4
    assert [sample.labels for sample in folder.samples()] == [own / "maps" / f"image0{n}.png" for n in range(4)]


@pytest.mark.parametrize(("metric", "kind"), [("miou/eomt-small", "panoptic"), ("miou/maskformer-stuff", "stuff")])
def test_coco_says_which_label_maps(metric: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rdpbench.datasets.coco import COCO
    from rdpbench.runners.sets import KINDS

    monkeypatch.setenv("RDPBENCH_CACHE", str(tmp_path))
    classes = registry.load("metric", metric).classes  # type: ignore[attr-defined]
    told = COCO("val2017").beside_missing(KINDS[classes])
    assert f"rdpbench data fetch coco-val2017 --with {kind}` and data.options.labels={kind} asks for them" in told


def test_weights_that_only_a_browser_gets_are_all_listed(rdpbench: Any, images: Any, tmp_path: Path) -> None:
    """Two systems, all of their rate points; nothing is downloaded of the one that could be."""
    line = ["run", "codec=elic,bmshj2018-factorized", f"data=folder:{images(1)}", "metrics=psnr"]
    nowhere = {name: str(tmp_path / "nothing") for name in ("XDG_CACHE_HOME", "TORCH_HOME", "HF_HOME")}
    done = rdpbench(*line, code=2, env=nowhere)
    assert "nothing was downloaded" in done.stderr
    assert "downloading" not in done.stderr
    for codec in ("elic", "bmshj2018-factorized"):
        axis = registry.load("codec", codec).rate  # type: ignore[attr-defined]
        assert done.stderr.count(f"codec {codec}: weights") == len(axis.values)
    assert done.stderr.count("only a browser gets it") == len(ELIC.rate.values)
    files = done.stderr.count("are not on this machine")
    for told in ("\n  licence  ", "\n  size     ", "\n  put it   at "):
        assert done.stderr.count(told) == files
    assert not (tmp_path / "results").exists()


def test_to_download_is_not_advised_where_that_failed(
    own: Path, here: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (own.parent / "own.py").write_text(
        OWN + "\nfrom rdpbench.assets.weights import Card, Weights\n"
        "Words.needs = (Weights(Card('net', 'http://127.0.0.1:9/net.pth', '1', 'net.pth', 'MIT', 'a net')),)\n"
    )
    monkeypatch.setenv("RDPBENCH_CACHE", str(own.parent / "cache"))
    line = [*LINE, f"data=folder:{own}", "metrics=./own.py:Words"]
    said = []
    for allowed in ("true", "false"):
        assert here(*line, f"download={allowed}") == 2
        said.append(capsys.readouterr().err)
        assert "weights 'net' are not on this machine" in said[-1]
    assert ["cannot download" in text for text in said] == [True, False]
    assert ["download=true" in text for text in said] == [False, True]


def test_cards_of_pages_are_never_fetched() -> None:
    """A page for browsers answers a program with HTML, which would be pinned as if it were weights."""
    cards = [need.card for need in ELIC(quality=ELIC.rate.values[0]).weight_needs() if isinstance(need, Weights)]
    assert cards
    assert all(card.by_hand for card in cards)


def test_what_the_images_cannot_serve_is_left_out_where_that_is_allowed(own: Path, monkeypatch: Any) -> None:
    """As metrics=available does for the metrics of its list; the plan says what is left out, and why."""
    from rdpbench.config.bench import read_bench
    from rdpbench.runners.execute import store_of
    from rdpbench.runners.plan import make_plan

    monkeypatch.setenv("RDPBENCH_CACHE", str(own.parent / "cache"))
    (own.parent / "maps" / "image03.png").unlink()
    line = ["codec=jpeg", "rate=30", f"data=folder:{own}", "data.options.labels=maps", BOTH]
    bench = replace(read_bench(line), metrics_available=True)
    plan = make_plan(bench, store_of(bench))
    assert plan.metrics == ("psnr",)
    assert "image00: it has no caption to score against" in plan.left_out["own.py:Words"]
    assert "1 of the 4 images of folder-pictures" in plan.left_out["own.py:Labelled"]

"""Example images, and the command: what is shown is what was stored, and damage is refused."""

from __future__ import annotations

import argparse
import io
import itertools
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as pil
from rich.console import Console

from rdpbench.cli import main
from rdpbench.errors import ConfigError, MissingNeed, RdpbenchError, StoreCorrupt, UnknownName
from rdpbench.figures import command
from rdpbench.figures import examples as qualitative
from rdpbench.figures.data import presets
from rdpbench.figures.examples import Window, parse_crop, worst_window
from rdpbench.figures.style import drawing, paper_style
from rdpbench.image import Image, read_image
from rdpbench.results.stats.current import of_store
from rdpbench.results.store.bitstreams import reconstruction_path
from rdpbench.results.store.store import Store
from rdpbench.setting import Presentation

CODECS = ["jpeg", "webp"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two real codecs on three small images, all reconstructions kept; its folder is never changed."""
    folder = tmp_path_factory.mktemp("kept")
    pictures = folder / "pictures"
    pictures.mkdir()
    rng = np.random.default_rng(7)
    for number in range(3):
        coarse = pil.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
        coarse.resize((96, 72), pil.Resampling.BICUBIC).save(pictures / f"i{number}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("RDPBENCH_CACHE", str(folder / "cache"))
        line = ["run", "codec=jpeg,webp", "rate=20,80", f"data=folder:{pictures}", "metrics=psnr", "workers=0"]
        assert main([*line, "figures=false", "verify=0", "run=small", "keep=all"]) == 0
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Store:
    """A copy of the run that a test may damage."""
    shutil.copytree(made / "results/runs/small", tmp_path / "small")
    return Store(tmp_path / "small")


Figure = Callable[..., str]


@pytest.fixture
def figure(made: Path, tmp_path: Path) -> Figure:
    """Runs ``rdpbench figure`` with the small run at hand; returns what was printed."""

    def call(*words: str) -> str:
        parser = argparse.ArgumentParser()
        command.add_arguments(parser)
        where = ["--root", str(made / "results/runs"), "--out", str(tmp_path / "out")]
        console = Console(file=io.StringIO(), width=200)
        assert command.run(parser.parse_args([*words, *where]), console) == 0
        assert isinstance(console.file, io.StringIO)
        return console.file.getvalue()

    return call


def found(store: Store, bpp: float | None = None, **how: object) -> list[qualitative.Example]:
    points = of_store(store.read())
    chosen = qualitative.choose(qualitative.kept(store, points, CODECS), bpp)
    return qualitative.examples(store, points, chosen, metrics=["psnr"], **how)  # type: ignore[arg-type]


# Windows


def test_the_window_is_where_the_error_is() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (60, 90, 3), dtype=np.uint8)
    first, second = image.copy(), image.copy()
    first[41:50, 70:79] = 255 - first[41:50, 70:79]
    second[5, 5] = 255 - second[5, 5]
    window = worst_window(image, [first, second], share=0.15)
    assert window == Window(70, 41, 9, 9)
    errors = {(y, x): _error(image, first, x, y) + _error(image, second, x, y) for y in range(52) for x in range(82)}
    assert max(errors, key=lambda at: errors[at]) == (41, 70)
    # All alike: the upper left.
    assert worst_window(image, [image], share=0.15) == Window(0, 0, 9, 9)


def _error(image: Image, other: Image, x: int, y: int) -> float:
    first, second = (one[y : y + 9, x : x + 9].astype(float) for one in (image, other))
    return float(np.square(first - second).sum())


@pytest.mark.parametrize("text", ["1,2,3", "a,b,c,d", "1,2,3,-4", "1.5,2,3,4", "best"])
def test_windows_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match="x,y,width,height"):
        parse_crop(text)


@pytest.mark.parametrize("text", ["0,0,97,10", "90,70,10,10", "0,0,0,10"])
def test_windows_outside_the_image(text: str, run: Store) -> None:
    with pytest.raises(ConfigError, match="96 x 72"):
        found(run, crop=text)


# What is shown


def test_what_is_shown_is_what_was_stored(run: Store) -> None:
    examples = found(run, crop="10,20,30,40")
    assert [one.image for one in examples] == ["i0", "i1", "i2"]
    for one in examples:
        for row, pixels, scores in zip(one.rows, one.decoded, one.scores, strict=True):
            np.testing.assert_array_equal(pixels, read_image(reconstruction_path(run, row)).pixels)
            error = np.square(pixels.astype(float) - one.original).mean()
            assert scores[0][1] == pytest.approx(10 * np.log10(255**2 / error))
    with drawing(paper_style("icml")):
        figure = qualitative.compose(examples, {"jpeg": "JPEG"}, paper_style("icml"))
    shown = [np.asarray(axis.images[0].get_array()) for axis in figure.axes]
    assert len(shown) == 3 * 4  # original, its window, two codecs
    np.testing.assert_array_equal(shown[0], examples[0].original)
    np.testing.assert_array_equal(shown[1], examples[0].original[20:60, 10:40])
    np.testing.assert_array_equal(shown[2], examples[0].decoded[0][20:60, 10:40])
    assert [axis.get_title() for axis in figure.axes[:5]] == ["original", "its window", "JPEG", "WebP", ""]
    below = [axis.texts[0].get_text() for axis in figure.axes[:4]]
    assert below[:2] == ["i0", "10,20,30,40"]
    row = examples[0].rows[0]
    assert row.bytes is not None
    assert below[2].splitlines()[0] == f"{8 * row.bytes / (96 * 72):.4f} bpp"
    assert below[2].splitlines()[1] == f"PSNR {examples[0].scores[0][0][1]:.2f} dB"


@pytest.mark.parametrize("size", ["column", "page"])
@pytest.mark.parametrize("crop", ["auto", "none"])
def test_no_text_lies_on_another(size: str, crop: str, run: Store) -> None:
    with drawing(paper_style("default")):
        figure = qualitative.compose(
            found(run, crop=crop), {}, paper_style("default"), Presentation(size=size, notes=True)
        )
        figure.canvas.draw()
        texts = [text for axis in figure.axes for text in (axis.title, *axis.texts)] + list(figure.texts)
        boxes = [text.get_window_extent() for text in texts if text.get_text()]
        pictures = [axis.get_window_extent() for axis in figure.axes]
        for a, b in [*itertools.combinations(boxes, 2), *itertools.product(boxes, pictures)]:
            assert min(a.x1, b.x1) - max(a.x0, b.x0) <= 1 or min(a.y1, b.y1) - max(a.y0, b.y0) <= 1
        assert all(box.x0 >= -1 and box.x1 <= figure.bbox.width + 1 and box.y0 >= -1 for box in boxes)


def test_rates_are_chosen_for_all_images_alike(run: Store) -> None:
    points = of_store(run.read())
    rows = qualitative.kept(run, points, CODECS)
    lowest = qualitative.choose(rows)
    means = {codec: np.mean([row.bpp or 0 for row in of]) for codec, of in lowest.items()}
    for codec, of in lowest.items():
        assert len({row.rate for row in of}) == 1, codec
        assert len(of) == 3
    assert {of[0].rate for of in qualitative.choose(rows, 99.0).values()} == {80.0}
    target = max(
        min(np.mean([r.bpp or 0 for r in rows[codec] if r.rate == rate]) for rate in (20, 80)) for codec in rows
    )
    assert min(abs(np.log(mean / target)) for mean in means.values()) == 0


def test_seeds_are_columns(run: Store) -> None:
    example = found(run)[0]
    two = replace(example, rows=(example.rows[0], replace(example.rows[0], seed=1)))
    with drawing(paper_style("icml")):
        figure = qualitative.compose([two], {"jpeg": "JPEG"}, paper_style("icml"))
    assert [axis.get_title() for axis in figure.axes[2:]] == ["JPEG, seed 0", "JPEG, seed 1"]


def test_random_weights_are_watermarked(run: Store) -> None:
    example = found(run)[0]
    odd = replace(example, rows=tuple(replace(row, weights="random") for row in example.rows))
    with drawing(paper_style("icml")):
        for one, expected in ((example, 0), (odd, 1)):
            figure = qualitative.compose([one], {}, paper_style("icml"))
            assert sum(text.get_gid() == "watermark" for text in figure.texts) == expected


def test_the_same_bytes(figure: Figure, tmp_path: Path) -> None:
    files: list[dict[str, bytes]] = []
    for _ in range(2):
        figure("examples", "--run", "small", "--style", "icml")
        files.append({path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()})
    assert files[0] == files[1]
    assert len(files[0]) == 5


# Damage


def test_a_damaged_reconstruction_is_refused(run: Store) -> None:
    row = found(run)[0].rows[0]
    path = reconstruction_path(run, row)
    pixels = read_image(path).pixels.copy()
    pixels[0, 0, 0] ^= 1
    pil.fromarray(pixels).save(path)
    with pytest.raises(StoreCorrupt, match="is not what was decoded"):
        found(run)


def test_an_original_that_changed_is_refused(run: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    points = of_store(run.read())
    rows = qualitative.kept(run, points, CODECS)
    other = tmp_path / "other.png"
    pil.fromarray(np.zeros((72, 96, 3), np.uint8)).save(other)
    for path, error, kind in (
        (other, "changed since", StoreCorrupt),
        (tmp_path / "gone.png", "no longer", MissingNeed),
    ):
        moved = {codec: [replace(row, path=str(path)) for row in of] for codec, of in rows.items()}
        with pytest.raises(kind, match=error):
            qualitative.examples(run, points, qualitative.choose(moved))


def test_what_was_not_kept_is_named(run: Store) -> None:
    with pytest.raises(MissingNeed, match="there is of: i0, i1, i2"):
        found(run, images=["i7"])
    assert [one.image for one in found(run, images=["i2"])] == ["i2"]
    for path in (run.folder / "reconstructions/webp").rglob("i0-*.png"):
        path.unlink()
    assert [one.image for one in found(run)] == ["i1", "i2"]
    shutil.rmtree(run.folder / "reconstructions")
    with pytest.raises(MissingNeed, match="keep=all"):
        found(run)


# The command


def test_the_list_names_all(figure: Figure) -> None:
    text = figure("--list")
    for name in [*(one.name for one in presets()), "curves", "examples"]:
        assert f"  {name} " in text


def test_curves_of_a_run(figure: Figure, tmp_path: Path) -> None:
    text = figure("curves", "--run", "small", "--size", "column", "--bpp", "0.01,5")
    for ending in ("png", "pdf", "svg", "txt", "md"):
        assert f"curves.{ending}" in text
    page = (tmp_path / "out/curves.md").read_text()
    assert "| JPEG | 2 | file | psnr |  | run small |" in page
    assert "Only points of 0.01 to 5 bpp are drawn." in page
    assert "`rdpbench figure curves --run small root=" in page
    assert " --bpp 0.01,5 --size column`" in page


def test_examples_of_a_run(figure: Figure, tmp_path: Path) -> None:
    text = figure("examples", "--run", "small", "--codec", "webp", "--image", "i1", "--crop", "0,0,8,8")
    assert "examples.pdf" in text
    page = (tmp_path / "out/examples.md").read_text()
    assert "- i1: window 0,0,8,8." in page
    assert "webp at quality 20" in page
    assert "To measure" not in page


def test_a_preset_of_images_says_what_to_run(figure: Figure) -> None:
    text = figure("perco-1", "--run", "small")
    assert "run small has none of pics, vtm, ms-illm, perco on kodak" in text
    assert "rdpbench run experiment=perco-1" in text
    assert "without a run" in figure("perco-1")


def test_a_diagram_a_table_and_a_heat_map(figure: Figure, tmp_path: Path) -> None:
    text = figure("perco-2", "perco-table-1", "textual-inversion-3")
    assert "perco-2: a diagram, nothing to measure" in text
    assert "PerCo, text only" in text
    assert {path.suffix for path in (tmp_path / "out").glob("perco-table-1.*")} == {".md", ".tex"}
    # An empty figure is not drawn: what would fill it is said instead.
    assert {path.suffix for path in (tmp_path / "out").glob("textual-inversion-3.*")} == {".md"}
    assert "Nothing is drawn, since there is no point of any series." in text
    assert "rdpbench run experiment=textual-inversion-3" in text


@pytest.mark.slow
def test_all_presets_and_only_measured(figure: Figure, tmp_path: Path) -> None:
    figure("all", "--published-only")
    names = {path.stem for path in (tmp_path / "out").iterdir()}
    assert names == {one.name for one in presets() if one.kind != "diagram"}
    figure("taco-6", "--measured-only", "--run", "small")
    page = (tmp_path / "out/taco-6.md").read_text()
    assert "published" not in page.replace("No published data, not measured.", "").replace("Fig", "")


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (["taco-77"], UnknownName, "did you mean 'taco-7'"),
        (["taco-7", "--run", "smal"], UnknownName, "did you mean 'small'"),
        (["small"], ConfigError, "small is a run, not a figure; type: rdpbench figure curves --run small"),
        (["taco-7", "--style", "icmll"], UnknownName, "did you mean 'icml'"),
        (["taco-6", "--size", "colum"], UnknownName, "did you mean 'column'"),
        (["taco-6", "--panels", "psnrr"], UnknownName, "did you mean 'psnr'"),
        (["taco-6", "--order", "elik"], UnknownName, "did you mean 'elic'"),
        (["taco-6", "--anchor", "vtmm"], UnknownName, "did you mean 'vtm'"),
        (["taco-6", "--labels", "vtm"], ConfigError, "NAME=TEXT"),
        (["curves", "--run", "small", "--over", "psnr"], ConfigError, "--bpp 0.4"),
        (["taco-7", "--measured-only"], ConfigError, "needs runs"),
        (["taco-6", "--bpp", "2,1"], ConfigError, "LOW,HIGH"),
        (["curves"], ConfigError, "needs --run"),
        (["examples"], ConfigError, "keep=all"),
        (["examples", "--run", "small", "--bpp", "1,2"], ConfigError, "one rate"),
        (["examples", "--run", "small", "--crop", "here"], ConfigError, "x,y,width,height"),
    ],
)
def test_what_cannot_be_meant(words: list[str], error: type[RdpbenchError], message: str, figure: Figure) -> None:
    with pytest.raises(error, match=message):
        figure(*words)

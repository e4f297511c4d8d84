"""What the report's folder holds: the summary's numbers, the very pixels, commands that are true, names as text."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shlex
import shutil
import weakref
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml
from pyarrow import parquet

from rdpbench.config.bench import read_bench
from rdpbench.errors import ConfigError
from rdpbench.image import Image, pixel_sha256, read_image
from rdpbench.report.command import STATIC, Decoding, build, library
from rdpbench.report.data import narrowed, read_run
from rdpbench.results.store.bitstreams import put_reconstruction, reconstruction_path
from rdpbench.results.store.schema import Row
from rdpbench.results.store.store import Store
from rdpbench.runners.coding import decode_row
from rdpbench.runners.task import list_tasks

Report = Callable[..., Path]
Data = Callable[[str], Any]


def hashes(site: Path) -> dict[str, str]:
    files = (path for path in sorted(site.rglob("*")) if path.is_file())
    return {str(path.relative_to(site)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def rows_of(site_data: Data, codec: str, dataset: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A curve's rows, and the images that they refer to."""
    report = site_data("report")
    place = [one["dataset"] for one in report["sets"]].index(dataset)
    curve = next(n for n, one in enumerate(report["curves"]) if one["codec"] == codec and one["set"] == place)
    return site_data(f"rows-{curve}"), site_data(f"images-{place}")


def test_points_are_the_means_of_their_rows(made: Path, data: Data) -> None:
    report, contents = data("report"), Store(made).read()
    scores = {(one.task_key, one.metric): one.value for one in contents.scores.values()}
    checked = 0
    for point in report["points"]:
        curve = report["curves"][point["curve"]]
        dataset = report["sets"][curve["set"]]["dataset"]
        here = (dataset, curve["codec"], point["rate"])
        rows = [row for row in contents.rows.values() if (row.dataset, row.codec, row.rate) == here]
        good = [row for row in rows if row.status == "ok"]
        assert point["bpp"][0] == pytest.approx(np.mean([row.bpp or np.nan for row in good]), rel=1e-6)
        for metric in ("psnr", "ms-ssim"):
            values = [scores[row.task_key, metric] for row in good]
            known = [value for value in values if value is not None]
            assert point["values"][metric][0] == pytest.approx(np.mean(known), rel=1e-6)
            assert point["values"][metric][3] == len(known)
            checked += 1
    assert checked == 2 * 4 * (3 + 3 + 1)


def test_pictures_are_the_pixels_that_were_scored(made: Path, site: Path, data: Data) -> None:
    wanted = {row.reconstruction_sha256[:20]: row for row in Store(made).read().rows.values() if row.status == "ok"}
    rows, images = rows_of(data, "webp", "folder-pictures")
    assert len(rows["picture"]) == 16
    for picture, image in zip(rows["picture"], rows["image"], strict=True):
        found = read_image(site / "images" / picture[:2] / f"{picture}.webp").pixels
        assert pixel_sha256(found) == wanted[picture].reconstruction_sha256
        assert wanted[picture].image == images[image]["name"]
        assert (site / "thumbs" / picture[:2] / f"{picture}.jpg").stat().st_size < 20_000
    for image in images:
        path = site / "images" / image["picture"][:2] / f"{image['picture']}.webp"
        assert pixel_sha256(read_image(path).pixels)[:20] == image["picture"]


def test_bytes_and_their_parts_are_of_each_image(made: Path, data: Data) -> None:
    rows, images = rows_of(data, "jpeg2000", "folder-more")
    of = {(row.image, row.bytes) for row in Store(made).read().rows.values() if row.codec == "jpeg2000"}
    assert {(images[n]["name"], size) for n, size in zip(rows["image"], rows["bytes"], strict=True)} <= of
    assert [sum(sizes) for sizes in zip(*rows["parts"].values(), strict=True)] == rows["bytes"]


def test_what_a_codec_told_is_beside_each_image(data: Data, hostile: Mapping[str, str]) -> None:
    curves = data("report")["curves"]
    for number, curve in enumerate(curves):
        rows = data(f"rows-{number}")
        if curve["codec"] != hostile["codec"]:
            assert rows["info"] == {}
            continue
        assert rows["info"].keys() == {"prompt", hostile["image"], "command"}
        assert rows["info"]["prompt"] == [hostile["prompt"]] * len(rows["image"])
        assert rows["info"]["command"] == ["paint <b>"] * len(rows["image"])


def test_each_command_makes_its_point_again(made: Path, data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only alike: the tasks that the command plans have the keys that are stored."""
    monkeypatch.chdir(made.parents[2])
    monkeypatch.setenv("RDPBENCH_CACHE", str(made.parents[2] / "cache"))
    report, contents = data("report"), Store(made).read()
    checked = 0
    for point in report["points"]:
        curve = report["curves"][point["curve"]]
        if curve["codec"] not in ("jpeg", "webp") or point["rate"] is None:
            continue
        words = shlex.split(point["command"])
        assert words[:2] == ["rdpbench", "run"]
        found = {task.key for task in list_tasks(read_bench(words[2:]))}
        stored = {
            row.task_key for row in contents.rows.values() if (row.codec, row.rate) == (curve["codec"], point["rate"])
        }
        assert found == stored
        checked += 1
    assert checked == 16


def test_what_a_label_says_becomes_settings_of_the_command() -> None:
    class Labelled:
        codec, use, target_bpp, rate = "jpeg[chroma=4:4:4,optimize=true]", "jpeg", None, 50.0

    typed = ["codec=jpeg,webp", "data=kodak", "codec.options.chroma=4:2:0,4:4:4", "rate=20,50", "limit=4"]
    row: Any = Labelled()
    assert narrowed(typed, row) == [
        *["codec=jpeg", "codec.options.chroma=4:4:4", "codec.options.optimize=true", "rate=50", "data=kodak", "limit=4"]
    ]
    Labelled.codec, Labelled.use, Labelled.target_bpp = "Mine[weights=random][captions=ofa]", "/here/mine.py:Mine", 0.25
    typed = ["codec=./mine.py:Mine", "bpp=0.1,0.25", "captions=human,ofa", "weights=random", "search=image"]
    own = ["codec=/here/mine.py:Mine", "bpp=0.25", "captions=ofa", "weights=random"]
    assert narrowed(typed, row) == own
    # Without a target there is nothing to be near to, and the command would refuse it.
    assert narrowed([*typed, "tolerance=0.5"], row) == [*own, "tolerance=0.5"]
    Labelled.target_bpp = None
    assert narrowed([*typed, "tolerance=0.5"], row) == [own[0], "rate=50", *own[2:]]


def test_names_are_data_and_data_ends_no_script(site: Path) -> None:
    page = (site / "index.html").read_bytes()
    assert page == (STATIC / "index.html").read_bytes()
    for path in (site / "data").glob("*.js"):
        assert b"<" not in path.read_bytes()
        assert path.read_bytes().isascii()
    for path in (site / "static").glob("*.js"):
        if path.name != "plotly.min.js":
            assert "innerHTML" not in path.read_text().replace("no innerHTML", "")


def test_nothing_is_from_elsewhere_but_the_library(site: Path) -> None:
    page = (site / "index.html").read_text()
    assert "http" not in page.replace("http-equiv", "")
    for path in (site / "static").iterdir():
        if path.name != "plotly.min.js":
            assert "https:" not in path.read_text()
            assert len(path.read_text().splitlines()) < 400
    assert (site / "static/plotly.min.js").read_bytes() == library()


def test_the_same_run_gives_the_same_bytes(made: Path, site: Path, make_report: Report) -> None:
    before = hashes(site)
    times = {path: path.stat().st_mtime_ns for path in site.rglob("*") if path.is_file()}
    make_report(made, "--images", "all", "--out", site)
    assert hashes(site) == before
    assert {path: path.stat().st_mtime_ns for path in site.rglob("*") if path.is_file()} == times


def test_which_images_are_made(run: Path, make_report: Report, tmp_path: Path) -> None:
    def count() -> int:
        return len(list((tmp_path / "out").rglob("*.webp")))

    out = ("--out", tmp_path / "out")
    make_report(run, "--images", "none", *out)
    assert count() == 0
    assert json.loads((tmp_path / "out/data/images-0.js").read_text()[len('rdpbench.put("images-0",') : -3])
    make_report(run, "--images", "all", *out)
    everything = count()
    make_report(run, *out)
    matched = count()
    assert 6 < matched < everything
    make_report(run, "--limit", "1", *out)
    one = count()
    assert 0 < one < matched
    make_report(run, "--images", "none", *out)  # what is no longer referred to is removed
    assert count() == 0
    assert not list((tmp_path / "out").rglob("*.jpg"))


def test_images_are_made_one_at_a_time(made: Path, tmp_path: Path) -> None:
    alive, most = 0, 0

    def gone() -> None:
        nonlocal alive
        alive -= 1

    def decode(store: Store, row: Row) -> Image:
        nonlocal alive, most
        pixels = decode_row(store, row)
        weakref.finalize(pixels, gone)
        alive += 1
        most = max(most, alive)
        return pixels

    store = Store(made)
    report = read_run("both", store, store.read())
    build([report], tmp_path / "out", "all", 0, Decoding(decode), workers=0)
    assert len(list((tmp_path / "out").rglob("*.webp"))) > 40
    assert 1 <= most <= 2


@pytest.mark.slow
def test_processes_make_the_same_files(made: Path, tmp_path: Path) -> None:
    store = Store(made)
    report = read_run("both", store, store.read())
    for workers in (0, 2):
        build([report], tmp_path / str(workers), "all", 0, Decoding(decode_row), workers=workers)
    assert hashes(tmp_path / "0") == hashes(tmp_path / "2")


def test_images_with_other_pixels_are_not_shown(run: Path, make_report: Report, tmp_path: Path) -> None:
    store = Store(run)
    rows = [row for row in store.read().rows.values() if row.codec == "webp" and row.image == "plain"]
    rows.sort(key=lambda row: row.rate or 0)
    put_reconstruction(store, rows[0], np.zeros((rows[0].height, rows[0].width, 3), np.uint8))
    store.bitstreams.path(rows[1].bitstream_sha256).unlink()
    put_reconstruction(store, rows[2], decode_row(store, rows[2]))
    store.bitstreams.path(rows[2].bitstream_sha256).unlink()  # the kept image is enough
    out = make_report(run, "--images", "all", "--out", tmp_path / "out")
    report = json.loads((out / "data/report.js").read_text()[len('rdpbench.put("report",') : -3])
    place = [one["dataset"] for one in report["sets"]].index("folder-pictures")
    curve = next(n for n, one in enumerate(report["curves"]) if one["codec"] == "webp" and one["set"] == place)
    data = json.loads((out / f"data/rows-{curve}.js").read_text()[len(f'rdpbench.put("rows-{curve}",') : -3])
    why = list(data["why"].values())
    assert len(why) == 2, why
    assert sum(f"…/{reconstruction_path(store, rows[0]).name} is not what was decoded" in one for one in why) == 1
    assert sum("is missing" in one for one in why) == 1
    assert data["picture"].count("") == 2


def test_without_a_decoder_only_kept_images_are_shown(run: Path, make_report: Report, tmp_path: Path) -> None:
    store = Store(run)
    row = next(row for row in store.read().rows.values() if row.codec == "webp")
    put_reconstruction(store, row, decode_row(store, row))
    out = make_report(run, "--images", "all", "--out", tmp_path / "out", how=Decoding())
    name = row.reconstruction_sha256[:20]
    assert (out / "images" / name[:2] / f"{name}.webp").is_file()
    assert "keep=all keeps them" in "".join(path.read_text() for path in (out / "data").glob("rows-*.js"))


def test_two_runs_in_one_report(made: Path, run: Path, make_report: Report, tmp_path: Path) -> None:
    other = run.rename(run.with_name("again"))
    out = make_report(made, other, "--images", "none", "--out", tmp_path / "out")
    report = json.loads((out / "data/report.js").read_text()[len('rdpbench.put("report",') : -3])
    # One set of images is one panel; a codec of both runs is a curve of each, and no point is put together of two.
    assert sorted(one["dataset"] for one in report["sets"]) == ["folder-more", "folder-pictures"]
    assert Counter(one["run"] for one in report["curves"]) == {"both": 7, "again": 7}
    assert {one["codec"] for one in report["curves"] if one["base"] == "webp"} == {"webp[run=both]", "webp[run=again]"}
    looks = {tuple(one["look"]) for one in report["curves"] if one["base"] == "webp"}
    assert len(looks) == 2
    assert len({look[0] for look in looks}) == 1  # the colour is the codec's
    assert len({point["id"] for point in report["points"]}) == len(report["points"]) == 2 * 28
    alone = make_report(made, "--images", "none", "--out", tmp_path / "alone")
    single = json.loads((alone / "data/report.js").read_text()[len('rdpbench.put("report",') : -3])
    values = {point["id"]: point["values"] for point in single["points"]}
    again = {point["id"]: point["values"] for point in report["points"]}
    assert values.keys() <= again.keys()
    assert all(again[point] == own for point, own in values.items())  # also links to points stay good
    frame = pd.read_parquet(out / "data/results.parquet")
    assert frame["run"].value_counts().to_dict() == {"both": 56, "again": 56}
    assert set(frame["grade"]) == {"decoded"}
    assert frame["machine"].str.len().min() > 0
    pd.testing.assert_frame_equal(pd.read_csv(out / "data/results.csv")[["bpp", "value"]], frame[["bpp", "value"]])
    with pytest.raises(ConfigError, match="named twice"):
        make_report(made, made)


def test_runs_that_scored_other_images_or_by_another_edition(
    made: Path, run: Path, make_report: Report, tmp_path: Path
) -> None:
    """What two runs have in common is compared, and nothing else."""
    other = run.rename(run.with_name("again"))
    (other / "parts/zz-hostile.jsonl").unlink()
    changed, dropped = {"psnr": "0-anotheredition"}, "third"
    for name in ("rows", "scores"):
        path = other / f"{name}.parquet"
        frame = pd.read_parquet(path)
        if name == "rows":
            lost = set(frame.loc[(frame["image"] == dropped) & (frame["codec"] == "webp"), "task_key"])
            assert lost
        frame = frame[~frame["task_key"].isin(lost)]
        if name == "scores":
            frame["definition"] = frame["metric"].map(changed).fillna(frame["definition"])
        parquet.write_table(pa.Table.from_pandas(frame, parquet.read_schema(path), preserve_index=False), path)
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in other.glob("*.parquet")]
    (other / "parquet.sha256").write_text("".join(sums))
    out = make_report(made, other, "--images", "none", "--out", tmp_path / "out")
    report = json.loads((out / "data/report.js").read_text()[len('rdpbench.put("report",') : -3])
    for point in report["points"]:
        curve = report["curves"][point["curve"]]
        if report["sets"][curve["set"]]["dataset"] == "folder-pictures":
            # Three images are scored by all, and one of these is not in all of them.
            assert point["values"]["ms-ssim"][3] == 2, curve
        assert (point["values"]["psnr"][0] is None) == (curve["run"] == "again")
    assert any("0-anotheredition" in note and "psnr of run again" in note for note in report["notes"])


def test_no_path_of_this_machine_is_published(made: Path, site: Path, data: Data) -> None:
    """In the records of calls there are some: of the folders of images that were read; in rows there are none."""
    assert any(data["folder"].startswith("/") for call in Store(made).provenance().values() for data in call["data"])
    assert not any("/" in row.path + row.root for row in Store(made).read().rows.values())
    home = [str(made.parents[2]), str(Path.home()), str(Path(pytest.__file__).parents[1])]
    for path in site.rglob("*"):
        if path.suffix in (".js", ".csv", ".cff", ".md", ".parquet") and path.name != "plotly.min.js":
            content = path.read_bytes()
            if path.suffix == ".parquet":
                content = pd.read_parquet(path).to_csv().encode()
            assert not [place for place in home if place.encode() in content], path
    assert not pd.read_parquet(site / "data/images.parquet")["path"].str.contains("^/").any()
    assert data("report")["files"] == [
        *("data/results.csv", "data/results.parquet", "data/images.csv", "data/images.parquet"),
        *("data/columns.md", "CITATION.cff"),
    ]


def test_the_citation_says_what_was_run(made: Path, make_report: Report, tmp_path: Path) -> None:
    out = make_report(made, "--images", "none", "--out", tmp_path / "out", "--author", "Ada: Lovelace #1")
    stated = yaml.safe_load((out / "CITATION.cff").read_text())
    assert stated["authors"] == [{"name": "Ada: Lovelace #1"}]
    [record] = Store(made).provenance().values()
    assert record["command"] in stated["abstract"].replace("\n", " ")
    assert str(stated["date-released"]) == record["time"][:10]
    assert stated["references"][0]["version"].startswith(record["rdpbench"])
    assert all(reference["authors"] and reference["title"] for reference in stated["references"])
    assert any("libwebp" in reference.get("notes", "") for reference in stated["references"])


def test_cards_say_how_far_a_rate_is_proven(data: Data) -> None:
    report = data("report")
    assert report["codecs"].keys() == {curve["codec"] for curve in report["curves"]}
    facts = dict(report["codecs"]["webp"])
    assert facts["rate"].startswith("decoded: each rate counts the bytes")
    assert "libwebp" in facts["versions"]
    assert facts["machine"].endswith("(cpu)")
    assert dict(report["sets"][0]["facts"])["protocol"] == "as-is"
    assert dict(report["metrics"][0]["facts"])["in both"].startswith("edition ")


def test_another_folder_is_not_written_to(made: Path, make_report: Report, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("my own page")
    with pytest.raises(ConfigError, match="holds files that are no report"):
        make_report(made, "--out", tmp_path)
    assert (tmp_path / "index.html").read_text() == "my own page"
    with pytest.raises(ConfigError, match="is a file"):
        make_report(made, "--out", tmp_path / "index.html")
    with pytest.raises(ConfigError, match="--limit -1"):
        make_report(made, "--limit", "-1", "--out", tmp_path / "new")


def test_without_the_library_one_sentence_stands_for_the_curves(
    made: Path, make_report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    out = make_report(made, "--out", tmp_path / "out")
    assert "pip install 'rdpbench[report]'" in (out / "static/plotly.min.js").read_text()
    assert (out / "index.html").is_file()


def test_what_failed_and_broken_provenance_are_told(run: Path, make_report: Report, tmp_path: Path) -> None:
    for path in (run / "sessions").iterdir():
        path.write_text("{")
    out = make_report(run, "--images", "none", "--out", tmp_path / "out")
    report = json.loads((out / "data/report.js").read_text()[len('rdpbench.put("report",') : -3])
    [told] = report["runs"]
    assert [line for line in told["failures"] if line[2:4] == ["lost", "error"]]
    assert [line for line in told["failures"] if line[2:4] == ["small", "ms-ssim"]]
    assert "cannot be read" in json.dumps(told["sessions"])
    assert {point["command"] for point in report["points"]} == {""}


def test_records_that_somebody_made_up_are_told_as_text(run: Path, make_report: Report, tmp_path: Path) -> None:
    made_up = {"metrics": ["psnr"], "time": 5, "command": {"<b>": "/home/ada/x"}, "commit": [1], "rdpbench": None}
    for path in (run / "sessions").iterdir():
        path.write_text(json.dumps(made_up))
        sums = f"{hashlib.sha256(path.read_bytes()).hexdigest()}  sessions/{path.name}\n"
        (run / "parquet.sha256").write_text((run / "parquet.sha256").read_text() + sums)
    out = make_report(run, "--images", "none", "--out", tmp_path / "out")
    assert "/home/ada" not in (out / "CITATION.cff").read_text() + (out / "data/report.js").read_text()
    assert yaml.safe_load((out / "CITATION.cff").read_text())["type"] == "dataset"


def test_through_the_command(
    made: Path, rdpbench: Any, here: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(made, tmp_path / "results/runs/both")
    assert here("report", "both") == 0
    page = Path(capsys.readouterr().out.split()[-1])
    assert page.parts[-5:] == ("results", "runs", "both", "report", "index.html")
    assert page.is_file()
    assert here("report", "both", "out=site", "images=none", "author=Ada") == 0
    assert capsys.readouterr().out.split()[-1] == "site/index.html"
    assert "Ada" in (tmp_path / "site/CITATION.cff").read_text()
    assert "unknown run 'nothing'" in rdpbench("report", "nothing", code=2).stderr

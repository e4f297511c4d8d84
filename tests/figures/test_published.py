"""Published numbers: what is stored, what is marked, that nothing was lost on the way, and what the frame says."""

from __future__ import annotations

import csv
import importlib.util
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdpbench import registry
from rdpbench.datasets.protocols import PROTOCOLS
from rdpbench.errors import StoreCorrupt, StoreError, UnknownName
from rdpbench.gate.curves import rounded
from rdpbench.paths import available
from rdpbench.results.csv_files import text
from rdpbench.results.published import (
    BITS,
    CURVE,
    PublishedNumber,
    PublishedSource,
    folder,
    numbers,
    published,
    read,
    read_sources,
    sources,
)
from rdpbench.results.read import kinds
from rdpbench.results.stats.summary import at_rate

ROOT = Path(__file__).parents[2]
_spec = importlib.util.spec_from_file_location("published_files", ROOT / "benchmarks" / "published_files.py")
assert _spec is not None
assert _spec.loader is not None
files = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(files)
BY_HAND = {
    "clic2022-test/lossy-vae",
    "coco-30k-perco/perco-sd",
    "div2k-valid/neuralcompression",
    "kodak/lossy-vae",
    "tecnick/lossy-vae",
}
"""Files that the shared table has nothing of."""
ONE = PublishedNumber("kodak", "x", "vtm", "", "qp", 32.0, "as-is", 0.49, "file", "psnr", 34.26, "Table 1", False, "")
ABOUT = {"x": PublishedSource("x", "someone/somewhere@0123456", "A title", "files")}


@pytest.fixture(scope="module")
def everything() -> list[PublishedNumber]:
    return numbers()


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return published()


# What is stored


def test_nothing_shipped_is_wrong(everything: list[PublishedNumber]) -> None:
    """Each has a source and a place, a rate or none on purpose, a plausible value, and stands there once."""
    assert files.check(everything, read_sources(folder() / "sources.csv")) == []
    assert len(everything) > 11_000
    assert {one.source for one in everything} == set(sources()["id"])


def test_files_are_what_writing_them_again_gives(tmp_path: Path) -> None:
    for path in folder().glob("*/*.csv"):
        again = tmp_path / path.parent.name / path.name
        files.write(again, reversed(read(path)))
        assert again.read_bytes() == path.read_bytes()
    files.write_sources(tmp_path / "sources.csv", read_sources(folder() / "sources.csv").values())
    assert (tmp_path / "sources.csv").read_bytes() == (folder() / "sources.csv").read_bytes()


words = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12)
digits = st.floats(1e-6, 1e6).map(rounded)


@given(
    st.lists(
        st.builds(
            PublishedNumber,
            dataset=st.just("set"),
            source=st.just("x"),
            codec=words,
            variant=words,
            rate_field=words,
            rate=st.none() | digits,
            protocol=words,
            bpp=st.none() | digits,
            bits_kind=st.sampled_from(sorted(BITS)),
            metric=words,
            value=digits,
            place=words,
            digitised=st.booleans(),
            doubtful=words,
        ),
        max_size=5,
    )
)
def test_what_is_written_reads_back(tmp_path_factory: pytest.TempPathFactory, some: list[PublishedNumber]) -> None:
    path = tmp_path_factory.mktemp("round") / "set" / "x.csv"
    files.write(path, some)
    assert read(path) == sorted(some, key=files.in_order)


@pytest.mark.parametrize(
    ("edit", "error", "says"),
    [
        (("v1\n", "v9\n"), StoreError, "version 9"),
        (("# rdpbench-published", "# something"), StoreCorrupt, "found '# something v1'"),
        (("bits_kind", "bits"), StoreCorrupt, "other columns"),
        (("34.26", "thirty"), StoreCorrupt, r"x\.csv:3: not a line of such a file"),
        ((",,\n", ",perhaps,\n"), StoreCorrupt, "digitised is 'perhaps'"),
        ((",Table 1", ""), StoreCorrupt, r"x\.csv:3: 11 cells, not 12"),
        (("Table 1", '"Table 1'), StoreCorrupt, "cannot be read"),
    ],
)
def test_edited_files_are_refused(tmp_path: Path, edit: tuple[str, str], error: type, says: str) -> None:
    path = tmp_path / "kodak" / "x.csv"
    files.write(path, [ONE])
    before = path.read_text()
    assert edit[0] in before
    path.write_text(before.replace(*edit))
    with pytest.raises(error, match=says) as caught:
        read(path)
    assert type(caught.value) is error


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"value": 280.0}, "outside 8 to 60"),
        ({"metric": "lpips/alex", "value": 1.3}, "outside 0 to 1.2"),
        ({"metric": "ms-ssim@float", "value": 1.01}, "outside 0 to 1"),
        ({"metric": "fid@x", "value": -0.1}, "outside 0 to 500"),
        ({"value": float("nan")}, "outside 8 to 60"),
        ({"metric": "beauty"}, "unknown kind of metric"),
        ({"bpp": 0.0}, "not between 0 and 24"),
        ({"bpp": None}, "a rate is missing"),
        ({"bits_kind": "none"}, "stands where there is none"),
        ({"bits_kind": "guessed"}, "is none of file"),
        ({"source": "y"}, "not in sources.csv"),
        ({"place": ""}, "place, codec or protocol is empty"),
    ],
)
def test_what_cannot_be_right_is_named(changes: dict[str, object], says: str) -> None:
    assert files.check([ONE], ABOUT) == []
    problems = files.check([replace(ONE, **changes)], ABOUT)  # type: ignore[arg-type]
    assert len(problems) == 1
    assert says in problems[0]


def test_a_number_that_stands_there_twice_is_named() -> None:
    assert "twice, also as 34.26" in files.check([ONE, replace(ONE, value=34.5)], ABOUT)[0]
    assert files.check([ONE, replace(ONE, place="Table 2")], ABOUT) == []


# What the names mean


def test_a_name_of_ours_is_ours(everything: list[PublishedNumber]) -> None:
    """Without an ``@`` a dataset, protocol or metric is one that this project has, but for three that it lacks."""
    metrics = {one.metric for one in everything if "@" not in one.metric}
    assert metrics <= set(registry.names("metric"))
    assert {one.dataset for one in everything if "@" not in one.dataset} - {"tecnick"} <= set(available("data"))
    assert {one.protocol for one in everything} - {"unstated", "512@gencodec"} <= set(PROTOCOLS)


def test_too_few_images_for_a_distance_between_sets(frame: pd.DataFrame) -> None:
    fid = frame[frame["family"].isin(["fid", "kid"])].groupby("dataset")["reliable"].agg(["min", "max"])
    assert not fid.loc["kodak", "max"]
    assert not fid.loc["clic2021-test", "max"]
    assert fid.loc["clic2020-test", "max"]
    assert frame[frame["family"] == "psnr"]["reliable"].all()


# What is known to be wrong


@pytest.mark.parametrize(
    ("where", "count", "says"),
    [
        (
            {"source_id": "stf", "family": "ms-ssim-db", "variant": "ms-ssim", "codec": "stf", "dataset": "clic"},
            6,
            "psnr",
        ),
        ({"source_id": "taco", "dataset": "coco-100@taco"}, 20, "0.0148 bpp is printed"),
        ({"source_id": "taco", "metric": "lpips@taco"}, 6, r"\[-1, 1\]"),
        ({"source_id": "elic", "dataset": "clic2021-test"}, 20, "CLIC 2021 test"),
        ({"source_id": "compressai", "dataset": "clic2020-professional@compressai"}, 1076, "250 test images"),
        ({"source_id": "compressai", "codec": "vtm", "metric": "psnr", "dataset": "kodak"}, 8, "43.66"),
        ({"dataset": "clic2020@diffeic"}, 344, "768 x 768"),
        ({"dataset": "tecnick@diffeic"}, 344, "768 x 768"),
        ({"source_id": "text-sketch-notebook", "dataset": "kodak", "family": "kid"}, 1, "a copy"),
        ({"source_id": "perco", "metric": "ms-ssim@perco"}, 5, "says SSIM"),
    ],
)
def test_errors_in_sources_are_marked(frame: pd.DataFrame, where: dict[str, str], count: int, says: str) -> None:
    chosen = frame
    for column, value in where.items():
        chosen = chosen[chosen[column].str.startswith(value)]
    assert len(chosen) == count
    assert chosen["doubtful"].str.contains(says).all()


def test_numbers_read_off_plots_are_marked(frame: pd.DataFrame) -> None:
    assert Counter(frame[frame["digitised"]]["source_id"]) == {"c3": 42, "perco-sd": 7}


def test_clean_sources_are_not_doubted(frame: pd.DataFrame) -> None:
    for source in ("hific", "neuralcompression", "crdr", "lossy-vae", "tensorflow"):
        assert (frame[frame["source_id"] == source]["doubtful"] == "").all()


def test_ms_ssim_is_ours_only_where_sides_are_padded_as_ours(frame: pd.DataFrame) -> None:
    """TensorFlow's padding, or sizes without any: Kodak, Tecnick at 1200 x 1200, crops of 768."""
    ours = frame[frame["metric"] == "ms-ssim"]
    no_padding = {"kodak", "tecnick", "tecnick@diffeic", "clic2020@diffeic"}
    padded = ours[~ours["dataset"].isin(no_padding)]
    assert set(padded["source_id"]) == {"hific", "neuralcompression", "shallow-ntc"}
    theirs = frame[frame["metric"] == "ms-ssim@pytorch-msssim"]
    assert dict(theirs.groupby("dataset").size()) == {
        "clic2020-mobile@compressai": 137,
        "clic2020-professional@compressai": 93,
    }


# Numbers that are known from elsewhere


@pytest.mark.parametrize(("quality", "psnr", "lpips", "msssim"), [
    (1, 24.73, 0.1576, 0.8461), (2, 25.92, 0.1100, 0.8902), (3, 27.53, 0.0732, 0.9282),
])  # fmt: skip
def test_ms_illm_on_kodak(frame: pd.DataFrame, quality: int, psnr: float, lpips: float, msssim: float) -> None:
    """The authors' table, and an independent run of the same weights by DiffEIC."""
    kodak = frame[(frame["dataset"] == "kodak") & (frame["codec"] == "ms-illm") & (frame["rate"] == quality)]
    for source in ("neuralcompression", "diffeic"):
        of = kodak[kodak["source_id"] == source].set_index("metric")["value"]
        assert of["psnr"] == pytest.approx(psnr, abs=0.006)
        assert of["lpips/alex"] == pytest.approx(lpips, abs=0.00011)
        assert of["ms-ssim"] == pytest.approx(msssim, abs=0.00011)


def _at(frame: pd.DataFrame, codec: str, source: str, variant: str, bpp: float) -> float:
    one = frame[(frame["dataset"] == "kodak") & (frame["codec"] == codec) & (frame["family"] == "psnr")]
    one = one[(one["source_id"] == source) & (one["variant"] == variant) & (one["metric"] != "psnr@y")].sort_values(
        "bpp"
    )
    assert one["bpp"].iloc[0] <= bpp <= one["bpp"].iloc[-1]
    return float(np.interp(bpp, one["bpp"], one["value"]))


@pytest.mark.parametrize(
    ("bpp", "codec", "curves"),
    [
        (0.10, "vtm", {("compressai", ""): 28.04, ("lossy-vae", "18.0"): 28.16, ("diffeic", ""): 28.08}),
        (0.05, "vtm", {("compressai", ""): 26.21, ("lossy-vae", "18.0"): 26.25, ("diffeic", ""): 26.18}),
        (0.10, "bpg", {("compressai", "4:4:4 x265"): 27.06, ("tensorflow", "bpg444"): 27.29, ("diffeic", ""): 27.22}),
    ],
)
def test_sources_agree_on_classical_codecs(
    frame: pd.DataFrame, bpp: float, codec: str, curves: dict[tuple[str, str], float]
) -> None:
    """PSNR on Kodak between points, linear in the rate; of BPG, CompressAI has eight points only."""
    found = {(source, variant): _at(frame, codec, source, variant, bpp) for source, variant in curves}
    assert found == pytest.approx(curves, abs=0.006)
    assert max(found.values()) - min(found.values()) <= (0.15 if codec == "vtm" else 0.24)


# The frame


def test_the_frame_has_the_columns_of_measured_points(frame: pd.DataFrame) -> None:
    assert list(frame.columns) == list(kinds("point"))[1:]
    assert frame["source"].str.contains(r"@[0-9a-f]{7,}:.|arXiv \d{4}\.\d{5}, .").all()
    assert set(frame["bits_kind"]) == set(BITS)
    assert frame[frame["bpp"].isna()]["bits_kind"].eq("none").all()
    for column in ("value_lo", "value_hi", "value_seed_sd", "bpp_lo", "bpp_hi", "bpp_seed_sd", "target_bpp"):
        assert frame[column].isna().all()


def test_what_works_on_measured_points_works_on_these() -> None:
    official = published("clic2020-test", "hific", "lpips/alex")
    assert list(official["n"]) == [428] * 3
    # HiFiC's table: 0.05394955 at 0.12902283 bpp and 0.03485062 at 0.24981422, linear in log rate
    assert at_rate(official, 0.2)["value"].item() == pytest.approx(0.04128, abs=1e-5)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"dataset": "kodac"}, "unknown dataset 'kodac': did you mean 'kodak'"),
        ({"codec": "vtn"}, "unknown codec 'vtn': did you mean 'vtm'"),
        ({"dataset": "kodak", "metric": "lpips"}, "unknown metric 'lpips': did you mean 'lpips/alex'"),
    ],
)
def test_unknown_names(asked: dict[str, str], says: str) -> None:
    with pytest.raises(UnknownName, match=says):
        published(**asked)


def not_monotone(frame: pd.DataFrame) -> pd.DataFrame:
    """Curves on which a higher rate gives a worse number somewhere, with the largest such step; times are left out."""
    lines = []
    for key, points in frame[frame["bpp"].notna() & ~frame["unit"].isin(["s", "ms"])].groupby(CURVE, sort=True):
        along = points.sort_values("bpp")
        gain = along["value"].diff() * (1 if along["higher_is_better"].iloc[0] else -1)
        worst = -float(gain.min()) if len(along) > 1 else 0.0
        if worst > 0:
            lines.append((*key, len(along), worst, float(along["bpp"].iloc[int(gain.to_numpy()[1:].argmin()) + 1])))
    return pd.DataFrame(lines, columns=[*CURVE, "points", "step", "bpp"])


def test_where_a_higher_rate_is_worse(frame: pd.DataFrame) -> None:
    """Reported: few enough to look at, and the largest steps of PSNR are DiffEIC's, which trades."""
    odd = not_monotone(frame)
    assert len(odd) < 0.02 * frame.groupby(CURVE).ngroups
    psnr = odd[odd["metric"] == "psnr"].sort_values("step")
    assert psnr["codec"].iloc[-1] == "diffeic"
    assert psnr["step"].iloc[-1] == pytest.approx(0.93)
    cut = frame[(frame["source_id"] == "hific") & (frame["metric"] == "psnr")]
    assert not_monotone(cut).empty


def test_sources_are_counted(everything: list[PublishedNumber]) -> None:
    table = sources().set_index("id")
    assert table["numbers"].sum() == len(everything)
    assert (table["counted"] != "").all()


# Against the table that it was made from


def _dropped() -> list[dict[str, str]]:
    with (folder() / "dropped.csv").open(encoding="utf-8", newline="") as stream:
        assert next(stream) == "# rdpbench-published-dropped v1\n"
        return list(csv.DictReader(stream))


def test_what_was_dropped_has_a_reason() -> None:
    reasons = Counter(row["reason"].partition(":")[0] for row in _dropped())
    assert set(reasons) == {
        "a copy",
        "the file named ms-ssim has the rates, PSNR and MS-SSIM of the file named mse",
        "the number of scripts/FID.sh and KID.sh a second time, without its rate",
    }


def test_nothing_is_lost(shared: Path, everything: list[PublishedNumber]) -> None:
    """Every row of the shared table is stored once or dropped once, with its rate and its value."""
    with (shared / "curves" / "published_curves.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    stored = [one for one in everything if f"{one.dataset}/{one.source}" not in BY_HAND]
    dropped = _dropped()
    assert len(stored) + len(dropped) == len(rows)

    def key(bpp: float | None, value: float) -> tuple[str, str]:
        return text(bpp), text(value)

    def of(row: dict[str, str]) -> tuple[str, str]:
        scale = 0.01 if row["metric"] == "miou" else 1.0
        return key(float(row["bpp"]) if row["bpp"] else None, float(row["value"]) * scale)

    assert Counter(map(of, rows)) == Counter(key(one.bpp, one.value) for one in stored) + Counter(map(of, dropped))


def test_the_script_gives_the_files(shared: Path) -> None:
    table = shared / "curves" / "published_curves.csv"
    script = ROOT / "benchmarks" / "build_published.py"
    command = [sys.executable, str(script), str(table), str(folder()), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env={"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stdout + done.stderr
    made = {f"{path.parent.name}/{path.stem}" for path in folder().glob("*/*.csv")} - BY_HAND
    assert f"{len(made) + 2} files are what the table gives" in done.stdout

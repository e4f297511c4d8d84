"""A study from end to end: what raters get gives nothing away, and what they would say comes back as scores."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rdpbench.errors import ConfigError, MissingNeed, StoreCorrupt, UnknownName, VotesRefused
from rdpbench.image import pixel_sha256, read_image
from rdpbench.results.store.store import Store
from rdpbench.study.pack import choose
from rdpbench.study.scores import score
from rdpbench.study.votes import Key, read_key, read_votes

Study = Callable[..., str]
QUIET = ("workers=0", "verify=0", "figures=false", "metrics=")
TITLE = 'Which "is" closer? </script><script>alert(1)</script> & <b>@DATA@</b>'
TRUE = {"jpeg": -0.8, "webp": 0.0, "jpeg2000": 0.8}


@pytest.fixture(scope="module")
def pack(run: Path, anywhere: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported study with its key beside it; only read."""
    out = tmp_path_factory.mktemp("pack") / "pack"
    words = ["small", "--root", str(run), "--bpp", "0.6", "--tolerance", "0.3", "--sheets", "20", "--catch", "4"]
    anywhere("export", *words, "--ties", "--seed", "3", "--title", TITLE, "--out", str(out))
    return out


def data_of(page: Path) -> dict[str, Any]:
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found
    made: dict[str, Any] = json.loads(found[1])
    return made


def answers(key: Key, sheet: int, rater: str, choose: Callable[[str], str]) -> dict[str, Any]:
    """A file as the page saves it."""
    names = [name for name, one in key.trials.items() if one.sheet == sheet]
    votes = [{"trial": name, "choice": choose(name), "ms": 1500} for name in names]
    return {
        "kind": "rdpbench-study-votes",
        "version": 1,
        "study": key.study,
        "sheet": sheet,
        "rater": rater,
        "votes": votes,
    }


def simulated(key: Key, seed: int, folder: Path, sheets: int = 20) -> list[Path]:
    """Raters with known preferences, every third of them with CSV; the last one presses keys at random."""
    folder.mkdir()
    paths = []
    for sheet in range(1, sheets + 1):
        rng = np.random.default_rng([seed, sheet])
        own = {name: value + rng.normal(0, 0.3) for name, value in TRUE.items()}

        def choose(name: str, rng: Any = rng, own: Any = own, blind: bool = sheet == sheets) -> str:
            trial = key.trials[name]
            if blind:
                return str(rng.choice(["left", "right"]))
            if trial.catch:
                return trial.catch
            left, right = (own[key.shown[side].codec] for side in (trial.left, trial.right))
            weights = np.exp([left, right, (left + right) / 2 - 1])
            return str(rng.choice(["left", "right", "tie"], p=weights / weights.sum()))

        record = answers(key, sheet, f"rater {sheet}", choose)
        path = folder / (f"{sheet}.csv" if sheet % 3 == 0 else f"{sheet}.json")
        if path.suffix == ".csv":
            with path.open("w", newline="") as file:
                writer = csv.writer(file, quoting=csv.QUOTE_ALL)
                writer.writerow(["study", "sheet", "rater", "trial", "choice", "ms"])
                head = [record["study"], record["sheet"], record["rater"]]
                writer.writerows([*head, one["trial"], one["choice"], one["ms"]] for one in record["votes"])
        else:
            path.write_text(json.dumps(record))
        paths.append(path)
    return paths


# What raters get


def test_the_pack_gives_nothing_away(pack: Path) -> None:
    page = (pack / "index.html").read_text()
    key = read_key(pack.with_name("pack-key.json"))
    data = data_of(pack / "index.html")
    for word in ("webp", "jpeg", "0.6", "small", "catch", "copy", "spoiled"):
        assert word not in json.dumps(data)
    assert set(data) == {"study", "ties", "sheets"}
    assert {tuple(one) for sheet in data["sheets"] for one in sheet} == {("id", "original", "left", "right")}
    assert sorted(path.name for path in pack.iterdir()) == ["images", "index.html"]
    assert "http" not in page.replace("http-equiv", "")
    # No trial can be told by its files: originals are never one of the two, and no name is used on both roles.
    originals = {one["original"] for sheet in data["sheets"] for one in sheet}
    sides = {one[side] for sheet in data["sheets"] for one in sheet for side in ("left", "right")}
    assert not originals & sides
    assert {path.name for path in (pack / "images").iterdir()} == originals | sides
    assert key.sheets == len(data["sheets"]) == 20


def test_each_name_in_the_key_is_that_image(pack: Path, run: Path) -> None:
    key = read_key(pack.with_name("pack-key.json"))
    rows = list(Store(run / "small").read().rows.values())
    for name, shown in key.shown.items():
        (row,) = [one for one in rows if (one.codec, one.image) == (shown.codec, shown.image)]
        assert pixel_sha256(read_image(pack / "images" / name).pixels) == row.reconstruction_sha256
        assert shown.bpp == row.bpp
        assert set(shown.scores) == {"psnr"}
    data = {one["id"]: one for sheet in data_of(pack / "index.html")["sheets"] for one in sheet}
    for name, trial in key.trials.items():
        assert (data[name]["left"], data[name]["right"]) == (trial.left, trial.right)
        original = pixel_sha256(read_image(pack / "images" / data[name]["original"]).pixels)
        assert original in {row.pixel_sha256 for row in rows if row.image == trial.image}
        if trial.catch:
            good = getattr(trial, trial.catch)
            assert pixel_sha256(read_image(pack / "images" / good).pixels) == original
            (bad,) = {trial.left, trial.right} - {good}
            assert pixel_sha256(read_image(pack / "images" / bad).pixels) != original
        else:
            assert {key.shown[side].image for side in (trial.left, trial.right)} == {trial.image}
    assert Counter(bool(trial.catch) for trial in key.trials.values()) == {False: 20 * 12, True: 20 * 4}


def test_text_of_the_page_is_escaped(pack: Path) -> None:
    page = (pack / "index.html").read_text()
    assert "<script>alert" not in page
    assert "&lt;/script&gt;&lt;script&gt;alert(1)" in page
    assert "&lt;b&gt;@DATA@" in page  # nothing is put in twice
    assert page.count("</script>") == 2
    assert "script-src 'sha256-" in page
    assert "unsafe-inline'; script-src" in page  # styles only


def test_the_same_seed_gives_the_same_study(run: Path, study: Study, tmp_path: Path) -> None:
    for name in ("one", "two"):
        study("export", "small", f"--root={run}", "--tolerance=0.5", "--seed=9", "--sheets=2", f"--out={name}")
    one, two = (read_key(tmp_path / f"{name}-key.json") for name in ("one", "two"))
    assert one == two
    assert (tmp_path / "one/index.html").read_bytes() == (tmp_path / "two/index.html").read_bytes()


def test_what_cannot_be_exported(run: Path, study: Study, tmp_path: Path, pack: Path) -> None:
    usual = ["small", "--root", str(run), "--out", "new"]
    with pytest.raises(ConfigError, match=r"nothing within 10 % of 3 bpp.*bpp=3 keep=all"):
        study("export", *usual, "--bpp", "3")
    with pytest.raises(UnknownName, match="did you mean 'webp'"):
        study("export", *usual, "--codec", "webb,jpeg")
    with pytest.raises(ConfigError, match="two codecs"):
        study("export", *usual, "--codec", "webp")
    with pytest.raises(UnknownName, match="image"):
        study("export", *usual, "--image", "z", "--tolerance", "0.5")
    with pytest.raises(UnknownName, match="did you mean 'small'"):
        study("export", "smal", "--root", str(run), "--out", "new")
    with pytest.raises(ConfigError, match="must not lie in"):
        study("export", *usual, "--tolerance", "0.5", "--key", "new/key.json")
    with pytest.raises(ConfigError, match="new or empty"):
        study("export", "small", "--root", str(run), "--tolerance", "0.5", "--out", str(pack))
    with pytest.raises(ConfigError, match="votes of an older study"):
        study("export", *usual, "--tolerance", "0.5", "--key", str(pack.with_name("pack-key.json")))
    with pytest.raises(ConfigError, match="rates above 0"):
        study("export", *usual, "--bpp", "x")
    assert not (tmp_path / "new").exists()


def test_a_damaged_reconstruction_is_not_shown(run: Path, study: Study) -> None:
    path = next((run / "small/reconstructions/webp").rglob("a-*.png"))
    good = path.read_bytes()
    path.write_bytes(next((run / "small/reconstructions/webp").rglob("b-*.png")).read_bytes())
    try:
        with pytest.raises(StoreCorrupt, match="not what was decoded"):
            study("export", "small", "--root", str(run), "--tolerance", "0.5", "--out", "new")
    finally:
        path.write_bytes(good)


def test_rates_are_means_over_the_images_that_are_shown(run: Path, study: Study, tmp_path: Path) -> None:
    """One codec did not keep the image whose rate is far from the others'."""
    store = Store(run / "small")
    contents = store.read()
    far = {row.task_key: 6.0 for row in contents.rows.values() if row.image.startswith("d")}
    contents.rows = {key: replace(row, bpp=far.get(key, 0.6)) for key, row in contents.rows.items()}
    kept = next(path for path in (run / "small/reconstructions/webp").rglob("d-*.png"))
    aside = kept.rename(tmp_path / "aside.png")
    try:
        chosen = choose([(store, contents)], targets=[0.6])
    finally:
        aside.rename(kept)
    assert len(chosen.images) == 3
    assert all("0.6000 bpp" in note for note in chosen.notes)


def test_a_run_without_images_says_what_to_type(images: Any, here: Callable[..., int], study: Study) -> None:
    assert here("run", "codec=jpeg,webp", f"data=folder:{images(2)}", "rate=50", "run=bare", *QUIET) == 0
    with pytest.raises(MissingNeed, match="keep=all"):
        study("export", "bare", "--out", "new")


# What comes back


def test_known_preferences_come_back_through_the_command(pack: Path, study: Study, tmp_path: Path) -> None:
    key_path = pack.with_name("pack-key.json")
    paths = simulated(read_key(key_path), 1, tmp_path / "votes")
    text = study("import", *map(str, paths), "--key", str(key_path), "--out", "result")
    assert "missed the catch trials: rater 20" in text
    lines = list(csv.DictReader(io.StringIO((tmp_path / "result/scores.csv").read_text())))
    assert [line["codec"] for line in sorted(lines, key=lambda one: -float(one["score"]))] == [
        "jpeg2000",
        "webp",
        "jpeg",
    ]
    for line in lines:
        assert float(line["score_lo"]) < TRUE[line["codec"]] < float(line["score_hi"])
        assert 20 < float(line["psnr"]) < 60
    raters = list(csv.DictReader(io.StringIO((tmp_path / "result/raters.csv").read_text())))
    assert [one["rater"] for one in raters if one["counts"] == "no"] == ["rater 20"]
    page = (tmp_path / "result/study.md").read_text()
    assert "(19 who count, " in page
    study("import", *map(str, paths), "--key", str(key_path), "--out", "all", "--keep-failed")
    assert "(20 who count, " in (tmp_path / "all/study.md").read_text()
    raters = list(csv.DictReader(io.StringIO((tmp_path / "all/raters.csv").read_text())))
    assert {one["counts"] for one in raters} == {"yes"}
    assert "alert(1)" in page
    assert "<script>" not in page
    assert "Davidson" in page


def test_populations_are_recovered_over_seeds(pack: Path, tmp_path: Path) -> None:
    """Through files and key: of 25 simulated studies the intervals of the scores hold the truth in more than 90 %."""
    key = read_key(pack.with_name("pack-key.json"))
    held = []
    for seed in range(25):
        found = score(key, read_votes(simulated(key, seed, tmp_path / f"votes{seed}"), key))
        (group,) = found.groups
        assert group.fit
        limits = zip(key.codecs, group.fit.low, group.fit.high, strict=True)
        held += [low < TRUE[name] * 0.96 < high for name, low, high in limits]  # tastes of 0.3 draw it to about 0.96
        assert sum(one.passed for one in found.raters) >= 19
    assert np.mean(held) > 0.9


def test_sides_and_ties_are_counted_right(pack: Path, tmp_path: Path) -> None:
    """One rater always prefers webp, and cannot tell the others apart: counts follow from the key by hand."""
    key = read_key(pack.with_name("pack-key.json"))

    def choose(name: str) -> str:
        trial = key.trials[name]
        if trial.catch:
            return trial.catch
        sides = {side: key.shown[getattr(trial, side)].codec for side in ("left", "right")}
        return next((side for side, codec in sides.items() if codec == "webp"), "tie")

    path = tmp_path / "one.json"
    path.write_text(json.dumps(answers(key, 1, "ann", choose)))
    found = score(key, read_votes([path, path], key))  # the same file twice counts once
    (group,) = found.groups
    by_name = {name: (group.wins[k], group.ties[k], group.losses[k]) for k, name in enumerate(group.codecs)}
    assert by_name == {"webp": (8, 0, 0), "jpeg": (0, 4, 4), "jpeg2000": (0, 4, 4)}
    assert group.fit is None
    assert "webp" in group.why
    (rater,) = found.raters
    assert (rater.votes.total(), rater.votes["tie"]) == (12, 4)
    assert (rater.missing, rater.caught, rater.catch) == (0, 4, 4)


def test_agreement_is_the_share_of_votes_with_the_metric(pack: Path, tmp_path: Path) -> None:
    key = read_key(pack.with_name("pack-key.json"))

    def follow(name: str, sign: int) -> str:
        trial = key.trials[name]
        if trial.catch:
            return trial.catch
        left, right = (key.shown[side].scores["psnr"] for side in (trial.left, trial.right))
        return "left" if sign * (left - right) > 0 else "right"

    for sign, expected in ((1, 1.0), (-1, 0.0)):
        path = tmp_path / f"{sign}.json"
        path.write_text(json.dumps(answers(key, 2, "ann", lambda name, sign=sign: follow(name, sign))))  # type: ignore[misc]
        found = score(key, read_votes([path], key))
        assert found.agreement["psnr"].value == expected
        assert found.agreement["psnr"].n == 4


# Hostile files


def broken(record: dict[str, Any], **changes: Any) -> str:
    return json.dumps({**record, **changes})


def first(record: dict[str, Any], **changes: Any) -> str:
    return broken(record, votes=[{**record["votes"][0], **changes}, *record["votes"][1:]])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda r, k: broken(r, study="0123456789abcdef"), "votes of study"),
        (lambda r, k: broken(r, study=5), "votes of study 5"),
        (lambda r, k: broken(r, sheet=21), "sheet 21 does not exist"),
        (lambda r, k: broken(r, sheet=True), "sheet True"),
        (lambda r, k: broken(r, sheet=2), "on sheet 1, not 2"),
        (lambda r, k: broken(r, rater=""), "rater's name"),
        (lambda r, k: broken(r, rater="x" * 65), "rater's name"),
        (lambda r, k: broken(r, rater="a\u202eb"), "rater's name"),
        (lambda r, k: broken(r, rater=["a"]), "rater's name"),
        (lambda r, k: broken(r, votes={}), "no list"),
        (lambda r, k: broken(r, votes=[1]), "a vote is trial"),
        (lambda r, k: broken(r, more=1), "not votes of a study"),
        (lambda r, k: broken(r, version=2), "version 2"),
        (lambda r, k: broken(r, votes=r["votes"] + r["votes"][:1]), "answered twice"),
        (lambda r, k: first(r, trial="t99999"), "t99999' does not exist"),
        (lambda r, k: first(r, trial=["t00001"]), "does not exist"),
        (lambda r, k: first(r, choice="both"), "'both' is no answer"),
        (lambda r, k: first(r, choice=None), "None is no answer"),
        (lambda r, k: first(r, choice=["left"]), "is no answer"),
        (lambda r, k: first(r, ms=-1), "milliseconds"),
        (lambda r, k: first(r, ms=True), "milliseconds"),
        (lambda r, k: first(r, ms=10**400), "milliseconds"),
        (lambda r, k: first(r, ms="5"), "milliseconds"),
        (lambda r, k: json.dumps(r).replace('"ms": 1500', '"ms": NaN', 1), "NaN is no number"),
        (lambda r, k: json.dumps(r).replace('"ms": 1500', '"ms": 1e999', 1), "milliseconds"),
        (lambda r, k: json.dumps(r).replace('"sheet": 1,', '"sheet": 1, "sheet": 1,'), "stands twice"),
        (lambda r, k: json.dumps(r)[:-9], "cannot be read as votes"),
        (lambda r, k: "{" + '"a":[' * 50_000, "cannot be read as votes"),
        (lambda r, k: "", "neither JSON nor CSV"),
        (lambda r, k: "[]", "neither JSON nor CSV"),
        (lambda r, k: "study,sheet,rater,trial,choice,ms\nx,1,a,b\n", "line 2 has 4 cells"),
        (lambda r, k: f"study,sheet,rater,trial,choice,ms\n{k.study},1,a,t00001,left,5e3\n", "no whole number"),
        (lambda r, k: f"study,sheet,rater,trial,choice,ms\n{k.study},٣,a,t00001,left,5\n", "no whole number"),
        (lambda r, k: 'study,sheet,rater,trial,choice,ms\n"x', "cannot be read as votes"),
        (lambda r, k: " " * 4_000_001, "more than votes can be"),
    ],
)
def test_hostile_votes_are_refused(make: Callable[..., str], message: str, pack: Path, tmp_path: Path) -> None:
    key = read_key(pack.with_name("pack-key.json"))
    path = tmp_path / "votes.json"
    path.write_text(make(answers(key, 1, "ann", lambda _: "left"), key), encoding="utf-8")
    with pytest.raises(VotesRefused, match=message) as caught:
        read_votes([path], key)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 500


def test_bytes_that_are_no_text_and_files_that_are_not_there(pack: Path, tmp_path: Path) -> None:
    key = read_key(pack.with_name("pack-key.json"))
    (tmp_path / "votes.json").write_bytes(b"\xff\xfe\x00{")
    for name in ("votes.json", "nothing.json", "."):
        with pytest.raises(VotesRefused, match="cannot be read"):
            read_votes([tmp_path / name], key)


def test_two_files_of_one_rater_that_differ(pack: Path, tmp_path: Path) -> None:
    key = read_key(pack.with_name("pack-key.json"))
    for name in ("left", "right"):
        record = answers(key, 1, "ann", lambda _, name=name: name)  # type: ignore[misc]
        (tmp_path / f"{name}.json").write_text(json.dumps(record))
    with pytest.raises(VotesRefused, match=r"left\.json, too, and otherwise"):
        read_votes([tmp_path / "left.json", tmp_path / "right.json"], key)


def test_ties_that_were_not_offered(run: Path, study: Study, tmp_path: Path) -> None:
    study("export", "small", f"--root={run}", "--tolerance=0.5", "--seed=9", "--sheets=2", "--out=forced")
    key = read_key(tmp_path / "forced-key.json")
    (tmp_path / "votes.json").write_text(json.dumps(answers(key, 1, "ann", lambda _: "tie")))
    with pytest.raises(VotesRefused, match="those offered: left, right"):
        read_votes([tmp_path / "votes.json"], key)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("rdpbench-study-key", "other"),
        lambda text: text.replace('"version": 1', '"version": 9'),
        lambda text: text[:-20],
        lambda text: text.replace('"left":', '"lift":', 1),
        lambda text: re.sub(r'"left": "i\d+\.png"', '"left": "i99999.png"', text),
        lambda text: "[]",
    ],
)
def test_a_damaged_key_is_refused(change: Callable[[str], str], pack: Path, tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    path.write_text(change(pack.with_name("pack-key.json").read_text()))
    with pytest.raises(StoreCorrupt):
        read_key(path)


# The page


@pytest.mark.slow
def test_the_page_in_a_browser(pack: Path, tmp_path: Path) -> None:
    """Keys, taking back, saving and reloading in headless Chromium; what it saves is what the import reads."""
    import shutil

    selenium = pytest.importorskip("selenium.webdriver")
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if not all(programs):
        pytest.skip("no chromium with its driver on PATH")
    from selenium.common.exceptions import NoAlertPresentException
    from selenium.webdriver.chrome.service import Service
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    options = selenium.ChromeOptions()
    options.binary_location = str(programs[0])
    for word in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=1300,900",
    ):
        options.add_argument(word)
    options.add_experimental_option("prefs", {"download.default_directory": str(tmp_path)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = selenium.Chrome(options=options, service=Service(str(programs[1])))
    key = read_key(pack.with_name("pack-key.json"))
    try:
        address = f"{(pack / 'index.html').as_uri()}?sheet=2&rater=ann"

        def ready() -> None:
            for _ in range(500):
                done = browser.find_element(By.ID, "vote").get_attribute("hidden")
                if done or browser.find_element(By.CSS_SELECTOR, "[data-choice=left]").is_enabled():
                    return
                time.sleep(0.01)
            raise AssertionError("images did not load")

        def press(letter: str) -> None:
            ready()
            ActionChains(browser).send_keys(letter).perform()

        def start() -> str:
            browser.get(address)
            browser.find_element(By.CSS_SELECTOR, "#start button").click()
            ready()
            return str(browser.find_element(By.ID, "where").text)

        assert start() == "1 of 16"
        for letter in (Keys.ARROW_LEFT, Keys.ARROW_RIGHT, Keys.BACKSPACE, Keys.ARROW_DOWN):
            press(letter)
        ready()
        assert browser.find_element(By.ID, "where").text == "3 of 16"
        browser.get("about:blank")
        with contextlib.suppress(NoAlertPresentException):
            browser.switch_to.alert.accept()
        assert start() == "3 of 16"  # what was answered is kept
        for _ in range(14):
            press(Keys.ARROW_RIGHT)
        ready()
        for kind in ("json", "csv"):
            browser.find_element(By.CSS_SELECTOR, f"#done .save[data-format={kind}]").click()
        for _ in range(500):
            if all((tmp_path / f"votes-ann-2.{kind}").is_file() for kind in ("json", "csv")):
                break
            time.sleep(0.01)
        sheets = [read_votes([tmp_path / f"votes-ann-2.{kind}"], key) for kind in ("json", "csv")]
        assert [[vote.choice for vote in one.votes] for (one,) in sheets] == [["left", "tie", *["right"] * 14]] * 2
        assert {key.trials[vote.trial].sheet for vote in sheets[0][0].votes} == {2}
        assert len({vote.trial for vote in sheets[0][0].votes}) == 16
        browser.set_window_size(390, 800)
        assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
        assert browser.get_log("browser") == []
    finally:
        browser.quit()

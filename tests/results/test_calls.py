"""Rows are published: they have names and hashes of files, never paths; where a file lies is said by calls."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from rdpbench.results.stats.current import is_installed, of_store
from rdpbench.results.store.calls import CodecFiles, name_of, published
from rdpbench.results.store.schema import KINDS, Row
from rdpbench.results.store.store import Store
from rdpbench.setting import CodecSetting

CODEC = """
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
import numpy as np
from rdpbench.codecs.contract import Bitstream, Rate

@dataclass(frozen=True)
class Mine:
    weights: Path = Path("w.txt")
    note: str = "/no/path/of/a/file"
    step: int = 8
    rate: ClassVar[Rate] = Rate("step", 1, 64, rises=False, points=(4, 16))

    def encode(self, image, side):
        self.weights.read_text(), Path(__file__).with_name("table.txt").read_text()
        Path(__file__).parent.with_name("far").joinpath("far.txt").read_text()
        if image[0, 0, 0] % 2:
            open(self.weights.with_name("gone.txt"))
        return Bitstream.whole(bytes([*image.shape[:2], self.step]) + zlib.compress((image // self.step).tobytes()),
                               note=f"by {self.weights}")

    def decode(self, data):
        levels = np.frombuffer(zlib.decompress(data[3:]), np.uint8).reshape(data[0], data[1], 3).astype(int)
        return np.clip(levels * data[2] + data[2] // 2, 0, 255).astype(np.uint8)
"""
BY_RATE = """
import zlib
import numpy as np

class ByRate:
    def __init__(self, q, net):
        self.step = int(open(net).read())

    def encode(self, image, side):
        return bytes(image.shape[:2]) + zlib.compress((image // self.step).tobytes())

    def decode(self, data):
        levels = np.frombuffer(zlib.decompress(data[2:]), np.uint8).reshape(data[0], data[1], 3)
        return (levels * self.step).clip(0, 255).astype(np.uint8)
"""
BY_FILES = """
import zlib
from dataclasses import dataclass, field
from pathlib import Path
import numpy as np
from rdpbench.codecs.contract import Bitstream, Rate

@dataclass(frozen=True)
class ByFiles:
    step: int = 8
    nets: tuple[Path, ...] = ()
    named: dict[str, Path] = field(default_factory=dict)
    sizes: tuple[int, ...] = (1,)
    rate = Rate("step", 1, 64, rises=False, points=(4, 16))

    def by(self):
        files = [*self.nets, *self.named.values()]
        return self.step + sum((n + 1) * int(file.read_text()) for n, file in enumerate(files))

    def encode(self, image, side):
        return Bitstream.whole(bytes(image.shape[:2]) + zlib.compress((image // self.by()).tobytes()))

    def decode(self, data):
        levels = np.frombuffer(zlib.decompress(data[2:]), np.uint8).reshape(data[0], data[1], 3).astype(int)
        return np.clip(levels * self.by(), 0, 255).astype(np.uint8)
"""
METRIC = """
from pathlib import Path
from rdpbench.metrics.contract import PairMetric

class Sharp(PairMetric):
    name, higher_is_better = "sharp", True
    weights = Path(__file__).with_name("m.txt")
    def prepare(self, original):
        return original
    def score(self, prepared, reconstruction):
        if reconstruction[0, 0, 0] > 200:
            raise ValueError(f"{self.weights} says no")
        return float(reconstruction.mean())
"""


@pytest.fixture
def home(tmp_path: Path, images: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A codec, its weights, a file beside it and one far from it, a metric, and pictures."""
    files = {"code/mine.py": CODEC, "code/table.txt": "1", "far/far.txt": "1", "nets/w.txt": "1"}
    for name, text in {**files, "code/metric.py": METRIC, "code/m.txt": "1"}.items():
        (tmp_path / "home" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "home" / name).write_text(text)
    images(4, name="home/pictures")
    return tmp_path / "home"


LINE = ["run", "data=folder:pictures", "codec=code/mine.py:Mine", "metrics=psnr,code/metric.py:Sharp", "rate=4,16"]
LINE += ["codec.options.weights=nets/w.txt", "figures=false", "workers=0", "verify=1", "run=r", "root=runs"]
JPEG = [word for word in LINE if "options" not in word and "mine.py" not in word and "rate" not in word]
JPEG += ["codec=jpeg", "rate=50"]


def texts(store: Store) -> list[str]:
    """All that rows, scores and their like hold."""
    contents = store.read()
    return [json.dumps(vars(record)) for kind in KINDS for record in getattr(contents, f"{kind}s").values()]


@pytest.fixture
def run(home: Path, here: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    monkeypatch.chdir(home)
    return here


@pytest.mark.parametrize("apart", [(), (f"python={sys.executable}",)])
def test_no_row_holds_a_path_of_this_machine(home: Path, run: Callable[..., int], apart: tuple[str, ...]) -> None:
    run(*LINE, *apart)
    run(*LINE, *apart, f"codec.options.weights={home}/nets/w.txt")
    store = Store(home / "runs" / "r")
    rows = [*store.read().rows.values()]
    assert {row.status for row in rows} == {"ok", "error"}
    assert not [text for text in texts(store) if str(home) in text or "/no/path" in text]
    assert {row.use.partition("@")[0] for row in rows} == {"mine.py:Mine"}
    assert {json.loads(row.options)["weights"] for row in rows} == {"w.txt"}
    assert {name for row in rows for name in json.loads(row.files)} == {"weights=w.txt", "table.txt", "../far/far.txt"}
    assert not [text for text in texts(store) if str(home) in text or "/no/path" in text]


def test_a_folder_that_is_moved_as_a_whole_is_resumed_where_it_is(
    home: Path,
    run: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(*LINE, "metrics=psnr")
    shutil.move(home, tmp_path / "moved")
    monkeypatch.chdir(tmp_path / "moved")
    store = Store(tmp_path / "moved" / "runs" / "r")
    before = store.read()
    line = [*LINE, "metrics=psnr"]
    assert run("plan", *line[1:]) == 0
    assert " 0 left" in capsys.readouterr().out
    # Weights that are named elsewhere are the same by what is in them; what lies beside the class is not named.
    (tmp_path / "moved/nets").rename(tmp_path / "moved/models")
    (tmp_path / "moved/models/w.txt").rename(tmp_path / "moved/models/renamed.txt")
    line[line.index("codec.options.weights=nets/w.txt")] = "codec.options.weights=models/renamed.txt"
    assert run("plan", *line[1:]) == 0
    assert " 0 left" in capsys.readouterr().out
    (tmp_path / "moved/models/renamed.txt").rename(tmp_path / "moved/models/w.txt")
    line[line.index("codec.options.weights=models/renamed.txt")] = "codec.options.weights=models/w.txt"
    assert run("plan", *line[1:]) == 0
    assert " 0 left" in capsys.readouterr().out
    for name in ("code/table.txt", "far/far.txt"):
        (tmp_path / "moved" / name).write_text("2")
        assert run("plan", *line[1:]) == 0
        assert f"again     {len(before.rows)} tasks: a file that their codec opened" in capsys.readouterr().out
        (tmp_path / "moved" / name).write_text("1")
    typed = ["codec=code/mine.py:Mine", "codec.options.weights=models/w.txt", "codec.options.note=/no/path/of/a/file"]
    assert run("verify", "r", "--root", "runs", "--all", *typed) == 1
    told = capsys.readouterr().out
    assert "2 bitstreams decoded in a fresh process to the recorded pixels" in told
    assert told.count("FOUND") == told.count("FOUND image image00: no such image:") == 1, "which lay where it was coded"


def test_of_two_editions_that_one_counts_whose_class_lies_there(home: Path, run: Callable[..., int]) -> None:
    def shown() -> tuple[set[str], set[int | None]]:
        contents = Store(home / "runs" / "r").read()
        rows = [row for point in of_store(contents).points for row in point.good]
        return {row.coder for row in rows}, {row.bytes for row in rows}

    run(*LINE, "metrics=psnr")
    first = shown()
    newer = CODEC.replace(
        "zlib.compress((image // self.step).tobytes())", "zlib.compress((image // self.step).tobytes(), 1)"
    )
    (home / "code" / "mine.py").write_text(newer)
    run(*LINE, "metrics=psnr")
    second = shown()
    assert first != second
    (home / "code" / "mine.py").write_text(CODEC)
    assert shown() == first, "read by the source that lies there, though rows do not say where"
    run(*LINE, "metrics=psnr")
    assert shown() == first
    contents = Store(home / "runs" / "r").read()
    states = {is_installed(row, contents.folder) for row in contents.rows.values() if row.status == "ok"}
    assert states == {True, False}
    shutil.rmtree(home / "runs" / "r" / "sessions")
    assert {is_installed(row, contents.folder) for row in contents.rows.values()} == {None}


@pytest.mark.parametrize("apart", [(), (f"python={sys.executable}",)])
@pytest.mark.parametrize("which", ["class", "weights", "environment"])
def test_files_of_one_name_in_two_folders_make_no_curve_together(
    home: Path, run: Callable[..., int], monkeypatch: pytest.MonkeyPatch, which: str, apart: tuple[str, ...]
) -> None:
    """Both lie there still, and have one label, since each was typed from its folder."""
    for name in ("code", "nets", "far"):
        shutil.copytree(home / name, home / "second" / name)
    changed = home / "second" / ("code/mine.py" if which == "class" else "nets/w.txt")
    changed.write_text(changed.read_text() + "# another\n")
    places = {"data=folder:pictures": f"data=folder:{home}/pictures", "root=runs": f"root={home}/runs"}
    if which == "environment":
        places["codec.options.weights=nets/w.txt"] = "codec.options.weights=${oc.env:NETS}/w.txt"
    line = [places.get(word, word) for word in [*LINE, "metrics=psnr", *apart]]

    def enter(folder: Path) -> None:
        monkeypatch.chdir(folder)
        monkeypatch.setenv("NETS", str(folder / "nets"))

    enter(home)
    run(*line, "rate=4,16")
    enter(home / "second")
    run(*line, "rate=16,32")

    def shown() -> dict[float | None, set[str]]:
        points = of_store(Store(home / "runs" / "r").read()).points
        return {point.setting.rate: {row.coder for row in point.good} for point in points}

    second = shown()
    assert list(second) == [16, 32], "the last call says what the label stands for"
    assert len(set.union(*second.values())) == 1
    if not apart:  # of which the newest rows count
        enter(home)
        run(*line, "rate=8")
        first = shown()
        assert sorted(map(str, first)) == ["16.0", "4.0", "8.0"]
        assert first[16] != second[16]
        enter(home / "second")
        run(*line, "rate=16,32")
        assert shown() == second, "though there was nothing to do"


def test_no_bitstream_is_doubted_because_other_weights_of_its_name_decoded_it(
    home: Path, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows say ``w.txt`` of both; which file is meant, its content says."""
    (home / "mine.py").write_text(BY_FILES)
    for name, text in {"one": "3", "two": "5"}.items():
        (home / name).mkdir()
        (home / name / "w.txt").write_text(text)
    for name in ("one", "two"):
        words = [word for word in LINE if not word.startswith(("codec", "metrics"))]
        assert run(*words, "metrics=psnr", "codec=mine.py:ByFiles", f"codec.options.nets=[{name}/w.txt]") == 0
    typed = ["verify", "r", "--root", "runs", "--all", "codec=mine.py:ByFiles"]
    capsys.readouterr()
    assert run(*typed, "codec.options.nets=[one/w.txt]") == 1
    told = capsys.readouterr().out
    assert "8 bitstreams decoded" in told
    assert "0 findings" in told
    assert f"NOT DECODED 8 bitstreams of ByFiles[nets=[two/w.txt]]: not decoded: {home}/one/w.txt" in told
    assert run(*typed, "codec.options.nets=[one/w.txt]", "codec.options.nets=[two/w.txt]") == 0
    assert "16 bitstreams decoded" in capsys.readouterr().out
    assert {row.verified for row in Store(home / "runs" / "r").read().rows.values()} == {"fresh_process"}


@pytest.mark.parametrize("apart", [(), (f"python={sys.executable}",)])
def test_lists_and_mappings_of_files_are_options(
    home: Path, run: Callable[..., int], capsys: pytest.CaptureFixture[str], apart: tuple[str, ...]
) -> None:
    (home / "mine.py").write_text(BY_FILES)
    for name, text in {"a": "3", "b": "5"}.items():
        (home / "nets" / name).write_text(text)
    line = [word for word in LINE if not word.startswith(("codec", "metrics"))]
    line += ["metrics=psnr", "codec=mine.py:ByFiles", "codec.options.sizes=[1,2]", *apart]
    names = "codec.options.nets=[nets/a,nets/b]"
    assert run(*line, names) == 0
    assert apart or run(*line, "codec.options.named={y:nets/b,x:nets/a}") == 0
    capsys.readouterr()
    assert run("plan", *line[1:], "codec.options.nets=[nets/b,nets/a]") == 0
    assert " 0 done" in capsys.readouterr().out, "their order is theirs"
    if not apart:
        assert run("plan", *line[1:], "codec.options.named={x:nets/a,y:nets/b}") == 0
        assert " 0 left" in capsys.readouterr().out, "that of a mapping is not"
    (home / "nets").rename(home / "moved")
    assert run("plan", *line[1:], names.replace("nets/", "moved/")) == 0
    assert " 0 left" in capsys.readouterr().out
    typed = [names.replace("nets/", "moved/"), *apart, "codec.options.sizes=[1,2]"]
    typed += [] if apart else ["codec.options.named={x:moved/a,y:moved/b}"]
    assert run("verify", "r", "--root", "runs", "--all", "codec=mine.py:ByFiles", *typed) == 0
    assert f"{8 if apart else 16} bitstreams decoded" in capsys.readouterr().out


def test_rows_of_earlier_versions_name_the_same(home: Path, run: Callable[..., int]) -> None:
    """They hold whole paths: they are read, are of the same edition, and are not coded again."""
    run(*LINE, "metrics=psnr")
    store = Store(home / "runs" / "r")
    contents = store.read()
    setting = CodecSetting("Mine", f"{home}/code/mine.py:Mine", (("weights", f"{home}/nets/w.txt"),), ())
    lies = CodecFiles.of(setting.use, dict(setting.options))

    def earlier(row: Row) -> Row:
        files = {str(lies.path(name).resolve()): sha256 for name, sha256 in json.loads(row.files).items()}
        options = json.loads(row.options) | dict(setting.options)
        return replace(row, use=setting.use, options=json.dumps(options), files=json.dumps(files))

    old = {key: earlier(row) for key, row in contents.rows.items()}
    assert all(str(home) in row.use + row.options + row.files for row in old.values())
    assert {key: published(row, setting) for key, row in old.items()} == dict(contents.rows.items())
    assert {is_installed(row, store.folder) for row in old.values() if row.status == "ok"} == {True}


def test_values_under_the_path_of_a_metric_are_made_again_and_the_plan_says_why(
    home: Path, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*JPEG) in (0, 1)
    store = Store(home / "runs" / "r")
    named = [score for score in store.read().scores.values() if score.metric == "metric.py:Sharp"]
    with contextlib.closing(store.writer(store.new_session())) as writer:
        writer.append({"scores": [{**vars(score), "metric": f"{home}/code/{score.metric}"} for score in named]})
    capsys.readouterr()
    assert run("plan", *JPEG[1:]) == 0
    assert f"metric.py:Sharp: {len(named)} values are stored under its path, as earlier" in capsys.readouterr().out
    assert run(*JPEG) in (0, 1)
    assert [score for score in store.read().scores.values() if score.metric == "metric.py:Sharp"] == [
        replace(score, session=again.session)
        for score, again in zip(named, [s for s in store.read().scores.values() if ":" in s.metric], strict=True)
    ]


def test_two_values_of_an_environment_variable_are_two_editions(
    home: Path, run: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows have what was typed, so they looked alike, and one mean or curve was made of both."""
    levels = "(image // self.step).tobytes()"
    (home / "code" / "mine.py").write_text(CODEC.replace(levels, f"{levels}, len(self.note)"))
    line = [word for word in LINE if "rate=" not in word] + ["metrics=psnr", "codec.options.note=${oc.env:NOTE}"]

    def shown() -> dict[str, list[str]]:
        points = of_store(Store(home / "runs" / "r").read()).points
        return {point.setting.words: [*point.rows.codes("coder").used()] for point in points}

    monkeypatch.setenv("NOTE", "secret")
    run(*line, "rate=4,16")
    [first] = {coder for coders in shown().values() for coder in coders}
    monkeypatch.setenv("NOTE", "secret99")
    run("plan", *line[1:], "rate=4,16")
    assert "options with what the environment held" in capsys.readouterr().out
    run(*line, "rate=4", "limit=2")
    assert shown() == {"step 4": [first], "step 16": [first]}, "the one that has all images"
    run(*line, "rate=4")
    assert shown() == {"step 16": [first]}, "of the other point nobody can tell which"
    run(*line, "rate=32")
    assert set(shown()) == {"step 32"}, "a curve is of one, that of the newest point"
    assert not [text for text in texts(Store(home / "runs" / "r")) if "secret" in text]


def test_options_may_be_lists_and_mappings_of_files_of_one_name(
    home: Path, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    codec = CODEC.replace('weights: Path = Path("w.txt")', "several: object = ()")
    codec = codec.replace("self.weights.read_text()", "[Path(path).read_text() for path in _leaves(self.several)]")
    codec = codec.replace('self.weights.with_name("gone.txt")', "'/gone.txt'").replace("self.weights", "self.step")
    codec += "\n\ndef _leaves(value):\n    return list(value.values() if hasattr(value, 'values') else value)\n"
    (home / "code" / "mine.py").write_text(codec)
    for folder in ("x", "y"):
        (home / folder).mkdir()
        (home / folder / "w.txt").write_text("1")
    for number, value in enumerate((f"[{home}/y/w.txt,{home}/x/w.txt]", f"{{b:{home}/y/w.txt,a:{home}/x/w.txt}}")):
        line = [word for word in LINE if "options" not in word] + ["metrics=psnr", f"run=several{number}"]
        line += [f"codec.options.several={value}"]
        run(*line)
        for folder in ("x", "y"):
            (home / folder / "w.txt").write_text("2")
            assert run("plan", *line[1:]) == 0
            assert "a file that their codec opened" in capsys.readouterr().out, f"{folder}/w.txt is another now"
            (home / folder / "w.txt").write_text("1")
        assert run("plan", *line[1:]) == 0
        assert " 0 left" in capsys.readouterr().out


def test_names_and_places_of_files() -> None:
    lies = CodecFiles.of("/home/me/code/mine.py:Mine", {"net": "/data/net", "both": ["/a/x.pt", "/b/y.pt"], "n": 3})
    named = {
        "/home/me/code/table.txt": "table.txt",
        "/home/me/far.txt": "../far.txt",
        "/data/net": "net=net",
        "/data/net/deep/a.pt": "net=net/deep/a.pt",
        "/data/network": "../../../data/network",
        "/b/y.pt": "both=y.pt",
    }
    assert {path: lies.name(path) for path in named} == named
    assert [lies.path(name).resolve() for name in named.values()] == [*map(Path, named)]
    of_rates = CodecFiles.of("/home/me/mine.py:Mine", {"net": "/new/net_{q}.pt", "other": "/b/other.pt"})
    assert of_rates.name("/new/net_8.pt") == "net=net_8.pt"
    assert of_rates.path("net=net_8.pt") == Path("/new/net_8.pt"), "one for each rate, in a folder that may move"
    assert CodecFiles.of("/home/me/mine.py:Mine", {"net": "/data/newer"}).path("net=net/a.pt") == Path(
        "/data/newer/a.pt"
    )
    twins = ["/a/net.pt", "/b/net.pt", "/b/other.pt"]
    several = CodecFiles.of("/home/me/mine.py:Mine", {"nets": twins, "by_name": {"x": "/c/net.pt", "y": "/d/net.pt"}})
    twins += ["/c/net.pt", "/d/net.pt"]
    assert [several.path(several.name(path)) for path in twins] == [*map(Path, twins)], "no two of them are one"
    assert lies.path("/of/an/earlier/version.txt") == Path("/of/an/earlier/version.txt")
    assert name_of("folder:/home/me/theirs@{}") == "folder:theirs@{}"


def test_one_template_in_two_folders_makes_no_curve_of_both(home: Path, run: Callable[..., int]) -> None:
    """Each rate has a file for itself, in an environment of its own, and both templates have one label."""
    (home / "ext.py").write_text(BY_RATE)
    (home / "ext.yaml").write_text(
        f"name: ext\nuse: ./ext.py:ByRate\npython: {sys.executable}\nrate_field: q\nrates: [8, 16, 32, 64]\n"
        "options:\n  net: ./first/net_{q}.txt\n"
    )
    for folder, more in (("first", 0), ("second", 1)):
        (home / folder).mkdir()
        for rate in (8, 16, 32, 64):
            (home / folder / f"net_{rate}.txt").write_text(str(rate + more))
    line = [word for word in LINE if "codec" not in word and "rate" not in word and "metrics" not in word]
    line += ["codec=./ext.yaml", "metrics=psnr"]
    for folder, rates in (("first", "8,16"), ("second", "32,64")):
        assert run(*line, f"rate={rates}", f"codec.options.net=./{folder}/net_{{q}}.txt") == 0
    current = of_store(Store(home / "runs" / "r").read())
    assert [point.setting.rate for point in current.points] == [32, 64]
    assert any("q 16, q 8: coded by another version" in note for note in current.notes), current.notes
    (home / "second" / "net_8.txt").write_bytes((home / "first" / "net_8.txt").read_bytes())
    current = of_store(Store(home / "runs" / "r").read())
    assert sorted(point.setting.rate or 0 for point in current.points) == [8, 32, 64], (
        "what a file holds counts, not where it lies"
    )

"""Programs, pictures that somebody else made, and grades of what no decoder proves."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as pil

from rdpbench import cli, read_results
from rdpbench.codecs.external.programs import can_go_offline
from rdpbench.config.bench import read_bench
from rdpbench.registry import source_now
from rdpbench.results.store.keys import codec_identity, forget
from rdpbench.results.store.store import Store

QUICK = ("metrics=psnr", "figures=false", "workers=0")


def run(*words: str) -> int:
    """Decoded once more in a fresh process only where a test says how many."""
    again = () if any(word.startswith("verify=") for word in words) else ("verify=0",)
    return cli.main(["run", *words, "data=folder:images", *QUICK, *again])


def rows(run_name: str = "folder-images") -> list[Any]:
    return list(Store(Path("results/runs") / run_name).read().rows.values())


def test_programs_code_a_folder_at_once(folder: Path, scripts: Callable[..., str]) -> None:
    assert run(scripts()) == 0
    made = rows()
    assert [row.status for row in made] == ["ok"] * 4
    assert {row.batch for row in made} == {2}, "images of two sizes in one call"
    assert {row.grade for row in made} == {"decoded"}
    info = json.loads(made[0].info)
    assert info["decode seconds stated"] == "0.25"
    assert ("no network" in info["enforced"]) == can_go_offline()
    assert "images" in made[0].command
    assert "enc.py" in made[0].command
    assert str(folder) not in made[0].command, "rows are published"
    assert run(scripts(shape="file"), "run=files") == 1  # its scripts want folders
    one = textwrap.dedent(
        """
        import sys, shutil
        from PIL import Image
        Image.open(sys.argv[1]).save(sys.argv[2], format="PNG")
        """
    )
    (folder / "copy.py").write_text(one)
    words = {
        "encode": '["{python}", copy.py, "{images}", "{streams}", "{rate}"]',
        "decode": '["{python}", copy.py, "{streams}", "{reconstructions}"]',
    }
    assert run(scripts(shape="file", **words), "run=single", "points=1") == 0
    assert {row.batch for row in rows("single")} == {1}
    by_path = {row.image: row for row in rows("single")}
    assert by_path["first"].reconstruction_sha256 == by_path["first"].pixel_sha256


PROGRAM_FAULTS: dict[str, tuple[str, str, str, bool]] = {
    "writes nothing and returns 0": ("if image.shape[0] == 21: continue", "pass", "wrote nothing to", False),
    "ends amid its images": ("if image.shape[0] == 21: sys.exit(4)", "pass", "returned 4", False),
    "deletes the folder it is given": (
        "shutil.rmtree(images); shutil.rmtree(streams); break",
        "pass",
        "wrote nothing",
        True,
    ),
    "answers for another image": (
        "path = path.with_name('other.png') if image.shape[0] == 21 else path",
        "pass",
        "wrote nothing to",
        False,
    ),
    "is killed": ("import os; image.shape[0] == 21 and os.kill(os.getpid(), 9)", "pass", "SIGKILL", False),
    "hangs": (
        "import time; image.shape[0] == 21 and time.sleep(100)",
        "pass",
        "was stopped after timeout_s=2 seconds",
        False,
    ),
    "prints what is no text": (
        "sys.stdout.buffer.write(b'\\xff'); image.shape[0] == 21 and sys.exit(1)",
        "pass",
        "returned 1",
        False,
    ),
    "swaps height and width": (
        "pass",
        "image = image.transpose(1, 0, 2) if size[0] == 21 else image",
        "decoded to",
        False,
    ),
    "needs the original": (
        "pass",
        "size[0] == 21 and Image.open(str(path).replace('streams', 'images'))",
        "No such file",
        False,
    ),
}


LIKE_ANOTHER = {"answers for another image", "is killed", "prints what is no text"}
"""Of the kind of one that is fast."""


@pytest.mark.parametrize(
    "fault", [pytest.param(name, marks=[pytest.mark.slow] if name in LIKE_ANOTHER else []) for name in PROGRAM_FAULTS]
)
def test_a_fault_of_a_program_ends_in_a_named_failure(folder: Path, scripts: Callable[..., str], fault: str) -> None:
    encode, decode, told, whole = PROGRAM_FAULTS[fault]
    assert run(scripts(encode, decode, timeout_s="2" if fault == "hangs" else "20"), "rate=8") == 1
    by_image = {row.image: row for row in rows()}
    assert told in by_image["first"].error
    assert by_image["second"].status == ("error" if whole else "ok")
    assert not list(Path(tempfile.gettempdir()).glob("rdpbench-apart-*/images"))


def test_a_run_inside_its_own_sources_resumes(
    folder: Path, scripts: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    """What it writes there is no edit, nor is the declaration; a file that a program opens there is in the key."""
    (folder / "net.npz").write_bytes(b"first")
    whole = 'sys.argv[3] == "8" or sys.exit(5); pathlib.Path("net.npz").read_bytes()'
    words = scripts(whole, source=".", options="{net: net.npz}", rates="[8]")
    for git in ([], ["init"]):
        if git:
            subprocess.run(["git", "init", "-q", "."], check=True)
            subprocess.run(["git", "add", "enc.py", "dec.py", "two.yaml"], check=True)
            who = ["-c", "user.name=a", "-c", "user.email=a@b"]
            subprocess.run(["git", *who, "commit", "-qm", "first"], check=True)
        assert run(words) == 0
        capsys.readouterr()
        (folder / "two.yaml").write_text((folder / "two.yaml").read_text() + "\n# more\n")
        assert run(words) == 0
        assert "nothing to do" in capsys.readouterr().out
    (folder / "net.npz").write_bytes(b"second")
    assert run(words) == 0
    assert "2 tasks coded" in capsys.readouterr().out


def test_a_child_that_stays_is_killed_with_its_program(scripts: Callable[..., str]) -> None:
    assert run(scripts("import subprocess; subprocess.Popen(['sleep', '4343'])"), "rate=8") == 0
    assert subprocess.run(["pgrep", "-f", "sleep 4343"], capture_output=True, check=False).stdout == b""


def test_a_declaration_that_cannot_be_meant(
    folder: Path, scripts: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    for changes, told in (
        ({"encod": "[x]"}, "did you mean 'encode'"),
        ({"rates": ""}, "rate_field alone"),
        ({"shape": "box"}, "choose from file, folder"),
        ({"encode": "[]"}, "name a class (use: ./mine.py:MyCodec) or programs"),
        ({"encode": '["{python}", "{image}"]'}, "unknown placeholder 'image': did you mean 'images'"),
        ({"encode": '["{python}", "{images}", "{streams}"]'}, "so all of its rate points would be one"),
        ({"encode": '["{python}", "{images}", "{rate}"]'}, "does not use {streams}"),
        ({"decode": "[]"}, "does not use {reconstructions}; without decode: it must write the pictures too"),
        ({"options": "{net: ./none.npz}"}, "no such file or folder"),
        ({"python": ""}, "uses {python}; write python="),
        ({"name": "jpeg"}, "that of a codec that ships"),
        ({"use": "./mine.py:Mine"}, "leave one of them out"),
    ):
        code = run(scripts(**changes), "rate=8", "run=odd")
        told_then = capsys.readouterr()
        assert code in (1, 2)
        assert told in told_then.err + told_then.out, changes
    assert run("codec=./none.yaml") == 2
    assert "no such file" in capsys.readouterr().err
    assert run("codec=recipe/none") == 2
    assert "recipes that begin with" in capsys.readouterr().err


def test_rates_that_no_decoder_proves_are_marked_and_never_compete(
    folder: Path, scripts: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    encode = '["{python}", enc.py, "{images}", "{streams}", "{rate}", "{reconstructions}"]'
    scripts("shutil.copy(path, pathlib.Path(sys.argv[4]) / path.name)", encode=encode, decode="[]")
    assert run("codec=./two.yaml,jpeg") == 0
    out = capsys.readouterr().out
    assert "two-scripts: 4 rows of grade joint are left out" in out
    assert "(joint)" not in out
    by_codec = {row.codec: row for row in rows()}
    assert (by_codec["two-scripts"].grade, by_codec["two-scripts"].verified) == ("joint", "")
    assert by_codec["jpeg"].grade == "decoded"
    assert set(read_results("folder-images")["codec"]) == {"jpeg"}
    both = read_results("folder-images", grades=("decoded", "joint"))
    assert set(both["codec"]) == {"jpeg", "two-scripts (joint)"}
    assert set(both[both["grade"] == "joint"]["codec"]) == {"two-scripts (joint)"}
    assert set(read_results("folder-images", per="image", grades=("joint",))["grade"]) == {"joint"}
    assert cli.main(["show", "folder-images", "grades=decoded,joint"]) == 0
    assert "two-scripts (joint)" in capsys.readouterr().out
    assert cli.main(["bd", "folder-images", "--anchor", "two-scripts (joint)"]) == 2
    capsys.readouterr()
    assert cli.main(["curves", "update", "codec=./two.yaml", "data=folder:images", *QUICK]) == 2
    assert "is not proven by a decoder" in capsys.readouterr().err
    assert cli.main(["plan", "codec=./two.yaml", "data=folder:images", "run=other"]) == 0
    assert "packages; grade joint: pictures are kept" in capsys.readouterr().out
    assert cli.main(["verify", "folder-images", "--all"]) == 0
    [picture, *_] = (folder / "results/runs/folder-images/pictures").rglob("*.png")
    picture.write_bytes(b"")
    assert cli.main(["verify", "folder-images", "--all"]) == 1


def test_what_fails_is_of_the_same_curve(folder: Path, scripts: Callable[..., str]) -> None:
    fault = "if image.shape[0] == 21: continue\n    shutil.copy(path, pathlib.Path(sys.argv[4]) / path.name)"
    encode = '["{python}", enc.py, "{images}", "{streams}", "{rate}", "{reconstructions}"]'
    assert run(scripts(fault, encode=encode, decode="[]"), "rate=8") == 1
    assert {row.grade for row in rows()} == {"joint"}
    frame = read_results("folder-images", grades=("joint",))
    assert frame[["codec", "n", "failed"]].values.tolist() == [["two-scripts (joint)", 1, 1]]


def test_equal_bitstreams_keep_each_its_own_picture(folder: Path, scripts: Callable[..., str]) -> None:
    """A stream that says nothing, of two images of one size in one call, and of an image that is there twice."""
    for name in ("first", "second"):
        (folder / "images" / f"{name}.png").unlink()
    for value, name in ((10, "a"), (200, "b"), (10, "c")):
        pil.fromarray(np.full((12, 12, 3), value, np.uint8)).save(folder / "images" / f"{name}.png")
    picture = "shutil.copy(path, pathlib.Path(sys.argv[4]) / path.name); data = b'nothing'"
    encode = '["{python}", enc.py, "{images}", "{streams}", "{rate}", "{reconstructions}"]'
    assert run(scripts(picture, encode=encode, decode="[]"), "rate=8") == 0
    assert {row.image: row.reconstruction_sha256 == row.pixel_sha256 for row in rows()} == dict.fromkeys("abc", True)


def test_scripts_of_one_name_and_what_they_import_are_in_the_key(folder: Path, scripts: Callable[..., str]) -> None:
    def identity() -> str:
        forget()
        [codec] = read_bench([words, "data=samples"]).codecs
        return codec_identity(codec, 8)

    for place in ("one", "two"):
        (folder / place).mkdir()
        (folder / place / "main.py").write_text("import helper\n")
        (folder / place / "helper.py").write_text("x = 1\n")
    encode = '["{python}", one/main.py, "{images}", "{streams}", "{rate}"]'
    words = scripts(encode=encode, decode='["{python}", two/main.py, "{streams}", "{reconstructions}"]')
    seen = {identity()}
    for place, name in (("one", "main.py"), ("two", "main.py"), ("one", "helper.py"), ("two", "helper.py")):
        (folder / place / name).write_text((folder / place / name).read_text() + "# edited\n")
        seen.add(identity())
    assert len(seen) == 5


def test_pictures_of_somebody_else(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "theirs").mkdir()
    (folder / "streams").mkdir()
    for path in (folder / "images").iterdir():
        shutil.copy(path, folder / "theirs" / path.name)
        (folder / "streams" / f"{path.stem}.bits").write_bytes(bytes(100))
    score = ["score", "codec=folder:theirs", "data=folder:images", *QUICK]
    assert cli.main([*score, "run=none"]) == 0
    frame = read_results("none", grades=("reported",))
    assert frame["codec"].tolist() == ["theirs (reported)"]
    assert np.isnan(frame["bpp"]).all()
    assert np.isinf(frame["value"]).all()
    assert cli.main([*score, "run=streams", "codec.options.sizes=streams"]) == 0
    bpp = read_results("streams", per="image", grades=("reported",)).set_index("image")["bpp"]
    assert bpp["first"] == pytest.approx(800 / (21 * 34))
    (folder / "sizes.csv").write_text("image,bpp\nfirst.png,0.5\nsecond,0.25\n")
    assert cli.main([*score, "run=sizes", "codec.options.sizes=sizes.csv"]) == 0
    assert read_results("sizes", grades=("reported",))["bpp"].tolist() == [0.375]
    capsys.readouterr()
    for held, told in (
        ("image,size\nfirst.png,0.5", "write image, and one of bytes, bits, bpp"),
        ("image,bpp,bytes\nfirst.png,0.5,9\nsecond,0.25,9", "write image, and one of bytes, bits, bpp"),
        ("image,bpp\nfirst.png,0.5\nsecond,0.25\nfirst.webp,0.9", "two lines for first; keep one"),
        ("image,bpp,bpp\nfirst.png,0.5,0.9\nsecond,0.25,1", "two columns 'bpp'"),
        ("image,bpp\nfirst.png,0,5\nsecond,0,25", "line 2: 3 cells for 2 columns"),
    ):
        (folder / "sizes.csv").write_text(held)
        assert cli.main([*score, "run=odd", "codec.options.sizes=sizes.csv"]) != 0
        said = capsys.readouterr()
        assert told in said.err + said.out
    (folder / "streams" / "first.log").write_text("not a bitstream")
    assert cli.main([*score, "run=two", "codec.options.sizes=streams"]) != 0
    said = capsys.readouterr()
    assert "one bitstream named first, and has first.bits and first.log" in said.err + said.out
    assert cli.main(["score", "codec=folder:nowhere", "data=folder:images", *QUICK]) == 2
    assert "no such folder" in capsys.readouterr().err


def test_the_layout_of_jpeg_ai(folder: Path) -> None:
    for kind in ("bit", "rec"):
        (folder / "theirs" / kind).mkdir(parents=True)
    for path in (folder / "images").iterdir():
        height, width = (21, 34) if path.stem == "first" else (16, 9)
        for rate in (12, 50):
            stem = f"CODEC_{path.stem}_TE_{width}x{height}_8bit_sRGB_{rate:03d}"
            shutil.copy(path, folder / "theirs" / "rec" / f"{stem}.png")
            (folder / "theirs" / "bit" / f"{stem}.bits").write_bytes(bytes(rate))
    assert cli.main(["score", "codec=folder:theirs", "data=folder:images", *QUICK]) == 0
    images = read_results("folder-images", per="image", grades=("reported",))
    sizes = {
        (image, rate): size for image, rate, size in zip(images["image"], images["rate"], images["bytes"], strict=True)
    }
    assert sizes == {("first", 12): 12, ("first", 50): 50, ("second", 12): 12, ("second", 50): 50}
    (folder / "sizes.csv").write_text("image,bytes\nfirst,10\nsecond,10\n")  # of which rate?
    line = ["score", "codec=folder:theirs", "data=folder:images", "codec.options.sizes=sizes.csv", "run=odd", *QUICK]
    assert cli.main(line) != 0


def test_rows_start_no_interpreter_and_no_program(
    folder: Path, scripts: Callable[..., str], capsys: pytest.CaptureFixture[str], own_class: Callable[..., None]
) -> None:
    """A folder of results from elsewhere names both; reading, verifying and scoring it runs neither."""
    mark = folder / "ran"
    assert run(scripts(decoder=f"pathlib.Path({str(mark)!r}).write_text('')"), "rate=8") == 0
    mark.unlink()
    for line in (["verify", "folder-images"], ["show", "folder-images"], ["report", "folder-images"]):
        cli.main(line)
    assert not mark.exists()
    assert "not decoded" in capsys.readouterr().out
    own_class(folder)
    assert cli.main(["verify", "folder-images", f"codec=./two.yaml,{folder}/mine.py:Mine"]) == 0
    assert mark.exists()
    assert source_now("codec", f"{folder}/two.yaml:two-scripts@{{}}") != ""

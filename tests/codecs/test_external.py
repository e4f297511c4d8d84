"""Classes under another interpreter, programs, and pictures that somebody else made."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as pil

from rdpbench import cli, read_results
from rdpbench.codecs.contract import Side
from rdpbench.codecs.external import host as host_script
from rdpbench.codecs.external import hosted
from rdpbench.codecs.external.declared import refer_class
from rdpbench.codecs.external.environment import source_identity
from rdpbench.codecs.external.programs import can_go_offline
from rdpbench.config.bench import read_bench
from rdpbench.errors import CoderFailed, ConfigError
from rdpbench.registry import load, source_now
from rdpbench.results.store.keys import build, codec_identity, forget
from rdpbench.results.store.store import Store
from rdpbench.runners.pool import start_server

QUICK = ("metrics=psnr", "figures=false", "workers=0")
CLASS = """
import os, sys, zlib
import numpy as np
from rdpbench import Bitstream, Rate

print("loading \\xff", flush=True)

class Mine:
    rate = Rate("step", 1, 64, rises=False, points=(8, 32))

    def __init__(self, step=8, note=""):
        self.step, self.note = step, note
        print("built")

    def encode(self, image, side):
        {encode}
        head = np.array(image.shape[:2], ">u2").tobytes()
        return Bitstream.whole(head + zlib.compress((image // self.step).tobytes()))

    def decode(self, data):
        {decode}
        height, width = np.frombuffer(data[:2], ">u2")[0], np.frombuffer(data[2:4], ">u2")[0]
        return np.frombuffer(zlib.decompress(data[4:]), "u1").reshape(height, width, 3) * np.uint8(self.step)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a space in its name, two images of two sizes, and the command's results."""
    place = tmp_path / "a place"
    (place / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, size in (("first", (21, 34, 3)), ("second", (16, 9, 3))):
        coarse = rng.integers(0, 256, (size[0] // 4 + 1, size[1] // 4 + 1, 3), dtype=np.uint8)
        pil.fromarray(coarse.repeat(4, 0).repeat(4, 1)[: size[0], : size[1]]).save(place / "images" / f"{name}.png")
    start_server()  # its socket stays where it is
    with tempfile.TemporaryDirectory() as temporary:  # of a short name: sockets of worker processes lie in it
        monkeypatch.setenv("TMPDIR", temporary)
        monkeypatch.setattr(tempfile, "tempdir", None)
        monkeypatch.chdir(place)
        yield place


def own_class(folder: Path, encode: str = "pass", decode: str = "pass") -> None:
    (folder / "mine.py").write_text(CLASS.replace("{encode}", encode).replace("{decode}", decode))


def run(*words: str) -> int:
    return cli.main(["run", *words, "data=folder:images", *QUICK])


def rows(run_name: str = "folder-images") -> list[Any]:
    return list(Store(Path("results/runs") / run_name).read().rows.values())


def test_the_host_is_written_for_python_3_8() -> None:
    ast.parse(Path(host_script.__file__).read_text(), feature_version=(3, 8))
    imported = {
        alias.name.partition(".")[0]
        for node in ast.walk(ast.parse(Path(host_script.__file__).read_text()))
        for alias in (node.names if isinstance(node, ast.Import) else [])
    }
    assert imported <= {*sys.stdlib_module_names, "numpy"}


def test_a_hosted_class_gives_what_it_gives_in_our_interpreter(folder: Path) -> None:
    """The same bytes and pixels; and it says what kept its decoder from all but the bytes."""
    own_class(folder)
    assert run("codec=./mine.py:Mine") == 0
    here = {(row.image, row.rate): row for row in rows()}
    assert run("codec=./mine.py:Mine", f"python={sys.executable}", "run=apart") == 0
    apart = {(row.image, row.rate): row for row in rows("apart")}
    assert len(apart) == len(here) == 4
    for place, row in apart.items():
        assert row.bitstream_sha256 == here[place].bitstream_sha256
        assert row.reconstruction_sha256 == here[place].reconstruction_sha256
        assert (row.grade, row.verified) == ("decoded", "fresh_process")
        assert json.loads(row.info)["enforced"].startswith("other process, empty folder")
        assert json.loads(row.coder)["package numpy"] == np.__version__
    assert run("codec=./mine.py:Mine", f"python={sys.executable}", "run=apart") == 0
    assert cli.main(["verify", "apart", "codec=./mine.py:Mine", f"python={sys.executable}"]) == 0
    assert cli.main(["verify", "apart"]) == 1  # rows start no interpreter


def test_seconds_of_the_first_image_have_no_weights_in_them(folder: Path) -> None:
    own_class(folder)
    text = (folder / "mine.py").read_text().replace('print("built")', "__import__('time').sleep(1.5)")
    (folder / "mine.py").write_text(text)
    assert run("codec=./mine.py:Mine", f"python={sys.executable}", "rate=8") == 0
    assert all(max(row.encode_s, row.decode_s) < 1 for row in rows())


def test_python_without_a_class_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("codec=jpeg", "python=~/envs/mine/bin/python") == 2
    assert "write codec=./mine.py:MyCodec" in capsys.readouterr().err
    own_class(folder)
    assert run("codec=./mine.py:Mine", "python=~/no/such/python") == 2
    assert "is no program" in capsys.readouterr().err


def test_weights_load_once_in_each_of_two_processes(folder: Path) -> None:
    own_class(
        folder,
        encode="open(self.note, 'a').write(f'e{os.getpid()}\\n')",
        decode="open(self.note, 'a').write(f'd{os.getpid()}\\n')",
    )
    text = (folder / "mine.py").read_text().replace('print("built")', "open(note, 'a').write(f'b{os.getpid()}\\n')")
    (folder / "mine.py").write_text(text)
    log = folder / "log.txt"
    words = ("codec=./mine.py:Mine", f"python={sys.executable}", f"codec.options.note={log}", "rate=8", "verify=0")
    assert run(*words) == 0
    lines = log.read_text().split()
    pids = {kind: {line[1:] for line in lines if line[0] == kind} for kind in "bed"}
    assert len(pids["e"]) == len(pids["d"]) == 1
    assert pids["e"] != pids["d"], "encoder and decoder are two processes"
    assert sum(line[0] == "b" for line in lines) == 2


FAULTS: dict[str, tuple[str, str, str]] = {
    "raises": ("raise ValueError('too dark')", "pass", "ValueError: too dark"),
    "ends": ("sys.exit(0)", "pass", "SystemExit"),
    "dies": ("os._exit(3)", "pass", "returned 3"),
    "is killed for memory": ("os.kill(os.getpid(), 9)", "pass", "SIGKILL"),
    "prints what is no text": (
        "sys.stdout.buffer.write(b'\\xff\\xfe'); sys.stdout.flush(); os._exit(1)",
        "pass",
        "returned 1",
    ),
    "returns text": ("return 'text'", "pass", "found str"),
    "returns words": ("return np.zeros(9, 'u4')", "pass", "4-byte items"),
    "swaps height and width": ("pass", "return self.decode_plain(data).transpose(1, 0, 2)", "decoded to"),
    "another size": ("pass", "return np.zeros((4, 4, 3), 'u1')", "decoded to (4, 4, 3)"),
    "needs what it kept": ("global kept; kept = image", "return kept", "name 'kept' is not defined"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_a_hosted_class_costs_one_image(folder: Path, fault: str) -> None:
    encode, decode, told = FAULTS[fault]
    only = "image.shape[0] == 21"
    own_class(folder, f"if {only}: {encode}" if encode != "pass" and "global" not in encode else encode)
    text = (folder / "mine.py").read_text()
    if decode != "pass":
        text += "\n    decode_plain = decode\n    def decode(self, data):\n"
        text += f"        if data[1] == 21: {decode}\n        return self.decode_plain(data)\n"
    (folder / "mine.py").write_text(text)
    assert run("codec=./mine.py:Mine", f"python={sys.executable}", "rate=8") == 1
    by_image = {row.image: row for row in rows()}
    assert by_image["second"].status == "ok"
    assert by_image["first"].status == "error"
    assert told in by_image["first"].error


def test_a_hang_and_a_child_that_stays(folder: Path) -> None:
    hang = "import subprocess, time; subprocess.Popen(['sleep', '4242']); time.sleep(1000)"
    own_class(folder, f"if image.shape[0] == 21:\n            {hang}")
    words = ["codec=./mine.py:Mine", f"python={sys.executable}", "rate=8", "timeout=4", "workers=1"]
    assert cli.main(["run", *words, "data=folder:images", "metrics=psnr", "figures=false"]) == 1
    by_image = {row.image: row for row in rows()}
    assert "no result within 4 seconds" in by_image["first"].error
    assert by_image["second"].status == "ok"
    time.sleep(0.3)
    left = subprocess.run(["pgrep", "-f", "sleep 4242"], capture_output=True, check=False)
    assert left.stdout == b"", "what the class started is ended with it"


def test_nothing_of_a_host_stays_behind(folder: Path) -> None:
    own_class(folder)
    line = [sys.executable, "-m", "rdpbench", "run", "codec=./mine.py:Mine", f"python={sys.executable}", "rate=8"]
    for workers in ("workers=0", "workers=1"):
        subprocess.run([*line, "data=folder:images", *QUICK[:2], workers, f"run={workers}"], check=True)
    assert not list(Path(tempfile.gettempdir()).glob("rdpbench-apart-*"))


def test_what_is_in_the_key_and_what_is_not(folder: Path) -> None:
    """An edited class, source, file or environment is another codec; a moved folder is not."""
    own_class(folder)
    (folder / "src").mkdir()
    (folder / "src" / "net.py").write_text("x = 1\n")
    (folder / "w.bin").write_bytes(b"weights")

    def identity(place: Path) -> str:
        forget()
        os.chdir(place)
        words = [
            "codec=./mine.py:Mine",
            f"python={sys.executable}",
            "codec.options.source=src",
            "codec.options.note=./w.bin",
        ]
        [codec] = read_bench([*words, "data=folder:images"]).codecs
        assert codec.name == "Mine[note=w.bin]"
        return codec_identity(codec, 8)

    first = identity(folder)
    (moved := folder.with_name("moved")).mkdir()
    subprocess.run(["cp", "-r", f"{folder}/.", str(moved)], check=True)
    assert identity(moved) == first
    (moved / "src" / "net.py").write_text("x = 2\n")
    assert identity(moved) != first
    (moved / "src" / "net.py").write_text("x = 1\n")
    assert identity(moved) == first
    (moved / "w.bin").write_bytes(b"others!")
    assert identity(moved) != first
    (moved / "w.bin").write_bytes(b"weights")
    (moved / "mine.py").write_text((moved / "mine.py").read_text() + "\n# edited\n")
    assert identity(moved) != first


def test_each_rate_point_may_have_a_file_of_its_own(folder: Path, scripts: Callable[..., str]) -> None:
    own_class(folder, "data = open(self.note, 'rb').read(); return Bitstream.whole(data)")
    for step, size in ((8, 3), (32, 5)):
        (folder / f"net-{step}.bin").write_bytes(bytes(size))
    run("codec=./mine.py:Mine", f"python={sys.executable}", "codec.options.note=./net-{step}.bin")
    [codec] = read_bench(
        ["codec=./mine.py:Mine", f"python={sys.executable}", "codec.options.note=./net-{step}.bin", "data=samples"]
    ).codecs
    image = np.zeros((4, 4, 3), np.uint8)
    assert [len(build(codec, rate).encode(image, Side()).data) for rate in (8, 32)] == [3, 5]
    assert codec_identity(codec, 8) != codec_identity(codec, 32)
    scripts(
        options='{net: "./net-{step}.bin"}', decode='["{python}", dec.py, "{streams}", "{reconstructions}", "{net}"]'
    )
    [codec] = read_bench(["codec=./two.yaml", "data=samples"]).codecs
    assert str(build(codec, 32).net).endswith("net-32.bin")  # type: ignore[attr-defined]


def test_sources_are_a_commit_and_how_it_was_edited(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", str(tmp_path), *who, *words], check=True, capture_output=True)

    (tmp_path / "net.py").write_text("x = 1\n")
    alone = source_identity(tmp_path)
    assert alone.startswith("files ")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    commit = source_identity(tmp_path)
    assert commit.startswith("commit ")
    assert "edited" not in commit
    (tmp_path / "net.py").write_text("x = 2\n")
    edited = source_identity(tmp_path)
    (tmp_path / "more.py").write_text("y = 1\n")
    assert len({commit, edited, source_identity(tmp_path)}) == 3
    (tmp_path / "more.py").unlink()
    git("checkout", "-q", "net.py")
    assert source_identity(tmp_path) == commit


def test_an_edit_is_seen_where_git_lacks_objects(tmp_path: Path) -> None:
    """A copy without large files: git has the commit, and cannot say what differs from it."""

    def git(*words: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        line = ["git", "-C", str(tmp_path), *who, *words]
        return subprocess.run(line, check=True, capture_output=True, text=True).stdout.strip()

    (tmp_path / "net.py").write_text("x = 1\n")
    (tmp_path / "captions.bin").write_bytes(bytes(100))
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    name = git("rev-parse", "HEAD:captions.bin")
    (tmp_path / ".git" / "objects" / name[:2] / name[2:]).unlink()
    (tmp_path / "captions.bin").unlink()
    before = source_identity(tmp_path)
    assert before.startswith("commit ")
    (tmp_path / "net.py").write_text("x = 2\n")
    assert source_identity(tmp_path) != before


def test_a_hosted_class_costs_little_more_than_one_of_ours(folder: Path) -> None:
    """At most 3 ms more for an image of 0.4 megapixels: of computing, which a busy machine does not make longer."""
    text = """
        import numpy as np
        from rdpbench import Bitstream

        class Mine:
            def encode(self, image, side):
                return Bitstream.whole(bytes(image[0, 0]))

            def decode(self, data):
                return np.zeros((512, 768, 3), np.uint8)
        """
    (folder / "mine.py").write_text(textwrap.dedent(text))
    image, repeats = np.zeros((512, 768, 3), np.uint8), 100
    reference = refer_class(str(folder / "mine.py"), "Mine", sys.executable, "", {})

    def seconds(codec: Any) -> float:
        def spent() -> float:
            clock = os.sysconf("SC_CLK_TCK")
            stats = [
                Path(f"/proc/{host.process.pid}/stat").read_text().rpartition(")")[2] for host in hosted._hosts.values()
            ]
            return time.process_time() + sum(sum(map(int, text.split()[11:13])) / clock for text in stats)

        codec.decode(codec.encode(image, Side()).data)  # what it loads is no part of it
        before = spent()
        for _ in range(repeats):
            codec.decode(codec.encode(image, Side()).data)
        return (spent() - before) / repeats

    here, apart = seconds(load("codec", f"{folder}/mine.py:Mine")()), seconds(load("codec", reference)())
    assert apart - here < 0.003, (here, apart)


# Programs

ENCODE = """
import pathlib, shutil, sys, zlib
from PIL import Image
import numpy as np
images, streams, rate = sys.argv[1:4]
print("weights loaded")
for path in sorted(pathlib.Path(images).iterdir()):
    image = np.asarray(Image.open(path))
    data = np.array(image.shape[:2], ">u2").tobytes() + zlib.compress((image // int(float(rate))).tobytes())
    {fault}
    (pathlib.Path(streams) / (path.stem + ".bin")).write_bytes(data)
"""
DECODE = """
import pathlib, sys, zlib
from PIL import Image
import numpy as np
streams, pictures, rate = sys.argv[1:4]
for path in sorted(pathlib.Path(streams).iterdir()):
    data = path.read_bytes()
    size = tuple(np.frombuffer(data[:4], ">u2"))
    image = np.frombuffer(zlib.decompress(data[4:]), "u1").reshape(*size, 3) * np.uint8(float(rate))
    {fault}
    Image.fromarray(image).save(pathlib.Path(pictures) / (path.stem + ".png"))
print("decoded in 0.25 s")
"""
DECLARED = """
name: two-scripts
rate_field: step
rates: [8, 32]
rises: false
python: {python}
encode: ["{{python}}", enc.py, "{{images}}", "{{streams}}", "{{rate}}"]
decode: ["{{python}}", dec.py, "{{streams}}", "{{reconstructions}}", "{{rate}}"]
time: "in (\\\\S+) s"
timeout_s: 20
"""


@pytest.fixture
def scripts(folder: Path) -> Callable[..., str]:
    def write(encoder: str = "pass", decoder: str = "pass", **changes: str) -> str:
        (folder / "enc.py").write_text(ENCODE.replace("{fault}", encoder))
        (folder / "dec.py").write_text(DECODE.replace("{fault}", decoder))
        text = DECLARED.format(python=sys.executable)
        for key, value in changes.items():
            kept = [line for line in text.splitlines() if not line.startswith(f"{key}:")]
            text = "\n".join([*kept, f"{key}: {value}"] if value else kept)
        (folder / "two.yaml").write_text(text)
        return "codec=./two.yaml"

    return write


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
    assert str(folder) in made[0].command
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


@pytest.mark.parametrize("fault", PROGRAM_FAULTS)
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
    assert "recipes that exist" in capsys.readouterr().err


# Grades


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
    assert "packages; grade joint: pictures are kept, about 0 MB" in capsys.readouterr().out
    assert cli.main(["verify", "folder-images", "--all"]) == 0
    [picture, *_] = (folder / "results/runs/folder-images/pictures").rglob("*.png")
    picture.write_bytes(b"")
    assert cli.main(["verify", "folder-images", "--all"]) == 1


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
    (folder / "sizes.csv").write_text("image,size\nfirst.png,0.5\n")
    assert cli.main([*score, "run=odd", "codec.options.sizes=sizes.csv"]) != 0
    said = capsys.readouterr()
    assert "write image, and one of bytes, bits, bpp" in said.err + said.out
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


def test_files_that_it_opens_and_a_newer_environment(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that the class opens by itself is noted, and changed ones are coded again; of two editions the newest."""
    (folder / "table.txt").write_text("8")
    own_class(folder, f"open({str(folder / 'table.txt')!r}).read()")
    words = ["codec=./mine.py:Mine", f"python={sys.executable}"]
    assert run(*words) == 0
    assert {str(folder / "table.txt")} == {name for row in rows() for name in json.loads(row.files)}
    (folder / "table.txt").write_text("9")
    capsys.readouterr()
    assert run(*words) == 0
    assert "4 tasks coded" in capsys.readouterr().out
    (folder / "src").mkdir()
    (folder / "src" / "a.py").write_text("x = 1\n")
    assert run(*words, "codec.options.source=src", "rate=8") == 0
    frame = read_results("folder-images")
    assert frame["rate"].tolist() == [8.0], "the other rate point is of another environment"
    assert frame["n"].tolist() == [2]
    assert cli.main(["report", "folder-images", *words, "codec.options.source=src"]) == 0
    text = "".join(path.read_text() for path in (folder / "results/runs/folder-images/report").rglob("*.js"))
    assert f"python={sys.executable} codec.options.source=" in text


def test_two_environments_in_one_command(folder: Path) -> None:
    own_class(folder)
    for name in ("one", "two"):
        declared = f"name: {name}\nuse: ./mine.py:Mine\npython: {sys.executable}\noptions: {{note: {name}}}\n"
        (folder / f"{name}.yaml").write_text(declared + "rate_field: step\nrates: [8, 16]\n")
    assert run("codec=./one.yaml,./two.yaml,jpeg", "points=2") == 0
    assert {(row.codec, row.rate) for row in rows()} >= {("one", 8), ("one", 16), ("two", 8), ("two", 16)}


def test_rows_start_no_interpreter_and_no_program(
    folder: Path, scripts: Callable[..., str], capsys: pytest.CaptureFixture[str]
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


def test_a_class_that_cannot_be_loaded_stops_the_plan(folder: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        refer_class(str(folder / "mine.py"), "Mine", sys.executable, "", {})
    (folder / "mine.py").write_text("import no_such_module\n")
    with pytest.raises(ConfigError, match="no_such_module"):
        load("codec", refer_class(str(folder / "mine.py"), "Mine", sys.executable, "", {}))
    (folder / "mine.py").write_text("class Other:\n    pass\n")
    with pytest.raises(ConfigError, match="classes there: Other"):
        load("codec", refer_class(str(folder / "mine.py"), "Mine", sys.executable, "", {}))
    with pytest.raises(ConfigError, match="no method encode and no decode"):
        load("codec", refer_class(str(folder / "mine.py"), "Other", sys.executable, "", {}))


def test_an_error_quotes_what_was_printed(folder: Path) -> None:
    own_class(folder, "print('cannot find checkpoint'); os._exit(5)")
    [codec] = read_bench(["codec=./mine.py:Mine", f"python={sys.executable}", "data=folder:images"]).codecs
    with pytest.raises(CoderFailed, match=r"(?s)returned 5.*cannot find checkpoint"):
        build(codec, 8).encode(np.zeros((4, 4, 3), np.uint8), Side())

"""Classes under another interpreter."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rdpbench import cli, read_results
from rdpbench.codecs.contract import Side
from rdpbench.codecs.external import host as host_script
from rdpbench.codecs.external import hosted
from rdpbench.codecs.external.declared import refer_class
from rdpbench.codecs.external.environment import source_identity
from rdpbench.config.bench import read_bench
from rdpbench.errors import CoderFailed, ConfigError
from rdpbench.registry import load
from rdpbench.results.store.keys import build, codec_identity, forget
from rdpbench.results.store.store import Store

QUICK = ("metrics=psnr", "figures=false", "workers=0")


def run(*words: str) -> int:
    """Decoded once more in a fresh process only where a test says how many."""
    again = () if any(word.startswith("verify=") for word in words) else ("verify=0",)
    return cli.main(["run", *words, "data=folder:images", *QUICK, *again])


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


def test_a_hosted_class_gives_what_it_gives_in_our_interpreter(folder: Path, own_class: Callable[..., None]) -> None:
    """The same bytes and pixels; and it says what kept its decoder from all but the bytes."""
    own_class(folder)
    assert run("codec=./mine.py:Mine") == 0
    here = {(row.image, row.rate): row for row in rows()}
    assert run("codec=./mine.py:Mine", f"python={sys.executable}", "run=apart", "verify=4") == 0
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


def test_seconds_of_the_first_image_have_no_weights_in_them(folder: Path, own_class: Callable[..., None]) -> None:
    own_class(folder)
    text = (folder / "mine.py").read_text().replace('print("built")', "__import__('time').sleep(1.5)")
    (folder / "mine.py").write_text(text)
    assert run("codec=./mine.py:Mine", f"python={sys.executable}", "rate=8") == 0
    assert all(max(row.encode_s, row.decode_s) < 1 for row in rows())


def test_python_without_a_class_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], own_class: Callable[..., None]
) -> None:
    assert run("codec=jpeg", "python=~/envs/mine/bin/python") == 2
    assert "write codec=./mine.py:MyCodec" in capsys.readouterr().err
    own_class(folder)
    assert run("codec=./mine.py:Mine", "python=~/no/such/python") == 2
    assert "is no program" in capsys.readouterr().err


def test_weights_load_once_in_each_of_two_processes(folder: Path, own_class: Callable[..., None]) -> None:
    own_class(
        folder,
        encode="open(self.note, 'a').write(f'e{os.getpid()}\\n')",
        decode="open(self.note, 'a').write(f'd{os.getpid()}\\n')",
    )
    text = (folder / "mine.py").read_text().replace('print("built")', "open(note, 'a').write(f'b{os.getpid()}\\n')")
    (folder / "mine.py").write_text(text)
    log = folder / "log.txt"
    words = ("codec=./mine.py:Mine", f"python={sys.executable}", f"codec.options.note={log}", "rate=8")
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


LIKE_ANOTHER = {"ends", "is killed for memory", "prints what is no text", "returns words", "another size"}
"""Of the kind of one that is fast."""


@pytest.mark.parametrize(
    "fault", [pytest.param(name, marks=[pytest.mark.slow] if name in LIKE_ANOTHER else []) for name in FAULTS]
)
def test_a_fault_of_a_hosted_class_costs_one_image(folder: Path, fault: str, own_class: Callable[..., None]) -> None:
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


def test_a_hang_and_a_child_that_stays(folder: Path, own_class: Callable[..., None]) -> None:
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


def test_nothing_of_a_host_stays_behind(folder: Path, own_class: Callable[..., None]) -> None:
    own_class(folder)
    line = [sys.executable, "-m", "rdpbench", "run", "codec=./mine.py:Mine", f"python={sys.executable}", "rate=8"]
    for workers in ("workers=0", "workers=1"):
        subprocess.run([*line, "data=folder:images", *QUICK[:2], workers, f"run={workers}"], check=True)
    assert not list(Path(tempfile.gettempdir()).glob("rdpbench-apart-*"))


def test_what_is_in_the_key_and_what_is_not(folder: Path, own_class: Callable[..., None]) -> None:
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


def test_each_rate_point_may_have_a_file_of_its_own(
    folder: Path, scripts: Callable[..., str], own_class: Callable[..., None]
) -> None:
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


def test_files_that_it_opens_and_a_newer_environment(
    folder: Path, capsys: pytest.CaptureFixture[str], own_class: Callable[..., None]
) -> None:
    """A file that the class opens by itself is noted, and changed ones are coded again; of two editions the newest."""
    (folder / "table.txt").write_text("8")
    own_class(folder, f"open({str(folder / 'table.txt')!r}).read()")
    words = ["codec=./mine.py:Mine", f"python={sys.executable}"]
    assert run(*words) == 0
    assert {"table.txt"} == {name for row in rows() for name in json.loads(row.files)}
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
    # What is published names no place of this machine.
    assert f"python=\\u2026/{Path(sys.executable).name} codec.options.source=" in text


def test_two_environments_in_one_command(folder: Path, own_class: Callable[..., None]) -> None:
    own_class(folder)
    for name in ("one", "two"):
        declared = f"name: {name}\nuse: ./mine.py:Mine\npython: {sys.executable}\noptions: {{note: {name}}}\n"
        (folder / f"{name}.yaml").write_text(declared + "rate_field: step\nrates: [8, 16]\n")
    assert run("codec=./one.yaml,./two.yaml,jpeg", "points=2") == 0
    assert {(row.codec, row.rate) for row in rows()} >= {("one", 8), ("one", 16), ("two", 8), ("two", 16)}


def test_a_class_that_cannot_be_loaded_stops_the_plan(folder: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        refer_class(str(folder / "mine.py"), "Mine", sys.executable, "", {})
    (folder / "mine.py").write_text("import no_such_module\n")
    with pytest.raises(ConfigError, match="no_such_module"):
        load("codec", refer_class(str(folder / "mine.py"), "Mine", sys.executable, "", {}))
    (folder / "mine.py").write_text("class Other:\n    pass\n")
    with pytest.raises(ConfigError, match="classes there: Other"):
        load("codec", refer_class(str(folder / "mine.py"), "Mine", sys.executable, "", {}))
    with pytest.raises(ConfigError, match=r"lacks\n  def encode.*\n  def decode"):
        load("codec", refer_class(str(folder / "mine.py"), "Other", sys.executable, "", {}))


def test_an_error_quotes_what_was_printed(folder: Path, own_class: Callable[..., None]) -> None:
    own_class(folder, "print('cannot find checkpoint'); os._exit(5)")
    [codec] = read_bench(["codec=./mine.py:Mine", f"python={sys.executable}", "data=folder:images"]).codecs
    with pytest.raises(CoderFailed, match=r"(?s)returned 5.*cannot find checkpoint"):
        build(codec, 8).encode(np.zeros((4, 4, 3), np.uint8), Side())

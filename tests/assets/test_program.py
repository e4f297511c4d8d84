"""Running foreign programs: what comes back, what is said when they fail, and that nothing stays behind."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from rdpbench.assets import program
from rdpbench.assets.program import In, Out, Ran, program_identity, run_program
from rdpbench.errors import (
    CoderFailed,
)

PYTHON = Path(sys.executable)


def python(code: str, *arguments: str | In | Out, timeout_s: float = 30) -> Ran:
    return run_program(PYTHON, ["-c", code, *arguments], timeout_s)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture(params=["memory files", "temporary folder"])
def files(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Both ways to hand files over; the folder returned must be empty in the end."""
    if request.param == "temporary folder":
        monkeypatch.setattr(program, "_memory_files", lambda: False)
    elif not program._memory_files():
        pytest.skip("no memory files on this system")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


REVERSE = "import sys; open(sys.argv[2], 'wb').write(open(sys.argv[1], 'rb').read()[::-1])"


def test_files_in_and_out(files: Path) -> None:
    ran = python(REVERSE, In("in file.bin", b"abc"), Out("out.bin"))
    assert ran.outputs == {"out.bin": b"cba"}
    assert ran.command.endswith("'in file.bin' out.bin"), "the command can be typed again"
    assert not list(files.iterdir())


def test_large_files_and_much_talk(files: Path) -> None:
    data = bytes(range(256)) * (1 << 16)
    ran = python(REVERSE + "; print('o' * 3_000_000); print('e' * 3_000_000, file=sys.stderr)", In("i", data), Out("o"))
    assert ran.outputs["o"] == data[::-1]
    assert (len(ran.stdout), len(ran.stderr)) == (3_000_001, 3_000_001)


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import sys; print('no\\nsuch\\nmode', file=sys.stderr); sys.exit(3)", ["returned 3", "| no", "| mode"]),
        ("import os; os.kill(os.getpid(), 11)", ["was killed by SIGSEGV", "it said: nothing"]),
        ("import os; os.kill(os.getpid(), 40)", ["was killed by signal 40"]),
        ("print('done nothing')", ["wrote nothing to out.bin", "| done nothing"]),
    ],
)
def test_failures_quote_command_and_last_words(files: Path, code: str, says: list[str]) -> None:
    with pytest.raises(CoderFailed) as caught:
        python(code, Out("out.bin"))
    for words in [PYTHON.name, "command: ", "out.bin", *says]:
        assert words in str(caught.value)
    assert not list(files.iterdir())


def test_removed_output_is_an_empty_one(files: Path) -> None:
    with pytest.raises(CoderFailed, match="wrote nothing to out"):
        run_program(Path("/bin/sh"), ["-c", 'rm -f "$0"; exit 0', Out("out")], 5)


def test_timeout_leaves_no_child(files: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    note = tmp_path_factory.mktemp("note") / "pid"
    litter = note.parent / "left-{pid}"
    code = (
        "import os, subprocess, sys, time; child = subprocess.Popen(['sleep', '60']);"
        f"open({str(note.parent)!r} + f'/left-{{os.getpid()}}', 'w').close();"
        f"open({str(note)!r}, 'w').write(str(child.pid)); print('working', file=sys.stderr, flush=True); time.sleep(60)"
    )
    start = time.monotonic()
    with pytest.raises(CoderFailed, match=r"(?s)timeout_s=1\.5 seconds.*working"):
        run_program(PYTHON, ["-c", code, Out("out.bin")], 1.5, [str(litter)])
    assert time.monotonic() - start < 20
    for _ in range(100):
        if not is_running(int(note.read_text())):
            break
        time.sleep(0.05)
    assert not is_running(int(note.read_text()))
    assert [path.name for path in note.parent.iterdir()] == ["pid"], "what the program is known to leave is removed"
    assert not list(files.iterdir())


def test_interrupt_ends_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []

    def interrupted(self: subprocess.Popen[bytes], **_: object) -> None:
        started.append(self.pid)
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "communicate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_program(Path("/bin/sleep"), ["60"], 60)
    assert not is_running(started[0])


def test_not_a_program(tmp_path: Path) -> None:
    text = tmp_path / "coder"
    text.write_text("hello")
    text.chmod(0o755)
    with pytest.raises(CoderFailed, match="coder did not start"):
        run_program(text, [], 5)
    with pytest.raises(CoderFailed, match="gone did not start"):
        run_program(tmp_path / "gone", [], 5)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits are set on Linux only")
def test_endless_output_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "LARGEST_OUTPUT", 1 << 20)
    code = "import signal, sys, time; signal.signal(25, signal.SIG_DFL); time.sleep(0.3)\n"
    with pytest.raises(CoderFailed, match="SIGXFSZ"):
        python(code + "f = open(sys.argv[1], 'wb')\nwhile True: f.write(bytes(1 << 16)); f.flush()", Out("o"))


def test_nothing_passes_through_a_shell() -> None:
    ran = python("import sys; print(sys.argv[1])", "$(id); `id` > x & *")
    assert ran.stdout.strip() == "$(id); `id` > x & *"


def test_no_descriptor_leaks() -> None:
    def opened() -> int:
        return len(list(Path("/proc/self/fd").glob("*")))

    before = opened()
    for code in (REVERSE, "raise SystemExit(1)"):
        for _ in range(5):
            with contextlib.suppress(CoderFailed):
                python(code, In("i", b"x"), Out("o"))
    assert opened() == before


def test_identity_follows_the_file(tmp_path: Path) -> None:
    coder = tmp_path / "coder"
    seen = []
    for version in ("1.2", "1.3"):
        coder.write_text(f"#!/bin/sh\necho Coder version {version}\nexit 1\n")
        coder.chmod(0o755)
        os.utime(coder, ns=(0, len(seen)))
        seen.append(program_identity(coder))
    assert [text.split()[0] for text in seen] == ["1.2", "1.3"]
    assert seen[0].split("sha256:")[1] != seen[1].split("sha256:")[1]
    assert all(len(text.split("sha256:")[1]) == 64 for text in seen)

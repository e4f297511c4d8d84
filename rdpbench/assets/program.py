"""Run a program of the user's on an image: bytes in, bytes out, with a time limit and errors that explain.

An argument list may hold `In` and `Out` in the places of files. On Linux these are memory files, handed over as
``/proc/self/fd/N``: nothing reaches a disk, and nothing stays behind however the program ends. Elsewhere they are files
in a temporary folder that is always removed. Either way the command that is kept beside a result says ``in.png``
and ``out.bpg``, so that it can be typed again.

Results never travel through the program's stdout: libraries print there (libvvenc inside FFmpeg puts its warnings
into the bitstream that way, about 110 bytes of them).
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeAlias

from rdpbench.assets.hashes import content_sha256
from rdpbench.errors import CoderFailed, MissingNeed
from rdpbench.needs import File, Package, refused

LARGEST_OUTPUT = 1 << 32
"""Bytes; a damaged size in a bitstream must not fill the memory or the disk."""


@dataclass(frozen=True)
class In:
    """A file that the program reads."""

    name: str
    data: bytes


@dataclass(frozen=True)
class Out:
    """A file that the program must write."""

    name: str


Argument: TypeAlias = str | In | Out


@dataclass(frozen=True)
class Ran:
    """What a program did."""

    command: str
    outputs: Mapping[str, bytes]
    stdout: str
    stderr: str


def run_program(program: Path, arguments: Sequence[Argument], timeout_s: float, litter: Sequence[str] = ()) -> Ran:
    """Run a program to its end and return what it wrote; ``arguments`` never pass through a shell.

    It and its children are killed after so many seconds. ``litter`` are paths of files that it is known to leave behind
    then, with ``{pid}`` in them. Whatever else than a full output is a `CoderFailed`.

    >>> arguments = ["-c", 'tr a-z A-Z <"$0" >"$1"', In("in.txt", b"bits"), Out("out.txt")]
    >>> run_program(Path("/bin/sh"), arguments, timeout_s=10).outputs
    {'out.txt': b'BITS'}
    """
    command = shlex.join([program.name, *(a if isinstance(a, str) else a.name for a in arguments)])
    with _files([a for a in arguments if not isinstance(a, str)]) as (places, descriptors):
        real = [a if isinstance(a, str) else places[a.name] for a in arguments]
        try:
            # A session of its own: a kill then reaches the program's children too.
            process = subprocess.Popen(
                [str(program), *real],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=descriptors,
                start_new_session=True,
            )
        except OSError as error:
            raise CoderFailed(f"{program.name} did not start: {error}\n  command: {command}") from error
        stdout, stderr, end = _wait(process, timeout_s, [Path(path.format(pid=process.pid)) for path in litter])
        if end:
            raise CoderFailed(_report(program, end, command, stdout, stderr))
        written = {a.name: Path(places[a.name]) for a in arguments if isinstance(a, Out)}
        # Some programs remove what they did not finish, and return 0 all the same.
        outputs = {name: path.read_bytes() if path.exists() else b"" for name, path in written.items()}
    for name, data in outputs.items():
        if not data:
            raise CoderFailed(_report(program, f"wrote nothing to {name}", command, stdout, stderr))
    return Ran(command, outputs, _text(stdout), _text(stderr))


def require(need: File) -> Path:
    """The path of a program or file, or `MissingNeed` with what to type."""
    if path := need.find():
        return path
    raise MissingNeed(need.missing() or f"{need} was here a moment ago")


def program_identity(program: Path, arguments: Sequence[str] = (), pattern: str = r"[Vv]ersion (\S+)") -> str:
    """Version (see `probe`) and sha256 of a program, for ``coder()``: ``"0.9.8 sha256:..."``."""
    return f"{probe(program, arguments, pattern)} sha256:{content_sha256(program)}"


def probe(program: Path, arguments: Sequence[str], pattern: str) -> str:
    """First group of ``pattern`` in what the program prints, ``"unknown"`` without a match; asked once per file."""
    return _probe(program, program.stat().st_size, program.stat().st_mtime_ns, tuple(arguments), pattern)


def _memory_files() -> bool:
    return hasattr(os, "memfd_create") and Path("/proc/self/fd").is_dir()


@contextlib.contextmanager
def _files(wanted: Sequence[In | Out]) -> Iterator[tuple[dict[str, str], list[int]]]:
    """Places for files by name, and the descriptors that the program must inherit for them."""
    with contextlib.ExitStack() as stack:
        if not _memory_files():
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rdpbench-")))
            places = {file.name: str(folder / file.name) for file in wanted}
            descriptors: list[int] = []
        else:
            descriptors = [os.memfd_create(file.name) for file in wanted]
            for descriptor in descriptors:
                stack.callback(os.close, descriptor)
            # In the child "self" is the child; the descriptors keep their numbers there.
            numbers = zip(wanted, descriptors, strict=True)
            places = {file.name: f"/proc/self/fd/{descriptor}" for file, descriptor in numbers}
        for file in wanted:
            Path(places[file.name]).write_bytes(file.data if isinstance(file, In) else b"")
        yield places, descriptors


def _wait(process: subprocess.Popen[bytes], timeout_s: float, litter: Sequence[Path]) -> tuple[bytes, bytes, str]:
    """Everything the program printed, and how it failed (empty if it did not)."""
    _limit(process.pid)
    try:
        stdout, stderr = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired as late:
        _kill(process)
        return late.stdout or b"", late.stderr or b"", f"was stopped after timeout_s={timeout_s:g} seconds"
    except BaseException:  # Ctrl-C goes to us, not to the program's own session
        _kill(process)
        raise
    finally:
        for path in litter:
            path.unlink(missing_ok=True)
    code = process.returncode
    if code < 0:
        known = {number.value: number.name for number in signal.Signals}
        return stdout, stderr, f"was killed by {known.get(-code, f'signal {-code}')}"
    return stdout, stderr, f"returned {code}" if code else ""


def _limit(pid: int) -> None:
    """No memory dumps of crashes in the user's folder, no endless outputs. Best effort: not every system can."""
    with contextlib.suppress(ImportError, OSError, AttributeError):
        import resource

        resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (LARGEST_OUTPUT, LARGEST_OUTPUT))


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdout, process.stderr):
        if pipe:
            pipe.close()


def _report(program: Path, end: str, command: str, stdout: bytes, stderr: bytes) -> str:
    said = [line for line in _text(stderr or stdout).splitlines() if line.strip()][-5:]
    quoted = "".join(f"\n  | {line[:200]}" for line in said) or " nothing"
    return f"{program.name} {end}\n  command: {command}\n  it said:{quoted}"


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


@cache
def _probe(program: Path, size: int, mtime_ns: int, arguments: tuple[str, ...], pattern: str) -> str:  # noqa: ARG001 - a file that changed is asked again
    command = [str(program), *arguments]
    try:
        ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    match = re.search(pattern, _text(ended.stdout + ended.stderr))
    return match[1] if match else "unknown"


@dataclass(frozen=True)
class FFmpeg:
    """The program in the imageio-ffmpeg wheel, or the one that its variable IMAGEIO_FFMPEG_EXE names, with a part.

    >>> FFmpeg("filter", "scale").missing() is None
    True
    """

    kind: str
    """As ``ffmpeg -h`` names it: ``encoder``, ``filter``."""
    part: str
    """What it must be built with."""

    def path(self) -> Path:
        """Raises `MissingNeed`: the wheel has none for this machine."""
        import imageio_ffmpeg

        try:
            return Path(imageio_ffmpeg.get_ffmpeg_exe())
        except RuntimeError as error:
            raise MissingNeed(f"imageio-ffmpeg has no ffmpeg program for this machine: {error}") from error

    def identity(self) -> str:
        """Version and sha256 of the program."""
        return program_identity(self.path(), ["-version"], r"ffmpeg version (\S+)")

    def missing(self) -> str | None:
        if absent := Package("imageio-ffmpeg").missing() or refused(self.path):
            return absent
        path = self.path()
        known = rf"({self.kind.capitalize()} {self.part})"
        if probe(path, ["-hide_banner", "-h", f"{self.kind}={self.part}"], known) == "unknown":
            return (
                f"{path} has no {self.kind} {self.part}; type: unset IMAGEIO_FFMPEG_EXE; pip install -U imageio-ffmpeg"
            )
        return None

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
from typing import IO, Any, TypeAlias

from rdpbench.assets.hashes import content_sha256
from rdpbench.errors import CoderFailed, MissingNeed
from rdpbench.needs import File, Package, refused

LARGEST_OUTPUT = 1 << 32
"""Bytes; a damaged size in a bitstream must not fill the memory or the disk."""
MOST_PRINTED = 1 << 24
"""Bytes of what a program printed that are read, from the end."""


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
        real = [str(program), *(a if isinstance(a, str) else places[a.name] for a in arguments)]
        stdout, stderr = finish(real, timeout_s, program.name, command, litter, limited=True, pass_fds=descriptors)
        written = {a.name: Path(places[a.name]) for a in arguments if isinstance(a, Out)}
        # Some programs remove what they did not finish, and return 0 all the same.
        outputs = {name: path.read_bytes() if path.exists() else b"" for name, path in written.items()}
    for name, data in outputs.items():
        if not data:
            raise CoderFailed(f"{program.name} wrote nothing to {name}\n  command: {command}{quoted(stderr or stdout)}")
    return Ran(command, outputs, stdout, stderr)


def finish(
    line: Sequence[str],
    timeout_s: float,
    name: str,
    command: str,
    litter: Sequence[str] = (),
    *,
    limited: bool = False,
    **how: Any,
) -> tuple[str, str]:
    """Run a program to its end; what it printed to stdout and stderr. What it started is killed when it ends.

    Args:
        line: what is run.
        timeout_s: after so many seconds it is killed, too.
        name: what it is called in errors, which also quote ``command`` and its last lines.
        command: the line as it can be typed again.
        litter: see `run_program`.
        limited: no memory dumps of crashes in the user's folder, no endless outputs; as far as the system can.
        how: for ``subprocess.Popen``.

    Raises:
        CoderFailed: it does not start, ends with another exit code than 0, or takes too long.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        try:
            # A session of its own: a kill then reaches the program's children too.
            files: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": errors}
            process = subprocess.Popen([*line], start_new_session=True, **files | how)
        except OSError as error:
            raise CoderFailed(f"{name} did not start: {error}\n  command: {command}") from error
        try:
            if limited:
                _limit(process.pid)
            process.communicate(timeout=timeout_s)
            end = died(process.returncode) if process.returncode else ""
        except subprocess.TimeoutExpired:
            end = f"was stopped after timeout_s={timeout_s:g} seconds"
        finally:  # also where we are interrupted: Ctrl-C goes to us, not to the program's own session
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            for path in litter:
                Path(path.format(pid=process.pid)).unlink(missing_ok=True)
        stdout, stderr = map(_last, (out, errors))
    if end:
        raise CoderFailed(f"{name} {end}\n  command: {command}{quoted(stderr or stdout)}")
    return stdout, stderr


def _last(file: IO[bytes]) -> str:
    file.seek(max(0, file.seek(0, os.SEEK_END) - MOST_PRINTED))
    return file.read().decode(errors="replace")


def died(code: int) -> str:
    """How a process ended.

    >>> died(-9), died(3)
    ('was killed by SIGKILL (out of memory?)', 'returned 3')
    """
    return f"returned {code}" if code >= 0 else f"was killed by {killer(code)}"


def killer(code: int) -> str:
    """The signal that ended a process."""
    name = next((number.name for number in signal.Signals if number == -code), f"signal {-code}")
    return name + (" (out of memory?)" if code == -signal.SIGKILL else "")


def quoted(printed: str) -> str:
    """The last lines that a program printed, for an error.

    >>> quoted("loading\\n\\nno such file\\n"), quoted("")
    ('\\n  it said:\\n  | loading\\n  | no such file', '\\n  it said: nothing')
    """
    lines = [line for line in printed.splitlines() if line.strip()][-5:]
    return "\n  it said:" + ("".join(f"\n  | {line[:200]}" for line in lines) or " nothing")


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


def _limit(pid: int) -> None:
    with contextlib.suppress(ImportError, OSError, AttributeError):
        import resource

        resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (LARGEST_OUTPUT, LARGEST_OUTPUT))


@cache
def _probe(program: Path, size: int, mtime_ns: int, arguments: tuple[str, ...], pattern: str) -> str:  # noqa: ARG001 - a file that changed is asked again
    command = [str(program), *arguments]
    try:
        ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    match = re.search(pattern, (ended.stdout + ended.stderr).decode(errors="replace"))
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

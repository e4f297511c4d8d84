"""Which files a user's code opens while it runs: rows that depend on them are made again when they change.

Python's audit hook sees what Python opens, in any thread. It does not see what C code or another program opens, except
files that are named on a program's command line.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shlex
import shutil
import stat
import sys
import sysconfig
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from types import FrameType, ModuleType
from typing import Any, NamedTuple

CARRIED = 32
"""Files opened early in a process count for all that the process codes later: it may remember what was in them.

Beyond so many, what is opened is taken to be of one image.
"""


class Seen(NamedTuple):
    """A file's state when it was opened."""

    size: int
    ctime_ns: int


@dataclass
class Opened:
    """The files that code of the user's opened in this process."""

    sources: Mapping[str, bytes]
    files: dict[str, Seen] = field(default_factory=dict)
    turn: dict[str, Seen] = field(default_factory=dict)
    """Since `begin`."""
    given: dict[str, Seen] = field(default_factory=dict)
    """Named to a program: read by it if it did not change them."""
    written: set[str] = field(default_factory=set)
    folders: set[str] = field(default_factory=set)
    """Made by this code, with all that is in them."""

    def begin(self) -> None:
        """Another image."""
        self.turn.clear()

    def now(self) -> dict[str, Seen]:
        """What the image at hand may depend on."""
        for name, seen in self.given.items():
            if seen_now(name) == seen:
                self._read(name, seen)
            else:
                self.written.add(name)
        self.given.clear()
        early = dict(list(self.files.items())[:CARRIED])
        return {name: seen for name, seen in {**early, **self.turn}.items() if name not in self.written}

    def note(self, name: str, *, written: bool = False, program: bool = False) -> None:
        """A file that was opened."""
        if written:
            self.written.add(name)
            return
        if _is_ignored(name) or name in self.written or name in self.sources:
            return
        if any(name.startswith(folder) for folder in self.folders):
            return
        seen = seen_now(name)
        if seen is not None and program:
            self.given.setdefault(name, seen)
        elif seen is not None:
            self._read(name, seen)
        elif program:
            self.written.add(name)  # it is not there yet

    def _read(self, name: str, seen: Seen) -> None:
        self.files[name] = self.turn[name] = seen


_opened: dict[str, Opened] = {}
_owners: dict[str, set[str]] = {}
"""First names of modules of the user's, to the files or modules that were named."""
_threads: weakref.WeakKeyDictionary[threading.Thread, set[str]] = weakref.WeakKeyDictionary()


def watch(where: str, tops: Iterable[str], sources: Mapping[str, bytes]) -> None:
    """From now on, note what modules of these first names open."""
    if not _owners:
        sys.addaudithook(_hook)
        threading.Thread.start = _start  # type: ignore[method-assign, assignment]  # not audited before Python 3.12
    for top in tops:
        _owners.setdefault(top, set()).add(where)
    _opened.setdefault(where, Opened(sources)).sources = sources


def forget_opened(where: str) -> None:
    """Its modules are gone, with all that they remembered; those that it imported from elsewhere are not."""
    before = opened(where)
    modules = [module for module in sys.modules.values() if isinstance(module, ModuleType)]
    loaded = {vars(module).get("__file__") for module in modules}
    _opened[where] = Opened(before.sources, {name: seen for name, seen in before.files.items() if name in loaded})


def opened(where: str) -> Opened:
    """What a file or module of the user's opened in this process."""
    return _opened.setdefault(where, Opened({}))


def seen_now(name: str) -> Seen | None:
    """A regular file's state; None if there is none."""
    try:
        state = Path(name).stat()
    except (OSError, ValueError):
        return None
    return Seen(state.st_size, state.st_ctime_ns) if stat.S_ISREG(state.st_mode) else None


_WRITES = os.O_WRONLY | os.O_TRUNC | os.O_APPEND | os.O_CREAT


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    with contextlib.suppress(Exception):  # whatever it is that was opened, opening it goes on
        if noted := _EVENTS.get(event):
            noted(*arguments)


def _on_open(path: Any, mode: object, flags: int, *_: object) -> None:  # noqa: ARG001
    if isinstance(path, int):
        return
    name = os.path.abspath(os.fsdecode(path))  # noqa: PTH100 (as it was named: a link may be turned later)
    if not _is_ignored(name):
        if os.path.basename(os.path.dirname(name)) == "__pycache__" and name.endswith(".pyc"):  # noqa: PTH119, PTH120
            name = importlib.util.source_from_cache(name)
        for each in _who():
            each.note(name, written=bool(flags & _WRITES))


def _on_library(*arguments: Any) -> None:
    """A shared object: its path is the last argument, or the second."""
    path = arguments[0] if len(arguments) == 1 else arguments[1]
    if isinstance(path, str | bytes | PurePath) and os.sep in os.fsdecode(path):
        _on_open(path, None, os.O_RDONLY)


def _on_folder(path: Any, *_: object) -> None:
    name = os.path.abspath(os.fsdecode(path))  # noqa: PTH100
    for each in () if Path(name).is_dir() else _who():  # it is told before it is made, or is there already
        each.folders.add(f"{name}/")


def _on_rename(source: Any, target: Any, *_: object) -> None:
    before, after = (os.path.abspath(os.fsdecode(path)) for path in (source, target))  # noqa: PTH100
    for each in _who():
        if before in each.written:
            each.written.add(after)


def _on_program(executable: Any, arguments: Any, folder: Any, *_: object) -> None:
    users = _who()
    if not users:
        return
    line = [arguments] if isinstance(arguments, str | bytes | PurePath) else list(arguments)
    words = [os.fsdecode(word) for word in line]
    with contextlib.suppress(ValueError):  # the command of a shell is one word
        words += [part for word in words if " " in word for part in shlex.split(word)]
    words += [word.partition("=")[2] for word in words if "=" in word]
    program = os.fsdecode(executable) if executable else words[0]
    base = os.fsdecode(folder) if folder else ""
    names = {os.path.abspath(os.path.join(base, word)) for word in words if word and not word.startswith("-")}  # noqa: PTH100, PTH118
    names.add(os.path.abspath(shutil.which(program) or program))  # noqa: PTH100
    for each in users:
        for name in names:
            each.note(name, program=True)


_start_thread = threading.Thread.start


def _start(thread: threading.Thread) -> None:
    """A thread is of whoever starts it, also where nothing but a library's function runs in it."""
    if names := _who_names():
        _threads[thread] = names
    _start_thread(thread)


_EVENTS: dict[str, Callable[..., None]] = {
    "open": _on_open,
    "ctypes.dlopen": _on_library,
    "import": _on_library,
    "os.mkdir": _on_folder,
    "os.rename": _on_rename,
    "subprocess.Popen": _on_program,
}


def _who() -> list[Opened]:
    return [_opened[name] for name in _who_names()]


def _who_names() -> set[str]:
    """Whose code is running: that of the modules on the stack, or of whoever started the thread."""
    thread = threading._active.get(threading.get_ident())  # type: ignore[attr-defined]  # current_thread() may make one
    names = set(_threads.get(thread, ())) if thread is not None else set()
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module == "linecache":  # lines of sources, for a warning or a traceback
            return set()
        names |= _owners.get(module.partition(".")[0], set())
        frame = frame.f_back
    return names


def _ignored() -> tuple[str, ...]:
    """Folders of the system, of the interpreter and of installed packages: the key knows them by version, or not."""
    import site

    prefixes = {sys.prefix, sys.base_prefix, sys.exec_prefix}
    own = [f"{prefix}/{folder}" for prefix in prefixes for folder in ("lib", "lib64", "include", "share", "etc")]
    system = ["/proc", "/sys", "/dev", "/etc", "/lib", "/lib64", "/bin", "/sbin"]
    system += [f"/usr/{folder}" for folder in ("bin", "sbin", "lib", "lib64", "libexec", "share")]
    paths = [*sysconfig.get_paths().values(), *site.getsitepackages(), site.getusersitepackages()]
    scripts = sysconfig.get_path("scripts")
    kept = [path for path in paths if path not in (scripts, *prefixes)]
    return tuple(f"{path}/" for path in dict.fromkeys([*own, *system, *kept, str(Path(__file__).parent)]))


_IGNORED = _ignored()
_PYTHONS = {sys.executable, os.path.realpath(sys.executable)}


def _is_ignored(name: str) -> bool:
    if name.startswith(_IGNORED) or name in _PYTHONS:
        return True
    return "/site-packages/" in name or "/dist-packages/" in name or name.endswith((".nbi", ".nbc"))

"""Runs in another interpreter (Python 3.8 or later, numpy): builds a class of the user's, encodes and decodes with it.

rdpbench starts it as ``python host.py REQUESTS ANSWERS LIFE``, three numbers of inherited pipes. A message is 4 bytes
(big-endian: the length of a JSON head), the head, and the bytes that the head announces under ``bytes``. Nothing of
rdpbench is imported: the class finds a small module of that name, with `Bitstream`, `Rate` and `Side`.
"""

from __future__ import annotations

import ctypes
import dataclasses
import inspect
import json
import os
import resource
import signal
import sys
import threading
import traceback
import types
from contextlib import suppress
from importlib import util
from pathlib import Path
from typing import Any, NoReturn

HEAD = 4
OPENED = 64
"""Files that an answer names at most: a class that opens more reads its own data set."""
FLAGS = ("seeded", "stochastic", "batches", "heavy", "uses_caption")


# What the class imports from rdpbench


class Bitstream:
    """The bytes that are counted, in parts that add up to them; ``info`` holds texts worth reading beside the row."""

    def __init__(self, data: Any, parts: Any = None, info: Any = None) -> None:
        self.data = bytes(data)
        self.parts = {"file": len(self.data)} if parts is None else dict(parts)
        self.info = dict(info or {})

    @classmethod
    def whole(cls, data: Any, **info: str) -> Bitstream:
        return cls(data, None, info)


class Rate:
    """The keyword argument that sets the rate, and the values that it takes."""

    def __init__(
        self,
        field: str,
        low: float,
        high: float,
        step: float = 1,
        rises: bool = True,
        points: Any = (),
        listed: bool = False,
    ) -> None:
        self.stated = {"field": field, "low": low, "high": high, "step": step}
        self.stated.update(rises=rises, points=list(points), listed=listed)


class Side:
    """What only the encoder sees beside the image."""

    def __init__(self, caption: str | None = None, seed: int = 0) -> None:
        self.caption, self.seed = caption, seed


class UnsupportedImage(ValueError):
    """An image that the codec cannot code, for a reason."""


def offer_rdpbench() -> None:
    """Make ``from rdpbench import Bitstream, Rate, Side`` work without rdpbench."""
    names = {"Bitstream": Bitstream, "Rate": Rate, "Side": Side, "UnsupportedImage": UnsupportedImage}
    for name in ("rdpbench", "rdpbench.codecs", "rdpbench.codecs.contract", "rdpbench.errors"):
        module = types.ModuleType(name)
        module.__path__ = []
        vars(module).update(names)
        sys.modules[name] = module


# What it opens


opened: list[str] = []
noted: set[str] = set()
"""Files that were read since the class was imported: a row that depends on one is made again when it changes."""


SYSTEM = tuple(
    os.path.join(each, "") for each in (sys.prefix, sys.base_prefix, "/proc", "/sys", "/dev", "/etc", "/usr")
)


def note_opened(event: str, arguments: Any) -> None:
    if event == "open" and isinstance(arguments[0], (str, bytes)) and len(noted) < 10000:
        flags = arguments[2] if len(arguments) > 2 and isinstance(arguments[2], int) else 0
        name = os.path.abspath(os.fsdecode(arguments[0]))
        if name not in noted and not name.startswith(SYSTEM) and not name.endswith(".pyc"):
            noted.add(name)  # also one that is written: what it holds later is its own
            if not flags & (os.O_WRONLY | os.O_TRUNC | os.O_APPEND | os.O_CREAT) and Path(name).is_file():
                opened.append(name)


# The class


def load_class(path: str, name: str, folders: list[str]) -> Any:
    """The class, by the file that it stands in; ``folders`` come first where it imports from."""
    sys.path[:0] = [*folders, str(Path(path).parent)]
    stem = Path(path).stem
    spec = util.spec_from_file_location(stem if stem.isidentifier() else "codec", path)
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    sys.modules.setdefault(spec.name, module)
    spec.loader.exec_module(module)
    if not isinstance(getattr(module, name, None), type):
        classes = [each for each, value in vars(module).items() if isinstance(value, type)]
        raise AttributeError("no class {!r} in {}; classes there: {}".format(name, path, ", ".join(classes) or "none"))
    return getattr(module, name)


def plain(value: Any) -> dict[str, Any]:
    """A default as JSON can hold it; ``path`` says that it is one."""
    if isinstance(value, os.PathLike):
        return {"path": os.fspath(value)}
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return {"repr": repr(value)}
    return {"value": value}


def arguments_of(cls: Any) -> dict[str, Any]:
    """The keyword arguments of a class, by name: ``path`` if it is annotated as one, and its default if it has one."""
    taken: dict[str, Any] = {}
    if dataclasses.is_dataclass(cls):
        for field in dataclasses.fields(cls):
            if field.init:
                default = field.default
                if default is dataclasses.MISSING and field.default_factory is not dataclasses.MISSING:
                    default = field.default_factory()
                taken[field.name] = (field.type, default)
        absent: Any = dataclasses.MISSING
    else:
        absent = inspect.Parameter.empty
        for parameter in inspect.signature(cls).parameters.values():
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                taken[parameter.name] = (parameter.annotation, parameter.default)
    described = {}
    for name, (hint, default) in taken.items():
        text = hint.__name__ if isinstance(hint, type) else str(hint)
        described[name] = {"is_path": "Path" in text, "is_text": "str" in text}
        if default is not absent:
            described[name].update(plain(default))
    return described


def environment() -> dict[str, Any]:
    """The versions of Python and of all packages; of two installations of one the first, which is imported."""
    from importlib import metadata

    packages: dict[str, str] = {}
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"]
        if name:
            packages.setdefault(name.lower().replace("_", "-"), distribution.version)
    return {"python": "{}.{}.{}".format(*sys.version_info[:3]), "packages": packages}


def describe(cls: Any) -> dict[str, Any]:
    """What rdpbench must know of the class before it plans a run."""
    rate = getattr(cls, "rate", None)
    return {
        **environment(),
        "arguments": arguments_of(cls),
        "any_argument": any(each.kind is each.VAR_KEYWORD for each in inspect.signature(cls).parameters.values()),
        "rate": rate.stated if isinstance(rate, Rate) else None,
        "version": str(getattr(cls, "version", "1")),
        "unkeyed": [str(name) for name in getattr(cls, "unkeyed", ())],
        "flags": {flag: bool(getattr(cls, flag, False)) for flag in FLAGS},
        "lacks": [name for name in ("encode", "decode") if not callable(getattr(cls, name, None))],
        "decodes_batches": callable(getattr(cls, "decode_batch", None)),
    }


# Encoding and decoding


def as_bitstream(value: Any) -> Bitstream:
    if not isinstance(value, Bitstream):
        if isinstance(value, str) or not hasattr(value, "__len__"):
            raise TypeError(f"encode must return bytes or a Bitstream, found {type(value).__name__}")
        view = memoryview(value)
        if view.itemsize != 1:
            raise TypeError(f"encode returned {view.itemsize}-byte items; write words.tobytes()")
        return Bitstream.whole(view)
    return value


def as_pixels(value: Any) -> Any:
    import numpy as np

    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    array = np.ascontiguousarray(value)
    if array.dtype.hasobject:
        raise TypeError(f"decode must return an array of uint8, found {type(value).__name__}")
    return array


class Host:
    """One object of the class at a time: weights load when its arguments change."""

    def __init__(self) -> None:
        self.cls: Any = None
        self.object: Any = None
        self.built_of: Any = None

    def built(self, options: dict[str, Any]) -> Any:
        if self.object is None or self.built_of != options:
            self.object = None  # the old one's memory first
            self.object = self.cls(**{name: as_argument(value) for name, value in options.items()})
            self.built_of = options
            ready = getattr(self.object, "ready", None)
            if callable(ready):
                ready()
        return self.object

    def answer(self, request: dict[str, Any], blobs: list[bytearray]) -> tuple[dict[str, Any], list[Any]]:
        call = request["call"]
        if call == "load":
            self.cls = load_class(request["path"], request["name"], request["folders"])
            return describe(self.cls), []
        codec = self.built(request["options"])
        if call == "ready":
            return {}, []
        import numpy as np

        if call in ("encode", "encode_batch"):
            images = [np.frombuffer(blob, np.uint8).reshape(shape) for blob, shape in zip(blobs, request["shapes"])]
            sides = [Side(**side) for side in request["sides"]]
            if call == "encode":
                streams = [as_bitstream(codec.encode(images[0], sides[0]))]
            else:
                streams = [as_bitstream(value) for value in codec.encode_batch(images, sides)]
            heads: list[dict[str, Any]] = [{"parts": stream.parts, "info": stream.info} for stream in streams]
            return {"streams": heads}, [stream.data for stream in streams]
        seed = {} if request.get("seed") is None else {"seed": request["seed"]}
        if call == "decode":
            arrays = [as_pixels(codec.decode(bytes(blobs[0]), **seed))]
        else:
            arrays = [as_pixels(value) for value in codec.decode_batch([bytes(blob) for blob in blobs])]
        heads = [{"shape": array.shape, "dtype": str(array.dtype)} for array in arrays]
        return {"arrays": heads}, [memoryview(array.reshape(-1).view(np.uint8)) for array in arrays]


def as_argument(value: Any) -> Any:
    if isinstance(value, dict) and set(value) == {"path"}:
        return Path(value["path"])
    if isinstance(value, dict):
        return {name: as_argument(part) for name, part in value.items()}
    return [as_argument(part) for part in value] if isinstance(value, list) else value


# Messages


def read_all(descriptor: int, count: int, wait: Any = None) -> bytearray:
    data = bytearray(count)
    view = memoryview(data)
    while view:
        if wait:
            wait()
        taken = os.readv(descriptor, [view])
        if not taken:
            raise EOFError
        view = view[taken:]
    return data


def receive(descriptor: int, wait: Any = None) -> tuple[dict[str, Any], list[bytearray]]:
    """A message; ``wait`` is called before each read."""
    length = int.from_bytes(read_all(descriptor, HEAD, wait), "big")
    head = json.loads(read_all(descriptor, length, wait).decode())
    return head, [read_all(descriptor, count, wait) for count in head["bytes"]]


def send(descriptor: int, head: dict[str, Any], blobs: Any) -> None:
    head["bytes"] = [len(blob) for blob in blobs]
    text = json.dumps(head).encode()
    for blob in (len(text).to_bytes(HEAD, "big") + text, *blobs):
        view = memoryview(blob)
        while view:
            view = view[os.write(descriptor, view) :]


UNIT = 1 << 20 if sys.platform == "darwin" else 1 << 10
"""In which the system counts a process's memory, of a megabyte."""


def leave_network() -> bool:
    """Put this process where there is no network, if the system allows that; before anything starts a thread."""
    new_user, new_network = 0x10000000, 0x40000000
    user, group = os.getuid(), os.getgid()
    try:
        unshare = ctypes.CDLL(None, use_errno=True).unshare
    except (OSError, AttributeError):
        return False
    if unshare(new_network) == 0:
        return True
    if unshare(new_user | new_network):
        return False
    for name, text in (("setgroups", "deny"), ("uid_map", "{0} {0} 1"), ("gid_map", "{1} {1} 1")):
        with suppress(OSError):
            Path("/proc/self", name).write_text(text.format(user, group))
    return True


def end_with(life: int) -> None:
    """End this process, and all that it started, when rdpbench is gone; wherever the class is."""

    def wait() -> None:
        os.read(life, 1)
        os.killpg(os.getpgid(0), signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()


def place_of(error: BaseException, places: list[str]) -> str:
    """Where the class raised: the last line of its own files, or else of a library; empty if it did not."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    own = [
        frame for frame in frames if frame.filename.startswith(tuple(places)) and "site-packages" not in frame.filename
    ]
    last = (own or frames)[-1:]
    return f"{last[0].filename}:{last[0].lineno}" if last else ""


def main(requests: int, answers: int, life: int) -> NoReturn:
    pid = os.getpid()
    head, _ = receive(requests)
    offline = bool(head.get("offline")) and leave_network()
    end_with(life)
    for descriptor in (requests, answers, life):
        os.set_inheritable(descriptor, False)

    def close_all() -> None:
        for descriptor in (requests, answers, life):
            os.close(descriptor)

    os.register_at_fork(after_in_child=close_all)
    offer_rdpbench()
    sys.addaudithook(note_opened)
    host = Host()
    places = [str(Path(head["path"]).parent), *head["folders"]]
    blobs: list[bytearray] = []
    while True:
        try:
            answer, data = host.answer(head, blobs)
        except MemoryError as error:
            answer, data = {"error": f"MemoryError: {error}", "where": "", "kind": "MemoryError"}, []
        except BaseException as error:  # whatever the class raises, also SystemExit: it is this image's error
            kind = type(error).__name__
            answer, data = {"error": f"{kind}: {error}", "where": place_of(error, places), "kind": kind}, []
        if os.getpid() != pid:  # the class forked and returned twice
            os._exit(1)
        answer["opened"], opened[:] = opened[:OPENED], []
        answer["offline"] = offline
        answer["memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / UNIT
        send(answers, answer, data)
        try:
            head, blobs = receive(requests)
        except EOFError:
            os.killpg(os.getpgid(0), signal.SIGKILL)


def start_offline(line: list[str]) -> NoReturn:
    """Become another program, without a network; exit code 126 where the system does not allow that."""
    if not leave_network():
        sys.exit(126)
    os.execvp(line[0], line)


if __name__ == "__main__":
    if sys.argv[1] == "--offline":
        start_offline(sys.argv[2:])
    if sys.argv[1] == "--environment":
        sys.exit(print(json.dumps(environment())))
    main(*[int(word) for word in sys.argv[1:]])

"""A class in another interpreter: processes that host it, and the codec that asks them.

Encoder and decoder are two processes of one worker, each with one object of the class, so that weights load once in
each. What a decoder gives was therefore decoded in another process than it was encoded in, in an empty folder, and
without a network where the system allows that.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, field, fields, make_dataclass
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from rdpbench import own
from rdpbench.assets.program import died, quoted
from rdpbench.codecs.contract import CODES, FLOAT_LIBRARIES, Bitstream, Rate, Side
from rdpbench.codecs.external.declared import fill_in_rate
from rdpbench.codecs.external.environment import HOST, clean_environment, coder_of_packages, source_identity
from rdpbench.codecs.external.host import receive, send
from rdpbench.errors import CodecError, CoderFailed, ConfigError, UnsupportedImage
from rdpbench.image import Image
from rdpbench.opened import opened
from rdpbench.own import read_file

START_S = 600.0
"""Seconds that the import of a class may take, from a slow disk."""
LOG = 1 << 20
"""Bytes of what a host printed that are kept; only the last lines are ever quoted."""


class Host:
    """One process that hosts a class. It ends with this one, and what the class started ends with it."""

    def __init__(self, python: str, reference: Mapping[str, Any], *, offline: bool) -> None:
        self.reference = reference
        self.offline, self.memory_mb = False, 0.0
        folder = tempfile.TemporaryDirectory(prefix=prefix(), ignore_cleanup_errors=True)
        self._log = tempfile.TemporaryFile("w+b", buffering=0)  # noqa: SIM115 - open as long as the process
        (requests, self._to), (self._from, answers), (life, self._life) = os.pipe(), os.pipe(), os.pipe()
        for pipe in (self._to, self._from):  # a picture in few turns
            with contextlib.suppress(OSError, AttributeError):
                fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 1 << 20)
        more = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"} if offline else {}
        try:
            self.process = subprocess.Popen(
                [python, "-u", str(HOST), str(requests), str(answers), str(life)],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                cwd=folder.name,
                env=clean_environment(PYTHONDONTWRITEBYTECODE="1", TMPDIR=folder.name, **more),
                pass_fds=(requests, answers, life),
                start_new_session=True,  # a kill then reaches what the class started
            )
        except OSError as error:
            self._close()
            raise ConfigError(f"python={python} does not start: {error.strerror}") from error
        finally:
            for descriptor in (requests, answers, life):
                os.close(descriptor)
        self._folder = folder
        try:
            self._due: float | None = time.monotonic() + START_S
            self.described, _ = self.ask({"call": "load", "offline": offline, **reference})
            self._due = None
        except CoderFailed:
            self.close()
            raise

    def ask(
        self, head: dict[str, Any], blobs: Sequence[bytes | memoryview] = ()
    ) -> tuple[dict[str, Any], list[bytearray]]:
        """The answer to a request.

        Raises:
            CoderFailed: the class raised something, or the process ended; with the last lines that it printed.
        """
        try:
            send(self._to, {**head}, blobs)
            answer, data = receive(self._from, self._wait)
        except (EOFError, OSError, ValueError) as error:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)
            code = self.process.poll()
            how = f"answered what is no answer ({error})" if code is None else f"ended its process: it {died(code)}"
            said = self._said()
            self.close()
            raise CoderFailed(f"{self._name} {how}{said}") from error
        except BaseException:  # its answer, when it comes, would be taken for that to another request
            self.close()
            raise
        self.offline = bool(answer.pop("offline", False))
        self.memory_mb = float(answer.pop("memory_mb", 0))
        for name in answer.pop("opened", []):
            opened(str(Path(self.reference["path"]).resolve())).note(name)
        if "error" in answer:
            if answer["kind"] in ("MemoryError", "OutOfMemoryError"):
                raise MemoryError(answer["error"])
            if answer["kind"] == "UnsupportedImage":
                raise UnsupportedImage(answer["error"].partition(": ")[2])
            where = f" (in {answer['where']})" if answer["where"] else ""
            raise CoderFailed(f"{self._name}: {answer['error']}{where}{self._said()}")
        if os.fstat(self._log.fileno()).st_size > LOG:
            os.ftruncate(self._log.fileno(), 0)
        return answer, data

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def close(self) -> None:
        """End the process and all that it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._close()
        self._folder.cleanup()

    @property
    def _name(self) -> str:
        return f"{Path(self.reference['path']).name}:{self.reference['name']}"

    def _close(self) -> None:
        for descriptor in (self._to, self._from, self._life):
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self._log.close()
        self._to = self._from = self._life = -1

    def _said(self) -> str:
        """The last lines of what the process printed."""
        with contextlib.suppress(OSError, ValueError):
            size = os.fstat(self._log.fileno()).st_size
            text = os.pread(self._log.fileno(), 20_000, max(0, size - 20_000)).decode(errors="replace")
            return quoted(text) if text.strip() else ""
        return ""

    def _wait(self) -> None:
        """Until something comes; a class must be loaded in time."""
        if self._due and not select.select([self._from], [], [], max(0, self._due - time.monotonic()))[0]:
            raise ValueError(f"the class was not loaded within {START_S:g} s")


def prefix() -> str:
    """How the names of temporary folders of this process begin; after those of processes that were killed are removed.

    A container has numbers of processes of its own, so the name says whose they are.
    """
    try:
        space = os.readlink("/proc/self/ns/pid").strip("pid:[]")  # noqa: PTH115
    except OSError:
        return f"rdpbench-apart-{os.getpid()}-"
    ours = f"rdpbench-apart-{space}-"
    for folder in Path(tempfile.gettempdir()).glob(f"{ours}*"):
        pid = folder.name.removeprefix(ours).partition("-")[0]
        if pid.isdecimal() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(folder, ignore_errors=True)
    return f"{ours}{os.getpid()}-"


_hosts: dict[tuple[str, bool], Host] = {}
"""Those of this process, by what they host and whether they decode: of the codec that it is at."""


def host_of(python: str, reference: Mapping[str, Any], *, decoder: bool = False) -> Host:
    """The process of an encoder or decoder: the one that runs, or a new one, after those of other codecs ended."""
    hosted = json.dumps([os.getpid(), python, reference])
    host = _hosts.get((hosted, decoder))
    if host is None or not host.alive:
        if not _hosts:  # at the end of this process: a worker of a pool has no ``atexit``
            Finalize(None, close_hosts, exitpriority=10)
        for other in [other for other in _hosts if other[0] != hosted]:
            _hosts.pop(other).close()
        host = _hosts[hosted, decoder] = Host(python, reference, offline=decoder)
    return host


def close_hosts() -> None:
    """End all host processes."""
    while _hosts:
        _hosts.popitem()[1].close()


os.register_at_fork(after_in_child=_hosts.clear)  # they are the parent's


class HostedCodec:
    """A codec whose class is elsewhere. Its own fields are the class's keyword arguments; `hosted_class` makes them."""

    reference: ClassVar[Mapping[str, Any]]
    python: ClassVar[str]
    described: ClassVar[Mapping[str, Any]]
    source: ClassVar[str]
    declared: ClassVar[Path | None]
    """The YAML file that names the class, if one does."""
    rate: ClassVar[Rate | None]
    heavy = True
    depends_on_cpu = FLOAT_LIBRARIES

    def __post_init__(self) -> None:
        if self.rate:
            fill_in_rate(self, self.rate.field)

    def encode(self, image: Image, side: Side) -> Bitstream:
        return self._encoded("encode", [image], [side])[0]

    def encode_batch(self, images: Sequence[Image], sides: Sequence[Side]) -> list[Bitstream]:
        return self._encoded("encode_batch", images, sides)

    def decode(self, data: bytes) -> Image:
        return self._decoded("decode", [data])[0]

    def coder(self) -> dict[str, str]:
        """The interpreter, its packages, and the state of ``source``."""
        stated = coder_of_packages(self.described["python"], self.described["packages"])
        return {**stated, "source": source_identity(Path(self.source), self.declared)} if self.source else stated

    def ready(self) -> None:
        """Load the weights in both processes, so that no measured time has them."""
        for decoder in (False, True):
            self._ask(decoder, {"call": "ready"})

    def decode_notes(self) -> dict[str, str]:
        """What is to be read beside a row: what kept the decoder from all but the bytes."""
        encoder, decoder = self._host(False), self._host(True)
        memory = f"{encoder.memory_mb:.0f} encoding, {decoder.memory_mb:.0f} decoding"
        kept_from = "other process, empty folder" + (", no network" if decoder.offline else "")
        return {"enforced": kept_from, "peak memory MB": memory}

    def _encoded(self, call: str, images: Sequence[Image], sides: Sequence[Side]) -> list[Bitstream]:
        head = {
            "call": call,
            "shapes": [image.shape for image in images],
            "sides": [{"caption": side.caption, "seed": side.seed} for side in sides],
        }
        pixels = [np.ascontiguousarray(image).data.cast("B") for image in images]
        answer, data = self._ask(False, head, pixels)
        streams = zip(data, answer["streams"], strict=True)
        return [Bitstream(bytes(raw), stated["parts"], stated["info"]) for raw, stated in streams]

    def _decoded(self, call: str, datas: Sequence[bytes], seed: int | None = None) -> list[Image]:
        answer, data = self._ask(True, {"call": call, "seed": seed}, datas)
        arrays = zip(data, answer["arrays"], strict=True)
        try:
            return [np.frombuffer(raw, stated["dtype"]).reshape(stated["shape"]) for raw, stated in arrays]
        except (TypeError, ValueError) as error:
            raise CodecError(f"decode gave what is no array of pixels: {error}") from error

    def _ask(
        self, decoder: bool, head: dict[str, Any], blobs: Sequence[bytes | memoryview] = ()
    ) -> tuple[dict[str, Any], list[bytearray]]:
        return self._host(decoder).ask({**head, "options": self._options()}, blobs)

    def _host(self, decoder: bool) -> Host:
        return host_of(self.python, self.reference, decoder=decoder)

    def _options(self) -> dict[str, Any]:
        """The keyword arguments that are not the class's own defaults."""
        options = {}
        for each in fields(self):  # type: ignore[arg-type]  # `hosted_class` makes a dataclass
            value = getattr(self, each.name)
            if each.metadata["sent"] or value != each.default:
                options[each.name] = own.mapped(value, lambda path: {"path": str(path)})
        return options


def _decode_seeded(self: HostedCodec, data: bytes, *, seed: int | None = None) -> Image:
    return self._decoded("decode", [data], seed)[0]


def _decode_batch(self: HostedCodec, datas: Sequence[bytes]) -> list[Image]:
    return self._decoded("decode_batch", datas)


def hosted_class(
    path: Path,
    name: str,
    python: str,
    source: str,
    rate: Rate | None,
    files: Sequence[str],
    sha256: str,
    declared: Path | None = None,
) -> type[HostedCodec]:
    """The codec for a class in a file, run by another interpreter.

    Args:
        path: of the file; what it imports from its own folder is found there.
        name: of the class.
        python: the interpreter.
        source: a folder of sources that the class imports from, or empty.
        rate: the rate axis, for a class that states none.
        files: keyword arguments that are files or folders, whatever the class says of them.
        sha256: of the file and what it imports; another one starts other hosts.
        declared: the YAML file that names the class, if one does.

    Raises:
        ConfigError: the interpreter does not start, or the class cannot be loaded, or is no codec.
    """
    if not Path(python).is_file() or not os.access(python, os.X_OK):
        raise ConfigError(f"python={python} is no program; write python=~/envs/NAME/bin/python")
    place = str(path.resolve())
    opened(place).sources = read_file(path).files  # in the key, as they are
    reference = {"path": str(path), "name": name, "folders": [source] if source else [], "sha256": sha256}
    try:
        described = host_of(python, reference).described
    except CoderFailed as error:
        raise ConfigError(f"{path} cannot be loaded by {python}: {error}") from error
    if described["lacks"]:
        lacks = [
            f"def {method}(self, {', '.join(CODES[method][0])}): {CODES[method][1]}" for method in described["lacks"]
        ]
        raise ConfigError(f"{path}:{name} is no codec: it lacks\n  " + "\n  ".join(lacks))
    stated = Rate(**{**described["rate"], "points": tuple(described["rate"]["points"])}) if described["rate"] else rate
    given = described["arguments"]
    own = [_field(argument, about, argument in files) for argument, about in given.items() if argument != "device"]
    if described["any_argument"]:
        names = [*files, *([stated.field] if stated else [])]
        own += [_field(argument, {"value": None}, argument in files) for argument in names if argument not in given]
    flags = described["flags"]
    attributes = {
        "reference": reference,
        "python": python,
        "described": described,
        "source": source,
        "declared": declared,
        "rate": stated,
        **{flag: flags[flag] for flag in flags if flag != "heavy"},
        "uses_device": "device" in given,
        "version": described["version"],
        "unkeyed": frozenset(described["unkeyed"]),
        "__module__": __name__,
    }
    if attributes["uses_device"]:
        own.append(("device", object, field(default="cpu", metadata={"sent": True})))
    # Fields without a default come first, as a dataclass wants it.
    own.sort(key=lambda each: each[2].default is not MISSING)
    attributes |= {"decode": _decode_seeded} if flags["stochastic"] else {}
    attributes |= {"decode_batch": _decode_batch} if described["decodes_batches"] else {}
    return make_dataclass(name, own, bases=(HostedCodec,), namespace=attributes, frozen=True)


def _field(name: str, about: Mapping[str, Any], is_file: bool) -> tuple[str, Any, Any]:
    """A field of the codec's class for a keyword argument of the hosted one."""
    is_path = is_file or about.get("is_path", False)
    hint: Any = (Path | str if is_file or about.get("is_text") else Path) if is_path else object
    metadata = {"sent": "value" not in about and "repr" not in about}
    if "path" in about:
        return name, hint, field(default=Path(about["path"]), metadata=metadata)
    if "repr" in about:
        return name, object, field(default=about["repr"], metadata={"sent": False})
    if "value" not in about:
        return name, hint, field(metadata=metadata)
    value = about["value"]
    if isinstance(value, (list, dict)):  # a dataclass takes no default that can change
        return name, hint, field(default=json.dumps(value), metadata=metadata)
    return name, hint, field(default=value, metadata=metadata)

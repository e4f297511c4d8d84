"""Where numbers come from: code, packages, machine and configuration, written once per call of rdpbench."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from rdpbench.setting import Bench

VERSION = "0.1.0"


def new_session(latest: str = "") -> str:
    """A name for this call: time and process. It sorts behind ``latest``, also after the clock was set back.

    >>> new_session("29991231T235959000000-host-1").partition("-")[0]
    '29991231T235959000001'
    """
    now = datetime.now(UTC).replace(tzinfo=None)
    with contextlib.suppress(ValueError):
        now = max(now, datetime.strptime(latest.partition("-")[0], _STAMP) + timedelta(microseconds=1))  # noqa: DTZ007
    return f"{now:{_STAMP}}-{platform.node()[:20].replace('-', '')}-{os.getpid()}"


_STAMP = "%Y%m%dT%H%M%S%f"
"""Of UTC."""


def provenance(bench: Bench, tasks: int, resolved: Mapping[str, Any]) -> dict[str, Any]:
    """Everything worth knowing about a call, as JSON-able data.

    ``resolved`` is what its codecs, data and metrics were set to (`rdpbench.runners.task.resolved`). Values that came
    out of an interpolation, such as ``${oc.env:TOKEN}``, are in none of it: the interpolation is.
    """
    root = Path(__file__).parent.parent
    lock = root / "requirements.lock"
    return {
        "rdpbench": VERSION,
        "command": command(bench.overrides),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "tasks": tasks,
        "config": bench.composed,
        **as_typed(resolved, bench.interpolated),
        "commit": _git(root, "rev-parse", "HEAD"),
        "dirty": bool(_git(root, "status", "--porcelain")) if (root / ".git").exists() else None,
        "lock_sha256": hashlib.sha256(lock.read_bytes()).hexdigest() if lock.is_file() else None,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cpu": hardware("cpu")["name"],
        "cores": os.cpu_count(),
        "device": list(bench.devices),
        "gpus": _gpus(),
        "driver": _driver(),
        "packages": packages(),
    }


def as_typed(value: Any, interpolated: Mapping[tuple[str, Any], str], name: str = "") -> Any:
    """Data with what was typed in the place of values that came out of an interpolation; in texts too.

    >>> as_typed({"path": "/secret/a", "told": ["in /secret/a"]}, {("path", "/secret/a"): "${oc.env:HERE}/a"})
    {'path': '${oc.env:HERE}/a', 'told': ['in ${oc.env:HERE}/a']}
    """
    if isinstance(value, Mapping):
        texts = {key: as_typed(str(key), interpolated) for key in value}
        return {texts[key]: as_typed(inner, interpolated, str(key)) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_typed(inner, interpolated, name) for inner in value]
    for (option, held), text in interpolated.items():
        if name == option and value == held:
            return text
        if isinstance(value, (str, Path)) and isinstance(held, str) and len(held) > _TOO_SHORT:
            value = str(value).replace(held, text)
    return value


_TOO_SHORT = 3
"""Characters of a value that is looked for inside texts: shorter ones are in any text, and no secret."""


def begin_session(folder: Path, new_name: Callable[[], str], record: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """Write the provenance of a call below a run folder; returns its name, and what its part notes of that file.

    No other call gets the same name, on whatever machine: the file is made by one of them.
    """
    text = to_json(record, indent=1) + "\n"
    while True:
        session = new_name()
        path = folder / "sessions" / f"{session}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError), path.open("x", encoding="utf-8") as file:
            file.write(text)
            return session, {"session": session, "sha256": hashlib.sha256(text.encode()).hexdigest()}


def to_json(value: Any, **how: Any) -> str:
    """JSON that every reader takes: what is not a number is null, infinities are the words ``inf`` and ``-inf``.

    >>> to_json({"ratio": float("nan"), "psnr": [1.5, float("inf")]})
    '{"ratio": null, "psnr": [1.5, "inf"]}'
    """
    return json.dumps(_finite(value), allow_nan=False, default=str, **how)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(float(value))
    return value


def command(overrides: Sequence[str]) -> str:
    """The command that stands for these overrides.

    >>> command(["codec=webp", "data=kodak"])
    'rdpbench run codec=webp data=kodak'
    """
    return shlex.join(["rdpbench", "run", *overrides])


def _git(root: Path, *arguments: str) -> str | None:
    if not (root / ".git").exists():
        return None
    try:
        line = ["git", "-C", str(root), *arguments]
        done = subprocess.run(line, check=False, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def packages() -> dict[str, str]:
    """Versions of all installed packages, from the names of their folders: reading their metadata takes a second."""
    found: dict[str, str] = {}
    for place in sys.path:
        for path in Path(place or ".").glob("*.dist-info"):
            name, _, version = path.stem.rpartition("-")
            found.setdefault(name, version)
    return dict(sorted(found.items()))


def cores() -> int:
    """Cores that this process may use; where the system does not say that, those of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def peak_memory_mb() -> float:
    """The most memory that this process has held."""
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, else kilobytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1024**2


def cpu_facts() -> dict[str, str]:
    """What Linux says of a processor, by lower-case names such as ``model name`` and ``flags``; empty elsewhere."""
    info = Path("/proc/cpuinfo")
    pairs = (line.partition(":") for line in info.read_text().splitlines()) if info.is_file() else ()
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def hardware(device: str) -> dict[str, str]:
    """What computes on a device, as this process calls it: its model; of a GPU also driver, CUDA and how it rounds now.

    >>> list(hardware("cpu"))
    ['name']
    """
    if device == "cpu":
        return {"name": _processor()}
    try:
        import torch

        name, cuda = str(torch.cuda.get_device_name(device)), str(torch.version.cuda)
    except Exception as error:  # what is only told must not fail what is coded, such as by a codec without torch
        return {"name": "", "driver": _driver(), "not known": f"{type(error).__name__}: {error}"[:200]}
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    tf32 = {"matmul": matmul.allow_tf32, "convolutions": cudnn.allow_tf32}
    reduced = {kind: getattr(matmul, f"allow_{kind}_reduced_precision_reduction") for kind in ("fp16", "bf16")}
    kernels = "deterministic" if cudnn.deterministic else "any"
    stated = {"name": name, "driver": _driver(), "cuda": cuda, "kernels": kernels}
    for what, switches in {"tf32": tf32, "reduced sums": reduced}.items():
        stated[what] = " ".join(kind for kind, on in switches.items() if on) or "off"
    return stated


@cache
def _processor() -> str:
    return cpu_facts().get("model name") or platform.processor()


def _gpus() -> list[dict[str, str]]:
    """What Linux says of NVIDIA's GPUs in this machine; which of them made a row is in the row."""
    files = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    texts = [path.read_text(errors="replace") for path in files]
    pairs = [dict(line.partition(":")[::2] for line in text.splitlines()) for text in texts]
    return [{name: facts.get(name, "").strip() for name in ("Model", "GPU UUID", "Bus Location")} for facts in pairs]


@cache
def _driver() -> str:
    """The version of NVIDIA's kernel module; empty where Linux does not tell."""
    try:
        text = Path("/proc/driver/nvidia/version").read_text()
    except OSError:
        return ""
    version = re.search(r"\b\d+\.\d+(\.\d+)?\b", text)
    return version[0] if version else ""

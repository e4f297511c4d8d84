"""What made a stored curve, and the command that makes it again."""

from __future__ import annotations

import json
import os
import platform
import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import rdpbench
from rdpbench import registry, weights
from rdpbench.codecs.contract import depends_on_cpu, needs_of
from rdpbench.config import Bench, CodecSetting, DataSetting
from rdpbench.needs import Package, package_version
from rdpbench.overrides import available
from rdpbench.results.schema import Row
from rdpbench.results.store import Store
from rdpbench.runners.execute import Done
from rdpbench.runners.grid import dataset_of
from rdpbench.runners.task import identity

SWEEP = ("rate", "points", "bpp", "search", "tolerance", "seed")
"""Settings that choose the points; a stored curve brings them, unless they are typed."""

Pair = tuple[CodecSetting, DataSetting]


def origin(bench: Bench, pair: Pair, rows: Sequence[Row], done: Done, again: str) -> dict[str, Any]:
    """What made a curve. Without times and machine names: the same curve made again is the same file."""
    made = json.loads(identity(pair[0]))
    codec = registry.load("codec", pair[0].use)
    packages = [need.name for need in needs_of(codec) if isinstance(need, Package)]
    return {
        "codec": pair[0].name,
        "dataset": dataset_of(pair[1]).name,
        "manifest": _manifest(rows),
        "configuration": {"use": made["use"], "options": made["options"]},
        "coder": {
            **made["coder"],
            "version": made["version"],
            **({"source": made["source"]} if made["source"] else {}),
        },
        "packages": {name: package_version(name) for name in packages},
        "metrics": {name: _metric(name) for name in done.plan.metrics},
        "seeds": list(bench.seeds),
        "device": bench.device,
        "cpu": _cpu(depends_on_cpu(codec)),
        "rdpbench": rdpbench.__version__,
        "commits": sorted({commit for commit in _commits(done.store, {row.session for row in rows}) if commit}),
        "sweep": [line for line in bench.overrides if line.partition("=")[0] in SWEEP],
        "command": again,
    }


def _manifest(rows: Sequence[Row]) -> dict[str, str]:
    """Which files the dataset was, and how far their bytes are known."""
    found = sorted({(row.manifest, row.manifest_kind) for row in rows if row.manifest})
    return {"sha256": ", ".join(sha for sha, _ in found), "kind": ", ".join(dict.fromkeys(kind for _, kind in found))}


def _metric(name: str) -> dict[str, Any]:
    cls = registry.load("metric", name)
    needs: Iterable[Any] = getattr(cls, "needs", ())
    packages = {need.name: package_version(need.name) for need in needs if isinstance(need, Package)}
    return {
        "version": str(getattr(cls, "version", "1")),
        **({"packages": packages} if packages else {}),
        **{f"{one.card.id}": weights.identity(one.card) for one in needs if isinstance(one, weights.Weights)},
    }


def _commits(store: Store, sessions: Iterable[str]) -> Iterator[str | None]:
    """The code that coded, which may be older than the code that stores the curve."""
    for session in sessions:
        try:
            record = json.loads((store.folder / "sessions" / f"{session}.json").read_text())
            yield f"{record['commit']}{' with changes' if record['dirty'] else ''}" if record["commit"] else None
        except (OSError, ValueError, KeyError, TypeError):
            yield None


def _cpu(matters: Sequence[str]) -> str:
    """The vector instructions, and whatever else ``matters`` to the codec: what libraries choose their code by."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    fields = {name.strip().lower(): value.split() for name, _, value in (line.partition(":") for line in lines)}
    flags = fields.get("flags") or fields.get("features") or []
    vendor = fields.get("vendor_id") or fields.get("cpu implementer") or []
    return " ".join(
        [
            platform.machine(),
            *sorted(flag for flag in flags if flag.startswith(("avx", "fma", "asimd", "sve"))),
            *(vendor if "vendor" in matters else ()),
            *(f"{name}={os.environ[name]}" for name in matters if os.environ.get(name)),
        ]
    )


def command(bench: Bench, pair: Pair, root: Path | None) -> str:
    """What makes one curve, and no other."""
    codec, data = pair
    typed: dict[str, list[str]] = {"codec": [], "data": []}
    kept = []
    for line in bench.overrides:
        key, _, value = line.partition("=")
        if key in typed:
            typed[key] += value.split(",")
        elif key in (*SWEEP, "metrics", "decodes", "device") or key.lstrip("+").startswith(("data.", "metrics.")):
            kept.append(line)
    name, _, options = codec.name.partition("[")
    own = [one for one in typed["codec"] if one.rpartition(":")[2] == name]
    words = [f"codec={name if name in available('codec') else (own or [codec.use])[0]}"]
    folder = dict(data.options).get("path")
    asked = [one for one in typed["data"] if one.rpartition(":")[2] == data.name]
    own_files = {"folder": f"folder:{folder}", "manifest": f"manifest:{dict(data.options).get('file')}"}
    words.append(f"data={own_files.get(data.use) or (asked or [data.name])[0]}")
    kept += [f"codec.options.{one}" for one in options.rstrip("]").split(",") if one]
    return shlex.join(["rdpbench", "curves", "update", *words, *kept, *(["--curves", str(root)] if root else [])])

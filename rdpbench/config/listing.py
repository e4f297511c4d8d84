"""What exists (`rdpbench ls`) and what this machine can run (`rdpbench doctor`)."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rdpbench import registry
from rdpbench.errors import ConfigError
from rdpbench.lazy import torch
from rdpbench.needs import Need, package_version
from rdpbench.paths import RUNS, available, cache_folder, conf_file, conf_folder, read_yaml, records

GROUPS: dict[registry.Kind, str] = {"codec": "codec", "dataset": "data"}


def listing(what: str, runs: Path = Path(RUNS)) -> list[str]:
    """Lines of ``rdpbench ls``: names and titles, without importing a codec."""
    if what == "runs":
        from rdpbench.results.store.store import Store

        stores = sorted(path for path in runs.iterdir() if Store(path).exists()) if runs.is_dir() else []
        return list(map(str, stores)) or [f"no runs in {runs} yet; `rdpbench run` makes one"]
    if what == "metrics":
        return _columns([_metric(name) for name in registry.names("metric")])
    if what == "experiments":
        return _columns([(name, _first_comment(conf_file("experiment", name))) for name in available("experiment")])
    if what == "recipes":
        paths = sorted((conf_folder() / "codec" / "recipe").glob("*.yaml"))
        return _columns([(f"recipe/{path.stem}", read_yaml(path)["title"], _first_comment(path)) for path in paths])
    kind: registry.Kind = "codec" if what == "codecs" else "dataset"
    rows = [(record["name"], _rates(record), record["title"]) for record in records(GROUPS[kind]) if record["use"]]
    rows += [(name, "", "entry point of an installed package") for name in registry.installed(kind)]
    return [*_columns(rows), "your own: codec=./mine.py:MyCodec" if kind == "codec" else "any folder: data=folder:PATH"]


def _first_comment(path: Path) -> str:
    line = path.read_text().partition("\n")[0]
    return line.lstrip("# ") if line.startswith("#") else ""


def _metric(name: str) -> tuple[str, ...]:
    if name not in registry.BUILTIN["metric"]:
        return name, "", "", "entry point of an installed package"
    cls: Any = registry.load("metric", name)
    least = f"{cls.minimum_images} images" if getattr(cls, "kind", "pair") == "set" else "per image"
    source = cls.source + (" (unverified)" if getattr(cls, "unverified", "") else "")
    return name, "↑" if cls.higher_is_better else "↓", least, source


def doctor() -> list[str]:
    """Lines of ``rdpbench doctor``: for each codec, dataset and metric whether it can run, and what to type if not."""
    import rdpbench

    names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    gpu = ", ".join(f"cuda:{number} {name}" for number, name in enumerate(names)) or "no GPU that torch can use"
    out = [
        f"rdpbench {rdpbench.__version__}, Python {platform.python_version()}, {platform.platform()}",
        f"torch {package_version('torch')}, {gpu}",
        f"configuration {conf_folder()}, cache {cache_folder()}",
    ]
    for kind, group in GROUPS.items():
        out += ["", "codecs (weights=random runs those that lack weights)" if kind == "codec" else "datasets"]
        for record in (record for record in records(group) if record["use"]):
            state = _state(record["name"], kind, record["use"])
            if kind == "codec" and state[0].startswith("  ok"):
                state = _weights(record) or state
            out += state + (_absent(record) if kind == "dataset" else [])
        out += [line for name in registry.installed(kind) for line in _state(name, kind, name)]
    return [*out, "", "metrics", *(line for name in registry.names("metric") for line in _state(name, "metric", name))]


def _state(name: str, kind: registry.Kind, use: str) -> list[str]:
    try:
        needs: Iterable[Need] = getattr(registry.load(kind, use), "needs", ())
    except ConfigError as error:  # an installed package whose entry point is broken
        return [f"  broken   {name}: {error}"]
    lacks = [missing for need in needs if (missing := need.missing())]
    if not lacks:
        return [f"  ok       {name}"]
    first, *rest = [line for text in lacks for line in text.splitlines()]
    return [f"  missing  {name}: {first}", *(f"           {line.strip()}" for line in rest)]


def _weights(record: dict[str, Any]) -> list[str]:
    """A line for a codec some of whose rate points lack weights; where to get them is a page, which `plan` prints."""
    from rdpbench.codecs.contract import needs_of_built
    from rdpbench.results.store.keys import axis_of, build
    from rdpbench.setting import CodecSetting

    options = tuple(sorted((record.get("options") or {}).items()))
    setting = CodecSetting(record["name"], record["use"], options, ())
    rates = (record.get("rates") or [None]) if axis_of(setting) else [None]
    lacking = [rate for rate in rates if any(need.missing() for need in needs_of_built(build(setting, rate)))]
    if not lacking:
        return []
    which = f"{len(lacking)} of {len(rates)} rate points" if len(rates) > 1 else "its rate point"
    return [f"  missing  {record['name']}: weights of {which}; `rdpbench plan codec={record['name']}` lists them"]


def _absent(record: dict[str, Any]) -> list[str]:
    """Of a dataset that is not here, what the first run would download."""
    from rdpbench.datasets.command import named_dataset

    try:
        dataset = named_dataset(record["name"])
    except ConfigError:  # needs an option, such as a folder
        return []
    if not getattr(dataset, "missing", lambda: None)():
        return []
    size = getattr(dataset, "download_size", "of unknown size")
    how = f"the first run downloads it, or type: rdpbench data fetch {record['name']}"
    return [f"           not here, {size}; {how}"]


def _rates(record: dict[str, Any]) -> str:
    rates = record.get("rates") or []
    return f"{len(rates)} points, {rates[0]:g} to {rates[-1]:g}" if rates else ""


def _columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)] if rows else []
    return ["  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[-1]]) for row in rows]

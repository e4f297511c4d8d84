"""What exists (`rdpbench ls`) and what this machine can run (`rdpbench doctor`)."""

from __future__ import annotations

import importlib.util
import platform
import re
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from rdpbench import registry
from rdpbench.errors import ConfigError, UnknownName
from rdpbench.lazy import torch
from rdpbench.needs import EXTRAS, Need, Package, package_version
from rdpbench.paths import RUNS, available, conf_file, conf_folder, read_yaml, records

GROUPS: dict[registry.Kind, str] = {"codec": "codec", "dataset": "data"}


def listing(what: str, runs: Path = Path(RUNS)) -> list[str]:
    """Lines of ``rdpbench ls``: names and titles, without importing a codec."""
    if what == "all":
        return overview()
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


def settings_help(width: int) -> list[str]:
    """Lines that explain all settings, group by group, out of ``conf/config.yaml``: default, meaning, an example."""
    lines: list[str] = []
    for line in (conf_folder() / "config.yaml").read_text(encoding="utf-8").splitlines():
        setting = re.match(r"[ -]*(?:# )?([\w.]+): *(\S*) +# (\S+) \| (.*)", line)
        if setting:
            name, default, example, text = setting.groups()
            example = example if "=" in example else f"{name}={example}"
            left = f"  {name}={default}".ljust(26)
            lines += textwrap.wrap(f"{left} {text}; such as {example}", width, subsequent_indent=" " * 27, **_WHOLE)
        elif lines[-1:] == [""] and line.startswith("# "):
            lines.append(line.removeprefix("# "))
        elif not line:
            lines.append("")
    return lines


_WHOLE: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}


def _first_comment(path: Path) -> str:
    line = path.read_text(encoding="utf-8").partition("\n")[0]
    return line.lstrip("# ") if line.startswith("#") else ""


def _metric(name: str) -> tuple[str, ...]:
    if name not in registry.BUILTIN["metric"]:
        return name, "", "", "entry point of an installed package"
    cls: Any = registry.load("metric", name)
    least = f"{cls.minimum_images} images" if getattr(cls, "kind", "pair") == "set" else "per image"
    source = cls.source + (" (unverified)" if getattr(cls, "unverified", "") else "")
    return name, "↑" if cls.higher_is_better else "↓", least, source


def overview() -> list[str]:
    """Lines of ``rdpbench ls`` alone: all names on one screen."""
    out: list[str] = []
    for family, names in _families().items():
        out += _wrapped(f"{family:12}", _grouped(names))
    out.append("recipes     codecs of authors' repositories: rdpbench ls recipes")
    more = ("", "mini+1: mini and a variant; all names: rdpbench ls codecs, datasets, metrics.")
    return [*out, *more, "Also: ls experiments, ls runs. Your own: codec=./mine.py:Mine, data=folder:PATH"]


def doctor(names: Sequence[str] = ()) -> list[str]:
    """Lines of ``rdpbench doctor``: what runs here by family, on one screen; or all about these names.

    Raises:
        UnknownName: no codec, dataset or metric has such a name.
    """
    import rdpbench

    families = _families()
    if names:
        every = {name: entry for family in families.values() for name, entry in family.items()}
        if unknown := [name for name in names if name not in every]:
            raise UnknownName("name", unknown[0], every)
        return [line for name in names for line in _details(name, *every[name])]
    machine = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    out = [f"rdpbench {rdpbench.__version__}, {machine}, {_accelerator()}"]
    for family, members in families.items():
        states: dict[str, list[str]] = {}
        cards: dict[str, int] = {}
        for name, (kind, record) in members.items():
            try:
                lacks = _lacks(kind, record)
            except ConfigError:  # an installed package whose entry point is broken
                states.setdefault("broken", []).append(name)
                continue
            states.setdefault(state := _state(kind, lacks), []).append(name)
            if state == WEIGHTS:
                cards |= {need.card.id: need.card.bytes for need in lacks if hasattr(need, "card")}
        for state in sorted(states, key=_rank):
            more = "" if all(cards.values()) else "+"  # some do not say how large they are
            size = f", {sum(cards.values()) / 1e9:.1f} GB{more}" if state == WEIGHTS and cards else ""
            head = family if state == min(states, key=_rank) else ""
            out += _wrapped(
                f"{head:12}{state + size:23}", _grouped({name: members[name] for name in states[state]}), LINES
            )
    return [*out, *FOOT]


FOOT = (
    "`rdpbench doctor NAME` says what a name lacks, where it is from, what to type.",
    "mini+1: mini and a variant. [learned]: type pip install 'rdpbench[learned]'.",
)
WEIGHTS = "need weights"
LINES = 2
"""Of names for each state of a family, so that all fit one screen; `rdpbench ls` has all names."""


def _rank(state: str) -> tuple[bool, str]:
    """What is here comes first."""
    return state not in ("run here", "are here"), state


def _accelerator() -> str:
    if not importlib.util.find_spec("torch"):
        return "no torch"
    names = [f"cuda:{number} {torch.cuda.get_device_name(number)}" for number in range(torch.cuda.device_count())]
    return f"torch {package_version('torch')}, {', '.join(names) or 'no GPU'}"


Named: TypeAlias = dict[str, tuple[registry.Kind, dict[str, Any]]]
"""Names with their kind, and what ``conf`` says of them."""


def _families() -> dict[str, Named]:
    """All that there is, by what people call it."""
    out: dict[str, Named] = {"classical": {}, "learned": {}, "generative": {}, "datasets": {}, "metrics": {}}
    for kind, group in GROUPS.items():
        for record in [record for record in records(group) if record["use"]]:
            place = registry.BUILTIN[kind].get(record["use"], "").split(".")
            family = {"diffusion": "generative"}.get(place[2], place[2]) if kind == "codec" else "datasets"
            out[family][record["name"]] = kind, record
    for kind, family in (("codec", "installed"), ("dataset", "datasets"), ("metric", "metrics")):
        names = registry.names("metric") if kind == "metric" else registry.installed(kind)
        for name in names:
            out.setdefault(family, {})[name] = kind, {"name": name, "use": name}
    return out


def _grouped(names: Named) -> list[str]:
    """Names, those of one stem together: ``jpeg+1``, or ``fid/*`` where the stem alone is no name."""
    groups: dict[str, list[str]] = {}
    for name, (kind, _) in names.items():
        groups.setdefault(name.partition("/" if kind == "metric" else "-")[0], []).append(name)
    return [
        group[0]
        if len(group) == 1
        else f"{stem}+{len(group) - 1}"
        if stem in group
        else f"{group[0][: len(stem) + 1]}*"
        for stem, group in groups.items()
    ]


def _wrapped(head: str, words: Sequence[str], most: int | None = None) -> list[str]:
    """Words beside a head, in lines of 80, at most so many of these."""
    shown, left = list(words), ""
    while True:
        text = " ".join([*shown, left]).strip()
        lines = textwrap.wrap(text, 79 - len(head), break_on_hyphens=False, break_long_words=False)
        if most is None or len(lines) <= most:
            return [(head if not number else " " * len(head)) + line for number, line in enumerate(lines)]
        shown.pop()
        left = f"and {len(words) - len(shown)} more"


def _lacks(kind: registry.Kind, record: dict[str, Any]) -> list[Need]:
    """What something needs and is not here; of a codec at all of its rate points."""
    needs: Iterable[Need] = getattr(registry.load(kind, record["use"]), "needs", ())
    lacks = [need for need in needs if need.missing()]
    if lacks or kind == "metric":
        return lacks
    if kind == "dataset":
        return [dataset] if (dataset := _absent(record["name"])) else []
    return list(dict.fromkeys(need for needs in _of_points(record).values() for need in needs))


def _of_points(record: dict[str, Any]) -> dict[float | None, list[Need]]:
    """What each rate point of a codec lacks, its weights above all."""
    from rdpbench.codecs.contract import needs_of_built
    from rdpbench.results.store.keys import axis_of, build
    from rdpbench.setting import CodecSetting

    options = tuple(sorted((record.get("options") or {}).items()))
    setting = CodecSetting(record["name"], record["use"], options, ())
    rates = (record.get("rates") or [None]) if axis_of(setting) else [None]
    return {rate: [need for need in needs_of_built(build(setting, rate)) if need.missing()] for rate in rates}


def _absent(name: str) -> Any | None:
    """A dataset that is not here."""
    from rdpbench.datasets.command import named_dataset

    try:
        dataset = named_dataset(name)
    except ConfigError:  # needs an option, such as a folder
        return None
    return dataset if getattr(dataset, "missing", lambda: None)() else None


def _state(kind: registry.Kind, lacks: Sequence[Need]) -> str:
    if not lacks:
        return "are here" if kind == "dataset" else "run here"
    if packages := [need for need in lacks if isinstance(need, Package)]:
        extra = packages[0].extra or EXTRAS.get(packages[0].name)
        return f"need [{extra}]" if extra else f"need {packages[0].name}"
    if kind == "dataset":
        return "to download"
    return "need a program" if any(hasattr(need, "kind") for need in lacks) else WEIGHTS


def _details(name: str, kind: registry.Kind, record: dict[str, Any]) -> list[str]:
    """All about one name: what it is, whether it runs, what it lacks and what to type."""
    lacks = _lacks(kind, record)
    out = [f"{kind} {name}: {record.get('title') or _metric(name)[-1]}"]
    if not lacks:
        return [*out, "  is here" if kind == "dataset" else "  runs here"]
    if kind == "dataset" and not isinstance(lacks[0], Package):
        size = getattr(lacks[0], "download_size", "of unknown size")
        out.append(f"  is not here, {size}; the first run downloads it, or type: rdpbench data fetch {name}")
    elif kind == "codec" and len(points := _of_points(record) if _state(kind, lacks) == WEIGHTS else {}) > 1:
        out.append(
            f"  lacks weights of {sum(map(bool, points.values()))} of {len(points)} rate points; "
            f"`rdpbench plan codec={name}` lists them all. The first:"
        )
        del lacks[1:]
    return out + [f"  {line}" for need in lacks for line in (need.missing() or "").splitlines()]


def _rates(record: dict[str, Any]) -> str:
    rates = record.get("rates") or []
    return f"{len(rates)} points, {rates[0]:g} to {rates[-1]:g}" if rates else ""


def _columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)] if rows else []
    return ["  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[-1]]) for row in rows]

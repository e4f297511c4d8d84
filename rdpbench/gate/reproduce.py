"""``rdpbench reproduce``: does this machine give published numbers again? The gate, with published numbers.

Each check of ``conf/reproduce.yaml`` is an ordinary run, stored and resumed like any other. Its means are compared with
published ones within a tolerance that was set beforehand. What cannot run yet, for want of weights, a program or
images, is named with what is missing, and is no failure.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from rdpbench import registry
from rdpbench.assets.weights import Card, Weights
from rdpbench.codecs.contract import facts_of
from rdpbench.config.bench import read_bench
from rdpbench.datasets.contract import dataset_of
from rdpbench.errors import ConfigError, check_names
from rdpbench.gate.compare import Tolerance
from rdpbench.lazy import pd
from rdpbench.needs import Need, Package
from rdpbench.paths import conf_folder, read_as, read_yaml, write_file
from rdpbench.results.published import published
from rdpbench.results.stats.current import of_store
from rdpbench.results.stats.summary import frame
from rdpbench.results.store.schema import Row
from rdpbench.results.tables import Table, markdown, say
from rdpbench.runners import execute
from rdpbench.runners.plan import make_plan
from rdpbench.runners.preflight import fetch_weights, weights_of
from rdpbench.runners.task import membership
from rdpbench.setting import Bench, digits

AGREES, DIFFERS, NOT_RUN = "agrees", "DIFFERS", "not run"


@dataclass(frozen=True)
class Published:
    """Which published numbers a check is about."""

    dataset: str
    codec: str
    source: str
    variant: str = ""
    lowest: int | None = None
    """Only so many points, of the lowest rates."""


@dataclass(frozen=True)
class PublishedCheck:
    """A run and the numbers that it must give."""

    name: str
    title: str
    run: tuple[str, ...]
    rates: tuple[float, ...]
    published: Published
    within: Mapping[str, Tolerance]
    why: str
    asked: bool = False


CHECKED = {"data", "metrics", "rate", "bpp", "points", "seed", "captions", "decodes", "experiment", "weights"}
"""Settings that say what is run; those of the codec are, too."""
HEADER = ("check", "point", "metric", "published", "measured", "difference", "may be", "verdict")


@dataclass(frozen=True)
class Outcome:
    """A check with what came of it."""

    check: PublishedCheck
    lines: tuple[tuple[str, ...], ...]
    """For each number the texts below `HEADER`."""
    sources: tuple[str, ...] = ()
    """Of the published numbers."""
    why: str = ""
    """Why it did not run, or not whole."""
    missing: tuple[str, ...] = ()
    """Files and programs that it lacks."""

    @property
    def verdict(self) -> str:
        """``DIFFERS`` if any number does, ``agrees`` if all that ran do."""
        verdicts = {verdict for *_, verdict in self.lines}
        return next((verdict for verdict in (DIFFERS, AGREES) if verdict in verdicts), NOT_RUN)


def checks(path: Path | None = None) -> dict[str, PublishedCheck]:
    """All checks.

    Raises:
        ConfigError: a file that is not one, with what it may hold.

    >>> len(checks()["webp"].rates)
    19
    """
    path = path or conf_folder() / "reproduce.yaml"
    try:
        return {name: _check(name, record, f"{path}: {name}") for name, record in read_yaml(path).items()}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from error


def _check(name: str, record: Mapping[str, Any], where: str) -> PublishedCheck:
    check = read_as(PublishedCheck, {**record, "name": name}, where)
    within = {metric: read_as(Tolerance, limits, where) for metric, limits in check.within.items()}
    numbers = read_as(Published, check.published, where)
    return replace(check, rates=tuple(map(float, check.rates)), within=within, published=numbers)


def expected(check: PublishedCheck) -> list[dict[str, tuple[float, str]]]:
    """For each rate point the published numbers by metric, ``bpp`` among them, with their source.

    Raises:
        ConfigError: the collection has another number of points than the check has rates.

    >>> round(expected(checks()["ms-illm"])[0]["psnr"][0], 2)
    24.73
    """
    wanted = check.published
    known = published(wanted.dataset, wanted.codec)
    known = known[(known["source_id"] == wanted.source) & (known["variant"] == wanted.variant)]
    own = known[known["metric"].isin(check.within)]
    rates = sorted(own["bpp"].unique())[: wanted.lowest]
    if len(rates) != len(check.rates):
        raise ConfigError(f"{check.name} has {len(check.rates)} rates, and {len(rates)} points are published of it")
    rate_name = next(name for name in check.within if name.partition(":")[0] == "bpp")
    points = []
    for rate in rates:
        lines = own[own["bpp"] == rate].to_dict("records")
        point = {str(line["metric"]): (float(line["value"]), str(line["source"])) for line in lines}
        points.append({rate_name: (float(rate), str(lines[0]["source"])), **point})
    return points


def lacking(bench: Bench) -> tuple[str, list[str]]:
    """Why a run cannot start, and each thing that is missing; empty if it can."""
    lacks: list[tuple[str, str]] = []
    for codec in dict.fromkeys(codec for codec, _ in bench.grid):
        needs: list[Need] = [*facts_of(codec.cls).needs, *weights_of(bench, codec)]
        for need in [need for need in needs if need.missing()]:
            kind = "package" if isinstance(need, Package) else "program"
            lacks.append(("weights" if isinstance(need, Weights) else kind, _named(need)))
    for data in dict.fromkeys(data for _, data in bench.grid):
        dataset = dataset_of(data)
        missing = getattr(dataset, "missing", lambda: None)()
        if missing and not bench.download:
            lacks.append(("data", f"dataset {dataset.name}: rdpbench data fetch {dataset.name}, or download=true"))
    kinds = list(dict.fromkeys(kind for kind, _ in lacks))
    return (f"{' and '.join(kinds)} missing" if kinds else "", list(dict.fromkeys(text for _, text in lacks)))


def _named(need: Need) -> str:
    if isinstance(need, Weights):
        size = f"{need.card.bytes / 1e6:.0f} MB, " if need.card.bytes else ""
        name = need.card.place if isinstance(need.card, Card) else f"{need.card.id}, {len(need.card.parts)} files"
        return f"{name} ({size}{need.card.source})"
    return str(need.missing()).splitlines()[0]


def reproduce(check: PublishedCheck, overrides: Sequence[str], console: Console) -> Outcome:
    """Run a check and compare; what was typed beside it wins over the check's own settings, but for codec and rate.

    Raises:
        ConfigError: settings that would make it another check.
    """
    points = expected(check)
    for line in overrides:
        name = line.partition("=")[0].lstrip("+~")
        changes = name.startswith(("codec", "data.", "metrics.")) and name not in ("data.path", "data.options.path")
        if changes or name in CHECKED:
            raise ConfigError(
                f"{line} would change what is checked; what can be set: limit, data.path, workers, root, ..."
            )
    typed = {line.partition("=")[0] for line in overrides}
    usual = (*_overrides(check), "figures=false", "download=false")
    own = [line for line in usual if line.partition("=")[0] not in typed]
    bench = replace(read_bench([*own, *overrides]), metrics_available=True)
    fetch_weights(bench)
    why, missing = lacking(bench)
    failed, rows = False, []
    if not why:
        failed = bool(execute.run_bench(bench, console).wrong)
        # Of this run alone: others may lie in the same folder.
        store = execute.store_of(bench)
        plan = make_plan(bench, store)
        current = of_store(store.read(), membership(plan.cells))
        means, rows = frame(current, plan.metrics), current.with_status("ok")
    whole = len(dataset_of(bench.grid[0][1])) if rows else 0
    lines, reasons, sources = [], [why] if why else [], dict[str, None]()
    for rate, numbers in zip(check.rates, points, strict=True):
        point = f"{rows[0].rate_field} {digits(rate)}" if rows else digits(rate)
        for metric, (value, source) in numbers.items():
            measured, verdict, reason = math.nan, f"{NOT_RUN}: {why}", ""
            if not why:
                measured, images = _value(means, rows, rate, metric)
                verdict, reason = _verdict(measured, images, whole, value, check.within[metric])
            reasons += [f"{metric}: {reason}"] if reason else []
            there = not math.isnan(measured)
            texts = [f"{measured:.6g}", f"{measured - value:+.1e}"] if there else ["–", "–"]
            width = f"{check.within[metric].width(value):.1e}"
            lines.append((check.name, point, metric, f"{value:.6g}", *texts, width, verdict))
            sources[source] = None
    reasons += ["tasks failed, or bitstreams did not decode again: see above"] if failed else []
    if not why:  # what metrics lack that were left out
        needs = [need for name in bench.metrics for need in getattr(registry.load("metric", name), "needs", ())]
        missing = list(dict.fromkeys(_named(need) for need in needs if need.missing()))
    return Outcome(check, tuple(lines), tuple(sources), "; ".join(dict.fromkeys(reasons)), tuple(missing))


def _overrides(check: PublishedCheck) -> tuple[str, ...]:
    return *check.run, f"rate={','.join(map(digits, check.rates))}"


def _value(means: pd.DataFrame, rows: Sequence[Row], rate: float, metric: str) -> tuple[float, int]:
    """A mean and how many images it is over."""
    name, _, legacy = metric.partition(":")
    if name == "bpp":
        coded = [row for row in rows if row.rate == rate]
        rates = []
        for row in coded:
            bits = float(json.loads(row.legacy).get(legacy, math.nan)) if legacy else 8.0 * (row.bytes or 0)
            rates.append(bits / (row.height * row.width))
        return (math.fsum(rates) / len(rates) if rates else math.nan), len({row.image for row in coded})
    lines = means[(means["rate"] == rate) & (means["metric"] == metric)]
    return (float(lines["value"].iloc[0]), int(lines["n_scored"].iloc[0])) if len(lines) else (math.nan, 0)


def _verdict(measured: float, images: int, whole: int, value: float, tolerance: Tolerance) -> tuple[str, str]:
    """The verdict, and why there is none."""
    if not images or math.isnan(measured):
        return f"{NOT_RUN}: weights missing", "not computed: its weights or its images are not here"
    if images < whole:
        return f"{NOT_RUN}: {images} of {whole} images", f"over {images} of {whole} images, which is not comparable"
    return (AGREES if tolerance.allows(value, measured) else DIFFERS), ""


def verdict_table(outcomes: Sequence[Outcome]) -> Table:
    """All numbers, one line each."""
    lines = [line for outcome in outcomes for line in outcome.lines]
    sources = [f"{outcome.check.name}: {source}" for outcome in outcomes for source in outcome.sources]
    whys = [f"{outcome.check.name}: {outcome.check.why}" for outcome in outcomes]
    return Table.of_texts("Published numbers again", HEADER, lines, [*sources, *whys])


def summary(outcomes: Sequence[Outcome]) -> list[str]:
    """A line for each check, and what the ones that did not run lack."""
    lines = []
    for outcome in outcomes:
        ran = [verdict for *_, verdict in outcome.lines if verdict in (AGREES, DIFFERS)]
        differ = ran.count(DIFFERS)
        counted = f"{len(ran) - differ} of {len(ran)} numbers agree" if ran else f"{NOT_RUN}: {outcome.why}"
        lines.append(f"{outcome.check.name:22} {counted}" + (f"; {outcome.why}" if ran and outcome.why else ""))
        lines += [f"    {text}" for text in outcome.missing]
    return lines


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of ``rdpbench reproduce``."""
    parser.add_argument(
        "overrides", nargs="*", metavar="NAME|key=value", help="checks (default: all), and settings of runs"
    )
    parser.add_argument("--list", action="store_true", help="what there is, and what each lacks here")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table")


def run(options: argparse.Namespace, console: Console) -> int:
    """Run checks and print the table; 0 if all that ran agree, 1 if a number differs.

    Raises:
        UnknownName: no such check.
        RdpbenchError: settings that cannot be meant.
    """
    known = checks()
    names = [word for word in options.overrides if "=" not in word]
    overrides = [word for word in options.overrides if "=" in word]
    check_names("check", names, known, "rdpbench reproduce --list says what each is")
    chosen = [known[name] for name in names] or list(known.values())
    outcomes = []
    for check in chosen:
        if options.list:
            why, _ = lacking(replace(read_bench(_overrides(check)), download=False))
            say(console, f"{check.name:22} {check.title}{f' ({why})' if why else ''}")
        elif check.asked and check.name not in names:
            outcomes.append(Outcome(check, (), why=f"takes hours; type: rdpbench reproduce {check.name}"))
        else:
            outcomes.append(reproduce(check, overrides, console))
    if options.list:
        return 0
    table = verdict_table(outcomes)
    say(console, table, *summary(outcomes))
    if options.markdown:
        write_file(options.markdown, markdown(table))
    return 1 if any(outcome.verdict == DIFFERS for outcome in outcomes) else 0

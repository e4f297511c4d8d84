"""Can a command run at all? Packages, programs, weights, data, device, metrics: asked before anything runs."""

from __future__ import annotations

import itertools
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rdpbench import registry
from rdpbench.assets import weights
from rdpbench.codecs.contract import faults_of as codec_faults
from rdpbench.codecs.contract import needs_of_built
from rdpbench.datasets.contract import dataset_of
from rdpbench.datasets.index import Entry
from rdpbench.errors import ConfigError, MetricError, MissingNeed
from rdpbench.metrics.contract import beside
from rdpbench.metrics.contract import faults_of as metric_faults
from rdpbench.metrics.sets import check_side
from rdpbench.needs import Need, Package, package_version
from rdpbench.networks.precision import visible
from rdpbench.results.store.keys import axis_of, beside_key, build, facts
from rdpbench.runners.coding import decodes_of, is_stochastic
from rdpbench.runners.sets import is_set, lacking, lacking_reference, set_metric, set_metrics
from rdpbench.runners.task import Cell, cells, points
from rdpbench.setting import Bench, CodecSetting

LARGE = 1_000_000_000
"""Bytes of a dataset above which only `rdpbench data fetch` downloads it: nobody expects 19 GB from a first run."""


def check_contracts(bench: Bench) -> None:
    """Raise `ConfigError` if a codec, metric or dataset of the user's is not what it must be: all that is odd."""
    faults: list[str] = []
    for codec in bench.codecs:
        if registry.own_place("codec", codec.use):
            faults += [f"codec {codec.use}: {fault}" for fault in codec_faults(codec.cls)]
    for metric in dict.fromkeys(bench.metrics):
        if registry.own_place("metric", metric):
            faults += [f"metric {metric}: {fault}" for fault in metric_faults(registry.load("metric", metric))]
    for data in bench.datasets:
        if registry.own_place("dataset", data.use):
            try:
                dataset_of(data)
            except ConfigError as error:
                faults.append(str(error))
    if faults:
        raise ConfigError("this run cannot start:\n" + "\n".join(f"  {fault}" for fault in dict.fromkeys(faults)))


LAUNCHERS = {"slurm": [Package("submitit")], "ray": [Package("ray")]}
"""What launchers need."""


def check_needs(bench: Bench) -> None:
    """Raise `MissingNeed` if a codec or dataset lacks something: all that is missing, each with what to type."""
    lines: list[str] = []
    for codec in bench.codecs:
        lines += _lacks(f"codec {codec.name}", facts(codec).needs) or _lacks(
            f"codec {codec.name}", weights_of(bench, codec)
        )
    for data in bench.datasets:
        lines += _lacks(f"dataset {data.use}", getattr(data.cls, "needs", ()))
    runner = bench.runner.get("name", "local")
    lines += _lacks(f"runner={runner}", LAUNCHERS.get(runner, ()))
    if lines:
        told = "\n".join(dict.fromkeys(lines))
        raise MissingNeed(f"this run cannot start:\n{told}\n`rdpbench doctor` shows what runs here")


def weights_of(bench: Bench, codec: CodecSetting) -> list[Need]:
    """The weights of all rate points that a command may take, each once."""
    axis = axis_of(codec)
    rates: Iterable[float | None] = [None]
    if axis is not None:
        listed = axis.points or axis.values
        rates = listed if bench.targets else dict.fromkeys(setting.rate for setting, _ in points(bench, codec))
    needs = [need for rate in rates for need in needs_of_built(build(codec, rate))]
    return [need for need in dict.fromkeys(needs) if need not in facts(codec).needs]


def check_downloads(bench: Bench) -> None:
    """Raise `MissingNeed` if a dataset would have to be downloaded and may not be, or is too large to come unasked."""
    for data in bench.datasets:
        dataset = dataset_of(data)
        missing = getattr(dataset, "missing", None)
        text = missing() if missing else None
        if text and getattr(dataset, "download_bytes", 0) > LARGE:
            raise MissingNeed(text)
        if text and not bench.download:
            raise MissingNeed(f"{text}, or let `rdpbench run` download it (download=true, its default)")


def check_devices(devices: Sequence[str]) -> None:
    """Stop if a device is not here: rows must not name one that was not used.

    >>> check_devices(["cpu"])
    """
    if [*devices] == ["cpu"]:
        return
    typed = f"device={','.join(devices)!r}"
    for device in devices:
        kind, colon, number = device.partition(":")
        if device != "cpu" and (kind != "cuda" or (colon and not number.isdigit())):
            raise ConfigError(f"{typed}: {device!r} is none of cpu, cuda (all GPUs), cuda:0, cuda:1, ...")
    if "cpu" in devices:
        rest = ",".join(device for device in devices if device != "cpu")
        raise ConfigError(
            f"{typed}: a curve is computed by processors or by GPUs, not by both; write device={rest}: what "
            "computes on no GPU has the cores anyway"
        )
    count = visible()
    if far := [device for device in devices if int(device.partition(":")[2] or 0) >= count]:
        known = [f"cuda:{number}" for number in range(count)]
        seen = os.environ.get("CUDA_VISIBLE_DEVICES")
        here = f"sees {', '.join(known) or 'no GPU'}{'' if seen is None else f', by CUDA_VISIBLE_DEVICES={seen!r}'}"
        raise MissingNeed(
            f"{typed}: {', '.join(far)} is not here: torch {package_version('torch')} {here}; use device=cpu"
        )


def check_decodes(bench: Bench) -> None:
    """Raise `ConfigError` if decodes of a bitstream are compared, and a codec's decoder draws but takes no seed."""
    if bench.decodes > 1 or any(decodes_of(name) for name in bench.metrics):
        for codec in bench.codecs:
            is_stochastic(codec)


def choose_metrics(bench: Bench) -> tuple[tuple[str, ...], dict[str, str]]:
    """The metrics that can run, and those left out; missing ones stop the plan unless the user allowed leaving out.

    ``decodes=`` brings metrics of diversity, unless the user named some; what is missing of them stops nothing. A score
    without a reference brings that of the originals.
    """
    brought: tuple[str, ...] = ()
    beside_them = (getattr(registry.load("metric", name), "beside_it", "") for name in bench.metrics)
    wanted = tuple(dict.fromkeys([*bench.metrics, *filter(None, beside_them)]))
    if bench.decodes > 1 and not any(decodes_of(name) for name in bench.metrics):
        brought = tuple(f"{name}/{bench.decodes}" for name in ("diversity/lpips-alex", "diversity/deviation"))
    lacks: dict[str, str] = {}
    for name in (*wanted, *brought):
        needs: Iterable[Need] = getattr(registry.load("metric", name), "needs", ())
        missing = [text for need in needs if (text := need.missing())]
        if is_set(name) and (reference := lacking_reference(set_metric(name))):
            missing.append(reference)
        if missing:
            lacks[name] = "; ".join(missing)
    if set(lacks) - set(brought) and not bench.metrics_available:
        raise MissingNeed(_cannot_start({name: why for name, why in lacks.items() if name not in brought}))
    return tuple(name for name in (*wanted, *brought) if name not in lacks), lacks


def fitting(bench: Bench, metrics: Sequence[str], every: Sequence[Cell]) -> tuple[tuple[str, ...], dict[str, str]]:
    """The metrics without those that these images cannot serve, and why these are left out.

    Images may lack the captions or label maps that a metric needs, be of another size, or too few.

    Raises:
        ConfigError: there are such metrics, and the user allowed neither leaving them out nor an unreliable number.
    """
    sets: dict[str, dict[str, Entry]] = defaultdict(dict)
    for cell in {(cell.dataset, id(cell.entries)): cell for cell in every}.values():
        sets[cell.dataset] |= {entry.sample.id: entry for entry in cell.entries}
    left_out = _unserved(bench, metrics, sets)
    if left_out and not bench.metrics_available:
        raise ConfigError(_cannot_start(left_out))
    metrics = [name for name in metrics if name not in left_out]
    _check_beside(metrics, every)
    sizes = {(entry.height, entry.width) for entries in sets.values() for entry in entries.values()}
    misfits = {name: why for name in set_metrics(metrics) if (why := _misfit(name, sizes))}
    if misfits and not bench.metrics_available:
        raise ConfigError("\n".join(misfits.values()))
    few = {} if bench.allow_unreliable else _too_few(metrics, sets)
    if not bench.metrics_available:
        refuse_few(few)
    left_out |= misfits | few
    return tuple(name for name in metrics if name not in left_out), left_out


def _check_beside(metrics: Sequence[str], every: Sequence[Cell]) -> None:
    """Raise `ConfigError` if sets share an image and bring other captions or label maps for it: it has one row."""
    takers = {what: name for name in metrics for what in _beside(name)}
    known: dict[tuple[str, str, str, str], tuple[str, str]] = {}
    for cell in {(cell.dataset, id(cell.entries)): cell for cell in every if takers}.values():
        for entry, (what, name) in itertools.product(cell.entries, takers.items()):
            mine = beside_key((what,), entry.sample), cell.dataset
            first = known.setdefault((what, cell.protocol, entry.sample.id, entry.sha256), mine)
            if first[0] != mine[0]:
                raise ConfigError(
                    f"{first[1]} and {mine[1]} share images, such as {entry.sample.id}, and have other {what} for "
                    f"them, so {name} has two values there. Measure each in a run of its own: run=NAME"
                )


def refuse_few(few: Mapping[str, str]) -> None:
    """Raise `ConfigError` if metrics have too few images."""
    if few:
        lines = [f"  metric {name} {why}" for name, why in few.items()]
        raise ConfigError(
            "too few images for a meaningful number:\n" + "\n".join(lines) + "\n"
            "allow_unreliable=true computes it anyway, and marks it wherever it appears"
        )


def check_metrics(bench: Bench) -> None:
    """Raise if a metric could not be computed, for commands that code before they plan with metrics."""
    metrics, _ = choose_metrics(bench)
    fitting(bench, metrics, tuple(cells(bench)))


def _unserved(bench: Bench, metrics: Sequence[str], sets: Mapping[str, Mapping[str, Entry]]) -> dict[str, str]:
    """Metrics whose captions or label maps a dataset lacks, with what is missing and how to give it."""
    takers = {
        name: (what, getattr(registry.load("metric", name), "classes", None))
        for name in metrics
        for what in _beside(name)
    }
    if not takers:
        return {}
    datasets: dict[str, Any] = {dataset.name: dataset for dataset in map(dataset_of, bench.datasets)}
    partial = bool((bench.composed or {}).get("allow_partial"))
    why = {
        taken: "; ".join(
            line
            for name, images in sets.items()
            if (line := lacking(*taken, datasets[name], [*images.values()], partial))
        )
        for taken in dict.fromkeys(takers.values())
    }
    return {name: why[taken] for name, taken in takers.items() if why[taken]}


def _beside(name: str) -> tuple[str, ...]:
    """What a metric takes beside an image."""
    return set_metric(name).features.beside if is_set(name) else beside(registry.load("metric", name))


def _cannot_start(metrics: dict[str, str]) -> str:
    lines = "\n".join(f"  metric {name}: {why}" for name, why in metrics.items())
    return f"this run cannot start:\n{lines}\nor leave out what is missing: metrics=available"


def _too_few(metrics: Sequence[str], sets: Mapping[str, Mapping[str, Entry]]) -> dict[str, str]:
    """Set metrics that have too few images in a dataset; what they need of label maps counts."""
    out: dict[str, str] = {}
    for name in set_metrics(metrics):
        counts = {
            dataset: sum(entry.sample.labels is not None or "labels" not in _beside(name) for entry in images.values())
            for dataset, images in sets.items()
        }
        fewest, dataset = min((count, dataset) for dataset, count in counts.items())
        if (least := set_metric(name).minimum_images) > fewest:
            out[name] = f"needs at least {least} images, {dataset} has {fewest} here"
    return out


def _misfit(name: str, sizes: Iterable[tuple[int, int]]) -> str | None:
    """Why a set metric is not for images of these sizes; None if it is."""
    try:
        for height, width in sizes:
            check_side(set_metric(name), height, width)
    except MetricError as error:
        return str(error)
    return None


def _lacks(what: str, needs: Iterable[Need]) -> list[str]:
    return [f"  {what}: {missing}" for need in needs if (missing := need.missing())]


def fetch_weights(bench: Bench) -> None:
    """Download missing weights of the chosen codecs and metrics where that is allowed (``download=true``).

    Raises:
        MissingNeed: something is missing that no download brings (then nothing is downloaded), or a download failed;
            all that is still missing is listed.
    """
    check_contracts(bench)
    if not bench.download:
        return
    if bench.limit and not bench.metrics_available and not bench.allow_unreliable:
        least = {name: set_metric(name).minimum_images for name in set_metrics(bench.metrics)}
        why = f"and limit={bench.limit} takes fewer"
        refuse_few({name: f"needs at least {n} images, {why}" for name, n in least.items() if n > bench.limit})
    users: dict[str, list[Need]] = {}
    for codec in bench.codecs:
        users[f"codec {codec.name}"] = [*facts(codec).needs, *weights_of(bench, codec)]
    if not bench.metrics_available:
        users |= {f"metric {name}": list(getattr(registry.load("metric", name), "needs", ())) for name in bench.metrics}

    def missing() -> list[str]:
        return [line for user, needs in users.items() for line in _lacks(user, needs)]

    every = dict.fromkeys(need for needs in users.values() for need in needs if need.missing())
    wanted = [need for need in every if isinstance(need, weights.Weights) and not getattr(need.card, "by_hand", False)]
    # Nothing is downloaded for what could not run with it, or whose licence was not agreed to.
    if wanted and len(wanted) < len(every):
        raise MissingNeed("\n".join(["nothing was downloaded, because not all can be:", *missing()]))
    for need in wanted:
        try:
            weights.fetch(need.card)
        except MissingNeed as error:
            why = str(error).partition("\n")[0]
            # To type what was done just now would be of no use.
            lines = [line for text in missing() for line in text.splitlines() if line != weights.DOWNLOAD]
            raise MissingNeed("\n".join([why, "this run cannot start:", *lines])) from error

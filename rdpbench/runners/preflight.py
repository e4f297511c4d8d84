"""Can a command run at all? Packages, programs, weights, data, device, metrics: asked before anything runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from rdpbench import registry
from rdpbench.assets import weights
from rdpbench.codecs.contract import faults_of as codec_faults
from rdpbench.codecs.contract import needs_of, needs_of_built
from rdpbench.datasets.contract import dataset_of
from rdpbench.datasets.index import Entry
from rdpbench.errors import ConfigError, MetricError, MissingNeed
from rdpbench.metrics.contract import beside
from rdpbench.metrics.contract import faults_of as metric_faults
from rdpbench.metrics.sets import check_side
from rdpbench.needs import Need
from rdpbench.runners.beside import lacking_reference as missing_reference
from rdpbench.runners.decodes import decodes_of, is_stochastic
from rdpbench.runners.grid import list_tasks, points
from rdpbench.runners.sets import is_set, lacking, set_metric, set_metrics
from rdpbench.runners.task import Task, axis_of, build
from rdpbench.setting import Bench, CodecSetting

LARGE = 1_000_000_000
"""Bytes of a dataset above which only `rdpbench data fetch` downloads it: nobody expects 19 GB from a first run."""


def check_contracts(bench: Bench) -> None:
    """Stop with one message if a codec, metric or dataset of the user's is not what it must be.

    Raises:
        ConfigError: all that is missing or odd, each with what to write.
    """
    faults: list[str] = []
    for codec in dict.fromkeys(codec.use for codec, _ in bench.grid):
        if registry.own_place("codec", codec):
            faults += [f"codec {codec}: {fault}" for fault in codec_faults(registry.load("codec", codec))]
    for metric in dict.fromkeys(bench.metrics):
        if registry.own_place("metric", metric):
            faults += [f"metric {metric}: {fault}" for fault in metric_faults(registry.load("metric", metric))]
    for data in dict.fromkeys(data for _, data in bench.grid):
        if registry.own_place("dataset", data.use):
            try:
                dataset_of(data)
            except ConfigError as error:
                faults.append(str(error))
    if faults:
        raise ConfigError("this run cannot start:\n" + "\n".join(f"  {fault}" for fault in faults))


def check_needs(bench: Bench) -> None:
    """Stop with one message if a codec or dataset lacks something.

    Raises:
        MissingNeed: all that is missing, each with what to type.
    """
    lines: list[str] = []
    for codec in dict.fromkeys(codec for codec, _ in bench.grid):
        needs = needs_of(registry.load("codec", codec.use))
        lines += _lacks(f"codec {codec.name}", needs) or _lacks(f"codec {codec.name}", weights_of(bench, codec))
    for use in dict.fromkeys(data.use for _, data in bench.grid):
        lines += _lacks(f"dataset {use}", getattr(registry.load("dataset", use), "needs", ()))
    if lines:
        raise MissingNeed("this run cannot start:\n" + "\n".join(lines) + "\n`rdpbench doctor` shows all of them")


def weights_of(bench: Bench, codec: CodecSetting) -> list[Need]:
    """The weights of all rate points that a command may take, each once."""
    axis = axis_of(codec)
    rates: Iterable[float | None] = [None]
    if axis is not None:
        listed = axis.points or axis.values
        rates = listed if bench.targets else dict.fromkeys(rate for rate, _, _ in points(bench, codec))
    own = needs_of(registry.load("codec", codec.use))
    found = [need for rate in rates for need in needs_of_built(build(codec, rate)) if need not in own]
    return list(dict.fromkeys(found))


def check_downloads(bench: Bench) -> None:
    """Stop if a dataset would have to be downloaded and may not be, or is too large to come unasked.

    Raises:
        MissingNeed: how to get each.
    """
    for data in dict.fromkeys(data for _, data in bench.grid):
        dataset = dataset_of(data)
        missing = getattr(dataset, "missing", None)
        text = missing() if missing else None
        if text and getattr(dataset, "download_bytes", 0) > LARGE:
            raise MissingNeed(text)
        if text and not bench.download:
            raise MissingNeed(f"{text}, or let `rdpbench run` download it (download=true, its default)")


def check_device(device: str) -> None:
    """Stop if the device is not here: rows must not name one that was not used.

    >>> check_device("cpu")
    """
    if device == "cpu":
        return
    kind, _, number = device.partition(":")
    if kind != "cuda" or not (number.isdigit() or not number):
        raise ConfigError(f"device={device!r} is none of cpu, cuda, cuda:0, cuda:1, ...")
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(number or 0) >= count:
        raise MissingNeed(f"device={device!r} is not here: torch {torch.__version__} sees {count} GPUs; use device=cpu")


def check_decodes(bench: Bench) -> None:
    """Stop if decodes of one bitstream are to be compared, and a codec's decoder draws and takes no seed.

    Raises:
        ConfigError: which codec, why, and what to do.
    """
    if bench.decodes > 1 or any(decodes_of(name) for name in bench.metrics):
        for codec in dict.fromkeys(codec for codec, _ in bench.grid):
            is_stochastic(codec)


def choose_metrics(bench: Bench) -> tuple[tuple[str, ...], dict[str, str]]:
    """The metrics that can run, and those left out; missing ones stop the plan unless the user allowed leaving out.

    Nobody named those that ``decodes=`` brings: what is missing of them is told, and stops nothing.
    """
    lacks: dict[str, str] = {}
    brought = brought_by_decodes(bench)
    for name in (*bench.metrics, *brought):
        cls = registry.load("metric", name)
        needs: Iterable[Need] = getattr(cls, "needs", ())
        missing = [text for need in needs if (text := need.missing())]
        if is_set(name) and (own := missing_reference(set_metric(name))):
            missing.append(own)
        if missing:
            lacks[name] = "; ".join(missing)
    if set(lacks) - set(brought) and not bench.metrics_available:
        raise MissingNeed(_cannot_start(f"metric {name}: {why}" for name, why in lacks.items() if name not in brought))
    return tuple(name for name in (*bench.metrics, *brought) if name not in lacks), lacks


def brought_by_decodes(bench: Bench) -> tuple[str, ...]:
    """The metrics that ``decodes=`` stands for, unless the user named some of their kind."""
    if bench.decodes == 1 or any(decodes_of(name) for name in bench.metrics):
        return ()
    return tuple(f"{name}/{bench.decodes}" for name in ("diversity/lpips-alex", "diversity/deviation"))


def fitting(bench: Bench, metrics: Sequence[str], tasks: Sequence[Task]) -> tuple[tuple[str, ...], dict[str, str]]:
    """The metrics without those that these images cannot serve, and why these are left out.

    Images may lack the captions or label maps that a metric needs, be of another size, or too few.

    Raises:
        ConfigError: there are such metrics, and the user allowed neither leaving them out nor an unreliable number.
    """
    unserved = _unserved(bench, metrics, tasks)
    if unserved and not bench.metrics_available:
        raise ConfigError(_cannot_start(f"metric {name}: {why}" for name, why in unserved.items()))
    metrics = [name for name in metrics if name not in unserved]
    sizes = {(task.entry.height, task.entry.width) for task in tasks}
    left_out = {name: why for name in set_metrics(metrics) if (why := _misfit(name, sizes))}
    if left_out and not bench.metrics_available:
        raise ConfigError("\n".join(left_out.values()))
    if not bench.allow_unreliable:
        few = _too_few(metrics, tasks)
        if few and not bench.metrics_available:
            lines = [f"  metric {name} {why}" for name, why in few.items()]
            raise ConfigError(
                "too few images for a number that means anything:\n" + "\n".join(lines) + "\n"
                "allow_unreliable=true computes it all the same, and marks it wherever it stands"
            )
        left_out |= few
    return tuple(name for name in metrics if name not in left_out), unserved | left_out


def check_metrics(bench: Bench) -> None:
    """Stop if a metric could not be computed, for commands that code before they plan with metrics.

    Raises:
        MissingNeed: a metric lacks packages, weights or its own reference set.
        ConfigError: the images cannot serve it.
    """
    metrics, _ = choose_metrics(bench)
    fitting(bench, metrics, tuple(list_tasks(bench)))


def _unserved(bench: Bench, metrics: Sequence[str], tasks: Sequence[Task]) -> dict[str, str]:
    """Metrics whose captions or label maps a dataset lacks, with what is missing and how to give it."""
    takers = {
        name: (taken, getattr(registry.load("metric", name), "classes", None))
        for name in metrics
        for taken in _beside(name)
    }
    if not takers:
        return {}
    entries: dict[str, dict[str, Entry]] = defaultdict(dict)
    for task in tasks:
        entries[task.dataset][task.entry.sample.id] = task.entry
    sets = {
        dataset.name: dataset
        for data in dict.fromkeys(data for _, data in bench.grid)
        for dataset in [dataset_of(data)]
    }
    partial = bool((bench.composed or {}).get("allow_partial"))
    why = {
        taken: "; ".join(
            filter(None, (lacking(*taken, sets[name], [*of.values()], partial) for name, of in entries.items()))
        )
        for taken in dict.fromkeys(takers.values())
    }
    return {name: why[taken] for name, taken in takers.items() if why[taken]}


def _beside(name: str) -> tuple[str, ...]:
    """What a metric takes beside an image."""
    return set_metric(name).features.beside if is_set(name) else beside(registry.load("metric", name))


def _cannot_start(lines: Iterable[str]) -> str:
    told = "\n".join(f"  {line}" for line in lines)
    return f"this run cannot start:\n{told}\nor leave out what is missing: metrics=available"


def _too_few(metrics: Sequence[str], tasks: Sequence[Task]) -> dict[str, str]:
    """Set metrics that have too few images in a dataset; what they need of label maps counts."""
    out: dict[str, str] = {}
    for name in set_metrics(metrics):
        images: dict[str, set[str]] = {task.dataset: set() for task in tasks}
        for task in tasks:
            if task.entry.sample.labels is not None or "labels" not in _beside(name):
                images[task.dataset].add(task.entry.sample.id)
        fewest, dataset = min((len(ids), dataset) for dataset, ids in images.items())
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
    users: dict[str, list[Need]] = {}
    for codec in dict.fromkeys(codec for codec, _ in bench.grid):
        users[f"codec {codec.name}"] = [*needs_of(registry.load("codec", codec.use)), *weights_of(bench, codec)]
    if not bench.metrics_available:
        users |= {f"metric {name}": list(getattr(registry.load("metric", name), "needs", ())) for name in bench.metrics}
    wanted = dict.fromkeys(need for needs in users.values() for need in needs if _downloadable(need) and need.missing())
    # Nothing is downloaded for what could not run with it, or whose licence was not agreed to.
    if wanted and any(need.missing() for needs in users.values() for need in needs if need not in wanted):
        raise MissingNeed(f"nothing was downloaded, because not all can be:\n{_missing(users)}")
    for need in wanted:
        assert isinstance(need, weights.Weights)
        try:
            weights.fetch(need.card)
        except MissingNeed as error:
            why = str(error).partition("\n")[0]
            raise MissingNeed(f"{why}\nthis run cannot start:\n{_missing(users)}") from error


def _downloadable(need: Need) -> bool:
    return isinstance(need, weights.Weights) and not getattr(need.card, "by_hand", False)


def _missing(users: dict[str, list[Need]]) -> str:
    return "\n".join(line for user, needs in users.items() for line in _lacks(user, needs))

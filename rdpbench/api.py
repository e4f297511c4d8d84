"""What Python programs call: `run` for a whole command, `score` and `Scorer` for images that a program holds.

The command line comes through `run_benches`, too. Images go the way of a run's workers: the same checks before anything
is computed, the same 8-bit pixels, the same code. Imported with the package, so what is heavy is imported inside.
"""

from __future__ import annotations

import importlib
import math
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from rdpbench import registry
from rdpbench.config.typed import from_keywords
from rdpbench.datasets.contract import Sample
from rdpbench.errors import ConfigError, ImageError, MetricError, MissingNeed
from rdpbench.image import as_image
from rdpbench.lazy import pd
from rdpbench.metrics.contract import Lender, beside, check_pair, mean, meaning_of, stated, weighed
from rdpbench.metrics.sets import check_side
from rdpbench.needs import absent
from rdpbench.paths import available, check_variables
from rdpbench.progress import quiet

if TYPE_CHECKING:
    from rich.console import Console

    from rdpbench.runners.execute import Outcome

Names: TypeAlias = str | Sequence[str]
"""Several are a list, or have commas between them."""
Pictures: TypeAlias = Any
"""An image, as a path, a Pillow image, an array or a tensor (`rdpbench.image.as_image`); a list or a batch of them."""
_ALONE = Lock()
"""Runs of several threads go one after the other: they share the fork server and what `borrowed` gives back."""


def run(
    codec: Names | None = None, data: Names | None = None, *, progress: bool = False, **settings: Any
) -> pd.DataFrame:
    """Measure codecs as ``rdpbench run`` does, into the same folder; what is stored there is not done again.

    There is a process for each core, for which scripts need no ``if __name__ == "__main__":``; ``workers=0`` has none.

    Args:
        codec: names; with neither codec nor data the default of ``rdpbench run``.
        data: names of datasets, or ``folder:PATH``.
        progress: show the plan and how far it is on stderr.
        settings: all others that ``rdpbench run --help`` explains, such as ``rate=[20, 50]``, ``metrics="psnr"``,
            ``root="runs"``; those with dots as ``**{"codec.options.effort": 6}``.

    Returns:
        A line for each point and metric of this call, in the columns of ``docs/results.md``. `read_results` has what
        else is stored in the run. Rates are in bits per pixel, values in the column ``unit``.

    Raises:
        RdpbenchError: what the command refuses, in the same words.

    Warns:
        UserWarning: tasks failed, or a bitstream did not decode to its pixels again; the command would end with 1.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as root:
    ...     frame = run("jpeg", "samples", rate=50, limit=1, metrics="psnr", root=root, figures=False, workers=0)
    >>> round(float(frame["bpp"].iloc[0]), 2), round(float(frame["value"].iloc[0]), 2)
    (0.85, 32.06)
    """
    from rich.console import Console

    from rdpbench.results.read import joined, points_of
    from rdpbench.runners.server import borrowed

    given = {name: value for name, value in (("codec", codec), ("data", data)) if value is not None}
    words = from_keywords({**given, **settings})
    check_variables()
    try:
        with _ALONE, borrowed(), nullcontext() if progress else quiet():
            outcomes = run_benches(words, Console(quiet=True))
    except ModuleNotFoundError as error:
        if lacks := absent(error):
            raise MissingNeed(lacks) from error
        raise
    if wrong := [line for outcome in outcomes for line in outcome.wrong]:
        warnings.warn("\n".join(wrong), stacklevel=2)
    parts = [points_of(outcome.done.store.folder.name, outcome.points) for outcome in outcomes]
    return joined(parts).drop_duplicates(ignore_index=True)  # runs of an experiment may share points


def run_benches(overrides: Sequence[str], console: Console, *, encode: bool = True) -> list[Outcome]:
    """Run what was typed: one run, or those of an experiment, and then its figure.

    What a later run lacks is fetched, or stops the command, before the first one starts. A figure of ``conf/figure``
    that has an experiment's name is drawn beside the first run, from these runs and from published numbers.

    Raises:
        RdpbenchError: what `rdpbench.runners.execute.run_bench` raises.
    """
    from rdpbench.config.bench import read_benches
    from rdpbench.figures.command import FigureOptions, make_figures
    from rdpbench.results.read import score_command
    from rdpbench.results.tables import say
    from rdpbench.runners import execute
    from rdpbench.runners.preflight import fetch_weights

    benches = read_benches(overrides)
    if not encode and not any(line.startswith(("codec=", "data=", "experiment=")) for line in overrides):
        store = execute.store_of(benches[0])
        if again := score_command(store, overrides):
            raise ConfigError(f"score which codecs, on which data? Those of the last call in {store.folder}: {again}")
    for bench in benches[1:]:
        fetch_weights(bench)
    outcomes = [execute.run_bench(bench, console, encode=encode) for bench in benches]
    typed = [line.partition("=")[2] for line in overrides if line.startswith("experiment=")]
    wanted = dict.fromkeys(name.strip() for line in typed for name in line.split(","))
    stores = list(dict.fromkeys(outcome.done.store.folder for outcome in outcomes))
    weights = [str(dict(codec.options).get("weights", "")) for bench in benches for codec, _ in bench.grid]
    random = any(kind.startswith("random") for kind in weights)  # then under a watermark
    options = FigureOptions(tuple(map(str, stores)), random=random, out=stores[0] / "figures")
    for name in [name for name in wanted if name in available("figure") and all(bench.figures for bench in benches)]:
        say(console, f"{name}:")
        make_figures([name], options, console)
    return outcomes


def score(
    original: Pictures,
    reconstruction: Pictures,
    metrics: Names,
    *,
    device: str = "cpu",
    allow_unreliable: bool = False,
    download: bool = True,
) -> dict[str, Any]:
    """Score a reconstruction, or several, by the metrics of ``rdpbench run``.

    Args:
        original: an image, or a list or batch of them: paths, Pillow images, arrays ``(H, W, 3)`` or
            ``(N, H, W, 3)``, torch tensors ``(3, H, W)`` or ``(N, 3, H, W)``; ``uint8``, or floats in [0, 1], which
            are rounded to 8 bits as all that rdpbench scores.
        reconstruction: as many, of the same sizes.
        metrics: names, such as ``["psnr", "lpips/alex"]``.
        device: as `Scorer` takes it, and so the others.

    Returns:
        By the name of each metric with its protocol, in the unit that it states: a float for one image, an array
        ``(N,)`` for several, and a float for a metric of sets.

    Raises:
        RdpbenchError: a metric that does not exist or cannot run here, images that it refuses, or too few.

    >>> original = np.full((64, 64, 3), 100, np.uint8)
    >>> values = score(original, original + np.uint8(2), ["psnr", "ssimulacra2"])
    >>> round(values["psnr"], 4)
    42.1102
    """
    images = _several(original)
    number = 1 if images is None else len(images)
    scorer = Scorer(metrics, device=device, images=number, allow_unreliable=allow_unreliable, download=download)
    values = scorer.update(original, reconstruction)
    return {**scorer.compute(), **values}


class Scorer:
    """Scores images as they come, such as those of a validation loop; networks are loaded once, no file is written.

    Used as torchmetrics' classes are, but the original comes first: `update` for each image or batch, `compute` at the
    end, then `reset`. `scores` has the values of each image so far, by metric.

    Args:
        metrics: names, such as ``["psnr", "lpips/alex", "fid/hific-patch"]``.
        device: ``cpu`` or a GPU, such as ``cuda:0``.
        images: how many will come: if these are too few for a metric of sets, it is refused now, and not at the end.
        allow_unreliable: let metrics of sets compute where they have too few images.
        download: fetch published weights that are not here.

    Raises:
        UnknownName: no such metric; the nearest is named.
        MissingNeed: a package or weights that are not here.
        ConfigError: a metric that needs more than images, such as captions.

    >>> scorer = Scorer("psnr")
    >>> original = np.full((8, 8, 3), 100, np.uint8)
    >>> for error in (1, 2):
    ...     values = scorer.update(original, original + np.uint8(error))
    >>> round(scorer.compute()["psnr"], 4)
    45.1205
    """

    def __init__(
        self,
        metrics: Names,
        *,
        device: str = "cpu",
        images: int | None = None,
        allow_unreliable: bool = False,
        download: bool = True,
    ) -> None:
        from rdpbench.config.bench import read_bench
        from rdpbench.runners import preflight, scoring, sets

        asked = {"metrics": metrics, "device": str(device), "allow_unreliable": allow_unreliable, "download": download}
        # Read and checked as the settings of a command, of which no codec and no dataset is left.
        bench = replace(read_bench(from_keywords({"codec": "jpeg", "data": "samples", **asked})), grid=())
        if not bench.metrics:
            raise ConfigError('no metric is named; give some, such as metrics=["psnr", "lpips/alex"]')
        preflight.check_contracts(bench)
        for name in bench.metrics:
            cls: Any = registry.load("metric", name)
            if meaning_of(cls).kind == "decodes":
                raise ConfigError(f"{name} compares decodes of one bitstream, and images have none; see rdpbench.run")
            if taken := cls.features.beside if sets.is_set(name) else beside(cls):
                raise ConfigError(f"{name} needs {taken[0]} beside the images; rdpbench.run takes a dataset's")
        self._unreliable = allow_unreliable
        self._sets = {name: sets.set_metric(name) for name in sets.set_metrics(bench.metrics)}
        if images is not None:
            self._check_number(images)
        preflight.check_devices(bench.devices)
        preflight.fetch_weights(bench)  # only for what can run with them
        self.metrics, _ = preflight.choose_metrics(bench)
        """Names, with those that come along, such as a score of the originals."""
        self._sets = {name: sets.set_metric(name) for name in sets.set_metrics(self.metrics)}
        # Metrics of one network share its arrays.
        self._kinds = {name: sets.kind(cls.features) for name, cls in self._sets.items()}
        for name in self.metrics:
            for module in getattr(registry.load("metric", name), "preload", ()):
                importlib.import_module(module)  # what `_as_in_a_worker` sets is theirs
        self._device = bench.device
        self._of_pairs, self._of_sets = scoring.PairScores(self._device), sets.FeatureExtractor(self._device)
        self.reset()
        # Built now: a file of the user's may be edited, or another metric of its name be typed, before the last image.
        with _as_in_a_worker():
            self._classes = {name: type(self._of_pairs.metric(name)) for name in self.scores}
            for metric in self._sets.values():
                self._of_sets.features(metric)

    def __len__(self) -> int:
        """How many images were scored."""
        return self._images

    def reset(self) -> None:
        """Forget all images; networks stay."""
        self._images = 0
        self.scores: dict[str, list[float]] = {name: [] for name in self.metrics if name not in self._sets}
        self._arrays: dict[str, tuple[list[Any], list[Any]]] = {kind: ([], []) for kind in self._kinds.values()}

    def update(self, original: Pictures, reconstruction: Pictures) -> dict[str, Any]:
        """Score an image or several, which are given as `score` takes them.

        Returns:
            By metric, without those of sets: a float for one image, an array ``(N,)`` for several.

        Raises:
            ImageError: what is no image that is understood.
            MetricError: other sizes or numbers of images, or a metric refuses one. Those before it are scored.
        """
        several = _several(original), _several(reconstruction)
        numbers = ["one" if side is None else f"a list of {len(side)}" for side in several]
        if numbers[0] != numbers[1]:
            raise MetricError(f"each original needs its reconstruction: {numbers[0]} and {numbers[1]} were given")
        start, single = self._images, several[0] is None
        pairs = zip(*(side or [] for side in several), strict=True)
        with _as_in_a_worker():
            for number, (first, second) in enumerate([(original, reconstruction)] if single else pairs):
                self._score(first, second, "" if single else f" {number}")
        values = {name: np.array(scores[start:]) for name, scores in self.scores.items()}
        return {name: float(scores[0]) for name, scores in values.items()} if single else values

    def _score(self, original: Pictures, reconstruction: Pictures, which: str) -> None:
        """All or nothing of a pair."""
        from rdpbench.runners.scoring import Original, no_score

        first, second = as_image(original, f"original{which}"), as_image(reconstruction, f"reconstruction{which}")
        check_pair(first, second, f"image{which}")
        prepared, copies, sample = Original(first), Lender(second, "reconstruction"), Sample("", Path())
        try:
            for cls in self._sets.values():
                check_side(cls, *first.shape[:2])
            scores = {name: self._of_pairs.score(name, prepared, copies, sample, "as-is")[0] for name in self.scores}
            if refused := [
                f"{name}: {why}" for name, value in scores.items() if (why := no_score(self._classes[name], value))
            ]:
                raise MetricError("; ".join(refused))
            arrays = {
                kind: [
                    self._of_sets.extract(name, self._sets[name], image, "", sample, "as-is").array
                    for image in (first, second)
                ]
                for kind, name in {kind: name for name, kind in self._kinds.items()}.items()
            }
        except (MetricError, ImageError) as error:
            raise type(error)(f"image{which}: {error}" if which else str(error)) from error
        self._images += 1
        for name, value in scores.items():
            self.scores[name].append(value)
        for kind, pair in arrays.items():
            for side, array in zip(self._arrays[kind], pair, strict=True):
                side.append(array)

    def compute(self) -> dict[str, float]:
        """The numbers of a table: the mean of each metric as it states it, and the values of sets, by metric.

        Raises:
            ConfigError: fewer images than a metric of sets needs.
            MetricError: no image, or a metric of sets has no value of these.

        Warns:
            UserWarning: a metric of sets had too few images, and the user insisted.
        """
        from rdpbench.runners import sets

        if not self._images:
            raise MetricError("no image was scored; Scorer.update takes them")
        for name, why in self._check_number(self._images).items():
            warnings.warn(f"{name} {why}: the value is not reliable", stacklevel=2)
        values: dict[str, float] = {}
        for name, scores in self.scores.items():
            averaged = meaning_of(self._classes[name]).averaged
            values[name] = float(stated(mean(weighed(scores, averaged).tolist()), averaged))
        for name, cls in self._sets.items():
            theirs, ours = self._arrays[self._kinds[name]]
            own = sets.reference_of(cls) != sets.ORIGINALS
            reference = sets.reference_arrays(name, cls, self._device) if own else theirs
            estimate = sets.reduced(cls(), reference, ours, unreliable=self._unreliable)
            if not math.isfinite(estimate.value):
                raise MetricError(f"{name}: {estimate.reason or f'the metric gave {estimate.value}'}")
            values[name] = estimate.value
        return {name: values[name] for name in self.metrics}

    def _check_number(self, images: int) -> dict[str, str]:
        """Metrics of sets that need more images than so many; raises `ConfigError` unless these are allowed."""
        from rdpbench.runners import preflight, sets

        few = {name: why for name, metric in self._sets.items() if (why := sets.too_few(metric, images))}
        if not self._unreliable:
            preflight.refuse_few(few)
        return few


def _several(given: Pictures) -> Sequence[Any] | None:
    """The images of a list or batch; None for a single one."""
    return list(given) if isinstance(given, (list, tuple)) or getattr(given, "ndim", 0) == 4 else None


@contextmanager
def _as_in_a_worker() -> Iterator[None]:
    """One thread and full precision, since both change digits; the caller's random numbers stay as they are."""
    torch: Any = sys.modules.get("torch")
    with ExitStack() as stack:
        if torch:
            from rdpbench.networks.precision import one_thread

            stack.enter_context(one_thread())
            stack.enter_context(torch.random.fork_rng(devices=[]))
            for kind in ("cpu", "cuda"):
                if torch.is_autocast_enabled(kind):
                    stack.enter_context(torch.autocast(kind, enabled=False))
        yield

"""The figures and tables of papers as data, for drawing them and for the page of coverage.

Each ``conf/figure/<paper>-<figure>.yaml`` describes one of them::

    paper: taco                     # one of PAPERS
    figure: Figure 7                # as the paper counts
    title: Kodak                    # ours
    kind: curves                    # curves, scatter, heat-map, table, images or diagram
    notes: [...]                    # what is not known of it, optional
    panels:                         # none for a diagram
      - dataset: kodak              # our name, and its protocol
        protocol: as-is
        x: bpp                      # or another metric, or a setting of the codec; a table has none
        y: psnr                     # our metric; of a heat map a second setting, and value is the metric
        accept: [psnr@unstated]     # published metrics that may stand in, said beside them; optional
        accept_datasets: [...]      # published sets that may stand in; optional
        at_bpp: 0.4                 # scatter: interpolated at this rate
    series:                         # one line, row or example each
      - codec: hific
        label: HiFiC
        variant: ""                 # only published curves of this variant; without it, all of the codec
        added: true                 # ours, not in the paper; optional
        measured: [hific-tfci]      # labels of our curves of it beside the codec's own name; optional

A diagram has neither panels nor series: it is listed, so that none is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from rdpbench.errors import ConfigError, UnknownName
from rdpbench.paths import conf_folder, read_yaml
from rdpbench.setting import Presentation

PAPERS = {
    "text-sketch": "Text + Sketch (Lei et al., 2023, arXiv 2307.01944)",
    "textual-inversion": "Textual inversion (Pan et al., 2022, arXiv 2211.07793)",
    "taco": "TACO (Lee et al., ICML 2024, arXiv 2403.02944)",
    "perco": "PerCo (Careil et al., ICLR 2024, arXiv 2310.10325)",
}
KINDS = ("curves", "scatter", "heat-map", "table", "images", "diagram")


@dataclass(frozen=True)
class Panel:
    """One axis pair, one column of a table, or one set of example images."""

    dataset: str
    protocol: str
    x: str = ""
    y: str = ""
    value: str = ""
    accept: tuple[str, ...] = ()
    accept_datasets: tuple[str, ...] = ()
    at_bpp: float | None = None

    @property
    def metric(self) -> str:
        """The metric that the panel is about; empty for images."""
        return self.value or self.y

    @property
    def settings(self) -> tuple[str, ...]:
        """The codec's settings on its axes.

        >>> len(Panel("kodak", "as-is", "guidance", "strength", "psnr").settings)
        2
        """
        if self.value:
            return self.x, self.y
        return () if self.x in ("", "bpp") or self.at_bpp is not None else (self.x,)


@dataclass(frozen=True)
class Series:
    """One curve, row or column of examples."""

    codec: str
    label: str
    variant: str | None = None
    added: bool = False
    measured: tuple[str, ...] = ()
    """Labels that curves of it have in runs, such as ``taco[captions=ofa]``."""

    @property
    def labels(self) -> tuple[str, ...]:
        """All labels of our curves of it: the codec's name, with the variant if it is one, and those that are listed.

        >>> Series("taco", "TACO", measured=("taco[captions=ofa]",)).labels
        ('taco', 'taco[captions=ofa]')
        """
        own = f"{self.codec}[{self.variant}]" if self.variant else self.codec
        return tuple(dict.fromkeys((own, *self.measured)))


@dataclass(frozen=True)
class FigurePreset:
    """A figure or table of a paper."""

    name: str
    paper: str
    figure: str
    title: str
    kind: str
    notes: tuple[str, ...] = ()
    panels: tuple[Panel, ...] = ()
    series: tuple[Series, ...] = ()


def presented(preset: FigurePreset, show: Presentation) -> FigurePreset:
    """The same with the labels, the order and the panels that were asked for.

    Raises:
        UnknownName: what has no panel, or is no codec, in this figure.
    """
    there = dict.fromkeys(name for panel in preset.panels for name in (panel.metric, panel.dataset) if name)
    for name in show.shown:
        if name not in there:
            raise UnknownName("panel", name, there, f"the panels of {preset.name}")
    codecs = dict.fromkeys(name for series in preset.series for name in (series.codec, series.label))
    for name in show.order:
        if name not in codecs:
            raise UnknownName("codec", name, codecs, f"those of {preset.name}")
    panels = [panel for name in show.shown for panel in preset.panels if name in (panel.metric, panel.dataset)]
    series = [replace(s, label=show.labels.get(s.codec, show.labels.get(s.label, s.label))) for s in preset.series]
    places = {name: place for place, name in enumerate(show.order)}
    series.sort(key=lambda s: min(places.get(s.codec, len(places)), places.get(s.label, len(places))))
    return replace(preset, panels=tuple(dict.fromkeys(panels)) or preset.panels, series=tuple(series))


def presets(folder: Path | None = None) -> list[FigurePreset]:
    """All figures and tables, paper by paper.

    Raises:
        ConfigError: a file that is not one, with what it may hold.

    >>> sum(preset.kind == "table" for preset in presets())
    5
    """
    folder = conf_folder() / "figure" if folder is None else folder
    known = [_preset(path, read_yaml(path)) for path in sorted(folder.glob("*.yaml"))]
    return sorted(known, key=lambda preset: (list(PAPERS).index(preset.paper), preset.kind == "table"))


def _preset(path: Path, record: Any) -> FigurePreset:
    known = _known(FigurePreset, record, f"{path}")
    for name, allowed in (("paper", tuple(PAPERS)), ("kind", KINDS)):
        if known.get(name) not in allowed:
            raise ConfigError(f"{path}: {name} is {known.get(name)!r}; it can be {', '.join(allowed)}")
    for name, kind in (("panels", Panel), ("series", Series)):
        where = f"{path}: {name}"
        known[name] = tuple(_built(kind, _known(kind, part, where), where) for part in known.get(name, ()))
    preset: FigurePreset = _built(FigurePreset, {"notes": (), **known, "name": path.stem}, f"{path}")
    if bool(preset.panels and preset.series) == (preset.kind == "diagram"):
        raise ConfigError(f"{path}: a diagram has no panels and series, and everything else has both")
    return preset


def _known(kind: Any, record: Any, where: str) -> dict[str, Any]:
    names = [field.name for field in fields(kind)]
    if not isinstance(record, Mapping) or not record.keys() <= set(names):
        odd = ", ".join(sorted(set(record) - set(names))) if isinstance(record, Mapping) else repr(record)
        raise ConfigError(f"{where}: {odd} is not known here; known are: {', '.join(names)}")
    return {key: tuple(value) if isinstance(value, list) else value for key, value in record.items()}


def _built(kind: Any, record: Mapping[str, Any], where: str) -> Any:
    try:
        return kind(**record)
    except TypeError as error:
        raise ConfigError(f"{where}: {str(error).partition('__init__() ')[2]}") from error

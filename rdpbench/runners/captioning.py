"""Captions of a dataset for a plan: they are part of a task's key, so a model makes them before anything is coded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rdpbench.config import Bench
from rdpbench.datasets.caption_models import Settings
from rdpbench.datasets.captions import Caption, captions_of, parse, survey
from rdpbench.datasets.contract import Dataset
from rdpbench.datasets.index import Entry
from rdpbench.errors import MissingNeed
from rdpbench.runners.progress import tell

NOT_MADE = "(a model has yet to make this caption)"
"""What stands for one in a plan that runs nothing: its task counts as left to do, which it is."""


def captions_for(bench: Bench, source: str, dataset: Dataset, entries: Sequence[Entry]) -> Mapping[str, Caption]:
    """The caption of each image, by its id.

    Raises:
        ConfigError: no such source, or images without a caption.
        MissingNeed: a list or a model that is not here, and may not or cannot be downloaded.
    """
    parsed, settings = parse(source), Settings(device=bench.device)
    if bench.dry or not bench.download:
        cost = survey(parsed, entries, dataset=dataset.name, settings=settings)
        if cost.lacks:
            raise MissingNeed(cost.lacks)
        if bench.dry and cost.to_make:
            return {entry.sample.id: Caption(NOT_MADE, None, source, "") for entry in entries}
    made = captions_of(parsed, entries, dataset=dataset.name, protocol=dataset.protocol, settings=settings)
    for note in made.notes:
        tell(note)
    return made.by_id

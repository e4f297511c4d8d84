"""Token ids to what conditions a U-Net: the text tower's last states, or SDXL's two towers and a pooled prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rdpbench.codecs.diffusion.models import Models

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Condition:
    """What a U-Net sees of a prompt."""

    hidden: Tensor
    """``(1, 77, width)``."""
    pooled: Tensor | None = None
    """``(1, width)``, for SDXL."""


def condition(models: Models, ids: Sequence[int]) -> Condition:
    """The condition of ids, which stand between both ends and are cut after 75.

    Ids are taken as they are: they do not pass through text.
    """
    import torch

    words = models.vocabulary
    states, pooled = [], None
    for tower, pad in zip(models.texts, models.layout.pads, strict=True):
        sequence = torch.tensor([words.sequence(ids, pad)], device=models.device)
        if not models.layout.pooled:
            return Condition(tower(sequence).last_hidden_state)
        found = tower(sequence, output_hidden_states=True)
        states.append(found.hidden_states[-2])
        pooled = getattr(found, "text_embeds", None)
    return Condition(torch.cat(states, dim=-1), pooled)

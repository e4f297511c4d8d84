"""Tensors of a file into the classes of diffusers and transformers, strictly.

Networks are made without storage and then given the file's tensors, so that a model is never in memory twice. Which
tensors these are, and that they fit, is decided where it is for all codecs (`rdpbench.codecs.learned.checkpoints`).
What the years changed is put right by name:

- transformers 5 lost the ``text_model.`` in front of the text tower's names (not where there is a projection);
- text towers of before 4.31 hold the numbers of their positions, which are dropped;
- VAEs of 2022 call the parts of their attention ``query``, ``key``, ``value`` and ``proj_attn``.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from rdpbench.codecs.learned.checkpoints import match

if TYPE_CHECKING:
    import torch
    from torch import Tensor

DROPPED = ("*position_ids",)
"""Patterns of names that are left out of every file."""
_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


Given = ParamSpec("Given")
Made = TypeVar("Made")


def trainable(load: Callable[Given, Made]) -> Callable[Given, Made]:
    """Let a loader make ordinary tensors even where torch infers only: others cannot be differentiated through."""

    @functools.wraps(load)
    def outside(*args: Given.args, **options: Given.kwargs) -> Made:
        import torch

        with torch.inference_mode(False), torch.no_grad():
            return load(*args, **options)

    return outside


def vae_name(name: str) -> str:
    """Today's name of a tensor of a VAE.

    >>> vae_name("encoder.mid_block.attentions.0.proj_attn.bias")
    'encoder.mid_block.attentions.0.to_out.0.bias'
    """
    return re.sub(
        r"(\.attentions\.\d+\.)(query|key|value|proj_attn)(?=\.)", lambda old: old[1] + _ATTENTION[old[2]], name
    )


def text_name(name: str) -> str:
    """Today's name of a tensor of a text tower without projection.

    >>> text_name("text_model.final_layer_norm.bias")
    'final_layer_norm.bias'
    """
    return name.removeprefix("text_model.")


def on_meta(build: Callable[[], Any]) -> Any:
    """The network that ``build`` makes, without storage."""
    import torch

    with torch.device("meta"):
        return build()


def fill(
    network: Any,
    tensors: Mapping[str, Tensor],
    what: str,
    dtype: torch.dtype,
    *,
    rename: Callable[[str], str] = str,
    drop: Collection[str] = (),
) -> Any:
    """Give a network made `on_meta` its tensors; returns it in evaluation mode and without gradients.

    Args:
        network: without storage.
        tensors: by the names of the file, in any floating-point format.
        what: the file, for messages.
        dtype: of the network.
        rename: from a name in the file to the network's.
        drop: patterns of names in the file that are left out on purpose, beside `DROPPED`.

    Raises:
        CodecError: see `rdpbench.codecs.learned.checkpoints.match`.
    """
    given = match(network, tensors, what, rename=rename, drop=(*DROPPED, *drop)).tensors
    network.load_state_dict({name: one.to(dtype) for name, one in given.items()}, strict=True, assign=True)
    return settle(network)


def settle(network: Any) -> Any:
    """Evaluation mode, no gradients, and the numbers of positions where the meta device left them without values."""
    import torch

    for name, buffer in list(network.named_buffers()):
        if buffer.is_meta:
            owner, _, last = name.rpartition(".")
            assert last == "position_ids", f"{name} has no values and is in no file"
            network.get_submodule(owner).position_ids = torch.arange(buffer.shape[-1])[None]
    return network.eval().requires_grad_(False)

"""PerCo, perceptual compression: vector-quantised latents and a caption, from which Stable Diffusion paints the image.

Careil et al., "Towards image compression with perfect realism at ultra-low bitrates", ICLR 2024,
https://arxiv.org/abs/2310.10325. The authors published neither code nor weights; this is the open implementation,
Nikolai10/PerCo (Apache-2.0; nothing of it is copied here), which is Stable Diffusion 2.1, trained further as a whole.

The VAE's latents go through a hyper-encoder, and each of its vectors becomes the nearest of V entries of a codebook.
The decoder's U-Net sees these entries, enlarged, as further channels of its input, and the caption as its prompt. The
caption is that of the ``captions=`` axis; the published numbers are with BLIP-2's (``captions=blip2``).

In the bitstream: height, width, the noise seed, the caption, the indices; see `rdpbench.codecs.perco_fields`. At
512 x 512 and nominally 0.0019 bpp, 64 indices of 8 bits are 64 bytes, and a deflated caption some 45.

Seven rates, of which three have public weights (`rdpbench.codecs.perco_weights`). The defaults are the official ones:
20 steps of DDIM below 0.05 bpp and 5 above, guidance 3 by text alone, the caption deflated.

Settings for the paper's ablations: the open weights were trained for ``guidance=none`` and for
``conditioning=spatial`` (the empty caption, which a tenth of the training had), but neither for
``guidance=text+spatial`` nor for ``conditioning=text`` (zeros instead of entries) nor for ``quantised=false``. Rows of
these three say ``untrained`` in their column ``coder``.

Where this departs from the official code, and why:

- Height, width, seed and lengths are counted: 6 to 9 bytes. The official evaluation counts the caption and the indices
  only, and decodes nothing; its file is a pickle, 81 bytes larger. Both are in ``legacy``, with the rate in the name.
- Indices are one number in base V. The official coder is an arithmetic one with a uniform model: a byte longer.
- The noise is seeded by the container, the VAE's draw by the run. Officially a dataset is coded unseeded.
- Any size is taken: continued to multiples of 64, and cut. The official code squashes its input to 512 x 512, which
  here is the protocol of a dataset: ``data=kodak data.options.protocol=perco-512``.
- The unused ``conv_in`` of the U-Net's file is dropped, and ``conv_in_extended`` takes its place in diffusers' class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from rdpbench.codecs import perco_fields, perco_weights
from rdpbench.codecs.contract import Side
from rdpbench.codecs.diffusion import fields, prompts
from rdpbench.codecs.diffusion.prompts import Condition
from rdpbench.codecs.inprocess import check_choice
from rdpbench.codecs.perco_codec import PerCoCodec
from rdpbench.codecs.perco_models import Pipeline
from rdpbench.errors import CodecError
from rdpbench.image import Image

with_seed = fields.with_seed
"""Another sample of the same bitstream: nothing is encoded again."""


@dataclass(frozen=True)
class PerCo(PerCoCodec):
    """Indices and a caption."""

    name: ClassVar[str] = "perco"
    described: ClassVar[str] = "caption"
    uses_caption: ClassVar[bool] = True

    caption_code: str = "zlib"
    """How the caption is coded: ``zlib``, ``deflate``, ``fixed`` or ``rank``; all paint the same."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.name, "caption_code", self.caption_code, perco_fields.CAPTION_CODES)

    def describe(self, ready: Pipeline, image: Image, side: Side) -> bytes:  # noqa: ARG002 - the caption is made before
        return perco_fields.pack_caption(self._caption(side), self.caption_code, ready.models.vocabulary)

    def condition(self, ready: Pipeline, section: bytes | None) -> Condition:
        words = ready.models.vocabulary
        ids = [] if section is None else perco_fields.unpack_caption(section, self.caption_code, words)
        return prompts.condition(ready.models, ids)

    def printed(self, sections: Mapping[str, bytes], side: Side, count: int, size: tuple[int, int]) -> dict[str, float]:
        if "vectors" in sections:
            return {}
        caption = side.caption if self.described in sections else None
        entries = perco_weights.POINTS[self.nominal].entries
        return perco_fields.printed(caption, count if "indices" in sections else 0, entries, size)

    def _caption(self, side: Side) -> str:
        if side.caption is None:
            raise CodecError(
                f"{self.name} encodes an image with its caption, and got none; type captions=human, captions=blip2, "
                "or leave it out: codec.options.conditioning=spatial"
            )
        return side.caption

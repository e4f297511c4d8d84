"""PerCo-Image: PerCo with an embedding of the image in place of a caption, in 160 bits.

Careil et al., ICLR 2024, section 4.3, "Conditioning on global image features": an embedding from an image backbone is
divided into M = 16 parts, and each is quantised by a codebook of V = 1024 entries of its own (Jégou et al., 2011). At
512 x 512 these are 0.00061 bpp, where BLIP-2's captions take 0.0022.

Fidelity: paper. There is no code and there are no weights; the paper says neither which backbone it was nor how the
embedding entered the U-Net. Here the backbone is a CLIP network (OpenCLIP's ViT-H/14 unless another is given), whose
embedding of length one goes as a single token through a linear layer (diffusers' ``encoder_hid_proj``) into cross
attention. What guidance keeps away from is a token of zeros, after that layer a constant vector, as in the paper.

With weights of your own: ``pipeline=`` is a folder as for PerCo, whose U-Net was made with ``encoder_hid_dim``, and
``codebooks=`` a file that `perco_product.learned` made and saved. Nothing here says how good the paper's variant is.

In the bitstream: height, width, seed, 20 bytes of embedding, the indices as in `rdpbench.codecs.perco`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np

from rdpbench.codecs import perco_fields, perco_product, perco_weights
from rdpbench.codecs.contract import Side
from rdpbench.codecs.diffusion import clips, fields, folders, models, tiny
from rdpbench.codecs.diffusion.codec import check_count
from rdpbench.codecs.diffusion.prompts import Condition
from rdpbench.codecs.perco_codec import PerCoCodec
from rdpbench.codecs.perco_models import Pipeline
from rdpbench.codecs.perco_product import ProductQuantizer
from rdpbench.errors import CodecError
from rdpbench.image import Image
from rdpbench.metrics.clip_tower import unit
from rdpbench.metrics.clip_weights import H14, SHAPES
from rdpbench.needs import Need
from rdpbench.weights import sha256_of

with_seed = fields.with_seed
"""Another sample of the same bitstream: nothing is encoded again."""


@dataclass(frozen=True)
class NoWeights(Need):
    """The need for weights that nobody published."""

    def missing(self) -> str:
        return (
            "no weights of PerCo-Image are public; with yours: codec.options.pipeline=/a/folder and "
            "codec.options.codebooks=/a/file; untrained: weights=random"
        )


@dataclass(frozen=True)
class Codebooks(Need):
    """The need for a file of codebooks."""

    path: str

    def missing(self) -> str | None:
        if self.path and Path(self.path).expanduser().is_file():
            return None
        told = f"no such file: {self.path}" if self.path else "no codebooks of PerCo-Image are public"
        return f"{told}; make some with rdpbench.codecs.perco_product and type codec.options.codebooks=/the/file"


@dataclass(frozen=True)
class PerCoImage(PerCoCodec):
    """Indices and an embedding."""

    name: ClassVar[str] = "perco-image"
    described: ClassVar[str] = "embedding"
    takes_own: ClassVar[Mapping[str, frozenset[str]]] = {
        **PerCoCodec.takes_own,
        "codebooks": frozenset(),
        "clip": frozenset(clips.CLIPS),
    }

    parts: int = 16
    """M."""
    entries: int = 1024
    """V, of each part's codebook."""
    codebooks: str = ""
    """A file of yours."""
    clip: str = H14.id
    """The backbone: one of `clips.CLIPS`, or a folder with a ``CLIPModel``."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count(self.name, "parts", self.parts, 1, 4096)
        check_count(self.name, "entries", self.entries, 2, 1 << 16)
        folders.check_known("clip", self.clip, clips.CLIPS)

    def weight_needs(self) -> tuple[Need, ...]:
        if self.weights != "official":
            return ()
        own = super().weight_needs() if self.pipeline else (NoWeights(),)
        return (*own, Codebooks(self.codebooks), *clips.needs(self.clip))

    def hashes(self) -> dict[str, str]:
        return {**super().hashes(), "clip": clips.identity(self.clip), "codebooks": _sha256(self.codebooks)}

    def embedding(self) -> int:
        if self.weights == "official":
            return self.quantizer().width
        if self.weights == "random":
            return tiny.CLIP_TEXT["projection_dim"]
        if folders.is_path(self.clip):
            return int(folders.read_config(self.clip)["projection_dim"])
        return SHAPES[self.clip].dim

    def quantizer(self) -> ProductQuantizer:
        """The codebooks of this configuration.

        Raises:
            MissingNeed: the file is not here.
            CodecError: it holds no codebooks, or others than these.
        """
        if self.weights != "official":
            return perco_product.drawn(self.parts, self.entries, self.embedding(), seed=9)
        models.require([Codebooks(self.codebooks)])
        found = _read(self.codebooks, _sha256(self.codebooks))
        if found.codebooks.shape[:2] != (self.parts, self.entries):
            held = " x ".join(map(str, found.codebooks.shape[:2]))
            raise CodecError(
                f"{self.codebooks} holds {held} entries, where parts x entries is {self.parts} x {self.entries}"
            )
        return found

    def describe(self, ready: Pipeline, image: Image, side: Side) -> bytes:  # noqa: ARG002 - nothing stands beside the image
        clip = clips.load(self.clip, self.weights, ready.models.device)
        quantizer = self.quantizer()
        vector = unit(clip.image([image]))[0]
        if vector.size != quantizer.width:
            raise CodecError(
                f"{self.clip} has embeddings of {vector.size} numbers, the codebooks are for {quantizer.width}"
            )
        return perco_fields.pack_indices(quantizer.indices(vector), self.entries)

    def condition(self, ready: Pipeline, section: bytes | None) -> Condition:
        import torch

        quantizer = self.quantizer()
        vector = np.zeros(quantizer.width, np.float32)
        if section is not None:
            vector = quantizer.vector(perco_fields.unpack_indices(section, self.parts, self.entries))
        return Condition(torch.from_numpy(vector)[None, None].to(ready.models.device, ready.models.dtype))

    def printed(self, sections: Mapping[str, bytes], side: Side, count: int, size: tuple[int, int]) -> dict[str, float]:  # noqa: ARG002 - it prints indices alone
        """The paper's rate: indices of fixed length, without any header."""
        local = (
            perco_fields.index_bits(count, perco_weights.POINTS[self.nominal].entries) if "indices" in sections else 0
        )
        embedding = perco_fields.index_bits(self.parts, self.entries) if self.described in sections else 0
        return {} if "vectors" in sections else {"perco": embedding + local, "embedding": embedding, "indices": local}


def _sha256(path: str) -> str:
    place = Path(path).expanduser()
    return f"sha256:{sha256_of(place)}" if path and place.is_file() else "missing"


@lru_cache(maxsize=2)
def _read(path: str, sha256: str) -> ProductQuantizer:  # noqa: ARG001 - another file is another quantiser
    return perco_product.read(Path(path).expanduser())

"""PerCo-Image: PerCo with an embedding of the image in place of a caption, in 160 bits.

Careil et al., ICLR 2024, section 4.3, "Conditioning on global image features": an embedding from an image backbone is
divided into M = 16 parts, and each is quantised by a codebook of V = 1024 entries of its own (product quantisation:
Jégou et al., TPAMI 2011). At 512 x 512 these are 0.00061 bpp, where BLIP-2's captions take 0.0022.

Fidelity: paper. There is no code and there are no weights; the paper says neither which backbone it was nor how the
embedding entered the U-Net, and nothing here says how good its variant is. Here the backbone is a CLIP network
(OpenCLIP's ViT-H/14 unless another is given), whose embedding of length one goes as a single token through a linear
layer (diffusers' ``encoder_hid_proj``) into cross attention. Guidance keeps away from a token of zeros, after that
layer a constant vector, as in the paper.

With weights of your own: ``pipeline=`` is a folder as for PerCo, whose U-Net was made with ``encoder_hid_dim``, and
``codebooks=`` a file that `learned` made and saved.

In the bitstream: height, width, seed, 20 bytes of embedding, the indices as in PerCo.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rdpbench.assets.hashes import content_sha256
from rdpbench.assets.weights import NotPublic, OwnFile, require
from rdpbench.codecs.contract import Side, number
from rdpbench.codecs.diffusion import bases, fields, models
from rdpbench.codecs.diffusion.perco import PerCoCodec, Pipeline
from rdpbench.codecs.diffusion.sampling import Condition
from rdpbench.errors import CodecError
from rdpbench.image import Image
from rdpbench.lazy import torch
from rdpbench.needs import Need
from rdpbench.networks.clip import H14, SHAPES, unit

Vectors: TypeAlias = NDArray[np.float32]
Numbers: TypeAlias = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class PerCoImage(PerCoCodec):
    """Indices and an embedding."""

    name = "perco-image"
    described = "embedding"
    takes_own: ClassVar = {**PerCoCodec.takes_own, "codebooks": frozenset(), "clip": frozenset(models.CLIPS)}

    parts: int = number(16, 1, 4096)
    """M."""
    entries: int = number(1024, 2, 1 << 16)
    """V, of each part's codebook."""
    codebooks: str = ""
    """A file of yours."""
    clip: str = H14.id
    """The backbone: one of `models.CLIPS`, or a folder with a ``CLIPModel``."""

    def files(self) -> tuple[Need, ...]:
        own = "yours: codec.options.pipeline=/a/folder and codec.options.codebooks=/a/file"
        networks = super().files() if self.pipeline else (NotPublic("PerCo-Image", own),)
        return (*networks, Codebooks(self.codebooks), models.clip_source(self.clip))

    def hashes(self) -> dict[str, str]:
        clip = models.clip_source(self.clip).named_identity
        return {**super().hashes(), "clip": clip, "codebooks": Codebooks(self.codebooks).identity}

    def embedding(self) -> int:
        if self.weights == "official":
            return self.quantizer().width
        if self.weights == "random":
            return models.CLIP_TEXT["projection_dim"]
        if bases.is_path(self.clip):
            return int(bases.read_config(self.clip)["projection_dim"])
        return SHAPES[self.clip].dim

    def quantizer(self) -> ProductQuantizer:
        """The codebooks of this configuration.

        Raises:
            MissingNeed: the file is not here.
            CodecError: it holds no codebooks, or others than these.
        """
        if self.weights != "official":
            return drawn(self.parts, self.entries, self.embedding(), seed=9)
        quantizer = Codebooks(self.codebooks).read()
        parts, entries, _ = quantizer.codebooks.shape
        if (parts, entries) != (self.parts, self.entries):
            due = f"parts x entries is {self.parts} x {self.entries}"
            raise CodecError(f"{self.codebooks} holds {parts} x {entries} entries; {due}")
        return quantizer

    def describe(self, ready: Pipeline, image: Image, side: Side) -> bytes:  # noqa: ARG002 - nothing stands beside the image
        clip = models.clip_network(self.clip, self.weights, ready.device)
        quantizer, vector = self.quantizer(), unit(clip.image([image]))[0]
        if vector.size != quantizer.width:
            raise CodecError(
                f"{self.clip} has embeddings of {vector.size} numbers, the codebooks are for {quantizer.width}"
            )
        return fields.pack_indices(quantizer.indices(vector), self.entries)

    def condition(self, ready: Pipeline, section: bytes | None) -> Condition:
        quantizer = self.quantizer()
        vector = np.zeros(quantizer.width, np.float32)
        if section is not None:
            vector = quantizer.vector(fields.unpack_indices(section, self.parts, self.entries))
        return Condition(torch.from_numpy(vector)[None, None].to(ready.device, ready.dtype))

    def printed(self, sections: Mapping[str, bytes], side: Side, count: int, size: tuple[int, int]) -> dict[str, float]:  # noqa: ARG002 - it prints indices alone
        """The paper's rate: indices of fixed length, without any header."""
        indices = fields.index_bits(count, self.point.entries)
        embedding = fields.index_bits(self.parts, self.entries) if self.described in sections else 0
        return {"perco": embedding + indices, "embedding": embedding, "indices": indices}


@dataclass(frozen=True)
class Codebooks(OwnFile):
    """The need for a file of codebooks."""

    @property
    def identity(self) -> str:
        """What enters keys."""
        return "missing" if self.missing() else f"sha256:{content_sha256(self.path)}"

    def missing(self) -> str | None:
        if self.file and self.path.is_file():
            return None
        lacks = f"no such file: {self.file}" if self.file else "no codebooks of PerCo-Image are public"
        return f"{lacks}; make some with {__name__}.learned and type codec.options.codebooks=/the/file"

    def read(self) -> ProductQuantizer:
        """The quantizer; raises `MissingNeed`, and `CodecError` if the file holds no codebooks."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        require([self])
        try:
            tensors = load_file(self.path)
        except (OSError, SafetensorError) as error:
            raise CodecError(f"{self.file} holds no codebooks: {error}") from error
        books, width = tensors.get("codebooks"), tensors.get("width")
        if books is None or width is None or books.ndim != 3 or width.size != 1 or not np.isfinite(books).all():
            held = f"{self.file} holds {', '.join(tensors)}"
            raise CodecError(f"{held}; it must hold finite codebooks (M, V, d) and a width")
        return ProductQuantizer(books.astype(np.float32), int(width[0]))


@dataclass(frozen=True, eq=False)
class ProductQuantizer:
    """M codebooks.

    >>> ProductQuantizer(np.eye(4, dtype=np.float32).reshape(2, 2, 4), 8).indices(np.arange(8.0)).tolist()
    [1, 1]
    """

    codebooks: Vectors
    """``(M, V, ceil(width / M))``."""
    width: int
    """Of the embeddings."""

    def indices(self, vector: Numbers) -> NDArray[np.int64]:
        """``(M,)``: the nearest entry of each part of ``(width,)``, the first of equals."""
        parts = split(vector[None], len(self.codebooks))[0]
        # Squared distances, less what is the same for all entries.
        pairs = zip(parts[:, None], self.codebooks, strict=True)
        return np.array([((book**2).sum(1) - 2 * part @ book.T).argmin() for part, book in pairs])

    def vector(self, indices: NDArray[np.int64]) -> Vectors:
        """``(width,)`` of indices ``(M,)``."""
        parts: Vectors = self.codebooks[np.arange(len(self.codebooks)), indices]
        return parts.ravel()[: self.width]

    def save(self, path: Path) -> None:
        """Write a file for ``codebooks=``."""
        from safetensors.numpy import save_file

        save_file({"codebooks": self.codebooks, "width": np.array([self.width], np.int64)}, path)


def drawn(parts: int, entries: int, width: int, seed: int) -> ProductQuantizer:
    """Random codebooks for embeddings of length one.

    >>> drawn(16, 1024, 1024, 0).codebooks.shape
    (16, 1024, 64)
    """
    each = -(-width // parts)
    books = np.random.default_rng(seed).standard_normal((parts, entries, each)) / np.sqrt(width)
    return ProductQuantizer(books.astype(np.float32), width)


def learned(vectors: Vectors, parts: int, entries: int, seed: int = 0, rounds: int = 25) -> ProductQuantizer:
    """Codebooks with small squared error on these embeddings ``(n, width)``: k-means, part by part.

    Raises:
        CodecError: fewer embeddings than entries.
    """
    from scipy.cluster.vq import kmeans2

    if len(vectors) < entries:
        raise CodecError(f"{len(vectors)} embeddings are too few to learn {entries} entries from")
    rng = np.random.default_rng(seed)
    shares = split(vectors, parts)
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "One of the clusters is empty", UserWarning
        )  # such an entry stays where it was
        books = [kmeans2(shares[:, part], entries, rounds, minit="++", rng=rng)[0] for part in range(parts)]
    return ProductQuantizer(np.stack(books).astype(np.float32), vectors.shape[1])


def split(vectors: Numbers, parts: int) -> Vectors:
    """``(n, width)`` as ``(n, parts, ceil(width / parts))``, filled up with zeros.

    >>> split(np.ones((2, 5)), 2)[0, 1].tolist()
    [1.0, 1.0, 0.0]
    """
    filled = np.pad(vectors, ((0, 0), (0, -vectors.shape[1] % parts)))
    return filled.reshape(len(vectors), parts, -1).astype(np.float32)

"""Product quantisation of an embedding (Jégou et al., TPAMI 2011): M parts, each to the nearest of its own V entries.

The codebooks are learned by Lloyd's algorithm from embeddings of a set of images, part by part, seeded. A width that M
does not divide is filled up with zeros.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rdpbench.errors import CodecError

Vectors: TypeAlias = NDArray[np.float32]
Numbers: TypeAlias = NDArray[np.floating[Any]]


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
        return np.array([int(_distances(part[None], book)[0].argmin()) for part, book in zip(parts, self.codebooks)])  # noqa: B905 - split makes as many

    def vector(self, indices: NDArray[np.int64]) -> Vectors:
        """``(width,)`` of indices ``(M,)``."""
        found: Vectors = self.codebooks[np.arange(len(self.codebooks)), indices].ravel()[: self.width]
        return found

    def save(self, path: Path) -> None:
        """Write a file that `read` reads."""
        from safetensors.numpy import save_file

        save_file({"codebooks": self.codebooks, "width": np.array([self.width], np.int64)}, path)


def read(path: Path) -> ProductQuantizer:
    """The codebooks of a file.

    Raises:
        CodecError: it holds something else.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        held = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CodecError(f"{path} holds no codebooks: {error}") from error
    books, width = held.get("codebooks"), held.get("width")
    if books is None or width is None or books.ndim != 3 or width.size != 1 or not np.isfinite(books).all():
        raise CodecError(f"{path} holds {', '.join(held)}; it must hold finite codebooks (M, V, d) and a width")
    return ProductQuantizer(books.astype(np.float32), int(width[0]))


def drawn(parts: int, entries: int, width: int, seed: int) -> ProductQuantizer:
    """Random codebooks for embeddings of length one.

    >>> drawn(16, 1024, 1024, 0).codebooks.shape
    (16, 1024, 64)
    """
    each = -(-width // parts)
    books = np.random.default_rng(seed).standard_normal((parts, entries, each)) / np.sqrt(width)
    return ProductQuantizer(books.astype(np.float32), width)


def learned(vectors: Vectors, parts: int, entries: int, seed: int = 0, rounds: int = 25) -> ProductQuantizer:
    """Codebooks with small squared error on these embeddings ``(n, width)``.

    Raises:
        CodecError: fewer embeddings than entries.
    """
    if len(vectors) < entries:
        raise CodecError(f"{len(vectors)} embeddings are too few to learn {entries} entries from")
    rng = np.random.default_rng(seed)
    shares = split(vectors, parts)
    books = np.stack([_lloyd(shares[:, part], entries, rng, rounds) for part in range(parts)])
    return ProductQuantizer(books, vectors.shape[1])


def split(vectors: Numbers, parts: int) -> Vectors:
    """``(n, width)`` as ``(n, parts, ceil(width / parts))``, filled up with zeros.

    >>> split(np.ones((2, 5)), 2)[0, 1].tolist()
    [1.0, 1.0, 0.0]
    """
    filled = np.pad(vectors, ((0, 0), (0, -vectors.shape[1] % parts)))
    return filled.reshape(len(vectors), parts, -1).astype(np.float32)


def _lloyd(vectors: Vectors, entries: int, rng: np.random.Generator, rounds: int) -> Vectors:
    book = _spread(vectors, entries, rng)
    for _ in range(rounds):
        distances = _distances(vectors, book)
        nearest = distances.argmin(1)
        counts = np.bincount(nearest, minlength=entries)
        sums = np.zeros(book.shape)
        np.add.at(sums, nearest, vectors)
        used = counts > 0
        book[used] = sums[used] / counts[used, None]
        # An entry that nobody chose goes where the error is largest.
        far = np.argsort(distances.min(1))[::-1][: int((~used).sum())]
        book[~used] = vectors[far]
    return book


def _spread(vectors: Vectors, entries: int, rng: np.random.Generator) -> Vectors:
    """A start whose entries are far apart: each is drawn with the squared distance to those before (k-means++)."""
    chosen = [int(rng.integers(len(vectors)))]
    nearest = np.full(len(vectors), np.inf)
    for _ in range(entries - 1):
        nearest = np.minimum(nearest, ((vectors - vectors[chosen[-1]]) ** 2).sum(1))
        total = float(nearest.sum())
        # Where all that are left equal an entry, any does.
        chosen.append(int(rng.choice(len(vectors), p=nearest / total if total > 0 else None)))
    found: Vectors = vectors[chosen]
    return found


def _distances(vectors: Vectors, book: Vectors) -> Vectors:
    """Squared, less what is the same for all entries."""
    found: Vectors = (book**2).sum(1) - 2 * vectors @ book.T
    return found

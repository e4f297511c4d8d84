"""Libraries that take seconds to import, each imported when something of it is first asked for.

`rdpbench ls`, a plan and classical codecs need none of them. ``from rdpbench.lazy import torch`` stands at the head of
a module like any other import, where ``import torch`` would otherwise stand in each of its functions.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from rdpbench.errors import MissingNeed
from rdpbench.needs import absent

__all__ = [
    "Generator",
    "LazyModule",
    "Tensor",
    "av",
    "cv2",
    "functional",
    "imagecodecs",
    "nn",
    "pa",
    "parquet",
    "pc",
    "pd",
    "pil",
    "pillow_heif",
    "torch",
]


class LazyModule:
    """A module that is imported by the first attribute that is asked of it.

    Raises:
        MissingNeed: it is of an extra that is not installed.

    >>> LazyModule("math").floor(2.5)
    2
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._module: Any = None

    def __getattr__(self, attribute: str) -> Any:
        try:
            self._module = self._module or importlib.import_module(self._name)
        except ModuleNotFoundError as error:
            if lacks := absent(error):
                raise MissingNeed(lacks) from error
            raise
        return getattr(self._module, attribute)


if TYPE_CHECKING:
    import av
    import cv2
    import imagecodecs
    import pandas as pd
    import pillow_heif
    import pyarrow as pa
    import torch
    from PIL import Image as pil
    from pyarrow import compute as pc
    from pyarrow import parquet
    from torch import Generator, Tensor, nn
    from torch.nn import functional
else:
    torch, nn, functional = map(LazyModule, ("torch", "torch.nn", "torch.nn.functional"))
    pil, pillow_heif, imagecodecs = map(LazyModule, ("PIL.Image", "pillow_heif", "imagecodecs"))
    av, cv2, pd = map(LazyModule, ("av", "cv2", "pandas"))
    pa, pc, parquet = map(LazyModule, ("pyarrow", "pyarrow.compute", "pyarrow.parquet"))
    Generator = Tensor = Any  # classes that annotations alone name

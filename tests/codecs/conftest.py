"""What tests of codecs share."""

from __future__ import annotations

import numpy as np
import pytest

from rdpbench.image import Image


@pytest.fixture(scope="session")
def photograph() -> Image:
    """192 x 256 pixels of a photograph."""
    from skimage import data

    picture: Image = data.astronaut()[20:212, 100:356]
    return np.ascontiguousarray(picture)

"""Where things lie on this machine."""

from __future__ import annotations

import os
from pathlib import Path


def conf_folder() -> Path:
    """The Hydra groups: inside the installed package, or at the root of a checkout."""
    package = Path(__file__).parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def curves_folders() -> list[Path]:
    """Where stored curves are looked for: below this folder, where new ones go, and then among those that ship.

    In the wheel these lie in ``stored_curves``, as ``results`` is a package there.
    """
    package = Path(__file__).parent
    inside = package / "stored_curves"
    shipped = inside if inside.is_dir() else package.parent / "results" / "curves"
    return [Path("results", "curves"), shipped]


def cache_folder() -> Path:
    """``$RDPBENCH_CACHE``, or ``rdpbench`` in the user's cache folder."""
    given = os.environ.get("RDPBENCH_CACHE")
    if given:
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "rdpbench"


def data_folders(name: str) -> list[Path]:
    """Where a dataset may lie, best first: ``$RDPBENCH_DATA``, and our cache, which is where downloads go."""
    given = os.environ.get("RDPBENCH_DATA")
    own = [Path(given).expanduser() / name] if given else []
    return [*own, cache_folder() / "data" / name]

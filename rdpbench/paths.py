"""Where things lie on this machine."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from rdpbench.errors import UnknownName

RUNS = "results/runs"
"""Where runs lie, unless ``root=`` says otherwise."""

VARIABLES = (
    *("RDPBENCH_CACHE", "RDPBENCH_DATA", "RDPBENCH_WEIGHTS", "RDPBENCH_ACCEPT", "RDPBENCH_TFCI", "RDPBENCH_BPGENC"),
    *("RDPBENCH_BPGDEC", "RDPBENCH_VTM_ENCODER", "RDPBENCH_VTM_DECODER", "RDPBENCH_VTM_CFG"),
)
"""Environment variables that are read; a codec of the user's may read others."""


def check_variables() -> None:
    """Raise `UnknownName` for an environment variable that is nearly one of ours: it would be ignored."""
    known = {name.removeprefix("RDPBENCH_"): name for name in VARIABLES}
    for name in sorted(os.environ):
        if name.startswith("RDPBENCH_") and name not in VARIABLES:
            near = difflib.get_close_matches(name.removeprefix("RDPBENCH_"), known, n=1, cutoff=0.82)
            if near:
                raise UnknownName("environment variable", name, VARIABLES, f"type: unset {name}", near=known[near[0]])


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

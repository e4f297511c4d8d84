"""What a codec is drawn as: a curve, or, for what only bounds others, a line."""

from __future__ import annotations

from functools import cache

import yaml

from rdpbench.paths import conf_folder


def is_bound(label: str) -> bool:
    """Does the preset behind a label say ``role: bound``? Such a codec says how good others can get, at any rate.

    >>> is_bound("sd-vae[weights=random]"), is_bound("jpeg")
    (True, False)
    """
    return label.partition("[")[0] in _bounds()


@cache
def _bounds() -> frozenset[str]:
    records = (yaml.safe_load(path.read_text()) for path in sorted((conf_folder() / "codec").glob("*.yaml")))
    return frozenset(str(record["name"]) for record in records if record.get("role") == "bound")

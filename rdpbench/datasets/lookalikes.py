"""What tells an official set from files that only look like it: names, counts, sizes. Each finding is a sentence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from rdpbench.datasets.memory import FileFacts
from rdpbench.datasets.releases import Release, hific_patches, names_sha256

_SHOWN = 5


def some(names: Iterable[str]) -> str:
    """The first few of many names.

    >>> some("abcdefg")
    'a, b, c, d, e and 2 more'
    """
    several = list(names)
    rest = f" and {len(several) - _SHOWN} more" if len(several) > _SHOWN else ""
    return ", ".join(several[:_SHOWN]) + rest


def foreign(release: Release, present: Sequence[str], extras: Sequence[str], others: Mapping[str, Release]) -> str:
    """Images that the set does not have; empty if there are none.

    Of a set that is a part of its archives, other images of these archives may lie beside it.
    """
    if extras:
        return f"{len(extras)} of the images there have names that {release.name} does not use: {some(sorted(extras))}"
    listed = release.within or (None if release.subset else release.listed)
    known = set(listed()) if listed else set()
    unknown = sorted(name for name in present if name not in known) if known else []
    if not unknown:
        return ""
    are = "none of them is" if len(unknown) == len(present) else f"{len(unknown)} are not"
    return (
        f"of the {len(present)} images there {are} in the list of {release.name}: {some(unknown)}"
        f"{_as_many(len(present), release, others)}"
    )


def wrong_count(release: Release, present: Sequence[str], others: Mapping[str, Release], *, partial: bool) -> str:
    """More or fewer files than the set has, or other names; empty if they agree. For sets without a list."""
    found = len(present)
    if found > release.count or (found < release.count and not partial):
        go_on = "; allow_partial=true goes on with them, and marks the results" if found < release.count else ""
        return (
            f"{found} images are there, and {release.name} has {release.count}{_as_many(found, release, others)}{go_on}"
        )
    if found == release.count and release.names_sha256 and names_sha256(present) != release.names_sha256:
        return f"there are {found} images, but their names are not those of {release.name}, such as {some(present)}"
    return ""


def _as_many(count: int, release: Release, others: Mapping[str, Release]) -> str:
    same = [other.name for other in others.values() if other.count == count and other.name != release.name]
    return f"; {same[0]} has {count}" if same else ""


def wrong_sizes(release: Release, facts: Iterator[tuple[Path, FileFacts]], *, whole: bool) -> str:
    """Images that were cropped or resized; empty if all look original. Reads the files, in constant memory."""
    wrong: list[str] = []
    sizes: set[tuple[int, int]] = set()
    count = patches = 0
    for path, found in facts:
        count += 1
        if len(sizes) < 2:
            sizes.add((found.width, found.height))
        patches += hific_patches(found.height, found.width)
        if not found.height:
            wrong.append(f"{path.name} is no image")
        elif release.geometry and (why := release.geometry(found.height, found.width)):
            wrong.append(f"{path.name} is {found.width} x {found.height}: {why}")
    if wrong:
        more = f", and {len(wrong) - 1} more of {count}" if len(wrong) > 1 else ""
        return f"{wrong[0]}{more}"
    width, height = next(iter(sizes), (0, 0))
    if release.varied and len(sizes) == 1 and count > 2 and width == height:
        return (
            f"all {count} images are {width} x {height}: a cropped or resized copy, since the originals differ in size"
        )
    if whole and release.patches and patches != release.patches:
        return (
            f"the images hold {patches} patches of 256 pixels in the two grids of HiFiC, and those of {release.name} "
            f"hold {release.patches}: they were cropped or resized"
        )
    return ""

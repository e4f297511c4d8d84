"""``rdpbench gc RUN``: remove the files of a run that nothing refers to, and kept pictures that a decoder makes again.

What a row refers to stays: its bitstream, the picture of one that no decoder makes, features of its pixels. Whatever
is not understood stays, too.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rdpbench.errors import StoreBusy
from rdpbench.paths import unwritable
from rdpbench.results.read import open_run
from rdpbench.results.store.contents import Contents
from rdpbench.results.store.store import Store
from rdpbench.runners.queue import living

if TYPE_CHECKING:
    from rich.console import Console


def add_arguments(command: argparse.ArgumentParser) -> None:
    """What can be typed behind ``rdpbench gc``."""
    command.add_argument("name", metavar="RUN", help="a run by name, or its folder")
    command.add_argument("--pictures", action="store_true", help="reconstructions, too, that bitstreams give again")
    command.add_argument("--delete", action="store_true", help="remove what is listed; without it nothing is changed")
    command.add_argument("--root", metavar="FOLDER", default="results/runs", help="where runs lie")


def run(options: argparse.Namespace, console: Console) -> int:
    """List what can go, and remove it where that is asked for.

    Raises:
        StoreBusy: somebody works on the run, and wrote bitstreams whose rows are still to come.
        StoreCorrupt: a file is gone that may refer to what is here.
    """
    store = open_run(options.name, options.root)
    _check_idle(store)
    with store.lock(alone=True):
        _check_idle(store)  # and from here on nobody begins to
        store.check_whole()
        files = {kind: list(paths) for kind, paths in garbage(store, store.read(), pictures=options.pictures)}
        total = sum(path.stat().st_size for paths in files.values() for path in paths)
        for kind, paths in files.items():
            if paths:
                size = sum(path.stat().st_size for path in paths)
                told = f"{len(paths)} {kind}, {size / 1e6:.1f} MB, such as {paths[0]}"
                console.print(told, highlight=False, markup=False, soft_wrap=True)
        if options.delete:
            for path in (path for paths in files.values() for path in paths):
                try:
                    path.unlink()
                except OSError as error:
                    raise unwritable(path, error) from error
    count = sum(map(len, files.values()))
    end = (
        "removed"
        if options.delete
        else f"to remove them, type: rdpbench gc {options.name}{' --pictures' if options.pictures else ''} --delete"
    )
    told = f"{count} files, {total / 1e6:.1f} MB; {end}" if count else "nothing to remove"
    console.print(told, highlight=False, markup=False, soft_wrap=True)
    return 0


def _check_idle(store: Store) -> None:
    if living(store.folder):
        raise StoreBusy(
            f"{store.folder} is being worked on, and what was just written looks as if nothing referred to it. Wait "
            "for it; if it was killed, run its command again first"
        )


def garbage(store: Store, contents: Contents, *, pictures: bool = False) -> Iterator[tuple[str, list[Path]]]:
    """Files that can go, by what they are; ``pictures`` adds those that a decoder makes again."""
    rows = contents.of_kind("row")
    coded = {*rows.strings("bitstream_sha256").to_pylist()}
    shown = {*rows.strings("reconstruction_sha256").to_pylist(), *rows.codes("pixel_sha256").names}
    loose = store.bitstreams.folder.glob("[0-9a-f][0-9a-f]/*.bin")
    yield "bitstreams of no row", sorted(path for path in loose if path.stem not in coded)
    packs = [pack for pack, hashes in store.bitstreams.by_pack() if not coded.intersection(hashes)]
    yield "packs of such bitstreams", [path for pack in packs for path in (pack, pack.with_suffix(".npy"))]
    lie = store.folder.glob("pictures/[0-9a-f][0-9a-f]/*.png")
    yield "pictures of no row", sorted(path for path in lie if path.stem not in shown)
    # The name of a reconstruction ends in the beginning of its task's key (`reconstruction_path`).
    keys = {key[:8] for key in rows.strings("task_key").to_pylist()}
    kept = [(path, path.stem[-8:] in keys) for path in sorted(store.folder.glob("reconstructions/*/*/*.png"))]
    yield "reconstructions of no row", [path for path, known in kept if not known]
    if pictures:
        yield "reconstructions that bitstreams give again", [path for path, known in kept if known]
    features = store.features
    for kind in features.kinds():
        for path in sorted((features.folder / kind).glob("*.jsonl")):
            if not shown.intersection(features.places(kind, path.name)):
                yield f"features {kind} of no row", [path, *filter(Path.is_file, [path.with_suffix(".bin")])]
    listed = {path for _, path in contents.checksums}
    segments = store.folder.glob("segments/*.parquet")
    yield "segments that a kill left", [path for path in segments if str(path.relative_to(store.folder)) not in listed]
    yield "files that a kill left", sorted(path for end in ("tmp", "part") for path in store.folder.rglob(f"*.{end}"))

"""``rdpbench data``: list datasets, fetch and verify them, and write a manifest of one's own."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from rdpbench.datasets.contract import KINDS, dataset_of
from rdpbench.errors import ConfigError, UnknownName
from rdpbench.paths import available, records
from rdpbench.setting import DataSetting, split_list


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The sub-commands of ``rdpbench data``."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("ls", help="each set: images, protocol, size, what is here, licence")
    fetch = actions.add_parser("fetch", help="download, verify and unpack a set; resumes where it was interrupted")
    fetch.add_argument(
        "--with", dest="beside", default="", metavar="WHAT", help="also: captions, labels, stuff, panoptic"
    )
    fetch.add_argument("--source", metavar="URL", help="address of a folder with copies of the archives")
    verify = actions.add_parser("verify", help="read all bytes again; exit code 1 if any differ")
    for command in (fetch, verify):
        command.add_argument("name", metavar="NAME", help="the set's name, as in data=NAME")
    verify.add_argument("--path", metavar="FOLDER", help="a folder of yours, as in data.path=FOLDER")
    verify.add_argument("--allow-partial", action="store_true", help="images may be missing")
    manifest = actions.add_parser("manifest", help="list a folder's files with their hashes, for data=manifest:FILE")
    manifest.add_argument("folder", type=Path, metavar="FOLDER")
    manifest.add_argument("--name", help="name of the dataset (default: the folder's)")
    manifest.add_argument("-o", "--output", type=Path, metavar="FILE", help="(default: NAME.sha256)")


def run(options: argparse.Namespace, _: object) -> int:
    """Do what was asked; returns the exit code."""
    actions = {"ls": _ls, "fetch": _fetch, "verify": _verify, "manifest": _manifest}
    return actions[options.action](options)


def named_dataset(name: str, **options: Any) -> Any:
    """The dataset of ``conf/data/NAME.yaml``, or of ``manifest:FILE``, with these options beside its own.

    Raises:
        UnknownName: no such set.
        ConfigError: it cannot be built so.
    """
    sets = {record["name"]: record for record in records("data")}
    for kind, option in (("manifest", "file"), ("folder", "path")):
        if name.startswith(f"{kind}:"):
            sets[name] = {"use": kind, "options": {option: name.partition(":")[2]}}
    if name not in sets:
        raise UnknownName("dataset", name, sets, "your own: manifest:FILE")
    given = (sets[name].get("options") or {}) | {key: value for key, value in options.items() if value}
    return dataset_of(DataSetting(name, sets[name]["use"], tuple(given.items())))


def _ls(_: argparse.Namespace) -> int:
    rows = [("set", "images", "protocol", "download", "here", "licence")]
    for name in available("data"):
        try:
            dataset = named_dataset(name)
        except ConfigError:  # any folder, any manifest: they need an option
            continue
        here, size = dataset.here(), f"{len(dataset):,}"
        much = "yes" if here.images == len(dataset) else f"{here.images:,} of {size}"
        much = f"{much} ({here.kind})" if here.images else "no"
        licence = getattr(dataset, "licence", "")
        rows.append((name, size, dataset.protocol, getattr(dataset, "download_size", ""), much, licence))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print("any folder: data=folder:PATH; pinned by a manifest: data=manifest:FILE")
    return 0


def _fetch(options: argparse.Namespace) -> int:
    dataset = named_dataset(options.name, source=options.source)
    if not hasattr(dataset, "fetch"):
        raise ConfigError(f"{options.name} needs no download")
    print(f"{options.name}: {len(dataset):,} images, {dataset.download_size}", file=sys.stderr)
    print(f"licence: {dataset.licence}", file=sys.stderr, flush=True)
    dataset.fetch(split_list(options.beside))
    here = dataset.here()
    print(f"{options.name} is here: {here.images:,} images in {here.folder} ({here.kind}: {KINDS[here.kind]})")
    return 0


def _verify(options: argparse.Namespace) -> int:
    dataset = named_dataset(options.name, path=options.path, allow_partial=options.allow_partial)
    if not hasattr(dataset, "verify"):
        raise ConfigError(
            f"{options.name} cannot be verified: it has no list of files; to write one: rdpbench data manifest FOLDER"
        )
    here = dataset.here()
    if not here.images and not options.path:
        raise ConfigError(f"{options.name} is not here; type: rdpbench data fetch {options.name}")
    findings = dataset.verify()
    for line in findings:
        print(line)
    if findings:
        print(f"{options.name}: {len(findings)} findings")
        return 1
    pin = dataset.pinned()
    print(f"{options.name}: {here.images:,} images, as they should be ({pin.kind}: {KINDS[pin.kind]})")
    print(f"manifest sha256 {pin.sha256}")
    return 0


def _manifest(options: argparse.Namespace) -> int:
    from rdpbench.datasets.folder import ImageFolder, make_manifest

    name = options.name or options.folder.expanduser().absolute().name
    out = options.output or Path(f"{name}.sha256")
    manifest = make_manifest(options.folder, name, out)
    for note in ImageFolder(str(options.folder)).notes():
        print(note, file=sys.stderr)
    print(f"{out}: {len(manifest.files):,} images; use it with data=manifest:{out}")
    print(f"manifest sha256 {manifest.sha256()}")
    return 0

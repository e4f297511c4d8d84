"""``rdpbench data``: which datasets there are, what of them is here, fetch, verify, and a manifest of one's own."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rdpbench.errors import ConfigError, UnknownName
from rdpbench.paths import records

if TYPE_CHECKING:
    from rdpbench.datasets.contract import Here

KINDS = {
    "pinned": "every byte is held against hashes that ship with rdpbench",
    "recorded": "every byte is held against what the verified official archive held",
    "names": "names, counts and sizes were checked; the bytes were never compared with anything official",
    "made": "a list of your own",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The sub-commands of ``rdpbench data``."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("ls", help="each set: images, protocol, size, what is here, licence")
    fetch = actions.add_parser("fetch", help="download, verify, unpack and record a set; goes on where it was cut")
    fetch.add_argument(
        "--with", dest="beside", default="", metavar="WHAT", help="also: captions, labels, stuff, panoptic"
    )
    fetch.add_argument("--source", metavar="URL", help="address of a folder with copies of the archives")
    verify = actions.add_parser("verify", help="read all bytes again; exit code 1 if any differ")
    for command in (fetch, verify):
        command.add_argument("name", metavar="NAME", help="of the set, as in data=NAME")
    verify.add_argument("--path", metavar="FOLDER", help="a folder of yours, as in data.path=FOLDER")
    verify.add_argument("--allow-partial", action="store_true", help="images may be missing")
    manifest = actions.add_parser("manifest", help="pin a folder of images: data=manifest:FILE is then a dataset")
    manifest.add_argument("folder", type=Path, metavar="FOLDER")
    manifest.add_argument("--name", help="of the dataset (default: the folder's)")
    manifest.add_argument("-o", "--output", type=Path, metavar="FILE", help="(default: NAME.sha256)")


def run(options: argparse.Namespace) -> int:
    """Do what was asked; returns the exit code."""
    actions = {"ls": _ls, "fetch": _fetch, "verify": _verify, "manifest": _manifest}
    return actions[options.action](options)


def dataset(name: str, **options: Any) -> Any:
    """The dataset of ``conf/data/NAME.yaml``; options that its class does not have are refused.

    Raises:
        UnknownName: no such set.
        ConfigError: it cannot be built so.
    """
    from rdpbench import registry

    known = {record["name"]: record for record in records("data")}
    if name.startswith("manifest:"):
        known[name] = {"use": "manifest", "options": {"file": name.partition(":")[2]}}
    if name not in known:
        raise UnknownName("dataset", name, known, "your own: manifest:FILE")
    record = known[name]
    asked = {key: value for key, value in options.items() if value}
    try:
        return registry.load("dataset", record["use"])(**{**(record.get("options") or {}), **asked})
    except TypeError as error:
        raise ConfigError(f"{name} does not take {', '.join(asked)}: {error}") from error


def _ls(_: argparse.Namespace) -> int:
    rows = [("set", "images", "protocol", "download", "here", "licence")]
    for record in records("data"):
        try:
            found = dataset(record["name"])
        except ConfigError:  # any folder, any manifest: they need an option
            continue
        rows.append(
            (
                record["name"],
                f"{len(found):,}",
                found.protocol,
                getattr(found, "download_size", ""),
                _here(found.here(), len(found)),
                getattr(found, "licence", ""),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for row in rows:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]))
    print("any folder: data=folder:PATH; pinned by a manifest: data=manifest:FILE")
    return 0


def _here(here: Here, whole: int) -> str:
    if not here.images:
        return "no"
    return f"{'yes' if here.images == whole else f'{here.images:,} of {whole:,}'} ({here.kind})"


def _fetch(options: argparse.Namespace) -> int:
    found = dataset(options.name, source=options.source)
    if not hasattr(found, "fetch"):
        raise ConfigError(f"{options.name} is nothing to fetch")
    print(f"{options.name}: {len(found):,} images, {found.download_size}", file=sys.stderr)
    print(f"licence: {found.licence}", file=sys.stderr, flush=True)
    found.fetch([what.strip() for what in options.beside.split(",") if what.strip()])
    here = found.here()
    print(f"{options.name} is here: {here.images:,} images in {here.folder} ({here.kind}: {KINDS[here.kind]})")
    return 0


def _verify(options: argparse.Namespace) -> int:
    found = dataset(options.name, path=options.path, allow_partial=options.allow_partial)
    if not hasattr(found, "verify"):
        raise ConfigError(f"{options.name} is not a set that can be verified")
    here = found.here()
    if not here.images and not options.path:
        raise ConfigError(f"{options.name} is not here; type: rdpbench data fetch {options.name}")
    differences = found.verify()
    for line in differences:
        print(line)
    if differences:
        print(f"{options.name}: {len(differences)} findings")
        return 1
    pin = found.pinned()
    print(f"{options.name}: {here.images:,} images, as they should be ({pin.kind}: {KINDS[pin.kind]})")
    print(f"manifest sha256 {pin.sha256}")
    return 0


def _manifest(options: argparse.Namespace) -> int:
    from rdpbench.datasets.folder import Folder, make_manifest

    name = options.name or options.folder.expanduser().absolute().name
    out = options.output or Path(f"{name}.sha256")
    manifest = make_manifest(options.folder, name, out)
    for note in Folder(str(options.folder)).notes():
        print(note, file=sys.stderr)
    print(f"{out}: {len(manifest.files):,} images; use it with data=manifest:{out}")
    print(f"manifest sha256 {manifest.sha256()}")
    return 0

"""Where files are on this machine, how they are written whole, and how conf/ is read."""

from __future__ import annotations

import contextlib
import csv
import errno
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from rdpbench.errors import ConfigError, StoreUnwritable, UnknownName, check_names, nearest

T = TypeVar("T")

RUNS = "results/runs"
"""Where runs lie, unless ``root=`` says otherwise."""

VARIABLES = (
    *("RDPBENCH_CACHE", "RDPBENCH_DATA", "RDPBENCH_WEIGHTS", "RDPBENCH_ACCEPT", "RDPBENCH_TFCI", "RDPBENCH_BPGENC"),
    *("RDPBENCH_BPGDEC", "RDPBENCH_VTM_ENCODER", "RDPBENCH_VTM_DECODER", "RDPBENCH_VTM_CFG"),
    *("RDPBENCH_BUTTERAUGLI", "RDPBENCH_SSIMULACRA"),
)
"""Environment variables that are read; a codec of the user's may read others."""


ODD = r"[^A-Za-z0-9._+=,\[\]-]"
"""What names of files are without, where nobody types them."""
_NEVER = r"[/\\\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
"""Separators, and letters that cannot be seen or encoded."""
LONGEST_NAME = 160
"""Bytes: what is written beside a file has a longer name, and most systems take 255."""


def file_name(text: str, odd: str = "", fill: str = "_") -> str:
    """A name out of a run, a row or an option as the name of one file or folder: it never leads anywhere else.

    Separators, what cannot be seen, and a dot in front are replaced, and what is too long is cut, with a hash at the
    end; ``odd`` is a pattern of more that is replaced. Other names stay as they are.

    >>> file_name("kodak"), file_name("../../etc/passwd"), file_name("..")
    ('kodak', '_._.._etc_passwd', '_.')
    >>> len(file_name("x" * 300))
    160
    """
    name = re.sub(_NEVER, fill, text)
    name = re.sub(odd, fill, name) if odd else name
    if name.startswith(".") or not name:
        name = fill + name[1:]
    whole = name.encode(errors="replace")
    if len(whole) > LONGEST_NAME:
        mark = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:8]
        name = f"{whole[: LONGEST_NAME - 9].decode(errors='ignore')}-{mark}"
    return name


def check_variables() -> None:
    """Raise `UnknownName` for an environment variable that is nearly one of ours: it would be ignored."""
    known = {name.removeprefix("RDPBENCH_"): name for name in VARIABLES}
    for name in sorted(os.environ):
        if name.startswith("RDPBENCH_") and name not in VARIABLES:
            near = nearest(name.removeprefix("RDPBENCH_"), known, cutoff=0.82)
            if near:
                raise UnknownName("environment variable", name, VARIABLES, f"type: unset {name}", near=known[near[0]])


def variable(name: str) -> str:
    """An environment variable that names a folder, in a message: with what it says, if that is no folder.

    >>> variable("HERE"), len(variable("HERE"))
    ('$HERE', 5)
    """
    given = os.environ.get(name, "")
    return f"${name} (now {given}, which is no folder)" if given and not Path(given).is_dir() else f"${name}"


def shipped(inside: str, checkout: str) -> Path:
    """A folder that ships: inside the installed package, or below the root of a checkout."""
    package = Path(__file__).parent
    return package / inside if (package / inside).is_dir() else package.parent / checkout


def conf_folder() -> Path:
    """The Hydra groups."""
    return shipped("conf", "conf")


def curves_folders() -> list[Path]:
    """Where stored curves are looked for: below this folder, where new ones go, and then among those that ship.

    In the wheel these lie in ``stored_curves``, as ``results`` is a package there.
    """
    return [Path("results", "curves"), shipped("stored_curves", "results/curves")]


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


def unwritable(path: Path, error: OSError) -> StoreUnwritable:
    """The error for a store that cannot be written, with what to do."""
    if error.errno == errno.ENOENT:
        return StoreUnwritable(
            f"cannot write {path}: its folder is gone; it was deleted or renamed while this ran. Put it back if it was "
            "renamed, and run the same command again: it goes on from what is there"
        )
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StoreUnwritable(
            f"no space left to write {path} ({error.strerror or error}). What was measured so far is safe; "
            "free some space and run the same command again: it goes on where it stopped"
        )
    return StoreUnwritable(f"cannot write {path} ({error.strerror or error}); choose another folder with root=FOLDER")


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A place beside a file; what is written there gets the file's name at the end, whole or not at all.

    Raises:
        StoreUnwritable: it cannot be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.unlink(missing_ok=True)  # a link in a folder from elsewhere is not followed
        yield beside
        beside.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def write_file(path: Path, content: str | bytes) -> None:
    """Write a file whole, in UTF-8.

    Raises:
        StoreUnwritable: it cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    if path.exists() and not path.is_file():  # such as /dev/stdout
        path.write_bytes(data)
        return
    with written_whole(path) as beside:
        beside.write_bytes(data)


def read_yaml(path: Path) -> Any:
    """What a YAML file holds. Raises `ConfigError` if it cannot be read."""
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # in C, ten times as fast
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            names = [key.value for key, _ in node.value if isinstance(key.value, str)]
            if twice := [name for name in names if names.count(name) > 1]:
                raise yaml.YAMLError(f"{twice[0]} is there twice{node.start_mark}")
            return super().construct_mapping(node, deep)

    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=Loader)  # noqa: S506 (a safe loader)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} is no YAML: {error}") from error


def read_table(path: Path) -> tuple[list[str], dict[int, dict[str, str]]]:
    """A CSV file of somebody's: its columns, and its lines by their numbers, without spaces around cells.

    Raises:
        ConfigError: it cannot be read, has two columns of one name, or a line of other length.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            numbered = [(reader.line_num, [cell.strip() for cell in line]) for line in reader if line]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path} cannot be read as CSV: {error}") from error
    columns = numbered[0][1] if numbered else []
    if twice := [name for name in columns if columns.count(name) > 1]:
        raise ConfigError(f"{path} has two columns {twice[0]!r}")
    for number, line in numbered:
        if len(line) != len(columns):
            raise ConfigError(f"{path}, line {number}: {len(line)} cells for {len(columns)} columns")
    return columns, {number: dict(zip(columns, line, strict=True)) for number, line in numbered[1:]}


def read_as(kind: type[T], record: Any, where: str) -> T:
    """A dataclass from what a file holds, with tuples for its lists.

    Raises:
        ConfigError: a field that it does not have, or lacks; ``where`` begins the message.

    >>> from rdpbench.setting import Setting
    >>> read_as(Setting, {"field": "quality", "rate": 50.0}, "conf/example.yaml").words
    'quality 50'
    """
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]  # a dataclass
    if not isinstance(record, Mapping) or not record.keys() <= set(names):
        odd = ", ".join(sorted(set(record) - set(names))) if isinstance(record, Mapping) else repr(record)
        raise ConfigError(f"{where}: {odd} is not known here; known are: {', '.join(names)}")
    try:
        return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in record.items()})
    except TypeError as error:
        raise ConfigError(f"{where}: {str(error).partition('__init__() ')[2]}") from error


def conf_file(group: str, name: str) -> Path:
    """The file of a name in a group of ``conf``."""
    return conf_folder() / group / f"{name}.yaml"


def available(group: str) -> list[str]:
    """Names in a group of ``conf``.

    >>> "kodak" in available("data")
    True
    """
    return sorted(path.stem for path in (conf_folder() / group).glob("*.yaml"))


def records(group: str) -> list[dict[str, Any]]:
    """What the files of a group of ``conf`` hold, by the order of their names.

    >>> next(record["name"] for record in records("data"))
    'clic2020-mobile-test'
    """
    return [read_yaml(conf_file(group, name)) for name in available(group)]


def experiment(name: str) -> list[list[str]]:
    """The runs that ``conf/experiment/NAME.yaml`` stands for, each as its overrides: a list of lines, or several.

    >>> len(experiment("taco-a1"))
    3
    """
    check_names("experiment", [name], available("experiment"))
    path = conf_file("experiment", name)
    lines = read_yaml(path)
    runs = lines if isinstance(lines, list) and lines and isinstance(lines[0], list) else [lines]
    if not all(isinstance(run, list) and all(isinstance(line, str) for line in run) for run in runs):
        raise ConfigError(f"{path}: it must be a list of key=value lines, or several such lists, one for each run")
    return runs


def is_run(folder: Path) -> bool:
    """Is it the folder of a run?"""
    return (folder / "sessions").is_dir() and ((folder / "parts").is_dir() or (folder / "rows.parquet").is_file())

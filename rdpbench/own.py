"""A user's own code: which files it consists of, how it is imported, and its fields of type ``Path``.

A class in ``./mine.py`` may import what lies beside that file, as a script may: modules, packages, relative imports,
early or late. Each such file has a tree of modules of its own, so two folders may both have a ``helper.py``. What runs
is what was hashed: sources are read once, and ``.pyc`` files are ignored.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import hashlib
import importlib.abc
import importlib.metadata
import importlib.util
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from functools import partial
from importlib.machinery import (
    BYTECODE_SUFFIXES,
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    BuiltinImporter,
    ExtensionFileLoader,
    FileFinder,
    FrozenImporter,
    ModuleSpec,
    SourceFileLoader,
    SourcelessFileLoader,
)
from pathlib import Path, PurePath
from types import CodeType, ModuleType
from typing import Any

from rdpbench.opened import forget_opened, watch

PREFIX = "rdpbench_own_"
"""Modules of the user's files are called so, and by a hash of what they are made of."""

# Which files it is made of: read, never executed.


@dataclass(frozen=True)
class OwnSource:
    """The files that a class is made of, as they were when they were read."""

    name: str
    """Of the module that holds the class, from ``root``."""
    root: Path
    bases: tuple[str, ...]
    """Packages below ``root`` in which absolute names are looked for; the empty one is ``root`` itself."""
    files: Mapping[str, bytes]
    """By path; the first is the one that was named."""
    places: Mapping[str, Sequence[str]]
    """Packages, with the folders that their modules lie in."""

    @property
    def sha256(self) -> str:
        """Hash of the one file, or of all of them by their names from ``root``."""
        hashes = [
            (os.path.relpath(name, self.root), hashlib.sha256(data).hexdigest()) for name, data in self.files.items()
        ]
        return hashes[0][1] if len(hashes) == 1 else hashlib.sha256(json.dumps(sorted(hashes)).encode()).hexdigest()

    def is_still(self) -> bool:
        """Do the files hold what was read?"""
        try:
            return all(Path(name).read_bytes() == data for name, data in self.files.items())
        except OSError:
            return False

    @property
    def tops(self) -> set[str]:
        """First names of the modules."""
        return {os.path.relpath(name, self.root).partition(os.sep)[0].partition(".")[0] for name in self.files}


def read_file(path: Path) -> OwnSource:
    """The source of a class in a file: the file, and what it imports from its folder.

    Raises:
        OSError: no such file.
    """
    data = path.read_bytes()
    root, package = path.parent, ""
    # As in Python, a script's folder is no package; a file that imports relatively wants to be part of one.
    if any(level for level, _, _ in _imports(data)):
        while (root / "__init__.py").is_file():
            root, package = root.parent, f"{root.name}.{package}" if package else root.name
    reader = _Reader(root, tuple(dict.fromkeys((package, ""))))
    reader.enter(package)
    name = path.stem.replace(".", "_")
    return reader.read(f"{package}.{name}" if package else name, path)


def read_module(name: str) -> OwnSource | None:
    """The source of a class in a module that Python finds by its name; None if it finds none, or one without a file."""
    top = name.partition(".")[0]
    spec = None
    with contextlib.suppress(ImportError, ValueError):
        spec = importlib.util.find_spec(top)
    if spec is None:
        return None
    locations = list(spec.submodule_search_locations or ())
    first = spec.origin if spec.has_location else next(iter(locations), None)
    if first is None:
        return None
    root = Path(first).parents[1 if locations and spec.has_location else 0]
    reader = _Reader(root, ("",), _distribution(top, root))
    full = top
    for part in [*name.split(".")[1:], None]:
        if spec.submodule_search_locations is not None:
            reader.places[full] = list(spec.submodule_search_locations)
        if part is None:
            break
        below, full = reader.places.get(full, ()), f"{full}.{part}"
        spec = _find(full, below)
        if spec is None:
            return None
    with contextlib.suppress(OSError):
        return reader.read(name, Path(spec.origin)) if spec.has_location and spec.origin else None
    return None


def _distribution(top: str, root: Path) -> frozenset[str] | None:
    """The packages of a distribution, where what lies beside one may be another's; None where nothing is installed."""
    if not {"site-packages", "dist-packages"} & {*root.parts}:
        return None
    known = importlib.metadata.packages_distributions()
    mine = {*known.get(top, ())}
    return frozenset({top, *(name for name, owners in known.items() if mine & {*owners})})


class _Reader:
    """Follows imports from file to file."""

    def __init__(self, root: Path, bases: tuple[str, ...], only: frozenset[str] | None = None) -> None:
        self.root, self.bases, self.only = root, bases, only
        self.places: dict[str, list[str]] = {"": [str(root)]}
        self.files: dict[str, bytes] = {}
        self._seen: set[str] = set()
        self._waiting: list[tuple[bytes, str]] = []

    def enter(self, package: str) -> None:
        """Take in the packages that a file lies in."""
        parent = ""
        for part in package.split(".") if package else ():
            parent = self._take(parent, part) or parent

    def read(self, name: str, path: Path) -> OwnSource:
        first = {str(path): path.read_bytes()}
        self._seen.add(name)
        self._waiting.append((first[str(path)], name if name in self.places else name.rpartition(".")[0]))
        while self._waiting:
            data, package = self._waiting.pop()
            for level, dotted, names in _imports(data):
                self._follow(level, dotted, names, package)
        return OwnSource(name, self.root, self.bases, {**first, **self.files, **first}, self.places)

    def _follow(self, level: int, dotted: str, names: Sequence[str], package: str) -> None:
        full: str | None
        if level:
            parts = package.split(".") if package else []
            full = ".".join(parts[: len(parts) - level + 1]) if level - 1 <= len(parts) else None
        else:
            full = home(dotted.partition(".")[0], self.bases, self.places, self.only)
        for part in dotted.split(".") if dotted else ():
            full = None if full is None else self._take(full, part)
        if full is not None:
            for name in names:
                for module in self._modules(full) if name == "*" else [name]:
                    self._take(full, module)

    def _take(self, package: str, name: str) -> str | None:
        """Take in a module of a package; its full name, or None where there is none."""
        full = f"{package}.{name}" if package else name
        if full in self._seen:
            return full
        spec = _find(full, self.places[package]) if package in self.places else None
        if spec is None:
            return None
        self._seen.add(full)
        if spec.submodule_search_locations is not None:
            self.places[full] = list(spec.submodule_search_locations)
        if spec.has_location and spec.origin is not None:
            with contextlib.suppress(OSError):
                data = Path(spec.origin).read_bytes()
                self.files[spec.origin] = data
                if spec.origin.endswith(tuple(SOURCE_SUFFIXES)):
                    self._waiting.append((data, full if full in self.places else package))
        return full

    def _modules(self, package: str) -> list[str]:
        """What ``import *`` may bring of a package: all that lies in it."""
        modules: set[str] = set()
        for folder in self.places.get(package, ()):
            with contextlib.suppress(OSError):
                modules |= {entry.partition(".")[0] for entry in os.listdir(folder) if entry.endswith(_SUFFIXES)}  # noqa: PTH208
        return sorted(modules - {"__init__"})


def _imports(data: bytes) -> Iterator[tuple[int, str, tuple[str, ...]]]:
    """Imports anywhere in a source: dots before the name, the name, and what is taken from it."""
    try:
        nodes = list(ast.walk(ast.parse(data)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return  # whoever imports it is told
    for node in nodes:
        match node:
            case ast.Import(names=names):
                yield from ((0, alias.name, ()) for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                yield level, module or "", tuple(alias.name for alias in names)
            case ast.Call(
                func=ast.Attribute(attr="import_module" | "__import__") | ast.Name(id="import_module" | "__import__"),
                args=[ast.Constant(value=str(text)), *_],
            ) if text:
                name = text.lstrip(".")
                yield len(text) - len(name), name, ()


_LOADERS: tuple[tuple[Any, list[str]], ...] = (
    (ExtensionFileLoader, EXTENSION_SUFFIXES),
    (SourceFileLoader, SOURCE_SUFFIXES),
    (SourcelessFileLoader, BYTECODE_SUFFIXES),
)
_SUFFIXES = (*EXTENSION_SUFFIXES, *SOURCE_SUFFIXES)


def _find(full: str, folders: Sequence[str]) -> ModuleSpec | None:
    """Where a module lies, in Python's order; looked up anew each time."""
    spaces: list[str] = []
    for folder in folders:
        spec = FileFinder(folder, *_LOADERS).find_spec(full)
        if spec is not None and spec.loader is not None:
            return spec
        spaces += (spec.submodule_search_locations or []) if spec else []
    if not spaces:
        return None
    space = ModuleSpec(full, None, is_package=True)
    space.submodule_search_locations = spaces
    return space


def home(
    top: str, bases: Sequence[str], places: Mapping[str, Sequence[str]], only: frozenset[str] | None = None
) -> str | None:
    """The package in which an absolute import finds a name of the user's; None if it is not the user's.

    As for a script: the folder comes before what is installed, but for Python's own core; a folder without code last.
    """
    if top in ("", "rdpbench") or (only is not None and top not in only):
        return None
    if BuiltinImporter.find_spec(top) or FrozenImporter.find_spec(top):
        return None
    for base in bases:
        spec = _find(top, places.get(base, ()))
        if spec is not None and (spec.loader is not None or not _installed(top)):
            return base
    return None


def _installed(top: str) -> bool:
    """Does Python find a module of this name, not only a folder?"""
    specs = (finder.find_spec(top, None) for finder in sys.meta_path if finder is not _bare)
    return any(spec is not None and spec.origin is not None for spec in specs)


# How it is imported.


@dataclass
class _Tree:
    """The modules of one file of the user's, below a package of its own."""

    prefix: str
    source: OwnSource
    builtins: dict[str, Any] = field(default_factory=dict)
    homes: dict[str, str | None] = field(default_factory=dict)

    def home(self, top: str) -> str | None:
        if top not in self.homes:
            base = home(top, self.source.bases, self.source.places)
            self.homes[top] = base if base is None else f"{self.prefix}.{base}".rstrip(".")
        return self.homes[top]

    def import_(
        self,
        name: str,
        given: Mapping[str, object] | None = None,
        local: Mapping[str, object] | None = None,
        wanted: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """``__import__`` for these modules: names of the user's are those of this tree."""
        top = name.partition(".")[0]
        package = None if level else self.home(top)
        if package is None:
            return builtins.__import__(name, given, local, wanted or (), level)
        module = importlib.import_module(f"{package}.{name}")
        if isinstance(wanted, list):  # so ask libraries in C, as pickle does, and look in sys.modules afterwards
            _alias(name, module, self.prefix)
        if wanted:
            return builtins.__import__(f"{package}.{name}", given, local, wanted, 0)
        return sys.modules[f"{package}.{top}"]


_trees: dict[str, _Tree] = {}
_aliases: dict[str, str] = {}
"""Modules that are known by their bare names too, since something imported them by name; to the tree they are of."""


def enter(module: ModuleType) -> ModuleType:
    """What is known by a bare name is of another file's modules: it is not this one's."""
    prefix = module.__name__.partition(".")[0]
    for name in [name for name, tree in _aliases.items() if tree != prefix]:
        sys.modules.pop(name, None)
        del _aliases[name]
    return module


def load_module(path: Path, source: OwnSource) -> ModuleType:
    """The module of a file of the user's, imported once in a process for each state of its sources.

    Raises:
        Exception: whatever the file raises; it is forgotten then.
    """
    # The name depends on the place, so that two files called codec.py do not meet.
    text = f"{path} {source.sha256}"
    prefix = PREFIX + hashlib.sha256(text.encode()).hexdigest()[:12]
    full = f"{prefix}.{source.name}"
    if full in sys.modules:
        return sys.modules[full]
    if _front not in sys.meta_path:
        sys.meta_path[:] = [_front, *sys.meta_path, _bare]
    tree = _trees[prefix] = _Tree(prefix, source)
    tree.builtins = {**vars(builtins), "__import__": tree.import_}
    watch(str(path), {prefix}, source.files)
    package = ModuleSpec(prefix, None, is_package=True)
    package.submodule_search_locations = [str(source.root)]
    spec = importlib.util.spec_from_file_location(full, path, loader=_Loader(full, str(path)))
    assert spec is not None
    assert spec.loader is not None
    try:
        sys.modules[prefix] = importlib.util.module_from_spec(package)
        if parent := source.name.rpartition(".")[0]:
            importlib.import_module(f"{prefix}.{parent}")
        module = sys.modules[full] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except BaseException:
        unload(path)
        raise
    return module


def unload(path: Path) -> None:
    """Forget the modules of a file of the user's, and what they opened."""
    gone = {prefix for prefix, tree in _trees.items() if next(iter(tree.source.files)) == str(path)}
    for name in [name for name in sys.modules if name.partition(".")[0] in gone or _aliases.get(name) in gone]:
        del sys.modules[name]
        _aliases.pop(name, None)
    forget_opened(str(path))


def source_of(module: str) -> OwnSource | None:
    """The source of a module by its name here; None for what ships, or has no file."""
    top = module.partition(".")[0]
    if top in _trees:
        return _trees[top].source
    return None if top == "rdpbench" else read_module(module)


class _Loader(SourceFileLoader):
    """Executes the bytes that were hashed, with the tree's own ``import``."""

    def get_code(self, fullname: str) -> CodeType:
        data = _trees[fullname.partition(".")[0]].source.files.get(self.path)
        code: CodeType = self.source_to_code(self.get_data(self.path) if data is None else data, self.path)
        return code

    def exec_module(self, module: ModuleType) -> None:
        vars(module)["__builtins__"] = _trees[module.__name__.partition(".")[0]].builtins
        super().exec_module(module)


class _Alias(importlib.abc.Loader):
    """A module of a tree under its bare name."""

    def __init__(self, module: ModuleType) -> None:
        self._module, self._spec = module, module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:  # noqa: ARG002 (the protocol's)
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec


class _Front:
    """Finds modules of trees; and those below one that is known by its bare name, by theirs."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: object = None) -> ModuleSpec | None:  # noqa: ARG002
        parent, _, tail = name.rpartition(".")
        top = parent.partition(".")[0]
        if path is None:
            return None
        if top in _trees:
            spec = _find(name, path)
            if spec is not None and isinstance(spec.loader, SourceFileLoader):
                spec.loader = _Loader(name, spec.loader.path)
            return spec
        real = getattr(sys.modules.get(parent), "__name__", "") if top in _aliases else ""
        return _alias_spec(name, f"{real}.{tail}", _aliases[top]) if real.startswith(PREFIX) else None


class _Bare:
    """What nobody else finds: a name of the user's that a library imports for the user's code, as ``torch.load``."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: object = None) -> ModuleSpec | None:  # noqa: ARG002
        frame = sys._getframe(1) if path is None else None
        while frame is not None:
            tree = _trees.get(str(frame.f_globals.get("__name__", "")).partition(".")[0])
            package = tree.home(name) if tree else None
            if tree and package is not None:
                return _alias_spec(name, f"{package}.{name}", tree.prefix)
            frame = frame.f_back
        return None


_front, _bare = _Front(), _Bare()


def _alias_spec(name: str, full: str, prefix: str) -> ModuleSpec | None:
    _aliases[name] = prefix
    return importlib.util.spec_from_loader(name, _Alias(importlib.import_module(full)))


def _alias(name: str, module: ModuleType, prefix: str) -> None:
    if name not in sys.modules or name in _aliases:
        sys.modules[name] = module
        _aliases[name] = prefix


# Its fields of type ``Path``.


def path_fields(cls: type) -> dict[str, bool]:
    """The dataclass fields that hold paths; True where text is as good, which need then be no path."""
    hints = {each.name: _hint(cls, each) for each in fields(cls)} if is_dataclass(cls) else {}
    is_path = re.compile(r"\b(Pure)?(Posix|Windows)?Path\b").search
    return {name: bool(re.search(r"\bstr\b", hint)) for name, hint in hints.items() if is_path(hint)}


def _hint(cls: type, field_: Field[Any]) -> str:
    """A field's type in words; under ``from __future__ import annotations`` it is text, maybe with names of its own."""
    hint: Any = field_.type
    if isinstance(hint, str):
        holder = next((base for base in cls.__mro__ if field_.name in vars(base).get("__annotations__", {})), cls)
        with contextlib.suppress(Exception):
            hint = eval(hint, dict(vars(sys.modules[holder.__module__])))  # noqa: S307 (the class's own text)
    return hint.__name__ if isinstance(hint, type) and not hasattr(hint, "__args__") else str(hint)


def absolute(cls: type, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options, and defaults that are paths, in which paths are absolute text, from where the command was typed.

    Raises:
        OSError: a path that names nothing.
    """
    given = dict(options)
    unkeyed = getattr(cls, "unkeyed", ())

    def change(path: Any, name: str, loose: bool) -> str:
        full = full_path(path)
        if full.exists() or name in unkeyed:
            return str(full)
        if loose and isinstance(path, str):
            return path
        raise FileNotFoundError(f"{name}={path}: no such file or folder: {full}")

    for name, loose in path_fields(cls).items():
        value = given.get(name, default_of(cls, name))
        if value is not None and cls.__dataclass_fields__[name].init:  # type: ignore[attr-defined]
            changed = partial(change, name=name, loose=loose)
            given[name] = mapped(value, changed, text=changed)
    return given


def as_paths(cls: type, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options with an absolute `Path` where the class wants one."""
    given = dict(options)
    several = {"list": list, "frozenset": frozenset, "set": set}
    for name, loose in path_fields(cls).items():
        if name in given:
            keep = (lambda text: full_path(text) if PurePath(text).is_absolute() else text) if loose else full_path
            value = mapped(given[name], full_path, text=keep)
            hint = _hint(cls, cls.__dataclass_fields__[name])  # type: ignore[attr-defined]
            kind = re.search(r"\b(list|frozenset|set)\[", hint, re.IGNORECASE)
            given[name] = several[kind[1].lower()](value) if kind and isinstance(value, tuple) else value
    return given


def paths_of(built: object) -> dict[str, Any]:
    """What an object, or a class as it is by default, holds of paths: its fields, with absolute ones in them.

    Of a class also attributes that name a file: such a class may be no dataclass, and nobody notes what it opens.
    """
    cls = built if isinstance(built, type) else type(built)
    typed = path_fields(cls)
    held: dict[str, Any] = {}
    for base in reversed(cls.__mro__) if isinstance(built, type) else ():
        paths = {name: value for name, value in vars(base).items() if isinstance(value, PurePath)}
        held |= {name: path for name, path in paths.items() if full_path(path).is_file()}
    for each in fields(cls) if is_dataclass(cls) else ():
        value = default_of(cls, each.name) if isinstance(built, type) else getattr(built, each.name, None)
        strict = each.name in typed and not typed[each.name]
        held[each.name] = mapped(value, full_path, text=full_path if strict else None)
    unkeyed = getattr(cls, "unkeyed", ())
    return {
        name: mapped(value, full_path)
        for name, value in held.items()
        if name not in unkeyed and any(isinstance(leaf, PurePath) for leaf in leaves(value))
    }


def mapped(value: Any, change: Callable[[Any], Any], *, text: Callable[[str], Any] | None = None) -> Any:
    """A value with the paths in it changed, and the text in it where ``text`` says how; lists become tuples."""
    if isinstance(value, PurePath):
        return change(value)
    if isinstance(value, str):
        return text(value) if text else value
    if is_dataclass(value) and not isinstance(value, type):
        value = {each.name: getattr(value, each.name) for each in fields(value)}
    if isinstance(value, Mapping):
        return _Table({key: mapped(value[key], change, text=text) for key in sorted(value, key=str)})
    if isinstance(value, list | tuple | set | frozenset):
        parts = tuple(mapped(part, change, text=text) for part in value)
        return parts if isinstance(value, list | tuple) else tuple(sorted(parts, key=str))
    return value


class _Table(dict[Any, Any]):
    """A mapping among options: settings are told apart by what theirs hold, in whatever order it was typed."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))


def leaves(value: Any) -> Iterator[Any]:
    """The single values in a mapped one."""
    if isinstance(value, Mapping | tuple):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from leaves(part)
    else:
        yield value


def full_path(path: Any) -> Path:
    """Absolute, from the current folder; links are left as they are."""
    return Path(os.path.abspath(Path(path).expanduser()))  # noqa: PTH100


def default_of(cls: type, name: str) -> Any:
    """What a field of a dataclass is unless it is given."""
    stated = cls.__dataclass_fields__[name]  # type: ignore[attr-defined]
    if stated.default is not MISSING:
        return stated.default
    return stated.default_factory() if stated.default_factory is not MISSING else None

"""Columns: texts as numbers, hashes as bytes, groups of equal places, and segments, which are files or in memory."""

from __future__ import annotations

import json
from binascii import unhexlify
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import fields
from threading import Lock
from typing import Any, NamedTuple, TypeAlias, get_args, overload

import numpy as np
from numpy.typing import NDArray

from rdpbench.errors import StoreCorrupt
from rdpbench.lazy import pa, parquet
from rdpbench.results.store.schema import JSON_FIELDS, KINDS, SCHEMA_VERSION, Status, is_object, types_of

Mask: TypeAlias = NDArray[np.bool_]
Places: TypeAlias = NDArray[np.int64]

OVER = "over"
"""A column beside those of a record: does it take the place of one in an earlier segment?"""


class Codes(NamedTuple):
    """A column of texts as numbers; equal texts have equal numbers."""

    codes: NDArray[np.int32]
    """-1 for none."""
    names: list[str]

    def of(self, places: Any) -> Codes:
        """Some of its places."""
        return Codes(self.codes[places], self.names)

    def texts(self) -> list[str]:
        """As texts, none as an empty one."""
        names = [*self.names, ""]  # -1 is the last
        return [names[code] for code in self.codes.tolist()]

    def used(self) -> list[str]:
        """The texts that a place has, sorted."""
        counts = np.bincount(self.codes + 1, minlength=1)[1:]
        return sorted([self.names[code] for code in np.flatnonzero(counts).tolist()])

    def where(self, test: Callable[[str], bool]) -> Mask:
        """The places whose text passes a test, which is asked once for each text."""
        passes: Mask = np.array([*map(test, self.names), False], bool)[self.codes]
        return passes


def coded(texts: Sequence[str]) -> Codes:
    """Texts as a column.

    >>> coded(["b", "a", "b"]).codes.tolist()
    [0, 1, 0]
    """
    numbers = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    return Codes(np.array([numbers[text] for text in texts], np.int32), list(numbers))


def joined(columns: Sequence[Codes]) -> Codes:
    """One column after the other.

    >>> both = joined([Codes(np.array([0, 1], np.int32), ["a", "b"]), Codes(np.array([0], np.int32), ["b"])])
    >>> both.codes.tolist()
    [0, 1, 1]
    """
    numbers: dict[str, int] = {}
    ours: dict[int, NDArray[np.int32]] = {}
    parts = []
    for column in columns:
        if id(column.names) not in ours:  # points of a run share the names of its images
            own = [numbers.setdefault(name, len(numbers)) for name in column.names]
            ours[id(column.names)] = np.array([*own, -1], np.int32)
        parts.append(ours[id(column.names)][column.codes])
    return Codes(np.concatenate(parts) if parts else np.empty(0, np.int32), list(numbers))


def groups_of(columns: Sequence[NDArray[Any]]) -> tuple[Places, Places]:
    """The group of each place, by what it has in all columns; and a first place of each, in the order of these.

    >>> of_place, first = groups_of([np.array([5, 3, 5]), np.array([1, 1, 1])])
    >>> of_place.tolist(), first.tolist()
    ([0, 1, 0], [0, 1])
    """
    keys, count = _numbered(columns[0])
    for column in columns[1:]:
        codes, wide = _numbered(column)
        keys, count = keys.astype(np.int64) * wide + codes, count * wide
        # What was joined so far is numbered anew before it leaves 64 bits.
        if count > 1 << 31:
            keys, count = _numbered(keys)
    if count > 4 * len(keys) + SMALL:
        keys, count = _numbered(keys)
    first = np.full(count, -1, np.int64)
    if count <= FEW:
        for number in range(count):
            here = keys == number
            first[number] = here.argmax() if here.any() else -1
    else:  # of equal ones the last that is written is the first that is there
        first[keys[::-1]] = np.arange(len(keys))[::-1]
    there = np.flatnonzero(first >= 0)
    there = there[np.argsort(first[there])]
    rank = np.empty(count, np.int64)
    rank[there] = np.arange(len(there))
    return rank[keys], first[there]


FEW = 16
"""Groups that are picked one by one, which is faster than a sort."""
SMALL = 1 << 16
"""Numbers below this are taken as they are: making others of them takes a table of them."""


def _numbered(column: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """Equal values as equal numbers from 0, and a number above all of them."""
    if len(column) and column.dtype.kind == "i" and (low := int(column.min())) >= -1:
        high = int(column.max())
        if high < SMALL:
            return column - low if low else column, high - low + 1
    if len(column) <= SMALL:  # a small run asks Arrow for nothing
        _, codes = np.unique(column, return_inverse=True)
        return codes.ravel(), int(codes.max(initial=0)) + 1
    if column.dtype.kind == "f":
        # Arrow does not know that 0 and -0 are equal, nor two NaN that differ in their bits.
        column = np.where(np.isnan(column), np.nan, column + 0.0)
    encoded = pa.array(column, from_pandas=False).dictionary_encode()
    return encoded.indices.to_numpy().astype(np.int64), max(1, len(encoded.dictionary))


def split_by(groups: Places, count: int) -> list[Places]:
    """The places of each of ``count`` groups, rising.

    >>> [places.tolist() for places in split_by(np.array([0, 1, 0]), 2)]
    [[0, 2], [1]]
    """
    if count <= FEW:
        return [np.flatnonzero(groups == number) for number in range(count)]
    order = np.argsort(groups.astype(np.uint16) if count <= SMALL else groups, kind="stable")
    return np.split(order, np.searchsorted(groups[order], np.arange(1, count)))


def agree(column: Codes, *others: Codes) -> bool:
    """Have places that are equal in a column, which has no empty ones, the same in others?

    >>> agree(coded(["b", "a", "b"]), coded(["x", "x", "x"])), agree(coded(["b", "a", "b"]), coded(["x", "x", "y"]))
    (True, False)
    """
    last = np.empty(len(column.names), np.int32)
    for other in others:
        last[column.codes] = other.codes
        if not np.array_equal(last[column.codes], other.codes):
            return False
    return True


def ranks(names: Sequence[str]) -> NDArray[np.int64]:
    """The place of each of some texts among them as sorted.

    >>> ranks(["b", "a", "c"]).tolist()
    [1, 0, 2]
    """
    order = sorted(range(len(names)), key=names.__getitem__)
    places = np.empty(len(names), np.int64)
    places[order] = np.arange(len(names))
    return places


# Hashes

HASH = np.dtype([("start", "<u8"), ("rest", "V24")])
"""A sha256: of its 32 bytes the first eight as a number, by which hashes are sorted and found, and the others."""


class Hashes(Sequence[str]):
    """Many sha256 in a quarter of the memory that texts take; each is a text when it is asked for.

    >>> hashes = Hashes.of(["00" * 32, "ab" * 32])
    >>> hashes[1][:6], len(hashes)
    ('ababab', 2)
    """

    def __init__(self, raw: NDArray[Any]) -> None:
        self.raw = raw
        """`HASH` of each."""

    @classmethod
    def of(cls, texts: Sequence[str] | Any) -> Hashes | None:
        """Of texts, or of an Arrow array of them; None if one is no sha256."""
        if isinstance(texts, Hashes):
            return texts
        array = pa.array(texts, pa.string())
        places = np.frombuffer(array.buffers()[1], np.int32, len(array) + 1, 4 * array.offset)
        if array.null_count or (np.diff(places) != 64).any():
            return None
        try:
            return cls.joined([unhexlify(memoryview(array.buffers()[2])[places[0] : places[-1]])] if len(array) else [])
        except ValueError:
            return None

    @classmethod
    def joined(cls, digests: Iterable[bytes]) -> Hashes:
        """Of digests, one after the other."""
        numbers = np.frombuffer(b"".join(digests), np.dtype([("start", ">u8"), ("rest", "V24")]))
        return cls(numbers.astype(HASH))

    def __len__(self) -> int:
        return len(self.raw)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> Hashes: ...

    def __getitem__(self, index: int | slice) -> str | Hashes:
        if isinstance(index, slice):
            return Hashes(self.raw[index])
        start, rest = self.raw[index].item()
        return f"{start:016x}{rest.hex()}"


def find(known: NDArray[Any], wanted: NDArray[Any]) -> Places:
    """Where each hash is among known ones, which are sorted by their start; -1 for one that is not there.

    >>> hashes = Hashes.of(["00" * 32, "ab" * 32])
    >>> find(hashes.raw, Hashes.of(["ab" * 32, "cd" * 32]).raw).tolist()
    [1, -1]
    """
    places = np.full(len(wanted), -1, np.int64)
    # In order they are found ten times as fast, and this sort takes no time where they are in order already.
    order = np.argsort(wanted["start"], kind="stable")
    starts = known["start"].astype(np.uint64)
    start, rest = wanted["start"][order], wanted["rest"][order]
    place = np.searchsorted(starts, start)
    seeking = np.arange(len(order))
    while True:  # once more only where hashes have one start
        seeking = seeking[place[seeking] < len(starts)]
        seeking = seeking[starts[place[seeking]] == start[seeking]]
        if not len(seeking):
            return places
        same = known["rest"][place[seeking]] == rest[seeking]
        places[order[seeking[same]]] = place[seeking[same]]
        seeking = seeking[~same]
        place[seeking] += 1


# Tables


def key_of(kind: str) -> str:
    """The field that names a record.

    >>> len(key_of("score"))
    9
    """
    return "task_key" if kind == "row" else f"{kind}_key"


def schema_of(kind: str) -> Any:
    """The columns of a kind of record, as Arrow has them."""
    plain = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    columns = ((name, types[0], type(None) in types) for name, types in types_of(KINDS[kind]).items())
    return pa.schema([pa.field(name, plain[first], nullable=none) for name, first, none in columns])


def table_of(kind: str, records: Iterable[Any]) -> Any:
    """Records as a table."""
    return pa.Table.from_pylist([vars(record) for record in records], schema_of(kind))


def checked(kind: str, table: Any, where: str, names: Collection[str] = ()) -> Any:
    """A table with the types of its columns, texts as dictionaries.

    Raises:
        StoreCorrupt: other columns than the record has (asked of all ``names``), or values that it cannot have.
    """
    cls = KINDS[kind]
    known = types_of(cls)
    if not names and (odd := {*table.column_names} - {OVER} ^ known.keys()):
        raise StoreCorrupt(
            f"{where}: a {cls.__name__} with unexpected or missing fields: {', '.join(sorted(odd)):.400}"
        )
    columns = {}
    for name in table.column_names:
        column = table.column(name)
        columns[name] = column if name == OVER else _checked(cls.__name__, name, known[name], column, where)
    return pa.table(columns)


def _checked(cls: str, name: str, types: tuple[type, ...], column: Any, where: str) -> Any:
    def refuse(value: object) -> StoreCorrupt:
        return StoreCorrupt(f"{where}: {value!r:.80} cannot be the {name} of a {cls}")

    kind = column.type
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    accepted = {
        str: pa.types.is_string(plain) or pa.types.is_large_string(plain),
        int: pa.types.is_int64(plain),
        float: pa.types.is_float64(plain) or (float in types and pa.types.is_int64(plain)),
        bool: pa.types.is_boolean(plain),
    }[types[0]]
    if column.null_count and type(None) not in types:
        raise refuse(None)
    if not accepted and not pa.types.is_null(plain):
        raise refuse(next((value.as_py() for value in column if value.is_valid), str(plain)))
    if types[0] is not str:
        return column.cast({int: pa.int64(), float: pa.float64(), bool: pa.bool_()}[types[0]])
    if not pa.types.is_dictionary(kind):
        column = column.cast(pa.string()).dictionary_encode()
    if name in JSON_FIELDS or (cls, name) == ("Row", "status"):
        good: Callable[[str], bool] = is_object if name in JSON_FIELDS else get_args(Status).__contains__
        for chunk in column.chunks:
            for text in chunk.dictionary.to_pylist():
                if text is not None and not good(text):
                    raise refuse(text)
    return column


class Segment:
    """Records of one kind in columns: of a Parquet file, read when asked for, or of a table in memory.

    Args:
        kind: of the records.
        source: the table, or a Parquet file that is open.
        where: for errors.
    """

    def __init__(self, kind: str, source: Any, where: str) -> None:
        self.kind, self.where = kind, where
        self.sealed = False
        """Is it a file that stays as it is?"""
        self.changed: list[str] = []
        """Of rows: tasks whose scores and times in earlier segments are not theirs any more."""
        self._file = None if isinstance(source, pa.Table) else source
        self._columns: dict[str, Any] = {}
        self._reading = Lock()  # Arrow's reader of a file, which reads ahead, is no two threads' at a time
        self.size: int = source.num_rows if self._file is None else source.metadata.num_rows
        self.alive: Mask = np.ones(self.size, bool)
        """What no later record took the place of."""
        self.left: int = self.size
        """How many these are."""
        if self._file is None:
            self._keep(checked(kind, source, where))
        else:
            checked(kind, self._file.schema_arrow.empty_table(), where)

    def _keep(self, table: Any) -> dict[str, Any]:
        columns = {name: table.column(name) for name in table.column_names}
        self._columns |= columns
        return columns

    def load(self, names: Iterable[str]) -> dict[str, Any]:
        """Read columns together; all of them, as another thread may forget what is kept here."""
        with self._reading:
            columns = {name: self._columns.get(name) for name in names}
            new = [name for name, column in columns.items() if column is None]
            if self._file is not None and new:
                table = checked(self.kind, read_columns(self._file, new, self.where), self.where, new)
                columns |= self._keep(table)
            return columns

    def forget(self, name: str) -> None:
        """A column of a file can be read again."""
        if self._file is not None and self.sealed:
            self._columns.pop(name, None)

    def column(self, name: str) -> Any:
        """A column, without records that are gone: texts as dictionaries."""
        column = self.load([name])[name]
        return column if self.left == self.size else column.filter(pa.array(self.alive))

    def texts(self, name: str) -> list[str]:
        """A column of texts, without records that are gone."""
        texts: list[str] = self.column(name).to_pylist()
        return texts

    def over(self) -> list[str]:
        """The keys that take the place of earlier ones."""
        names = self._columns if self._file is None else self._file.schema_arrow.names
        if OVER not in names:
            return []
        columns = self.load([OVER, key_of(self.kind)])
        keys: list[str] = columns[key_of(self.kind)].filter(columns[OVER]).to_pylist()
        return keys

    def hide(self, name: str, texts: Any) -> list[str]:
        """Take out the records that have one of these texts under a name; returns their keys."""
        columns = self.load([name, key_of(self.kind)])
        gone = self.alive & _is_in(columns[name], texts)
        if not gone.any():
            return []
        self.alive = self.alive & ~gone
        self.left = int(self.alive.sum())
        keys: list[str] = columns[key_of(self.kind)].filter(pa.array(gone)).to_pylist()
        return keys

    def take(self, places: Places) -> list[dict[str, Any]]:
        """Whole records; places are of those that are not gone."""
        names = [field.name for field in fields(KINDS[self.kind])]
        rows = np.flatnonzero(self.alive)[places]
        if self._file is None or all(name in self._columns for name in names):
            table = pa.table({name: self._columns[name] for name in names}).take(pa.array(rows))
        else:
            table = self._taken(names, rows)
        records: list[dict[str, Any]] = table.to_pylist()
        return records

    def _taken(self, names: list[str], rows: Places) -> Any:
        """Of a file that is not read, from the groups of rows that hold them."""
        assert self._file is not None
        sizes = [self._file.metadata.row_group(n).num_rows for n in range(self._file.num_row_groups)]
        starts = np.r_[0, np.cumsum(sizes)]
        group = np.searchsorted(starts, rows, "right") - 1
        parts, order = [], []
        for number in np.unique(group):
            here = np.flatnonzero(group == number)
            table = checked(self.kind, read_columns(self._file, names, self.where, int(number)), self.where, names)
            parts.append(table.take(pa.array(rows[here] - starts[number])))
            order.append(here)
        places = np.empty(len(rows), np.int64)
        places[np.concatenate(order)] = np.arange(len(rows))
        return pa.concat_tables([_plain(part) for part in parts]).take(pa.array(places))

    def table(self) -> Any:
        """All that is not gone, as it is written: texts are plain."""
        schema = schema_of(self.kind)
        table = pa.table(self.load(schema.names))
        return _plain(table if self.left == self.size else table.filter(pa.array(self.alive))).cast(schema)


def _plain(table: Any) -> Any:
    """A table whose texts are no dictionaries."""
    columns = {}
    for name in table.column_names:
        column = table.column(name)
        columns[name] = column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column
    return pa.table(columns)


def _is_in(column: Any, texts: Any) -> Mask:
    """Which of a column of texts are among others; a dictionary's texts are looked up once."""
    import pyarrow.compute as pc

    parts = []
    for chunk in column.chunks:
        known = pc.is_in(chunk.dictionary, value_set=texts).to_numpy(zero_copy_only=False)
        parts.append(np.r_[known, False][chunk.indices.fill_null(-1).to_numpy(zero_copy_only=False)])
    return np.concatenate(parts) if parts else np.zeros(len(column), bool)


def open_file(kind: str, source: Any, where: str) -> tuple[Any, dict[str, Any]]:
    """A Parquet file, and what its header states beside the columns.

    Raises:
        StoreCorrupt: it cannot be read.
    """
    try:
        file = parquet.ParquetFile(source, page_checksum_verification=True)
        there = {file.schema.column(number).path for number in range(len(file.schema))}
        texts = [name for name, types in types_of(KINDS[kind]).items() if types[0] is str and name in there]
        how = {"metadata": file.metadata, "page_checksum_verification": True, "read_dictionary": texts}
        file = parquet.ParquetFile(source, **how)
        header = file.metadata.metadata or {}
        stated = {name.decode(): json.loads(text) for name, text in header.items() if name != b"ARROW:schema"}
    except (pa.ArrowException, ValueError, OSError) as error:
        raise StoreCorrupt(f"{where} cannot be read: {error}") from error
    return file, stated


def read_columns(file: Any, names: list[str] | None, where: str, group: int | None = None) -> Any:
    """Columns of an open Parquet file, whose checksums are held against what is read."""
    try:
        return file.read(names) if group is None else file.read_row_group(group, names)
    except (pa.ArrowException, ValueError, OSError) as error:
        raise StoreCorrupt(f"{where} cannot be read: {error}") from error


def write_table(table: Any, path: Any, **stated: Any) -> None:
    """Write a table, with what its header shall state; rows of a group are few enough to be read for one of them."""
    metadata = {"schema_version": SCHEMA_VERSION, **stated}
    table = table.replace_schema_metadata({name: json.dumps(value) for name, value in metadata.items()})
    how = {"compression": "zstd", "write_page_checksum": True, "row_group_size": 131_072}
    # A group's task keys, of which each of its scores has one, are a dictionary of this size.
    parquet.write_table(table, path, dictionary_pagesize_limit=8 << 20, **how)

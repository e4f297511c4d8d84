"""Records in columns: a run of millions of rows is read as far as it is asked for, and never as objects.

`Records` is a mapping from keys to records, as a dictionary would be. Behind it lie segments (Parquet files, or tables
in memory) and, on top, the records that came since as objects. A column is read when it is asked for; a record is made
of its columns when it is. A record on top hides the one of its key below, and so does a later segment an earlier one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, MutableMapping, Sequence
from collections.abc import ItemsView as Items
from collections.abc import ValuesView as Values
from dataclasses import fields
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar, cast, get_args

import numpy as np
from numpy.typing import NDArray

from rdpbench.errors import StoreCorrupt
from rdpbench.lazy import pa, parquet
from rdpbench.results.store.schema import JSON_FIELDS, KINDS, SCHEMA_VERSION, Status, is_object, types_of

Mask: TypeAlias = NDArray[np.bool_]
Places: TypeAlias = NDArray[np.int64]
R = TypeVar("R")

BLOCK = 8192
"""Records that are made of columns at a time."""
INDEXED = 65_536
"""Up to so many keys are looked up in a dictionary."""
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

    def number(self, name: str) -> int:
        """The number of a text; -2 if no place has it."""
        return self.names.index(name) if name in self.names else -2

    def where(self, test: Callable[[str], bool]) -> Mask:
        """The places whose text passes a test, which is asked once for each text."""
        passes: Mask = np.array([*map(test, self.names), False], bool)[self.codes]
        return passes


def joined(columns: Sequence[Codes]) -> Codes:
    """One column after the other.

    >>> both = joined([Codes(np.array([0, 1], np.int32), ["a", "b"]), Codes(np.array([0], np.int32), ["b"])])
    >>> both.codes.tolist()
    [0, 1, 1]
    """
    numbers: dict[str, int] = {}
    parts = []
    for column in columns:
        ours = [numbers.setdefault(name, len(numbers)) for name in column.names]
        parts.append(np.array([*ours, -1], np.int32)[column.codes])
    return Codes(np.concatenate(parts) if parts else np.empty(0, np.int32), list(numbers))


def groups_of(columns: Sequence[NDArray[Any]]) -> tuple[Places, Places]:
    """The group of each place, by what it has in all columns; and a first place of each, in the order of these.

    >>> of_place, first = groups_of([np.array([5, 3, 5]), np.array([1, 1, 1])])
    >>> of_place.tolist(), first.tolist()
    ([0, 1, 0], [0, 1])
    """
    size = len(columns[0])
    keys = np.zeros(size, np.int64)
    count = 1
    for column in columns:
        _, codes = np.unique(column, return_inverse=True)
        keys, wide = keys * (int(codes.max(initial=0)) + 1) + codes.ravel(), count * (int(codes.max(initial=0)) + 1)
        # What was joined so far is numbered anew before it leaves 64 bits.
        if wide > 1 << 31:
            _, keys = np.unique(keys, return_inverse=True)
            wide = int(keys.max(initial=0)) + 1
        count = wide
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty(len(first), np.int64)
    rank[order] = np.arange(len(first))
    return rank[inverse.ravel()], first[order]


def split_by(groups: Places, count: int) -> list[Places]:
    """The places of each of ``count`` groups, rising.

    >>> [places.tolist() for places in split_by(np.array([0, 1, 0]), 2)]
    [[0, 2], [1]]
    """
    order = np.argsort(groups, kind="stable")
    return np.split(order, np.searchsorted(groups[order], np.arange(1, count)))


def ranks(names: Sequence[str]) -> NDArray[np.int64]:
    """The place of each of some texts among them as sorted.

    >>> ranks(["b", "a", "c"]).tolist()
    [1, 0, 2]
    """
    order = sorted(range(len(names)), key=names.__getitem__)
    places = np.empty(len(names), np.int64)
    places[order] = np.arange(len(names))
    return places


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
        self.size: int = source.num_rows if self._file is None else source.metadata.num_rows
        self.alive: Mask = np.ones(self.size, bool)
        """What no later record took the place of."""
        if self._file is None:
            self._keep(checked(kind, source, where))
        else:
            checked(kind, self._file.schema_arrow.empty_table(), where)

    def _keep(self, table: Any) -> None:
        self._columns |= {name: table.column(name) for name in table.column_names}

    def load(self, names: Iterable[str]) -> None:
        """Read columns together."""
        new = [name for name in dict.fromkeys(names) if name not in self._columns]
        if self._file is not None and new:
            self._keep(checked(self.kind, read_columns(self._file, new, self.where), self.where, new))

    def column(self, name: str) -> Any:
        """A column, without records that are gone: texts as dictionaries."""
        self.load([name])
        column = self._columns[name]
        return column if self.alive.all() else column.filter(pa.array(self.alive))

    def over(self) -> list[str]:
        """The keys that take the place of earlier ones."""
        names = self._columns if self._file is None else self._file.schema_arrow.names
        if OVER not in names:
            return []
        self.load([OVER, key_of(self.kind)])
        keys: list[str] = self._columns[key_of(self.kind)].filter(self._columns[OVER]).to_pylist()
        return keys

    def hide(self, name: str, texts: Any) -> list[str]:
        """Take out the records that have one of these texts under a name; returns their keys."""
        self.load([name, key_of(self.kind)])
        gone = self.alive & _is_in(self._columns[name], texts)
        if not gone.any():
            return []
        self.alive = self.alive & ~gone
        keys: list[str] = self._columns[key_of(self.kind)].filter(pa.array(gone)).to_pylist()
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
        self.load(schema.names)
        table = pa.table({name: self._columns[name] for name in schema.names})
        return _plain(table if self.alive.all() else table.filter(pa.array(self.alive))).cast(schema)


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


# Records


class Records(MutableMapping[str, R], Generic[R]):
    """Records of one kind by their key."""

    def __init__(self, kind: str, records: Mapping[str, R] | None = None) -> None:
        self.kind = kind
        self.segments: list[Segment] = []
        self.fresh: dict[str, R] = dict(records or {})
        """Those that came since, as objects."""
        self.replaced: list[str] = []
        """Keys of records in segments that a newer one took the place of, since this was read."""
        self._dropped: set[str] = set()
        self._hidden: set[str] = set()
        """Keys of `fresh` whose records in segments are out already."""
        self._near: dict[str, R | None] = {}
        """What was looked up in segments; None for what is not there."""
        self._cached: dict[str, Any] = {}

    # As a mapping

    def __len__(self) -> int:
        self._settle()
        return sum(int(segment.alive.sum()) for segment in self.segments) + len(self.fresh)

    def __iter__(self) -> Iterator[str]:
        self._settle()
        for segment in self.segments:
            yield from segment.column(key_of(self.kind)).to_pylist()
        yield from list(self.fresh)

    def __contains__(self, key: object) -> bool:
        return key in self.fresh or (bool(self.segments) and isinstance(key, str) and self.locate([key])[0] >= 0)

    def __getitem__(self, key: str) -> R:
        if key in self.fresh:
            return self.fresh[key]
        if self.segments:
            if key not in self._near:
                self.fetch([key])
            if (record := self._near[key]) is not None:
                return record
        raise KeyError(key)

    def __setitem__(self, key: str, record: R) -> None:
        self.fresh[key] = record
        self._cached.clear()

    def __delitem__(self, key: str) -> None:
        if key not in self:
            raise KeyError(key)
        self.fresh.pop(key, None)
        for segment in self.segments:
            segment.hide(key_of(self.kind), pa.array([key]))
        self._near[key] = None
        self._cached.clear()

    def values(self) -> Values[R]:
        return _Values(self)

    def items(self) -> Items[str, R]:
        return _Items(self)

    def __repr__(self) -> str:
        return f"{len(self)} {self.kind}s"

    # In columns

    def drop(self, tasks: Collection[str]) -> None:
        """Take out all that is of these tasks; what comes later stays."""
        self._settle()
        self.fresh = {key: record for key, record in self.fresh.items() if record.task_key not in tasks}  # type: ignore[attr-defined]  # scores and timings have it
        self._dropped |= {*tasks}
        self._cached.clear()

    def _settle(self) -> None:
        """Take out of the segments what the newer records hide."""
        if not self.segments:
            self._hidden, self._dropped = set(self.fresh), set()
            return
        if new := self.fresh.keys() - self._hidden:
            texts = pa.array(list(new))
            self.replaced += [key for segment in self.segments for key in segment.hide(key_of(self.kind), texts)]
            self._hidden |= new
        if self._dropped:
            texts = pa.array(list(self._dropped))
            for segment in self.segments:
                segment.hide("task_key", texts)
            self._dropped = set()

    def put_below(self, segment: Segment) -> None:
        """Add a segment on top of the others, below what came since."""
        self.segments.append(segment)
        self._cached.clear()

    def put_over(self, segment: Segment) -> None:
        """Add a later segment, which hides what it takes the place of."""
        if over := segment.over():
            for earlier in self.segments:
                earlier.hide(key_of(self.kind), pa.array(over))
        self.put_below(segment)

    def freeze(self) -> None:
        """Turn what came since into a segment in memory, which takes a tenth of the place."""
        if self.fresh:
            self._settle()
            segment = Segment(self.kind, table_of(self.kind, self.fresh.values()), "what was read")
            self.fresh, self._hidden, self._near = {}, set(), {}
            self.put_below(segment)

    # On its way to files

    def unsealed(self) -> Any:
        """All that is not in files that stay as they are, as a table."""
        self._settle()
        parts = [segment for segment in self.segments if not segment.sealed]
        tables = [segment.table() for segment in parts] + [table_of(self.kind, self.fresh.values())]
        over = {*self.replaced, *(key for segment in parts for key in segment.over())}
        return self._marked(pa.concat_tables(tables), over if len(parts) < len(self.segments) else set())

    def _marked(self, table: Any, over: Collection[str]) -> Any:
        """A table that says which of its records take the place of earlier ones, if any do."""
        if over:
            import pyarrow.compute as pc

            mask = pc.is_in(table.column(key_of(self.kind)), value_set=pa.array(sorted(over)))
            if pc.any(mask).as_py():
                return table.append_column(OVER, mask)
        return table

    def written(self, segment: Segment) -> None:
        """What `unsealed` gave is in a file."""
        self.segments = [segment for segment in self.segments if segment.sealed]
        self.fresh, self._hidden, self._near, self.replaced = {}, set(), {}, []
        self.put_below(segment)

    def merged(self, files: Collection[str]) -> Any | None:
        """What is in some files that stay, as one table; None if there are none of this kind."""
        self._settle()
        parts = [segment for segment in self.segments if segment.where in files]
        if not parts:
            return None
        over = {key for segment in parts for key in segment.over()}
        return self._marked(pa.concat_tables([segment.table() for segment in parts]), over)

    def swap(self, files: Collection[str], segment: Segment) -> None:
        """Put a segment in the place of those that it was merged of."""
        place = next(n for n, old in enumerate(self.segments) if old.where in files)
        kept = [old for old in self.segments if old.where not in files]
        self.segments = [*kept[:place], segment, *kept[place:]]
        self._cached.clear()

    def load(self, *names: str) -> None:
        """Read columns together, which is quicker than one by one."""
        for segment in self.segments:
            segment.load(names)

    def _column(self, name: str) -> list[Any]:
        self._settle()
        parts = [chunk for segment in self.segments for chunk in segment.column(name).chunks]
        if self.fresh:
            values = [getattr(record, name) for record in self.fresh.values()]
            column = pa.array(values, schema_of(self.kind).field(name).type)
            parts.append(column.dictionary_encode() if pa.types.is_string(column.type) else column)
        return parts

    def codes(self, name: str) -> Codes:
        """A column of texts as numbers, in the order of the records."""

        def codes() -> Codes:
            parts = [
                Codes(
                    part.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32),
                    part.dictionary.to_pylist(),
                )
                for part in self._column(name)
            ]
            return joined(parts)

        return cast("Codes", self._remembered(f"codes {name}", codes))

    def strings(self, name: str) -> Any:
        """A column of texts as an Arrow array: for those of which few are equal, such as hashes."""

        def strings() -> Any:
            parts = [part.cast(pa.string()) for part in self._column(name)]
            return pa.concat_arrays(parts) if parts else pa.array([], pa.string())

        return self._remembered(f"strings {name}", strings)

    def numbers(self, name: str) -> NDArray[np.float64]:
        """A column of numbers; NaN for none."""

        def numbers() -> NDArray[np.float64]:
            parts = [part.to_numpy(zero_copy_only=False).astype(np.float64) for part in self._column(name)]
            return np.concatenate(parts) if parts else np.empty(0)

        return cast("NDArray[np.float64]", self._remembered(name, numbers))

    def _remembered(self, name: str, make: Callable[[], Any]) -> Any:
        if name not in self._cached:
            self._cached[name] = make()
        return self._cached[name]

    def locate(self, keys: Sequence[str]) -> Places:
        """The place of each key in the columns; -1 for what is not here."""
        self._settle()
        size = len(self)
        if size <= INDEXED:
            index = self._remembered("index", lambda: {key: place for place, key in enumerate(self)})
            return np.array([index.get(key, -1) for key in keys], np.int64)
        import pyarrow.compute as pc

        column = self.strings(key_of(self.kind))
        if len(keys) == 1:
            return np.array([pc.index(column, keys[0]).as_py()], np.int64)
        places: Places = (
            pc.index_in(pa.array(keys, pa.string()), value_set=column).fill_null(-1).to_numpy().astype(np.int64)
        )
        return places

    def at(self, places: Sequence[int] | Places) -> list[R]:
        """The records at these places."""
        self._settle()
        wanted = np.asarray(places, np.int64)
        out: list[Any] = [None] * len(wanted)
        start, cls = 0, KINDS[self.kind]
        for segment in self.segments:
            end = start + int(segment.alive.sum())
            here = np.flatnonzero((wanted >= start) & (wanted < end))
            if len(here):
                for number, record in zip(here.tolist(), segment.take(wanted[here] - start), strict=True):
                    out[number] = cls(**record)
            start = end
        here = np.flatnonzero(wanted >= start)
        if len(here):
            top = list(self.fresh.values())
            for number in here.tolist():
                out[number] = top[wanted[number] - start]
        return out

    def fetch(self, keys: Sequence[str]) -> None:
        """Make the records of these keys, which will be asked for one by one."""
        places = self.locate(keys)
        self._near |= dict.fromkeys(keys)
        there = np.flatnonzero(places >= 0)
        records = self.at(places[there])
        self._near |= {keys[number]: record for number, record in zip(there.tolist(), records, strict=True)}

    def in_order(self) -> Iterator[R]:
        """All records, a block at a time."""
        size = len(self)
        for start in range(0, size, BLOCK):
            yield from self.at(np.arange(start, min(size, start + BLOCK)))


class _Values(Values[R]):
    def __init__(self, records: Records[R]) -> None:
        super().__init__(records)
        self._records = records

    def __iter__(self) -> Iterator[R]:
        return self._records.in_order()


class _Items(Items[str, R]):
    def __init__(self, records: Records[R]) -> None:
        super().__init__(records)
        self._records = records

    def __iter__(self) -> Iterator[tuple[str, R]]:
        return zip(list(self._records), self._records.in_order(), strict=True)

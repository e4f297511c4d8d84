"""Records of a run: millions of them are read as far as they are asked for, and never all as objects.

`Records` is a mapping from keys to records, as a dictionary would be. Behind it lie segments (`columns`) and, on top,
the records that came since as objects. A column is read when it is asked for; a record is made of its columns when it
is. A record on top hides the one of its key below, and so does a later segment an earlier one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, MutableMapping, Sequence
from collections.abc import ItemsView as Items
from collections.abc import ValuesView as Values
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Any, Generic, TypeVar, cast, overload

import numpy as np
from numpy.typing import NDArray

from rdpbench.lazy import pa
from rdpbench.results.store.columns import (
    HASH,
    OVER,
    Codes,
    Hashes,
    Mask,
    Places,
    Segment,
    find,
    joined,
    key_of,
    ranks,
    schema_of,
    table_of,
)
from rdpbench.results.store.schema import KINDS, Row

R = TypeVar("R")

BLOCK = 8192
"""Records that are made of columns at a time."""
INDEXED = 65_536
"""Up to so many keys are looked up in a dictionary."""


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
        self._changes = 0
        """How often what is here changed."""
        self._of_rows: tuple[Records[Any], tuple[int, int], Places] | None = None
        """What `owners` gave last."""
        self._looking_up: Future[Places] | None = None

    # As a mapping

    def __len__(self) -> int:
        self._settle()
        return sum(segment.left for segment in self.segments) + len(self.fresh)

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
        self._forget()

    def __delitem__(self, key: str) -> None:
        if key not in self:
            raise KeyError(key)
        self.fresh.pop(key, None)
        for segment in self.segments:
            segment.hide(key_of(self.kind), pa.array([key]))
        self._near[key] = None
        self._forget()

    def values(self) -> Values[R]:
        return _Values(self)

    def items(self) -> Items[str, R]:
        return _Items(self)

    def __repr__(self) -> str:
        return f"{len(self)} {self.kind}s"

    # In columns

    def _forget(self) -> None:
        """What is here changed."""
        self._cached.clear()
        self._changes += 1

    def drop(self, tasks: Collection[str]) -> None:
        """Take out all that is of these tasks; what comes later stays."""
        self._settle()
        self.fresh = {key: record for key, record in self.fresh.items() if record.task_key not in tasks}  # type: ignore[attr-defined]  # scores and timings have it
        self._dropped |= {*tasks}
        self._forget()

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
        self._forget()

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
        self._forget()

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
            if not (parts := self._column(name)):
                return Codes(np.empty(0, np.int32), [])
            chunks = pa.chunked_array(parts).unify_dictionaries().chunks
            names = chunks[0].dictionary.to_pylist()
            indices = (c.indices.fill_null(-1) if c.indices.null_count else c.indices for c in chunks)
            numbers = np.concatenate([part.to_numpy(zero_copy_only=False) for part in indices])
            # Sorted once: whoever lists the names of a part of it need not do so each time.
            ordered = sorted(names)
            return Codes(numbers if names == ordered else np.array([*ranks(names), -1], np.int32)[numbers], ordered)

        return cast("Codes", self._remembered(f"codes {name}", codes))

    def strings(self, name: str) -> Any:
        """A column of texts as an Arrow array: for those of which few are equal, such as hashes."""

        def strings() -> Any:
            parts = [part.cast(pa.string()) for part in self._column(name)]
            return pa.concat_arrays(parts) if parts else pa.array([], pa.string())

        return self._remembered(f"strings {name}", strings)

    def texts(self, name: str, places: Places) -> list[str]:
        """A column of texts at some places: for a few of many that are different."""
        parts = self._remembered(f"parts {name}", lambda: self._column(name))
        starts = np.cumsum([0, *map(len, parts)])
        part_of = np.searchsorted(starts, places, "right") - 1
        texts = np.empty(len(places), object)
        for number in np.unique(part_of).tolist():
            here = part_of == number
            texts[here] = parts[number].take(pa.array(places[here] - starts[number])).to_pylist()
        return list(texts)

    def hashes(self, name: str) -> tuple[Hashes, Mask]:
        """A column of sha256, and which texts are one: others are zero."""

        def hashes() -> tuple[Hashes, Mask]:
            parts = [self._hashed(part) for part in self._column(name)]
            raw = np.concatenate([part[0] for part in parts]) if parts else np.empty(0, HASH)
            return Hashes(raw), np.concatenate([part[1] for part in parts]) if parts else np.empty(0, bool)

        return cast("tuple[Hashes, Mask]", self._remembered(f"hashes {name}", hashes))

    @staticmethod
    def _hashed(part: Any) -> tuple[NDArray[Any], Mask]:
        import pyarrow.compute as pc

        texts = part.dictionary
        raw, known = np.zeros(len(texts) + 1, HASH), np.zeros(len(texts) + 1, bool)  # the last is that of none
        known[:-1] = True
        if (hashes := Hashes.of(texts)) is None:
            known[:-1] = pc.match_substring_regex(texts, "^[0-9a-f]{64}$").to_numpy(zero_copy_only=False)
            hashes = Hashes.of(texts.filter(pa.array(known[:-1])))
            assert hashes is not None
        raw[known] = hashes.raw
        places = part.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        return raw[places], known[places]

    def numbers(self, name: str) -> NDArray[np.float64]:
        """A column of numbers; NaN for none."""

        def numbers() -> NDArray[np.float64]:
            parts = [part.to_numpy(zero_copy_only=False).astype(np.float64, copy=False) for part in self._column(name)]
            return np.concatenate(parts) if parts else np.empty(0)

        return cast("NDArray[np.float64]", self._remembered(name, numbers))

    def _remembered(self, name: str, make: Callable[[], Any]) -> Any:
        if name not in self._cached:
            self._cached[name] = make()
            for segment in self.segments:  # what was made of a column is enough
                segment.forget(name.rpartition(" ")[2])
        return self._cached[name]

    def locate(self, keys: Sequence[str] | Any) -> Places:
        """The place of each key in the columns, -1 for what is not here; keys are `Hashes`, texts or an Arrow array."""
        self._settle()
        size = len(self)
        if not size:  # of a new run, which asks Arrow for nothing
            return np.full(len(keys), -1, np.int64)
        if size <= INDEXED:
            index = self._remembered("index", lambda: {key: place for place, key in enumerate(self)})
            texts = keys.to_pylist() if isinstance(keys, pa.Array) else keys
            return np.array([index.get(key, -1) for key in texts], np.int64)
        known, order = self._remembered(f"index {key_of(self.kind)}", self._index)
        wanted = Hashes.of(keys)
        if known is None or wanted is None:  # of a run that somebody wrote by hand
            import pyarrow.compute as pc

            column = self.strings(key_of(self.kind))
            places: Places = pc.index_in(pa.array(keys, pa.string()), value_set=column).fill_null(-1).to_numpy()
            return places.astype(np.int64)
        places = find(known, wanted.raw)
        return np.where(places < 0, -1, order[places])

    def _index(self) -> tuple[NDArray[Any] | None, Places]:
        """The keys as sorted, and the place of each; None if one is no sha256."""
        parts = [self._hashed(part) for part in self._column(key_of(self.kind))]
        if not all(known.all() for _, known in parts):
            return None, np.empty(0, np.int64)
        raw = np.concatenate([part for part, _ in parts])
        order = np.argsort(raw["start"])
        return raw[order], order

    def look_up(self, rows: Records[Any]) -> None:
        """Begin to find `owners` in a thread: of millions it takes as long as reading all else that tables need."""
        self._settle()
        rows._settle()
        if len(self) > INDEXED:
            self._looking_up = ThreadPoolExecutor(1).submit(self._owned, rows)

    def owners(self, rows: Records[Any]) -> Places:
        """Of each record the place of its task among rows; -1 for one whose row is not there."""
        if self._looking_up:
            wait([self._looking_up])
            self._looking_up = None
        return self._owned(rows)

    def _owned(self, rows: Records[Any]) -> Places:
        # Of these very rows, as they are now: one that is written again gets another place.
        known = self._of_rows
        if known is None or known[0] is not rows or known[1] != (self._changes, rows._changes):
            owners = self._owners(rows)
            self._of_rows = known = rows, (self._changes, rows._changes), owners
        return known[2]

    def _owners(self, rows: Records[Any]) -> Places:
        rows.locate([])  # first what reads rows: another thread begins with scores
        parts = self._column("task_key")
        if not parts:
            return np.empty(0, np.int64)
        sizes = np.cumsum([0, *(len(part.dictionary) for part in parts)])
        known = rows.locate(pa.concat_arrays([part.dictionary for part in parts]))
        indices = (part.indices.to_numpy(zero_copy_only=False) for part in parts)
        return np.concatenate([known[start + index] for start, index in zip(sizes, indices, strict=False)])

    def at(self, places: Sequence[int] | Places) -> list[R]:
        """The records at these places."""
        self._settle()
        wanted = np.asarray(places, np.int64)
        out: list[Any] = [None] * len(wanted)
        start, cls = 0, KINDS[self.kind]
        for segment in self.segments:
            end = start + segment.left
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


class Rows(Sequence[Row]):
    """Some rows of a run, each at the place that a point gives it; a row is made when it is asked for.

    Args:
        records: all rows of the run.
        places: which of them, in this order.
        stated: columns that are otherwise here than in the records, such as the label of a curve; each as long as
            ``places``, texts as `Codes`.
    """

    def __init__(self, records: Records[Row], places: Places, stated: Mapping[str, Codes | NDArray[Any]]) -> None:
        self.records, self.places, self.stated = records, places, stated

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Rows:
        """Rows that are there as objects.

        >>> len(Rows.of([]))
        0
        """
        records: Records[Row] = Records("row", {str(number): row for number, row in enumerate(rows)})
        return cls(records, np.arange(len(rows)), {})

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, index: int) -> Row: ...

    @overload
    def __getitem__(self, index: slice) -> Rows: ...

    def __getitem__(self, index: int | slice) -> Row | Rows:
        if isinstance(index, slice):
            return self.where(index)
        [row] = self.where([range(len(self))[index]]).made()
        return row

    def __iter__(self) -> Iterator[Row]:
        for start in range(0, len(self), BLOCK):
            yield from self.where(slice(start, start + BLOCK)).made()

    def made(self) -> list[Row]:
        """All of them as objects."""
        rows = self.records.at(self.places)
        if not self.stated:
            return rows
        columns = [(name, self.texts(name) if isinstance(c, Codes) else c.tolist()) for name, c in self.stated.items()]
        for number, row in enumerate(rows):
            said: dict[str, Any] = {n: column[number] for n, column in columns if getattr(row, n) != column[number]}
            if said:
                rows[number] = replace(row, **said)
        return rows

    def where(self, which: Any) -> Rows:
        """Some of them: by a mask, numbers or a slice."""
        stated = {n: c.of(which) if isinstance(c, Codes) else c[which] for n, c in self.stated.items()}
        return Rows(self.records, self.places[which], stated)

    def stating(self, **columns: Codes | NDArray[Any]) -> Rows:
        """The same with other columns."""
        return Rows(self.records, self.places, {**self.stated, **columns})

    def codes(self, name: str) -> Codes:
        """A column of texts as numbers."""
        if name in self.stated:
            column = self.stated[name]
            assert isinstance(column, Codes)
            return column
        return self.records.codes(name).of(self.places)

    def texts(self, name: str) -> list[str]:
        """A column of texts: for those of which few are equal, such as keys."""
        if name in self.stated or len(self.records) <= INDEXED:
            return self.codes(name).texts()
        return self.records.texts(name, self.places)

    def numbers(self, name: str) -> NDArray[np.float64]:
        """A column of numbers; NaN for none."""
        column = self.stated[name] if name in self.stated else self.records.numbers(name)[self.places]
        assert not isinstance(column, Codes)
        return column.astype(np.float64, copy=False)


def used(parts: Iterable[Rows], name: str) -> list[str]:
    """The texts that some rows have in a column, sorted.

    >>> used([Rows.of([]), Rows.of([])], "image")
    []
    """
    return joined([rows.codes(name) for rows in parts]).used()

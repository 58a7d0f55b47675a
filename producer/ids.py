"""What a row's id may be, and that no two are the same, in flat memory however many there are.

While rows are spooled, only a 64-bit hash of each id goes to disk. Afterwards the hashes are sorted
in slices that fit in memory; what repeats there is confirmed, with its lines, from the spool.
"""

from __future__ import annotations

import array
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from flavor.errors import InputError
from flavor.types import Json
from producer.files import listed
from producer.formats import Record
from worker.inputs import read_row_ids

MAX_ID_CHARACTERS = 1024  # in UTF-8 at most four times as many bytes

_UNFIT_FOR_ID = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")

_SLICE_HASHES = 1 << 20
"""How many are sorted at a time (8 MB). 10^8 ids are 96 slices, each a pass over a file of 800 MB:
about a minute, beside the twenty of reading the rows. Bucket files would need 96 open handles."""

_READ_HASHES = 1 << 17
_MAX_SUSPECTS = 1000  # far more than 64-bit hashes collide by chance: one of these is a real one


def id_of(record: Record, column: str) -> str:
    """The row's id as text: a number as JSON writes it, "007" as it is.

    Raises:
        InputError: missing, null, empty, too long, or with characters that no id may hold.
    """
    value = record.values.get(column)
    if type(value) is int or (type(value) is float and math.isfinite(value)):
        return str(value)
    if type(value) is not str:
        raise _no_id_error(record, column, value=value)
    # Nearly every id passes here, without a search.
    if value.isascii() and value.isprintable() and 0 < len(value) <= MAX_ID_CHARACTERS:
        return value
    return _odd_id(record, column, row_id=value)


class IdCheck:
    """Remembers hashes of ids in a file, and finds the ids that repeat."""

    def __init__(self, folder: Path, *, slice_hashes: int = _SLICE_HASHES) -> None:
        self._path = folder / "ids.i64"
        self._slice_hashes = slice_hashes
        self._ids = 0
        self._unwritten = array.array("q")

    def add(self, row_ids: Sequence[str]) -> None:
        """Note a batch's ids."""
        self._unwritten.extend(map(hash, row_ids))
        self._ids += len(row_ids)
        if len(self._unwritten) >= _READ_HASHES:
            self._flush()

    def _flush(self) -> None:
        with self._path.open("ab") as file:
            self._unwritten.tofile(file)
        self._unwritten = array.array("q")

    def check(self, parts: Iterable[Path]) -> None:
        """Look for repeated ids, once all are noted and stand in ``parts``.

        Raises:
            InputError: two rows have the same id; it names both lines.
        """
        self._flush()
        parts = list(parts)
        slices = -(-self._ids // self._slice_hashes)
        for number in range(slices):
            suspects = _repeated(_slice(self._path, number, slices=slices))
            if suspects:
                _confirm(suspects, parts)


def _no_id_error(record: Record, column: str, *, value: Json) -> InputError:
    if column not in record.values:
        return InputError(
            f"{record.place}: no column {column!r} for the row's id; columns there: "
            f"{listed(record.values)}; remedy: --id-column <one of them>"
        )
    what = "null" if value is None else f"no text or number but {type(value).__name__}"
    return InputError(f"{record.place}: the id in the column {column!r} is {what}")


def _odd_id(record: Record, column: str, *, row_id: str) -> str:
    place = f"{record.place}: the id in the column {column!r}"
    if not row_id:
        raise InputError(f"{place} is empty")
    if len(row_id) > MAX_ID_CHARACTERS:
        raise InputError(
            f"{place} has {len(row_id):,} characters; {MAX_ID_CHARACTERS:,} are allowed"
        )
    if unfit := _UNFIT_FOR_ID.search(row_id):
        raise InputError(
            f"{place} has a character that no id may hold: U+{ord(unfit[0]):04X} "
            f"at {unfit.start() + 1} (control characters and lone surrogates)"
        )
    return row_id


def _slice(path: Path, number: int, *, slices: int) -> npt.NDArray[np.uint64]:
    """The hashes that fall into one of ``slices`` classes; all copies of one fall into the same."""
    found = []
    with path.open("rb") as file:
        while len(hashes := np.fromfile(file, np.uint64, _READ_HASHES)):
            found.append(hashes if slices == 1 else hashes[hashes % np.uint64(slices) == number])
    return np.concatenate(found)


def _repeated(hashes: npt.NDArray[np.uint64]) -> set[int]:
    hashes.sort()
    repeated = hashes[1:][hashes[1:] == hashes[:-1]]
    return set(repeated[:_MAX_SUSPECTS].view(np.int64).tolist())


def _confirm(suspects: set[int], parts: Sequence[Path]) -> None:
    """Compare the ids themselves: two of one hash may still differ."""
    first_of: dict[str, str] = {}
    for row_id, place in _ids_of(parts, suspects):
        first = first_of.setdefault(row_id, place)
        if first is not place:
            raise InputError(
                f"{place}: the id {row_id!r} stands at {first} already; "
                "ids must differ, or leave --id-column out to have rows numbered"
            )


def _ids_of(parts: Sequence[Path], suspects: set[int]) -> Iterator[tuple[str, str]]:
    for part in parts:
        for batch in read_row_ids(part):
            row_ids = batch.column(0).to_pylist()
            for n, row_id in enumerate(row_ids):
                if hash(row_id) in suspects:
                    yield row_id, f"{batch.column(1)[n]}:{batch.column(2)[n]}"

"""What stands on disk before anything is sent: batches, parts, ids that differ."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flavor.errors import InputError
from flavor.types import Row
from producer import spool as spool_module
from producer.formats import Record
from producer.ids import IdCheck
from producer.source import SourceOptions, SourceRow, Wanted, read_rows
from producer.spool import BatchOptions, Spool, Spooled
from worker.codec import decode_rows, encode_rows
from worker.inputs import InputWriter, place_of, read_input_batch


def source_rows(*texts: object, ids: list[str] | None = None) -> list[SourceRow]:
    ids = ids if ids is not None else [str(n) for n in range(len(texts))]
    return [
        SourceRow(
            Row(row_id=row_id, index=n, values={"text": text}),
            Record("a.jsonl", n + 1, {"text": text, "other": n}),
        )
        for n, (row_id, text) in enumerate(zip(ids, texts, strict=True))
    ]


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    options = BatchOptions(batch_size=3, batch_bytes=1000, batches_per_file=2)
    with Spool(encode_rows, options=options, has_ids=True, folder=tmp_path) as opened:
        yield opened


def batches(spooled: Spooled) -> list[list[str]]:
    return [[row.row_id for row in decode_rows(p.payload)] for p in spooled.payloads()]


def test_batches_come_back_in_order_with_all_their_rows(spool: Spool) -> None:
    spooled = spool.write(source_rows(*"abcdefgh"))

    assert batches(spooled) == [["0", "1", "2"], ["3", "4", "5"], ["6", "7"]]
    assert [(p.batch, p.rows) for p in spooled.payloads()] == [(0, 3), (1, 3), (2, 2)]
    assert (spooled.rows, spooled.batches, spooled.characters) == (8, 3, 8)


def test_batch_n_is_row_group_n_of_its_part(spool: Spool) -> None:
    spooled = spool.write(source_rows(*"abcdefgh"))

    assert [f.name for f in spooled.input_files] == ["rows-000000.parquet", "rows-000001.parquet"]
    for payload in spooled.payloads():
        file_name, row_group = place_of(payload.batch, batches_per_file=2)
        found = list(read_input_batch(spooled.input_files[0].with_name(file_name), row_group))
        rows = decode_rows(payload.payload)
        assert [(r.index, r.row_id) for r in found] == [(r.index, r.row_id) for r in rows]
        assert [r.values["text"] for r in found] == [r.values["text"] for r in rows]
        assert [r.line for r in found] == [r.index + 1 for r in rows]
        assert {r.source for r in found} == {"a.jsonl"}


def test_a_batch_without_options_is_found_where_the_contract_says() -> None:
    assert place_of(63) == ("rows-000000.parquet", 63)
    assert place_of(64) == ("rows-000001.parquet", 0)


def test_a_big_row_is_a_batch_of_its_own_and_batches_stay_below_their_bytes(spool: Spool) -> None:
    big, half, small = "x" * 5000, "x" * 450, "x"

    spooled = spool.write(source_rows(small, big, half, half, half, small))

    assert batches(spooled) == [["0"], ["1"], ["2", "3"], ["4", "5"]]
    assert spooled.longest_characters == 5000


def test_a_row_of_ten_megabytes_passes(spool: Spool) -> None:
    text = "ä\0" * 2_500_000

    spooled = spool.write(source_rows(text, "b"))

    assert decode_rows(next(spooled.payloads()).payload)[0].values == {"text": text}
    assert next(read_input_batch(spooled.input_files[0], 0)).values["text"] == text


def test_a_row_beyond_the_limit_is_an_error_with_its_line(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_module, "MAX_ROW_BYTES", 1 << 20)

    with pytest.raises(InputError, match=r"a\.jsonl:2: the row takes 2 MiB; 1 MiB are the most"):
        spool.write(source_rows("a", "x" * (1 << 21)))


@pytest.mark.parametrize(
    "value", ["\ud800 NaN", "a\0b", "\u202eאב", 2**70, "{}", "", [1, {"a": None}], "\U0001f600"]
)
def test_odd_values_survive_in_the_parts(spool: Spool, value: object) -> None:
    spooled = spool.write(source_rows(value))

    (row,) = read_input_batch(spooled.input_files[0], 0)
    assert row.values == {"text": value, "other": 0}


def test_nan_beside_a_lone_surrogate_is_null_in_the_parts(spool: Spool) -> None:
    spooled = spool.write(source_rows(["\ud800", float("nan")]))

    text = pq.read_table(spooled.input_files[0]).column("row")[0].as_py()
    assert json.loads(text, parse_constant=pytest.fail)["text"] == ["\ud800", None]


@pytest.mark.parametrize(
    ("ids", "first", "second"),
    [
        (["a", "a"], 1, 2),  # in one batch
        (["a", "b", "c", "d", "a"], 1, 5),  # in two batches
        ([*"abcdefghi", "b"], 2, 10),  # in two files
        (["7", "07", "7"], 1, 3),
    ],
)
def test_an_id_that_stands_twice_is_an_error_with_both_lines(
    spool: Spool, ids: list[str], first: int, second: int
) -> None:
    with pytest.raises(InputError) as raised:
        spool.write(source_rows(*ids, ids=ids))

    assert str(raised.value).startswith(
        f"a.jsonl:{second}: the id {ids[first - 1]!r} stands at a.jsonl:{first} already"
    )


def test_ids_that_differ_pass(spool: Spool) -> None:
    ids = ["7", "07", "7.0", "\uff17", "a", "A", " a"]

    assert spool.write(source_rows(*ids, ids=ids)).rows == 7


@pytest.mark.parametrize("twice", [0, 5000, 9999])
def test_a_repeated_id_is_found_in_every_slice(tmp_path: Path, twice: int) -> None:
    ids = [str(n) for n in range(10_000)] + [str(twice)]
    check = IdCheck(tmp_path, slice_hashes=1000)
    with InputWriter(tmp_path) as parts:
        parts.write(
            first_index=0,
            row_ids=ids,
            sources=["a.csv"] * len(ids),
            lines=range(2, len(ids) + 2),
            rows=[b"{}"] * len(ids),
        )

    check.add(ids[:-1])
    check.check(parts.files)
    check.add(ids[-1:])

    with pytest.raises(
        InputError, match=f"a.csv:10002: the id '{twice}' stands at a.csv:{twice + 2}"
    ):
        check.check(parts.files)


def test_ids_are_not_compared_where_they_are_only_numbers(tmp_path: Path) -> None:
    with Spool(encode_rows, folder=tmp_path) as spool:
        assert spool.write(source_rows("a", "b", ids=["0", "0"])).rows == 2


def test_the_folder_is_private_and_goes_also_after_an_error(tmp_path: Path) -> None:
    with Spool(encode_rows, folder=tmp_path) as spool:
        spool.write(source_rows("a"))
        (folder,) = tmp_path.iterdir()
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert list(tmp_path.iterdir()) == []

    with pytest.raises(InputError), Spool(encode_rows, has_ids=True, folder=tmp_path) as spool:
        spool.write(source_rows("a", "b", ids=["x", "x"]))
    assert list(tmp_path.iterdir()) == []


def test_an_input_without_rows_is_an_error(spool: Spool) -> None:
    with pytest.raises(InputError, match="no rows to send: the input is empty"):
        spool.write([])


def test_an_input_of_nulls_alone_says_why_no_row_is_left(spool: Spool) -> None:
    records = [Record("a.csv", n, {"text": None}) for n in (2, 3)]
    rows = read_rows(records, Wanted(variables=("text",)), options=SourceOptions(on_null="skip"))

    with pytest.raises(InputError, match=r"all 2 were left out; the first: a\.csv:2: the column"):
        spool.write(rows)


def test_skipped_rows_are_counted(spool: Spool) -> None:
    records = [Record("a.csv", n, {"text": t}) for n, t in ((2, None), (3, "x"))]
    rows = read_rows(records, Wanted(variables=("text",)), options=SourceOptions(on_null="skip"))

    assert spool.write(rows).skipped == 1


def test_characters_are_those_of_the_values_wanted(spool: Spool) -> None:
    spooled = spool.write(source_rows("äöü", [1, 2], 42))

    assert spooled.characters == len("äöü") + len("[1,2]") + len("42")


def test_the_preview_is_the_first_rows_and_stays_small(spool: Spool) -> None:
    big = "x" * 600_000

    spooled = spool.write(source_rows(big, big, *map(str, range(50))))

    assert [r.row.index for r in spooled.preview] == [0, *range(2, 21)]


def test_a_full_disk_is_an_error_that_names_the_remedy(spool: Spool) -> None:
    def full() -> Iterator[SourceRow]:
        yield from source_rows("a")
        raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match=r"No space left on device; .* in TMPDIR"):
        spool.write(full())


def test_a_spool_is_written_inside_its_block_only() -> None:
    with pytest.raises(RuntimeError, match="inside its with block"):
        Spool(encode_rows).write([])


def test_a_part_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.parquet").write_text("no")
    pq.write_table(pa.table({"index": [1]}), tmp_path / "foreign.parquet")

    for name in ("broken.parquet", "foreign.parquet", "gone.parquet"):
        with pytest.raises(InputError, match=f"{name}: row group 0 cannot be read"):
            list(read_input_batch(tmp_path / name, 0))

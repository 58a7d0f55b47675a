"""What each format says, and which line an error names."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flavor.errors import InputError
from producer import lines
from producer.formats import Record, read_records


def write(path: Path, content: str | bytes) -> str:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def values(input_path: str) -> list[dict[str, object]]:
    return [record.values for record in read_records(input_path)]


def numbered(records: list[Record]) -> list[tuple[int, object]]:
    return [(record.line, record.values["text"]) for record in records]


@pytest.mark.parametrize("suffix", [".jsonl", ".ndjson", ".JSONL"])
def test_jsonl_keeps_types_and_skips_blank_lines(tmp_path: Path, suffix: str) -> None:
    path = write(
        tmp_path / f"a{suffix}", '{"text": "x", "n": 7}\r\n\n  \n{"text": ["y"], "f": 1.5}'
    )

    records = list(read_records(path))

    assert [r.values for r in records] == [{"text": "x", "n": 7}, {"text": ["y"], "f": 1.5}]
    assert [r.line for r in records] == [1, 4]
    assert records[0].source == path


def test_jsonl_accepts_what_people_write_beyond_strict_json(tmp_path: Path) -> None:
    """Lone surrogates survive, NaN is null, and no digit of a long integer is lost."""
    lines = [
        '{"text": "\\ud800", "n": NaN, "m": [-Infinity, 1e999]}',
        '{"text": 123456789012345678901234567890, "f": 1e300}',
    ]

    first, second = values(write(tmp_path / "a.jsonl", "\n".join(lines)))

    assert first == {"text": "\ud800", "n": None, "m": [None, None]}
    assert second == {"text": 123456789012345678901234567890, "f": 1e300}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": "x"', "a.jsonl:2: column 13: no JSON object: "),
        (b"nonsense", "a.jsonl:2: column 1: no JSON object: "),
        (b'["x"]', "a.jsonl:2: column 1: this is a list, but each line must be one JSON object"),
        (b'"x"', "this is a text"),
        (b"7", "this is a number"),
        (b"true", "this is a boolean"),
        (b"null", "this is null"),
        (b'{"text": "\xff"}', "a.jsonl:2: byte 11 (0xff) is not UTF-8; convert the file first"),
        (b'{"t":' + b"[" * 200_000, "a.jsonl:2: no JSON object that can be read: it nests too"),
    ],
)
def test_a_broken_jsonl_line_is_named_with_its_number(
    tmp_path: Path, line: bytes, reason: str
) -> None:
    path = write(tmp_path / "a.jsonl", b'{"text": "fine"}\n' + line + b"\n")

    records = read_records(path)

    assert next(records).values == {"text": "fine"}
    with pytest.raises(InputError) as raised:
        next(records)
    assert reason in str(raised.value)
    assert "\n" not in str(raised.value)


def test_csv_values_are_text_as_they_stand(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", '\ufeffid,text,n\r\n007,,1.50\r\n\r\n8,"a ""b"", {c}",NaN\r\n')

    assert values(path) == [
        {"id": "007", "text": "", "n": "1.50"},
        {"id": "8", "text": 'a "b", {c}', "n": "NaN"},
    ]


def test_a_csv_row_bears_the_line_it_starts_on(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", '\nid,text\n1,"one\ntwo\n"\n\n2,next\n')

    assert numbered(list(read_records(path))) == [(3, "one\ntwo\n"), (7, "next")]


def test_tsv_is_csv_with_tabs(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", 'id\ttext\n1\t"a\tb"\n2\tc, d\n')

    assert [v["text"] for v in values(path)] == ["a\tb", "c, d"]


def test_nul_bytes_survive_in_csv_text_and_jsonl(tmp_path: Path) -> None:
    """Python 3.10's csv module refuses them."""
    csv_path = write(tmp_path / "a.csv", "id,text\n1,fine\n2,a\0b\n")
    text_path = write(tmp_path / "a.txt", "a\0b\n")
    jsonl_path = write(tmp_path / "a.jsonl", '{"text": "a\\u0000b"}\n')

    assert [v["text"] for v in values(csv_path)] == ["fine", "a\0b"]
    assert values(text_path) == values(jsonl_path) == [{"text": "a\0b"}]


def test_a_field_of_ten_megabytes_is_read(tmp_path: Path) -> None:
    big = "ä" * 5_000_000

    assert values(write(tmp_path / "a.csv", f'text\n"{big}"\n'))[0]["text"] == big
    assert values(write(tmp_path / "a.jsonl", json.dumps({"text": big})))[0]["text"] == big


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "a.csv:1: the file is empty; its first line must name the columns"),
        (b"\n\n", "a.csv:1: the file is empty"),
        (b"a,b,a\n1,2,3\n", "a.csv:1: columns of the same name: a; rename them"),
        (b"a,b\n1,2\n3\n", "a.csv:3: there are 1 fields, but 2 columns"),
        (b'a,b\n1,"2\n3"\n3,4,5\n', "a.csv:4: there are 3 fields, but 2 columns"),
        (b'a,b\n1,2\n3,"4\n5,6\n', "a.csv:3: no CSV that can be read: a quote that opens in this"),
        (b'a,b\n1,"2"x\n', "a.csv:2: no CSV that can be read: ',' expected after '\"'"),
        (b"a,b\r1,2\r", "a.csv:1: no CSV that can be read: a carriage return outside quotes"),
        (b"a,b\n1,2\n3,caf\xe9\n", "a.csv:3: byte 6 (0xe9) is not UTF-8; convert the file first"),
        ("a,b\n".encode("utf-16"), "a.csv:1: byte 1 (0xff) is not UTF-8; convert"),
    ],
)
def test_a_broken_csv_row_is_named_with_its_line(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    path = write(tmp_path / "a.csv", content)

    with pytest.raises(InputError) as raised:
        list(read_records(path))

    assert reason in str(raised.value)


def test_the_remedy_for_utf16_names_utf16(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="iconv -f UTF-16 -t UTF-8"):
        values(write(tmp_path / "a.txt", "text\n".encode("utf-16")))


def test_a_line_beyond_the_limit_is_an_error_and_is_not_read_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "MAX_ROW_BYTES", 1 << 20)

    with pytest.raises(InputError, match=r"a\.txt:2: the line is longer than 1 MiB"):
        values(write(tmp_path / "a.txt", "short\n" + "x" * (1 << 21)))


def test_every_line_of_a_text_file_is_a_text(tmp_path: Path) -> None:
    """Blank ones too, so that row and line stay aligned; only line feeds end a line."""
    path = write(tmp_path / "a.txt", "\ufeffone {a}\r\n\n two\u2028\x85three \nlast")

    assert numbered(list(read_records(path))) == [
        (1, "one {a}"),
        (2, ""),
        (3, " two\u2028\x85three "),
        (4, "last"),
    ]


def parquet_bytes() -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table({"text": ["a", "b"]}), file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", b'{"text": "a"}\n{"text": "b"}\n'),
        ("a.csv", b"text\na\nb\n"),
        ("a.tsv", b"text\na\nb\n"),
        ("a.txt", b"a\nb\n"),
        ("a.parquet", parquet_bytes()),
    ],
)
def test_every_format_reads_the_same_plain_gzipped_and_from_stdin(
    tmp_path: Path, name: str, content: bytes
) -> None:
    packed = gzip.compress(content)
    input_format = name.removeprefix("a.").replace("txt", "text")
    stdin = io.BytesIO(packed)

    plain = read_records(write(tmp_path / name, content))
    unpacked = read_records(write(tmp_path / f"{name}.gz", packed))
    piped = read_records("-", stdin=stdin, input_format=input_format)

    for records, stored in ((plain, content), (unpacked, packed), (piped, packed)):
        unread = records.input_sha256
        assert [r.values for r in records] == [{"text": "a"}, {"text": "b"}]
        assert (unread, records.input_sha256) == (None, hashlib.sha256(stored).hexdigest())
        assert records.input_bytes == len(stored)
    assert not stdin.closed


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'\n {"text": "a"}\n', [{"text": "a"}]),
        (b"a\nb\n", [{"text": "a"}, {"text": "b"}]),
        (b"", []),
        (parquet_bytes(), [{"text": "a"}, {"text": "b"}]),
    ],
)
def test_stdin_is_looked_into_for_its_format(content: bytes, expected: list[object]) -> None:
    records = list(read_records("-", stdin=io.BytesIO(content)))

    assert [r.values for r in records] == expected
    assert all(r.source == "stdin" for r in records)


def test_stdin_is_the_process_s_own_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\n")))

    assert [r.values for r in read_records("-")] == [{"text": "a"}]


def test_a_given_format_wins_over_the_suffix(tmp_path: Path) -> None:
    path = write(tmp_path / "a.log", '{"text": "a"}\n')

    assert [r.values for r in read_records(path, input_format="jsonl")] == [{"text": "a"}]
    with pytest.raises(InputError, match="unknown input format 'xml'; there are: jsonl, csv"):
        read_records(path, input_format="xml")


@pytest.mark.parametrize("cut", [10, 25])
def test_a_gzip_file_that_was_cut_off_is_an_error(tmp_path: Path, cut: int) -> None:
    path = write(tmp_path / "a.txt.gz", gzip.compress(b"a text\n" * 1000)[:cut])

    with pytest.raises(InputError, match=r"a\.txt\.gz: broken gzip: .*pack the file again"):
        values(path)

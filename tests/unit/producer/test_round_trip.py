"""Any text that a file can say arrives unchanged, in the batch and in the part."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from producer.formats import read_records
from producer.source import Wanted, read_rows
from producer.spool import BatchOptions, Spool
from worker.codec import decode_rows, encode_rows
from worker.inputs import place_of, read_input_batch

QUOTE = '"'

ANY_TEXT = st.text(st.characters(codec="utf-8"))
JSON_VALUES = st.recursive(
    st.booleans()
    | st.integers(-(2**80), 2**80)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),  # lone surrogates too
    lambda inner: (
        st.lists(inner | st.none(), max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
    ),
    max_leaves=5,
)


def spool_and_read(path: Path) -> tuple[list[Any], list[Any]]:
    rows = read_rows(read_records(str(path)), Wanted(variables=("text",)))
    with Spool(encode_rows, options=BatchOptions(batch_size=2, batches_per_file=2)) as spool:
        spooled = spool.write(rows)
        sent, kept = [], []
        for payload in spooled.payloads():
            sent += [row.values["text"] for row in decode_rows(payload.payload)]
            file, row_group = place_of(payload.batch, batches_per_file=2)
            part = spooled.input_files[0].with_name(file)
            kept += [row.values for row in read_input_batch(part, row_group)]
    return sent, kept


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(ANY_TEXT, ANY_TEXT), min_size=1, max_size=8), st.sampled_from("\t,"))
def test_csv_values_survive_exactly(rows: list[tuple[str, str]], delimiter: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.csv" if delimiter == "," else "a.tsv")
        # By hand, as Python 3.10's csv writes no NUL bytes.
        quoted = [[f'"{t.replace(QUOTE, QUOTE * 2)}"' for t in row] for row in rows]
        text = "".join(delimiter.join(row) + "\r\n" for row in [("text", "other"), *quoted])
        path.write_bytes(text.encode())

        sent, kept = spool_and_read(path)

    assert sent == [text for text, _ in rows]
    assert kept == [{"text": text, "other": other} for text, other in rows]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(JSON_VALUES, st.booleans()), min_size=1, max_size=8))
def test_jsonl_values_survive_exactly(rows: list[tuple[Any, bool]]) -> None:
    """Escaped or as UTF-8; a lone surrogate has no other form than its escape."""
    lines = []
    for value, is_escaped in rows:
        try:
            line = json.dumps({"text": value}, ensure_ascii=is_escaped).encode()
        except UnicodeEncodeError:
            line = json.dumps({"text": value}).encode()
        lines.append(line)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.jsonl")
        path.write_bytes(b"\n".join(lines))

        sent, kept = spool_and_read(path)

    assert [v["text"] for v in kept] == [value for value, _ in rows]
    assert len(sent) == len(rows)


@settings(max_examples=60, deadline=None)
@given(st.lists(ANY_TEXT.filter(lambda t: "\n" not in t and not t.endswith("\r")), min_size=1))
def test_lines_of_text_survive_exactly(texts: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.txt")
        path.write_bytes("".join(f"{t}\n" for t in ["first", *texts]).encode())

        sent, _ = spool_and_read(path)

    assert sent == ["first", *texts]

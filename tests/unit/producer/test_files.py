"""Which files an INPUT names, and the SHA-256 of their bytes."""

from __future__ import annotations

import gzip
import hashlib
import os
from pathlib import Path

import pytest

from flavor.errors import InputError
from producer.files import listed
from producer.formats import read_records


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    (root / "b").mkdir(parents=True)
    (root / ".cache").mkdir()
    for name, content in {
        "c.txt": "third\n",
        "a.jsonl": '{"text": "first"}\n',
        "b/x.csv": "text\nsecond\n",
        "_named.txt": "zeroth\n",
        "_SUCCESS": "",
        ".hidden.txt": "no\n",
        ".cache/x.txt": "no\n",
    }.items():
        (root / name).write_text(content)
    return root


def texts(input_path: str) -> list[object]:
    return [record.values["text"] for record in read_records(input_path)]


def test_a_folder_is_read_sorted_each_file_by_its_suffix(folder: Path) -> None:
    assert texts(str(folder)) == ["zeroth", "first", "second", "third"]


def test_a_glob_is_read_sorted_and_takes_folders_whole(folder: Path) -> None:
    assert texts(str(folder / "[abc]*")) == ["first", "second", "third"]
    assert texts(str(folder / "**" / "*.csv")) == ["second"]


def test_a_file_whose_name_looks_like_a_glob_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "a[1].txt").write_text("bracket\n")

    assert texts(str(tmp_path / "a[1].txt")) == ["bracket"]


def test_the_sha256_is_of_all_files_in_order(folder: Path) -> None:
    records = read_records(str(folder))
    content = b"".join(
        (folder / n).read_bytes() for n in ("_named.txt", "a.jsonl", "b/x.csv", "c.txt")
    )

    list(records)

    assert records.input_sha256 == hashlib.sha256(content).hexdigest()
    assert records.input_bytes == len(content)


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_finish_hashes_what_a_limit_left_unread(tmp_path: Path, name: str) -> None:
    content = b"".join(b"%d\n" % n for n in range(500_000))
    stored = gzip.compress(content) if name.endswith(".gz") else content
    (tmp_path / name).write_bytes(stored)
    records = read_records(str(tmp_path / name))

    next(records)
    records.close()
    unread = records.input_sha256
    records.finish()
    records.finish()

    assert unread is None
    assert records.input_sha256 == hashlib.sha256(stored).hexdigest()
    assert records.input_bytes == len(stored)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing.csv", "missing.csv: no such file or folder"),
        ("none*.csv", "no file matches"),
        ("empty", "empty: the folder holds no files"),
        (
            "odd.xlsx",
            "odd.xlsx: the suffix '.xlsx' says no format that can be read; there are: .js",
        ),
        ("bare", "bare: the suffix '' says no format"),
        ("mixed", "notes.md: the suffix '.md' says no format"),
    ],
)
def test_what_cannot_be_read_is_refused_before_the_first_row(
    tmp_path: Path, name: str, reason: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".gitkeep").touch()
    (tmp_path / "odd.xlsx").touch()
    (tmp_path / "bare").touch()
    (tmp_path / "mixed").mkdir()
    (tmp_path / "mixed" / "a.txt").write_text("a\n")
    (tmp_path / "mixed" / "notes.md").touch()

    with pytest.raises(InputError) as raised:
        read_records(str(tmp_path / name))

    assert reason in str(raised.value)


def test_a_link_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.txt").symlink_to(tmp_path / "gone")

    with pytest.raises(InputError, match=r"a\.txt: No such file or directory"):
        texts(str(tmp_path / "data"))


def test_a_file_name_that_is_no_utf8_still_makes_a_source(tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt")
    Path(path).write_text("a\n")

    (record,) = read_records(path)

    assert record.source.endswith("caf\ufffd.txt")


def test_a_pipe_without_a_suffix_is_read_with_a_given_format(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"text\npiped\n")
    os.close(writer)

    records = list(read_records(f"/dev/fd/{reader}", input_format="csv"))
    os.close(reader)

    assert [r.values for r in records] == [{"text": "piped"}]


def test_names_in_an_error_are_bounded_and_printable() -> None:
    text = listed(["a\nb", "x" * 1000, *map(str, range(1000))])

    assert "\n" not in text
    assert len(text) < 200
    assert text.endswith("and 982 more")

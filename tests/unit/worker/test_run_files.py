"""Reading a run's files batch by batch, one input file at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from flavor.errors import InputError
from tests.unit.worker.fakes import FolderRuns
from tests.unit.worker.making import make_spec
from worker.inputs import InputWriter
from worker.jobs import BATCHES_PER_INPUT_FILE
from worker.run_files import InputReader, part_number


class CountingRuns(FolderRuns):
    """Counts what is fetched."""

    fetched = 0

    def fetch(self, job_id: str, path: str, into: Path) -> Path:
        self.fetched += 1
        return super().fetch(job_id, path, into)


@pytest.fixture
def runs(tmp_path: Path) -> CountingRuns:
    """A run whose input takes two files, a row a batch."""
    (tmp_path / "run/input").mkdir(parents=True)
    with InputWriter(tmp_path / "run/input") as writer:
        for index in range(BATCHES_PER_INPUT_FILE + 2):
            writer.write(
                first_index=index,
                row_ids=[f"r{index}"],
                sources=["a.csv"],
                lines=[index + 1],
                rows=[b'{"n": %d}' % index],
            )
    return CountingRuns(tmp_path / "run")


def test_batches_of_one_file_are_read_with_one_fetch(runs: CountingRuns, tmp_path: Path) -> None:
    reader = InputReader(runs.as_runs, make_spec(), tmp_path / "here")

    found = [reader.of_batch(batch) for batch in range(BATCHES_PER_INPUT_FILE)]

    assert found == [{index: {"n": index}} for index in range(BATCHES_PER_INPUT_FILE)]
    assert runs.fetched == 1


def test_one_file_lies_on_disk_at_a_time(runs: CountingRuns, tmp_path: Path) -> None:
    reader = InputReader(runs.as_runs, make_spec(), tmp_path / "here")
    reader.of_batch(0)

    found = reader.of_batch(BATCHES_PER_INPUT_FILE + 1)

    lying = [path.name for path in (tmp_path / "here").rglob("*") if path.is_file()]
    assert found == {65: {"n": 65}}
    assert lying == ["rows-000001.parquet"]


def test_an_input_that_was_not_logged_is_none(runs: CountingRuns, tmp_path: Path) -> None:
    reader = InputReader(runs.as_runs, make_spec(is_input_logged=False), tmp_path)

    assert reader.of_batch(0) is None
    assert runs.fetched == 0


def test_a_batch_beyond_the_input_is_an_input_error(runs: CountingRuns, tmp_path: Path) -> None:
    reader = InputReader(runs.as_runs, make_spec(), tmp_path / "here")

    with pytest.raises(InputError, match="row group 60"):
        list(reader.rows_of(BATCHES_PER_INPUT_FILE + 60))


def test_a_parts_path_names_its_batch() -> None:
    assert part_number("outputs/batch-000012.parquet") == 12
    assert part_number("outputs/batch-1000000.parquet") == 1_000_000

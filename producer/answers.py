"""Answers that are JSON objects (structured output), read as such."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import pyarrow as pa

from flavor.errors import InputError
from flavor.types import Json, Task
from worker.columns import Columns
from worker.inputs import from_json
from worker.jobs import JobSpec, Verdict

COLUMNS = ("row_id", "index", "verdict", "output")
"""What must be read of a part to look at its answers."""

_LISTED = 20


@dataclass(slots=True)
class Answers:
    """What is known of a job's answers: their columns, and the rows whose answer is no object."""

    columns: Columns = field(default_factory=Columns)
    unparsed: int = 0
    unparsed_ids: list[str] = field(default_factory=list)
    """The first of them."""

    def add(self, outcomes: pa.Table) -> None:
        """Learn from one batch."""
        for row in outcomes.to_pylist():
            if row["verdict"] != Verdict.SUCCEEDED:
                continue
            answer, error = read_answer(row["output"])
            if error is None:
                self.columns.add(answer)
                continue
            self.unparsed += 1
            if len(self.unparsed_ids) < _LISTED:
                self.unparsed_ids.append(row["row_id"])


def read_answers(spec: JobSpec, batches: Iterable[tuple[int, pa.Table]]) -> Answers:
    """Go through all of a job's answers once.

    Raises:
        InputError: the model's answers are no texts, or have too many keys to be columns.
    """
    if spec.task is Task.EMBEDDINGS:
        raise InputError("embeddings are no JSON texts: leave --json-columns out")
    answers = Answers()
    for _, outcomes in batches:
        answers.add(outcomes)
    if answers.columns.is_overfull:
        raise InputError("the answers have too many keys to be columns: leave --json-columns out")
    return answers


def read_answer(output: str | None) -> tuple[dict[str, Json], str | None]:
    """An answer's keys and values, or why there are none."""
    if output is None:
        return {}, "no answer"
    try:
        answer = from_json(output)
    except ValueError as error:
        return {}, f"no JSON: {error}"
    if not isinstance(answer, dict):
        return {}, f"no JSON object, but a {type(answer).__name__}"
    return answer, None

"""The project as a library, for notebooks and scripts: ``from producer import submit, results``.

The same jobs as the command line's, from the same environment variables. Every function blocks,
also where an event loop runs already, as it does in a notebook.
"""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar

from anyio.from_thread import start_blocking_portal
from typing_extensions import Unpack

from flavor.errors import InputError
from flavor.types import Json, Task
from producer.frames import to_frame, write_rows
from producer.intake import SubmitOptions
from producer.local import LocalOptions, run_locally
from producer.outcomes import Outcomes, View, open_outcomes
from producer.preparing import prepare
from producer.progress import watch
from producer.reading import read_spec_of, read_status
from producer.services import Services, open_services
from producer.submission import enqueue
from worker.runs import Runs
from worker.settings import read_settings
from worker.status import JobStatus

if TYPE_CHECKING:
    import pandas as pd

_T = TypeVar("_T")


class JobOptions(TypedDict, total=False):
    """What ``submit`` and ``run`` take beside the data: the command line's options, in Python."""

    model: str
    prompt: str
    openai_model: str
    task: Literal["chat.completions", "completions", "embeddings"]
    params: Mapping[str, Json]
    columns: Mapping[str, str]
    id_column: str
    input_name: str
    input_format: str
    limit: int
    on_null: Literal["error", "skip"]
    batch_size: int
    rpm: int
    tpm: int
    priority: int
    max_cost: float
    max_total_tokens: int
    price: str
    experiment: str
    run_name: str
    tags: Mapping[str, str]
    log_input: bool
    trace: float
    pilot_of: str


def submit(
    data: str | Path | pd.DataFrame | Iterable[Mapping[str, Json]],
    *,
    wait: bool = False,
    **options: Unpack[JobOptions],
) -> str:
    """Enqueue a job for the workers on ``REDIS_URL`` and return its id, as ``producer submit``.

    ``data`` is a DataFrame, an iterable of dicts, or a path as the command line takes it. With
    ``wait`` the call returns when the job has ended or paused; ``status`` says which.

    Raises:
        BatchError: something is wrong with the data, the model or a service; nothing was sent.
    """
    with _as_input(data, options) as asked:
        job_id = _with_services(partial(_submit, options=asked))
    if wait:
        wait_for(job_id)
    return job_id


def run(
    data: str | Path | pd.DataFrame | Iterable[Mapping[str, Json]],
    *,
    workers: int = 1,
    concurrency: int | None = None,
    **options: Unpack[JobOptions],
) -> str:
    """Run a job on this machine to its end and return its id, as ``producer run``: with workers of
    its own, and a Redis of its own unless ``REDIS_URL`` is set.

    Raises:
        BatchError: something is wrong with the data, the model or a service.
    """
    local = LocalOptions(workers=workers, concurrency=concurrency)
    with _as_input(data, options) as asked, start_blocking_portal() as portal:
        return portal.call(run_locally, read_settings(), asked, local).status.job_id


def results(
    job_id: str,
    *,
    columns: Sequence[str] = (),
    failed: bool = False,
    json_columns: bool = False,
) -> pd.DataFrame:
    """A job's outcomes beside its input's columns, in the input's order, as a DataFrame.

    The options are those of ``producer results``. Of a running job, the batches done so far.

    Raises:
        InputError: nobody knows the job, or a column is not there.
    """
    view = View(columns=columns, only_failed=failed, has_json_columns=json_columns)
    with _open(job_id, view) as outcomes:
        return to_frame(outcomes)


def iter_results(
    job_id: str,
    *,
    columns: Sequence[str] = (),
    failed: bool = False,
    json_columns: bool = False,
) -> Iterator[dict[str, Json]]:
    """The same as ``results``, row by row in memory that does not grow: for jobs of any size."""
    view = View(columns=columns, only_failed=failed, has_json_columns=json_columns)
    with _open(job_id, view) as outcomes:
        yield from outcomes.rows()


def status(job_id: str) -> JobStatus:
    """How a job stands, as ``producer status``.

    Raises:
        InputError: nobody knows the job.
    """
    return _with_services(partial(read_status, job_id=job_id))


def wait_for(job_id: str) -> JobStatus:
    """Follow a job, with its progress on stderr, until it has ended or paused."""
    return _with_services(lambda services: watch(partial(read_status, services, job_id)))


async def _submit(services: Services, *, options: SubmitOptions) -> str:
    async with prepare(services, options) as prepared:
        return (await enqueue(services, prepared)).job_id


@contextmanager
def _as_input(
    data: str | Path | pd.DataFrame | Iterable[Mapping[str, Json]], options: JobOptions
) -> Iterator[SubmitOptions]:
    """The options of a job over this data, which is a file for the length of the block."""
    values: dict[str, Any] = {"input_name": None, **options}
    values["task"] = _task(options.get("task"))
    if isinstance(data, (str, Path)):
        yield SubmitOptions(input_path=str(data), **values)
        return
    with tempfile.TemporaryDirectory(prefix="submit-") as folder:
        path = Path(folder) / "data.jsonl"
        write_rows(data, path)
        values["input_name"] = values["input_name"] or type(data).__name__
        try:
            yield SubmitOptions(input_path=str(path), **values)
        except InputError as error:  # the file is none that the caller knows
            raise InputError(str(error).replace(f"{path}:", "row ")) from error


def _task(name: str | None) -> Task | None:
    if name is None:
        return None
    known = [task.value for task in Task if task is not Task.PYFUNC]
    if name not in known:
        raise InputError(f"task must be one of {', '.join(known)}: {name!r}")
    return Task(name)


@contextmanager
def _open(job_id: str, view: View) -> Iterator[Outcomes]:
    spec = _with_services(partial(read_spec_of, job_id=job_id))
    with open_outcomes(Runs(read_settings().tracking_uri), spec, view) as outcomes:
        yield outcomes


def _with_services(step: Callable[[Services], Awaitable[_T]]) -> _T:
    """Run a step on an event loop in a thread of its own: this one may have a running loop."""

    async def main() -> _T:
        async with open_services(read_settings()) as services:
            return await step(services)

    with start_blocking_portal() as portal:
        return portal.call(main)

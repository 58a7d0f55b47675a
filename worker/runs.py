"""The door to MLflow's runs: a job's run is created, filled, read and ended through here alone.

Every call blocks (MLflow has no asyncio); workers call it in threads. Nothing here keeps state
between calls but the client, so any number of processes may write to one run: artifacts of
distinct names, ``log_batch``, tags. Metric points logged twice are one point.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LoggedModelInput,
    Metric,
    Param,
    Run,
    RunTag,
)
from mlflow.exceptions import MlflowException

from flavor.errors import InputError, TrackingError
from flavor.redact import redact
from worker.jobs import JobSpec

OUTPUTS = "outputs"
INPUTS = "input"
RESCUED = "rescued"
SPEC_FILE = "job.json"
ROWS_IN_DOUBT = "rows.in_doubt"
"""The metric of ``JobStatus.rows_in_doubt``."""
TAG_STATE = "batch.state"
TAG_REASON = "batch.reason"  # of a pause
TAG_JOB = "batch.job"

_SOCKET_ERROR = re.compile(r"\[Errno -?\d+\] [\w ]+")
"""The reason at the end of five hundred characters about connection pools."""

_ENVIRONMENT = {
    # MLflow's own seven retries take minutes; the caller retries, and says so meanwhile.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


class Runs:
    """MLflow runs by job id (a job's id is its run's id). Thread-safe; every method blocks.

    Raises ``TrackingError`` where MLflow is away, ``InputError`` where it knows nothing of the job.
    """

    def __init__(self, tracking_uri: str | None = None) -> None:
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        # What MLflow says at INFO is about itself; a user of ours did not ask.
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        if tracking_uri is not None:
            mlflow.set_tracking_uri(tracking_uri)
        self.tracking_uri = mlflow.get_tracking_uri()
        with _translated_errors():  # a URI that MLflow cannot use
            self._client = MlflowClient()
        self._roots: dict[str, str] = {}  # where the artifacts of the jobs are that were read

    def select_experiment(self, name: str) -> None:
        """Let models that are logged from here on belong to this experiment, new or not."""
        with _translated_errors():
            mlflow.set_experiment(name)

    def create(self, *, experiment: str, run_name: str, tags: Mapping[str, str]) -> str:
        """Open a run in state RUNNING and return its id. Makes the experiment where it is new."""
        with _translated_errors():
            found = self._client.get_experiment_by_name(experiment)
            experiment_id = (
                found.experiment_id if found else self._client.create_experiment(experiment)
            )
            run = self._client.create_run(
                experiment_id,
                tags={TAG_JOB: "true", **tags},
                run_name=run_name,
            )
        return str(run.info.run_id)

    def describe(
        self,
        job_id: str,
        *,
        params: Mapping[str, object],
        dataset: Dataset | None,
        model_id: str | None,
        prompt_uri: str | None = None,
    ) -> None:
        """Log what the job is: its parameters, its input as a dataset, its model or prompt."""
        inputs = (
            [DatasetInput(dataset, [InputTag(key="mlflow.data.context", value="inference")])]
            if dataset
            else []
        )
        models = [LoggedModelInput(model_id)] if model_id else []
        with _translated_errors():
            self._client.log_batch(
                job_id, params=[Param(name, _param(value)) for name, value in params.items()]
            )
            self._client.log_inputs(job_id, datasets=inputs, models=models)
            if prompt_uri:
                self._client.link_prompt_version_to_run(job_id, prompt_uri)

    def log_file(self, job_id: str, path: Path, folder: str | None = None) -> None:
        """Copy a local file into the run's artifacts. A repeat overwrites it."""
        with _translated_errors():
            self._client.log_artifact(job_id, str(path), folder)

    def log_text(self, job_id: str, name: str, text: str) -> None:
        """Write a text file into the run's artifacts."""
        with _translated_errors():
            self._client.log_text(job_id, text, name)

    def log_metrics(
        self,
        job_id: str,
        values: Mapping[str, float],
        *,
        step: int = 0,
        model_id: str | None = None,
        at_ms: int | None = None,
    ) -> None:
        """Log one point of each metric, linked to the model that was run; by default of now."""
        now_ms = at_ms or time.time_ns() // 1_000_000
        points = [
            Metric(name, value, now_ms, step, model_id=model_id) for name, value in values.items()
        ]
        with _translated_errors():
            self._client.log_batch(job_id, metrics=points)

    def history(
        self, job_id: str, is_wanted: Callable[[str], bool]
    ) -> dict[str, list[tuple[int, float]]]:
        """Every point of the run's metrics of these names: its time in ms, and its value."""
        with _translated_errors():
            names = filter(is_wanted, self._client.get_run(job_id).data.metrics)
            return {
                name: [
                    (int(point.timestamp), float(point.value))
                    for point in self._client.get_metric_history(job_id, name)
                ]
                for name in names
            }

    def set_tags(self, job_id: str, tags: Mapping[str, str]) -> None:
        """Set tags, for people to filter runs by."""
        with _translated_errors():
            self._client.log_batch(
                job_id, tags=[RunTag(name, value) for name, value in tags.items()]
            )

    def end(self, job_id: str, status: str) -> None:
        """End the run: FINISHED, FAILED or KILLED. May be repeated."""
        with _translated_errors():
            self._client.set_terminated(job_id, status)

    def reopen(self, job_id: str) -> None:
        """Set an ended run to RUNNING again: more of its rows will be sent."""
        with _translated_errors():
            self._client.update_run(job_id, status="RUNNING")
            self._client.set_tag(job_id, TAG_STATE, "queued")

    def get(self, job_id: str) -> Run:
        """The run as MLflow has it.

        Raises:
            InputError: MLflow knows no such run.
        """
        with _translated_errors():
            return self._client.get_run(job_id)

    def jobs(self, limit: int = 200) -> list[Run]:
        """The runs that are jobs of ours, newest first."""
        with _translated_errors():
            experiments = [e.experiment_id for e in self._client.search_experiments()]
            return list(
                self._client.search_runs(
                    experiments,
                    filter_string=f"tags.`{TAG_JOB}` = 'true'",
                    max_results=limit,
                    order_by=["attributes.start_time DESC"],
                )
            )

    def files(self, job_id: str, folder: str | None) -> list[str]:
        """Paths of the artifacts in a folder of the run, or at its top, sorted."""
        with _translated_errors():
            files = [f.path for f in self._client.list_artifacts(job_id, folder) if not f.is_dir]
        return sorted(files, key=lambda path: (len(path), path))  # batch 1000000 after 999999

    def fetch(self, job_id: str, path: str, into: Path) -> Path:
        """Bring one artifact to this machine; returns where it lies."""
        with _translated_errors():
            # Not by the run's id, which MLflow looks up with all its models each time: 8 ms of CPU.
            if job_id not in self._roots:
                self._roots[job_id] = str(self._client.get_run(job_id).info.artifact_uri)
            uri = f"{self._roots[job_id]}/{path}"
            return Path(download_artifacts(uri, dst_path=str(into), tracking_uri=self.tracking_uri))

    def spec(self, job_id: str) -> JobSpec:
        """The job's spec as the run keeps it.

        Raises:
            InputError: there is no such run, or it is no job of ours.
        """
        self.get(job_id)
        with tempfile.TemporaryDirectory(prefix="spec-") as folder:
            try:
                text = self.fetch(job_id, SPEC_FILE, Path(folder)).read_text("utf-8")
            except TrackingError as error:
                message = f"run {job_id} is no job of ours: it has no {SPEC_FILE}"
                raise InputError(message) from error
        return JobSpec.from_json(text)

    def url(self, job_id: str) -> str | None:
        """Where the UI shows the run; None where tracking is no server."""
        if not self.tracking_uri.startswith("http"):
            return None
        experiment_id = self.get(job_id).info.experiment_id
        return f"{self.tracking_uri.rstrip('/')}/#/experiments/{experiment_id}/runs/{job_id}"


def prepare_tracking(tracking_uri: str | None) -> str:
    """Make sure that MLflow answers, and create its database where that is new.

    Several processes that create one SQLite database at once crash, so this runs once, before any
    worker starts. Returns the tracking URI in use.

    Raises:
        InputError: MLflow cannot be reached.
    """
    runs = Runs(tracking_uri)
    try:
        runs.jobs(limit=1)
    except TrackingError as error:
        uri = _shown(runs.tracking_uri)
        raise InputError(f"{error} ({uri}); start it or set MLFLOW_TRACKING_URI") from error
    return runs.tracking_uri


@contextmanager
def _translated_errors() -> Iterator[None]:
    try:
        yield
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            raise InputError(f"MLflow: {_first_line(error)}") from error
        if (refused := _SOCKET_ERROR.search(str(error))) is not None:
            raise TrackingError(f"MLflow cannot be reached: {refused.group()}") from error
        raise TrackingError(f"MLflow: {_first_line(error)}") from error
    except OSError as error:  # requests' errors are among them, and a full disk
        raise TrackingError(f"MLflow cannot be reached: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    lines = redact(str(error)).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _param(value: object) -> str:
    # Source of 6000: mlflow 3.17.2, mlflow/utils/validation.py, MAX_PARAM_VAL_LENGTH.
    return str(value)[:6000]


def _shown(uri: str) -> str:
    scheme, _, rest = uri.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"

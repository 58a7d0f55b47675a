"""A sample of the requests stands in MLflow's Traces tab, and only when it was asked for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import Trace

from tests.system import KEY, System, wait_until

pytestmark = pytest.mark.integration


def _submit(system: System, *options: str, texts: Sequence[str]) -> str:
    path = Path(system.folder) / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    done = system.producer(
        "submit", str(path), "--prompt", "Say: {text}", "--openai-model", "gpt-4o-mini",
        "--param", "temperature=0", "--wait", *options,
    )  # fmt: skip
    assert done.returncode in (0, 3), done.stderr
    return done.stdout.strip()


def _traces(system: System, job_id: str) -> list[Trace]:
    mlflow.set_tracking_uri(system.tracking_uri)
    client = mlflow.MlflowClient()
    experiment_id = client.get_run(job_id).info.experiment_id
    return list(client.search_traces(locations=[experiment_id], run_id=job_id, max_results=200))


def test_a_trace_shows_messages_parameters_tokens_run_and_model(system: System) -> None:
    system.start_worker()

    job_id = _submit(system, "--trace", "1", texts=["one", "two", "[[reject]] three"])

    traces = wait_until(lambda: len(found := _traces(system, job_id)) == 3 and found)
    refused = next(trace for trace in traces if trace.info.state == "ERROR")
    answered = next(trace for trace in traces if trace.info.state == "OK")
    (span,) = answered.data.spans
    assert span.span_type == "CHAT_MODEL"
    assert span.inputs["messages"][0]["content"].startswith("Say: ")
    assert span.outputs["choices"][0]["message"]["role"] == "assistant"
    assert span.attributes["temperature"] == 0
    usage = span.outputs["usage"]
    assert answered.info.token_usage == {
        "input_tokens": usage["prompt_tokens"],
        "output_tokens": usage["completion_tokens"],
        "total_tokens": usage["total_tokens"],
    }
    metadata = answered.info.trace_metadata
    assert metadata["mlflow.sourceRun"] == job_id
    model_id = mlflow.MlflowClient().get_run(job_id).data.params["model_id"]
    assert metadata["mlflow.modelId"] == model_id
    assert refused.info.tags["batch.verdict"] == "rejected"
    assert all(KEY not in trace.to_json() for trace in traces)


def test_nothing_is_traced_unless_asked_for(system: System) -> None:
    system.start_worker()

    traced = _submit(system, "--trace", "1", texts=["one"])
    untraced = _submit(system, texts=["one", "two"])

    wait_until(lambda: _traces(system, traced))  # written by the same thread, one after the other
    assert _traces(system, untraced) == []

"""Models of every kind, by every name, through real workers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from mlflow.genai import register_prompt, set_prompt_alias
from mlflow.pyfunc.model import PythonModel

import flavor
from tests.system import System

pytestmark = pytest.mark.integration

TEXTS = [f"text number {number}" for number in range(40)]


class Shouting(PythonModel):
    """A model that is no OpenAI model at all, and fails for one text."""

    # Without annotations: MLflow would take them for the data's schema, and validate by them.
    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN201
        if any("number 13" in text for text in model_input["text"]):
            raise ValueError("thirteen")
        return [text.upper() for text in model_input["text"]]


@pytest.fixture
def texts(system: System) -> Path:
    """Forty rows of one column."""
    path = system.folder / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return path


@pytest.fixture
def registry(system: System, monkeypatch: pytest.MonkeyPatch) -> System:
    """The system, with this process's MLflow pointing at its store."""
    monkeypatch.chdir(system.folder)  # where SQLite's store puts its artifacts
    mlflow.set_tracking_uri(system.tracking_uri)
    mlflow.set_experiment("models")
    return system


def _results(system: System, job_id: str) -> list[dict[str, Any]]:
    done = system.producer("results", job_id)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def _run(system: System, *args: str, status: int = 0) -> str:
    done = system.producer("submit", *args, "--wait")
    assert done.returncode == status, done.stderr
    return done.stdout.strip()


def test_embeddings_are_packed_and_a_bad_text_costs_itself_alone(
    registry: System, texts: Path
) -> None:
    """Forty rows and a refused one share a request; halving finds the one to blame."""
    with texts.open("a") as file:
        file.write(json.dumps({"text": "[[reject]]"}) + "\n")
    flavor.log_model(
        model="text-embedding-3-small",
        task="embeddings",
        name="embed",
        registered_model_name="embed",
        pip_requirements=["openai"],
    )
    registry.start_worker()

    job_id = _run(registry, str(texts), "--model", "models:/embed/1", status=3)

    rows = _results(registry, job_id)
    status = registry.status(job_id)
    assert [row["verdict"] for row in rows] == ["succeeded"] * 40 + ["rejected"]
    assert all(len(row["output"]) == 1536 for row in rows[:40])
    assert status["tokens"]["prompt"] == registry.simulator.stats()["tokens"]["prompt"]
    assert status["requests"]["sent"] < 20


def test_a_registered_model_runs_by_its_alias_with_what_was_logged(
    registry: System, texts: Path
) -> None:
    flavor.log_model(
        model="gpt-4o-mini",
        task="chat.completions",
        name="chat",
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "{text}"},
        ],
        max_tokens=2,
        registered_model_name="chat",
        pip_requirements=["openai"],
    )
    mlflow.MlflowClient().set_registered_model_alias("chat", "champion", "1")
    registry.start_worker()

    job_id = _run(registry, str(texts), "--model", "models:/chat@champion")

    rows = _results(registry, job_id)
    params = mlflow.MlflowClient().get_run(job_id).data.params
    assert [row["text"] for row in rows] == TEXTS
    assert all(row["completion_tokens"] <= 2 for row in rows)
    assert params["model_uri"] == "models:/chat/1"
    assert params["request.max_tokens"] == "2"


def test_a_prompt_of_the_registry_runs_with_its_model_config(registry: System, texts: Path) -> None:
    register_prompt(
        name="shorten",
        template="Shorten: {{ text }}",
        model_config={"model_name": "gpt-4o-mini", "max_tokens": 3},
    )
    set_prompt_alias("shorten", alias="live", version=1)
    registry.start_worker()

    job_id = _run(registry, str(texts), "--model", "prompts:/shorten@live")

    rows = _results(registry, job_id)
    assert len(rows) == 40
    assert all(0 < row["completion_tokens"] <= 3 for row in rows)
    linked = mlflow.MlflowClient().get_run(job_id).data.tags["mlflow.linkedPrompts"]
    assert json.loads(linked) == [{"name": "shorten", "version": "1"}]


def test_any_other_pyfunc_runs_through_its_own_predict_with_usage_unknown(
    registry: System, texts: Path
) -> None:
    mlflow.pyfunc.log_model(
        name="shout",
        python_model=Shouting(),
        registered_model_name="shout",
        pip_requirements=["mlflow"],
        input_example=pd.DataFrame({"text": ["a"]}),
    )
    registry.start_worker()

    job_id = _run(registry, str(texts), "--model", "models:/shout/1", status=3)

    rows = _results(registry, job_id)
    status = registry.status(job_id)
    assert [row["output"] for row in rows if row["verdict"] == "succeeded"] == [
        text.upper() for text in TEXTS if text != "text number 13"
    ]
    assert [row["index"] for row in rows if row["verdict"] == "rejected"] == [13]
    assert {row["total_tokens"] for row in rows} == {None}
    assert status["cost_usd"] is None
    assert registry.simulator.stats()["requests"] == 0

"""What ours logs, MLflow reads; and what it writes is what MLflow's own would write."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import mlflow.openai
import openai
import pandas as pd
import pytest
import yaml
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

import flavor
from flavor.errors import InputError

pytestmark = pytest.mark.integration

MESSAGES = [{"role": "user", "content": "{b} and {a}"}]
CASES: list[tuple[str, dict[str, Any]]] = [
    ("chat.completions", {"messages": MESSAGES, "temperature": 0.2}),
    ("chat.completions", {"messages": [{"role": "user", "content": "Hi {name}"}]}),
    ("chat.completions", {}),
    ("completions", {"prompt": "{a} {b}"}),
    ("completions", {}),
    ("embeddings", {"dimensions": 256}),
]


@pytest.mark.parametrize("name", ["log_model", "save_model", "load_model"])
def test_signatures_are_mlflows(name: str) -> None:
    theirs = inspect.signature(getattr(mlflow.openai, name)).parameters.values()
    ours = inspect.signature(getattr(flavor, name)).parameters.values()

    assert [(p.name, p.kind, p.default) for p in ours] == [
        (p.name, p.kind, p.default) for p in theirs
    ]


@pytest.mark.parametrize(("task", "kwargs"), CASES)
def test_files_are_what_mlflow_would_write(
    tmp_path: Path, save_theirs: Callable[..., str], task: str, kwargs: dict[str, Any]
) -> None:
    path = tmp_path / "ours"
    flavor.save_model("gpt-4o-mini", task, path, pip_requirements=["openai"], **kwargs)
    theirs = Path(save_theirs(task, **kwargs))

    assert {file.name for file in path.iterdir()} == {file.name for file in theirs.iterdir()}
    assert (path / "model.yaml").read_text() == (theirs / "model.yaml").read_text()
    ours_model, theirs_model = Model.load(path), Model.load(theirs)
    assert ours_model.signature == theirs_model.signature
    assert ours_model.flavors["openai"] == theirs_model.flavors["openai"]
    ours_model.flavors["python_function"].pop("streamable")  # False, which is what none means
    assert ours_model.flavors["python_function"] == theirs_model.flavors["python_function"]


# MLflow 3.17.2's own store on SQLAlchemy 2.1.
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")
@pytest.mark.usefixtures("openai_environment")
def test_what_is_logged_is_read_and_run_by_mlflow(tracking: Path, api: Any) -> None:
    with mlflow.start_run():
        info = flavor.log_model(
            "gpt-4o-mini",
            "chat.completions",
            name="m",
            messages=MESSAGES,
            temperature=0.5,
            tags={"team": "a"},
            metadata={"k": "v"},
        )

    data = mlflow.openai.load_model(info.model_uri)
    answers = mlflow.pyfunc.load_model(info.model_uri).predict(pd.DataFrame([{"a": "1", "b": "2"}]))

    assert data == flavor.load_model(info.model_uri)
    assert data["temperature"] == 0.5
    assert "2 and 1" in answers[0]
    assert api.requests[0].body["messages"] == [{"role": "user", "content": "2 and 1"}]
    logged = mlflow.get_logged_model(info.model_id)
    assert logged.tags["team"] == "a"
    assert info.metadata == {"k": "v"}


def test_requirements_are_named_and_extras_added(tmp_path: Path) -> None:
    flavor.save_model("m", "embeddings", tmp_path / "m", extra_pip_requirements=["tiktoken"])

    lines = (tmp_path / "m" / "requirements.txt").read_text().split()

    assert {line.partition("==")[0] for line in lines} == {
        "mlflow",
        "openai",
        "tenacity",
        "tiktoken",
    }
    environment = yaml.safe_load((tmp_path / "m" / "conda.yaml").read_text())
    assert environment["dependencies"][-1]["pip"] == lines


@pytest.mark.parametrize(
    ("task", "name"),
    [
        (openai.resources.chat.Completions, "chat.completions"),
        (openai.resources.AsyncCompletions, "completions"),
        (openai.OpenAI(api_key="k").embeddings, "embeddings"),
        (openai.OpenAI(api_key="k").chat.completions.create, "chat.completions"),
    ],
)
def test_a_task_may_be_the_sdks_object(tmp_path: Path, task: Any, name: str) -> None:
    flavor.save_model("m", task, tmp_path / "m")

    assert flavor.load_model(str(tmp_path / "m")) == {"model": "m", "task": name}


@pytest.mark.parametrize(
    ("kwargs", "reason"),
    [
        ({"task": "audio"}, "'audio' is not one of"),
        ({"task": 3}, "3 is not one of"),
        ({"model": 3}, "must be the name"),
        ({"temprature": 0}, "did you mean 'temperature'"),
        ({"stream": True}, "streaming"),
        ({"messages": [{"role": "user", "content": "{0}"}]}, "no name"),
        ({"messages": ["hi"]}, "'role' and 'content'"),
        ({"messages": "hi"}, "must be a list"),
        ({"task": "completions", "prompt": ["hi"]}, "must be a text"),
        ({"top_p": 0.5}, "both in the signature"),
    ],
)
def test_what_cannot_work_is_refused_before_it_is_saved(
    tmp_path: Path, kwargs: dict[str, Any], reason: str
) -> None:
    signature = ModelSignature(
        inputs=Schema([ColSpec("string")]),
        params=ParamSchema([ParamSpec("top_p", "double", 0.1)]),
    )
    arguments = {"model": "m", "task": "chat.completions", "signature": signature, **kwargs}

    with pytest.raises(InputError, match=reason):
        flavor.save_model(path=tmp_path / "m", **arguments)

    assert not (tmp_path / "m").exists()


@pytest.mark.filterwarnings("ignore:.*Add type hints to the `predict` method:UserWarning")
def test_load_model_refuses_what_is_not_of_the_flavor(tmp_path: Path) -> None:
    source = tmp_path / "source.py"
    source.write_text(
        "import mlflow\n"
        "class Custom(mlflow.pyfunc.PythonModel):\n"
        "    def predict(self, context, model_input, params=None):\n"
        "        return model_input\n"
        "mlflow.models.set_model(Custom())\n"
    )
    mlflow.pyfunc.save_model(str(tmp_path / "m"), python_model=str(source), pip_requirements=["x"])

    with pytest.raises(InputError, match="openai flavor"):
        flavor.load_model(str(tmp_path / "m"))

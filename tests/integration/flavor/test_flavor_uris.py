"""What was logged is found by every form of URI; what cannot be found or used says so at once."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

import flavor
from flavor.errors import InputError, TrackingError
from flavor.model import OpenAIModel, PyfuncModel, load_model, read_spec
from flavor.types import Row, Task

pytestmark = [
    pytest.mark.integration,
    pytest.mark.usefixtures("tracking"),
    # MLflow 3.17.2's own store on SQLAlchemy 2.1.
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
]

MESSAGES = [{"role": "user", "content": "Classify: {text}"}]


@pytest.fixture(scope="module")
def logged(tracking: Path) -> Any:
    """One model, registered as version 1 of ``classify`` with the alias ``champion``."""
    with mlflow.start_run() as run:
        info = flavor.log_model(
            "gpt-4o-mini",
            "chat.completions",
            name="model",
            messages=MESSAGES,
            temperature=0.2,
            registered_model_name="classify",
        )
    client = mlflow.MlflowClient()
    client.set_registered_model_alias("classify", "champion", "1")
    return {"run": run.info.run_id, "id": info.model_id}


@pytest.mark.parametrize(
    ("uri", "resolved", "version"),
    [
        ("models:/classify/1", "models:/classify/1", "1"),
        ("models:/classify@champion", "models:/classify/1", "1"),
        ("models:/classify/latest", "models:/classify/1", "1"),
        ("models:/{id}", "models:/{id}", None),
        ("runs:/{run}/model", "runs:/{run}/model", None),
    ],
)
def test_registered_and_logged_models_are_found_and_pinned(
    logged: dict[str, str], uri: str, resolved: str, version: str | None
) -> None:
    spec = read_spec(uri.format(**logged))

    assert spec.resolved_uri == resolved.format(**logged)
    assert spec.registered_version == version
    assert spec.registered_name == ("classify" if version else None)
    assert spec.model_id == logged["id"]
    assert (spec.task, spec.openai_model) == (Task.CHAT, "gpt-4o-mini")
    assert spec.variables == ("text",)
    assert spec.params == {"temperature": 0.2}


def test_latest_is_the_highest_number() -> None:
    for content in ("one {text}", "two {text}"):
        flavor.log_model(
            "gpt-4o-mini",
            "completions",
            name="m",
            prompt=content,
            registered_model_name="numbered",
        )

    assert read_spec("models:/numbered/latest").template == "two {text}"


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_a_folder_is_found_and_its_path_is_absolute(tmp_path: Path, form: str) -> None:
    flavor.save_model("e-3", "embeddings", tmp_path / "my model", dimensions=8)

    spec = read_spec(form.format(tmp_path / "my model"))

    assert spec.resolved_uri == str(tmp_path / "my model")
    assert (spec.task, spec.variables) == (Task.EMBEDDINGS, ("text",))
    assert spec.params == {"dimensions": 8}


def test_a_relative_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flavor.save_model("e-3", "embeddings", tmp_path / "m")
    monkeypatch.chdir(tmp_path)

    assert read_spec("./m").resolved_uri == str(tmp_path / "m")


@pytest.mark.parametrize(
    "uri",
    [
        "models:/classify/99",
        "models:/classify@nobody",
        "models:/classify/Production",
        "models:/classify",
        "models:/absent/1",
        "models:/absent/latest",
        "models:/m-0123456789",
        "runs:/0123456789/model",
        "prompts:/absent/1",
        "prompts:/absent@champion",
        "/no/such/folder",
        "nonsense://x",
    ],
)
@pytest.mark.usefixtures("logged")
def test_an_unknown_uri_is_one_line_with_a_remedy(uri: str) -> None:
    with pytest.raises(InputError) as caught:
        read_spec(uri)

    assert "\n" not in str(caught.value)
    assert uri in str(caught.value) or "version" in str(caught.value)


def test_a_server_that_does_not_answer_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's own client would try for minutes."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound and not listening: refused, and nobody else's
        port = held.getsockname()[1]
        before = mlflow.get_tracking_uri()
        mlflow.set_tracking_uri(f"http://user:secret@127.0.0.1:{port}")
        started_s = time.monotonic()
        try:
            with pytest.raises(TrackingError, match="MLFLOW_TRACKING_URI") as caught:
                read_spec("models:/classify/1")
        finally:
            mlflow.set_tracking_uri(before)

    assert time.monotonic() - started_s < 6
    assert "secret" not in str(caught.value)


def test_signature_defaults_win_over_logged_and_lose_to_the_jobs(tmp_path: Path) -> None:
    signature = ModelSignature(
        inputs=Schema([ColSpec("string", "review")]),
        params=ParamSchema(
            [ParamSpec("top_p", "double", 0.5), ParamSpec("stop", "string", ["a"], (-1,))]
        ),
    )
    flavor.save_model(
        "gpt-4o-mini", "chat.completions", tmp_path / "m", signature=signature, temperature=1.0
    )

    spec = read_spec(str(tmp_path / "m"))
    model = load_model(spec, {"top_p": 0.9})

    assert spec.params == {"temperature": 1.0, "top_p": 0.5, "stop": ["a"]}
    assert spec.aliases == {"content": ("text", "review")}
    assert isinstance(model, OpenAIModel)
    row = Row(row_id="r", index=0, values={"review": "x"}, params={"temperature": 0})
    body = model.request([row]).body
    assert (body["temperature"], body["top_p"], body["stop"]) == (0, 0.9, ["a"])


def test_a_model_with_an_unknown_parameter_is_refused(
    save_theirs: Callable[..., str],
) -> None:
    path = save_theirs("chat.completions", temprature=0.2)

    with pytest.raises(InputError, match=r"'temprature'.*did you mean 'temperature'"):
        read_spec(path)


def test_a_model_with_a_template_that_cannot_work_is_refused(
    save_theirs: Callable[..., str],
) -> None:
    path = save_theirs("chat.completions", messages=[{"role": "user", "content": "Hi {}"}])

    with pytest.raises(InputError, match="has no name"):
        read_spec(path)


def test_a_task_of_no_text_is_refused(save_theirs: Callable[..., str]) -> None:
    with pytest.raises(InputError, match="'audio' is not one of"):
        read_spec(save_theirs("audio"))


def register_prompt(template: Any, **config: Any) -> str:
    name = f"prompt-{time.time_ns()}"
    response_format = config.pop("response_format", None)
    mlflow.genai.register_prompt(
        name=name, template=template, model_config=config or None, response_format=response_format
    )
    mlflow.genai.set_prompt_alias(name, "champion", 1)
    return name


@pytest.mark.parametrize("form", ["prompts:/{}/1", "prompts:/{}@champion"])
def test_a_registered_prompt_is_a_model(form: str) -> None:
    name = register_prompt(
        "Classify {{ text }} as {json}",
        provider="openai",
        model_name="gpt-4o",
        temperature=0.1,
        stop_sequences=["#"],
        seed=7,
        response_format={"title": "My Label", "type": "object", "properties": {}},
    )

    spec = read_spec(form.format(name))
    model = load_model(spec, {})

    assert spec.resolved_uri == f"prompts:/{name}/1"
    assert isinstance(model, OpenAIModel)
    assert model.request([Row(row_id="r", index=0, values={"text": "{{ x }}"})]).body == {
        "model": "gpt-4o",
        "temperature": 0.1,
        "stop": ["#"],
        "seed": 7,
        "response_format": {
            "type": "json_schema",
            "json_schema": {
                "name": "My_Label",
                "schema": {"title": "My Label", "type": "object", "properties": {}},
            },
        },
        "messages": [{"role": "user", "content": "Classify {{ x }} as {json}"}],
    }


def test_a_chat_prompt_is_filled_message_by_message() -> None:
    name = register_prompt(
        [
            {"role": "system", "content": "You are {{style}}."},
            {"role": "user", "content": "{{question}}"},
        ]
    )

    spec = read_spec(f"prompts:/{name}/1", openai_model="gpt-4o-mini")
    model = load_model(spec, {})

    assert spec.variables == ("question", "style")
    assert isinstance(model, OpenAIModel)
    row = Row(row_id="r", index=0, values={"style": "terse", "question": "{{style}}"})
    assert [m["content"] for m in model.request([row]).body["messages"]] == [
        "You are terse.",
        "{{style}}",
    ]


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({}, "--openai-model"),
        ({"model_name": "claude", "provider": "anthropic"}, "anthropic"),
        ({"model_name": "gpt-4o", "top_k": 3}, "'top_k'"),
    ],
)
def test_a_prompt_that_openai_cannot_answer_is_refused(config: Any, reason: str) -> None:
    name = register_prompt("Hi {{ text }}", **config)

    with pytest.raises(InputError, match=reason):
        read_spec(f"prompts:/{name}/1")


def test_a_jinja_prompt_is_refused_with_its_reason() -> None:
    name = register_prompt("{% if text %}{{ text }}{% endif %}", model_name="gpt-4o")

    with pytest.raises(InputError, match="Jinja2"):
        read_spec(f"prompts:/{name}/1")


# MLflow's advice for who writes a model of code.
ADVICE = pytest.mark.filterwarnings(
    "ignore:.*Add type hints to the `predict` method:UserWarning",
    "ignore:.*An input example was not provided:UserWarning",
)


def save_pyfunc(path: Path, code: str, **kwargs: Any) -> str:
    """A model from code, as MLflow recommends: nothing is pickled."""
    source = path / "source.py"
    source.write_text(f"import mlflow\n\n{code}\nmlflow.models.set_model(Custom())\n")
    mlflow.pyfunc.save_model(
        path=str(path / "pyfunc"), python_model=str(source), pip_requirements=["mlflow"], **kwargs
    )
    return str(path / "pyfunc")


UPPER = """
class Custom(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        mark = (params or {}).get("mark", "")
        if (model_input["text"] == "bad").any():
            raise KeyError("no")
        return [{"up": text.upper() + mark} for text in model_input["text"]]
"""


@ADVICE
def test_any_other_pyfunc_runs_through_its_own_predict(tmp_path: Path) -> None:
    signature = ModelSignature(
        inputs=Schema([ColSpec("string", "text")]),
        params=ParamSchema([ParamSpec("mark", "string", "!")]),
    )
    spec = read_spec(save_pyfunc(tmp_path, UPPER, signature=signature))
    model = load_model(spec, {"mark": "?"})
    rows = [Row(row_id=t, index=0, values={"text": t}) for t in ("a", "b")]

    assert (spec.task, spec.openai_model, spec.variables) == (Task.PYFUNC, None, ("text",))
    assert isinstance(model, PyfuncModel)
    replies = model.predict(rows)
    assert [reply.output for reply in replies] == ['{"up": "A?"}', '{"up": "B?"}']
    assert [reply.usage for reply in replies] == [None, None]
    with pytest.raises(InputError, match=r"unknown parameter 'marx'.*did you mean 'mark'"):
        load_model(spec, {"marx": "?"})


@ADVICE
def test_a_pyfuncs_own_error_is_its_rows_fault(tmp_path: Path) -> None:
    model = load_model(read_spec(save_pyfunc(tmp_path, UPPER)), {})
    assert isinstance(model, PyfuncModel)

    with pytest.raises(flavor.errors.RowError, match="KeyError"):
        model.predict([Row(row_id="r", index=0, values={"text": "bad"})])

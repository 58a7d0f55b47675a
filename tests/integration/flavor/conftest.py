"""A tiny API that records what it is sent, an environment of its own, and an MLflow store."""

from __future__ import annotations

import base64
import importlib
import json
import struct
import threading
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import mlflow
import pytest

from flavor.client import Client

with warnings.catch_warnings():
    # MLflow 3.17.2 warns of a type hint of its own (types/responses.py) when it is imported.
    warnings.filterwarnings("ignore", ".*Any type hint is inferred as AnyType", UserWarning)
    importlib.import_module("mlflow.pyfunc")

# Variables of the machine that would lead a test's client elsewhere.
FOREIGN = (
    "OPENAI_API_KEY",
    "OPENAI_API_BASE",
    "OPENAI_BASE_URL",
    "OPENAI_API_TYPE",
    "OPENAI_API_VERSION",
    "OPENAI_DEPLOYMENT_NAME",
    "OPENAI_ORG_ID",
    "OPENAI_ORGANIZATION",
    "OPENAI_PROJECT_ID",
    "AZURE_OPENAI_API_KEY",
    "AZURE_OPENAI_AD_TOKEN",
    "AZURE_OPENAI_ENDPOINT",
    "HTTP_PROXY",
    "http_proxy",
    "ALL_PROXY",
    "all_proxy",
)


@dataclass
class Recorded:
    """One request as it arrived."""

    path: str
    query: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass
class Scripted:
    """What to answer in place of the right answer; ``cut`` says more bytes than it sends."""

    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False


class RecordingApi:
    """Answers by the rules of the three tasks, unless its script has something else next."""

    def __init__(self) -> None:
        self.requests: list[Recorded] = []
        self.script: list[Scripted] = []
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["content-length"]))
                parts = urlsplit(self.path)
                headers = {key.lower(): value for key, value in self.headers.items()}
                recorded = Recorded(parts.path, parts.query, headers, json.loads(raw))
                api.requests.append(recorded)
                api.answer(self, recorded)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
                """Say nothing: pytest's output is for failures."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/v1"

    def next(
        self, status: int = 200, body: Any = None, *, cut: bool = False, **headers: str
    ) -> None:
        """Answer the next request like this. Header names have ``_`` for ``-``."""
        raw = (
            body
            if isinstance(body, bytes)
            else json.dumps(body if body is not None else {}).encode()
        )
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.script.append(Scripted(status, raw, named, cut))

    def answer(self, handler: BaseHTTPRequestHandler, recorded: Recorded) -> None:
        step = self.script.pop(0) if self.script else Scripted(body=right_answer(recorded))
        handler.send_response(step.status)
        handler.send_header("content-type", "application/json")
        handler.send_header("x-request-id", f"req-{len(self.requests)}")
        handler.send_header("content-length", str(len(step.body) + (10 if step.cut else 0)))
        for name, value in step.headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(step.body)
        if step.cut:
            handler.close_connection = True

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def right_answer(recorded: Recorded) -> bytes:
    """What OpenAI would say, with the input for an answer."""
    body = recorded.body
    if recorded.path.endswith("/embeddings"):
        data = [embedding(i, len(text), body) for i, text in enumerate(body["input"])]
        return dumps(object="list", data=data, model=body["model"], usage=usage(len(data)))
    if recorded.path.endswith("/chat/completions"):
        message = {"role": "assistant", "content": json.dumps(body["messages"])}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        return dumps(id="c", object="chat.completion", choices=choices, model="m-1", usage=usage(1))
    prompts = body["prompt"]
    texts = [{"index": i, "text": p, "finish_reason": "stop"} for i, p in enumerate(prompts)]
    return dumps(
        id="c", object="text_completion", choices=texts, model="m-1", usage=usage(len(texts))
    )


def embedding(index: int, length: int, body: dict[str, Any]) -> dict[str, Any]:
    vector: Any = [float(index), float(length), 0.5]
    if body.get("encoding_format") == "base64":
        vector = base64.b64encode(struct.pack("<3f", *vector)).decode()
    return {"object": "embedding", "index": index, "embedding": vector}


def usage(rows: int) -> dict[str, int]:
    return {"prompt_tokens": 7 * rows, "completion_tokens": 2 * rows, "total_tokens": 9 * rows}


def dumps(**fields: Any) -> bytes:
    return json.dumps({"created": 1, **fields}).encode()


@pytest.fixture
def api() -> Iterator[RecordingApi]:
    api = RecordingApi()
    yield api
    api.close()


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the machine's own account reaches a test."""
    for name in FOREIGN:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def openai_environment(api: RecordingApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """The API for ours and for MLflow's client, by the variables that both read."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-0123456789")
    monkeypatch.setenv("OPENAI_API_BASE", api.url)


@pytest.fixture
async def client(openai_environment: None) -> AsyncIterator[Client]:
    client = Client.from_environment(concurrency=8, timeout_s=10)
    yield client
    await client.close()


@pytest.fixture(scope="session")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store of the tests' own. One for all of them: making its tables takes seconds."""
    folder = tmp_path_factory.mktemp("mlflow")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    mlflow.create_experiment("flavor", artifact_location=(folder / "artifacts").as_uri())
    mlflow.set_experiment("flavor")
    yield folder
    mlflow.set_tracking_uri(before)


@pytest.fixture
def save_theirs(tmp_path: Path) -> Callable[..., str]:
    """Saves a model with MLflow's own flavor and returns its folder."""

    def save(task: str, model: str = "gpt-4o-mini", **kwargs: Any) -> str:
        path = tmp_path / f"model-{len(list(tmp_path.iterdir()))}"
        # It is deprecated, and it is what must be matched for as long as there are models of it.
        with pytest.warns(FutureWarning, match="deprecated"):
            mlflow.openai.save_model(
                model=model, task=task, path=str(path), pip_requirements=["openai"], **kwargs
            )
        return str(path)

    return save

"""A simulated API without sockets, on a clock that moves when told."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson
import pytest

from producer.simulator.api import SimulatedApi
from producer.simulator.protocol import Response
from producer.simulator.settings import SimulatorSettings
from producer.simulator.wire import RequestReader


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.s = 1_000_000.0

    def __call__(self) -> float:
        return self.s


@dataclass
class Asked:
    """A response, read."""

    response: Response

    @property
    def status(self) -> int:
        return self.response.status

    @property
    def body(self) -> Any:
        return orjson.loads(self.response.body)

    @property
    def error(self) -> dict[str, Any]:
        error = self.body["error"]
        assert isinstance(error, dict)
        return error

    @property
    def headers(self) -> dict[str, str]:
        lines = self.response.headers.splitlines()
        return dict(line.split(": ", 1) for line in lines)

    @property
    def text(self) -> str:
        return str(self.body["choices"][0]["message"]["content"])


class Desk:
    """Asks one simulation, as a client would."""

    def __init__(self, settings: SimulatorSettings, *, clock: Clock) -> None:
        self.api = SimulatedApi(settings, now_s=clock)

    def ask(
        self, path: str, body: object = None, *, method: str = "POST", key: str | None = "sk-test"
    ) -> Asked:
        raw = body if isinstance(body, bytes) else b"" if body is None else orjson.dumps(body)
        authorization = f"authorization: Bearer {key}\r\n" if key else ""
        head = f"{method} {path} HTTP/1.1\r\nhost: x\r\n{authorization}"
        reader = RequestReader()
        reader.feed(f"{head}content-length: {len(raw)}\r\n\r\n".encode() + raw)
        request = reader.next_request()
        assert request is not None
        response = self.api.handle(request)
        if response.is_counted:
            self.api.finished(response, is_delivered=True)
        return Asked(response)

    def get(self, path: str, *, key: str | None = "sk-test") -> Asked:
        return self.ask(path, method="GET", key=key)

    def chat(self, text: str, *, key: str | None = "sk-test", **options: Any) -> Asked:
        body = {
            "model": "gpt-4o-mini",
            "messages": [{"role": "user", "content": text}],
            **options,
        }
        return self.ask("/v1/chat/completions", body, key=key)

    def embed(self, texts: Any, **options: Any) -> Asked:
        body = {"model": "text-embedding-3-small", "input": texts, **options}
        return self.ask("/v1/embeddings", body)

    def stats(self, query: str = "") -> Any:
        return self.get(f"/stats{query}").body


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make_desk(clock: Clock) -> Callable[..., Desk]:
    def make(**options: Any) -> Desk:
        return Desk(SimulatorSettings.model_validate(options), clock=clock)

    return make


@pytest.fixture
def desk(make_desk: Callable[..., Desk]) -> Desk:
    return make_desk()

"""Celery's messages: ids alone, as JSON, in one queue."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from kombu.exceptions import OperationalError
from redis import exceptions

from flavor.errors import StoreError
from tests.unit.worker.processes import messages
from worker.broker import FIRST, NORMAL, QUEUE, make_app, publish, queue_length


def _raw_message(app: Any) -> dict[str, Any]:
    with app.connection_for_read() as connection, connection.channel() as channel:
        found: dict[str, Any] = channel._get(QUEUE)
    return found


def test_a_message_is_published_per_batch() -> None:
    app = make_app("memory://")
    messages(app)

    publish(app, "job1", name="reviews", batches=["0", "7", "final"])

    assert queue_length(app) == 3
    assert messages(app) == [("job1", "0"), ("job1", "7"), ("job1", "final")]
    assert queue_length(app) == 0


def test_a_message_carries_ids_and_nothing_else() -> None:
    app = make_app("memory://")
    messages(app)

    publish(app, "job1", name="reviews", batches=["3"])

    message = _raw_message(app)
    args, kwargs, _ = json.loads(base64.b64decode(message["body"]))
    assert message["content-type"] == "application/json"
    assert (args, kwargs) == (["job1", "3"], {})
    assert message["headers"]["argsrepr"] == "('reviews', batch 3)"
    assert message["headers"]["kwargsrepr"] == "{}"


@pytest.mark.parametrize(("options", "priority"), [({}, NORMAL), ({"priority": FIRST}, FIRST)])
def test_what_is_published_again_goes_before_what_is_new(
    options: dict[str, int], priority: int
) -> None:
    app = make_app("memory://")
    messages(app)

    publish(app, "job1", name="reviews", batches=["3"], **options)

    assert _raw_message(app)["properties"]["priority"] == priority
    assert FIRST < NORMAL  # Redis serves the lowest first


def test_what_could_execute_is_not_accepted() -> None:
    assert make_app("memory://").conf.accept_content == ["json"]


def test_messages_are_acknowledged_after_their_batch() -> None:
    conf = make_app("memory://", open_batches=7).conf

    assert conf.task_acks_late
    assert conf.task_reject_on_worker_lost
    assert (conf.worker_concurrency, conf.worker_prefetch_multiplier) == (7, 1)


class AwayBroker:
    """Kombu's connection to a Redis that is away: redis-py's own errors come through it."""

    connection_errors = (exceptions.ConnectionError, exceptions.TimeoutError)
    channel_errors = (exceptions.ResponseError,)

    def __init__(self, error: Exception) -> None:
        self.error = error

    def connection_for_read(self) -> AwayBroker:
        return self

    def __enter__(self) -> AwayBroker:
        return self

    def __exit__(self, *_: object) -> None: ...

    def channel(self) -> None:
        raise self.error


@pytest.mark.parametrize(
    "error",
    [
        exceptions.ConnectionError("refused"),
        exceptions.TimeoutError("slow"),
        exceptions.ResponseError("WRONGTYPE"),
        OperationalError("lost"),
        OSError("reset"),
    ],
)
def test_a_queue_that_cannot_be_read_is_a_store_error(error: Exception) -> None:
    """Redis' own error used to come through, and would have ended the worker's event loop."""
    with pytest.raises(StoreError, match="cannot be reached"):
        queue_length(AwayBroker(error))


def test_messages_that_are_not_taken_are_a_store_error() -> None:
    app = make_app("redis://127.0.0.1:1/0")
    app.conf.broker_transport_options = {"max_retries": 1, "interval_start": 0, "interval_step": 0}
    app.conf.task_publish_retry = False

    with pytest.raises(StoreError, match="does not take messages"):
        publish(app, "job1", name="reviews", batches=["0"])

"""What counts as a Celery message, and what is logged and dropped."""

from __future__ import annotations

import base64
import logging
from typing import Any

import kombu
import pytest
from kombu.transport import TRANSPORT_ALIASES, redis
from redis.exceptions import OutOfMemoryError

from worker import transport


def message(**changes: object) -> dict[str, Any]:
    body = base64.b64encode(b'[["job", "0"], {}, {}]').decode()
    made: dict[str, Any] = {
        "body": body,
        "headers": {"task": "run_batch"},
        "properties": {
            "delivery_tag": "a-tag",
            "body_encoding": "base64",
            "delivery_info": {"exchange": "", "routing_key": "batches"},
        },
    }
    return made | changes


def test_a_message_as_celery_publishes_it_is_one() -> None:
    assert transport.is_message(message())


@pytest.mark.parametrize(
    "value",
    [
        None,
        7,
        "text",
        [],
        {},
        message(body=None),
        message(body="not base64!"),
        message(headers=None),
        message(properties=[]),
        message(properties={"delivery_tag": 3}),
        message(properties={"delivery_tag": "a", "delivery_info": "x"}),
        message(properties={"delivery_tag": "a", "body_encoding": "zip"}),
    ],
)
def test_what_has_another_shape_is_refused_and_logged(
    value: object, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivered: list[object] = []
    monkeypatch.setattr(redis.Transport, "_deliver", lambda _, value, __: delivered.append(value))
    carrier = object.__new__(transport.Transport)
    with caplog.at_level(logging.ERROR):
        carrier._deliver(value, "batches")
    assert delivered == []
    assert [record.__dict__["event"] for record in caplog.records] == ["message_refused"]


def test_a_full_redis_is_an_outage_not_the_end_of_the_worker() -> None:
    assert OutOfMemoryError in transport.Transport.connection_errors


def test_both_kinds_of_redis_url_lead_here() -> None:
    transport.register()
    assert TRANSPORT_ALIASES["redis"] == TRANSPORT_ALIASES["rediss"] == "worker.transport:Transport"


def test_a_channel_that_outlives_its_transport_is_closed_all_the_same(redis_server: str) -> None:
    """Redis was restarted with messages unacknowledged: the AttributeError ended the worker."""
    transport.register()
    untyped: Any = kombu
    with untyped.Connection(redis_server) as connection:
        channel = connection.default_channel
        queue = untyped.Queue("outlived", channel=channel)
        queue.declare()
        for _ in range(2):
            connection.Producer().publish({}, routing_key="outlived")
        message, another = queue.get(), queue.get()
        assert message is not None
        assert another is not None

        channel.connection.client = None
        channel.close()
        message.ack()  # its batch is done meanwhile
        another.reject()

        assert channel.closed
        assert channel.connection is None

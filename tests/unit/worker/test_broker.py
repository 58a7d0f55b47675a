"""Celery's messages: ids alone, as JSON, in one queue."""

from __future__ import annotations

import base64
import json
import ssl
from typing import Any

import pytest
from kombu.exceptions import OperationalError
from redis import exceptions

from flavor.errors import StoreError
from tests.unit.worker.processes import messages
from worker.broker import QUEUE, described, make_app, publish, queue_length
from worker.jobs import FIRST, NORMAL


def _raw_message(app: Any) -> dict[str, Any]:
    with app.connection_for_read() as connection, connection.channel() as channel:
        found: dict[str, Any] = channel._get(QUEUE)
    return found


def test_a_message_is_published_per_batch() -> None:
    app = make_app("memory://")
    messages(app)

    publish(app, "job1", name="reviews", batches={"0": 200, "7": None, "final": None})

    assert queue_length(app) == 3
    assert messages(app) == [("job1", "0"), ("job1", "7"), ("job1", "final")]
    assert queue_length(app) == 0


def test_a_message_carries_ids_and_nothing_else() -> None:
    app = make_app("memory://")
    messages(app)

    publish(app, "job1", name="reviews", batches={"3": 200})

    message = _raw_message(app)
    args, kwargs, _ = json.loads(base64.b64decode(message["body"]))
    assert message["content-type"] == "application/json"
    assert (args, kwargs) == (["job1", "3"], {})
    assert message["headers"]["argsrepr"] == "('reviews', batch 3, 200 rows)"
    assert message["headers"]["kwargsrepr"] == "{}"


@pytest.mark.parametrize(("options", "priority"), [({}, NORMAL), ({"priority": FIRST}, FIRST)])
def test_what_is_published_again_goes_before_what_is_new(
    options: dict[str, int], priority: int
) -> None:
    app = make_app("memory://")
    messages(app)

    publish(app, "job1", name="reviews", batches={"3": 200}, **options)

    assert _raw_message(app)["properties"]["priority"] == priority
    assert FIRST < NORMAL  # Redis serves the lowest first


def test_a_batch_is_described_for_people_by_job_number_and_rows() -> None:
    assert described("reviews", "3", 200) == "reviews, batch 3, 200 rows"
    assert described("reviews", "3", None) == "reviews, batch 3"
    assert described("reviews", "final", 700) == "reviews, final, 700 rows"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", {"ssl_cert_reqs": ssl.CERT_REQUIRED}),
        (
            "?ssl_ca_certs=/etc/ca.pem",
            {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_ca_certs": "/etc/ca.pem"},
        ),
        ("?ssl_cert_reqs=none", {"ssl_cert_reqs": ssl.CERT_NONE}),
    ],
)
def test_a_certificate_is_checked_unless_the_url_says_otherwise(
    query: str, expected: dict[str, Any]
) -> None:
    """Kombu alone trusts any server with ``rediss://``, and would give it the password."""
    app = make_app(f"rediss://:pw@redis.internal:6379/0{query}")

    assert app.conf.broker_use_ssl == expected  # what Flower's own connection goes by
    used = app.connection_for_write().ssl
    assert {"ssl_cert_reqs": ssl.CERT_REQUIRED, **used} == expected  # redis-py's own default


def test_without_tls_nothing_is_said_of_it() -> None:
    assert not make_app("redis://127.0.0.1:6379/0").connection_for_write().ssl


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
        publish(app, "job1", name="reviews", batches={"0": 1})

"""Celery's way to Redis, for queues that others can write to and servers that can be full.

Kombu's own ends the worker process over a message that is none, over ``maxmemory``, and at times
over a connection that is lost. Here the first is logged and dropped (the ledger knows the batches;
a message is only a hint), the others are outages: the worker reconnects until Redis takes writes.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Mapping
from queue import Empty
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, redis
from redis.exceptions import OutOfMemoryError

log = logging.getLogger(__name__)


def register() -> None:
    """Let ``redis://`` and ``rediss://`` mean this transport, in this process."""
    TRANSPORT_ALIASES.update(dict.fromkeys(("redis", "rediss"), f"{__name__}:Transport"))


class QoS(redis.QoS):
    """Kombu's, but for a channel whose transport is gone: there is no way to Redis from it.

    What it would acknowledge or put back comes again one day, and is refused: the ledger knows.
    """

    def restore_unacked(self, client: Any = None) -> None:  # noqa: ANN401
        """Put back what was not acknowledged."""
        if self._is_cut_off:
            self._delivered.clear()
        else:
            super().restore_unacked(client)  # type: ignore[no-untyped-call] # kombu has no types

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge one message."""
        if not self._is_cut_off:
            super().ack(delivery_tag)  # type: ignore[no-untyped-call] # kombu has no types

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Refuse one message, or put it back."""
        if not self._is_cut_off:
            super().reject(delivery_tag, requeue)  # type: ignore[no-untyped-call] # kombu has no types

    @property
    def _is_cut_off(self) -> bool:
        connection = self.channel.connection
        return connection is None or connection.client is None


class Channel(redis.Channel):
    """Kombu's, but for values that are no JSON."""

    QoS = QoS

    def _brpop_read(self, **options: Any) -> Any:  # noqa: ANN401
        try:
            return super()._brpop_read(**options)  # type: ignore[no-untyped-call] # kombu has no types
        except (ValueError, RecursionError) as error:
            _refuse(type(error).__name__)
            raise Empty from None  # as if nothing had come


class Transport(redis.Transport):
    """Kombu's, but for JSON that is no message, and for a Redis that is full."""

    Channel = Channel
    connection_errors = (*redis.Transport.connection_errors, OutOfMemoryError)

    def _deliver(self, message: object, queue: str) -> None:
        if is_message(message):
            super()._deliver(message, queue)  # type: ignore[no-untyped-call] # kombu has no types
        else:
            _refuse("wrong shape")


def is_message(value: object) -> bool:
    """Whether a value has the shape of a Celery message, as far as kombu relies on it."""
    if not isinstance(value, Mapping):
        return False
    properties, headers = value.get("properties"), value.get("headers")
    return (
        isinstance(properties, Mapping)
        and isinstance(properties.get("delivery_tag"), str)
        and isinstance(properties.get("delivery_info", {}), Mapping)
        and properties.get("body_encoding", "base64") == "base64"
        and isinstance(headers, Mapping)
        and isinstance(value.get("body"), str)
        and _is_base64(value["body"])
    )


def _is_base64(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except ValueError:
        return False
    return True


def _refuse(reason: str) -> None:
    log.error("message refused", extra={"event": "message_refused", "reason": reason})

"""What a command talks to: Redis, MLflow, Celery, as the environment names them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from celery import Celery
from redis.asyncio import Redis

from worker.broker import make_app
from worker.redis_client import connect, ping
from worker.settings import Settings
from worker.store import Store

if TYPE_CHECKING:
    from worker.runs import Runs


@dataclass
class Services:
    """Connections of one command, made when first used. Belongs to one event loop."""

    settings: Settings
    redis: Redis

    @property
    def redis_url(self) -> str:
        """With its password: not for showing."""
        return self.settings.redis_url.get_secret_value()

    @cached_property
    def store(self) -> Store:
        """The jobs in Redis."""
        return Store(self.redis)

    @cached_property
    def runs(self) -> Runs:
        """The jobs in MLflow."""
        from worker.runs import Runs  # MLflow costs seconds, which a look into Redis need not pay

        return Runs(self.settings.tracking_uri)

    @cached_property
    def app(self) -> Celery:
        """The messages to workers."""
        return make_app(self.redis_url)

    async def check_redis(self) -> None:
        """Make sure that Redis answers. Raises ``InputError`` with the remedy."""
        await ping(self.redis, self.redis_url)


@asynccontextmanager
async def open_services(settings: Settings) -> AsyncIterator[Services]:
    """The services of one command, closed with its block."""
    redis = connect(settings.redis_url.get_secret_value())
    services = Services(settings=settings, redis=redis)
    try:
        yield services
    finally:
        if "app" in services.__dict__:
            services.app.close()
        await redis.aclose()

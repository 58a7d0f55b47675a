"""fakeredis with the one command of ours that it lacks."""

from __future__ import annotations

from typing import Any

from fakeredis import FakeAsyncRedis, FakeServer


class FakeRedis(FakeAsyncRedis):
    """A server of its own, which no other client sees; its run id never changes."""

    def __init__(self) -> None:
        super().__init__(server=FakeServer())

    async def info(self, *_: Any, **__: Any) -> dict[str, str]:
        """What ``INFO server`` says, as far as anybody here asks."""
        return {"run_id": "fake"}

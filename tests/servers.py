"""Servers that a test can hurt: a Redis that comes back, MLflow's, and a wire that is cut."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import ssl
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import redis as redis_py

from producer.embedded import REDIS_SETTINGS, _find_server, _free_port
from tests.system import wait_until


@dataclass
class RedisServer:
    """A Redis on a port of its own that keeps its append-only file from one life to the next."""

    folder: Path
    settings: tuple[str, ...] = ()
    password: str = ""
    port: int = field(default_factory=_free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        user = f":{self.password}@" if self.password else ""
        return f"redis://{user}127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start, or start again on what the file holds; returns when it answers."""
        self.folder.mkdir(exist_ok=True)
        with (self.folder / "redis.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    str(_find_server()), "--bind", "127.0.0.1", "--port", str(self.port),
                    "--dir", str(self.folder), "--requirepass", self.password,
                    *_arguments(REDIS_SETTINGS), *self.settings,
                ],
                stdout=log, stderr=log,
            )  # fmt: skip
        wait_until(self._answers)

    def kill(self) -> None:
        """End it as a crash does."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def _answers(self) -> bool:
        try:
            with redis_py.Redis.from_url(self.url) as client:
                return bool(client.ping())
        except redis_py.exceptions.RedisError:  # not up yet, or reading its file
            return False


def _arguments(settings: Sequence[str]) -> list[str]:
    """Lines of a ``redis.conf`` as arguments of the server."""
    return [word for line in settings for word in shlex.split(f"--{line}")]


@dataclass
class MlflowServer:
    """``mlflow server`` on SQLite, with artifacts through the server."""

    folder: Path
    database: Path
    port: int = field(default_factory=_free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, environment: dict[str, str]) -> None:
        """Start, or start again; returns when it answers."""
        self.folder.mkdir(exist_ok=True)
        with (self.folder / "mlflow.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1",
                    "--port", str(self.port), "--workers", "1",
                    "--backend-store-uri", f"sqlite:///{self.database}",
                    "--artifacts-destination", str(self.folder / "artifacts"),
                ],
                cwd=self.folder, stdout=log, stderr=log, start_new_session=True,
                env={**environment, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            )  # fmt: skip
        wait_until(self._answers, timeout_s=60)

    def kill(self) -> None:
        """End all its processes as a crash does."""
        assert self.process is not None
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=1) as response:
                return bool(response.status == 200)
        except OSError:
            return False


class Wire:
    """A TCP proxy in front of a port, with a cut that nobody is told of: no reset, no answer.

    With ``tls`` it takes TLS alone, as stunnel does in front of a server without.
    """

    def __init__(self, to_port: int, *, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.port = _free_port()
        self._to_port = to_port
        self._loop = asyncio.new_event_loop()
        self._whole = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(10)

    def cut(self) -> None:
        """From now on nothing gets through, either way; connections stay open and silent."""
        self._loop.call_soon_threadsafe(self._whole.clear)

    def mend(self) -> None:
        """What waited goes on."""
        self._loop.call_soon_threadsafe(self._whole.set)

    def close(self) -> None:
        """End the proxy and its connections."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _open(self) -> None:
        self._whole.set()
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self.port, ssl=self._tls
        )

    async def _close(self) -> None:
        self._server.close()
        tasks = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._whole.wait()
        there, back = await asyncio.open_connection("127.0.0.1", self._to_port)
        try:
            await asyncio.gather(self._pump(reader, back), self._pump(there, writer))
        finally:
            writer.close()
            back.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await self._whole.wait()
                writer.write(data)
                await writer.drain()
        with suppress(OSError):
            writer.close()

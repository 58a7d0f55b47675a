"""The memory of processes over time, and a command's CPU and peak memory."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import redis as redis_py

from tests.bench.figures import memory_mb_of

REDIS_DATA = "Redis, used_memory"


@dataclass
class Course:
    """Memory in MB by name: each process's resident memory, and what Redis counts as used."""

    began_s: float = field(default_factory=time.monotonic)
    points: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def note(self, name: str, mb: float) -> None:
        """Add a point of now."""
        self.points.setdefault(name, []).append((time.monotonic() - self.began_s, mb))

    def peak_mb(self, name: str) -> float:
        """The most that was seen."""
        return max((mb for _, mb in self.points.get(name, ())), default=0.0)

    def mb_at(self, name: str, second: float) -> float:
        """The last value seen up to then."""
        return [mb for at, mb in self.points[name] if at <= second or at == 0][-1]


@contextmanager
def watched(
    pids: dict[str, int], redis_url: str | None = None, *, every_s: float = 0.5
) -> Iterator[Course]:
    """Watch processes for the length of the block; ``pids`` may grow meanwhile."""
    course, ended = Course(), threading.Event()
    client = redis_py.Redis.from_url(redis_url) if redis_url else None

    def look() -> None:
        while not ended.wait(every_s):
            for name, pid in list(pids.items()):
                with suppress(OSError):  # it has ended
                    course.note(name, memory_mb_of(pid))
            if client is not None:
                course.note(REDIS_DATA, int(client.info("memory")["used_memory"]) / 1e6)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield course
    finally:
        ended.set()
        thread.join()
        if client is not None:
            client.close()


@dataclass
class Ran:
    """A command that has ended: what it printed and what it took."""

    said: str
    seconds: float
    cpu_s: float
    peak_mb: float


def run_command(
    command: Sequence[str],
    *,
    cwd: Path,
    environment: dict[str, str],
    pids: dict[str, int] | None = None,
    name: str = "",
) -> Ran:
    """Run a command to its end; ``pids`` are told of it under ``name`` while it runs."""
    began_s = time.monotonic()
    with (cwd / "command.log").open("ab") as log:
        process = subprocess.Popen(
            command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
        )
    if pids is not None:
        pids[name] = process.pid
    assert process.stdout is not None
    with process.stdout:
        said = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, (cwd / "command.log").read_text(errors="replace")[-2000:]
    return Ran(
        said=said.strip(),
        seconds=time.monotonic() - began_s,
        cpu_s=used.ru_utime + used.ru_stime,
        peak_mb=used.ru_maxrss / 1024,
    )

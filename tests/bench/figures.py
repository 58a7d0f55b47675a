"""What is measured of a run, of a process and of a machine."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass
class Figures:
    """One run of one client. ``shares`` says what of ``cpu_s`` which process used."""

    rows: int
    seconds: float
    cpu_s: float
    peak_mb: float
    shares: dict[str, float] = field(default_factory=dict)

    @property
    def cpu_ms(self) -> float:
        """CPU per row, in milliseconds."""
        return self.cpu_s / self.rows * 1000

    @property
    def rows_per_s(self) -> float:
        """Rows per second, start-up left out."""
        return self.rows / self.seconds


def spread(values: list[float], digits: int) -> str:
    """Median, and least and most where there are several."""
    middle = f"{median(values):,.{digits}f}"
    if len(values) == 1:
        return middle
    return f"{middle} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def cpu_s_of(pid: int) -> float:
    """CPU that a process has used so far, with its ended threads and children.

    A child of Redis rewrites its append-only file.
    """
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) * _TICK_S


def memory_mb_of(pid: int, what: str = "VmRSS") -> float:
    """Memory of a process: ``VmRSS`` now, ``VmHWM`` at most so far."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1]) / 1024
    return 0.0


def machine() -> str:
    """Processor, cores, Python."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}"


def versions() -> str:
    """The packages that the figures depend on most."""
    names = ("aiohttp", "celery", "mlflow-skinny", "openai", "redis", "uvloop")
    return ", ".join(f"{name} {version(name)}" for name in names)

"""What every client of the ladder is told and tells: its command line, its rows, its figures.

Imports nothing but the standard library: it runs in the peers' virtual environments, too.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SYSTEM = "Classify the sentiment of the product review as positive, negative or neutral."
OPENAI_MODEL = "gpt-4o-mini"
KEY = "sk-bench-0123456789abcdef"


@dataclass
class Job:
    """What to send: ``warm_up`` rows first, which are not measured, then the others."""

    base_url: str
    texts: list[str]
    warm_up: list[str]
    concurrency: int


def messages(text: str) -> list[dict[str, str]]:
    """A row's chat, the same for every client."""
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]


def run(work: Callable[[Job], Callable[[list[str]], list[str | None]]]) -> None:
    """Read the command line, let ``work`` set up, send, and print what that took as JSON.

    ``work`` returns what sends texts and returns the answers. Set-up and warm-up are left out.
    """
    base_url, path, rows, concurrency = sys.argv[1:5]
    texts = [json.loads(line)["text"] for line in Path(path).read_text().splitlines()]
    wanted = int(rows)
    job = Job(base_url, texts[:wanted], texts[-200:], int(concurrency))
    send = work(job)
    send(job.warm_up)
    cpu_s, started_s = _cpu_s(), time.perf_counter()
    answers = send(job.texts)
    figures: dict[str, Any] = {
        "seconds": time.perf_counter() - started_s,
        "cpu_s": _cpu_s() - cpu_s,
        "rows": sum(answer is not None for answer in answers),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(figures))


def _cpu_s() -> float:
    used = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)

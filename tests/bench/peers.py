"""The peers of the ladder: what each is, and a virtual environment of its own for each.

The environments are made under ``build/bench`` by the first run that needs them, from the pinned
versions in ``requirements/``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.bench.figures import Figures

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
VENVS = ROOT / "build" / "bench"


@dataclass(frozen=True)
class Peer:
    """One client: its module in ``clients/``, its pins in ``requirements/``."""

    name: str
    module: str
    requirements: str
    arguments: tuple[str, ...] = ()
    most_rows: int | None = None  # of a slow one, so that the ladder ends


RAW = Peer("hand-written protocol", "raw", "clients.txt")
PEERS = (
    Peer("plain aiohttp", "plain_aiohttp", "clients.txt"),
    Peer("lm-deluge", "deluge", "lm-deluge.txt"),
    Peer("AsyncOpenAI on aiohttp", "openai_sdk", "clients.txt", ("aiohttp",), 5000),
    Peer("AsyncOpenAI on httpx2", "openai_sdk", "clients.txt", ("httpx2",), 2000),
    Peer("curator", "curator", "curator.txt", most_rows=2000),
    Peer("MLflow's pyfunc", "pyfunc", "mlflow.txt", most_rows=1000),
    Peer("LiteLLM", "litellm_sdk", "litellm.txt", most_rows=1000),
)


def python_of(peer: Peer) -> Path:
    """The peer's interpreter; its environment is made where there is none of these pins."""
    pins = HERE / "requirements" / peer.requirements
    venv = VENVS / pins.stem
    done = venv / "pins.txt"
    if not done.exists() or done.read_text() != pins.read_text():
        print(f"setting up {venv}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], check=True)
        subprocess.run(
            [
                str(venv / "bin/python"), "-m", "pip", "install", "--quiet",
                "--disable-pip-version-check", "--no-deps", "-r", str(pins),
            ],
            check=True, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        done.write_text(pins.read_text())
    return venv / "bin/python"


def run_peer(
    peer: Peer, base_url: str, path: Path, *, rows: int, concurrency: int, python: Path
) -> Figures:
    """One run of a peer in a process of its own."""
    done = subprocess.run(
        [
            str(python), "-m", f"tests.bench.clients.{peer.module}",
            base_url, str(path), str(rows), str(concurrency), *peer.arguments,
        ],
        cwd=ROOT, check=False, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{peer.name}: {done.stderr[-2000:]}")
    return Figures(**json.loads(done.stdout.splitlines()[-1]))

"""The ladder's short form runs everywhere and says its ratios; how large they are fails nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.mark.ladder
def test_the_short_ladder_measures_ours_beside_its_peers(figure: Callable[[str], None]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", "--short"],
        cwd=Path(__file__).parents[2],
        check=False, capture_output=True, text=True, timeout=100,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    table = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    names = {line.split(" | ")[0].removeprefix("| ") for line in table[2:]}
    assert names == {"batch-inference-worker", "plain aiohttp", "AsyncOpenAI on aiohttp"}
    for line in table:
        figure(line)

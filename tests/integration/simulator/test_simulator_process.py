"""``python -m producer.simulator`` as a shell sees it."""

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]

pytestmark = pytest.mark.integration


async def launch(*options: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "producer.simulator",
        *options,
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_says_where_it_is_and_ends_well_when_told(
    number: signal.Signals, open_wire: Any
) -> None:
    process = await launch("--latency", "0.01", "--models", "a,b", "--reset-before")
    assert process.stdout is not None
    assert process.stderr is not None

    ready = json.loads(await asyncio.wait_for(process.stdout.readline(), 20))
    note = await process.stderr.readline()
    async with open_wire(ready["base_url"]) as wire:
        wire.send(b"GET /config HTTP/1.1\r\nhost: x\r\n\r\n")
        _, config = await wire.response()
    process.send_signal(number)
    rest, errors = await asyncio.wait_for(process.communicate(), 10)

    assert ready["pid"] == process.pid
    assert b"SIMULATION" in note
    assert (config["latency_s"], config["models"], config["reset_is_paid"]) == (
        0.01,
        ["a", "b"],
        False,
    )
    assert (process.returncode, rest, errors) == (0, b"", b"")


async def test_a_port_that_is_taken_is_one_line_and_status_1() -> None:
    taken = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = taken.sockets[0].getsockname()[1]

    process = await launch("--port", str(port))
    output, errors = await asyncio.wait_for(process.communicate(), 20)
    taken.close()
    await taken.wait_closed()

    assert (process.returncode, output) == (1, b"")
    assert errors.startswith(b"Error: cannot listen on")
    assert len(errors.splitlines()) == 1


async def test_it_runs_where_uvloop_is_not_installed() -> None:
    code = (
        "import sys; sys.modules['uvloop'] = None;"
        "from producer.simulator.command import simulate; simulate(['--port', '0'])"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    ready = json.loads(await asyncio.wait_for(process.stdout.readline(), 20))
    process.terminate()

    assert await asyncio.wait_for(process.wait(), 10) == 0
    assert ready["pid"] == process.pid


async def test_it_needs_neither_mlflow_nor_celery_nor_redis() -> None:
    """Nor the rest of the project: a rehearsal's server starts fast."""
    code = (
        "import sys, producer.simulator.command;"
        "heavy = {'mlflow', 'celery', 'redis', 'openai', 'worker', 'flavor'} & set(sys.modules);"
        "ours = {m for m in sys.modules if m.startswith('producer.')} ;"
        "print(sorted(heavy), all(m.startswith('producer.simulator') for m in ours))"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await asyncio.wait_for(process.communicate(), 20)

    assert output == b"[] True\n"

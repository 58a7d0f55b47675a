"""Redis dies, is cut off, wiped, full, or holds rubbish: workers keep what they have and go on."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest

from tests.faults.jobs import PROMPT, assert_all_succeeded, submit, wait_for_end
from tests.servers import RedisServer, Wire
from tests.system import System, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.faults]

ROWS = 500
SETTINGS = {"BATCH_CONCURRENCY": "16", "BATCH_LEASE_S": "3"}
OPTIONS = ("--batch-size", "25")


def _has_paid(system: System, rows: int) -> bool:
    return bool(system.simulator.stats()["accepted"] >= rows)


def _start(system: System, url: str, rows: Path, *, workers: int = 2) -> str:
    """Two workers in the middle of a job on that Redis."""
    system.environment["REDIS_URL"] = url
    system.simulator.configure(latency_s=0.4)
    for _ in range(workers):
        system.start_worker(**SETTINGS)
    job_id = submit(system, rows, *OPTIONS)
    wait_until(partial(_has_paid, system, ROWS // 4), 60)
    return job_id


def test_redis_killed_and_restarted_on_its_file_costs_nothing(
    system: System, own_redis: RedisServer, write_rows: Callable[[int], Path]
) -> None:
    job_id = _start(system, own_redis.url, write_rows(ROWS))

    own_redis.kill()
    time.sleep(2)
    sent = system.simulator.stats()["requests"]
    time.sleep(2)
    assert system.simulator.stats()["requests"] == sent  # nothing is sent that cannot be kept
    own_redis.start()
    wait_for_end(system, job_id)

    assert_all_succeeded(system, job_id, ROWS)
    assert system.simulator.stats()["rows_paid_twice"] == 0


@pytest.mark.parametrize("away_s", [6, pytest.param(20, marks=[pytest.mark.soak])])
def test_a_wire_cut_for_longer_than_a_lease_costs_nothing(
    system: System,
    own_redis: RedisServer,
    wire: Wire,
    write_rows: Callable[[int], Path],
    away_s: float,
) -> None:
    job_id = _start(system, f"redis://127.0.0.1:{wire.port}/0", write_rows(ROWS))

    wire.cut()
    time.sleep(away_s)
    wire.mend()
    wait_for_end(system, job_id)

    assert_all_succeeded(system, job_id, ROWS)
    assert system.simulator.stats()["rows_paid_twice"] == 0


def test_a_worker_that_alone_is_cut_off_stops_sending_and_others_take_over(
    system: System,
    own_redis: RedisServer,
    wire: Wire,
    write_rows: Callable[[int], Path],
    figure: Callable[[str], None],
) -> None:
    url = f"redis://127.0.0.1:{wire.port}/0"
    job_id = _start(system, url, write_rows(ROWS), workers=1)
    system.environment["REDIS_URL"] = own_redis.url
    system.start_worker(**SETTINGS)
    wait_until(lambda: "ready" in system.worker_log(1), 60)

    in_flight = system.simulator.stats()["in_flight"]
    wire.cut()
    wait_for_end(system, job_id)
    twice = system.simulator.stats()["rows_paid_twice"]
    wire.mend()

    found = assert_all_succeeded(system, job_id, ROWS)
    figure(
        f"{twice} rows paid twice of about {in_flight} in flight at the cut; verify: at most "
        f"{found['rows_in_doubt']}"
    )
    assert twice <= found["rows_in_doubt"]
    # What was in flight, what came back unwritten, and what went out until the cut was noticed.
    assert twice <= 4 * 16


def test_with_redis_wiped_resume_sends_only_what_has_no_answer(
    system: System, own_redis: RedisServer, write_rows: Callable[[int], Path]
) -> None:
    job_id = _start(system, own_redis.url, write_rows(ROWS))

    system.redis().flushall()
    wait_until(lambda: system.simulator.stats()["in_flight"] == 0)
    time.sleep(2)  # for the last answers to be rescued into the run
    assert system.status(job_id)["state"] == "paused"
    resumed = system.producer("resume", job_id, "--wait")

    assert resumed.returncode == 0, resumed.stderr
    assert_all_succeeded(system, job_id, ROWS)
    assert system.simulator.stats()["rows_paid_twice"] == 0


def test_a_full_redis_refuses_the_job_whole_and_says_so(
    system: System, own_redis: RedisServer, write_rows: Callable[[int], Path]
) -> None:
    system.environment["REDIS_URL"] = own_redis.url
    client = system.redis()
    client.config_set("maxmemory", client.info("memory")["used_memory"] + 500_000)

    refused = system.producer("submit", str(write_rows(100_000)), *PROMPT)

    assert refused.returncode == 1
    assert refused.stdout == ""
    assert "full" in refused.stderr
    assert len(refused.stderr.strip().splitlines()[-1]) < 200
    client.config_set("maxmemory", 0)
    assert not any(client.scan_iter("job*"))


def test_workers_wait_while_redis_is_full(
    system: System, own_redis: RedisServer, write_rows: Callable[[int], Path]
) -> None:
    job_id = _start(system, own_redis.url, write_rows(ROWS))
    client = system.redis()

    client.config_set("maxmemory", "1mb")
    time.sleep(5)
    assert all(worker.poll() is None for worker in system.workers)
    client.config_set("maxmemory", 0)
    wait_for_end(system, job_id)

    assert_all_succeeded(system, job_id, ROWS)
    assert system.simulator.stats()["rows_paid_twice"] == 0


def _message(body: bytes, *, kind: str = "application/json", task: str = "run_batch") -> bytes:
    """A message that Celery delivers, whatever it says."""
    properties = {
        "delivery_tag": str(uuid4()),
        "body_encoding": "base64",
        "delivery_info": {"exchange": "", "routing_key": "batches"},
    }
    message = {
        "body": base64.b64encode(body).decode(),
        "content-type": kind,
        "content-encoding": "utf-8",
        "headers": {"task": task, "id": str(uuid4())},
        "properties": properties,
    }
    return json.dumps(message).encode()


def test_rubbish_in_the_queue_is_refused_logged_and_never_executed(
    system: System, own_redis: RedisServer, write_rows: Callable[[int], Path]
) -> None:
    marker = system.folder / "executed"
    pickled = f"cposix\nsystem\n(S'touch {marker}'\ntR.".encode()
    client = system.redis()
    rubbish: list[bytes] = [
        b"\xff\xfe no text", b"", b"null", b"[]", b"{}", b'{"body": 1}', b"[" * 100_000, pickled,
        _message(b"\x80\x03}.", kind="application/x-python-serialize"),
        _message(b"[[1, 2], {}, {}]"),
        _message(b"[]", task="os.system"),
    ]  # fmt: skip
    client.rpush("batches", *rubbish)
    worker = system.start_worker(**SETTINGS)
    job_id = submit(system, write_rows(50), *OPTIONS)
    wait_for_end(system, job_id)

    wait_until(lambda: client.llen("batches") == 0)
    assert worker.poll() is None
    assert system.worker_log().count("message_refused") >= 8
    assert not marker.exists()
    assert_all_succeeded(system, job_id, 50)


def test_a_value_of_the_wrong_shape_pauses_its_job_and_says_what_to_do(
    system: System, write_rows: Callable[[int], Path]
) -> None:
    job_id = submit(system, write_rows(50), *OPTIONS)
    system.redis().set(f"job:{{{job_id}}}:rows:1", b"\x80\x04rubbish")
    worker = system.start_worker(**SETTINGS)
    wait_for_end(system, job_id, expected=4)

    assert worker.poll() is None
    assert "batch 1" in system.status(job_id)["reason"]
    assert system.producer("cancel", job_id).returncode == 0

"""No secret leaves its place: the key and the passwords are looked for in all that was written."""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import redis as redis_py
import trustme

from tests.flower import Flower
from tests.servers import RedisServer, Wire
from tests.system import KEY, System, wait_until

pytestmark = pytest.mark.faults

_PROMPT = ("--prompt", "Say: {text}", "--openai-model", "gpt-4o-mini")
PASSWORD = "redis-password-0123456789"


@pytest.fixture
def guarded(system: System, tmp_path: Path) -> Iterator[System]:
    """The system on a Redis of its own, with a password, its append-only file and snapshots."""
    server = RedisServer(tmp_path / "redis", password=PASSWORD)
    server.start()
    system.environment["REDIS_URL"] = server.url
    yield system
    system.close()
    server.kill()


@pytest.fixture
def flower(guarded: System) -> Iterator[Flower]:
    made = Flower(guarded)
    yield made
    made.close()


def test_a_key_that_the_api_shows_is_nowhere_in_what_we_write(
    guarded: System, flower: Flower, tmp_path: Path
) -> None:
    """Error bodies, codes, addresses and request ids carry it; so do the attempts' log lines."""
    rows = guarded.folder / "rows.jsonl"
    texts = ["fine", "[[leak]] this", "[[leak_error]] that", "also fine"]
    rows.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    guarded.start_worker(BATCH_MAX_ATTEMPTS="2", BATCH_LOG_FORMAT="json")

    done = guarded.producer(
        "submit", str(rows), *_PROMPT, "--wait",
        without=("OPENAI_API_KEY", "OPENAI_BASE_URL"),
    )  # fmt: skip

    assert done.returncode == 3, done.stderr
    job_id = done.stdout.strip()
    failed = guarded.producer("results", job_id, "--failed")
    assert [json.loads(line)["error_status"] for line in failed.stdout.splitlines()] == [400, 500]
    assert failed.stdout.count("[redacted]") >= 4  # it was there, and was taken out
    wait_until(lambda: len(flower.results()) == 2)
    said = [
        done.stdout + done.stderr + failed.stdout + failed.stderr,
        guarded.producer("status", job_id, "--json").stdout,
        *map(flower.text, ("/api/tasks", "/tasks", "/workers", "/broker", "/metrics")),
        flower.text("/api/workers?refresh=1"),
    ]
    stored = _redis_dump(guarded.environment["REDIS_URL"])
    assert f"job:{{{job_id}}}".encode() in stored  # the dump is one, and not empty
    written = b"\n".join([stored, *(text.encode() for text in said), *_files(tmp_path)])
    for secret in (*_forms(KEY), *_forms(PASSWORD)):
        assert secret not in written, _around(written, secret)


def test_a_job_runs_over_tls_with_a_password_and_an_unknown_server_is_not_trusted(
    system: System, tmp_path: Path
) -> None:
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    trusted = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(trusted))
    server = RedisServer(tmp_path / "redis", password=PASSWORD)
    server.start()
    wire = Wire(server.port, tls=tls)
    url = f"rediss://:{PASSWORD}@127.0.0.1:{wire.port}/0"
    system.environment["REDIS_URL"] = f"{url}?ssl_ca_certs={trusted}"
    rows = system.folder / "rows.txt"
    rows.write_text("".join(f"row {number}\n" for number in range(40)))
    try:
        system.start_worker()
        done = system.producer("submit", str(rows), *_PROMPT, "--batch-size", "10", "--wait")
        distrustful = system.producer("submit", str(rows), *_PROMPT, REDIS_URL=url)
        system.close()
    finally:
        wire.close()
        server.kill()

    assert done.returncode == 0, done.stderr
    assert system.simulator.stats()["accepted"] == 40
    assert distrustful.returncode == 1
    assert "certificate verify failed" in distrustful.stderr.lower()
    assert PASSWORD not in done.stderr + distrustful.stderr + system.worker_log()


def test_a_job_that_a_bad_key_pauses_says_so_without_the_key(guarded: System) -> None:
    guarded.simulator.configure(keys=["another"])
    guarded.start_worker()
    rows = guarded.folder / "rows.txt"
    rows.write_text("one\ntwo\n")
    job_id = guarded.producer("submit", str(rows), *_PROMPT).stdout.strip()

    watched = guarded.producer("watch", job_id)

    assert watched.returncode == 4
    status = guarded.status(job_id)
    assert status["state"] == "paused"
    assert "API key" in status["reason"]
    for text in (json.dumps(status), watched.stdout, watched.stderr, guarded.worker_log()):
        assert KEY not in text
        assert KEY[:8] not in text  # not in part, either


def _redis_dump(url: str) -> bytes:
    """Every key with its value, uncompressed; and a snapshot on disk, for ``_files``."""
    client: Any = redis_py.Redis.from_url(url)
    readers = {
        b"string": client.get,
        b"hash": client.hgetall,
        b"list": lambda key: client.lrange(key, 0, -1),
        b"set": client.smembers,
        b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
    }
    client.save()
    values = {key: readers[client.type(key)](key) for key in client.scan_iter("*")}
    return repr(values).encode()


def _files(folder: Path) -> Iterator[bytes]:
    """All that lies on disk: MLflow's database and artifacts, logs, Redis' own files."""
    kinds = set()
    for path in folder.rglob("*"):
        if path.is_file():
            kinds.add(path.suffix)
            yield path.read_bytes()
        if path.suffix == ".parquet":  # compressed
            yield repr(pq.read_table(path).to_pylist()).encode()
    assert {".db", ".parquet", ".jsonl", ".log", ".aof", ".rdb"} <= kinds


def _forms(secret: str) -> set[bytes]:
    """The secret as it is, and in base64 at each of the places where that can begin."""
    raw = secret.encode()
    coded = (base64.b64encode(b"x" * at + raw)[4:-4] for at in range(3))
    return {raw, *coded}


def _around(written: bytes, secret: bytes) -> bytes:
    at = written.find(secret)
    return written[max(0, at - 200) : at + 100]

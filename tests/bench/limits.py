"""``python -m tests.bench.limits``: how well the account's limits are kept, and how fully used.

Against the simulated API, which enforces its limits with a bucket of one second's burst. Every
figure is the API's own count, from 5 s after its first answer on.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import redis as redis_py

from tests import fork_server
from tests.bench.clients.job import KEY
from tests.bench.figures import cpu_s_of, machine, versions
from tests.bench.ours import Bench, bench
from tests.bench.rows import write_rows
from tests.system import Simulator, simulated_api, wait_until
from worker.jobs import Limits
from worker.limiter import Limiter
from worker.redis_client import connect
from worker.stop import Stop

START_S = 5.0
RPM, TPM = 6000, 1_000_000
LATENCY = ("--latency", "0.2", "--latency-spread", "0.3")


@dataclass(frozen=True)
class Counted:
    """What the API counted over some seconds."""

    seconds: float
    accepted: int
    tokens: int
    throttled: int

    def per_min(self, what: str) -> float:
        """``accepted`` or ``tokens`` in a minute."""
        return float(getattr(self, what)) / self.seconds * 60


def main() -> None:
    """Measure and print."""
    options = _options()
    print(f"{machine()}; {versions()}")
    try:
        for name in options.only or SCENARIOS:
            print(f"\n{SCENARIOS[name].__doc__}\n", flush=True)
            for line in SCENARIOS[name](options):
                print(line, flush=True)
    finally:
        fork_server.stop()


def requests_per_minute(options: argparse.Namespace) -> Iterator[str]:
    """RPM-bound: 6,000 requests a minute, learned from the headers."""
    yield "| workers | accepted a minute | of the limit | 429s |\n| --- | --- | --- | --- |"
    for workers in options.workers:
        with _running(workers, "--rpm", str(RPM), rows=_enough(options)) as (api, _):
            found = _count(api, options.seconds)
        share = found.per_min("accepted") / RPM
        yield f"| {workers} | {found.per_min('accepted'):,.0f} | {share:.1%} | {found.throttled} |"


def tokens_per_minute(options: argparse.Namespace) -> Iterator[str]:
    """TPM-bound: 1,000,000 tokens a minute, rows of 20 to 2,000 tokens, from the headers."""
    yield "| workers | tokens a minute | of the limit | 429s |\n| --- | --- | --- | --- |"
    for workers in options.workers:
        with _running(
            workers, "--tpm", str(TPM), "--charges-usage", rows=_enough(options), has_lengths=True
        ) as (api, _):
            found = _count(api, options.seconds)
        share = found.per_min("tokens") / TPM
        yield f"| {workers} | {found.per_min('tokens'):,.0f} | {share:.1%} | {found.throttled} |"


def changed_limits(options: argparse.Namespace) -> Iterator[str]:
    """The limit halved, then doubled, by the server's headers, with 2 workers."""
    yield "| limit | followed after | accepted in s 5 to 20 | 429s |\n| --- | --- | --- | --- |"
    with _running(2, "--rpm", str(RPM), rows=_enough(options)) as (api, _):
        _count(api, 5)
        for rpm in (RPM // 2, RPM):
            before = api.stats()
            api.configure(rpm=rpm)
            changed_s = time.time()
            time.sleep(21)
            after = api.stats()
            followed_s = _followed(after["accepted_per_s"], changed_s, rpm / 60)
            settled = _rate(after["accepted_per_s"], changed_s + 5, changed_s + 20)
            refused = after["throttled"] - before["throttled"]
            yield f"| {rpm:,} | {followed_s} s | {settled * 60 / rpm:.1%} | {refused} |"


def foreign_client(options: argparse.Namespace) -> Iterator[str]:
    """Somebody else takes 30 % of 6,000 requests a minute with the same key; 2 workers."""
    yield "| ours a minute | foreign | together | 429s |\n| --- | --- | --- | --- |"
    with _running(2, "--rpm", str(RPM), rows=_enough(options)) as (api, _):
        with _foreign(api, per_s=RPM / 60 * 0.3) as foreign:
            _count(api, 10)
            began, began_s = foreign["accepted"], time.monotonic()
            found = _count(api, options.seconds)
            theirs = (foreign["accepted"] - began) / (time.monotonic() - began_s) * 60
        refused = found.throttled / max(1, found.accepted + found.throttled)
        ours = found.per_min("accepted") - theirs
        together = found.per_min("accepted") / RPM
        refusals = f"{found.throttled} ({refused:.2%})"
        yield f"| {ours:,.0f} | {theirs:,.0f} | {together:.1%} | {refusals} |"


def two_jobs(options: argparse.Namespace) -> Iterator[str]:
    """A job of 100 rows after one of 10,000 on the same limit of 3,000 a minute, 2 workers."""
    with _running(2, "--rpm", "1500", rows=0) as (api, made):
        alone_s = _small_job(made)
        api.configure(rpm=3000)
        made.submit(_rows(made, 10_000), "--batch-size", "100")
        wait_until(lambda: api.stats()["accepted"] > 400, 60)
        beside_s = _small_job(made)
    yield "| alone at half the limit | beside the large one | ratio |\n| --- | --- | --- |"
    yield f"| {alone_s:.1f} s | {beside_s:.1f} s | {beside_s / alone_s:.2f} |"


def cap(options: argparse.Namespace) -> Iterator[str]:
    """A cap of 1,000,000 tokens and no other limit."""
    total = 1_000_000
    workers = max(options.workers)
    with _running(workers, rows=0, settings={"BATCH_CONCURRENCY": "64"}) as (api, made):
        api.configure(limit_headers=False)
        before = api.stats()["tokens"]["total"]
        job_id, _ = made.submit(
            _rows(made, 60_000), "--max-total-tokens", str(total), "--batch-size", "200"
        )
        with made.system.redis() as client:
            key = f"job:{{{job_id}}}"
            wait_until(lambda: client.hget(key, "state") == b"paused", 300)
        time.sleep(3)
        stats = api.stats()
    spent = stats["tokens"]["total"] - before
    per_request = stats["tokens"]["total"] / stats["accepted"]
    yield "| workers | cap | spent | overshoot | tokens of the requests in flight, at most |"
    yield "| --- | --- | --- | --- | --- |"
    in_flight = stats["max_in_flight"] * per_request
    yield f"| {workers} | {total:,} | {spent:,} | {spent - total:,} | {in_flight:,.0f} |"


def limiter_cost(options: argparse.Namespace) -> Iterator[str]:
    """What the limiter itself costs: 1 worker, 50 ms latency, a limit never met and one met."""
    yield "| limits | CPU per row, worker, ms | the limiter's Redis calls per row | rows/s |"
    yield "| --- | --- | --- | --- |"
    wide = ("--rpm", "100000000", "--tpm", "100000000000")
    slow = ("--rpm", str(200 * 60))
    for name, limits, rows in (("wide", wide, 20_000), ("200 rows/s", slow, 4000)):
        with _running(1, rows=0, latency=("--latency", "0.05"), limits=limits) as (_, made):
            path = _rows(made, rows)
            with made.system.redis() as client:
                before, began = _calls(client), cpu_s_of(made.system.workers[0].pid)
                job_id, _ = made.submit(path, "--batch-size", "500")
                seconds = made.wait_for(job_id, rows)
                cpu_ms = (cpu_s_of(made.system.workers[0].pid) - began) / rows * 1000
                calls = _calls(client) - before
            if limits is wide:
                alone_ms = _limiter_alone_ms(made.redis.url, rows)
        yield f"| {name} | {cpu_ms:.2f} | {calls / rows:.3f} | {rows / seconds:,.0f} |"
    yield f"\nThe limiter alone, reserve and settle: {alone_ms:.3f} ms of CPU a row."


def no_limits(options: argparse.Namespace) -> Iterator[str]:
    """No limits, no headers: an endpoint that works on 40 at once, 0.2 s each; the rest queue."""
    yield "| workers | accepted per s | of what it bears | in flight at the end | refused |"
    yield "| --- | --- | --- | --- | --- |"
    for workers in options.workers:
        with _running(workers, rows=0) as (api, made):
            api.configure(latency_spread=0.0, parallel=40, queue=100, limit_headers=False)
            made.submit(_rows(made, int((options.seconds + 30) * 200)), "--batch-size", "200")
            found = _count(api, options.seconds)
            stats = api.stats()
        rate = found.accepted / found.seconds
        refused = stats["errors"].get("503", 0)
        yield f"| {workers} | {rate:,.0f} | {rate / 200:.1%} | {stats['in_flight']} | {refused} |"


SCENARIOS: dict[str, Callable[[argparse.Namespace], Iterator[str]]] = {
    "rpm": requests_per_minute,
    "tpm": tokens_per_minute,
    "change": changed_limits,
    "foreign": foreign_client,
    "no-limits": no_limits,
    "two-jobs": two_jobs,
    "cap": cap,
    "cost": limiter_cost,
}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.limits", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--workers", type=int, action="append")
    parser.add_argument("--only", action="append", choices=list(SCENARIOS))
    options = parser.parse_args()
    options.workers = options.workers or [1, 2, 8]
    return options


@contextmanager
def _running(
    workers: int,
    *limits_of_api: str,
    rows: int,
    has_lengths: bool = False,
    latency: tuple[str, ...] = LATENCY,
    limits: tuple[str, ...] = (),
    settings: dict[str, str] | None = None,
) -> Iterator[tuple[Simulator, Bench]]:
    """Warm workers, and a job of so many rows that has been submitted."""
    with tempfile.TemporaryDirectory(prefix="limits-") as name:
        small = write_rows(Path(name) / "small.jsonl", 40 * workers)
        with (
            simulated_api(*latency) as api,
            bench(api, small, workers=workers, warm_ups=2, limits=limits, **settings or {}) as made,
        ):
            api.configure(**_as_settings(limits_of_api))
            if rows:
                made.submit(_rows(made, rows, has_lengths=has_lengths), "--batch-size", "200")
            yield api, made


def _as_settings(options: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in ("rpm", "tpm"):
        if f"--{name}" in options:
            found[name] = int(options[options.index(f"--{name}") + 1])
    if "--charges-usage" in options:
        found["charges_usage"] = True
    return found


def _enough(options: argparse.Namespace) -> int:
    """Rows for longer than is measured."""
    return int((options.seconds + 60) * RPM / 60)


def _rows(made: Bench, count: int, *, has_lengths: bool = False) -> Path:
    path = made.system.folder / f"rows-{time.time_ns()}.jsonl"
    draw = random.Random(7)
    with path.open("w") as lines:
        for number in range(count):
            words = int(draw.lognormvariate(4.5, 1.2)) if has_lengths else 50
            text = f"{time.time_ns()} " + "word " * max(5, min(1500, words))
            lines.write(json.dumps({"id": f"{number}", "text": text}) + "\n")
    return path


def _count(api: Simulator, seconds: float) -> Counted:
    accepted = api.stats()["accepted"]
    wait_until(lambda: api.stats()["accepted"] > accepted, 60)
    time.sleep(START_S)
    began_s, before = time.monotonic(), api.stats()
    time.sleep(seconds)
    ended_s, after = time.monotonic(), api.stats()
    return Counted(
        seconds=ended_s - began_s,
        accepted=after["accepted"] - before["accepted"],
        tokens=after["tokens"]["total"] - before["tokens"]["total"],
        throttled=after["throttled"] - before["throttled"],
    )


def _rate(per_s: list[tuple[int, int]], begin_s: float, end_s: float) -> float:
    """Accepted per second, over whole seconds."""
    seconds = range(int(begin_s) + 1, int(end_s))
    counts: dict[int, int] = dict(per_s)
    return sum(counts.get(second, 0) for second in seconds) / max(1, len(seconds))


def _followed(per_s: list[tuple[int, int]], changed_s: float, target: float) -> int:
    """Whole seconds until the rate stays within 10 % of the target; 19 where it never does."""
    counts: dict[int, int] = dict(per_s)
    last = int(changed_s)
    for second in range(int(changed_s) + 1, int(changed_s) + 20):
        if abs(counts.get(second, 0) - target) > 0.1 * target:
            last = second
    return last - int(changed_s)


@contextmanager
def _foreign(api: Simulator, *, per_s: float) -> Iterator[dict[str, int]]:
    """Another client with the same key, which heeds nothing."""
    counted = {"accepted": 0, "refused": 0}
    ended = threading.Event()

    def send(number: int) -> None:
        body = {
            "model": "gpt-4o-mini",
            "messages": [{"role": "user", "content": f"foreign {number}"}],
        }
        request = urllib.request.Request(
            f"{api.base_url}/chat/completions",
            json.dumps(body).encode(),
            {"content-type": "application/json", "authorization": f"Bearer {KEY}"},
        )
        try:
            urllib.request.urlopen(request, timeout=30).close()
            counted["accepted"] += 1
        except urllib.error.HTTPError:
            counted["refused"] += 1

    def go_on() -> None:
        due_s, number = time.monotonic(), 0
        while not ended.is_set():
            threading.Thread(target=send, args=(number,), daemon=True).start()
            number += 1
            due_s += 1 / per_s
            ended.wait(max(0.0, due_s - time.monotonic()))

    thread = threading.Thread(target=go_on, daemon=True)
    thread.start()
    try:
        yield counted
    finally:
        ended.set()
        thread.join()


def _small_job(made: Bench) -> float:
    """Seconds from the submission of 100 rows until the last outcome."""
    path = _rows(made, 100)
    job_id, _ = made.submit(path, "--batch-size", "100")
    began_s = time.time()
    with made.system.redis() as client:
        created = int(client.hget(f"job:{{{job_id}}}", "created_ms") or 0) / 1000
    made.wait_for(job_id, 100)
    return time.time() - min(began_s, created)


def _limiter_alone_ms(redis_url: str, rows: int) -> float:
    """CPU per row of this process, which does nothing but reserve and settle, 256 at a time."""

    async def main() -> float:
        redis = connect(redis_url)
        limits = Limits(requests_per_min=10**8, tokens_per_min=10**11)
        limiter = Limiter(redis, ("bench:limit", "bench:askers"), limits)
        left = iter(range(rows))

        async def send() -> None:
            for _ in left:
                await limiter.reserve(100, Stop())
                limiter.settle(100, 90)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(limiter.serve)
            began_s = time.process_time()
            async with anyio.create_task_group() as senders:
                for _ in range(256):
                    senders.start_soon(send)
            used_s = time.process_time() - began_s
            tasks.cancel_scope.cancel()
        await redis.aclose()
        return used_s / rows * 1000

    return anyio.run(main)


def _calls(client: redis_py.Redis) -> int:
    """Calls of the limiter: its script alone, and in each call once, uses this command."""
    stats = client.info("commandstats").get("cmdstat_zremrangebyscore", {"calls": 0})
    return int(stats["calls"])


if __name__ == "__main__":
    main()

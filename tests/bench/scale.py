"""``python -m tests.bench.scale``: what grows with the size of a job, and what must not.

Each part makes a system of its own: a Redis, an MLflow store, a simulated API, worker processes as
a user starts them. ``--only`` names parts, ``--rows`` makes the large ones smaller.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from subprocess import DEVNULL, Popen

from producer.embedded import stop
from tests import fork_server
from tests.bench.decoding import decoding_ms
from tests.bench.figures import cpu_s_of, machine, memory_mb_of, spread, versions
from tests.bench.ours import UNLIMITED, Bench, bench
from tests.bench.peers import VENVS
from tests.bench.plot import draw_course
from tests.bench.rows import TEXTS, write_rows
from tests.bench.watching import REDIS_DATA, Ran, run_command, watched
from tests.system import Simulator, simulated_api, wait_until

CHAT = ("--model", "models:/bench/1", "--id-column", "id")
EMBED = ("--openai-model", "text-embedding-3-small", "--id-column", "id")
SMALL = 1000
WARM = 200


def main() -> None:
    """Measure and print."""
    options = _options()
    print(f"{machine()}; {versions()}")
    try:
        for name in options.only or PARTS:
            print(f"\n{PARTS[name].__doc__}\n", flush=True)
            for line in PARTS[name](options):
                print(line, flush=True)
    finally:
        fork_server.stop()


def submit(options: argparse.Namespace) -> Iterator[str]:
    """Submitting, no worker there: rows of 270 characters, about 300 bytes, with ids."""
    yield "| rows | texts | rows/s | command, s | rows per s of CPU | producer, MB | Redis, MB |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    sizes = [(options.rows // 10, "reviews"), *((options.rows, texts) for texts in TEXTS)]
    with _running() as made:
        small = made.submit(made.rows(SMALL))
        for rows, texts in sizes:
            path = made.rows(rows, texts=texts)
            made.empty_redis()
            with watched({}, made.bench.redis.url) as course:
                done = made.submit(path)
                time.sleep(1.1)
            per_s = (rows - SMALL) / (done.seconds - small.seconds)
            per_cpu_s = (rows - SMALL) / (done.cpu_s - small.cpu_s)
            path.unlink()
            yield (
                f"| {rows:,} | {texts} | {per_s:,.0f} | {done.seconds:.1f} | {per_cpu_s:,.0f} "
                f"| {done.peak_mb:.0f} | {course.peak_mb(REDIS_DATA):.0f} |"
            )


def memory(options: argparse.Namespace) -> Iterator[str]:
    """A worker's memory: a new worker for each size, zero latency, 256 in flight."""
    yield "| rows | at most, MB | of the smaller |\n| --- | --- | --- |"
    first = 0.0
    for rows in (options.rows // 100, options.rows // 10):
        with _running() as made, made.workers(1) as workers:
            made.run(made.rows(rows), rows)
            peak_mb = memory_mb_of(workers[0].pid, "VmHWM")
        first = first or peak_mb
        yield f"| {rows:,} | {peak_mb:.0f} | {peak_mb / first:.3f} |"


def finalizing(options: argparse.Namespace) -> Iterator[str]:
    """Finalizing a run of so many outcomes, in parts of 200."""
    yield "| outcomes | s | CPU, s | memory before, MB | at most, MB |"
    yield "| --- | --- | --- | --- | --- |"
    for rows in (options.rows // 10, options.rows):
        with _folder() as folder, _running() as made:
            done = made.python("-m", "tests.bench.finalizing", str(rows), cwd=folder)
        found = json.loads(done.said)
        yield (
            f"| {rows:,} | {found['seconds']:.1f} | {found['cpu_s']:.1f} "
            f"| {found['before']:.0f} | {found['peak']:.0f} |"
        )


def embeddings(options: argparse.Namespace) -> Iterator[str]:
    """Embeddings of 1,536 dimensions, 200 ms latency: one worker beside MLflow's pyfunc."""
    rows = options.embeddings
    ours: list[tuple[float, dict[str, float]]] = []
    theirs: list[tuple[float, dict[str, float]]] = []
    # The API has made every vector once before: to make one takes as long as all else in a row.
    kept = ("--keep-vectors", str(rows + WARM))
    with _running("--latency", "0.2", *kept) as made, made.workers(1) as workers:
        pids = {"": workers[0].pid, "Redis": made.redis_pid, "API": made.api.process.pid}
        path, small = made.rows(rows), made.rows(SMALL)
        made.run(path, rows, *EMBED)
        for _ in range(options.rounds):
            began = _cpu_s(pids)
            done = made.python("-m", "tests.bench.pyfunc_embeddings", str(path), str(rows))
            found = json.loads(done.said)
            spent = {**_between(began, _cpu_s(pids)), "": found["cpu_s"]}
            theirs.append((rows / found["seconds"], {**_per_row_ms(spent, rows), "Redis": 0.0}))
            began = _cpu_s(pids)
            made.run(small, SMALL, *EMBED)
            midway = _cpu_s(pids)
            seconds = made.run(path, rows, *EMBED)
            # What a job's end costs at any size (a report, a map of 1,000 vectors) is taken off;
            # that it reads the outcomes once more is not.
            more = _between(_between(began, midway), _between(midway, _cpu_s(pids)))
            ours.append((rows / seconds, _per_row_ms(more, rows - SMALL)))
        peak_mb = memory_mb_of(workers[0].pid, "VmHWM")
    yield f"{rows:,} rows, {options.rounds} rounds by turns: medians (least to most)\n"
    yield "| | rows/s | CPU per row, ms | of Redis | of the simulated API |"
    yield "| --- | --- | --- | --- | --- |"
    for name, runs in (("one worker", ours), ("MLflow's pyfunc", theirs)):
        spent_ms = [spread([cpu[of] for _, cpu in runs], 3) for of in pids]
        yield f"| {name} | {spread([r for r, _ in runs], 0)} | {' | '.join(spent_ms)} |"
    decoding = decoding_ms(dimensions=1536)
    rest_ms = median(cpu[""] for _, cpu in ours) - decoding
    yield f"\n{median(r for r, _ in ours) / median(r for r, _ in theirs):.1f} x the rows/s."
    yield f"To decode a row takes {decoding:.3f} ms of the worker's CPU, all else {rest_ms:.3f}."
    yield f"The worker took {peak_mb:.0f} MB at most."


def _cpu_s(pids: dict[str, int]) -> dict[str, float]:
    return {name: cpu_s_of(pid) for name, pid in pids.items()}


def _between(first: dict[str, float], last: dict[str, float]) -> dict[str, float]:
    return {name: last[name] - value for name, value in first.items()}


def _per_row_ms(cpu_s: dict[str, float], rows: int) -> dict[str, float]:
    return {name: value / rows * 1000 for name, value in cpu_s.items()}


def processes(options: argparse.Namespace) -> Iterator[str]:
    """1, 2 and 4 worker processes, 2 s latency (spread 0.2), 128 in flight each."""
    yield "| processes | rows | rows/s | of the half |\n| --- | --- | --- | --- |"
    before = 0.0
    with _running("--latency", "2", "--latency-spread", "0.2") as made:
        for count in (1, 2, 4):
            rows = options.waves * 128 * count
            path = made.rows(rows)
            with made.workers(count, BATCH_CONCURRENCY="128"):
                per_s = rows / made.run(path, rows, "--batch-size", "32")
            yield f"| {count} | {rows:,} | {per_s:,.1f} | {per_s / before if before else 1:.2f} |"
            before = per_s


def tail(options: argparse.Namespace) -> Iterator[str]:
    """1 % of the rows take 20 x the median of 100 ms: batches of 100 beside one batch of all."""
    rows = options.tail
    found: dict[str, list[float]] = {"100": [], str(rows): []}
    with (
        _running("--latency", "0.1", "--tail-share", "0.01") as made,
        made.workers(1, BATCH_CONCURRENCY="64"),
    ):
        path = made.rows(rows)
        for _ in range(options.rounds):
            for size, runs in found.items():
                runs.append(rows / made.run(path, rows, "--batch-size", size))
    yield f"{rows:,} rows, 64 in flight, {options.rounds} rounds by turns\n"
    yield "| batch size | rows/s |\n| --- | --- |"
    for size, runs in found.items():
        yield f"| {size} | {spread(runs, 0)} |"
    yield f"\n{median(found['100']) / median(found[str(rows)]):.2f} x the rows/s of one batch."


def start(options: argparse.Namespace) -> Iterator[str]:
    """The start of a worker to its first request, a job being there, beside MLflow's import."""
    whole, imported = [], []
    with _running() as made:
        for _ in range(options.rounds + 1):
            imported.append(made.python("-c", "import mlflow").seconds)
            made.submit(made.rows(100))
            before = made.api.stats()["accepted"]
            began_s = time.monotonic()
            with made.workers(1, is_warmed=False):
                made.wait_for_request(after=before)
                whole.append(time.monotonic() - began_s)
            made.empty_redis()
    whole, imported = whole[1:], imported[1:]  # the first fill caches
    rest = [a - b for a, b in zip(whole, imported, strict=True)]
    yield "| to the first request, s | `import mlflow`, s | the rest, s |\n| --- | --- | --- |"
    yield f"| {spread(whole, 2)} | {spread(imported, 2)} | {spread(rest, 2)} |"


def million(options: argparse.Namespace) -> Iterator[str]:
    """The whole way of a large job: submitted without a worker, then 2 workers, zero latency."""
    rows = options.rows
    with _running() as made:
        path = made.rows(rows, texts="prose")
        pids = {"Redis": made.redis_pid, "simulated API": made.api.process.pid}
        with watched(pids, made.bench.redis.url) as course:
            done = made.submit(path, pids=pids)
            time.sleep(5)
            began_s = time.monotonic() - course.began_s
            with made.workers(2, is_warmed=False) as workers:
                pids |= {f"worker {n}": worker.pid for n, worker in enumerate(workers)}
                seconds, finalizing_s = made.wait_for(done.said, rows)
        picture = draw_course(
            course.points, title=f"{rows:,} rows; {machine()}", path=VENVS / "scale.png"
        )
    yield f"{rows / seconds:,.0f} rows/s; finalizing {finalizing_s:.1f} s.\n"
    yield "| process | at a tenth of the way, MB | at most, MB |\n| --- | --- | --- |"
    for name in course.points:
        early = course.mb_at(name, began_s + seconds / 10)
        yield f"| {name} | {early:.0f} | {course.peak_mb(name):.0f} |"
    yield f"\nplot: {picture}"


PARTS: dict[str, Callable[[argparse.Namespace], Iterator[str]]] = {
    "submit": submit,
    "memory": memory,
    "finalizing": finalizing,
    "embeddings": embeddings,
    "processes": processes,
    "tail": tail,
    "start": start,
    "million": million,
}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.scale", description=__doc__)
    parser.add_argument("--only", action="append", choices=list(PARTS))
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the large parts")
    parser.add_argument("--embeddings", type=int, default=40_960, help="rows to embed")
    parser.add_argument("--tail", type=int, default=20_000, help="rows with a long tail")
    parser.add_argument("--waves", type=int, default=12, help="of 2 s each, for the processes")
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


@dataclass
class _Made:
    """A running system, its workers started by the part itself."""

    bench: Bench
    api: Simulator
    _files: int = field(default=0)

    @property
    def redis_pid(self) -> int:
        assert self.bench.redis.process is not None
        return self.bench.redis.process.pid

    def rows(self, count: int, *, texts: str = "reviews") -> Path:
        """A new file of so many rows."""
        self._files += 1
        path = self.bench.system.folder / f"rows-{self._files}.jsonl"
        return write_rows(path, count, texts=texts)

    def python(self, *arguments: str, cwd: Path | None = None) -> Ran:
        """Run Python in the system's environment."""
        system = self.bench.system
        command = [sys.executable, *arguments]
        return run_command(command, cwd=cwd or system.folder, environment=system.environment)

    def submit(self, path: Path, *options: str, pids: dict[str, int] | None = None) -> Ran:
        """Submit a file, with a command of its own; it says the job's id."""
        model = () if "--openai-model" in options else CHAT
        command = ["-m", "producer", "submit", str(path), *model, *UNLIMITED, *options]
        return run_command(
            [sys.executable, *command],
            cwd=self.bench.system.folder,
            environment=self.bench.system.environment,
            pids=pids,
            name="producer",
        )

    def run(self, path: Path, rows: int, *options: str) -> float:
        """Submit a file and wait for its job's end; seconds from first claim to last outcome."""
        return self.wait_for(self.submit(path, *options).said, rows)[0]

    def wait_for(self, job_id: str, rows: int) -> tuple[float, float]:
        """Seconds of a job from its first claim to its last outcome, and those of its end."""
        seconds = self.bench.wait_for(job_id, rows)
        with self.bench.system.redis() as client:
            started_ms, finished_ms = map(
                int, client.hmget(f"job:{{{job_id}}}", "started_ms", "finished_ms")
            )
        return seconds, max(0.0, (finished_ms - started_ms) / 1000 - seconds)

    def wait_for_request(self, *, after: int) -> None:
        """Wait until the API has accepted more requests than so many."""
        wait_until(lambda: self.api.stats()["accepted"] > after, 60)

    def empty_redis(self) -> None:
        """Forget all jobs."""
        with self.bench.system.redis() as client:
            client.flushall()

    @contextmanager
    def workers(
        self, count: int, *, is_warmed: bool = True, **settings: str
    ) -> Iterator[list[Popen[bytes]]]:
        """Workers as a user starts them; where ``is_warmed``, after a job of a few rows."""
        started = [self._start_worker(number, settings) for number in range(count)]
        try:
            if is_warmed:
                warm = WARM * count
                self.run(self.rows(warm), warm, "--batch-size", "10")
            yield started
        finally:
            stop(started, signal.SIGTERM, timeout_s=30)

    def _start_worker(self, number: int, settings: dict[str, str]) -> Popen[bytes]:
        system = self.bench.system
        command = [sys.executable, "-m", "celery", "-A", "worker", "worker", "-n", f"w{number}@%h"]
        with (system.folder / f"worker-{number}.log").open("ab") as log:
            return Popen(
                command,
                cwd=system.folder,
                env={**system.environment, **settings},
                stdin=DEVNULL,
                stdout=log,
                stderr=log,
            )


@contextmanager
def _running(*options: str) -> Iterator[_Made]:
    """A simulated API with these options and a system without workers."""
    with (
        _folder() as folder,
        simulated_api(*options) as api,
        bench(api, write_rows(folder / "small.jsonl", 1), workers=0, warm_ups=0) as made,
    ):
        yield _Made(made, api)


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="scale-") as name:
        yield Path(name)


if __name__ == "__main__":
    main()

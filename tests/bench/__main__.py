"""``python -m tests.bench``: this project beside other clients, on this machine, in one go.

The clients take turns, so that what else the machine does meets all of them alike.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from statistics import median

from tests import fork_server
from tests.bench.figures import Figures, machine, spread, versions
from tests.bench.ours import bench
from tests.bench.peers import PEERS, RAW, VENVS, Peer, python_of, run_peer
from tests.bench.plot import draw_ladder
from tests.bench.rows import write_rows
from tests.system import Simulator, simulated_api

OURS = "batch-inference-worker"
SHORT = ("plain aiohttp", "AsyncOpenAI on aiohttp")
LATENCY_S = "0.05"


def main() -> None:
    """Measure and print."""
    options = _options()
    peers = [p for p in PEERS if not options.only or p.name in options.only]
    if not options.short:
        for peer in (RAW, *peers):
            python_of(peer)  # installing is no part of the measurement
    try:
        runs = _measure(peers, options)
    finally:
        fork_server.stop()
    print(_table(runs))
    if not options.short:
        print(f"plot: {draw_ladder(runs, title=machine(), path=VENVS / 'ladder.png')}")


def _measure(peers: list[Peer], options: argparse.Namespace) -> dict[str, list[Figures]]:
    runs: dict[str, list[Figures]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-rows-") as name:
        small = write_rows(Path(name) / "small.jsonl", 400)
        large = write_rows(Path(name) / "large.jsonl", options.rows)
        print(f"{machine()}; {versions()}")
        print(
            f"{options.rows:,} chat rows of 270 characters, {options.concurrency} in flight, "
            f"{LATENCY_S} s latency, {options.rounds} rounds: medians (least to most)"
        )
        with simulated_api() as api:
            _print_ceiling(api, large, options)
        with (
            simulated_api("--latency", LATENCY_S) as api,
            bench(
                api, small, warm_ups=1 + (not options.short),
                BATCH_CONCURRENCY=str(options.concurrency),
            ) as made,
        ):  # fmt: skip
            for number in range(options.rounds):
                for peer in _turn(peers, number):
                    _note(runs, peer.name, _run(peer, api, large, options))
                _note(runs, OURS, made.run(large, options.rows))
    return runs


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--concurrency", type=int, default=256)
    parser.add_argument("--only", action="append", choices=[peer.name for peer in PEERS])
    parser.add_argument(
        "--short",
        action="store_true",
        help="2,000 rows, once, two peers, and no environments of their own",
    )
    options = parser.parse_args()
    if options.short:
        options.rows, options.rounds, options.only = 2000, 1, list(SHORT)
    return options


def _print_ceiling(api: Simulator, path: Path, options: argparse.Namespace) -> None:
    figures = _run(RAW, api, path, options)
    print(
        f"the simulated API's ceiling: {figures.rows_per_s:,.0f} rows/s, asked by a hand-written "
        f"protocol that costs {figures.cpu_ms:.3f} ms a row"
    )


def _turn(peers: list[Peer], number: int) -> list[Peer]:
    """Another one begins each round."""
    at = number % max(1, len(peers))
    return peers[at:] + peers[:at]


def _run(peer: Peer, api: Simulator, path: Path, options: argparse.Namespace) -> Figures:
    python = Path(sys.executable) if options.short else python_of(peer)
    most = min(options.rows, peer.most_rows or options.rows)
    return run_peer(
        peer, api.base_url, path, rows=most, concurrency=options.concurrency, python=python
    )


def _note(runs: dict[str, list[Figures]], name: str, figures: Figures) -> None:
    runs.setdefault(name, []).append(figures)
    shares = "".join(
        f", {who} {cpu_s / figures.rows * 1000:.3f}" for who, cpu_s in figures.shares.items()
    )
    print(
        f"  {name}: {figures.rows} rows, {figures.cpu_ms:.3f} ms of CPU a row{shares}; "
        f"{figures.rows_per_s:,.0f} rows/s, {figures.peak_mb:.0f} MB",
        file=sys.stderr,
    )


def _table(runs: dict[str, list[Figures]]) -> str:
    cpu = {name: median(f.cpu_ms for f in found) for name, found in runs.items()}
    lines = [
        "| client | CPU per row, ms | ours takes | rows/s | peak MB |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name in sorted(runs, key=lambda name: cpu[name]):
        found = runs[name]
        lines.append(
            f"| {name} | {spread([f.cpu_ms for f in found], 2)} | {cpu[OURS] / cpu[name]:.2f} x "
            f"| {spread([f.rows_per_s for f in found], 0)} "
            f"| {median(f.peak_mb for f in found):,.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()

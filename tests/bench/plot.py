"""The ladder and the course of a run as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import matplotlib as mpl

from tests.bench.figures import Figures

mpl.use("Agg")
from matplotlib import pyplot as plt


def draw_ladder(runs: Mapping[str, Sequence[Figures]], *, title: str, path: Path) -> Path:
    """CPU per row and rows per second of each client, side by side."""
    names = sorted(runs, key=lambda name: -median(f.cpu_ms for f in runs[name]))
    figure, axes = plt.subplots(1, 2, figsize=(11, 0.5 * len(names) + 1.5), sharey=True)
    for axis, label, values in (
        (axes[0], "CPU per row, ms", [[f.cpu_ms for f in runs[n]] for n in names]),
        (axes[1], "rows/s", [[f.rows_per_s for f in runs[n]] for n in names]),
    ):
        middles = [median(found) for found in values]
        spreads = [
            [middle - min(found) for middle, found in zip(middles, values, strict=True)],
            [max(found) - middle for middle, found in zip(middles, values, strict=True)],
        ]
        axis.barh(names, middles, xerr=spreads, color="#4878a8")
        axis.set_xlabel(label)
    figure.suptitle(title)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path


def draw_course(
    points: Mapping[str, Sequence[tuple[float, float]]], *, title: str, path: Path
) -> Path:
    """The memory of each process over time."""
    figure, axis = plt.subplots(figsize=(11, 5))
    for name, course in points.items():
        axis.plot([at for at, _ in course], [mb for _, mb in course], label=name)
    axis.set_xlabel("s")
    axis.set_ylabel("MB")
    axis.set_ylim(bottom=0)
    axis.legend(loc="center right")
    axis.set_title(title)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path

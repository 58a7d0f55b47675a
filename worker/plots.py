"""The report's pictures, drawn by matplotlib: SVG that takes the page's colours, and a PNG.

matplotlib is imported by the first picture: it costs 0.3 s, and only a job's end needs it. No text
of a user's is drawn, so no font can lack its letters. Not pyplot: it keeps state between threads.
"""

from __future__ import annotations

import io
import logging
import re
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from worker.digest import Digest, project
from worker.histogram import STEP, amount_at, quantile
from worker.series import ROWS, Floats, Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH = 8.6
_LEFT, _LEFT_OF_NAMES = 1.05, 1.8
"""Inches, for an axis of numbers up to 999,999,999, and for one of ``_WAITS``."""

_FAR = 4
"""A limit so many times the highest rate is told and not drawn."""

_INK, _FAINT = "#0a0b0c", "#0d0e0f"
"""Stand for the page's own colours, which change with light and dark."""

BLUE, GREEN, RED, AMBER, VIOLET = "#3b82f6", "#10a37f", "#e5484d", "#d98a0b", "#8b5cf6"

_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "report",  # as no date: the same job has the same pictures
    "savefig.dpi": 150,
    "path.simplify": True,
}
SHARES = (0.5, 0.95, 0.99)
"""The percentiles that are marked."""

_WAITS = {
    "requests_per_min": "requests per minute",
    "tokens_per_min": "tokens per minute",
    "endpoint_pause": "endpoint's pause (429)",
    "endpoint_down": "endpoint down",
    "concurrency": "concurrency",
    "cap": "the cap",
    "redis": "Redis",
    "other": "other",
}
_LOCK = threading.Lock()  # matplotlib's settings are the process's

Draw = Callable[["Figure"], None]


def as_svg(draw: Draw, *, height: float, name: str) -> str:
    """The picture as an element of an HTML page; ``name`` keeps its ids apart from others'."""
    text = _rendered(draw, height=height, ink=_INK, faint=_FAINT, format="svg").decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)  # an HTML page knows them
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\1{name}-", text)
    text = re.sub(r'<svg ([^>]*?)width="[^"]*"', r"<svg \1", text)
    text = re.sub(r'<svg ([^>]*?)height="[^"]*"', r'<svg \1role="img" ', text)
    return text.replace(_INK, "currentColor").replace(_FAINT, "var(--line)")


def as_png(draw: Draw, *, height: float) -> bytes:
    """The picture on white."""
    return _rendered(draw, height=height, ink="#333333", faint="#dddddd", format="png")


def _rendered(draw: Draw, *, height: float, ink: str, faint: str, **options: Any) -> bytes:  # noqa: ANN401 - savefig's own
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    import matplotlib as mpl
    from matplotlib.figure import Figure

    colours = dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), ink
    )
    file, is_svg = io.BytesIO(), options["format"] == "svg"
    settings: dict[Any, Any] = {
        **_STYLE,
        **colours,
        "grid.color": faint,
        "svg.hashsalt": "report",
        "savefig.dpi": 150,
    }
    with _LOCK, mpl.rc_context(settings):
        figure = Figure(figsize=(_WIDTH, height))
        _set_margins(figure, left=_LEFT)
        draw(figure)
        figure.savefig(
            file, transparent=is_svg, metadata={"Date": None} if is_svg else None, **options
        )
    return file.getvalue()


def _set_margins(figure: Figure, *, left: float) -> None:
    """Fixed ones, in inches: matplotlib's own layouts draw everything twice to find them."""
    height = figure.get_figheight()
    figure.subplots_adjust(
        left=left / _WIDTH, right=1 - 0.25 / _WIDTH, bottom=0.45 / height, top=1 - 0.3 / height
    )


def throughput(series: Series) -> tuple[Draw, float]:
    """Rows, requests and tokens over time beside the limits, and the requests in flight."""
    panels: list[Callable[[Axes], None]] = [
        lambda axes: _line(axes, series.at_s, series.rate(*ROWS), label="rows / s")
    ]
    for name, limit, label in (
        ("requests.sent", "limit.requests_per_min", "requests / min"),
        ("tokens.total", "limit.tokens_per_min", "tokens / min"),
    ):
        if series.has(name):
            panels.append(_against_limit(series, name, limit=limit, label=label))
    if series.has("requests.in_flight"):
        in_flight = series.values["requests.in_flight"]
        panels.append(
            lambda axes: _line(axes, series.at_s, in_flight, label="in flight", colour=VIOLET)
        )

    def draw(figure: Figure) -> None:
        rows = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for axes, panel in zip(rows, panels, strict=True):
            panel(axes)
        rows[-1].set_xlabel("seconds of work")
        figure.align_ylabels()

    return draw, 0.5 + 1.25 * len(panels)


def latency_over_time(series: Series) -> tuple[Draw, float]:
    """Percentiles of the last seconds, at each moment."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for name, colour in (("p50", BLUE), ("p95", AMBER)):
            values = series.values[f"latency.{name}_s"]
            axes.plot(series.at_s, values, color=colour, label=name)
        axes.set(ylabel="seconds", xlabel="seconds of work")
        axes.margins(y=0.2)
        axes.set_ylim(bottom=0)
        axes.legend(loc="upper right", ncols=2)

    return draw, 1.9


def waits(series: Series) -> tuple[Draw, float]:
    """A band for everything that workers waited for: as high as the share of them that did."""
    found = series.waits

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for place, (_, share) in enumerate(sorted(found.items())):
            axes.fill_between(
                series.at_s, place, place + 0.85 * share, step="post", color=AMBER, linewidth=0
            )
            axes.axhline(place, color=BLUE, linewidth=0.5)
        axes.set_yticks([place + 0.4 for place in range(len(found))])
        axes.set_yticklabels([_WAITS.get(name, name) for name in sorted(found)])
        axes.set(xlabel="seconds of work", ylim=(0, len(found)), xlim=_span(series.at_s))
        _set_margins(figure, left=_LEFT_OF_NAMES)
        axes.grid(visible=False, axis="y")

    return draw, 0.7 + 0.4 * len(found)


def distribution(counts: Mapping[int, int], *, label: str) -> tuple[Draw, float]:
    """A histogram on a logarithmic scale, with its percentiles."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        edges, heights = _bars(counts)
        axes.stairs(heights, edges, fill=True, color=BLUE, alpha=0.75)
        axes.set_xscale("log")
        _plain_ticks(axes, edges)
        for share in SHARES:
            value = quantile(counts, share) or 0.0
            axes.axvline(value, color=RED, linewidth=0.9, linestyle="--")
            top = axes.get_xaxis_transform()  # 1 is the top of the plot
            axes.text(value, 1.02, f"p{share * 100:.0f}", ha="center", fontsize=7, transform=top)
        limits = (edges[0] / 1.3, edges[-1] * 1.3)  # also where all are the same
        axes.set(xlabel=label, ylabel="rows", ylim=(0, None), xlim=limits)

    return draw, 1.9


def embedding_map(digest: Digest) -> tuple[Draw, float] | None:
    """The sampled vectors on their first two principal components; None where there is no plane."""
    projected = project(digest.vectors)
    if projected is None:
        return None
    points, shown = projected
    tokens = digest.vector_tokens[: len(points)]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        dots = axes.scatter(
            points[:, 0],
            points[:, 1],
            c=tokens,
            s=9,
            alpha=0.8,
            linewidths=0,
            rasterized=True,
            cmap="cool",
        )
        axes.set(xlabel="first component", ylabel="second component")
        axes.set_title(f"{len(points):,} rows; these two show {shown:.0%} of the variance")
        figure.colorbar(dots, ax=axes, label="input, in tokens")

    return draw, 4.6


def _against_limit(series: Series, name: str, *, limit: str, label: str) -> Callable[[Axes], None]:
    def panel(axes: Axes) -> None:
        rate, limits = series.rate(name) * 60, series.values.get(limit)
        _line(axes, series.at_s, rate, label=label)
        if limits is None or np.isnan(limits).all():
            return
        top, limit_top = rate.max(), np.nanmax(limits)
        if limit_top > _FAR * top:  # drawn, it would make a flat line of the rate
            axes.plot([], [], color=RED, linestyle="--", label=f"limit: {limit_top:,.10g}")
        else:
            axes.plot(series.at_s, limits, color=RED, linestyle="--", label="limit")
            axes.set_ylim(0, 1.08 * max(top, limit_top))
        axes.legend(loc="lower right")

    return panel


def _line(axes: Axes, at_s: Floats, values: Floats, *, label: str, colour: str = BLUE) -> None:
    axes.plot(at_s, values, color=colour)
    axes.fill_between(at_s, values, alpha=0.12, color=colour, linewidth=0)
    axes.set(ylabel=label, ylim=(0, None), xlim=_span(at_s))
    axes.yaxis.set_major_formatter("{x:,.10g}")  # 0.5 is not 0, nor a million 1e+06


def _span(at_s: Floats) -> tuple[float, float]:
    return 0.0, max(float(at_s[-1]), 0.1)


def _bars(counts: Mapping[int, int], most: int = 48) -> tuple[Floats, Floats]:
    """Neighbouring places in one bar, so that there are few; none is narrower than 8 %."""
    first, last = min(counts), max(counts)
    width = max(4, -(-(last - first + 1) // most))
    number = (last - first) // width + 1
    heights = np.zeros(number)
    for place, count in counts.items():
        heights[(place - first) // width] += count
    edges = [amount_at(first + width * n) / STEP**0.5 for n in range(number + 1)]
    return np.array(edges), heights


def _plain_ticks(axes: Axes, edges: Floats) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

    decades = np.log10(edges[-1] / edges[0])
    steps = (1.0, 2.0, 3.0, 5.0, 7.0) if decades < 1 else (1.0, 2.0, 5.0)
    axes.xaxis.set_major_locator(LogLocator(subs=steps if decades < 3 else (1.0,)))
    axes.xaxis.set_major_formatter("{x:,.3g}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())

"""The report tells the job's story on one page: true figures, nothing from outside, no secret."""

from __future__ import annotations

import re
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from flavor.errors import ErrorInfo
from flavor.prices import Price
from flavor.types import Task
from tests.unit.worker.making import JOB, make_dead, make_outcome, make_spec
from worker import plots
from worker.digest import Digest
from worker.jobs import JobState, Outcome, Verdict
from worker.parts import read_part, write_part
from worker.report import Story, make_report
from worker.series import make_series
from worker.status import JobStatus, Requests
from worker.totals import Totals

NOW = 1_800_000_000_000
HOSTILE = '<script>alert("1")</script>'


class _Page(HTMLParser):
    """The elements, ids and addresses of a page, and the text that a reader sees."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self._is_hidden = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self._is_hidden = tag == "style"
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href", "action", "data"):
                self.links.append(value or "")

    def handle_data(self, data: str) -> None:
        if not self._is_hidden:
            self.text += f"{' '.join(data.split())} "


def _story(folder: Path, outcomes: list[Outcome], **changes: Any) -> Story:
    spec = make_spec(**{"rows": len(outcomes), **changes})
    totals, digest = Totals(), Digest(JOB)
    write_part(folder / "part", outcomes, spec.task)
    part = read_part(folder / "part")
    totals.add(part)
    digest.add(part)
    for row in part.to_pylist():
        if row["error_type"]:
            digest.add_dead(row, {"text": HOSTILE})
    status = JobStatus(
        job_id=JOB,
        name=spec.name,
        state=JobState.FINALIZING,
        rows_total=spec.rows,
        rows=totals.rows,
        requests=Requests(sent=9, answered=8, retried=2, throttled=1),
        rows_in_doubt=3,
        started_ms=NOW - 90_000,
        finished_ms=NOW,
    )
    return Story(
        spec=spec,
        state=JobState.COMPLETED,
        status=status,
        totals=totals,
        digest=digest,
        series=make_series(
            _history(), started_ms=NOW - 90_000, ended_ms=NOW, totals=totals.metrics()
        ),
        ended_ms=NOW,
    )


def _history() -> dict[str, list[tuple[int, float]]]:
    times = [NOW - 1000 * left for left in range(89, 0, -1)]
    return {
        "rows.succeeded": [(at, n * 1.0) for n, at in enumerate(times)],
        "requests.sent": [(at, n * 1.0) for n, at in enumerate(times)],
        "tokens.total": [(at, n * 15.0) for n, at in enumerate(times)],
        "requests.in_flight": [(at, 8.0) for at in times],
        "limit.requests_per_min": [(at, 60.0) for at in times],
        "latency.p50_s": [(at, 0.5) for at in times],
        "latency.p95_s": [(at, 0.9) for at in times],
        "waiting.requests_per_min": [(at, 0.5) for at in times],
        "waiting.endpoint_down": [(at, float(n > 80)) for n, at in enumerate(times)],
    }


def _good(count: int, **changes: Any) -> list[Outcome]:
    return [make_outcome(n, latency_s=0.5, cost_usd=0.001, **changes) for n in range(count)]


def test_the_page_tells_what_ran_and_what_came_of_it(tmp_path: Path) -> None:
    price = Price(input_usd_per_token=1.5e-7, output_usd_per_token=6e-7)
    story = _story(tmp_path, [*_good(90), make_dead(90)], price=price, params={"temperature": 0})

    html, _ = make_report(story)

    text = _Page(html).text
    for said in (
        "reviews", "completed", "models:/sentiment@champion", "pinned as models:/sentiment/3",
        'request parameters {"temperature": 0}', "input reviews.csv", "91 rows", "1 dead rows",
        "prompt tokens 900", "completion tokens 450", "cost $0.0900",
        "cost of 1,000 rows $0.9890", "price $0.15 in, $0.6 out, a million tokens",
        "1 min 30 s time", "9 sent, 2 retried, 1 throttled (429)", "paid twice at most 3 rows",
        "p50 0.5", "BadRequest · HTTP 400 · bad", "requests per minute", "endpoint down",
        "requests / min", "limit", "input, in tokens", "output, in tokens",
    ):  # fmt: skip
        assert said in text, said


def test_the_page_is_one_file_that_asks_for_nothing(tmp_path: Path) -> None:
    html, _ = make_report(_story(tmp_path, _good(5)))

    page = _Page(html)
    assert page.tags.isdisjoint({"script", "link", "iframe", "object"})
    assert not [link for link in page.links if not link.startswith(("#", "data:"))]
    assert "default-src 'none'" in html
    assert "://" not in html
    assert len(page.ids) == len(set(page.ids))
    named = set(re.findall(r"url\(#([^)]+)\)", html)) | {link[1:] for link in page.links}
    assert {name for name in named if name and not name.startswith("ata:")} <= set(page.ids)


def test_the_page_follows_light_and_dark_and_prints(tmp_path: Path) -> None:
    html, _ = make_report(_story(tmp_path, _good(5)))

    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html
    assert "currentColor" in html
    assert not re.search(r"#0a0b0c|#0d0e0f|fill: #000000|fill: #ffffff", html)


def test_nothing_that_a_user_wrote_is_taken_for_html(tmp_path: Path) -> None:
    info = ErrorInfo(type=HOSTILE, message=HOSTILE, status=400, code=HOSTILE)
    dead = make_outcome(1, row_id=HOSTILE, verdict=Verdict.REJECTED, output=None, error=info)
    story = _story(
        tmp_path, [*_good(1), dead], name=HOSTILE, input_name=HOSTILE, params={"user": HOSTILE},
        model_uri_given=HOSTILE,
    )  # fmt: skip

    html, _ = make_report(story)

    assert "<script" not in html
    assert "alert" in _Page(html).text


def test_no_secret_stands_in_the_page(tmp_path: Path) -> None:
    secret = "sk-proj-0123456789abcdef"
    info = ErrorInfo(type="Auth", message=f"bad key {secret}", status=401, code="invalid")
    dead = make_outcome(1, verdict=Verdict.REJECTED, output=None, error=info)
    story = _story(
        tmp_path, [*_good(1), dead], name=f"run {secret}", params={"user": secret},
        input_name="https://me:hunter2@host/rows.csv",
    )  # fmt: skip

    html, _ = make_report(story)

    assert secret not in html
    assert "hunter2" not in html


def test_odd_characters_are_shown_or_replaced(tmp_path: Path) -> None:
    story = _story(tmp_path, _good(2), name="评论 \ud800 ünï 🎉")

    html, _ = make_report(story)

    assert "评论 ? ünï 🎉" in html


def test_embeddings_have_a_map(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    outcomes = [
        make_outcome(n, latency_s=0.5, output=chance.normal(size=16).astype("<f4").tobytes())
        for n in range(50)
    ]

    html, _ = make_report(_story(tmp_path, outcomes, task=Task.EMBEDDINGS))

    text = _Page(html).text
    assert "Map of the embeddings" in text
    assert "A sample of 50 of 50 rows" in text
    assert "output, in tokens" not in text


@pytest.mark.parametrize("rows", [0, 1])
def test_a_job_with_next_to_nothing_to_tell_has_a_report(tmp_path: Path, rows: int) -> None:
    outcomes = [make_dead(n) for n in range(rows)]
    story = _story(tmp_path, outcomes)
    empty = make_series({}, started_ms=None, ended_ms=NOW, totals={})
    story = Story(
        spec=story.spec, state=JobState.CANCELLED, status=story.status, totals=story.totals,
        digest=story.digest, series=empty, ended_ms=NOW,
    )  # fmt: skip

    html, png = make_report(story)

    assert "cancelled" in html
    assert png.startswith(b"\x89PNG")


def test_the_same_job_has_the_same_report(tmp_path: Path) -> None:
    story = _story(tmp_path, [*_good(20), make_dead(20)])

    assert make_report(story) == make_report(story)


def test_a_report_is_quick_and_small_however_long_the_job(tmp_path: Path) -> None:
    make_report(_story(tmp_path, _good(2)))  # matplotlib is loaded
    story = _story(tmp_path, _good(5000))
    times = range(NOW - 50_000_000, NOW, 1000)
    history = {name: [(at, 1.0 * n) for n, at in enumerate(times)] for name in _history()}
    began_s = time.process_time()

    story = Story(
        spec=story.spec, state=story.state, status=story.status, totals=story.totals,
        digest=story.digest, ended_ms=NOW,
        series=make_series(history, started_ms=times[0], ended_ms=NOW, totals={}),
    )  # fmt: skip
    html, png = make_report(story)

    assert time.process_time() - began_s < 5
    assert len(html) < 400_000
    assert len(png) < 200_000


@pytest.mark.parametrize(("limit", "is_drawn"), [(30.0, True), (100.0, True), (1e6, False)])
def test_a_limit_is_drawn_within_the_picture_or_told(limit: float, is_drawn: bool) -> None:
    """The axis ended at the highest rate, so a limit above it was named and not to be seen."""
    history = {**_history(), "limit.requests_per_min": [(NOW - 40_000, limit), (NOW - 9, limit)]}
    series = make_series(history, started_ms=NOW - 90_000, ended_ms=NOW, totals={})
    figure = Figure()

    plots.throughput(series)[0](figure)

    axes = figure.axes[1]
    lines = [line for line in axes.lines if line.get_linestyle() == "--"]
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.texts] == [
        "limit" if is_drawn else "limit: 1,000,000"
    ]
    assert [np.size(line.get_xdata()) > 0 for line in lines] == [is_drawn]
    assert bool(axes.get_ylim()[1] > limit) is is_drawn

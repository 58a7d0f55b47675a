"""``report.html``: a job's story on one page that needs no network, and its throughput as PNG.

Everything a user wrote (names, texts, errors) is escaped, cut and redacted; the page forbids itself
scripts and requests.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cache
from html import escape
from importlib import resources
from string import Template

from flavor.prices import MILLION, Price
from flavor.redact import redact
from flavor.types import Json
from worker import plots
from worker.digest import Digest, ErrorKind, Failures
from worker.histogram import quantile
from worker.jobs import JobSpec, JobState, Verdict
from worker.series import Series
from worker.status import JobStatus
from worker.totals import Totals

_MOST_TEXT = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """All that a report tells. ``status`` is the job's as it ends, with exact rows."""

    spec: JobSpec
    state: JobState
    status: JobStatus
    totals: Totals
    digest: Digest
    series: Series
    ended_ms: int

    @property
    def duration_s(self) -> float:
        """From the first claim to the end."""
        return max(0.0, (self.ended_ms - (self.status.started_ms or self.ended_ms)) / 1000)


def make_report(story: Story) -> tuple[str, bytes]:
    """The page, and the throughput's picture. Blocks for some tenths of a second."""
    draw, height = plots.throughput(story.series)
    body = "\n".join(f"<section>{section}</section>" for section in _sections(story))
    title = escape(_shown(story.spec.name))
    return _page().substitute(title=title, body=body), plots.as_png(draw, height=height)


@cache
def _page() -> Template:
    return Template(resources.files("worker").joinpath("report.html").read_text("utf-8"))


def _sections(story: Story) -> Iterator[str]:
    yield _head(story) + _figures(story)
    yield "<h2>What ran</h2>" + _facts(_what_ran(story))
    yield "<h2>Rows, tokens, money</h2>" + _facts(_sums(story))
    yield "<h2>Throughput</h2>" + _picture(plots.throughput(story.series), "throughput")
    yield "<h2>Latency</h2>" + _latency(story)
    yield "<h2>What it waited for</h2>" + _waits(story)
    yield "<h2>Lengths</h2>" + _lengths(story)
    if story.digest.vectors:
        yield "<h2>Map of the embeddings</h2>" + _map(story)
    yield "<h2>Errors</h2>" + _errors(story.digest.failures)


def _head(story: Story) -> str:
    name, uri = escape(_shown(story.spec.name)), escape(_shown(story.spec.model_uri_given))
    tone = "good" if story.state is JobState.COMPLETED else "bad"
    return (
        f"<h1>{name}</h1><p><b class='{tone}'>{story.state.value}</b> · {uri}"
        f" · ended {_moment(story.ended_ms)} · run <code>{escape(story.spec.job_id)}</code></p>"
    )


def _figures(story: Story) -> str:
    status, totals = story.status, story.totals
    cost, p50 = totals.cost_usd, totals.latency_s(0.5)
    figures = {
        "rows": f"{totals.rows_total:,}",
        "dead rows": f"{status.rows_dead:,}",
        "tokens": f"{totals.tokens['total']:,}" if totals.has_usage else "unknown",
        "cost": "unknown" if cost is None else _money(cost),
        "time": _duration(story.duration_s),
        "rows / s": f"{status.rows_per_s:,.1f}",
        "median latency": "none" if p50 is None else f"{p50:.2f} s",
    }
    tones = {"dead rows": "bad" if status.rows_dead else "good"}
    tiles = (
        f"<div><b class='{tones.get(name, '')}'>{value}</b><span>{name}</span></div>"
        for name, value in figures.items()
    )
    return f"<div class='figures'>{''.join(tiles)}</div>"


def _what_ran(story: Story) -> dict[str, Json]:
    spec = story.spec
    return {
        "model": spec.model_uri_given,
        "pinned as": spec.model_uri if spec.model_uri != spec.model_uri_given else None,
        "OpenAI model": spec.openai_model,
        "task": spec.task.value,
        "request parameters": dict(spec.params) or None,
        "input": spec.input_name,
        "input's SHA-256": spec.input_sha256,
        "batches": f"{spec.batches:,} of at most {spec.batch_size:,} rows",
        "submitted": spec.created_at,
        "started": _moment(story.status.started_ms),
        "ended": _moment(story.ended_ms),
    }


def _sums(story: Story) -> dict[str, Json]:
    totals, requests = story.totals, story.status.requests
    rows = {verdict.value: f"{totals.rows[verdict]:,} rows" for verdict in Verdict}
    tokens = {f"{name} tokens": f"{count:,}" for name, count in totals.tokens.items()}
    cost, price = totals.cost_usd, story.spec.price
    done = totals.rows_total - totals.rows[Verdict.CANCELLED]
    return {
        **rows,
        **(tokens if totals.has_usage else {"tokens": "unknown: the model does not tell"}),
        "cost": "unknown: no price is known" if cost is None else _money(cost),
        "cost of 1,000 rows": _money(cost / done * 1000) if cost is not None and done else None,
        "price": _per_million(price) if price else None,
        "requests": f"{requests.sent:,} sent, {requests.retried:,} retried,"
        f" {requests.throttled:,} throttled (429)",
        "paid twice at most": f"{story.status.rows_in_doubt:,} rows",
    }


def _latency(story: Story) -> str:
    if not story.totals.latencies:
        return "<p>No request was answered.</p>"
    drawn = plots.distribution(
        story.totals.latencies, label="seconds, from a request to its answer"
    )
    html = _percentiles(story.totals.latencies, unit=" s") + _picture(drawn, "latency")
    if story.series.has("latency.p50_s") and story.series.has("latency.p95_s"):
        html += _picture(plots.latency_over_time(story.series), "latencies")
    return html


def _waits(story: Story) -> str:
    if not story.series.waits:
        return "<p>No worker was seen waiting for a limit, a pause or the endpoint.</p>"
    hint = "<p>As high as the share of worker processes that waited.</p>"
    return _picture(plots.waits(story.series), "waits") + hint


def _lengths(story: Story) -> str:
    drawn = [
        _percentiles(counts) + _picture(plots.distribution(counts, label=name), f"length{number}")
        for number, (name, counts) in enumerate(sorted(story.digest.lengths.items()))
    ]
    return "".join(drawn) or "<p>Nobody knows: no row succeeded, or the model tells no usage.</p>"


def _percentiles(counts: Mapping[int, int], *, unit: str = "") -> str:
    values = ((share, quantile(counts, share)) for share in plots.SHARES)
    shown = ", ".join(
        f"p{share * 100:.0f} {value:.2f}{unit}" if unit else f"p{share * 100:.0f} {value:,.0f}"
        for share, value in values
        if value is not None
    )
    return f"<p>{shown}</p>"


def _map(story: Story) -> str:
    drawn = plots.embedding_map(story.digest)
    if drawn is None:
        return "<p>Too few vectors for a map.</p>"
    sampled, rows = len(story.digest.vectors), story.totals.rows[Verdict.SUCCEEDED]
    hint = f"<p>A sample of {sampled:,} of {rows:,} rows, on two principal components.</p>"
    return _picture(drawn, "map") + hint


def _errors(failures: Mapping[ErrorKind, Failures]) -> str:
    if not failures:
        return "<p class='good'>None: every row has its answer.</p>"
    rows = []
    by_count = sorted(failures.items(), key=lambda item: -item[1].rows)
    for kind, found in by_count:
        facts = (kind.type, kind.status and f"HTTP {kind.status}", kind.code)
        name = escape(_shown(" · ".join(str(fact) for fact in facts if fact)))
        rows.append(f"<tr><td class='number'>{found.rows:,}</td><td colspan='2'>{name}</td></tr>")
        for example in found.examples:
            said = f"{escape(example.message)}<br><span class='soft'>{escape(example.input)}</span>"
            rows.append(f"<tr><td></td><td>{escape(example.row_id)}</td><td>{said}</td></tr>")
    head = "<tr><th>rows</th><th>row</th><th>error, and input</th></tr>"
    hint = "<p>All dead rows, with their input, are in <code>failed.jsonl</code>.</p>"
    return f"<table>{head}{''.join(rows)}</table>{hint}"


def _facts(facts: Mapping[str, Json]) -> str:
    rows = (
        f"<tr><th>{escape(name)}</th><td>{escape(_shown(value))}</td></tr>"
        for name, value in facts.items()
        if value is not None
    )
    return f"<table class='facts'>{''.join(rows)}</table>"


def _picture(drawn: tuple[plots.Draw, float], name: str) -> str:
    draw, height = drawn
    return plots.as_svg(draw, height=height, name=name)


def _shown(value: Json) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return redact(text)[:_MOST_TEXT].encode("utf-8", "replace").decode()


def _per_million(price: Price) -> str:
    rates = (price.input_usd_per_token, price.output_usd_per_token)
    return " in, ".join(f"${rate * MILLION:,.4g}" for rate in rates) + " out, a million tokens"


def _money(usd: float) -> str:
    return f"${usd:,.2f}" if usd >= 1 else f"${usd:,.4f}"


def _duration(duration_s: float) -> str:
    minutes, seconds = divmod(duration_s, 60)
    if duration_s < 60:
        return f"{seconds:.1f} s"
    if duration_s < 3600:
        return f"{minutes:.0f} min {seconds:.0f} s"
    return f"{minutes // 60:.0f} h {minutes % 60:.0f} min"


def _moment(at_ms: int | None) -> str:
    if at_ms is None:
        return "never"
    return datetime.fromtimestamp(at_ms / 1000, tz=timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")

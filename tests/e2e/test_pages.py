"""What a person sees of a job: its run, charts and files in MLflow's UI; in Flower its batches.

Pictures of all of it are kept under ``build/screenshots``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote
from urllib.request import urlopen

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.conftest import BATCHES, ROWS, Shown

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]  # the first one waits for two jobs

Keep = Callable[[str], Path]


def test_a_run_names_its_input_its_model_and_its_state(
    shown: Shown, page: Page, keep: Keep
) -> None:
    page.goto(shown.run())

    expect(page.get_by_text("Finished", exact=True)).to_be_visible()
    expect(page.get_by_text("reviews.csv (")).to_be_visible()  # the dataset
    expect(page.get_by_role("heading", name="reviews.csv · sentiment v1")).to_be_visible()
    expect(page.locator('a[href="#/models/sentiment/versions/1"]').first).to_be_visible()
    expect(page.get_by_role("row", name=f"rows.succeeded {ROWS - 1} sentiment")).to_be_attached()
    expect(page.get_by_text("batch.state: completed")).to_be_visible()  # a tag to filter by
    keep("run")


def test_the_charts_draw_the_job_as_it_went(shown: Shown, page: Page, keep: Keep) -> None:
    page.goto(shown.run("model-metrics"))

    for name in ("cost.usd", "latency.p50_s", "rows.succeeded", "tokens.prompt"):
        page.get_by_placeholder("Search metric charts").fill(name)
        expect(page.get_by_text(name, exact=True).first).to_be_visible()
    points = page.locator("path.point")
    expect(points.nth(1)).to_be_visible()  # a series, not one figure
    page.get_by_placeholder("Search metric charts").fill("")
    keep("charts")


def test_the_preview_is_a_table_of_inputs_and_answers(shown: Shown, page: Page, keep: Keep) -> None:
    page.goto(shown.run("artifacts/preview.json"))

    for column in ("row_id", "output", "verdict"):
        expect(page.get_by_text(column, exact=True).first).to_be_visible()
    expect(page.get_by_text("r000", exact=True)).to_be_visible()
    keep("preview")


def test_the_report_is_read_in_place(shown: Shown, page: Page, keep: Keep) -> None:
    asked: list[str] = []
    page.goto(shown.run("artifacts/report.html"))
    page.on("request", lambda request: asked.append(request.url))
    report = page.frame_locator("iframe").first

    for heading in ("What ran", "Throughput", "Latency", "What it waited for", "Errors"):
        expect(report.get_by_role("heading", name=heading)).to_be_visible()
    expect(report.get_by_text("rows / s").first).to_be_visible()
    expect(report.get_by_text("[[reject]] this one")).to_be_visible()
    expect(report.locator("svg").nth(3)).to_be_visible()
    report.get_by_role("heading", name="Throughput").evaluate("it => it.scrollIntoView()")
    keep("report-in-mlflow")
    assert not [url for url in asked if not url.startswith(shown.url)]


def test_the_report_is_a_page_of_its_own_in_light_and_dark(
    shown: Shown, page: Page, keep: Keep
) -> None:
    with urlopen(shown.file("report.html"), timeout=10) as response:
        page.set_content(response.read().decode())

    papers = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        papers.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        keep(f"report-{scheme}")

    assert papers == ["rgb(255, 255, 255)", "rgb(22, 24, 27)"]


def test_the_throughput_is_a_picture(shown: Shown, page: Page, keep: Keep) -> None:
    page.goto(shown.run("artifacts/throughput.png"))

    expect(page.get_by_role("img", name="throughput.png")).to_be_visible()
    keep("throughput")


def test_flower_lists_the_batches_by_their_jobs_name(shown: Shown, page: Page, keep: Keep) -> None:
    page.set_viewport_size({"width": 1500, "height": 800})

    page.goto(f"{shown.flower_url}/tasks")

    for number in (1, 2):
        name = f"('reviews.csv · sentiment v{number}', batch 0, 40 rows)"
        expect(page.get_by_text(name, exact=True)).to_be_visible()
    for result in ("done: 40 succeeded, 0 dead", "done: 39 succeeded, 1 dead", "done: completed"):
        expect(page.get_by_text(result).first).to_be_visible()
    states = page.locator("tbody tr td:nth-child(3)")
    expect(states).to_have_count(2 * (BATCHES + 1))
    assert set(states.all_inner_texts()) == {"SUCCESS"}
    keep("flower")


def test_dead_rows_are_read_in_place(shown: Shown, page: Page, keep: Keep) -> None:
    page.goto(shown.run("artifacts/failed.jsonl"))

    expect(page.get_by_text("[[reject]] this one")).to_be_visible()
    keep("failed")


def test_traces_show_messages_parameters_and_tokens(shown: Shown, page: Page, keep: Keep) -> None:
    page.goto(shown.run("traces"))
    request = page.get_by_text("Classify the sentiment: The battery").first
    expect(request).to_be_visible()
    expect(page.get_by_text("Tokens", exact=True)).to_be_visible()
    keep("traces")

    request.click()

    expect(page.get_by_text("temperature", exact=True)).to_be_visible()
    expect(page.get_by_text("Assistant", exact=True)).to_be_visible()
    expect(page.get_by_text(" tokens").first).to_be_visible()
    keep("trace")


def test_two_versions_of_a_model_compare_side_by_side(shown: Shown, page: Page, keep: Keep) -> None:
    runs, experiments = json.dumps(list(shown.jobs)), json.dumps([shown.experiment_id])
    page.set_viewport_size({"width": 1280, "height": 1900})  # it shows what is in sight alone

    page.goto(f"{shown.url}/#/compare-runs?runs={quote(runs)}&experiments={quote(experiments)}")

    expect(page.get_by_text("Comparing 2 Runs")).to_be_visible()
    for number in ("1", "2"):
        expect(page.get_by_text(f"models:/sentiment/{number}", exact=True)).to_be_visible()
        expect(page.get_by_text(f"reviews.csv · sentiment v{number}")).to_be_visible()
    for metric in ("cost.usd", "latency.p95_s"):
        expect(page.get_by_text(metric, exact=True)).to_be_visible()
    keep("compare")


def test_the_models_page_lists_the_jobs_totals_once(shown: Shown, page: Page, keep: Keep) -> None:
    page.goto(f"{shown.url}/#/experiments/{shown.experiment_id}/models/{shown.model_ids[0]}")

    expect(page.get_by_role("link", name="reviews.csv · sentiment v1").first).to_be_visible()
    page.get_by_placeholder("Search metrics").fill("rows.succeeded")
    expect(page.get_by_text("rows.succeeded", exact=True)).to_have_count(1)
    expect(page.get_by_text(str(ROWS - 1), exact=True)).to_be_visible()
    keep("model")

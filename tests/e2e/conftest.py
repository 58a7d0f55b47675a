"""A browser, and two jobs of two model versions in an MLflow and a Flower that it can look at."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis as redis_py
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

from tests.flower import Flower
from tests.servers import MlflowServer
from tests.system import KEY, System, simulated_api

CHROMIUM = Path("/usr/bin/chromium")

SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"
"""The pictures of the last test run; the few of the README are copies in ``screenshots/``."""

ROWS, BATCHES = 240, 6
"""At 40 requests a second, a job of six seconds: long enough for a time series."""

_NO_ASSISTANT = """
localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true');
localStorage.setItem('mlflow.assistant.panelOpen_v1', 'false');
"""


@dataclass(frozen=True)
class Shown:
    """What the browser looks at: MLflow, Flower, and the jobs of two versions of one model."""

    url: str
    flower_url: str
    experiment_id: str
    jobs: tuple[str, str]
    model_ids: tuple[str, str]

    def run(self, tab: str = "", *, job: int = 0) -> str:
        """The page of a job's run, or one of its tabs."""
        return f"{self.url}/#/experiments/{self.experiment_id}/runs/{self.jobs[job]}/{tab}"

    def file(self, path: str) -> str:
        """Where the browser gets a file of the first job's run, as the server keeps it."""
        return f"{self.url}/get-artifact?run_id={self.jobs[0]}&path={path}"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, without a screen.

    One per module: while Playwright is open, the test process cannot run an event loop of its own.
    """
    if not CHROMIUM.exists():
        pytest.skip(f"no {CHROMIUM}: apt install chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield started
        started.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """An empty page that reaches this machine alone."""
    opened = browser.new_page(viewport={"width": 1280, "height": 860})
    opened.add_init_script(_NO_ASSISTANT)
    opened.route(re.compile(r"^https?://(?!127\.0\.0\.1)"), _refuse)
    yield opened
    opened.close()


@pytest.fixture
def keep(page: Page) -> Callable[[str], Path]:
    """Keep a picture of the page under a name."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)

    def take(name: str) -> Path:
        path = SCREENSHOTS / f"{name}.png"
        page.wait_for_timeout(500)  # for what moves into its place
        page.screenshot(path=path)
        return path

    return take


@pytest.fixture(scope="module")
def shown(
    browser: Browser,  # first: without one there is nothing to start
    tmp_path_factory: pytest.TempPathFactory,
    empty_store: Path,
    redis_server: str,
) -> Iterator[Shown]:
    """Two versions of a model, each run over the same reviews, one row of which is refused."""
    assert browser.is_connected()
    folder = tmp_path_factory.mktemp("shown")
    with _system(folder, empty_store, redis_server) as system:
        server = MlflowServer(folder / "mlflow", folder / "mlflow.db")
        server.start(system.environment)
        system.environment["MLFLOW_TRACKING_URI"] = server.url
        flower = Flower(system)
        try:
            yield _run_jobs(system, server.url, flower_url=flower.url)
        finally:
            flower.close()
            server.kill()


@contextmanager
def _system(folder: Path, empty_store: Path, redis_server: str) -> Iterator[System]:
    shutil.copy(empty_store, folder / "mlflow.db")
    redis_py.Redis.from_url(redis_server).flushall()
    with simulated_api("--latency", "0.2", "--latency-spread", "0.4") as simulator:
        environment = {
            **{name: v for name, v in os.environ.items() if not name.startswith("MLFLOW_")},
            "REDIS_URL": redis_server,
            "OPENAI_BASE_URL": simulator.base_url,
            "OPENAI_API_KEY": KEY,
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "BATCH_CONCURRENCY": "12",
        }
        system = System(folder=folder, environment=environment, simulator=simulator)
        try:
            yield system
        finally:
            system.close()


def _run_jobs(system: System, url: str, *, flower_url: str) -> Shown:
    experiment_id, *model_ids = system.python(_LOG_MODELS).split()
    rows = [f"r{n:03d},The battery lasted {n} days" for n in range(ROWS - 1)]
    path = system.folder / "reviews.csv"
    path.write_text("\n".join(["review_id,text", *rows, "r999,[[reject]] this one", ""]))
    system.start_worker()
    jobs = []
    for version in (1, 2):
        done = system.producer(
            "submit", str(path), "--model", f"models:/sentiment/{version}", "--experiment",
            "reviews", "--id-column", "review_id", "--trace", "0.5", "--batch-size", "40", "--wait",
            "--rpm", "2400",
        )  # fmt: skip
        assert done.returncode == 3, done.stderr
        jobs.append(done.stdout.strip())
    return Shown(
        url=url,
        flower_url=flower_url,
        experiment_id=experiment_id,
        jobs=(jobs[0], jobs[1]),
        model_ids=(model_ids[0], model_ids[1]),
    )


_LOG_MODELS = """
import flavor, mlflow

print(mlflow.set_experiment("reviews").experiment_id)
for text in ("Classify the sentiment: {text}", "Is this positive or negative? {text}"):
    logged = flavor.log_model(
        model="gpt-4o-mini",
        task="chat.completions",
        name="sentiment",
        messages=[dict(role="user", content=text)],
        temperature=0,
        registered_model_name="sentiment",
    )
    print(logged.model_id)
"""


def _refuse(route: Route) -> None:
    route.abort()


expect.set_options(timeout=20_000)

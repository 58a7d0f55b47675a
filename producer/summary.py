"""The end of a job on the terminal: its figures, some of its rows, and where to see the rest."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from rich.table import Table

from producer.local import LocalResult
from producer.progress import summary_table
from producer.terminal import console

_UI_PORT = 5000  # source: mlflow ui --help


def print_summary(result: LocalResult) -> None:
    """Figures and links, to stderr; the job's id alone to stdout, for scripts."""
    shown_on = console(stderr=True)
    shown_on.print(summary_table(result.status))
    for line in links(result):
        shown_on.print(line, soft_wrap=True)
    print(result.status.job_id)  # noqa: T201 - the command's output


def links(result: LocalResult) -> list[str]:
    """How to look at the run: a link, and the command that makes it work where no server runs."""
    job_id = result.status.job_id
    lines = [f"results:  {_command('producer')} results {job_id}"]
    if result.run_url is not None:
        return [*lines, f"run:      {result.run_url}"]
    store = result.tracking_uri.replace(f"sqlite:///{Path.cwd()}/", "sqlite:///")
    path = f"#/experiments/{result.experiment_id}/runs/{job_id}"
    return [
        *lines,
        f"run:      http://127.0.0.1:{_UI_PORT}/{path}",
        f"          after: {_command('mlflow')} ui --backend-store-uri {store}",
    ]


def _command(name: str) -> str:
    """How to call a command of this virtual environment, which need not be on the PATH."""
    here = Path(sys.executable).parent
    found = shutil.which(name)
    if found is not None and Path(found).parent == here:
        return name
    return os.path.relpath(here / name)


def print_demo(result: LocalResult) -> None:
    """What ``print_summary`` prints, and the first rows with their answers."""
    title = "the first rows" + (", with SIMULATED answers" if result.is_simulated else "")
    table = Table(title=title, box=None, title_justify="left")
    for name in ("row", "text", "answer", "tokens"):
        table.add_column(name, overflow="ellipsis", no_wrap=name != "text")
    for row in result.preview:
        table.add_row(*(str(row[name]) for name in ("row", "text", "answer", "tokens")))
    console(stderr=True).print(table)
    print_summary(result)

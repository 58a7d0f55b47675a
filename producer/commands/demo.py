"""``producer demo``."""

from __future__ import annotations

import sys

import anyio
import click

from producer.demo import run_demo
from producer.exits import exit_status
from producer.summary import print_demo
from worker.settings import read_settings


@click.command()
def demo() -> None:
    """Run the demo's table of texts through everything on this machine and show the outcome.

    The API is simulated, unless OPENAI_API_KEY says that a real one is wanted.
    """
    result = anyio.run(run_demo, read_settings())
    print_demo(result)
    sys.exit(exit_status(result.status))

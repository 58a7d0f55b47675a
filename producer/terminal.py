"""Tables for people, on the terminal or in a pipe."""

from __future__ import annotations

import sys

from rich.console import Console

_PIPE_WIDTH = 240


def console(*, stderr: bool = False) -> Console:
    """Shows texts as they are: names, reasons and answers may look like markup or an emoji's code.

    In a pipe there is no width to fit: nothing is cut.
    """
    stream = sys.stderr if stderr else sys.stdout
    return Console(
        stderr=stderr,
        width=None if stream.isatty() else _PIPE_WIDTH,
        markup=False,
        emoji=False,
        highlight=False,
    )

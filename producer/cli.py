"""The ``producer`` command. A command's module is imported when it is used: ``--help`` is fast."""

from __future__ import annotations

import sys
from difflib import get_close_matches
from importlib import import_module

import click
from click.exceptions import NoArgsIsHelpError
from click.shell_completion import CompletionItem

from flavor.errors import BatchError, TrackingError

INTERRUPTED = 130  # as shells say it: 128 + SIGINT

# Name -> (module of the command, its line in --help). Said here, so that --help imports nothing.
_COMMANDS = {
    "demo": ("demo", "The whole thing on this machine, with a simulated API."),
    "run": ("run", "Run a job on this machine: Redis and workers included."),
    "submit": ("submit", "Enqueue a job for the workers on REDIS_URL; prints its id."),
    "estimate": ("estimate", "Rows, tokens, money and time of a job, before it is sent."),
    "jobs": ("jobs", "List jobs, newest first."),
    "status": ("status", "How a job stands."),
    "watch": ("watch", "Follow a running job."),
    "cancel": ("cancel", "Finish what is in flight, cancel the rest."),
    "resume": ("resume", "Continue a paused, cancelled or interrupted job."),
    "retry": ("resume", "Send a job's dead rows again."),
    "results": ("results", "The outcomes of a job, in the input's order."),
    "verify": ("verify", "Check an ended job: one outcome per row, true totals."),
    "simulate": ("simulate", "Serve a simulated OpenAI API on loopback."),
}


class _LazyGroup(click.Group):
    """A group whose commands are imported on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """In the order in which a newcomer meets them."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import the command's module and take the command out of it."""
        if cmd_name not in _COMMANDS:
            return None
        module, _ = _COMMANDS[cmd_name]
        command = getattr(import_module(f"producer.commands.{module}"), cmd_name)
        return command if isinstance(command, click.Command) else None

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Commands from the table above: a shell asks at every press of TAB."""
        commands = [
            CompletionItem(name, help=text)
            for name, (_, text) in _COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return commands + super(click.Group, self).shell_complete(ctx, incomplete)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Say what was probably meant by a command that there is not."""
        if args[0] not in _COMMANDS and (close := get_close_matches(args[0], _COMMANDS, n=1)):
            raise click.UsageError(f"no command {args[0]!r}; did you mean {close[0]!r}?", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """From the table above, without importing a command."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="batch-inference-worker")
def cli() -> None:
    """Run an MLflow OpenAI model over a file of texts, by Celery workers, into an MLflow run.

    Exit status: 0 all rows succeeded, 1 an error, 2 wrong usage, 3 completed with dead rows,
    4 paused or cancelled.
    """


def main() -> None:
    """Entry point: an error of ours is one line on stderr and status 1."""
    try:
        cli.main(prog_name="producer", standalone_mode=False)
    except NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        context = error.ctx if isinstance(error, click.UsageError) else None
        see = f"; see {context.command_path} --help" if context else ""
        click.echo(f"error: {error.format_message().rstrip('.')}{see}", err=True)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(INTERRUPTED)
    except TrackingError as error:
        click.echo(f"error: {error}; start MLflow or set MLFLOW_TRACKING_URI", err=True)
        sys.exit(1)
    except BatchError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)

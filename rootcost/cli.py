"""The command `rootcost`.

Exit codes: 0 done, 1 done with problems (or failed), 2 usage, 3 the books do not balance, 130 interrupted.
Every error is one line on stderr, never a traceback; the traceback of an unexpected one is in HOME/rootcost.log.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from rootcost.commands import (
    alerts,
    anomalies,
    audit,
    backup,
    budgets,
    compare,
    erase,
    evidence,
    exchange,
    explain,
    exports,
    facts,
    focus,
    forecast,
    gcp,
    ingestion,
    journal,
    keys,
    periods,
    prices,
    reports,
    roles,
    rules,
    service,
    sources,
    statement,
    users,
    verify,
)
from rootcost.terminal.console import Home, given_home, say

if TYPE_CHECKING:
    from ledger.errors import RootCostError


class ErrorReportingGroup(TyperGroup):
    """Turns exceptions into one line on stderr and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the command; see the module's docstring for the exit codes."""
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort, KeyboardInterrupt, BrokenPipeError, SystemExit):
            raise
        except Exception as error:
            if type(error).__module__.startswith("typer."):
                raise  # a usage error that typer words itself
            raise typer.Exit(_report_error(error)) from error


def _report_error(error: Exception) -> int:
    """Tells the user what went wrong; returns the exit code."""
    from ledger import disk
    from ledger.errors import RootCostError

    if not isinstance(error, RootCostError):
        error = disk.error_of(error, str(getattr(error, "filename", None) or "this machine")) or error
    if isinstance(error, RootCostError):
        say(f"rootcost: {_with_option_names(error)}")
        return error.exit_code
    from rootcost.terminal.console import folder_of, log_to

    home = folder_of(None)
    try:
        import logging

        path = log_to(home)
        logging.getLogger("rootcost").error("unexpected error", exc_info=error)
        location = f"the details are in {path}"
    except OSError:
        location = f"and {home} cannot be written, so there is no log of it"
    say(f"rootcost: unexpected {type(error).__name__}: {_one_line(error)} — {location}")
    return 1


_OPTIONS = {name: f"--{name}" for name in ("by", "view", "granularity", "basis", "month", "source", "severity", "currency")} | {
    "filter": "--where",
    "start": "--from",
    "end": "--to",
}
"""Query parameter to command-line option."""


def _with_option_names(error: RootCostError) -> RootCostError:
    """The error with its location and remedy in command-line options."""
    from ledger.errors import UsageError

    option = _OPTIONS.get(error.where)
    if option is None or not isinstance(error, UsageError):
        return error
    remedy = error.remedy
    if "[start, end)" in remedy:
        remedy = "--to must be later than --from; it is the first day or month not counted"
    elif option == "--where":
        remedy = remedy.replace("write dimension=value, e.g.", "write --where DIM=VALUE, e.g. --where")
    return UsageError(error.what, where=option, remedy=remedy)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else text[:199] + "…"


app = typer.Typer(
    cls=ErrorReportingGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,  # drawn help costs a third of a second on every --help
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(requested: bool) -> None:
    if requested:
        from importlib.metadata import version

        typer.echo(f"rootcost {version('rootcost')}")
        raise typer.Exit


@app.callback(epilog="Start here: rootcost demo")
def _root(
    home: Home = None,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Traces every dollar of an AI bill back to the agent, and the team, that started the work."""
    given_home.set(home)


for part in (
    ingestion,
    sources,
    prices,
    exports,
    gcp,
    exchange,
    users,
    keys,
    facts,
    erase,
    reports,
    roles,
    evidence,
    explain,
    budgets,
    alerts,
    anomalies,
    compare,
    forecast,
    rules,
    periods,
    statement,
    focus,
    journal,
    verify,
    audit,
    backup,
    service,
):
    part.add_to(app)


def main() -> None:
    """Entry point of the command."""
    try:
        app(prog_name="rootcost")
    except BrokenPipeError:
        # The reader of the pipe (head, less) has closed it. Without this, Python's flush at exit would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()

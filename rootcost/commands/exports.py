"""AWS: which cost exports there are, as lines ready to set them up as sources."""

from __future__ import annotations

import re
import shlex
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rootcost.terminal.console import Home, home_of, out, out_rows, say

if TYPE_CHECKING:
    from ingest.sources.aws_cur.exports import Export

Format = Literal["text", "json"]


def add_to(app: typer.Typer) -> None:
    """Registers these commands."""
    aws = typer.Typer(no_args_is_help=True, help="AWS: which bills are exported, and where to.")
    aws.command("exports", epilog="Example: rootcost aws exports | sh")(exports)
    app.add_typer(aws, name="aws")


def exports(output: Annotated[Format, typer.Option("--format", help="text or json.")] = "text", home: Home = None) -> None:
    """List the account's cost exports, each as the `rootcost sources add` that reads it.

    Asks AWS for Data Exports (CUR 2.0, FOCUS) and legacy Cost and Usage Reports, with the credentials of the default chain. Run it in each
    payer account. An export of the same bill in two forms is read once: choose one.
    """
    from ingest.sources.aws_cur import exports as aws_cur_exports

    home_of(home)
    account_exports, errors = aws_cur_exports.exports()
    if output == "json":
        out_rows(asdict(export) | {"add": _line(export, account_exports)} for export in account_exports)
    else:
        for export in account_exports:
            _tell(export, account_exports)
    for error in errors:
        say(f"{error.where}: {error.what}; {error.remedy}. Least-privilege policy:\n{aws_cur_exports.POLICY}")
    bills = [export for export in account_exports if export.source]
    if not account_exports:
        say(
            "This account exports no bill. Create a CUR 2.0 export in Billing and Cost Management, Data Exports, hourly, with resource ids"
        )
    elif len(bills) > 1:
        say("Exports of the same account repeat each other's cost: add one per payer account.")
    if errors:
        raise typer.Exit(1)


def _tell(export: Export, all_found: list[Export]) -> None:
    from ingest.sources.aws_cur.exports import WORTH

    about = [export.table, export.granularity or "", export.file_format or "", export.overwrite or "", export.status]
    if export.refreshed_at:
        about.append(f"refreshed {export.refreshed_at:%Y-%m-%d %H:%M} UTC")
    out(f"# {export.name}: {', '.join(filter(None, about))}")
    line = _line(export, all_found)
    out(line or "# no bill: nothing to read")
    for column in export.lacks:
        say(f"{export.name}: lacks {column}, {WORTH[column]}")


def _line(export: Export, all_found: list[Export]) -> str | None:
    """The command that sets it up; its name is the export's, with the account where two are called alike."""
    if export.source is None:
        return None
    alike = [other for other in all_found if other.name == export.name]
    name = export.name if len(alike) == 1 else f"{export.name}-{export.account or alike.index(export) + 1}"
    return shlex.join(["rootcost", "sources", "add", re.sub(r"[^A-Za-z0-9._-]+", "-", name), export.source, export.uri])

"""Google Cloud: which projects are paid for by which billing account."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Literal

import typer

from rootcost.terminal.console import Home, home_of, out_rows, say, write_table

Format = Literal["table", "json", "csv"]


def add_to(app: typer.Typer) -> None:
    """Registers these commands."""
    gcp = typer.Typer(no_args_is_help=True, help="Google Cloud: what pays for what.")
    gcp.command("projects", epilog="Example: rootcost gcp projects --format json")(projects)
    app.add_typer(gcp, name="gcp")


def projects(
    output: Annotated[Format, typer.Option("--format", help="table, json or csv.")] = "table",
    home: Home = None,
) -> None:
    """List the billing accounts your credentials can see, and the projects each one pays for.

    An account's bill is read from its own export: its table is named after the account, with underscores for dashes.
    """
    from ingest.prices import gcp_catalog

    home_of(home)
    gcp_projects = gcp_catalog.projects()
    rows = [
        asdict(row) | {"export": f"gcp_billing_export_resource_v1_{row.billing_account.replace('-', '_')}"}
        for row in gcp_projects
    ]
    if output == "json":
        out_rows(rows)
    elif output == "csv":
        import polars as pl

        write_table(pl.DataFrame(rows), "csv", None)
    elif rows:
        from rootcost.terminal import tables

        columns = ["billing_account", "account_name", "currency", "account_open", "project", "billing_enabled"]
        tables.draw(tables.table(columns, ({c: row[c] for c in columns} for row in rows)))
    if not rows:
        say("These credentials see no billing account. Grant them roles/billing.viewer on one")
    elif output == "table":
        say(f"Next: rootcost ingest gcp bigquery://PROJECT.DATASET.{rows[0]['export']}")

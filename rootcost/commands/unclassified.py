"""`rootcost sources unclassified`: SKUs of AI services that no rule classifies, by cost, each with a rule to fill in."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ledger.plurals import counted
from rootcost.terminal.console import Home, open_books, out, out_rows, say

if TYPE_CHECKING:
    from collections.abc import Mapping

Format = Literal["table", "toml", "json"]


def unclassified(
    month: Annotated[str, typer.Option(metavar="YYYY-MM", help="Only this invoice month.", show_default=False)] = "",
    limit: Annotated[int, typer.Option(min=1, help="How many SKUs, the dearest first.")] = 50,
    output: Annotated[Format, typer.Option("--format", help="table, toml (the rules alone) or json.")] = "table",
    home: Home = None,
) -> None:
    """List SKUs of AI services that no rule can read, by effective cost, each with a rule to fill in.

    Their cost counts: it stands with its owner, or as unallocated with the reason unclassified_sku. Fill in the rule, put it into
    rootcost.toml, and run rootcost attribute.
    """
    from attribution.monitoring.unclassified import unclassified_skus
    from ledger.periods import month_start
    from rootcost.terminal import tables

    if month:
        month_start(month)
    with open_books(home) as books:
        frame = unclassified_skus(books, [month] if month else None)
    rows = [row | {"rule": rule(row)} for row in frame.head(limit).iter_rows(named=True)]
    if output == "json":
        out_rows(rows)
    elif rows:
        if output == "table":
            columns = ["provider", "service", "sku", "unit", "quantity", "charges", "cost", "currency"]
            tables.draw(
                tables.table(
                    columns, ({c: row[c] for c in columns} for row in rows), money=["cost", "quantity"], numbers=["charges"]
                )
            )
        out("\n".join(row["rule"] for row in rows))
        if frame.height > limit:
            say(f"{frame.height - limit:,} more: --limit {frame.height}")
        say("Next: fill in model, meter and unit, add the rules to rootcost.toml, and run rootcost attribute")
    if not rows:
        say("Every SKU of the AI services is known.")


def rule(row: Mapping[str, Any]) -> str:
    """A rule for one SKU, in TOML, that fits it and nothing else."""
    from ledger import money

    quantity = "" if row["quantity"] is None else f", {money.text(row['quantity'])} {row['unit'] or 'units'}"
    lines = [
        f"# {money.text(row['cost'])} {row['currency']} in {counted(row['charges'], 'charge')}{quantity}",
        "[[attribution.skus]]",
        f"sku = {_quoted(row['sku'])}" if row["sku"] else 'pattern = "^$"  # the bill names none',
        *(f"{key} = {_quoted(row[key])}" for key in ("provider", "service") if row[key]),
        'model = ""  # the model it sells; empty: none',
        f"meter = {_quoted(row['meter'] or '')}  # input_tokens, output_tokens, cache_read_tokens, requests, …; empty: nothing measured",
        'unit = ""  # what one billed unit counts: tokens, 1K tokens, 1M tokens, hours, requests, …; empty: as the bill says',
        "",
    ]
    return "\n".join(lines)


def _quoted(text: str | None) -> str:
    """A TOML string: JSON's escapes are TOML's."""
    return json.dumps(text or "", ensure_ascii=False).replace("\x7f", "\\u007f")

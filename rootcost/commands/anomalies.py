"""Anomalies at the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rootcost.terminal.console import Home, open_books, out, out_rows, say

if TYPE_CHECKING:
    from api.models import AnomalyRow
    from ledger.books import Books

_Format = Annotated[Literal["table", "json"], typer.Option("--format", help="table or json.")]
_Id = Annotated[str, typer.Argument(metavar="ID", help="Id of the anomaly, or how it begins.", show_default=False)]


def add_to(app: typer.Typer) -> None:
    """Registers these commands."""
    anomalies = typer.Typer(no_args_is_help=True, help="Spend that is unlike its own past, and why.")
    anomalies.command("list", epilog="Example: rootcost anomalies list --month 2026-10 --format json")(list_anomalies)
    anomalies.command("show", epilog="Example: rootcost anomalies show 3f2a91 --format json")(show)
    anomalies.command("answer", epilog='Example: rootcost anomalies answer 3f2a91 planned --for 5d --reason "load test"')(answer)
    anomalies.command("mute", epilog='Example: rootcost anomalies mute 3f2a91 --for 2d --reason "migration"')(mute)
    anomalies.command("unmute", epilog="Example: rootcost anomalies unmute 3f2a91")(unmute)
    app.add_typer(anomalies, name="anomalies")


def list_anomalies(
    month: Annotated[str, typer.Option(metavar="YYYY-MM", help="Only those that began in this month.", show_default=False)] = "",
    whole: Annotated[bool, typer.Option("--all", help="Also those that are part of another.")] = False,
    details: Annotated[bool, typer.Option("--details", help="In JSON: id, currency, owner, chains and times as well.")] = False,
    output: _Format = "table",
    home: Home = None,
) -> None:
    """List anomalies, newest first, each with drivers that sum to its impact.

    An agent's spike that is its team's and its model's as well is one anomaly: the agent's; --all lists the others, too.
    """
    from api import queries
    from api.queries import of_operator

    with open_books(home) as books:
        rows = queries.anomalies(of_operator(books), month=month or None).page().rows
    rows = [row for row in rows if whole or row.part_of is None]
    if output == "json":
        out_rows(_contract(row) | (row.model_dump(mode="json") if details else {}) for row in rows)
    elif rows:
        _draw(rows)
    if not rows:
        say("No anomalies.")


def _contract(row: AnomalyRow) -> dict[str, object]:
    """The keys that programs can rely on. Days begin at midnight in the reporting timezone."""
    from ledger.money import text

    return {
        "scope": f"{row.scope}={row.scope_name}",
        "start": row.day.isoformat() if row.start_time is None or row.grain == "day" else row.start_time.isoformat(),
        "kind": row.kind or "spike",
        "actual": text(row.actual),
        "expected": text(row.expected),
        "impact": text(row.excess),
        "drivers": {name: text(amount) for name, amount in row.drivers.items()},
    }


def _draw(rows: list[AnomalyRow]) -> None:
    from ledger.money import readable_amounts
    from rootcost.terminal.tables import draw, table

    cells = (
        {
            "id": (row.anomaly_id or "")[:8],
            "start": row.day.isoformat(),
            "kind": row.kind or "spike",
            "scope": f"{row.scope} {row.scope_name}",
            "actual": row.actual,
            "expected": row.expected,
            "impact": row.excess,
            "currency": row.currency,
            "drivers": ", ".join(f"{name} {readable_amounts(amount)[0]}" for name, amount in list(row.drivers.items())[:3]),
        }
        for row in rows
    )
    columns = ["id", "start", "kind", "scope", "actual", "expected", "impact", "currency", "drivers"]
    draw(table(columns, cells, money=["actual", "expected", "impact"]))


def show(anomaly: _Id, output: _Format = "table", home: Home = None) -> None:
    """Show an anomaly: what it cost, why, whose it is, and what was said of it."""
    from api import queries
    from api.queries import of_operator
    from rootcost.terminal.console import out_json

    with open_books(home) as books:
        row = queries.anomaly(of_operator(books), _whole_id(books, anomaly))
    if output == "json":
        out_json(_contract(row) | row.model_dump(mode="json"))
    else:
        _print(row)


def _print(row: AnomalyRow) -> None:
    from ledger.money import text

    out(f"{row.anomaly_id}  {row.scope} {row.scope_name}: {row.kind or 'spike'} since {row.day}")
    out(f"{row.currency} {text(row.actual)} instead of {text(row.expected)}: {text(row.excess)}")
    for name, amount in row.drivers.items():
        out(f"  {name}  {text(amount)}")
    end = None if row.expected_end is None else f"{row.expected_end:%Y-%m-%d %H:%M} UTC"
    answer_text = f"{row.state} by {row.answered_by}: {row.answer_reason}" if row.answered_by else row.state
    mute_text = f"until {row.muted_until:%Y-%m-%d %H:%M} UTC: {row.mute_reason}" if row.muted_until else ""
    for name, value in (
        ("Chains", row.chain_note),
        ("Dearest", ", ".join(row.chains)),
        ("Owner", row.team),
        ("Ends at the latest" if row.is_open else "Ended", end),
        ("Part of", row.part_of),
        ("State", answer_text),
        ("Muted", mute_text),
    ):
        if value:
            out(f"{name}: {value}")


def answer(
    anomaly: _Id,
    verdict: Annotated[Literal["planned", "false", "fixed"], typer.Argument(help="planned, false or fixed.", show_default=False)],
    reason: Annotated[str, typer.Option("--reason", help="What others should know.", show_default=False)],
    duration: Annotated[
        str, typer.Option("--for", help="How long something planned goes on: 90m, 4h, 2d.", show_default=False)
    ] = "",
    home: Home = None,
) -> None:
    """Say what an anomaly is: planned, false (none: one that is not larger is not told for four weeks), or fixed."""
    from api.anomaly_answers import answer_anomaly
    from api.models import AnomalyAnswer
    from api.queries import of_operator
    from rootcost.terminal.durations import end_of
    from rootcost.terminal.options import validated

    values = {"answer": verdict, "reason": reason, "until": end_of(duration) if duration else None}
    response = validated(AnomalyAnswer, values, {"reason": "--reason", "until": "--for"})
    with open_books(home) as books:
        _print(answer_anomaly(of_operator(books), _whole_id(books, anomaly), response))


def mute(
    anomaly: _Id,
    duration: Annotated[str, typer.Option("--for", help="How long: 90m, 4h, 2d.", show_default=False)],
    reason: Annotated[str, typer.Option("--reason", help="Why nobody is to be told.", show_default=False)],
    home: Home = None,
) -> None:
    """Tell nobody of anomalies of the same agent, team or other scope for a while. They are found and shown."""
    from api.anomaly_answers import mute_anomaly
    from api.models import AnomalyMute
    from api.queries import of_operator
    from rootcost.terminal.durations import end_of
    from rootcost.terminal.options import validated

    terms = validated(AnomalyMute, {"reason": reason, "until": end_of(duration)}, {"reason": "--reason", "until": "--for"})
    with open_books(home) as books:
        row = mute_anomaly(of_operator(books), _whole_id(books, anomaly), terms)
    out(f"{row.subject}: muted until {row.expires_at:%Y-%m-%d %H:%M} UTC; rootcost anomalies unmute {anomaly} ends it")


def unmute(anomaly: _Id, home: Home = None) -> None:
    """Tell of anomalies of the same scope again."""
    from api.anomaly_answers import unmute_anomaly
    from api.queries import of_operator

    with open_books(home) as books:
        unmute_anomaly(of_operator(books), _whole_id(books, anomaly))
    out("Not muted any more")


def _whole_id(books: Books, beginning: str) -> str:
    """The id of the one anomaly that begins so."""
    import polars as pl

    from ledger.tables import ANOMALIES
    from rootcost.terminal.ids import only_one

    begins_so = pl.col("anomaly_id").str.starts_with(beginning)
    ids = books.store.scan(ANOMALIES).filter(begins_so).select("anomaly_id").collect()["anomaly_id"].sort().to_list()
    return only_one(ids, beginning, "anomaly", "rootcost anomalies list")

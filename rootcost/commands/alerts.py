"""Alerts at the command line: listed, answered, muted; receivers listed and tested."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rootcost.terminal.console import Home, open_books, out, out_rows, say

if TYPE_CHECKING:
    from api.models import AlertDeliveryRow, AlertDetail, AlertResponse
    from ledger.books import Books

_Format = Annotated[Literal["table", "json"], typer.Option("--format", help="table or json.")]
_Id = Annotated[str, typer.Argument(metavar="ID", help="Id of the alert, or how it begins.", show_default=False)]
_Text = Annotated[str, typer.Option("--text", help="What others should know.", show_default=False)]


def add_to(app: typer.Typer) -> None:
    """Registers these commands."""
    alerts = typer.Typer(no_args_is_help=True, help="Alerts: what was raised, who was told, and what was answered.")
    alerts.command("list", epilog="Example: rootcost alerts list --state open; rootcost alerts list --dead --format json")(
        list_alerts
    )
    alerts.command("show", epilog="Example: rootcost alerts show 3f2a91")(show)
    alerts.command("channels", epilog="Example: rootcost alerts channels")(channels)
    alerts.command("test", epilog="Example: rootcost alerts test oncall")(try_channels)
    alerts.command("ack", epilog='Example: rootcost alerts ack 3f2a91 --text "looking into it"')(ack)
    alerts.command("snooze", epilog="Example: rootcost alerts snooze 3f2a91 --for 4h")(snooze)
    alerts.command("comment", epilog='Example: rootcost alerts comment 3f2a91 --text "a load test"')(comment)
    alerts.command("resolve", epilog="Example: rootcost alerts resolve 3f2a91")(resolve)
    alerts.command("retry", epilog="Example: rootcost alerts retry 3f2a91")(retry)
    alerts.command("mute", epilog='Example: rootcost alerts mute --team Care --for 2d --reason "planned migration"')(mute)
    alerts.command("mutes", epilog="Example: rootcost alerts mutes")(list_mutes)
    alerts.command("unmute", epilog="Example: rootcost alerts unmute 3")(unmute)
    app.add_typer(alerts, name="alerts")


def list_alerts(
    state: Annotated[
        Literal["", "open", "acknowledged", "resolved", "withdrawn"], typer.Option(help="Only in this state.", show_default=False)
    ] = "",
    kind: Annotated[str, typer.Option(help="Only of this kind: budget, anomaly, runaway, …", show_default=False)] = "",
    dead: Annotated[bool, typer.Option("--dead", help="Instead: messages that were given up.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 100,
    output: _Format = "table",
    home: Home = None,
) -> None:
    """List alerts, newest first."""
    from api.queries import alert_rows as queries
    from api.queries import of_operator
    from rootcost.terminal.tables import draw, table

    with open_books(home) as books:
        reader = of_operator(books)
        if dead:
            _draw_deliveries(queries.deliveries(reader, state="dead").page(limit=limit).rows, output)
            return
        rows = queries.alerts(reader, state=state or None, kind=kind or None).page(limit=limit).rows
    if output == "json":
        out_rows(row.model_dump(mode="json") for row in rows)
    elif rows:
        cells = (
            {
                "id": row.alert_id[:8],
                "raised": f"{row.created_at:%Y-%m-%d %H:%M}",
                "kind": row.kind,
                "severity": row.severity,
                "state": row.state,
                "text": row.text,
                "delivery": "delivered" if row.delivered_at else row.last_error or "waits",
            }
            for row in rows
        )
        draw(table(["id", "raised", "kind", "severity", "state", "text", "delivery"], cells))
    if not rows:
        say("No alerts.")


def _draw_deliveries(rows: list[AlertDeliveryRow], output: str) -> None:
    from rootcost.terminal.tables import draw, table

    if output == "json":
        out_rows(row.model_dump(mode="json") for row in rows)
    elif rows:
        cells = (
            {
                "alert": row.alert_id[:8],
                "channel": row.channel,
                "tells": row.step,
                "state": row.state,
                "attempts": row.attempts,
                "due": f"{row.due_at:%Y-%m-%d %H:%M:%S}",
                "error": row.error,
            }
            for row in rows
        )
        draw(table(["alert", "channel", "tells", "state", "attempts", "due", "error"], cells, numbers=["attempts"]))
    if not rows:
        say("No such message.")


def show(alert: _Id, output: _Format = "table", home: Home = None) -> None:
    """Show an alert: figures, history, and who was told."""
    from api.queries import alert_rows as queries
    from api.queries import of_operator
    from rootcost.terminal.console import out_json

    with open_books(home) as books:
        detail = queries.alert(of_operator(books), _whole_id(books, alert))
    if output == "json":
        out_json(detail.model_dump(mode="json"))
        return
    _print(detail)
    if detail.deliveries:
        _draw_deliveries(detail.deliveries, "table")


def _print(detail: AlertDetail) -> None:
    out(f"{detail.alert_id}  {detail.kind}, {detail.severity}, {detail.state}")
    out(detail.text)
    for name, value in (
        ("Figure", detail.figure),
        ("Limit", detail.limit_text),
        ("Team", detail.team),
        ("Chain", detail.chain_id),
    ):
        if value:
            out(f"{name}: {value}")
    if detail.next_step:
        out(f"Next step: {detail.next_step}")
    for event in detail.events:
        out(f"{event.at:%Y-%m-%d %H:%M:%S} {event.step} by {event.actor}{f': {event.text}' if event.text else ''}")


def channels(output: _Format = "table", home: Home = None) -> None:
    """List receivers of alerts, and how they do."""
    from api.queries import alert_rows as queries
    from api.queries import of_operator
    from rootcost.terminal.tables import draw, table

    with open_books(home) as books:
        rows = queries.channels(of_operator(books))
    if output == "json":
        out_rows(row.model_dump(mode="json") for row in rows)
    elif rows:
        cells = ({**row.model_dump(), "teams": ", ".join(row.teams) or "all"} for row in rows)
        draw(table(["name", "kind", "teams", "state", "waiting", "dead", "error"], cells, numbers=["waiting", "dead"]))
    if not rows:
        say("No receiver is set up: alerts are on the dashboard only. See alerts.channels in docs/configuration.md")


def try_channels(
    channel: Annotated[str, typer.Argument(help="Name of the channel. Default: all of them.", show_default=False)] = "",
    home: Home = None,
) -> None:
    """Send a test to a receiver, or to all, through the whole outbox. Exit code 1 if one did not accept it."""
    from api.alert_responses import try_channel
    from api.queries import alert_rows as queries
    from api.queries import of_operator
    from ledger.errors import UsageError
    from rootcost.alerting.dispatch import Dispatcher

    with open_books(home) as books:
        names = [channel] if channel else [receiver.name for receiver in books.settings.alerts.receivers()]
        if not names:
            raise UsageError("no receiver is set up", where="alerts.channels", remedy="see docs/alerts.md")
        writer = of_operator(books)
        tests = [(name, try_channel(writer, name)) for name in names]
        Dispatcher(books).dispatch()
        is_whole = True
        for name, test in tests:
            for delivery in queries.alert(writer, test.alert_id).deliveries:
                result = "accepted" if delivery.state == "sent" else f"{delivery.state}: {delivery.error}"
                out(f"{name}: {result}")
                is_whole &= delivery.state == "sent"
    if not is_whole:
        raise typer.Exit(1)


def ack(alert: _Id, text: _Text = "", home: Home = None) -> None:
    """Acknowledge an alert: you have taken it up, and it is not escalated any more."""
    _respond(home, alert, "acknowledge", text=text)


def snooze(
    alert: _Id,
    duration: Annotated[str, typer.Option("--for", help="How long: 90m, 4h, 2d.", show_default=False)],
    text: _Text = "",
    home: Home = None,
) -> None:
    """Send nothing about an alert for a while."""
    from rootcost.terminal.durations import end_of

    _respond(home, alert, "snooze", text=text, until=end_of(duration))


def comment(alert: _Id, text: Annotated[str, typer.Option("--text", help="What others should know.")], home: Home = None) -> None:
    """Comment on an alert. Nobody is told."""
    _respond(home, alert, "comment", text=text)


def resolve(alert: _Id, text: _Text = "", home: Home = None) -> None:
    """Say that it is over. Who was told of the alert is told that."""
    _respond(home, alert, "resolve", text=text)


def retry(alert: _Id, home: Home = None) -> None:
    """Send messages about an alert again that were given up, with the ids that they had."""
    _respond(home, alert, "retry")


def mute(
    duration: Annotated[str, typer.Option("--for", help="How long: 90m, 4h, 2d.", show_default=False)],
    reason: Annotated[str, typer.Option("--reason", help="Why nobody is to be told.", show_default=False)],
    kind: Annotated[str, typer.Option(help="Only this kind of alert.", show_default=False)] = "",
    team: Annotated[str, typer.Option(help="Only alerts of this team.", show_default=False)] = "",
    subject: Annotated[str, typer.Option(help="Only this subject.", show_default=False)] = "",
    home: Home = None,
) -> None:
    """Mute alerts for a while: they are raised and shown, and nobody is told."""
    from api.alert_responses import add_mute
    from api.models import NewMute
    from api.queries import of_operator
    from rootcost.terminal.durations import end_of

    with open_books(home) as books:
        row = add_mute(of_operator(books), NewMute(kind=kind, team=team, subject=subject, reason=reason, until=end_of(duration)))
    out(f"Muted until {row.expires_at:%Y-%m-%d %H:%M} UTC; rootcost alerts unmute {row.id} ends it")


def list_mutes(output: _Format = "table", home: Home = None) -> None:
    """List mutes in force."""
    from api.queries import alert_rows as queries
    from api.queries import of_operator
    from rootcost.terminal.tables import draw, table

    with open_books(home) as books:
        rows = queries.mutes(of_operator(books))
    if output == "json":
        out_rows(row.model_dump(mode="json") for row in rows)
    elif rows:
        cells = ({**row.model_dump(), "until": f"{row.expires_at:%Y-%m-%d %H:%M}"} for row in rows)
        draw(table(["id", "kind", "team", "subject", "reason", "created_by", "until"], cells))
    if not rows:
        say("Nothing is muted.")


def unmute(number: Annotated[int, typer.Argument(help="Number of the mute.", show_default=False)], home: Home = None) -> None:
    """End a mute now."""
    from api.alert_responses import end_mute
    from api.queries import of_operator

    with open_books(home) as books:
        end_mute(of_operator(books), number)
    say("Ended: what is raised from now on is told")


def _respond(
    home: Home, alert: str, action: Literal["acknowledge", "snooze", "comment", "resolve", "retry"], *, text: str = "",
    until: datetime | None = None,
) -> None:  # fmt: skip
    from api.alert_responses import respond
    from api.models import AlertResponse
    from api.queries import of_operator

    response: AlertResponse = AlertResponse(action=action, text=text, until=until)
    with open_books(home) as books:
        _print(respond(of_operator(books), _whole_id(books, alert), response))


def _whole_id(books: Books, beginning: str) -> str:
    """The id of the one alert that begins so."""
    import sqlalchemy as sa

    from ledger.db import Alert
    from rootcost.terminal.ids import only_one

    with books.database.session() as session:
        begins_so = Alert.alert_id.startswith(beginning, autoescape=True)
        ids = session.scalars(sa.select(Alert.alert_id).where(begins_so).limit(3)).all()
    return only_one(ids, beginning, "alert", "rootcost alerts list")

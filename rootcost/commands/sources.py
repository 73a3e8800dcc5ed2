"""Scheduled sources: add, test, run, pause, and list them and their runs."""

from __future__ import annotations

import re
from datetime import timedelta
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ingest.sources import discover
from rootcost.commands.gaps import gaps
from rootcost.terminal.console import Home, log_to, open_books, out, out_json, out_rows, say, steps

if TYPE_CHECKING:
    from ingest.source import Window
    from ledger.books import Books
    from ledger.db import ConfiguredSource

Format = Annotated[Literal["table", "json"], typer.Option("--format", help="table or json.")]
Name = Annotated[str, typer.Argument(help="Its name.", show_default=False)]

ACTOR = "cli"
_UNCLASSIFIED = "rootcost.commands.unclassified"
_LENGTH = re.compile(r"(\d+)\s*([mhd])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def add_to(app: typer.Typer) -> None:
    """Registers these commands."""
    sources = typer.Typer(no_args_is_help=True, help="Bills and logs that `rootcost serve` reads by itself, on schedule.")
    for command, example in (
        (add, "add aws-prod aws-cur s3://billing/exports/company-cur2/ --cron '15 */6 * * *'"),
        (list_all, "list --format json"),
        (try_out, "test aws-prod"),
        (run, "run aws-prod"),
        (backfill, "backfill openai --from 2026-01 --to 2026-04"),
        (pause, "pause aws-prod"),
        (resume, "resume aws-prod"),
        (remove, "remove aws-prod"),
        (history, "history aws-prod"),
        (kinds, "kinds aws-cur"),
        (gaps, "gaps --from 2026-10-05 --to 2026-10-06"),
    ):
        sources.command(example.split()[0], epilog=f"Example: rootcost sources {example}")(command)
    if find_spec(_UNCLASSIFIED):
        command = import_module(_UNCLASSIFIED).unclassified
        sources.command("unclassified", epilog="Example: rootcost sources unclassified --format json")(command)
    app.add_typer(sources, name="sources")


def add(
    name: Annotated[str, typer.Argument(help="What you call it, e.g. aws-prod.", show_default=False)],
    source: Annotated[str, typer.Argument(help=f"What it is: {', '.join(discover())}.", show_default=False)],
    uris: Annotated[
        list[str] | None,
        typer.Argument(
            help="Where it lies: files, folders, globs, s3://bucket/prefix, a provider's address; none: watch what the receivers take of it.",
            show_default=False,
        ),
    ] = None,
    cron: Annotated[
        str,
        typer.Option(help="When it is read, in UTC: minute hour day month weekday. Default: as often as its kind is worth it."),
    ] = "",
    scope: Annotated[str, typer.Option(help="Name of the dataset, for bills whose location does not name it.")] = "",
    lag: Annotated[
        str, typer.Option(help="How old its newest row may be before that is worth an alert: 90m, 36h, 3d. Default: by kind.")
    ] = "",
    output: Format = "table",
    home: Home = None,
) -> None:
    """Set up a source. `rootcost serve` reads it from its next tick on; a running one knows within seconds.

    Credentials are not stored: the serving process takes them from its environment. `rootcost sources kinds` says which each needs.
    """
    from ingest.sources import by_name
    from ledger import sources as configured_sources
    from ledger.errors import UsageError
    from ledger.periods import now
    from rootcost.service.cron import longest_pause

    kind = by_name(source)
    if not uris and kind.kind == "bill":
        raise UsageError("a bill needs an address", where="URIS", remedy=f"e.g. {', '.join(kind.access.addresses)}")
    if scope and kind.kind == "log":
        raise UsageError("only bills have datasets", where="--scope", remedy="leave it out")
    ticks = (cron or kind.access.cron) if uris else ""
    expected_lag = _length(lag) if lag else kind.access.lag
    pause = longest_pause(ticks, after=now()) if ticks else timedelta(0)
    with open_books(home) as books:
        source_row = configured_sources.add(
            books, name, source=kind.name, kind=kind.kind, uris=[_absolute(uri) for uri in uris or ()], scope=scope or None,
            cron=ticks, pause=pause, lag=expected_lag, actor=ACTOR,
        )  # fmt: skip
        _show(books, source_row, output)
    if uris:
        say(
            f"Next: rootcost sources test {name}; it is read at its ticks while rootcost serve runs, or at once by rootcost sources run {name}"
        )


def list_all(output: Format = "table", home: Home = None) -> None:
    """List the sources: when each is due, how fresh it is, and what its last run brought."""
    from api import queries
    from api.queries import of_operator

    with open_books(home) as books:
        rows = queries.sources(of_operator(books))
    if output == "json":
        out_rows(row.model_dump() for row in rows)
    elif rows:
        from rootcost.terminal import sources as source_tables

        source_tables.sources(rows)
    else:
        say("No source is configured. Next: rootcost sources add NAME SOURCE URI")


def try_out(
    name: Annotated[str, typer.Argument(help="Its name; all of them by default.", show_default=False)] = "",
    output: Format = "table",
    home: Home = None,
) -> None:
    """Try sources out: credentials, reach and a first page. Nothing is booked.

    What is missing is said in a sentence, with the least-privilege policy to paste on stdout.
    """
    from ingest.probe import probe
    from ingest.sources import by_name
    from ledger import sources as configured_sources

    results: list[dict[str, object]] = []
    policies: dict[str, str] = {}
    any_failed = False
    with open_books(home) as books:
        selection = [configured_sources.find(books, name)] if name else configured_sources.list_sources(books)
        for source in selection:
            kind = by_name(source.source)
            for uri in source.uris:
                result = probe(books, kind, uri)
                any_failed |= not result.ok
                results.append(
                    {"name": source.name, "source": source.source, "address": uri, "ok": result.ok, "told": result.message, "rows": result.rows,
                     "newest": result.newest, "remarks": result.problem_rows, "needs": kind.access.needs, "policy": kind.access.policy}
                )  # fmt: skip
                if output == "table" and result.ok:
                    newest = f", the newest of {result.newest:%Y-%m-%d %H:%M} UTC" if result.newest else ""
                    out(f"{source.name}: {uri} {result.message}{newest}")
                elif output == "table":
                    needs = f". It needs {kind.access.needs}" if "://" in uri else ""
                    say(f"{source.name}: {uri} cannot be read: {result.message}{needs}.")
                    if needs and kind.access.policy:
                        policies[kind.access.policy] = source.source
            if not source.uris and output == "table":
                say(f"{source.name}: is watched only; nothing to try")
    if output == "json":
        out_json(results)
    for policy, source_name in policies.items():
        say(f"Least privilege for {source_name}; put your own names in:")
        out(policy)
    if not selection:
        say("No source is configured. Next: rootcost sources add NAME SOURCE URI")
    if any_failed:
        raise typer.Exit(1)


def run(name: Name, output: Format = "table", home: Home = None) -> None:
    """Read a source now, whatever its schedule says, as far as it has not been read yet."""
    _read(home, name, None, output)


def backfill(
    name: Name,
    start: Annotated[str, typer.Option("--from", help="First day or month to read again, e.g. 2026-01.", show_default=False)],
    end: Annotated[str, typer.Option("--to", help="First day or month not to. Default: until now.", show_default=False)] = "",
    output: Format = "table",
    home: Home = None,
) -> None:
    """Read days of a source again, whatever was read before: rows that are known already change nothing.

    Bills and logs that lie in files are read as far as they are there; a provider is asked for exactly these days.
    """
    from ingest.source import Window
    from ledger.errors import UsageError
    from ledger.periods import now, parse_instant

    since = parse_instant(start, field="--from").date()
    until = parse_instant(end, field="--to").date() if end else None
    if since > now().date():
        raise UsageError(f"{start} has not come yet", where="--from", remedy="name a day or month that has")
    if until is not None and until <= since:
        raise UsageError("the range is empty", where="--to", remedy="--to is the first day or month not read")
    _read(home, name, Window(since, until), output)


def pause(name: Name, output: Format = "table", home: Home = None) -> None:
    """Leave a source alone until `rootcost sources resume`. A running `rootcost serve` knows within seconds."""
    _pause(home, name, output, pausing=True)


def resume(name: Name, output: Format = "table", home: Home = None) -> None:
    """Read a source by its schedule again, from its next tick on."""
    _pause(home, name, output, pausing=False)


def remove(name: Name, home: Home = None) -> None:
    """Take a source off the schedule. What it brought, and the history of its runs, stay."""
    from ledger import sources as configured_sources

    with open_books(home) as books:
        configured_sources.remove(books, name, actor=ACTOR)
    say(f"Removed: {name}. Its rows and its history are kept.")


def history(
    name: Annotated[str, typer.Argument(help="Its name; all of them by default.", show_default=False)] = "",
    limit: Annotated[int, typer.Option(min=1, help="Most runs to list.")] = 20,
    output: Format = "table",
    home: Home = None,
) -> None:
    """List runs, newest first: rows, money in, duration and lag of each."""
    from api import queries
    from api.queries import of_operator

    with open_books(home) as books:
        page = queries.source_runs(of_operator(books), name or None).page(limit=limit)
    if output == "json":
        out_rows(row.model_dump() for row in page.rows)
    elif page.rows:
        from rootcost.terminal import sources as source_tables

        source_tables.runs(page.rows, total=page.total)
    else:
        say("No source has been read yet. Next: rootcost sources run NAME, or rootcost serve")


def kinds(
    source: Annotated[str, typer.Argument(help="One of them; all by default.", show_default=False)] = "",
    output: Format = "table",
    home: Home = None,
) -> None:
    """List what can be a source: what to name, which credentials it needs, and the policy to paste."""
    from ingest.sources import by_name
    from rootcost.terminal.console import home_of

    home_of(home)
    selection = [by_name(name) for name in ([source] if source else discover())]
    rows = [
        {"source": s.name, "kind": s.kind, "title": s.title, "addresses": list(s.access.addresses), "cron": s.access.cron,
         "lag_seconds": int(s.access.lag.total_seconds()), "needs": s.access.needs, "policy": s.access.policy}
        for s in selection
    ]  # fmt: skip
    if output == "json":
        out_json(rows)
        return
    from rootcost.terminal import sources as source_tables

    source_tables.kinds(rows, whole=bool(source))


def _read(home: object, name: str, window: Window | None, output: str) -> None:
    from pathlib import Path

    from api import queries
    from api.queries import of_operator
    from ledger import sources as configured_sources
    from rootcost.service.source_runs import BACKFILL, BY_HAND, read_source
    from rootcost.terminal import run_reports
    from rootcost.terminal import sources as source_tables

    assert home is None or isinstance(home, Path)
    with open_books(home) as books, steps() as progress:
        log_to(books.home)  # the traceback of an unexpected error goes to this log
        finished_run = read_source(
            books,
            configured_sources.find(books, name),
            cause=BACKFILL if window else BY_HAND,
            window=window,
            progress=progress.of("Reading"),
            waiting=lambda: say("Waiting for another rootcost process that reads sources of this kind …"),
        )
        row = next(r for r in queries.source_runs(of_operator(books), name).page(limit=200).rows if r.run == finished_run.run.id)
    if output == "json":
        out_json(row.model_dump())
    else:
        if finished_run.report is not None:
            run_reports.ingested(finished_run.report)
        source_tables.runs([row], total=1)
    if row.rows_changed:
        say("Next: rootcost attribute, unless rootcost serve runs")
    if row.status != "done":
        say(f"rootcost: {name}: {row.error}" if row.error else "Next: rootcost problems")
        raise typer.Exit(1)


def _pause(home: object, name: str, output: str, *, pausing: bool) -> None:
    from pathlib import Path

    from ledger import sources as configured_sources

    assert home is None or isinstance(home, Path)
    with open_books(home) as books:
        _show(books, configured_sources.pause(books, name, paused=pausing, actor=ACTOR), output)


def _show(books: Books, source: ConfiguredSource, output: str) -> None:
    from api import queries
    from api.queries import of_operator
    from rootcost.terminal import sources as source_tables

    row = next(row for row in queries.sources(of_operator(books)) if row.name == source.name)
    if output == "json":
        out_json(row.model_dump())
    else:
        source_tables.sources([row])


def _absolute(uri: str) -> str:
    """Absolute path of a local URI, so that it does not depend on the server's working folder."""
    from pathlib import Path

    return uri if "://" in uri else str(Path(uri).expanduser().absolute())


def _length(text: str) -> timedelta:
    """A length of time.

    >>> _length("36h"), _length("3 d")
    (datetime.timedelta(days=1, seconds=43200), datetime.timedelta(days=3))
    """
    from ledger.errors import UsageError

    match = _LENGTH.fullmatch(text.strip().lower())
    if match is None or not int(match.group(1)):
        raise UsageError(f"{text!r} is no length of time", where="--lag", remedy="write 90m, 36h or 3d")
    return timedelta(**{_UNITS[match.group(2)]: int(match.group(1))})

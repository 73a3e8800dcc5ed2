"""Scheduled sources: add, test, run, pause, and list them and their runs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ingest.sources import discover
from rootcost.commands.gaps import gaps
from rootcost.terminal.console import Home, log_to, open_books, out, out_json, out_rows, say, steps

if TYPE_CHECKING:
    from api.models import SourceStatus

Format = Annotated[Literal["table", "json"], typer.Option("--format", help="table or json.")]
Name = Annotated[str, typer.Argument(help="Its name.", show_default=False)]

_OPTIONS = {"name": "NAME", "source": "SOURCE", "addresses": "URIS", "cron": "--cron", "scope": "--scope", "expected_lag_seconds": "--lag",
            "since": "--from", "until": "--to"}  # fmt: skip
_UNCLASSIFIED = "rootcost.commands.unclassified"
_LENGTH = re.compile(r"(\d+)\s*([mhd])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def add_to(app: typer.Typer) -> None:
    """Registers these commands."""
    sources = typer.Typer(no_args_is_help=True, help="Bills and logs that `rootcost serve` reads by itself, on schedule.")
    for command, example in (
        (add, "add aws-prod aws-cur s3://billing/exports/company-cur2/ --cron '15 */6 * * *'"),
        (change, "change aws-prod --cron @daily"),
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

    The serving process takes credentials from its environment; `rootcost sources kinds` says which each needs. A secret in an address is kept in
    a file for you only, HOME/secrets/NAME.json, and shown nowhere; ${VARIABLE} in an address is read from the environment instead.
    """
    from api.models import NewSource
    from api.queries import of_operator
    from rootcost.operations import sources
    from rootcost.terminal.options import fields_as, validated

    typed_values = {"name": name, "source": source} | _typed_terms(uris or [], cron, scope, lag)
    new_source = validated(NewSource, typed_values, _OPTIONS)
    with open_books(home) as books, fields_as(_OPTIONS):
        _show(sources.add(of_operator(books), new_source), output)
    if uris:
        say(
            f"Next: rootcost sources test {name}; it is read at its ticks while rootcost serve runs, or at once by rootcost sources run {name}"
        )


def change(
    name: Name,
    uris: Annotated[list[str] | None, typer.Argument(help="Where it lies now. Default: as before.", show_default=False)] = None,
    cron: Annotated[str, typer.Option(help="When it is read from now on, in UTC. Default: as before.")] = "",
    scope: Annotated[str, typer.Option(help="Name of the dataset from now on. Default: as before.")] = "",
    lag: Annotated[str, typer.Option(help="How old its newest row may be from now on: 90m, 36h, 3d. Default: as before.")] = "",
    output: Format = "table",
    home: Home = None,
) -> None:
    """Give a source other terms. Its kind, its history and what it brought stay."""
    from api import queries
    from api.models import SourceTerms
    from api.queries import of_operator
    from rootcost.operations import sources
    from rootcost.terminal.options import fields_as, validated

    with open_books(home) as books, fields_as(_OPTIONS):
        before = queries.source(of_operator(books), name)
        typed_values = {key: value for key, value in _typed_terms(uris or [], cron, scope, lag).items() if value}
        earlier_values = {key: getattr(before, key) for key in SourceTerms.model_fields}
        terms = validated(SourceTerms, earlier_values | {"cron": before.cron or None} | typed_values, _OPTIONS)
        _show(sources.change(of_operator(books), name, terms), output)


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
    from api.queries import of_operator
    from ledger import sources as configured_sources
    from rootcost.operations import sources
    from rootcost.terminal.options import fields_as

    results: list[dict[str, object]] = []
    policies: dict[str, str] = {}
    any_failed = False
    with open_books(home) as books, fields_as(_OPTIONS):
        selection = [configured_sources.find(books, name)] if name else configured_sources.list_sources(books)
        for source in selection:
            for test in sources.test_configured(of_operator(books), source.name):
                any_failed |= not test.ok
                results.append(
                    {"name": source.name, "source": source.source, "address": test.address, "ok": test.ok, "told": test.message, "rows": test.rows,
                     "newest": test.newest, "remarks": test.problem_rows, "needs": test.needs, "policy": test.policy}
                )  # fmt: skip
                if output == "table" and test.ok:
                    newest = f", the newest of {test.newest:%Y-%m-%d %H:%M} UTC" if test.newest else ""
                    out(f"{source.name}: {test.address} {test.message}{newest}")
                elif output == "table":
                    needs = f". It needs {test.needs}" if "://" in test.address else ""
                    say(f"{source.name}: {test.address} cannot be read: {test.message}{needs}.")
                    if needs and test.policy:
                        policies[test.policy] = source.source
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
    _read(home, name, {}, output)


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
    _read(home, name, {"since": start, "until": end or None}, output)


def pause(name: Name, output: Format = "table", home: Home = None) -> None:
    """Leave a source alone until `rootcost sources resume`. A running `rootcost serve` knows within seconds."""
    _pause(home, name, output, pausing=True)


def resume(name: Name, output: Format = "table", home: Home = None) -> None:
    """Read a source by its schedule again, from its next tick on."""
    _pause(home, name, output, pausing=False)


def remove(name: Name, home: Home = None) -> None:
    """Take a source off the schedule. What it brought, and the history of its runs, stay."""
    from api.queries import of_operator
    from rootcost.operations import sources
    from rootcost.terminal.options import fields_as

    with open_books(home) as books, fields_as(_OPTIONS):
        sources.remove(of_operator(books), name)
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
    from rootcost.terminal.options import fields_as

    with open_books(home) as books, fields_as(_OPTIONS):
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
    from rootcost.operations import sources
    from rootcost.terminal.console import home_of

    home_of(home)
    name = by_name(source).name if source else ""
    rows = [kind.model_dump() for kind in sources.kinds() if not name or kind.source == name]
    if output == "json":
        out_json(rows)
        return
    from rootcost.terminal import sources as source_tables

    source_tables.kinds(rows, whole=bool(source))


def _read(home: Path | None, name: str, days: Mapping[str, str | None], output: str) -> None:
    from api import queries
    from api.models import RunRequest
    from api.queries import of_operator
    from rootcost.operations import sources
    from rootcost.operations.source_runs import BACKFILL, BY_HAND, read_source
    from rootcost.terminal import run_reports
    from rootcost.terminal import sources as source_tables
    from rootcost.terminal.options import fields_as, validated

    with open_books(home) as books, steps() as progress:
        log_to(books.home)  # the traceback of an unexpected error goes to this log
        with fields_as(_OPTIONS):
            window = sources.window_of(validated(RunRequest, days, _OPTIONS))
            source = sources.asked_for(of_operator(books), name, window)
        finished_run = read_source(
            books,
            source,
            cause=BACKFILL if window else BY_HAND,
            window=window,
            progress=progress.of("Reading"),
            waiting=lambda: say("Waiting for another rootcost process that reads sources of this kind …"),
        )
        row = queries.source_run(of_operator(books), finished_run.run.id)
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


def _pause(home: Path | None, name: str, output: str, *, pausing: bool) -> None:
    from api import queries
    from api.models import ScheduleChange
    from api.queries import of_operator
    from rootcost.operations import sources
    from rootcost.terminal.options import fields_as

    with open_books(home) as books, fields_as(_OPTIONS):
        sources.reschedule(of_operator(books), name, ScheduleChange(paused=pausing))
        _show(queries.source(of_operator(books), name), output)


def _show(source: SourceStatus, output: str) -> None:
    from rootcost.terminal import sources as source_tables

    if output == "json":
        out_json(source.model_dump())
    else:
        source_tables.sources([source])


def _typed_terms(uris: Sequence[str], cron: str, scope: str, lag: str) -> dict[str, object]:
    """The terms of a source as they were typed, by the names of the API."""
    return {
        "addresses": [_absolute(uri) for uri in uris],
        "cron": cron or None,
        "scope": scope or None,
        "expected_lag_seconds": int(_length(lag).total_seconds()) if lag else None,
    }


def _absolute(uri: str) -> str:
    """Absolute path of a local URI, so that it does not depend on the server's working folder."""
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

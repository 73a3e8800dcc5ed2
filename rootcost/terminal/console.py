"""Output of commands: results on stdout, everything else on stderr.

Machine-readable output is a contract, so stdout carries nothing but it. Progress and colour are for people: they appear on a
terminal only, and NO_COLOR is respected (by rich).
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import polars as pl
    from rich.console import Console
    from rich.progress import Progress

    from ledger.books import Books

Home = Annotated[
    Path | None,
    typer.Option(
        "--home", metavar="DIR", help="Folder of the ledger. Also: ROOTCOST_HOME. Default: .rootcost", show_default=False
    ),
]
"""The option every command takes; `rootcost --home DIR command` means the same."""

given_home: ContextVar[Path | None] = ContextVar("given_home", default=None)
"""`--home` as it stood before the command's name."""


def home_of(home: Path | None) -> Path | None:
    """The value of `--home`, given before or after the command's name."""
    if home is not None:
        given_home.set(home)  # errors are logged there too
    return given_home.get()


def folder_of(home: Path | None) -> Path:
    """The home folder: `--home`, else ROOTCOST_HOME, else `.rootcost`."""
    import os

    return home_of(home) or Path(os.environ.get("ROOTCOST_HOME") or ".rootcost")


@contextlib.contextmanager
def open_books(home: Path | None) -> Iterator[Books]:
    """The books of a command, closed at its end."""
    from ledger.books import Books

    with Books.open(home_of(home)) as books:
        tell_of_privacy(books.home)
        for repair in books.repairs:
            say(f"rootcost: {repair.uri}: {repair.reason} — {repair.remedy}")
        yield books


def tell_of_privacy(home: Path) -> None:
    """Says once that a home folder was closed to the machine's other users."""
    from ledger.private import was_closed_now

    if was_closed_now(home):
        say(f"{home}: other users of this machine could read it; now only you can.")


def say(text: str = "") -> None:
    """A remark for the person at the terminal: stderr."""
    from ledger.addresses import masked
    from rootcost.terminal.printable import printable

    typer.echo(masked(printable(text)), err=True)


def out(text: str) -> None:
    """A result: stdout."""
    from rootcost.terminal.printable import printable

    typer.echo(printable(text))


def terminal(*, stderr: bool = False) -> Console:
    """A rich console; where there is no terminal it is wide, so that tables piped into a file are not cut."""
    from rootcost.terminal.terminal_console import TerminalConsole

    stream = sys.stderr if stderr else sys.stdout
    return TerminalConsole(file=stream, highlight=False, width=None if stream.isatty() else 220)


def plain(value: object) -> Any:
    """A value as JSON and CSV carry it: money as plain digits, times in ISO 8601.

    >>> plain(Decimal("0.018000000000")), plain(None), plain([Decimal(1)])
    ('0.018', None, ['1'])
    """
    from ledger import money

    if isinstance(value, Decimal):
        return money.text(value)
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value


def out_json(value: object) -> None:
    """One JSON document on stdout."""
    from rootcost.terminal.printable import printable_json

    out(printable_json(json.dumps(plain(value), indent=2, ensure_ascii=False)))


def out_rows(rows: Iterable[Mapping[str, object]]) -> None:
    """A JSON list on stdout, one row a line, so that a reader and a diff both see rows.

    >>> out_rows([{"agent": "bot", "cost": Decimal("0.0180")}])
    [
      {"agent": "bot", "cost": "0.018"}
    ]
    """
    from rootcost.terminal.printable import printable_json

    lines = [printable_json(json.dumps(plain(row), ensure_ascii=False)) for row in rows]
    out("[\n  " + ",\n  ".join(lines) + "\n]" if lines else "[]")


def write_table(frame: pl.DataFrame, file_format: str, path: Path | None) -> None:
    """A frame as CSV or Parquet, to a file or to stdout. Decimals stay exact in both."""
    from ledger.errors import UsageError

    if path is None and file_format == "parquet" and sys.stdout.isatty():
        raise UsageError("Parquet is binary", where="--format parquet", remedy="add --output FILE, or pipe it somewhere")
    if file_format == "parquet":
        _write(path, _parquet(frame))
    else:
        _write(path, _in_plain_digits(frame).write_csv().encode())


def write_text(text: str, path: Path | None) -> None:
    """Text to a file, or to stdout."""
    if path is None:
        out(text)
    else:
        _write(path, text.encode() + b"\n")


def write_bytes(content: bytes, path: Path | None, *, is_binary: bool = False) -> None:
    """A file, or its content to stdout, but for binary content to a terminal."""
    from ledger.errors import UsageError

    if path is None and is_binary and sys.stdout.isatty():
        raise UsageError("the file is binary", where="--format", remedy="add --output FILE, or pipe it somewhere")
    _write(path, content)


def _parquet(frame: pl.DataFrame) -> bytes:
    import io

    buffer = io.BytesIO()
    frame.write_parquet(buffer, compression="zstd")
    return buffer.getvalue()


def _write(path: Path | None, content: bytes) -> None:
    from ledger.errors import UsageError
    from ledger.private import for_the_user

    if path is None:
        if sys.stdout.isatty():
            out(content.decode("utf-8", "replace").removesuffix("\n"))
            return
        sys.stdout.flush()
        sys.stdout.buffer.write(content)
        return
    try:
        is_new = not path.exists()
        path.write_bytes(content)
        if is_new:
            for_the_user(path)
    except OSError as error:
        raise UsageError(
            f"cannot be written: {error.strerror}", where=str(path), remedy="name a file in a folder that exists"
        ) from error
    say(f"Written: {path}")


def _in_plain_digits(frame: pl.DataFrame) -> pl.DataFrame:
    import polars as pl

    decimals = [name for name, dtype in frame.schema.items() if dtype.is_decimal()]
    digits = pl.col(decimals).cast(pl.String)
    point = digits.str.contains(".", literal=True)
    return frame.with_columns(pl.when(point).then(digits.str.strip_chars_end("0").str.strip_chars_end(".")).otherwise(digits))


class Steps:
    """Progress of a long command: bars on a terminal, silence elsewhere."""

    def __init__(self, bar: Progress | None) -> None:
        self._bar = bar

    def of(self, work: str) -> Callable[[str, int, int], None]:
        """A progress callback for one piece of work, called with ``(current item, items done, items in all)``."""
        bar = self._bar
        if bar is None:
            return lambda what, done, total: None
        task = bar.add_task(work, total=None)

        def tell(item: str, position: int, total: int) -> None:
            bar.update(task, description=f"{work} [dim]{_short(item)}[/dim]", completed=position, total=total)

        return tell


def _short(text: str, most: int = 40) -> str:
    from rich.markup import escape

    return escape(text if len(text) <= most else "…" + text[1 - most :])


@contextlib.contextmanager
def steps() -> Iterator[Steps]:
    """Progress bars for the length of a block."""
    if not sys.stderr.isatty():
        yield Steps(None)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    with Progress(
        SpinnerColumn(finished_text="✓"),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=terminal(stderr=True),
    ) as bar:
        yield Steps(bar)


@contextlib.contextmanager
def write_lock(books: Books) -> Iterator[None]:
    """Holds the ledger's write lock; says so if it has to wait for it."""
    from ledger import locks

    with locks.write_lock(books, on_wait=lambda: say("Waiting for another rootcost process that is writing …")):
        yield


@contextlib.contextmanager
def source_lock(books: Books, source: str) -> Iterator[None]:
    """Holds the lock for reading this kind of source, since its checkpoints are shared. Waiting for a provider keeps nobody from writing."""
    from ledger import locks

    waiting = f"Waiting for another rootcost process that reads {source} …"
    with locks.exclusive(locks.lock_of(books, f"source-{source}"), on_wait=lambda: say(waiting)):
        yield


@contextlib.contextmanager
def attribution_lock(books: Books) -> Iterator[None]:
    """Holds the ledger's lock for attributing; says so if it has to wait for it."""
    from ledger import locks

    with locks.attribution_lock(books, on_wait=lambda: say("Waiting for another rootcost process that is attributing …")):
        yield


def log_to(home: Path) -> Path:
    """Sends Python's log to HOME/rootcost.log (5 MB, one predecessor kept); returns its path."""
    import logging
    from logging.handlers import RotatingFileHandler

    from ledger.private import make_private
    from rootcost.terminal.printable import PrintableFormatter

    path = home / "rootcost.log"
    make_private(home)
    logging.raiseExceptions = False  # a log that cannot be written, on a full disk, must not print tracebacks
    root = logging.getLogger()
    if not any(isinstance(h, RotatingFileHandler) and h.baseFilename == str(path.resolve()) for h in root.handlers):
        handler = RotatingFileHandler(path, maxBytes=5_000_000, backupCount=1, encoding="utf-8", delay=True)
        handler.setFormatter(PrintableFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        root.addHandler(handler)
    return path


def names(text: str) -> Sequence[str]:
    """A comma-separated list, without blanks.

    >>> names(" team, agent,")
    ['team', 'agent']
    """
    return [name.strip() for name in text.split(",") if name.strip()]

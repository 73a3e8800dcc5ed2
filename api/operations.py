"""Protocols between the routes that manage and what does the work: the API reads no bills and price lists, and allocates nothing.

They are implemented by the modules of `rootcost.operations`, which the command line calls as well: one function for both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from api.models import (
    NewSource,
    PricesImported,
    RuleRow,
    RulesDraft,
    RulesEffect,
    RuleVersionRow,
    RunRequest,
    ScheduleChange,
    ScheduleEntry,
    SourceDraft,
    SourceKind,
    SourceRunRow,
    SourceStatus,
    SourceTerms,
    SourceTest,
    StagedDecision,
    StagedSelection,
)
from api.models.prices import Origin
from api.queries.gate import WholeBooks

if TYPE_CHECKING:
    import polars as pl


class SourceOperations(Protocol):
    """What is done with sources. Each change is audited with the principal of the books."""

    def kinds(self) -> list[SourceKind]:
        """Every kind of source."""
        ...

    def add(self, books: WholeBooks, source: NewSource) -> SourceStatus:
        """Configures a source. Raises `ledger.sources.SourceExistsError` if the name is taken."""
        ...

    def change(self, books: WholeBooks, name: str, terms: SourceTerms) -> SourceStatus:
        """Gives a source other terms."""
        ...

    def reschedule(self, books: WholeBooks, name: str, change: ScheduleChange) -> ScheduleEntry:
        """Changes when a source is read, pauses it or goes on."""
        ...

    def remove(self, books: WholeBooks, name: str) -> None:
        """Takes a source off the schedule."""
        ...

    def test(self, books: WholeBooks, draft: SourceDraft) -> list[SourceTest]:
        """Tries the addresses of a source out; stores nothing."""
        ...

    def test_configured(self, books: WholeBooks, name: str) -> list[SourceTest]:
        """The same for a configured source."""
        ...

    def start_run(self, books: WholeBooks, name: str, request: RunRequest) -> SourceRunRow:
        """Begins to read a source, and returns the run, which goes on. Raises `ledger.sources.SourceBusyError` while its kind is being read."""
        ...


@dataclass(frozen=True, slots=True)
class PriceFile:
    """A price list that somebody sent, and how it is to be read."""

    content: bytes
    name: str
    origin: Origin = "list"
    book: str = ""
    valid_from: str = ""
    factor: int = 10


class PriceOperations(Protocol):
    """What is done with the price book. Each change is audited with the principal of the books."""

    def rates(self, books: WholeBooks, model: str, *, provider: str, meter: str) -> pl.DataFrame:
        """Every recorded rate, of a model or of all; `until` and `in_force` say when it applies."""
        ...

    def import_list(self, books: WholeBooks, file: PriceFile, *, accept: bool, preview: bool) -> PricesImported:
        """Enters a price list; with `preview` nothing is written."""
        ...

    def staged(self, books: WholeBooks) -> pl.DataFrame:
        """Rates that wait to be accepted."""
        ...

    def decide(self, books: WholeBooks, selection: StagedSelection, *, accept: bool) -> StagedDecision:
        """Accepts or rejects staged rates."""
        ...


class RuleOperations(Protocol):
    """What is done with shared-cost rules."""

    def in_force(self, books: WholeBooks) -> list[RuleRow]:
        """The rules of the settings, in the order in which they are tried."""
        ...

    def versions(self, books: WholeBooks) -> list[RuleVersionRow]:
        """Every version that a run ever used, oldest first."""
        ...

    def preview(self, books: WholeBooks, draft: RulesDraft) -> RulesEffect:
        """What other rules would change of a month; nothing is published."""
        ...


@dataclass(frozen=True, slots=True)
class Operations:
    """All of them."""

    sources: SourceOperations
    prices: PriceOperations
    rules: RuleOperations

"""Protocols between the routes that manage and what does the work: the API reads no bills and price lists, and allocates nothing.

They are implemented by the modules of `rootcost.operations`, which the command line calls as well: one function for both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from api.models import (
    Erasure,
    ErasureRequest,
    NewSource,
    PeriodCheck,
    PeriodClose,
    PeriodDecision,
    PeriodReopening,
    PeriodRow,
    PriceBook,
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
from api.preconditions import Precondition
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

    def change(self, books: WholeBooks, name: str, terms: SourceTerms, precondition: Precondition) -> SourceStatus:
        """Gives a source other terms. Raises `RevisionError` if it has other terms than the change was made from; so do the next two."""
        ...

    def reschedule(self, books: WholeBooks, name: str, change: ScheduleChange, precondition: Precondition) -> ScheduleEntry:
        """Changes when a source is read, pauses it or goes on."""
        ...

    def remove(self, books: WholeBooks, name: str, precondition: Precondition) -> None:
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

    def price_book(self, books: WholeBooks) -> PriceBook:
        """The version of the price book, and how many rates it has."""
        ...

    def import_list(
        self, books: WholeBooks, file: PriceFile, precondition: Precondition, *, accept: bool, preview: bool
    ) -> PricesImported:
        """Enters a price list; with `preview` nothing is written. Raises `RevisionError` if another version is in force; so does the decision."""
        ...

    def staged(self, books: WholeBooks) -> pl.DataFrame:
        """Rates that wait to be accepted."""
        ...

    def decide(
        self, books: WholeBooks, selection: StagedSelection, precondition: Precondition, *, accept: bool
    ) -> StagedDecision:
        """Accepts or rejects staged rates."""
        ...


class RuleOperations(Protocol):
    """What is done with shared-cost rules. Each change is audited with the principal of the books."""

    def in_force(self, books: WholeBooks) -> list[RuleRow]:
        """The rules of the settings and of the ledger, in the order in which they are tried."""
        ...

    def rule(self, books: WholeBooks, name: str) -> RuleRow:
        """The rule of that name. Raises `ObjectMissingError` if none is in force."""
        ...

    def add(self, books: WholeBooks, terms: Mapping[str, Any]) -> RuleRow:
        """Adds a rule to the ledger. Raises `ledger.rule_store.RuleExistsError` if one of that name is in force."""
        ...

    def change(self, books: WholeBooks, name: str, terms: Mapping[str, Any], precondition: Precondition) -> RuleRow:
        """Changes a rule of the ledger, or adds it. Raises `RevisionError` if another version than expected is in force."""
        ...

    def remove(self, books: WholeBooks, name: str, precondition: Precondition) -> None:
        """Removes a rule of the ledger. Raises as `change` does."""
        ...

    def versions(self, books: WholeBooks) -> list[RuleVersionRow]:
        """Every version that a run ever used, oldest first."""
        ...

    def preview(self, books: WholeBooks, draft: RulesDraft) -> RulesEffect:
        """What other rules would change of a month; nothing is published."""
        ...


class ErasureOperations(Protocol):
    """Erasure of a person or a period. It is audited with the principal of the books."""

    def preview(self, books: WholeBooks, request: ErasureRequest) -> Erasure:
        """What it would do; nothing is changed."""
        ...

    def erase(self, books: WholeBooks, request: ErasureRequest) -> Erasure:
        """Erases."""
        ...


class PeriodOperations(Protocol):
    """What is done with months in the books. Each change is audited with the principal of the books.

    A change raises `RevisionError` if the month is not what is expected, and `UsageError` that says why it cannot be done.
    """

    def periods(self, books: WholeBooks) -> list[PeriodRow]:
        """Every month, newest first."""
        ...

    def period(self, books: WholeBooks, name: str) -> PeriodRow:
        """One month."""
        ...

    def checks(self, books: WholeBooks, name: str) -> list[PeriodCheck]:
        """The checklist before its close."""
        ...

    def close(self, books: WholeBooks, name: str, terms: PeriodClose, precondition: Precondition) -> PeriodRow:
        """Closes it."""
        ...

    def ask_to_reopen(self, books: WholeBooks, name: str, terms: PeriodReopening, precondition: Precondition) -> PeriodRow:
        """Asks for it to be opened again."""
        ...

    def decide_to_reopen(self, books: WholeBooks, name: str, decision: PeriodDecision, precondition: Precondition) -> PeriodRow:
        """Opens it again, or leaves it closed. Raises `DeniedError` for who has asked."""
        ...


@dataclass(frozen=True, slots=True)
class Operations:
    """All of them."""

    sources: SourceOperations
    prices: PriceOperations
    rules: RuleOperations
    erasures: ErasureOperations
    periods: PeriodOperations

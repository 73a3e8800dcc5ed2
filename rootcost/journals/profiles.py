"""Profiles: the canonical journal as the file that an ERP imports. Each is a file of columns in `profiles/`."""

from __future__ import annotations

import csv
import io
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Final

from pydantic import BaseModel, ConfigDict

from ledger.closing.accounts import Accounts
from ledger.closing.cents import smallest_unit
from ledger.errors import SettingsError, UsageError
from rootcost.journals.journal import Journal

_FOLDER: Final = files("rootcost.journals") / "profiles"
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "\x00")
_AMOUNTS: Final = {"{debit}", "{credit}", "{amount}"}


class Column(BaseModel):
    """A column: its header, and its value with the fields of the journal in braces."""

    model_config = ConfigDict(extra="forbid")

    header: str
    value: str


class Profile(BaseModel):
    """How an ERP reads a journal."""

    model_config = ConfigDict(extra="forbid")

    about: str
    date: str
    max_lines: int = 0
    columns: list[Column]

    @classmethod
    def named(cls, name: str) -> Profile:
        """The profile of that name. Raises `UsageError` that lists them."""
        if name not in names():
            raise UsageError(f"{name!r} is no profile", where="--profile", remedy=f"one of: {', '.join(names())}")
        return cls.model_validate(tomllib.loads((_FOLDER / f"{name}.toml").read_text(encoding="utf-8")))

    def csv(self, journals: Sequence[Journal], accounts: Accounts) -> str:
        """The journals as CSV, a line of a journal a row."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\r\n")
        writer.writerow([column.header for column in self.columns])
        for journal in journals:
            for fields in self._rows(journal, accounts):
                writer.writerow([self._cell(column, fields) for column in self.columns])
        return stream.getvalue()

    def _rows(self, journal: Journal, accounts: Accounts) -> Iterator[Mapping[str, str]]:
        unit = smallest_unit(journal.currency)
        for place, line in enumerate(journal.lines, 1):
            amounts = {"debit": line.debit, "credit": line.credit, "amount": line.amount}
            yield {
                **accounts.values,
                "number": journal.number,
                "kind": journal.kind,
                "date": journal.posting_date.strftime(self.date),
                "period": journal.month,
                "currency": journal.currency,
                "run_id": journal.run_id,
                "reverses": journal.reverses,
                "line": str(place),
                "account": line.account,
                "cost_center": line.cost_center,
                "team": line.team,
                "provider": line.provider,
                "invoice_id": line.invoice_id,
                "memo": line.text,
                **{name: "" if amount is None else format(amount.quantize(unit), "f") for name, amount in amounts.items()},
            }

    def _cell(self, column: Column, fields: Mapping[str, str]) -> str:
        """A cell. Text that a spreadsheet would take for a formula is preceded by an apostrophe; amounts are ours and stay numbers."""
        try:
            text = column.value.format_map(fields)
        except KeyError as error:
            key = str(error.args[0])
            raise SettingsError(
                f"the column {column.header!r} needs a value that the file of accounts does not have",
                where=f"values.{key}",
                remedy=f'add to it: [values] {key} = "…"',
            ) from error
        if column.value in _AMOUNTS:
            return text
        return f"'{text}" if text.startswith(_FORMULA) else " ".join(text.split())


def names() -> list[str]:
    """The names of all profiles."""
    return sorted(file.name.removesuffix(".toml") for file in _FOLDER.iterdir() if file.name.endswith(".toml"))

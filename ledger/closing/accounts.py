"""Accounts and cost centers, as finance names them in a file: HOME/accounts.toml, or another one."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from ledger.errors import SettingsError, UsageError

FILE_NAME: Final = "accounts.toml"
Code = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^=+\-@\x00-\x1f\x7f][^\x00-\x1f\x7f]*$")]
"""A code of the ERP: one that a spreadsheet would take for a formula is refused."""


class Accounts(BaseModel):
    """Which account and cost center a line is booked to. `values` are the constants that some profiles need."""

    model_config = ConfigDict(extra="forbid")

    expense: Code
    payable: Code
    accrued: Code
    suspense: Code
    no_team: Code | None = Field(default=None, description="Cost center of what has no team.")
    cost_centers: dict[str, Code] = Field(default_factory=dict)
    expense_of_provider: dict[str, Code] = Field(default_factory=dict)
    values: dict[str, Code] = Field(default_factory=dict)
    company: str = Field(default="", max_length=200, description="Who issues statements.")
    contact: str = Field(default="", max_length=200, description="Whom a team writes to that disputes its statement.")
    dispute_days: int = Field(default=14, ge=0, le=366, description="Days after the close within which it can.")

    @classmethod
    def read(cls, path: Path) -> Self:
        """The file. Raises `UsageError` if there is none, `SettingsError` that names the key that cannot be."""
        try:
            return cls.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError as error:
            raise UsageError(
                "there is no file of accounts",
                where=str(path),
                remedy="write one with expense, payable, accrued and suspense, and [cost_centers] by team: docs/close.md has one",
            ) from error
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            raise SettingsError(f"{key}: {first['msg']}", where=str(path), remedy="docs/close.md has an example") from error
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise SettingsError(str(error), where=str(path), remedy="write it as TOML, in UTF-8") from error

    @classmethod
    def if_there(cls, path: Path) -> Self | None:
        """The same, or None if there is no file: a statement can do without."""
        return cls.read(path) if path.exists() else None

    def cost_center(self, team: str) -> str | None:
        """The cost center of a team, of "" for what has none; None if the file does not say."""
        return self.cost_centers.get(team) if team else self.no_team

    def expense_account(self, provider: str) -> str:
        """The account that a provider's cost is booked to."""
        return self.expense_of_provider.get(provider, self.expense)

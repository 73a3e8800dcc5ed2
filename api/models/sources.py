"""Configured sources: what they are, when they are due, how fresh, and what each run brought."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from api.models.base import Money, ResponseModel


class SourceRunRow(ResponseModel):
    """One reading of a configured source."""

    run: int = Field(description="Its number.")
    name: str = Field(description="The configured source.")
    source: str = Field(description="The ingestor.")
    cause: str = Field(description="schedule, hand or backfill.")
    runner: str = Field(description="The process that read it: host:pid.")
    status: str = Field(
        description="running; done; problems: some rows were left out; failed: an address could not be read; cut off: the process ended."
    )
    started_at: datetime = Field(description="When it began.")
    finished_at: datetime | None = Field(default=None, description="When it ended.")
    seconds: float | None = Field(default=None, description="How long it took.")
    since: str | None = Field(
        default=None, description="First day that was asked for again; null: as far as it had not been read."
    )
    until: str | None = Field(default=None, description="First day that was not.")
    files: int = Field(description="Files, objects or pages read.")
    rows: int = Field(description="Rows read and kept.")
    rows_changed: int = Field(description="Rows of the ledger that were added or changed.")
    errors: int = Field(description="Rows left out; each is in `problems`.")
    warnings: int = Field(description="Rows kept with a remark.")
    money_in: dict[str, Money] = Field(description="Currency to the billed cost that was read, exact; empty for logs.")
    newest: datetime | None = Field(default=None, description="Newest row it saw.")
    lag_seconds: int | None = Field(default=None, description="Age of that row when the run ended.")
    error: str | None = Field(default=None, description="Why it failed.")


class SourceStatus(ResponseModel):
    """A configured source and how it stands."""

    name: str = Field(description="What it is called here.")
    source: str = Field(description="The ingestor.")
    kind: Literal["bill", "log"] = Field(description="bill fills `charges`, log fills `spans`.")
    addresses: list[str] = Field(description="What is read; empty: only what the receivers take of it is watched.")
    scope: str | None = Field(default=None, description="Name of the dataset, where it was given one.")
    cron: str = Field(description="When it is asked, UTC.")
    paused: bool = Field(description="Whether it is left alone for now.")
    created_at: datetime = Field(description="When it was set up.")
    state: Literal["ok", "problems", "failing", "stale", "paused", "waiting"] = Field(
        description="failing: the last run failed; stale: its newest row is too old; problems: rows were left out; waiting: not read yet."
    )
    newest: datetime | None = Field(
        default=None, description="Newest row it ever brought: end of a charge period, start of a call."
    )
    age_seconds: int | None = Field(default=None, description="Seconds from then to now.")
    expected_lag_seconds: int = Field(
        description="How old the newest row of a healthy source is at most, as its sender delivers."
    )
    stale_after_seconds: int = Field(description="That, and the longest pause between two ticks: what is older is stale.")
    stale: bool = Field(description="Whether it is; a paused source never is.")
    stale_since: datetime | None = Field(default=None, description="When an alert was raised for it.")
    failures: int = Field(description="Runs that failed, since the last one that did not.")
    due_at: datetime | None = Field(default=None, description="When it is asked next; null: nobody serves yet, or it is paused.")
    succeeded_at: datetime | None = Field(default=None, description="When a run last ended well.")
    last_run: SourceRunRow | None = Field(default=None, description="The newest run.")

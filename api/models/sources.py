"""Models of configured sources: schedule, freshness and the result of each run."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from api.models.base import Money, ResponseModel


class SourceRunRow(ResponseModel):
    """One reading of a configured source."""

    run: int = Field(description="Number of the run.")
    name: str = Field(description="The configured source.")
    source: str = Field(description="Kind of source: the ingestor that reads it.")
    cause: str = Field(description="schedule, hand or backfill.")
    runner: str = Field(description="The process that read it: host:pid.")
    status: str = Field(
        description="running; done; problems: some rows were left out; failed: an address could not be read; cut off: the process ended."
    )
    started_at: datetime = Field(description="Start of the run.")
    finished_at: datetime | None = Field(default=None, description="End of the run.")
    seconds: float | None = Field(default=None, description="Duration of the run.")
    since: str | None = Field(default=None, description="First day read again; null: from the checkpoint on.")
    until: str | None = Field(default=None, description="First day no longer read.")
    files: int = Field(description="Number of files, objects or pages read.")
    rows: int = Field(description="Number of rows imported.")
    rows_changed: int = Field(description="Number of ledger rows added or changed.")
    errors: int = Field(description="Number of rows left out; each is in `problems`.")
    warnings: int = Field(description="Number of rows imported with a warning.")
    money_in: dict[str, Money] = Field(description="Billed cost that was read, by currency, exact; empty for logs.")
    newest: datetime | None = Field(default=None, description="Time of the newest row read.")
    lag_seconds: int | None = Field(default=None, description="Age of the newest row when the run ended.")
    error: str | None = Field(default=None, description="Error message of a failed run.")


class SourceStatus(ResponseModel):
    """A configured source and its state."""

    name: str = Field(description="Name of the configured source.")
    source: str = Field(description="Kind of source: the ingestor that reads it.")
    kind: Literal["bill", "log"] = Field(description="bill: fills `charges`; log: fills `spans`.")
    addresses: list[str] = Field(
        description="Addresses that are read; empty: only the freshness of received telemetry is monitored."
    )
    scope: str | None = Field(default=None, description="Name of the dataset, if it has one.")
    cron: str = Field(description="Schedule as a cron expression, UTC.")
    paused: bool = Field(description="Whether it is paused.")
    created_at: datetime = Field(description="When it was configured.")
    state: Literal["ok", "problems", "failing", "stale", "paused", "waiting"] = Field(
        description="failing: the last run failed; stale: its newest row is too old; problems: rows were left out; waiting: not read yet."
    )
    newest: datetime | None = Field(default=None, description="Time of its newest row: end of a charge period, start of a call.")
    age_seconds: int | None = Field(default=None, description="Seconds since the newest row.")
    expected_lag_seconds: int = Field(
        description="Maximum age of the newest row of a healthy source, given its delivery schedule."
    )
    stale_after_seconds: int = Field(
        description="Age from which it is stale: the expected lag plus the longest interval of the schedule."
    )
    stale: bool = Field(description="Whether it is stale; a paused source never is.")
    stale_since: datetime | None = Field(default=None, description="When the alert about it was raised.")
    failures: int = Field(description="Number of failed runs since the last successful one.")
    due_at: datetime | None = Field(default=None, description="When it is read next; null: no scheduler runs, or it is paused.")
    succeeded_at: datetime | None = Field(default=None, description="End of the last successful run.")
    last_run: SourceRunRow | None = Field(default=None, description="The newest run.")

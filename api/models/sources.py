"""Models of configured sources: terms, schedule, freshness, tests, and the result of each run."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints, WithJsonSchema

from api.models.base import Money, RequestModel, ResponseModel

_NAME = {"type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]*$"}
SourceName = Annotated[str, StringConstraints(min_length=1, max_length=128), WithJsonSchema(_NAME)]
"""Name of a configured source. A name that cannot be one is refused with a sentence."""
Address = Annotated[str, StringConstraints(min_length=1, max_length=2048, pattern=r"^[^\x00-\x1f\x7f]+$")]
Cron = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$")]
_DAY = Annotated[str, StringConstraints(max_length=32)]


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
    revision: str = Field(default="", description="Digest of its terms: another one, other terms.")
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


class SourceTerms(RequestModel):
    """Where a source lies, and when it is read."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"addresses": ["s3://billing/exports/company-cur2/"], "cron": "15 */6 * * *"}]}
    )

    addresses: list[Address] = Field(
        default_factory=list,
        max_length=100,
        description="Where it lies: s3://bucket/prefix, a provider's address, or files under `serve.source_addresses`; none: the freshness "
        "of received telemetry is watched. A secret in one is stored aside and shown as ….",
    )
    scope: str | None = Field(
        default=None, min_length=1, max_length=512, description="Name of the dataset, for bills whose location does not name it."
    )
    cron: Cron | None = Field(
        default=None,
        description="When it is read, in UTC: minute hour day month weekday. None: as often as its kind is worth it.",
    )
    expected_lag_seconds: int | None = Field(
        default=None, gt=0, le=10 * 366 * 86400, description="Maximum age of its newest row while it is healthy. None: by kind."
    )


class SourceDraft(SourceTerms):
    """The terms of a source of some kind, before it has a name."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"source": "aws-cur", "addresses": ["s3://billing/exports/company-cur2/"]}]}
    )

    source: str = Field(max_length=64, description="Kind of source: `GET /v1/source-kinds` lists them.")


class NewSource(SourceDraft):
    """A source to configure."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "aws-prod",
                    "source": "aws-cur",
                    "addresses": ["s3://billing/exports/company-cur2/"],
                    "cron": "15 */6 * * *",
                }
            ]
        }
    )

    name: SourceName = Field(description="Unique name: letters, digits, '-', '_' and '.'.")


class SourceKind(ResponseModel):
    """A kind of source: what it reads, and what it needs."""

    source: str = Field(description="Name of the kind.")
    kind: Literal["bill", "log"] = Field(description="bill: fills `charges`; log: fills `spans`.")
    title: str = Field(description="What it reads.")
    addresses: list[str] = Field(description="Examples of addresses.")
    cron: str = Field(description="How often it is worth reading, UTC.")
    lag_seconds: int = Field(description="Maximum age of the newest row of a healthy one, given how its sender delivers.")
    needs: str = Field(description="Credentials it needs, and where they are taken from. They are never stored.")
    policy: str = Field(description="The least-privilege policy, role or grant to paste.")


class SourceTest(ResponseModel):
    """The result of trying one address: credentials, reach and a first page. Nothing is stored."""

    address: str = Field(description="The address.")
    ok: bool = Field(description="Whether it can be read.")
    message: str = Field(description="What was found, or what is missing and how to mend it.")
    rows: int = Field(description="Rows of the first page.")
    newest: datetime | None = Field(default=None, description="Time of the newest row of the first page.")
    problem_rows: int = Field(description="Rows of the first page that cannot be read whole.")
    needs: str = Field(description="Credentials that this kind needs, and where they are taken from.")
    policy: str = Field(description="The least-privilege policy of this kind.")


class RunRequest(RequestModel):
    """What is read: everything new, or days once more."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"since": "2026-09-01", "until": "2026-10-01"}]})

    since: _DAY | None = Field(
        default=None, description="First day or month to read again; none: go on where the last run ended."
    )
    until: _DAY | None = Field(default=None, description="First day or month no longer to read; none: until now.")


class ScheduleEntry(ResponseModel):
    """When a configured source is read."""

    name: str = Field(description="Name of the configured source.")
    source: str = Field(description="Kind of source.")
    cron: str = Field(description="Schedule as a cron expression, UTC; empty: it has no address to read.")
    paused: bool = Field(description="Whether it is left alone.")
    longest_pause_seconds: int = Field(description="The longest time between two ticks.")
    due_at: datetime | None = Field(default=None, description="When it is read next; null: no scheduler runs, or it is paused.")
    failures: int = Field(description="Number of failed runs since the last successful one; then it is asked later and later.")
    revision: str = Field(description="Digest of the terms of the source: another one, other terms.")


class ScheduleChange(RequestModel):
    """A new schedule of a source, or a pause. What is not sent stays."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"paused": True}, {"cron": "@daily", "paused": False}]})

    cron: Cron | None = Field(default=None, description="When it is read, in UTC: minute hour day month weekday, or @daily.")
    paused: bool | None = Field(default=None, description="Whether it is left alone.")

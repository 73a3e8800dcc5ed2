"""The sections of the settings that need nothing else: store, service, reading, reports, alerts (see `ledger.settings`)."""

from __future__ import annotations

from decimal import Decimal
from ipaddress import ip_address, ip_network
from pathlib import Path
from re import fullmatch
from typing import Annotated, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from ledger.errors import SettingsError


class Section(BaseModel):
    """A section: nothing unknown in it, and never changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class StoreSettings(Section):
    """Where the tables live."""

    uri: str = Field("", description="Root of the Delta tables: a folder or s3://bucket/prefix. Empty: HOME/tables.")
    options: dict[str, str] = Field(
        default_factory=dict,
        description="Storage options for S3-compatible stores (aws_endpoint_url, aws_allow_http, …). Credentials come from the AWS default chain.",
    )
    database_url: str = Field(
        "",
        description="Small application state (registry, budgets, alerts, runs). Empty: SQLite in HOME. postgresql+psycopg://… for PostgreSQL.",
    )


class ServeSettings(Section):
    """`rootcost serve`."""

    host: str = Field(
        "127.0.0.1",
        description="Address that API and dashboard listen on. Beyond loopback people or keys must be set up, and `allowed_hosts` "
        "name it (docs/access.md).",
    )
    port: int = Field(8787, ge=1, le=65535, description="Port of the API.")
    ui_port: int = Field(8501, ge=1, le=65535, description="Port of the dashboard.")
    drain_seconds: float = Field(2.0, gt=0, description="How often received telemetry is moved from the spool to the ledger.")
    attribute_seconds: float = Field(
        10.0, gt=0, description="How often open months are re-attributed when something new has arrived."
    )
    max_body_mb: int = Field(64, ge=1, description="Largest request body accepted by the receivers, after decompression.")
    max_waiting_mb: int = Field(
        256, ge=1, description="Maximum megabytes of request bodies in memory; requests beyond it get 429 with Retry-After."
    )
    request_seconds: float = Field(60.0, gt=0, description="How long the body of a request may take to arrive; then it gets 408.")
    requests_per_minute: int = Field(
        6000,
        ge=1,
        description="Requests that a key or person may make in a minute; those beyond it get 429. Telemetry is not counted.",
    )
    answer_cache_mb: int = Field(
        64,
        ge=0,
        description="Megabytes of answers that the API keeps in memory; one that still holds is sent again without being made. 0: none.",
    )
    grpc_port: int = Field(0, ge=0, le=65535, description="Port of the OTLP/gRPC receiver, by convention 4317. 0: none.")
    allowed_hosts: list[str] = Field(
        default_factory=list,
        description="Names beside localhost that requests may address, as gateway.example.com: those of the proxy in front, or of this machine.",
    )
    trusted_proxies: list[str] = Field(
        default_factory=list,
        description="Addresses or networks of proxies whose X-Forwarded-For, X-Forwarded-Proto and X-Forwarded-Host are believed. "
        "Nobody else's are.",
    )

    source_addresses: list[str] = Field(
        default_factory=lambda: [
            "s3://", "bigquery://", "https://api.openai.com", "https://api.anthropic.com", "https://api.github.com",
        ],
        description="Where sources may lie that are set up over the API: folders of this machine, or beginnings of addresses. The credentials of "
        "this process go to any of them, and what lies there is read. The command line is not bound by it.",
    )  # fmt: skip

    public_url: str = Field(
        "",
        description="Origin at which browsers reach the API behind a proxy, as https://gateway.example.com/ is one. "
        "Empty: the dashboard's host name and `port`.",
    )

    @field_validator("public_url")
    @classmethod
    def _is_an_origin(cls, value: str) -> str:
        try:
            address = urlsplit(value)
            fits = address.scheme in ("http", "https") and bool(address.hostname) and "@" not in address.netloc
            fits = fits and address.path in ("", "/") and not address.query and not address.fragment
        except ValueError:
            fits = False
        if value and not fits:
            raise ValueError(f"{value!r} is no address of a server; write https://gateway.example.com, without a path")
        return value.rstrip("/")

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, values: list[str]) -> list[str]:
        for value in values:
            try:
                ip_network(value)
            except ValueError as error:
                raise ValueError(f"{value!r} is no address or network; write 127.0.0.1 or 10.1.0.0/24") from error
        return values

    @field_validator("allowed_hosts")
    @classmethod
    def _host_names(cls, values: list[str]) -> list[str]:
        for value in values:
            if not fullmatch(r"[A-Za-z0-9.-]+|[0-9A-Fa-f:.]+", value):
                raise ValueError(f"{value!r} is no host name; write gateway.example.com, without scheme, port or *")
        return values


def is_loopback(host: str) -> bool:
    """Whether an address to listen on, or a host name, is reached from this machine only.

    >>> is_loopback("localhost"), is_loopback("127.0.0.2"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


class OidcProvider(Section):
    """A provider of OpenID Connect that people log in with; repeatable. Which roles its groups have: `rootcost roles map`."""

    name: str = Field(
        pattern="^[a-z0-9][a-z0-9-]{0,39}$",
        description="Short name, as in `rootcost roles map` and in the address that it sends people back to: /login/NAME/callback.",
    )
    title: str = Field("", max_length=60, description="What the log-in page calls it. Empty: its name.")
    issuer: str = Field(
        max_length=512,
        description="Its issuer, character by character as its tokens have it: an https address, or http for one on this machine.",
    )
    client_id: str = Field(min_length=1, max_length=256, description="Id under which RootCost is registered there.")
    client_secret: SecretStr = Field(
        SecretStr(""), description="Secret of that client. Empty: client_secret_file, or a public client, which has none."
    )
    client_secret_file: str = Field("", description="A file that holds the secret, so that rootcost.toml does not.")
    scopes: list[str] = Field(
        default_factory=lambda: ["openid", "profile", "email"], description="What it is asked for; some give groups for a scope."
    )
    groups_claim: str = Field(
        "groups", min_length=1, max_length=256, description="The claim that holds a person's groups, in the token or at userinfo."
    )

    @field_validator("issuer")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        try:
            address = urlsplit(value)
            fits = bool(address.hostname) and not address.query and not address.fragment and "@" not in address.netloc
            fits = fits and (address.scheme == "https" or (address.scheme == "http" and is_loopback(address.hostname or "")))
        except ValueError:
            fits = False
        if not fits:
            raise ValueError(f"{value!r} is no issuer; write https://login.example.com/realms/company")
        return value

    @field_validator("scopes")
    @classmethod
    def _asks_who_it_is(cls, values: list[str]) -> list[str]:
        if "openid" not in values or any(not value or " " in value for value in values):
            raise ValueError("must hold openid, and one scope each")
        return values

    def secret(self) -> str:
        """The client's secret; "" for a public client. Raises `SettingsError` for a file that cannot be read."""
        if not self.client_secret_file:
            return self.client_secret.get_secret_value()
        try:
            text = Path(self.client_secret_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text"
            raise SettingsError(
                f"cannot be read: {reason}",
                where=self.client_secret_file,
                remedy=f"access.providers {self.name}: client_secret_file",
            ) from error
        if not text:
            raise SettingsError("is empty", where=self.client_secret_file, remedy="write the client's secret into it")
        return text


class AccessSettings(Section):
    """Log-in of people (see docs/access.md)."""

    session_hours: float = Field(168.0, gt=0, le=24 * 365, description="How long a log-in lasts at most.")
    idle_minutes: float = Field(720.0, gt=0, le=60 * 24 * 365, description="How long a log-in lasts without a request.")
    providers: list[OidcProvider] = Field(
        default_factory=list, description="Providers of OpenID Connect, in the order of the log-in page."
    )

    @field_validator("providers")
    @classmethod
    def _are_distinct(cls, values: list[OidcProvider]) -> list[OidcProvider]:
        if len({value.name for value in values}) != len(values):
            raise ValueError("two have one name")
        return values


class IngestSettings(Section):
    """Reading bills and logs."""

    trusted_sources: list[str] = Field(
        default_factory=list,
        description="Log sources (otlp, …) whose baggage, headers and request tags may name the root agent (CH-7). Others are shown as untrusted claims.",
    )
    agent_tags: list[str] = Field(
        default_factory=lambda: ["rootcost.agent", "agent"],
        description="Baggage keys and request-tag prefixes (key:value) that name the root agent.",
    )
    team_tags: list[str] = Field(default_factory=lambda: ["rootcost.team", "team"], description="The same for its team.")
    keep_raw: Literal["bills", "none"] = Field(
        "bills", description="Which fetched bytes stay in HOME/raw for replay. Token logs are never kept: they may hold prompts."
    )
    keep_content: bool = Field(
        False,
        description="Whether prompts, answers and tool arguments that OpenTelemetry spans and events carry are kept in "
        "`spans.attributes`. They are dropped on receipt unless this is true.",
    )
    max_future_hours: int = Field(
        24,
        ge=1,
        le=24 * 366,
        description="Spans that start later than this many hours from now are problems: a sender's clock is wrong.",
    )
    max_past_years: int = Field(
        10,
        ge=1,
        le=16,
        description="Spans that started more than this many years ago are problems; it also bounds how many months one request makes due.",
    )
    s3_endpoint_url: str = Field("", description="S3 endpoint for sources, if not AWS.")
    manifest_locations: list[str] = Field(
        default_factory=list,
        description="Prefixes (s3://bucket/prefix) outside of an export that its manifests may name objects of. "
        "Empty: a manifest names objects of its own bucket and prefix only.",
    )
    follow_links: bool = Field(
        False,
        description="Whether symbolic links that lead out of a folder are read. They are reported and left out unless this is true.",
    )


_MIN_FACT_DAYS = 62


class MaintenanceSettings(Section):
    """Maintenance: what keeps the disk bounded (see `rootcost maintenance`)."""

    every_seconds: float = Field(
        60.0, gt=0, description="How often `rootcost serve` merges small files and removes what nobody needs."
    )
    retention_minutes: float = Field(
        15.0,
        gt=0,
        description="How long files stay that no table needs any more: readers that began before may be at them. Live figures are computed "
        "less often where they would write more than a quarter of the tables anew within this time.",
    )
    superseded_days: float = Field(
        90.0, gt=0, description="How long superseded runs stay readable, so that they can be compared."
    )
    facts_days: float = Field(
        90.0, gt=0, description="How long earlier versions of bills and prices stay, which explain why runs differ."
    )
    content_days: int = Field(
        0, ge=0, description="How long `spans.attributes` stay, with prompts where they are kept. 0: as long as the spans."
    )
    spans_days: int = Field(
        0,
        ge=0,
        description="How long spans and metric points stay after the end of their month, at least 62 days; its costs stay as they are and are "
        "not computed again (docs/retention.md). 0: for good.",
    )
    calls_days: int = Field(
        0, ge=0, description="The same for calls and chains, by which costs are explained call by call. 0: for good."
    )
    problems_days: int = Field(0, ge=0, description="How long problems with the input stay. 0: for good.")
    raw_days: int = Field(0, ge=0, description="How long copies of fetched bills stay in HOME/raw. 0: for good.")
    personal_days: int = Field(
        0,
        ge=0,
        description="How long names and addresses of people stay in the audit log; its entries stay, and stay verifiable. 0: for good.",
    )

    @field_validator("spans_days", "calls_days")
    @classmethod
    def _leaves_time_for_bills(cls, value: int) -> int:
        if 0 < value < _MIN_FACT_DAYS:
            raise ValueError(f"must be 0, or at least {_MIN_FACT_DAYS}: until then bills of the month are on their way")
        return value


class AuditSettings(Section):
    """The audit log (see `rootcost audit`)."""

    heads_uri: str = Field(
        "",
        description="Folder or s3://bucket/prefix that the head of the audit log is written to, best on another machine and in a bucket with "
        "object lock: `rootcost audit verify` finds by it a log whose end was cut off or written anew. Empty: none.",
    )
    heads_locked_days: int = Field(
        400, ge=1, description="How long a head is locked in a bucket that has object lock and no default retention."
    )


class BackupSettings(Section):
    """Backups by `rootcost serve`, and where `rootcost backup` writes to."""

    address: str = Field(
        "", description="A folder, or s3://bucket/prefix, for the backups of this ledger. Empty: none are made by themselves."
    )
    cron: str = Field(
        "15 2 * * *", description="When `rootcost serve` makes one, in UTC: minute hour day month weekday, or @daily, @weekly."
    )
    keep: int = Field(
        14,
        ge=1,
        description="How many backups of this ledger `rootcost serve` keeps there; what only older ones need is removed.",
    )
    s3_options: dict[str, str] = Field(
        default_factory=dict, description="Storage options for S3-compatible stores, as `store.options`."
    )


class ReportSettings(Section):
    """Presentation of results."""

    timezone: str = Field("UTC", description="IANA timezone that days and hours of use follow in reports (TI-1, TI-1a).")
    currency: str = Field(
        "",
        pattern="^([A-Z]{3})?$",
        description="Currency that all costs should be showable in, e.g. EUR: runs tell which days lack an exchange rate into it (RA-7). Empty: none.",
    )

    @field_validator("timezone")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError(f"{value!r} is no IANA timezone; try Europe/Berlin or UTC") from error
        return value


class CloseSettings(Section):
    """Closing a month (see docs/close.md)."""

    unallocated_share: Annotated[Decimal, Field(ge=0, le=1)] = Field(
        Decimal("0.1"), description="The largest share of a month's cost without a team with which it can be closed."
    )


class BudgetSettings(Section):
    """Budgets (see docs/budgets.md)."""

    raise_share: Annotated[Decimal, Field(ge=0, le=1000)] = Field(
        Decimal(0),
        description="A raise by more than this share of the limit, as 0.2, needs a second person who may set the budget. 0: no raise does.",
    )
    request_hours: float = Field(72.0, gt=0, le=24 * 365, description="How long such a raise may await the second person.")
    authority: dict[str, Decimal] = Field(
        default_factory=dict,
        description="Role to the highest limit that it may approve, in the budget's own currency; a role that is not named: any.",
    )


class RunawaySettings(Section):
    """Runaway chains (see docs/alerts.md): what a chain may do within the window before an alert is raised."""

    window_minutes: int = Field(60, ge=1, le=24 * 60, description="How far back spans are looked at.")
    same_tool_calls: int = Field(25, ge=1, description="Calls of one tool with the same arguments.")
    failures: int = Field(25, ge=1, description="How often one step may fail, or be tried again.")
    depth: int = Field(64, ge=1, description="Levels of steps within steps.")
    fan_out: int = Field(
        300, ge=1, description="Steps that one step starts; embeddings, reranking and retrieval are not counted."
    )
    cost_factor: Annotated[Decimal, Field(ge=1)] = Field(
        Decimal(3), description="How many times what 99 of 100 chains of its agent cost, at list price."
    )
    least_cost: Annotated[Decimal, Field(ge=0)] = Field(
        Decimal(5), description="USD at list price below which cost raises no alert."
    )
    least_chains: int = Field(100, ge=2, description="Chains of an agent in the last 30 days before its costs say what is usual.")

"""All settings: `rootcost.toml`, overridden by the environment, printed by `rootcost config show`.

Order of precedence: command line, environment (``ROOTCOST_…``, nested by ``__``: ``ROOTCOST_SERVE__PORT=9000``),
``rootcost.toml`` (in the working folder, else in the home folder, or named by ``ROOTCOST_CONFIG``), the defaults below.
Unknown keys are refused. `docs/configuration.md` is generated from here.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import tomllib
from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_origin

from pydantic import BaseModel, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError as UnreadableValue

from ledger.alert_settings import AlertSettings as AlertSettings
from ledger.errors import SettingsError
from ledger.settings_sections import AccessSettings as AccessSettings
from ledger.settings_sections import AuditSettings as AuditSettings
from ledger.settings_sections import BackupSettings as BackupSettings
from ledger.settings_sections import BudgetSettings as BudgetSettings
from ledger.settings_sections import CloseSettings as CloseSettings
from ledger.settings_sections import IngestSettings as IngestSettings
from ledger.settings_sections import MaintenanceSettings as MaintenanceSettings
from ledger.settings_sections import ReportSettings as ReportSettings
from ledger.settings_sections import RunawaySettings as RunawaySettings
from ledger.settings_sections import Section
from ledger.settings_sections import ServeSettings as ServeSettings
from ledger.settings_sections import StoreSettings as StoreSettings


class Defaults(Section):
    """Defaults for calls of a log source that lack account or region (RA-1a)."""

    provider: str = Field("", description="Provider these defaults are for: AWS, OpenAI, …")
    account: str = Field("", description="Usage account, subscription or project.")
    region: str = Field("", description="Region.")


class SharedRule(Section):
    """A shared-cost rule for charges without direct usage (RA-4). An empty field matches anything; the first matching rule applies."""

    name: str = Field(
        min_length=1, max_length=200, description="Name shown on every cost it makes, with its version: name@version."
    )
    priority: int = Field(
        0, ge=-1000, le=1000, description="Rules of higher priority are tried first; of equal priority, in the order of the file."
    )
    provider: str = Field("", description="Only charges of this provider; empty: any.")
    account: str = Field("", description="Only charges of this sub account; empty: any.")
    service: str = Field("", description="Only charges of this service, compared whole; empty: any.")
    sku: str = Field("", description="Only charges of this SKU meter or usage type, compared whole; empty: any.")
    charge_category: str = Field("", description="Only this FOCUS ChargeCategory; empty: any.")
    reason: str = Field(
        "",
        description="Only charges left for this reason (uncaptured_usage, no_logged_use, fee, …); empty: any but idle_capacity and "
        "unused_commitment, which stay apart unless named.",
    )
    tags: dict[str, str] = Field(default_factory=dict, description="Only charges whose tags hold all of these.")
    source_team: str = Field(
        "",
        description="Only charges owned by this team, to be shared by other teams. Empty: only charges without an owner.",
    )
    method: Literal["proportional", "even", "fixed", "usage"] = Field(
        "proportional", description="proportional to metered cost, even, fixed by `shares`, or by the `usage` of a meter."
    )
    usage: str = Field("tokens", description="For usage: tokens (all of them), calls, or one meter (requests, seconds, …).")
    teams: list[str] = Field(default_factory=list, description="Teams that share; empty: all with metered cost in the month.")
    shares: dict[str, Decimal] = Field(default_factory=dict, description="For fixed: team to weight.")
    valid_from: date = Field(date(1970, 1, 1), description="First charge day it holds for.")
    valid_to: date | None = Field(None, description="First charge day it no longer holds for.")

    @model_validator(mode="after")
    def _can_be_split(self) -> Self:
        if len(set(self.teams)) < len(self.teams):
            raise ValueError(f"rule {self.name}: a team stands in `teams` twice")
        wrong = [t for t, w in self.shares.items() if not (Decimal("1e-6") <= w <= Decimal("1e9")) or w != round(w, 12)]
        if wrong:
            raise ValueError(f"rule {self.name}: shares of {', '.join(wrong)} must lie between 0.000001 and 1 000 000 000")
        if self.method == "fixed" and not self.shares:
            raise ValueError(f"rule {self.name}: method fixed needs `shares`")
        if self.method == "usage" and self.usage not in (drivers := usage_drivers()):
            raise ValueError(f"rule {self.name}: {self.usage!r} is no meter{_did_you_mean(self.usage, drivers)}")
        if self.valid_to is not None and self.valid_to <= self.valid_from:
            raise ValueError(f"rule {self.name}: valid_to must be later than valid_from")
        return self

    @property
    def version(self) -> str:
        """Hash of the rule's terms: its conditions and its split, without name and dates. Equal terms have equal versions.

        >>> SharedRule(name="support", service="AWS Support").version == SharedRule(name="help", service="AWS Support").version
        True
        """
        terms = self.model_dump(mode="json", exclude_defaults=True, exclude={"name", "priority", "valid_from", "valid_to"})
        return hashlib.blake2b(json.dumps(terms, sort_keys=True).encode(), digest_size=4).hexdigest()

    @property
    def label(self) -> str:
        """Label of the rule in costs: name@version."""
        return f"{self.name}@{self.version}"


def usage_drivers() -> tuple[str, ...]:
    """Drivers of the method `usage`: all tokens, calls, or one meter."""
    from ledger.tables import METERS  # only where there are rules: settings are read by commands that need no frames

    return ("tokens", "calls", *METERS)


class SkuRule(Section):
    """A classification rule for a SKU (RA-1). The first matching rule takes precedence over the built-in ones."""

    sku: str = Field(
        "", description="The SKU meter, usage type or line item, compared whole; the description where a charge names no SKU."
    )
    pattern: str = Field(
        "",
        description="Instead: a regular expression found anywhere in it, whatever the case, without look-around and back-references. "
        "Groups named model, meter and region are read.",
    )
    provider: str = Field(
        "", description="Only charges of this provider, as the costs name it: AWS, Google Cloud, Microsoft, OpenAI, …"
    )
    service: str = Field("", description="Only charges of this service, compared whole; empty: any.")
    model: str = Field("", description="The model that is sold. Empty: none, as with a runtime or a search.")
    meter: str = Field(
        "", description="The meter that is sold: input_tokens, output_tokens, requests, … Empty: nothing that is measured."
    )
    unit: str = Field(
        "", description="What one billed unit counts: tokens, 1K tokens, 1M tokens, hours, requests, … Empty: as the bill says."
    )
    service_tier: str = Field("", description="batch, flex, priority, … Empty: as its words say, else standard.")
    context_above: int = Field(0, ge=0, description="It is the rate of requests with more prompt tokens than this; 0: of all.")
    region: str = Field("", description="The cloud region, where the bill does not say.")
    provisioned: bool = Field(False, description="Whether it is capacity that is paid for used or not.")

    @model_validator(mode="after")
    def _can_be_asked(self) -> Self:
        from ledger.meters import BILLED_UNITS, METERS

        if bool(self.sku) == bool(self.pattern):
            raise ValueError("name either `sku`, compared whole, or `pattern`, a regular expression")
        if self.pattern:
            from ledger.patterns import Pattern  # imports polars, which most commands that load settings do not need

            Pattern(self.pattern)
        if self.meter and self.meter not in METERS:
            raise ValueError(f"{self.meter!r} is no meter{_did_you_mean(self.meter, list(METERS))}")
        if self.unit and self.unit not in BILLED_UNITS:
            raise ValueError(f"{self.unit!r} is no unit; there are {', '.join(BILLED_UNITS)}")
        return self


class AttributionSettings(Section):
    """Matching of charges and calls."""

    tolerance: Annotated[Decimal, Field(ge=0, lt=1)] = Field(
        Decimal("0.005"), description="Share of the billed quantity by which logs may differ and still count as equal (RA-2)."
    )
    drift_tolerance: Annotated[Decimal, Field(gt=0, le=100)] = Field(
        Decimal("0.1"),
        description="Share by which a bill may differ from its estimates, per provider and model, before it is reported (ES-3).",
    )
    owner_tags: list[str] = Field(
        default_factory=lambda: ["team", "user_team", "resourceTags/user:team", "iamPrincipal/team", "rootcost.team"],
        description="Bill tags that name the owning team, first match wins (RA-4).",
    )
    owner_agent_tags: list[str] = Field(
        default_factory=lambda: ["agent", "user_agent", "resourceTags/user:agent", "iamPrincipal/agent", "rootcost.agent"],
        description="Bill tags that name the owning agent.",
    )
    defaults: list[Defaults] = Field(
        default_factory=list, description="Default account and region of calls whose logs lack them, per provider (RA-1a)."
    )
    shared: list[SharedRule] = Field(
        default_factory=list, description="Shared-cost rules: by priority, then first match wins (RA-4)."
    )
    skus: list[SkuRule] = Field(
        default_factory=list, description="What SKUs sell that are not known, or known otherwise: the first that fits (RA-1)."
    )
    slice_spans: int = Field(
        1_000_000,
        ge=1,
        description="Approximate number of spans per partition: a larger month is processed in partitions. Memory grows with it.",
    )
    workers: int = Field(2, ge=1, le=64, description="Number of partitions processed in parallel on this machine.")
    lookback_days: int = Field(
        2,
        ge=0,
        le=31,
        description="Days around the month that are read whole; of earlier days only the traces that its spans refer to (CH-1a).",
    )


class Settings(BaseSettings):
    """All settings. Paths derive from `home`."""

    model_config = SettingsConfigDict(env_prefix="ROOTCOST_", env_nested_delimiter="__", extra="forbid", frozen=True)

    home: Path = Field(Path(".rootcost"), description="Folder of the embedded ledger: tables, database, spool, token.")
    store: StoreSettings = StoreSettings()
    serve: ServeSettings = ServeSettings()
    ingest: IngestSettings = IngestSettings()
    attribution: AttributionSettings = AttributionSettings()
    report: ReportSettings = ReportSettings()
    alerts: AlertSettings = AlertSettings()
    budgets: BudgetSettings = BudgetSettings()
    close: CloseSettings = CloseSettings()
    runaway: RunawaySettings = RunawaySettings()
    maintenance: MaintenanceSettings = MaintenanceSettings()
    audit: AuditSettings = AuditSettings()
    backup: BackupSettings = BackupSettings()
    access: AccessSettings = AccessSettings()

    @property
    def tables_uri(self) -> str:
        """Root of the Delta tables."""
        return self.store.uri or str(self.home / "tables")

    @property
    def database_url(self) -> str:
        """SQLAlchemy URL of the application state."""
        return self.store.database_url or f"sqlite:///{self.home / 'rootcost.db'}"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Command line, then environment, then file."""
        return (env_settings, init_settings)


def config_path(home: Path) -> Path | None:
    """The rootcost.toml in force, if there is one."""
    configured_path = os.environ.get("ROOTCOST_CONFIG")
    if configured_path:
        if not Path(configured_path).is_file():
            raise SettingsError("no such file", where=configured_path, remedy="ROOTCOST_CONFIG must name a rootcost.toml")
        return Path(configured_path)
    return next((p for p in (Path("rootcost.toml"), home / "rootcost.toml") if p.is_file()), None)


def load(home: Path | str | None = None) -> Settings:
    """Reads the settings once. Raises `SettingsError` that names the file, the key and the remedy."""
    base = Path(home or os.environ.get("ROOTCOST_HOME") or ".rootcost")
    blocking_file = next((p for p in (base, *base.parents) if p.exists() and not p.is_dir()), None)
    if blocking_file is not None:
        raise SettingsError(
            "is a file, not a folder", where=str(blocking_file), remedy="--home must name a folder, or one to be made"
        )
    path = config_path(base)
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SettingsError(f"not valid TOML: {error}", where=str(path), remedy="see docs/configuration.md") from error
    values.setdefault("home", base)
    try:
        settings = Settings(**values)
    except UnreadableValue as error:
        raise _unreadable(error) from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            message = f"there is no such setting{_did_you_mean(key, _keys())}"
        raise SettingsError(
            f"{key}: {message}", where=str(path or "environment"), remedy="`rootcost config show` lists every setting"
        ) from error
    return settings.model_copy(update={"home": base}) if home is not None else settings


def read_rules(path: Path) -> list[SharedRule]:
    """Shared-cost rules out of a TOML file of their own: ``[[shared]]``, or ``[[attribution.shared]]`` as in rootcost.toml.

    Raises `SettingsError` that names the file, the rule and the remedy.
    """
    remedy = "write each rule as [[shared]] with a name; docs/configuration.md lists its keys"
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"cannot be read: {error}", where=str(path), remedy=remedy) from error
    section = document.get("attribution", {})
    rules = document.get("shared", section.get("shared") if isinstance(section, dict) else None)
    if not isinstance(rules, list):
        raise SettingsError("has no rules", where=str(path), remedy=remedy)
    out = []
    for number, rule in enumerate(rules, 1):
        try:
            out.append(SharedRule.model_validate(rule))
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join([f"rule {number}", *map(str, first["loc"])])
            raise SettingsError(f"{key}: {first['msg'].removeprefix('Value error, ')}", where=str(path), remedy=remedy) from error
    return out


def _keys() -> list[str]:
    sections = {name: field.annotation for name, field in Settings.model_fields.items()}
    return [
        full
        for name, kind in sections.items()
        for full in (
            [name, *(f"{name}.{key}" for key in kind.model_fields)]
            if isinstance(kind, type) and issubclass(kind, BaseModel)
            else [name]
        )
    ]


def _did_you_mean(name: str, choices: Sequence[str]) -> str:
    """A suggestion to append to the error about an unknown name.

    >>> _did_you_mean("serve.prot", ["serve.port", "serve.host"]), _did_you_mean("colour", ["serve.port"])
    ('; did you mean serve.port?', '')
    """
    matches = difflib.get_close_matches(name, choices, n=1)
    return f"; did you mean {matches[0]}?" if matches else ""


def _unreadable(error: UnreadableValue) -> SettingsError:
    """The error of an environment variable that must hold JSON and does not."""
    for variable, value in sorted(os.environ.items()):
        prefix, _, suffix = variable.partition("_")
        section, _, key = suffix.lower().partition("__")
        field = Settings.model_fields.get(section)
        if prefix.upper() != "ROOTCOST" or field is None:
            continue
        kind: Any = field.annotation
        if key:
            inner = getattr(kind, "model_fields", {}).get(key)
            kind = None if inner is None else get_origin(inner.annotation)
        elif not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            continue
        if kind is None:
            continue
        try:
            json.loads(value)
        except ValueError:
            remedy = (
                f"write a JSON list: '{json.dumps([value])}'" if kind is list else 'write a JSON object: \'{"name": "value"}\''
            )
            return SettingsError("cannot be read as JSON", where=variable, remedy=remedy)
    return SettingsError(str(error), where="environment", remedy="lists and tables are written as JSON")

"""The verbs of the client that manage: sources and their schedule, the registry, exchange rates, prices."""

from __future__ import annotations

from api import models
from api.client_budgets import Budgets
from api.client_connection import if_match, segment
from api.client_periods import Periods
from api.client_reservations import Reservations
from api.models import Page, RegistryImported
from api.models.prices import Origin
from ledger.settings import SharedRule

_CSV = "text/csv"


class Management(Budgets, Periods, Reservations):
    """What changes something, and what is listed in order to change it."""

    # sources

    def source_kinds(self) -> Page[models.SourceKind]:
        """What can be a source, and what each kind needs."""
        return self._get(Page[models.SourceKind], "/v1/source-kinds")

    def source(self, name: str) -> models.SourceStatus:
        """One configured source and its state."""
        return self._get(models.SourceStatus, f"/v1/sources/{segment(name)}")

    def try_source(self, draft: models.SourceDraft) -> Page[models.SourceTest]:
        """Tries a source out before it is configured; nothing is stored."""
        return self._put(Page[models.SourceTest], "POST", "/v1/sources/test", draft)

    def try_configured_source(self, name: str) -> Page[models.SourceTest]:
        """Tries a configured source out; nothing is stored."""
        return self._put(Page[models.SourceTest], "POST", f"/v1/sources/{segment(name)}/test", None)

    def add_source(self, source: models.NewSource) -> models.SourceStatus:
        """Configures a source."""
        return self._put(models.SourceStatus, "POST", "/v1/sources", source)

    def change_source(self, name: str, terms: models.SourceTerms, *, revision: str | None = None) -> models.SourceStatus:
        """Gives a source other terms. `revision` as for `change_budget`."""
        return self._put(models.SourceStatus, "PUT", f"/v1/sources/{segment(name)}", terms, if_match=if_match(revision))

    def remove_source(self, name: str, *, revision: str | None = None) -> None:
        """Takes a source off the schedule; what it brought, and its history, stay. `revision` as for `change_budget`."""
        self._send("DELETE", f"/v1/sources/{segment(name)}", if_match=if_match(revision))

    def run_source(self, name: str, *, since: str | None = None, until: str | None = None) -> models.SourceRunRow:
        """Begins to read a source now, or days of it again; `source_runs` tells how it ended."""
        request = models.RunRequest(since=since, until=until)
        return self._put(models.SourceRunRow, "POST", f"/v1/sources/{segment(name)}/runs", request)

    def schedule(self) -> Page[models.ScheduleEntry]:
        """When each source is read."""
        return self._get(Page[models.ScheduleEntry], "/v1/schedule")

    def change_schedule(self, name: str, change: models.ScheduleChange, *, revision: str | None = None) -> models.ScheduleEntry:
        """Changes when a source is read, pauses it or goes on; what the change does not name stays. `revision` as for `change_budget`."""
        path = f"/v1/schedule/{segment(name)}"
        return self._put(models.ScheduleEntry, "PATCH", path, change, if_match=if_match(revision))

    # registry and exchange rates

    def enter_agent(self, entry: models.AgentEntry, *, preview: bool = False) -> RegistryImported:
        """Enters an agent, or gives it another owner."""
        return self._put(RegistryImported, "POST", "/v1/agents", entry, {"preview": preview})

    def import_agents(self, csv_text: str, *, name: str = "upload.csv", preview: bool = False) -> RegistryImported:
        """Adds the rows of a registry file."""
        return self._file(RegistryImported, "/v1/agents/import", csv_text.encode(), _CSV, {"name": name, "preview": preview})

    def agent_history(
        self, *, agent: str | None = None, name: str | None = None, limit: int = 100, cursor: str | None = None
    ) -> Page[models.OwnerRecord]:
        """The registry as it was recorded, newest first."""
        conditions = {"agent": agent, "name": name, "limit": limit, "cursor": cursor}
        return self._get(Page[models.OwnerRecord], "/v1/agents/history", conditions)

    def exchange_rates(self, *, limit: int = 100, cursor: str | None = None) -> Page[models.ExchangeRate]:
        """Exchange rates in force, by pair and day."""
        return self._get(Page[models.ExchangeRate], "/v1/exchange-rates", {"limit": limit, "cursor": cursor})

    def import_exchange_rates(self, csv_text: str, *, name: str = "upload.csv", preview: bool = False) -> models.RatesImported:
        """Adds the rates of a file."""
        params = {"name": name, "preview": preview}
        return self._file(models.RatesImported, "/v1/exchange-rates/import", csv_text.encode(), _CSV, params)

    # prices

    def prices(
        self, *, model: str = "", provider: str = "", meter: str = "", limit: int = 100, cursor: str | None = None
    ) -> Page[models.PriceRow]:
        """Every rate ever recorded, of a model or of all."""
        conditions = {"model": model, "provider": provider, "meter": meter, "limit": limit, "cursor": cursor}
        return self._get(Page[models.PriceRow], "/v1/prices", conditions)

    def import_prices(
        self,
        content: bytes,
        *,
        name: str = "upload.csv",
        origin: Origin = "list",
        book: str = "",
        valid_from: str = "",
        accept: bool = False,
        preview: bool = False,
        version: str | None = None,
    ) -> models.PricesImported:
        """Enters a price list (JSON or CSV), or compares it with the price book. Without `version` it goes into whatever is there.

        Raises `StaleProblem` if the price book has another version, such as after a preview.
        """
        content_type = "application/json" if content.lstrip()[:1] in (b"{", b"[") else _CSV
        options = {"name": name, "origin": origin, "book": book, "valid_from": valid_from, "accept": accept, "preview": preview}
        return self._file(models.PricesImported, "/v1/prices/import", content, content_type, options, if_match=if_match(version))

    def price_book(self) -> models.PriceBook:
        """The version of the price book, and how many rates it has."""
        return self._get(models.PriceBook, "/v1/price-book")

    def staged_prices(self, *, limit: int = 100, cursor: str | None = None) -> Page[models.StagedPrice]:
        """Rates that look wrong and wait to be accepted."""
        return self._get(Page[models.StagedPrice], "/v1/prices/staged", {"limit": limit, "cursor": cursor})

    def accept_prices(self, selection: models.StagedSelection, *, version: str | None = None) -> models.StagedDecision:
        """Takes staged rates into the price book. `version` as for `import_prices`."""
        path = "/v1/prices/staged/accept"
        return self._put(models.StagedDecision, "POST", path, selection, if_match=if_match(version))

    def reject_prices(self, selection: models.StagedSelection, *, version: str | None = None) -> models.StagedDecision:
        """Drops staged rates. `version` as for `import_prices`."""
        path = "/v1/prices/staged/reject"
        return self._put(models.StagedDecision, "POST", path, selection, if_match=if_match(version))

    # rules

    def rules(self) -> Page[models.RuleRow]:
        """Shared-cost rules in the order in which they are tried."""
        return self._get(Page[models.RuleRow], "/v1/rules")

    def rule_versions(self) -> Page[models.RuleVersionRow]:
        """Every version of a rule that a run ever used, oldest first."""
        return self._get(Page[models.RuleVersionRow], "/v1/rules/versions")

    def rule(self, name: str) -> models.RuleRow:
        """One shared-cost rule."""
        return self._get(models.RuleRow, f"/v1/rules/{segment(name)}")

    def add_rule(self, rule: SharedRule) -> models.RuleRow:
        """Adds a rule to the ledger."""
        return self._put(models.RuleRow, "POST", "/v1/rules", rule)

    def change_rule(self, name: str, rule: SharedRule, *, revision: int | None = None) -> models.RuleRow:
        """Changes a rule of the ledger. `revision` as for `change_budget`."""
        return self._put(models.RuleRow, "PUT", f"/v1/rules/{segment(name)}", rule, if_match=if_match(revision))

    def remove_rule(self, name: str, *, revision: int | None = None) -> None:
        """Removes a rule of the ledger; its revisions stay. `revision` as for `change_budget`."""
        self._send("DELETE", f"/v1/rules/{segment(name)}", if_match=if_match(revision))

    def preview_rules(self, draft: models.RulesDraft) -> models.RulesEffect:
        """What other rules would change of a month; nothing is published."""
        return self._put(models.RulesEffect, "POST", "/v1/rules/preview", draft)

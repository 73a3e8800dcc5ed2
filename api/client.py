"""Python client of the API: one method per endpoint, with models as arguments and results.

>>> client = Client("http://127.0.0.1:8787", token="…")
>>> client.costs(by=["team"], start="2026-10", end="2026-11").totals      # doctest: +SKIP
{'USD': Decimal('0.03')}
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from api.client_alerts import Alerts
from api.client_connection import segment
from api.client_management import Management
from api.client_people import People
from api.client_problems import (
    ApiProblem,
    ConflictProblem,
    DeniedProblem,
    InvalidProblem,
    MissingProblem,
    ReplacedProblem,
    StaleProblem,
    UnavailableProblem,
    UnknownCallerProblem,
    UnreachableProblem,
)
from api.models import (
    Accepted,
    AgentRow,
    Agents,
    AuditEntry,
    BalanceRow,
    Basis,
    Calendar,
    ChainSummary,
    ChainTree,
    ComparisonTable,
    CostTable,
    Evidence,
    EvidenceSection,
    Explanation,
    Filters,
    ForecastTable,
    Freshness,
    Gaps,
    Granularity,
    Health,
    Me,
    Overview,
    Page,
    ProblemRow,
    ProblemTypeRow,
    RunRow,
    SourceRunRow,
    SourceStatus,
    View,
)

__all__ = [
    "ApiProblem",
    "Client",
    "ConflictProblem",
    "DeniedProblem",
    "InvalidProblem",
    "MissingProblem",
    "ReplacedProblem",
    "StaleProblem",
    "UnavailableProblem",
    "UnknownCallerProblem",
    "UnreachableProblem",
]


PROTOBUF = "application/x-protobuf"


class Client(Management, People, Alerts):
    """Every verb of the API: those that read are here, those that change in `api.client_management`, people in
    `api.client_people`, alerts in `api.client_alerts`.

    What a method raises is an `ApiProblem` with the sentence of the API's problem document; its class says what kind it is.
    """

    # reading

    def overview(
        self, *, month: str | None = None, view: View = "initiator", basis: Basis = "effective", top: int = 10
    ) -> Overview:
        """Overview of a month, by default the newest one."""
        return self._get(Overview, "/v1/overview", {"month": month, "view": view, "basis": basis, "top": top})

    def costs(
        self,
        *,
        by: Sequence[str] = ("team", "agent"),
        view: View = "initiator",
        start: str | None = None,
        end: str | None = None,
        granularity: Granularity = "total",
        basis: Basis = "effective",
        filters: Filters | None = None,
        calendar: Calendar | None = None,
    ) -> CostTable:
        """Costs grouped by dimensions. `filters` keeps rows by value: ``{"team": ["Care", "Dev"]}``; "" matches unknown values."""
        return self._get(CostTable, "/v1/costs", _cost_params(by, view, start, end, granularity, basis, filters, calendar))

    def costs_file(
        self,
        file_format: str,
        *,
        by: Sequence[str] = ("team", "agent"),
        view: View = "initiator",
        start: str | None = None,
        end: str | None = None,
        granularity: Granularity = "total",
        basis: Basis = "effective",
        filters: Filters | None = None,
        calendar: Calendar | None = None,
    ) -> bytes:
        """Costs as a file: `ndjson`, `csv`, `parquet` or `arrow`."""
        params = {**_cost_params(by, view, start, end, granularity, basis, filters, calendar), "format": file_format}
        return self._send("GET", "/v1/costs", params=params).content

    def balance(self, months: Sequence[str] = ()) -> Page[BalanceRow]:
        """Control totals of the named months, by default of all published ones."""
        return self._get(Page[BalanceRow], "/v1/balance", {"month": list(months)})

    def chains(
        self,
        *,
        start: str | None = None,
        end: str | None = None,
        agent: str | None = None,
        team: str | None = None,
        method: str | None = None,
        reason: str | None = None,
        search: str | None = None,
        limit: int = 50,
        offset: int = 0,
        cursor: str | None = None,
    ) -> Page[ChainSummary]:
        """Chains by list cost, highest first. `agent` and `team` are the initiator's, "" matches unknown ones; `search` is part of the root's name."""
        params = {"start": start, "end": end, "agent": agent, "team": team, "method": method, "reason": reason}
        return self._get(
            Page[ChainSummary], "/v1/chains", {**params, "search": search, "limit": limit, "offset": offset, "cursor": cursor}
        )

    def chain(self, chain_id: str) -> ChainTree:
        """One chain as a tree, with the cost of every call."""
        return self._get(ChainTree, f"/v1/chains/{segment(chain_id)}")

    def explain(self, ref: str, *, basis: Basis = "effective", most: int = 20) -> Explanation:
        """Explains the cost of a chain, call or charge; a step lists at most `most` lines."""
        return self._get(Explanation, f"/v1/explain/{segment(ref)}", {"basis": basis, "most": most})

    def explain_cell(
        self,
        *,
        by: Sequence[str] = (),
        view: View = "initiator",
        start: str | None = None,
        end: str | None = None,
        granularity: Granularity = "total",
        basis: Basis = "effective",
        filters: Filters | None = None,
        calendar: Calendar | None = None,
        most: int = 20,
    ) -> Explanation:
        """Explains a cell of a report, which has the parameters of `costs`."""
        params = {**_cost_params(by, view, start, end, granularity, basis, filters, calendar), "most": most}
        return self._get(Explanation, "/v1/explain/cell", params)

    def forecast(
        self,
        *,
        by: Sequence[str] = ("team", "agent"),
        month: str | None = None,
        view: View = "initiator",
        basis: Basis = "effective",
        filters: Filters | None = None,
    ) -> ForecastTable:
        """What a month, by default the current one, will cost; ``by=["currency"]`` forecasts the whole."""
        params = _cost_params(by, view, None, None, "total", basis, filters, None)
        shape = {name: value for name, value in params.items() if name in ("by", "view", "basis", "filter")}
        return self._get(ForecastTable, "/v1/forecast", {**shape, "month": month})

    def compare(
        self,
        before: str,
        after: str,
        *,
        by: Sequence[str] = ("team", "agent"),
        view: View = "initiator",
        basis: Basis = "effective",
        filters: Filters | None = None,
    ) -> ComparisonTable:
        """Why cost changed from one period to another: ``compare("2026-09", "2026-10", by=["agent", "model"])``."""
        params = _cost_params(by, view, None, None, "total", basis, filters, None)
        shape = {name: value for name, value in params.items() if name in ("by", "view", "basis", "filter")}
        return self._get(ComparisonTable, "/v1/compare", {**shape, "from": before, "to": after})

    def registered_agents(self, *, limit: int = 100, cursor: str | None = None) -> Page[AgentRow]:
        """The registered names with their owners over time, in pages."""
        return self._get(Page[AgentRow], "/v1/agents", {"section": "registered", "limit": limit, "cursor": cursor})

    def agents(self) -> Agents:
        """The registry, and agents that are missing from it."""
        return self._get(Agents, "/v1/agents")

    def problems(
        self,
        *,
        source: str | None = None,
        severity: str | None = None,
        limit: int = 100,
        offset: int = 0,
        cursor: str | None = None,
    ) -> Page[ProblemRow]:
        """Problems with the input, newest first."""
        return self._get(
            Page[ProblemRow],
            "/v1/problems",
            {"source": source, "severity": severity, "limit": limit, "offset": offset, "cursor": cursor},
        )

    def runs(self, *, limit: int = 50, offset: int = 0, cursor: str | None = None) -> Page[RunRow]:
        """Attribution runs, newest first."""
        return self._get(Page[RunRow], "/v1/runs", {"limit": limit, "offset": offset, "cursor": cursor})

    def audit(
        self,
        *,
        start: str | None = None,
        end: str | None = None,
        actor: str | None = None,
        action: str | None = None,
        object: str | None = None,  # noqa: A002 - as the API has it
        cursor: str | None = None,
        limit: int = 100,
    ) -> Page[AuditEntry]:
        """Entries of the audit log, newest first; `cursor` is `next` of the page before."""
        conditions = {"start": start, "end": end, "actor": actor, "action": action, "object": object}
        return self._get(Page[AuditEntry], "/v1/audit", {**conditions, "cursor": cursor, "limit": limit})

    def freshness(self) -> Freshness:
        """Freshness of the facts."""
        return self._get(Freshness, "/v1/freshness")

    def evidence(self, *, month: str | None = None, basis: Basis = "effective") -> Evidence:
        """What a month's money stands on, how emitters count, and findings; by default the newest month."""
        return self._get(Evidence, "/v1/evidence", {"month": month, "basis": basis})

    def evidence_file(self, section: EvidenceSection, *, month: str | None = None, basis: Basis = "effective") -> bytes:
        """A section of the evidence as CSV."""
        params = {"month": month, "basis": basis, "format": "csv", "section": section}
        return self._send("GET", "/v1/evidence", params=params).content

    def gaps(
        self,
        *,
        start: str | None = None,
        end: str | None = None,
        granularity: str = "hour",
        limit: int = 1000,
        offset: int = 0,
        cursor: str | None = None,
    ) -> Gaps:
        """Calls that each channel of a gateway missed, by hour or day."""
        params = {"start": start, "end": end, "granularity": granularity, "limit": limit, "offset": offset, "cursor": cursor}
        return self._get(Gaps, "/v1/gaps", params)

    def sources(self) -> Page[SourceStatus]:
        """Configured sources and their state."""
        return self._get(Page[SourceStatus], "/v1/sources")

    def source_runs(
        self, name: str | None = None, *, limit: int = 50, offset: int = 0, cursor: str | None = None
    ) -> Page[SourceRunRow]:
        """Runs of one configured source, or of all, newest first."""
        path = "/v1/source-runs" if name is None else f"/v1/sources/{segment(name)}/runs"
        return self._get(Page[SourceRunRow], path, {"limit": limit, "offset": offset, "cursor": cursor})

    def me(self) -> Me:
        """Who asks, and what it may see."""
        return self._get(Me, "/v1/me")

    def metrics(self) -> str:
        """The Prometheus metrics of the service."""
        return self._send("GET", "/metrics").text

    def health(self) -> Health:
        """Whether the process answers."""
        return self._get(Health, "/health")

    def ready(self) -> Health:
        """Whether store, database and spool answer; raises `ApiProblem` (503) if one does not."""
        return self._get(Health, "/ready")

    def problem_types(self) -> Page[ProblemTypeRow]:
        """All types of problems, with what they mean."""
        return self._get(Page[ProblemTypeRow], "/problems")

    def problem_type(self, kind: str) -> ProblemTypeRow:
        """A type of problem: the last part of a document's `type`."""
        return self._get(ProblemTypeRow, f"/problems/{segment(kind)}")

    # the session, and telemetry

    def log_out(self) -> None:
        """Ends the session that the connection carries."""
        self._send("POST", "/logout")

    def send_traces(self, body: bytes, *, content_type: str = PROTOBUF, content_encoding: str = "identity") -> bytes:
        """Delivers an OTLP trace export; returns the body of the response."""
        return self._send("POST", "/v1/traces", content=body, content_type=content_type, encoding=content_encoding).content

    def send_logs(self, body: bytes, *, content_type: str = PROTOBUF, content_encoding: str = "identity") -> bytes:
        """Delivers an OTLP log export; returns the body of the response."""
        return self._send("POST", "/v1/logs", content=body, content_type=content_type, encoding=content_encoding).content

    def send_metrics(self, body: bytes, *, content_type: str = PROTOBUF, content_encoding: str = "identity") -> bytes:
        """Delivers an OTLP metrics export; returns the body of the response."""
        return self._send("POST", "/v1/metrics", content=body, content_type=content_type, encoding=content_encoding).content

    def send_litellm(self, body: bytes) -> Accepted:
        """Delivers LiteLLM payloads: an object, an array or lines."""
        return self._file(Accepted, "/v1/litellm", body, "application/json", {})


def _cost_params(
    by: Sequence[str],
    view: View,
    start: str | None,
    end: str | None,
    granularity: Granularity,
    basis: Basis,
    filters: Filters | None,
    calendar: Calendar | None,
) -> dict[str, Any]:
    conditions = [
        f"{name}={value}"
        for name, values in (filters or {}).items()
        for value in ([values] if isinstance(values, str) else values)
    ]
    return {
        "by": ",".join(by),
        "view": view,
        "start": start,
        "end": end,
        "granularity": granularity,
        "basis": basis,
        "calendar": calendar,
        "filter": conditions,
    }

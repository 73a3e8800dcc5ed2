"""Python client of the API: one method per endpoint, with models as arguments and results.

>>> client = Client("http://127.0.0.1:8787", token="…")
>>> client.costs(by=["team"], start="2026-10", end="2026-11").totals      # doctest: +SKIP
{'USD': Decimal('0.03')}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel

from api.client_problems import ApiProblem, problem_of
from api.models import (
    Accepted,
    Agents,
    AlertRow,
    AnomalyRow,
    AuditPage,
    BalanceRow,
    Basis,
    Budget,
    BudgetChange,
    Calendar,
    ChainSummary,
    ChainTree,
    CostTable,
    Evidence,
    EvidenceSection,
    Explanation,
    Filters,
    Freshness,
    Gaps,
    Granularity,
    Health,
    Me,
    NewBudget,
    Overview,
    Page,
    ProblemDocument,
    ProblemRow,
    RegistryImported,
    RunRow,
    SourceRunRow,
    SourceStatus,
    View,
)

__all__ = ["ApiProblem", "Client"]

M = TypeVar("M", bound=BaseModel)


class Client:
    """Talks to a running RootCost. Reading needs no token, writing does.

    `http` replaces the connection, for tests that call the app directly.
    """

    def __init__(
        self, base_url: str, token: str | None = None, *, timeout_seconds: float = 30.0, http: httpx.Client | None = None
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._http = http or httpx.Client(base_url=self.base_url, timeout=timeout_seconds)
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

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
        return self._get(ChainTree, f"/v1/chains/{quote(chain_id, safe='')}")

    def explain(self, ref: str, *, basis: Basis = "effective", most: int = 20) -> Explanation:
        """Explains the cost of a chain, call or charge; a step lists at most `most` lines."""
        return self._get(Explanation, f"/v1/explain/{quote(ref, safe='')}", {"basis": basis, "most": most})

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

    def budgets(self, *, month: str | None = None) -> Page[Budget]:
        """Budgets in force with their spend in a month, by default in the newest evaluated one."""
        return self._get(Page[Budget], "/v1/budgets", {"month": month})

    def agents(self) -> Agents:
        """The registry, and agents that are missing from it."""
        return self._get(Agents, "/v1/agents")

    def alerts(self, *, limit: int = 100, offset: int = 0, cursor: str | None = None) -> Page[AlertRow]:
        """Alerts, newest first."""
        return self._get(Page[AlertRow], "/v1/alerts", {"limit": limit, "offset": offset, "cursor": cursor})

    def anomalies(
        self, *, month: str | None = None, limit: int = 100, offset: int = 0, cursor: str | None = None
    ) -> Page[AnomalyRow]:
        """Anomalous days, newest first; of one month if named."""
        return self._get(Page[AnomalyRow], "/v1/anomalies", {"month": month, "limit": limit, "offset": offset, "cursor": cursor})

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
        cursor: int | None = None,
        limit: int = 100,
    ) -> AuditPage:
        """Entries of the audit log, newest first; `cursor` is `next` of the page before."""
        conditions = {"start": start, "end": end, "actor": actor, "action": action, "object": object}
        return self._get(AuditPage, "/v1/audit", {**conditions, "cursor": cursor, "limit": limit})

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
        path = "/v1/source-runs" if name is None else f"/v1/sources/{quote(name, safe='')}/runs"
        return self._get(Page[SourceRunRow], path, {"limit": limit, "offset": offset, "cursor": cursor})

    def me(self) -> Me:
        """Who asks, and what it may see."""
        return self._get(Me, "/v1/me")

    def health(self) -> Health:
        """Whether the process answers."""
        return self._get(Health, "/health")

    def ready(self) -> Health:
        """Whether store, database and spool answer; raises `ApiProblem` (503) if one does not."""
        return self._get(Health, "/ready")

    def rows(self, path: str, file_format: str, **params: Any) -> Iterator[bytes]:
        """All rows of a list, such as ``/v1/chains``, as `ndjson`, `csv`, `parquet` or `arrow`, in pieces as they arrive.

        A stream that the API could not finish raises `ApiProblem`: what arrived is not the whole.
        """
        query = {name: value for name, value in params.items() if value is not None} | {"format": file_format}
        try:
            with self._http.stream("GET", path, params=query, headers=self._headers) as answer:
                if not answer.is_success:
                    answer.read()
                    raise ApiProblem(problem_of(answer))
                yield from answer.iter_bytes()
        except httpx.HTTPError as error:
            raise ApiProblem(self._unreachable(path, error)) from error

    # writing

    def add_budget(self, budget: NewBudget) -> Budget:
        """Creates a budget."""
        return self._put(Budget, "POST", "/v1/budgets", budget)

    def change_budget(self, name: str, change: BudgetChange) -> Budget:
        """Changes a budget, or creates it; earlier revisions are kept."""
        return self._put(Budget, "PUT", f"/v1/budgets/{quote(name, safe='')}", change)

    def drop_budget(self, name: str) -> None:
        """Ends a budget; its revisions are kept."""
        self._send("DELETE", f"/v1/budgets/{quote(name, safe='')}")

    def log_out(self) -> None:
        """Ends the session that the connection carries."""
        self._send("POST", "/logout")

    def import_agents(self, csv_text: str, *, name: str = "upload.csv") -> RegistryImported:
        """Adds the rows of a registry file."""
        answer = self._send(
            "POST", "/v1/agents/import", params={"name": name}, content=csv_text.encode(), content_type="text/csv"
        )
        return _read(RegistryImported, answer)

    def send_traces(
        self, body: bytes, *, content_type: str = "application/x-protobuf", content_encoding: str = "identity"
    ) -> bytes:
        """Delivers an OTLP trace export; returns the body of the response."""
        return self._send("POST", "/v1/traces", content=body, content_type=content_type, encoding=content_encoding).content

    def send_litellm(self, body: bytes) -> Accepted:
        """Delivers LiteLLM payloads: an object, an array or lines."""
        return _read(Accepted, self._send("POST", "/v1/litellm", content=body, content_type="application/json"))

    # inside

    def _get(self, model: type[M], path: str, params: Mapping[str, Any] | None = None) -> M:
        return _read(model, self._send("GET", path, params=params))

    def _put(self, model: type[M], method: str, path: str, order: BaseModel) -> M:
        return _read(model, self._send(method, path, content=order.model_dump_json().encode(), content_type="application/json"))

    def _send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        content: bytes | None = None,
        content_type: str = "",
        encoding: str = "identity",
    ) -> httpx.Response:
        headers = dict(self._headers)
        if content_type:
            headers["Content-Type"] = content_type
        if encoding != "identity":
            headers["Content-Encoding"] = encoding
        query = {k: v for k, v in (params or {}).items() if v is not None}
        try:
            answer = self._http.request(method, path, params=query, content=content, headers=headers)
        except httpx.HTTPError as error:
            raise ApiProblem(self._unreachable(path, error)) from error
        if answer.is_success:
            return answer
        raise ApiProblem(problem_of(answer))

    def _unreachable(self, path: str, error: httpx.HTTPError) -> ProblemDocument:
        return ProblemDocument(
            type="urn:rootcost:problem:unreachable",
            title="RootCost does not answer",
            status=0,
            detail=str(error) or type(error).__name__,
            instance=path,
            where=self.base_url,
            remedy="is `rootcost serve` running?",
        )


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


def _read(model: type[M], answer: httpx.Response) -> M:
    return model.model_validate_json(answer.content)

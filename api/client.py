"""The API as Python calls: one method an endpoint, models in and out.

>>> client = Client("http://127.0.0.1:8787", token="…")
>>> client.costs(by=["team"], start="2026-10", end="2026-11").totals      # doctest: +SKIP
{'USD': Decimal('0.03')}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from api.models import (
    Accepted,
    Agents,
    AlertRow,
    AnomalyRow,
    BalanceRow,
    Basis,
    Budget,
    BudgetChange,
    ChainSummary,
    ChainTree,
    CostTable,
    Explanation,
    FieldError,
    Filters,
    Freshness,
    Gaps,
    Granularity,
    Health,
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
from ledger.errors import RootCostError

M = TypeVar("M", bound=BaseModel)


class ApiProblem(RootCostError):
    """The API answered with a problem document (RFC 9457), or not at all: then `status` is 0."""

    def __init__(self, document: ProblemDocument) -> None:
        self.document = document
        super().__init__(document.detail or document.title, where=document.where or document.instance, remedy=document.remedy)

    @property
    def type(self) -> str:
        """Names the kind of problem."""
        return self.document.type

    @property
    def title(self) -> str:
        """The kind of problem in words."""
        return self.document.title

    @property
    def status(self) -> int:
        """HTTP status; 0 if there was no answer."""
        return self.document.status

    @property
    def detail(self) -> str:
        """What went wrong this time."""
        return self.document.detail

    @property
    def errors(self) -> list[FieldError]:
        """Every field at fault, where the request was invalid."""
        return self.document.errors


class Client:
    """Talks to a running RootCost. Reading needs no token, writing does.

    `http` replaces the connection (tests hand in one that calls the app directly).
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
        """Lets connections go."""
        self._http.close()

    # reading

    def overview(
        self, *, month: str | None = None, view: View = "initiator", basis: Basis = "effective", top: int = 10
    ) -> Overview:
        """A month at a glance; the newest one unless named."""
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
    ) -> CostTable:
        """Costs grouped by dimensions. `filters` keeps rows by value: ``{"team": ["Care", "Dev"]}``; "" is unknown."""
        return self._get(CostTable, "/v1/costs", _cost_params(by, view, start, end, granularity, basis, filters))

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
    ) -> bytes:
        """The same as a file: `csv` or `parquet`."""
        params = {**_cost_params(by, view, start, end, granularity, basis, filters), "format": file_format}
        return self._send("GET", "/v1/costs", params=params).content

    def balance(self, months: Sequence[str] = ()) -> Page[BalanceRow]:
        """Control totals, of all published months unless named."""
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
    ) -> Page[ChainSummary]:
        """Chains, dearest first. `agent` and `team` started it, "" is unknown; `search` is part of the root's name."""
        params = {"start": start, "end": end, "agent": agent, "team": team, "method": method, "reason": reason}
        return self._get(Page[ChainSummary], "/v1/chains", {**params, "search": search, "limit": limit, "offset": offset})

    def chain(self, chain_id: str) -> ChainTree:
        """One chain as a tree, every call with its price."""
        return self._get(ChainTree, f"/v1/chains/{quote(chain_id, safe='')}")

    def explain(self, ref: str, *, basis: Basis = "effective", most: int = 20) -> Explanation:
        """Why a chain, call or charge costs what it costs; a step lists at most `most` lines."""
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
        most: int = 20,
    ) -> Explanation:
        """Why a cell of a report is what it is; it is named as in `costs`."""
        params = {**_cost_params(by, view, start, end, granularity, basis, filters), "most": most}
        return self._get(Explanation, "/v1/explain/cell", params)

    def budgets(self, *, month: str | None = None) -> Page[Budget]:
        """Budgets in force and how they stand in a month; each in its newest one unless named."""
        return self._get(Page[Budget], "/v1/budgets", {"month": month})

    def agents(self) -> Agents:
        """The registry, and who is missing from it."""
        return self._get(Agents, "/v1/agents")

    def alerts(self, *, limit: int = 100, offset: int = 0) -> Page[AlertRow]:
        """Alerts, newest first."""
        return self._get(Page[AlertRow], "/v1/alerts", {"limit": limit, "offset": offset})

    def anomalies(self, *, month: str | None = None, limit: int = 100, offset: int = 0) -> Page[AnomalyRow]:
        """Days unlike their own past, newest first; of one month if named."""
        return self._get(Page[AnomalyRow], "/v1/anomalies", {"month": month, "limit": limit, "offset": offset})

    def problems(
        self, *, source: str | None = None, severity: str | None = None, limit: int = 100, offset: int = 0
    ) -> Page[ProblemRow]:
        """What was wrong with the input, newest first."""
        return self._get(
            Page[ProblemRow], "/v1/problems", {"source": source, "severity": severity, "limit": limit, "offset": offset}
        )

    def runs(self, *, limit: int = 50, offset: int = 0) -> Page[RunRow]:
        """Attribution runs, newest first."""
        return self._get(Page[RunRow], "/v1/runs", {"limit": limit, "offset": offset})

    def freshness(self) -> Freshness:
        """How recent the facts are."""
        return self._get(Freshness, "/v1/freshness")

    def gaps(
        self, *, start: str | None = None, end: str | None = None, granularity: str = "hour", limit: int = 1000, offset: int = 0
    ) -> Gaps:
        """Which channel of the gateway's calls lost what, by hour or day."""
        params = {"start": start, "end": end, "granularity": granularity, "limit": limit, "offset": offset}
        return self._get(Gaps, "/v1/gaps", params)

    def sources(self) -> Page[SourceStatus]:
        """Configured sources and how they stand."""
        return self._get(Page[SourceStatus], "/v1/sources")

    def source_runs(self, name: str | None = None, *, limit: int = 50, offset: int = 0) -> Page[SourceRunRow]:
        """Runs of one configured source, or of all, newest first."""
        path = "/v1/source-runs" if name is None else f"/v1/sources/{quote(name, safe='')}/runs"
        return self._get(Page[SourceRunRow], path, {"limit": limit, "offset": offset})

    def health(self) -> Health:
        """Whether the process answers."""
        return self._get(Health, "/health")

    def ready(self) -> Health:
        """Whether store, database and spool answer; raises `ApiProblem` (503) where one does not."""
        return self._get(Health, "/ready")

    # writing

    def add_budget(self, budget: NewBudget) -> Budget:
        """Sets up a budget."""
        return self._put(Budget, "POST", "/v1/budgets", budget)

    def change_budget(self, name: str, change: BudgetChange) -> Budget:
        """Changes a budget, or sets it up; the earlier revision is kept."""
        return self._put(Budget, "PUT", f"/v1/budgets/{quote(name, safe='')}", change)

    def drop_budget(self, name: str) -> None:
        """Ends a budget; its revisions are kept."""
        self._send("DELETE", f"/v1/budgets/{quote(name, safe='')}")

    def import_agents(self, csv_text: str, *, name: str = "upload.csv") -> RegistryImported:
        """Adds the rows of a registry file."""
        answer = self._send(
            "POST", "/v1/agents/import", params={"name": name}, content=csv_text.encode(), content_type="text/csv"
        )
        return _read(RegistryImported, answer)

    def send_traces(
        self, body: bytes, *, content_type: str = "application/x-protobuf", content_encoding: str = "identity"
    ) -> bytes:
        """Delivers an OTLP trace export; returns the receiver's answer as it came."""
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
            raise ApiProblem(
                ProblemDocument(
                    type="urn:rootcost:problem:unreachable",
                    title="RootCost does not answer",
                    status=0,
                    detail=str(error) or type(error).__name__,
                    instance=path,
                    where=self.base_url,
                    remedy="is `rootcost serve` running?",
                )
            ) from error
        if answer.is_success:
            return answer
        raise ApiProblem(_document(answer))


def _cost_params(
    by: Sequence[str],
    view: View,
    start: str | None,
    end: str | None,
    granularity: Granularity,
    basis: Basis,
    filters: Filters | None,
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
        "filter": conditions,
    }


def _read(model: type[M], answer: httpx.Response) -> M:
    return model.model_validate_json(answer.content)


def _document(answer: httpx.Response) -> ProblemDocument:
    try:
        return ProblemDocument.model_validate_json(answer.content)
    except ValidationError:
        # Something between us and the API answered: its words are all there is to tell.
        return ProblemDocument(
            title=answer.reason_phrase or "error", status=answer.status_code, detail=answer.text[:500], instance=answer.url.path
        )

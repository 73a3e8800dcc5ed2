"""Queries: pure functions from books, as a principal sees them, to frames and models, shared by the API and the command line.

    costs(books, CostQuery) -> DataFrame            by + [period_start] + currency, cost, cost_billed, cost_estimated
    costs_in(books, CostQuery, "EUR") -> DataFrame   the same in one currency, and the exchange rates applied
    cost_table(books, CostQuery) -> CostTable        the same with totals and the runs of the figures
    balance(books, months=None) -> DataFrame         currency, invoice_month, provider, cost_column, charges_in … rounding
    overview(books, month=None, view=…, basis=…, top=10) -> Overview
    chains(books, ChainQuery) -> Listing[ChainSummary]   pages and files of it: api.queries.listing
    chain(books, chain_id) -> ChainTree
    explain(books, ref) -> Explanation               a chain, a call, a charge
    explain_cell(books, CostQuery) -> Explanation    a cell of a report, or the whole report
    budgets(books) -> list[Budget]
    agents(books) -> Agents
    alerts / anomalies / problems / runs (books, …) -> Listing[…]
    freshness(books) -> Freshness
    evidence(books, month=None, basis=…) -> Evidence  what money stands on, how emitters count, findings
    evidence_table(books, section, …) -> DataFrame   a section of it
    forecasts(books, ForecastQuery) -> DataFrame     what a month will cost, by + currency, actual, forecast, low, high
    forecast_table(books, ForecastQuery) -> ForecastTable   the same as a document
    comparison(books, ComparisonQuery) -> DataFrame  why cost changed between two periods: by + currency, effect, cost
    comparison_table(books, ComparisonQuery) -> ComparisonTable   the same as a document
    gaps(books, GapQuery) -> Gaps                    calls that each channel of a gateway missed
    period_lines(books, month) -> list[PeriodLineRow]   what was booked of a closed month
    statement(books, team, month) -> Statement        what a month books to a team, and why
    statements(books, month) -> list[StatementRow]   all of a month that the principal sees
    sources(books) -> list[SourceStatus]             configured sources and their state
    source(books, name) / schedule(books)            one of them; when each is read
    source_runs(books, name=None) -> Listing[SourceRunRow]
    audit_entries(books, AuditQuery) -> Listing[AuditEntry]   the audit log, newest first
    published(books) -> list[PublishedMonth]         month, run_id, rollup_ids of the published runs

Raises `ObjectMissingError` for an object that does not exist, `UsageError` for an invalid query.
"""

from __future__ import annotations

from api.queries.alert_rows import alerts
from api.queries.anomaly_rows import anomalies, anomaly
from api.queries.audit import AuditQuery, audit_entries
from api.queries.budgets import budget_names, budget_requests, budget_revisions, budget_standings, budgets
from api.queries.chains import ChainQuery, chain, chains
from api.queries.comparisons import EFFECTS, ComparisonQuery, comparison, comparison_table
from api.queries.converted import cost_table_in, costs_in
from api.queries.costs import COST_KEYS, DIMENSIONS, CostQuery, balance, cost_table, costs
from api.queries.evidence import evidence, evidence_table
from api.queries.explain import DEFAULT_LINES, explain, explain_cell
from api.queries.forecasts import ForecastQuery, forecast_table, forecasts
from api.queries.gaps import GapQuery, gaps
from api.queries.gate import ScopedBooks, WholeBooks, of_operator, published
from api.queries.listing import FrameListing, Listing, ModelListing, SqlListing
from api.queries.overview import overview
from api.queries.periods import period_lines
from api.queries.sources import schedule, schedule_entry, source, source_run, source_runs, sources
from api.queries.state import agents, freshness, problems, runs
from api.queries.statements import answer_statement, statement, statement_control, statements
from ledger.published import PublishedMonth

__all__ = [
    "COST_KEYS",
    "DEFAULT_LINES",
    "DIMENSIONS",
    "EFFECTS",
    "AuditQuery",
    "ChainQuery",
    "ComparisonQuery",
    "CostQuery",
    "ForecastQuery",
    "FrameListing",
    "GapQuery",
    "Listing",
    "ModelListing",
    "PublishedMonth",
    "ScopedBooks",
    "SqlListing",
    "WholeBooks",
    "agents",
    "alerts",
    "anomalies",
    "anomaly",
    "answer_statement",
    "audit_entries",
    "balance",
    "budget_names",
    "budget_requests",
    "budget_revisions",
    "budget_standings",
    "budgets",
    "chain",
    "chains",
    "comparison",
    "comparison_table",
    "cost_table",
    "cost_table_in",
    "costs",
    "costs_in",
    "evidence",
    "evidence_table",
    "explain",
    "explain_cell",
    "forecast_table",
    "forecasts",
    "freshness",
    "gaps",
    "of_operator",
    "overview",
    "period_lines",
    "problems",
    "published",
    "runs",
    "schedule",
    "schedule_entry",
    "source",
    "source_run",
    "source_runs",
    "sources",
    "statement",
    "statement_control",
    "statements",
]

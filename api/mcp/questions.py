"""The questions: each is a query that the API has, asked as the caller may ask it, with a short answer.

A key that bears the name of an agent that it may see ("what do I cost?") asks about that agent unless it says otherwise.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from decimal import Decimal
from typing import Final
from urllib.parse import quote, urlencode

import polars as pl
import sqlalchemy as sa

from api import queries
from api.mcp.answers import (
    MAX_ROWS,
    BudgetAnswer,
    BudgetLeft,
    ChainAnswer,
    Change,
    ChangeAnswer,
    CostAnswer,
    ExplainAnswer,
    ExplainedStep,
    FoundChain,
    Refusal,
    RefusalAnswer,
    ValueAnswer,
    harmless,
    percent_of,
)
from api.models import Explanation, Granularity, View
from api.queries import ChainQuery, ComparisonQuery, CostQuery, ScopedBooks
from api.queries.costs import DIMENSIONS, RELATIVE, cells
from api.queries.own_names import OwnNames
from ledger import registry
from ledger.access.principals import Principal
from ledger.access.roles import Permission
from ledger.audit import Audit
from ledger.audit_denials import DENIED
from ledger.books import Books
from ledger.errors import UsageError
from ledger.money import text
from ledger.periods import parse_instant

_LINES: Final = 5
"""Lines of each step of an explanation."""


class Questions:
    """The questions of one caller."""

    def __init__(self, books: Books, principal: Principal) -> None:
        self._books, self._principal = books, principal
        self._zone = books.settings.report.timezone

    def what_did_it_cost(
        self, by: Sequence[str], start: str, end: str, filters: Sequence[str], view: View, granularity: Granularity
    ) -> CostAnswer:
        """Costs by dimension."""
        books = self._scoped()
        query = CostQuery.parse(
            by=by, start=start or None, end=end or None, filters=[*filters, *self._own(books, filters)], view=view,
            granularity=granularity, timezone=self._zone,
        )  # fmt: skip
        table = queries.cost_table(books, query)
        names = query.dimensions_in_time
        rows = [
            {**{name: harmless(row.get(name)) for name in names}, "currency": row.currency, "cost": text(row.cost) or "unknown"}
            for row in table.rows[:MAX_ROWS]
        ]
        return CostAnswer(
            rows=rows,
            total=table.totals,
            estimated_percent=percent_of(table.totals_estimated, table.totals),
            rows_left_out=max(len(table.rows) - MAX_ROWS, 0),
            scope=self._scope(books),
            link=f"/v1/costs?{urlencode(query.parameters())}",
            runs=table.runs,
        )

    def compare_periods(
        self, before: tuple[str, str], after: tuple[str, str], by: Sequence[str], filters: Sequence[str], view: View
    ) -> ChangeAnswer:
        """Two periods side by side, by dimension."""
        books = self._scoped()
        own_filters = [*filters, *self._own(books, filters)]
        query_before, query_after = (
            CostQuery.parse(by=by, start=start, end=end, filters=own_filters, view=view, timezone=self._zone)
            for start, end in (before, after)
        )
        names = [*query_after.dimensions, "currency"]
        old, new = (queries.costs(books, query).select(*names, "cost", "cost_estimated") for query in (query_before, query_after))
        periods = old.join(new, on=names, how="full", coalesce=True, nulls_equal=True, suffix="_after").with_columns(
            pl.col("cost", "cost_after").fill_null(0)
        )
        periods = periods.with_columns(change=pl.col("cost_after") - pl.col("cost")).sort(
            pl.col("change").abs(), *names, descending=[True, *(False for _ in names)], nulls_last=True
        )
        total, change = _sums(periods, "cost_after"), _sums(periods, "change")
        effects: defaultdict[tuple[str | None, ...], dict[str, Decimal]] = defaultdict(dict)
        for *group, effect, amount in queries.comparison(books, ComparisonQuery(query_before, query_after)).iter_rows():
            effects[tuple(group)][effect] = amount
        return ChangeAnswer(
            rows=[
                Change(
                    group={name: harmless(row[name]) for name in query_after.dimensions},
                    currency=row["currency"],
                    before=row["cost"],
                    after=row["cost_after"],
                    change=row["change"],
                    effects=effects[(*(row[name] for name in query_after.dimensions if name != "currency"), row["currency"])],
                )
                for row in periods.head(MAX_ROWS).iter_rows(named=True)
            ],
            change=change,
            change_left_out=_sums(periods[MAX_ROWS:], "change"),
            rows_left_out=max(periods.height - MAX_ROWS, 0),
            total=total,
            estimated_percent=percent_of(_sums(periods, "cost_estimated_after"), total),
            scope=self._scope(books),
            link=f"/v1/costs?{urlencode(query_after.parameters())}",
            runs={m.month: m.run_id for m in queries.published(books)},
        )

    def what_is_left(self, budget: str) -> BudgetAnswer:
        """Budgets and what is left of them; of one if it is named."""
        books = self._scoped(Permission.BUDGETS_READ)
        budgets = [row for row in queries.budgets(books) if not budget or row.name == budget]
        if budget and not budgets:
            raise UsageError("no budget has that name", where=harmless(budget), remedy="ask without a name to list them")
        rows = [
            BudgetLeft(
                name=harmless(row.name), scope=row.scope, scope_name=harmless(row.scope_name), currency=row.currency,
                amount=row.amount, spent=row.spent, left=row.left, state=row.state,
            )
            for row in budgets[:MAX_ROWS]
        ]  # fmt: skip
        left_out = max(len(budgets) - MAX_ROWS, 0)
        return BudgetAnswer(rows=rows, rows_left_out=left_out, scope=self._scope(books), link="/v1/budgets")

    def why_was_it_refused(self) -> RefusalAnswer:
        """The caller's own denied requests, and budgets of its scope that are used up."""
        books = self._scoped(Permission.BUDGETS_READ)
        own_denials = (
            sa.select(Audit)
            .where(Audit.action == DENIED, Audit.actor == self._principal.id)
            .order_by(Audit.sequence.desc())
            .limit(MAX_ROWS)
        )
        with self._books.database.session() as session:
            denials = session.scalars(own_denials).all()
        rows = [
            Refusal(
                at=entry.at.isoformat(), what=harmless(entry.subject), why=harmless((entry.after or {}).get("reason")),
                remedy="ask an administrator for a role that has it",
            )
            for entry in denials
        ]  # fmt: skip
        rows += [
            Refusal(
                at=row.recorded_at.isoformat(),
                what=f"budget {harmless(row.name)} of the {row.scope} {harmless(row.scope_name)}",
                why=f"{text(row.spent)} of {text(row.amount)} {row.currency} is spent in the {row.period} from {row.month}",
                remedy="ask the owner of the budget to raise it, or wait for the next period",
            )
            for row in queries.budgets(books)
            if row.state == "exceeded"
        ]
        left_out = max(len(rows) - MAX_ROWS, 0)
        return RefusalAnswer(rows=rows[:MAX_ROWS], rows_left_out=left_out, scope=self._scope(books), link="/v1/budgets")

    def explain_cost(self, ref: str, filters: Sequence[str], start: str, end: str, view: View) -> ExplainAnswer:
        """The derivation of a chain, call or charge, or of all cost that filters and a range select."""
        books = self._scoped()
        if ref:
            explanation, link = queries.explain(books, ref, most=_LINES), f"/v1/explain/{quote(ref, safe='')}"
        else:
            own_filters = [*filters, *self._own(books, filters)]
            query = CostQuery.parse(
                by=(), start=start or None, end=end or None, filters=own_filters, view=view, timezone=self._zone
            )
            explanation = queries.explain_cell(books, query, most=_LINES)
            link = f"/v1/explain/cell?{urlencode(query.parameters())}"
        return ExplainAnswer(
            rows=_steps(explanation),
            total=explanation.cost,
            estimated_percent=percent_of(explanation.estimated, explanation.cost),
            scope=self._scope(books),
            link=link,
            runs={m.month: m.run_id for m in queries.published(books)},
        )

    def find_chains(self, agent: str, team: str, search: str, start: str, end: str) -> ChainAnswer:
        """Chains by cost at list price, highest first."""
        books = self._scoped()
        first, last = (parse_instant(edge, timezone=self._zone) if edge else None for edge in (start, end))
        query = ChainQuery(start=first, end=last, agent=agent or None, team=team or None, search=search or None)
        page = queries.chains(books, query).page(limit=MAX_ROWS)
        rows = [
            FoundChain(
                chain_id=row.chain_id, start=row.start_time.isoformat(), name=harmless(row.root_name),
                initiator_agent=harmless(row.initiator_agent), initiator_team=harmless(row.initiator_team),
                calls=row.calls, list_cost=row.list_cost,
            )
            for row in page.rows
        ]  # fmt: skip
        parameters = {"agent": agent, "team": team, "search": search, "start": start, "end": end}
        link = f"/v1/chains?{urlencode({name: value for name, value in parameters.items() if value})}"
        return ChainAnswer(rows=rows, rows_left_out=page.total - len(rows), scope=self._scope(books), link=link)

    def list_values(self, dimension: str, starting_with: str) -> ValueAnswer:
        """Values of a dimension that occur in the caller's figures."""
        books = self._scoped()
        if dimension not in DIMENSIONS and dimension not in RELATIVE:
            raise UsageError(
                "that is no dimension", where=harmless(dimension), remedy=f"one of: agent, team, {', '.join(DIMENSIONS)}"
            )
        values = cells(books, CostQuery(by=(dimension,))).select(pl.col(dimension).drop_nulls().unique().sort()).collect()
        names = [name for name in values[dimension].to_list() if name and name.casefold().startswith(starting_with.casefold())]
        return ValueAnswer(
            rows=[harmless(name) for name in names[:MAX_ROWS]],
            rows_left_out=max(len(names) - MAX_ROWS, 0),
            scope=self._scope(books),
            link=f"/v1/costs?by={quote(dimension)}",
        )

    def _scoped(self, permission: Permission = Permission.COSTS_READ) -> ScopedBooks:
        return ScopedBooks(self._books, self._principal, permission)

    def _scope(self, books: ScopedBooks) -> str:
        return "the whole ledger" if books.teams is None else f"your teams: {', '.join(sorted(map(harmless, books.teams)))}"

    def _own(self, books: ScopedBooks, filters: Sequence[str]) -> list[str]:
        """The filter for the agent that the key is named after, unless the caller chose filters."""
        name = self._principal.name
        if filters or self._principal.kind != "key" or not OwnNames.of(books).holds("agent", name):
            return []
        names = registry.rows(self._books).filter(pl.col("kind").is_in(["agent", "alias"]))["name"]
        return [f"agent={name}"] if name in names else []


def _sums(frame: pl.DataFrame, column: str) -> dict[str, Decimal]:
    return dict(frame.group_by("currency").agg(pl.col(column).sum()).sort("currency").iter_rows())


def _steps(explanation: Explanation) -> list[ExplainedStep]:
    return [
        ExplainedStep(
            step=step.step,
            sentence=harmless(step.sentence, 400),
            lines=[harmless(part.sentence, 300) for part in step.parts[:_LINES]],
        )
        for step in explanation.steps
    ]

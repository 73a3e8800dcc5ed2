"""Balance page: charges in, costs out, their difference, and cost that no call explains."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal

import streamlit as st

from api.models import BalanceRow
from ui import charts, controls, labels, widgets
from ui.api_requests import request
from ui.grid import Cell, Column, Grid, Pill, Row, draw

CLASSES = ("metered", "owner", "shared", "idle", "unallocated")
COLUMNS = {"effective_cost": "Effective", "billed_cost": "Billed", "list_cost": "List", "contracted_cost": "Contracted"}


def page() -> None:
    """Renders the page."""
    st.title("Balance")
    everything = request(lambda api: api.balance())
    months = sorted({row.invoice_month for row in everything.value.rows})
    if not months:
        widgets.empty_state(
            "Nothing to balance yet",
            "The balance holds bills against what was attributed. Read a bill, then attribute it:",
            "rootcost ingest focus bill.csv",
            "rootcost attribute",
        )
        return
    month_column, middle, _ = st.columns([1.3, 2.4, 3], vertical_alignment="bottom")
    with month_column:
        month = controls.choose_month(months, everything=True, label="Invoice month")
    columns = [name for name in COLUMNS if any(row.cost_column == name for row in everything.value.rows)]
    with middle:
        column = controls.choose(
            "Cost column",
            "column",
            columns,
            default=columns[0],
            label_of=lambda c: COLUMNS[c],
            help_text=labels.BASIS_HELP,
            buttons=True,
        )
    answer = request(lambda api: api.balance([] if month == "all" else [month]))
    rows = [row for row in answer.value.rows if row.cost_column == column]
    verdict(answer.value.rows)
    for currency in sorted({row.currency for row in rows}, reverse=True):
        currency_rows = [row for row in rows if row.currency == currency]
        charts.split_by_class(by_provider(currency_rows), currency=currency, key=f"classes-{currency}")
    table(rows, answer.address)
    st.markdown("##### Where the rest went, and why")
    st.caption(
        "Uncaptured usage was billed, but no log tells of it: it goes to the owner of the credential "
        "where one is known, else it stays unallocated."
    )
    reasons(month, "effective" if column == "effective_cost" else column.removesuffix("_cost"))


def verdict(rows: Sequence[BalanceRow]) -> None:
    """Whether everything ties out, in all cost columns."""
    off = [row for row in rows if row.difference]
    providers = len({row.provider for row in rows})
    if not off:
        st.success(f"Ties out: difference 0 in all cost columns of {providers} provider{'s' if providers > 1 else ''}.")
        return
    worst = off[0]
    st.error(
        widgets.plain(
            f"{worst.provider}, {labels.month(worst.invoice_month)}: charges in and costs out differ "
            f"by {widgets.exact(worst.difference, worst.currency)}."
        )
    )


def by_provider(rows: Sequence[BalanceRow]) -> dict[str, dict[str, Decimal]]:
    """Classes of each provider, largest bill first."""
    sums: dict[str, dict[str, Decimal]] = {}
    for row in sorted(rows, key=lambda r: r.charges_in or Decimal(0), reverse=True):
        parts = sums.setdefault(row.provider, dict.fromkeys(CLASSES, Decimal(0)))
        for name in CLASSES:
            parts[name] += getattr(row, name) or Decimal(0)
    return sums


def table(rows: Sequence[BalanceRow], address: str) -> None:
    """Control totals, and their sums for each currency."""
    amounts = ("charges_in", *CLASSES)
    to = {
        currency: widgets.column_places(row.charges_in for row in rows if row.currency == currency)
        for currency in {row.currency for row in rows}
    }

    def cells(row: BalanceRow) -> list[Cell]:
        return [
            widgets.money_cell(
                getattr(row, name), row.currency, to_places=to[row.currency], tone="" if getattr(row, name) else "muted"
            )
            for name in amounts
        ]

    def closing(difference: Decimal, rounding: Decimal, currency: str) -> list[Cell]:
        tied = Cell(pills=[Pill("0", "good", "charges in = costs out, to the last digit")], order=difference)
        off = widgets.money_cell(difference, currency, tone="bad")
        small = Cell(
            widgets.money(rounding, currency) if rounding else "0",
            order=rounding,
            title=widgets.exact(rounding, currency),
            tone="muted",
        )
        return [off if difference else tied, small]

    table_rows = [
        Row(
            [
                Cell(labels.month(row.invoice_month), order=row.invoice_month),
                Cell(row.provider, order=row.provider),
                *cells(row),
                *closing(row.difference, row.rounding, row.currency),
            ]
        )
        for row in sorted(rows, key=lambda r: (r.invoice_month, r.charges_in or Decimal(0)), reverse=True)
    ]
    footer = []
    for currency in sorted({row.currency for row in rows}, reverse=True):
        currency_rows = [row for row in rows if row.currency == currency]
        sums = [known_sum(getattr(row, name) for row in currency_rows) for name in (*amounts, "difference", "rounding")]
        footer.append(
            Row(
                [
                    Cell(f"Total {currency}"),
                    Cell(),
                    *(widgets.money_cell(a, currency) for a in sums[:-2]),
                    *closing(sums[-2] or Decimal(0), sums[-1] or Decimal(0), currency),
                ]
            )
        )
    columns = [
        Column("Invoice month", shape="word"),
        Column("Provider"),
        Column("Charges in", "right", help="Sum of the bill's rows"),
        *(Column(labels.CLASSES[name], "right", help=widgets.class_help(name)) for name in CLASSES),
        Column("Difference", "right", help="Charges in minus costs out; 0 or nothing is published"),
        Column("Rounding", "right", help="Digits beyond the twelfth that the import rounded away"),
    ]
    draw(Grid(columns, table_rows, footer=footer, label="Balance", address=address), key="balance")


def known_sum(amounts: Iterable[Decimal | None]) -> Decimal | None:
    """The sum of the known amounts; None, not 0, where none is known. (MO-1b)"""
    known_amounts = [amount for amount in amounts if amount is not None]
    return sum(known_amounts, Decimal(0)) if known_amounts else None


def reasons(month: str, basis: str) -> None:
    """Cost beyond metered calls, class by class, with the reason."""
    span = {} if month == "all" else {"start": month, "end": controls.next_month(month)}
    answer = request(lambda api: api.costs(by=["cost_class", "reason", "provider", "service"], basis=basis, **span))  # type: ignore[arg-type]
    unmetered = [row for row in answer.value.rows if row.get("cost_class") != "metered" and row.cost is not None]
    unmetered.sort(key=lambda row: row.cost or Decimal(0), reverse=True)
    to = widgets.column_places(row.cost for row in unmetered)
    rows = [
        Row(
            (
                Cell(
                    pills=[
                        Pill(
                            labels.CLASSES.get(row.get("cost_class") or "", ""),
                            "warn" if row.get("cost_class") == "unallocated" else "",
                            widgets.class_help(row.get("cost_class") or ""),
                        )
                    ],
                    order=row.get("cost_class") or "",
                ),
                Cell(
                    labels.reason(row.get("reason")) or "No reason given",
                    order=row.get("reason") or "",
                    title=row.get("reason") or "",
                ),
                Cell(
                    labels.value("provider", row.get("provider")), order=row.get("provider") or "", sub=row.get("service") or ""
                ),
                widgets.money_cell(row.cost, row.currency, to_places=to),
            ),
            href=widgets.link(
                "explorer",
                by="team,resource",
                month=month,
                filter=[f"{name}={row.get(name) or ''}" for name in ("cost_class", "reason", "provider", "service")],
            ),
        )
        for row in unmetered
    ]
    columns = (Column("Class"), Column("Reason", link=True), Column("Provider"), Column("Cost", "right"))
    grid = Grid(columns, rows, label="Reasons", address=answer.address, empty="Every dollar is explained by a call.")
    controls.go(draw(grid, key="rest"), page="balance")


page()

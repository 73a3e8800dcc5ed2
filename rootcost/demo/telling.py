"""The demo's output: headings, tables with right-aligned money, one chain as a tree."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from ledger.money import text
from ui import labels

if TYPE_CHECKING:
    import polars as pl

    from api.models import Budget, ChainTree, SpanNode
    from ingest.run import IngestReport
    from ledger.db import Alert

NOTHING = Decimal(0)
WIDE = 110
"""Terminal width from which the tables' optional columns are shown."""


def cents(amount: Decimal) -> str:
    """Money with two decimals, so that columns align; amounts below a cent are marked.

    >>> cents(Decimal("1234.567")), cents(Decimal("0.004")), cents(Decimal(0)), cents(Decimal("-0.004"))
    ('1,234.57', '<0.01', '–', '>-0.01')
    """
    if not amount:
        return "–"
    if abs(amount) < Decimal("0.005"):
        return "<0.01" if amount > 0 else ">-0.01"
    return f"{amount:,.2f}"


def _table(*columns: str, right: Sequence[str] = (), footer: Mapping[str, str] | None = None) -> Table:
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_footer=footer is not None, footer_style="bold", header_style="dim")
    for name in columns:
        justify = "right" if name in right else "left"
        grid.add_column(name, justify=justify, no_wrap=name in right, overflow="fold", footer=(footer or {}).get(name, ""))  # type: ignore[arg-type]
    return grid


def heading(console: Console, title: str, sentence: str = "") -> None:
    """Prints a heading."""
    console.print()
    console.print(
        Rule(Text(title, "bold"), align="left", style="dim"), width=None if console.is_terminal else min(console.width, 100)
    )
    if sentence:
        console.print(sentence, style="dim")


@dataclass(frozen=True, slots=True)
class IngestLine:
    """Prints one line about a source that was read."""

    what: str
    report: IngestReport
    seconds: float


def read(console: Console, lines: Iterable[IngestLine], *, currency: str) -> None:
    """Prints what was read, with the total of each bill."""
    grid = _table(
        "input",
        "files",
        "rows",
        "new",
        "left out",
        f"billed {currency}",
        "s",
        right=("files", "rows", "new", "left out", f"billed {currency}", "s"),
    )
    for line in lines:
        r = line.report
        billed_cost = r.totals.get(currency, {}).get("billed_cost")
        grid.add_row(
            line.what,
            f"{r.files:,}",
            f"{r.rows:,}",
            f"{r.rows_changed:,}",
            f"{r.errors:,}" if r.errors else "–",
            "" if billed_cost is None else f"{billed_cost:,.2f}",
            f"{line.seconds:.1f}",
        )
    console.print(grid)


def teams(console: Console, costs: pl.DataFrame, *, currency: str) -> None:
    """Cost by team and the agent that started the work. `costs` has team, agent, cost_class, basis and cost."""
    sums: dict[str, dict[str, dict[str, Decimal]]] = {}
    for row in costs.iter_rows(named=True):
        if row["cost_class"] in ("idle", "unallocated"):
            continue
        kind = row["cost_class"] if row["basis"] == "billed" else "estimated"
        team = row["initiator_team"] or "(no team)"
        agent = row["initiator_agent"] or ("its share of support" if row["cost_class"] == "shared" else "charges it owns")
        classes = sums.setdefault(team, {}).setdefault(agent, {})
        classes[kind] = classes.get(kind, NOTHING) + (row["cost"] or NOTHING)
    kinds = ("metered", "owner", "shared", "estimated")
    everything = {k: sum((a.get(k, NOTHING) for t in sums.values() for a in t.values()), NOTHING) for k in kinds}
    whole = sum(everything.values(), NOTHING)
    footer = {"team": "attributed", **{k: cents(v) for k, v in everything.items()}, f"total {currency}": cents(whole)}
    grid = _table(
        "team", "agent that started it", *kinds, f"total {currency}", right=(*kinds, f"total {currency}"), footer=footer
    )
    by_cost = sorted(
        sums.items(),
        key=lambda item: (item[0] == "(no team)", -sum((sum(a.values(), NOTHING) for a in item[1].values()), NOTHING)),
    )
    for team, agents in by_cost:
        agents_by_cost = sorted(agents.items(), key=lambda item: -sum(item[1].values(), NOTHING))
        for place, (agent, parts) in enumerate(agents_by_cost):
            agent_text = Text(agent, "" if agent not in ("its share of support", "charges it owns") else "dim")
            grid.add_row(
                Text(team, "bold") if place == 0 else "",
                agent_text,
                *(cents(parts.get(k, NOTHING)) for k in kinds),
                Text(cents(sum(parts.values(), NOTHING)), "bold"),
                end_section=place == len(agents_by_cost) - 1,
            )
    console.print(grid)


def rest(console: Console, costs: pl.DataFrame, *, currency: str) -> None:
    """Prints idle and unallocated cost by service, with the reason."""
    sums: dict[tuple[str, str, str], Decimal] = {}
    for row in costs.iter_rows(named=True):
        if row["cost_class"] in ("idle", "unallocated"):
            key = (row["cost_class"], row["service"] or "–", row["reason"] or "")
            sums[key] = sums.get(key, NOTHING) + (row["cost"] or NOTHING)
    total = f"{currency}"
    footer = {"class": "not attributed", total: cents(sum(sums.values(), NOTHING))}
    wide = console.width >= WIDE
    grid = _table("class", "service", "why", *(("reason",) if wide else ()), total, right=(total,), footer=footer)
    kind_text = ""
    for (kind, service, reason), cost in sorted(sums.items(), key=lambda item: (item[0][0], -item[1])):
        code = (Text(reason, "dim"),) if wide else ()
        grid.add_row("" if kind == kind_text else kind, service, labels.reason(reason), *code, cents(cost))
        kind_text = kind
    console.print(grid)


def chain(console: Console, tree: ChainTree, *, explain: str, most_nodes: int = 36) -> None:
    """Prints one chain as a tree: each span's own cost, and its cost including all spans below it. `explain` is a command that says why."""
    summary = tree.chain
    (currency,) = tree.cost or ("",)
    console.print(
        Text.assemble(
            ("Started by ", "dim"),
            (summary.initiator_agent or "unknown", "bold cyan"),
            (f" of {summary.initiator_team}" if summary.initiator_team else "", "dim"),
            (f": {summary.spans} spans, {summary.calls} calls, {summary.tokens or 0:,} tokens; ", "dim"),
            (tree.basis or "", "dim"),
        )
    )
    right = (f"own {currency}", f"with below {currency}")
    wide = console.width >= WIDE
    grid = _table("span", *(("service",) if wide else ()), *right, right=right)
    grid.columns[0].no_wrap, grid.columns[0].overflow = True, "ellipsis"
    for node, guide in _guided(tree.nodes[:most_nodes]):
        name = Text(guide, "dim")
        name.append(node.name or node.operation or "span", "bold" if (node.operation or "") == "invoke_agent" else "")
        own, whole = node.own_cost.get(currency, NOTHING), node.subtree_cost.get(currency, NOTHING)
        grid.add_row(
            name,
            *((Text(node.service_name or "", "dim"),) if wide else ()),
            Text(fine(own), "green") if own else "",
            Text(fine(whole), "dim") if whole != own else "",
        )
    if len(tree.nodes) > most_nodes:
        grid.add_row(Text(f"… {len(tree.nodes) - most_nodes} more", "dim"))
    console.print(grid)
    console.print(Text(f"Why it costs that: {explain}", "dim"))


def _guided(nodes: Sequence[SpanNode]) -> Iterator[tuple[SpanNode, str]]:
    """Nodes, depth first, each with its tree guide lines."""
    children: dict[str | None, list[str]] = {}
    for node in nodes:
        children.setdefault(node.parent_id, []).append(node.node_id)
    lead: dict[str | None, str] = {}
    for node in nodes:
        if node.parent_id not in lead:
            lead[node.node_id] = ""
            yield node, ""
            continue
        last = children[node.parent_id][-1] == node.node_id
        above = lead[node.parent_id]
        lead[node.node_id] = above + ("   " if last else "│  ")
        yield node, above + ("└─ " if last else "├─ ")


def fine(amount: Decimal) -> str:
    """A small amount with six decimals, so that decimal points align.

    >>> fine(Decimal("0.0784")), fine(Decimal("0.0000001"))
    ('0.078400', '<0.000001')
    """
    return "<0.000001" if 0 < amount < Decimal("0.0000005") else f"{amount:,.6f}"


def budgets(console: Console, rows: Sequence[Budget], alerts: Sequence[Alert]) -> None:
    """Prints budgets, and the alerts they raised."""
    right = ("limit", "spent", "of it estimated", "used")
    grid = _table("budget", *right, "state", right=right)
    colour = {"exceeded": "bold red", "warning": "yellow", "ok": "green"}
    for b in sorted(rows, key=lambda b: -(b.used_percent or NOTHING)):
        state = b.state or "–"
        grid.add_row(
            b.name,
            f"{b.amount:,.2f} {b.currency}",
            cents(b.spent or NOTHING),
            cents(b.estimated or NOTHING),
            f"{b.used_percent or NOTHING:.0f} %",
            Text(state, colour.get(state, "")),
        )
    console.print(grid)
    for alert in [a for a in alerts if a.severity == "critical"]:
        console.print(Text.assemble(("● alert  ", "bold red"), alert.text))


def balance(console: Console, frame: pl.DataFrame) -> None:
    """The control totals of effective cost, exact to the last digit, and whether all of them hold."""
    rows = list(frame.filter(frame["cost_column"] == "effective_cost").iter_rows(named=True))
    providers = [row["provider"] for row in rows]
    grid = _table("", *providers, "together", right=(*providers, "together"))
    for column in ("charges_in", "metered", "owner", "shared", "idle", "unallocated"):
        amounts = [row[column] for row in rows]
        cells = [_lined_up(amount) for amount in (*amounts, sum(amounts, NOTHING))]
        grid.add_row(
            column.replace("_", " "),
            *cells,
            style="bold" if column == "charges_in" else "",
            end_section=column in ("charges_in", "unallocated"),
        )
    differences = [row["difference"] for row in rows]
    difference_cells = [
        Text(text(d) or "0", "bold red" if d else "bold green") for d in (*differences, sum(differences, NOTHING))
    ]
    grid.add_row(Text("difference", "bold"), *difference_cells)
    console.print(grid)
    off = int((frame["difference"] != 0).sum())
    verdict = (
        f"{off} of {frame.height} control totals are off"
        if off
        else f"charges in = costs out in all {frame.height} control totals (provider × cost column)"
    )
    console.print(Text.assemble(("✗ " if off else "✓ ", "bold red" if off else "bold green"), verdict))


def _lined_up(amount: Decimal) -> str:
    """All twelve decimals: nothing is rounded, and decimal points align.

    >>> _lined_up(Decimal("1234.5")), _lined_up(Decimal("0E-12"))
    ('1,234.500000000000', '–')
    """
    return f"{amount:,.12f}" if amount else "–"

"""Shared-cost rules: list them with their versions, and preview what other rules would change."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rootcost.terminal.console import Home, attribution_lock, open_books, out, out_rows, say, steps

if TYPE_CHECKING:
    from ledger.problems import Problem
    from ledger.settings import SharedRule

Format = Literal["table", "json"]


def add_to(app: typer.Typer) -> None:
    """Registers these commands."""
    rules = typer.Typer(no_args_is_help=True, help="Shared-cost rules: who pays for what nobody used directly.")
    rules.command("list", epilog="Example: rootcost rules list --format json")(rules_list)
    rules.command("preview", epilog="Example: rootcost rules preview --month 2026-10 --rules proposed.toml")(rules_preview)
    app.add_typer(rules, name="rules")


def rules_list(
    history: Annotated[bool, typer.Option("--history", help="Every version that was ever put to use, oldest first.")] = False,
    output: Annotated[Format, typer.Option("--format", help="table or json.")] = "table",
    home: Home = None,
) -> None:
    """List the shared-cost rules in the order in which they are asked, each with its version, and what is wrong with them.

    Costs name their rule as name@version. Rules are written in rootcost.toml as [[attribution.shared]]; the version changes when
    their terms do.
    """
    from api.queries import of_operator
    from attribution.costs import shared_rules
    from attribution.costs.shared_costs import by_priority
    from rootcost.operations import rules as operations
    from rootcost.terminal import tables

    with open_books(home) as books:
        revisions = shared_rules.rule_versions(books)
        own_rules = by_priority(books.settings.attribution.shared)
        problems = operations.problems(of_operator(books), own_rules, uri="rootcost.toml")
    if history:
        rows: list[dict[str, object]] = [
            {
                "rule": f"{r.name}@{r.version}",
                "recorded": r.recorded_at,
                "terms": _terms(r.definition) if output == "table" else r.definition,
            }
            for r in revisions
        ]
        columns = ["rule", "recorded", "terms"]
    else:
        since = {f"{r.name}@{r.version}": r.recorded_at for r in reversed(revisions)}
        rows = [_table_row(rule) | {"in use since": since.get(rule.label)} for rule in own_rules]
        columns = ["rule", "priority", "takes", "splits", "from", "to", "in use since"]
    if output == "json":
        out_rows(rows)
    elif rows:
        tables.draw(tables.table(columns, [{k: _plain(v) for k, v in row.items()} for row in rows]))
    else:
        say(
            "No rule was put to use yet."
            if history
            else "No shared-cost rules. They are written in rootcost.toml as [[attribution.shared]]"
        )
    _warn(problems)


def rules_preview(
    month: Annotated[str, typer.Option(metavar="YYYY-MM", help="The invoice month to try them on.", show_default=False)],
    rules: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Proposed rules, TOML with [[shared]] tables. Default: those of rootcost.toml, against what is published.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[Format, typer.Option("--format", help="table or json.")] = "table",
    home: Home = None,
) -> None:
    """Show what a month would cost each team under other shared-cost rules. Nothing is published.

    With --rules both sides are drawn from the same facts, so the changes of a currency sum to 0. By effective cost.
    """
    from api.queries import of_operator
    from ledger.settings import read_rules
    from rootcost.operations.rules import compare
    from rootcost.terminal import tables

    with open_books(home) as books:
        proposed_rules = None if rules is None else read_rules(rules)
        with steps(), attribution_lock(books):
            comparison = compare(of_operator(books), month, proposed_rules, uri=str(rules or "rootcost.toml"))
        frame, problems = comparison.frame, comparison.problems
    if output == "json":
        out_rows(frame.iter_rows(named=True))
    elif frame.height:
        rows = [row | {"class": row["cost_class"]} for row in frame.iter_rows(named=True)]
        tables.draw(tables.table(["team", "class", "now", "then", "change", "currency"], rows, money=["now", "then", "change"]))
    else:
        out("Nothing would change.")
    _warn(problems)


def _table_row(rule: SharedRule) -> dict[str, object]:
    scope = rule.model_dump(include={"provider", "account", "service", "sku", "charge_category", "reason", "source_team"})
    conditions = [f"{key} {value}" for key, value in scope.items() if value] + [f"tag {k}={v}" for k, v in rule.tags.items()]
    teams = (
        ", ".join(f"{team} {share}" for team, share in rule.shares.items()) if rule.method == "fixed" else ", ".join(rule.teams)
    )
    method = f"{rule.method} ({rule.usage})" if rule.method == "usage" else rule.method
    return {
        "rule": rule.label,
        "priority": rule.priority,
        "takes": "; ".join(conditions) or "all that nobody owns",
        "splits": f"{method} over {teams or 'all teams'}",
        "from": None if rule.valid_from.year == 1970 else rule.valid_from,
        "to": rule.valid_to,
    }


def _terms(definition: dict[str, object]) -> str:
    return "; ".join(f"{key} {value}" for key, value in definition.items() if key != "name") or "all defaults"


def _plain(value: object) -> object:
    return "" if value is None else f"{value:%Y-%m-%d %H:%M}" if hasattr(value, "hour") else value


def _warn(problems: list[Problem]) -> None:
    for problem in problems:
        say(f"{problem.place}: {problem.reason} — {problem.remedy}")

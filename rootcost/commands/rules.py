"""Shared-cost rules: list them with their versions, set and remove those of the ledger, and preview what other rules would change."""

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
    rules.command("set", epilog="Example: rootcost rules set proposed.toml")(rules_set)
    rules.command("remove", epilog="Example: rootcost rules remove support")(rules_remove)
    app.add_typer(rules, name="rules")


def rules_list(
    history: Annotated[bool, typer.Option("--history", help="Every version that was ever put to use, oldest first.")] = False,
    output: Annotated[Format, typer.Option("--format", help="table or json.")] = "table",
    home: Home = None,
) -> None:
    """List the shared-cost rules in the order in which they are asked, each with its version, and what is wrong with them.

    Costs name their rule as name@version; the version changes when the terms do. A rule is written in rootcost.toml as
    [[attribution.shared]], or set in the ledger with `rootcost rules set` or over the API.
    """
    from api.queries import of_operator
    from attribution.costs import shared_rules
    from attribution.costs.shared_costs import by_priority
    from ledger.rule_store import settings_in_force, stored_rules
    from rootcost.operations import rules as operations
    from rootcost.terminal import tables

    with open_books(home) as books:
        revisions = shared_rules.rule_versions(books)
        own_rules = by_priority(settings_in_force(books).attribution.shared)
        ledger_names = {row.rule.name for row in stored_rules(books)}
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
        rows = [
            _table_row(rule)
            | {"in use since": since.get(rule.label), "origin": "ledger" if rule.name in ledger_names else "settings"}
            for rule in own_rules
        ]
        columns = ["rule", "priority", "takes", "splits", "from", "to", "in use since", "origin"]
    if output == "json":
        out_rows(rows)
    elif rows:
        tables.draw(tables.table(columns, [{k: _plain(v) for k, v in row.items()} for row in rows]))
    else:
        say(
            "No rule was put to use yet."
            if history
            else "No shared-cost rules. Next: rootcost rules set FILE, or write them in rootcost.toml as [[attribution.shared]]"
        )
    _warn(problems)


def rules_preview(
    month: Annotated[str, typer.Option(metavar="YYYY-MM", help="The invoice month to try them on.", show_default=False)],
    rules: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Proposed rules, TOML with [[shared]] tables, instead of all in force. Default: those in force, against what is published.",
            show_default=False,
        ),
    ] = None,
    changes_file: Annotated[
        Path | None,
        typer.Option(
            "--set",
            metavar="FILE",
            help="Rules that would be set beside those in force, as `rootcost rules set` does.",
            show_default=False,
        ),
    ] = None,
    removed_names: Annotated[
        list[str] | None,
        typer.Option("--remove", metavar="NAME", help="A rule that would be removed; repeatable.", show_default=False),
    ] = None,
    output: Annotated[Format, typer.Option("--format", help="table or json.")] = "table",
    home: Home = None,
) -> None:
    """Show what a month would cost each team under other shared-cost rules. Nothing is published.

    With --rules, --set or --remove both sides are drawn from the same facts, so the changes of a currency sum to 0. By effective cost.
    """
    from api.queries import of_operator
    from ledger.errors import UsageError
    from ledger.settings import read_rules
    from rootcost.operations.rules import compare, with_changes
    from rootcost.terminal import tables

    if rules is not None and (changes_file or removed_names):
        raise UsageError("goes without --set and --remove", where="--rules", remedy="name one or the other")
    with open_books(home) as books:
        whole = of_operator(books)
        proposed_rules = None if rules is None else read_rules(rules)
        if changes_file or removed_names:
            proposed_rules = with_changes(whole, read_rules(changes_file) if changes_file else [], removed_names or [])
        with steps(), attribution_lock(books):
            comparison = compare(whole, month, proposed_rules, uri=str(rules or changes_file or "rootcost.toml"))
        frame, problems = comparison.frame, comparison.problems
    if output == "json":
        out_rows(frame.iter_rows(named=True))
    elif frame.height:
        rows = [row | {"class": row["cost_class"]} for row in frame.iter_rows(named=True)]
        tables.draw(tables.table(["team", "class", "now", "then", "change", "currency"], rows, money=["now", "then", "change"]))
    else:
        out("Nothing would change.")
    _warn(problems)


def rules_set(
    file: Annotated[Path, typer.Argument(help="Rules, TOML with [[shared]] tables.", show_default=False)], home: Home = None
) -> None:
    """Set rules in the ledger: those of a known name are changed, others are added; all of the file or none.

    `rootcost rules preview --set FILE` shows before what that would change. Rules that rootcost.toml has are changed there.
    """
    from api.queries import of_operator
    from ledger.settings import read_rules
    from rootcost.operations import rules as operations

    with open_books(home) as books:
        whole, rules = of_operator(books), read_rules(file)
        changes = operations.put(whole, rules)
        problems = operations.problems(whole, rules, uri=str(file))
    for rule, is_change in zip(rules, changes, strict=True):
        out(f"{rule.label} {'is set' if is_change else 'was set already'}")
    _warn(problems)
    if any(changes):
        say("Next: rootcost attribute, unless the service is running")


def rules_remove(
    name: Annotated[str, typer.Argument(help="Name of the rule, from `rootcost rules list`.", show_default=False)],
    home: Home = None,
) -> None:
    """Remove a rule from the ledger. What it said stays in its history; to end it on a day, set its valid_to."""
    from api.queries import of_operator
    from rootcost.operations import rules as operations

    with open_books(home) as books:
        operations.remove(of_operator(books), name)
    out(f"{name} is removed")
    say("Next: rootcost attribute, unless the service is running")


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

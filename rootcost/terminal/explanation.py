"""Explanations in the terminal: the steps of a figure as a tree, each with its lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text
from rich.tree import Tree

from ledger.money import readable_amounts, text
from rootcost.terminal import tables
from rootcost.terminal.chain_tree import chain_tree

if TYPE_CHECKING:
    from collections.abc import Mapping
    from decimal import Decimal

    from api.models import ChainTree, Explanation, Part, Step


def explanation(story: Explanation, tree: ChainTree | None = None, *, rules: bool = False) -> None:
    """Prints a figure and its steps, and below them the tree of a chain. `rules` adds the id of each step's rule."""
    tables.draw(explanation_tree(story, rules=rules))
    if tree is not None:
        tables.draw(chain_tree(tree))
        for limit in tree.limits:
            amount_left, amount_in_all = readable_amounts(limit.remaining, limit.limit)
            terms = f"Budget {limit.name} (revision {limit.revision}, {limit.enforcement})"
            tables.draw(Text(f"{terms}: {limit.currency} {amount_left} of {amount_in_all} was left when it started"))


def explanation_tree(story: Explanation, *, rules: bool) -> Tree:
    """The steps as a tree. Amounts are exact, so that they can be added up."""
    head = Text.assemble((f"{story.kind} ", "dim"), (story.ref, "bold"), "  ", (_exact(story.cost), "bold green"))
    if any(story.estimated.values()):
        head.append(f"  of which estimated {_exact(story.estimated)}", "yellow")
    root = Tree(head, guide_style="dim")
    for step in story.steps:
        _add_step(root, step, rules=rules)
    return root


def _add_step(root: Tree, step: Step, *, rules: bool) -> None:
    rule = (f"  {step.rule}", "magenta") if rules else ""
    branch = root.add(Text.assemble((step.step, "bold cyan"), rule, "  ", step.sentence))
    for part in step.parts:
        branch.add(_line(part))
    if step.rest is not None:
        count = f"{step.rest.count:,} more" if step.rest.count else "the rest"
        cost = f": {_exact(step.rest.cost)}" if step.rest.cost else ""
        branch.add(Text(f"… {count}{cost}", "dim"))


def _line(part: Part) -> Text:
    line = Text(part.sentence)
    if part.cost is not None and part.currency and (amount_text := f"{text(part.cost)} {part.currency}") in part.sentence:
        line.highlight_words([amount_text], "green")
    return line


def _exact(costs: Mapping[str, Decimal]) -> str:
    return " + ".join(f"{text(cost)} {currency}" for currency, cost in sorted(costs.items())) or "no cost"

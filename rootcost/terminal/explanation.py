"""How an explanation looks in a terminal: its steps as a tree, each with its rule and its lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text
from rich.tree import Tree

from ledger.money import text
from rootcost.terminal import tables

if TYPE_CHECKING:
    from collections.abc import Mapping
    from decimal import Decimal

    from api.models import ChainTree, Explanation, Part, Step


def explanation(story: Explanation, tree: ChainTree | None = None) -> None:
    """The figure and its steps; of a chain, its tree below them."""
    tables.draw(drawing(story))
    if tree is not None:
        tables.chain(tree)


def drawing(story: Explanation) -> Tree:
    """The drawing itself. Amounts have every digit: they are to be added up."""
    head = Text.assemble((f"{story.kind} ", "dim"), (story.ref, "bold"), "  ", (_exact(story.cost), "bold green"))
    if any(story.estimated.values()):
        head.append(f"  of which estimated {_exact(story.estimated)}", "yellow")
    root = Tree(head, guide_style="dim")
    for step in story.steps:
        _hang(root, step)
    return root


def _hang(root: Tree, step: Step) -> None:
    branch = root.add(Text.assemble((step.step, "bold cyan"), (f"  {step.rule}", "magenta"), "  ", step.sentence))
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

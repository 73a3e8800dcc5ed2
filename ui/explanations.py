"""Explanations on a page: the steps of a figure as a table, linked to the figures they are made of."""

from __future__ import annotations

from urllib.parse import parse_qsl

from api.models import Explanation, Link, Part, Step
from ui import widgets
from ui.grid import Cell, Column, Grid, Row, rails

STEPS = {
    "cell": "The figure",
    "chain": "The chain",
    "meter": "The call",
    "charge": "Charges",
    "estimate": "Estimates",
    "pool": "Pools",
    "rate": "Rates",
    "usage": "Hourly usage",
    "call": "Calls",
    "span": "Spans",
    "executor": "Who ran it",
    "initiator": "Who started it",
    "owner": "Who owned them then",
    "class": "Class and rule",
    "run": "Run",
    "balance": "Balance",
}
"""Display names of steps; others are shown as they are stored."""


def explanation_grid(story: Explanation, address: str, *, rules: bool = False) -> Grid:
    """The steps, with their lines below them; `rules` adds a column of rule ids. Amounts are exact, so that they can be added up."""
    lines: list[Row] = []
    depths: list[int] = []
    for step in story.steps:
        depths += [0, *([1] * (len(step.parts) + (step.rest is not None)))]
    guides = iter(rails(depths))
    for step in story.steps:
        lines.append(step_row(step, next(guides), rules=rules))
        lines += [part_row(part, next(guides), rules=rules) for part in step.parts]
        if step.rest is not None:
            remainder_text = f"{widgets.count(step.rest.count)} more" if step.rest.count else "The rest"
            text = Cell(remainder_text, depth=1, rails=next(guides), tone="muted")
            lines.append(Row([text, *_rule("", rules), _amount(step.rest.cost)]))
    columns = (
        Column("Step", shape="wide", link=True),
        *((Column("Rule", shape="word", help="As docs/concepts.md names it"),) if rules else ()),
        Column("Of the figure", "right"),
    )
    return Grid(columns, lines, label="Why", address=address, sortable=False, empty="There is no explanation of it.")


def step_row(step: Step, guide: str, *, rules: bool) -> Row:
    """A step: its name, its sentence, its amount."""
    name = STEPS.get(step.step, step.step.capitalize())
    href = href_of(step.links[0]) if len(step.links) == 1 else ""
    text = Cell(name, sub=step.sentence, rails=guide)
    return Row([text, *_rule(step.rule, rules), _amount(step.sum)], href=href, strong=True)


def part_row(part: Part, guide: str, *, rules: bool) -> Row:
    """One line of a step, linked to its own explanation if it has one."""
    cost = _amount({part.currency: part.cost} if part.cost is not None and part.currency else {})
    text = Cell(part.sentence, depth=1, rails=guide)
    return Row([text, *_rule("", rules), cost], href=href_of(part.link) if part.link else "")


def _rule(rule: str, shown: bool) -> list[Cell]:
    return [Cell(rule)] if shown else []


def href_of(link: Link) -> str:
    """URL of the page about another figure.

    >>> href_of(Link(kind="cell", ref="by=team&filter=team%3DCare", address="")), href_of(Link(kind="charge", ref="c0", address=""))
    ('explain?by=team&filter=team%3DCare', 'explain?ref=c0')
    """
    if link.kind == "chain":
        return widgets.link("chains", chain=link.ref)
    if link.kind != "cell":
        return widgets.link("explain", ref=link.ref)
    parameters: dict[str, list[str]] = {}
    for name, value in parse_qsl(link.ref, keep_blank_values=True):
        parameters.setdefault(name, []).append(value)
    return widgets.link("explain", **{name: values if len(values) > 1 else values[0] for name, values in parameters.items()})


def _amount(costs: object) -> Cell:
    if not isinstance(costs, dict) or not costs:
        return Cell()
    return Cell(widgets.several(costs), title=widgets.several_exact(costs))

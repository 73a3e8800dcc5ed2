"""Explanations on a page: the steps of a figure's dollars as a table, each with its rule, and where they lead."""

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
"""What steps are called on a page; others as they are written."""


def drawing(story: Explanation, address: str) -> Grid:
    """The steps, with their lines below them. Every digit is shown: the lines are there to be added up."""
    lines: list[tuple[int, Row]] = []
    depths: list[int] = []
    for step in story.steps:
        depths += [0, *([1] * (len(step.parts) + (step.rest is not None)))]
    on = iter(rails(depths))
    for step in story.steps:
        lines.append((0, step_row(step, next(on))))
        lines += [(1, part_row(part, next(on))) for part in step.parts]
        if step.rest is not None:
            remainder_text = f"{widgets.count(step.rest.count)} more" if step.rest.count else "The rest"
            cells = [Cell(remainder_text, depth=1, rails=next(on), tone="muted"), Cell(), _amount(step.rest.cost)]
            lines.append((1, Row(cells)))
    columns = (Column("Step", shape="wide", link=True), Column("Rule", shape="word"), Column("Of the figure", "right"))
    return Grid(columns, [row for _, row in lines], label="Why", address=address, sortable=False, empty="Nothing is told of it.")


def step_row(step: Step, on: str) -> Row:
    """A step: its name, its sentence, its rule."""
    name = STEPS.get(step.step, step.step.capitalize())
    href = href_of(step.links[0]) if len(step.links) == 1 else ""
    return Row([Cell(name, sub=step.sentence, rails=on), Cell(step.rule), _amount(step.sum)], href=href, strong=True)


def part_row(part: Part, on: str) -> Row:
    """One line of a step; it leads to its own explanation, where it has one."""
    cost = _amount({part.currency: part.cost} if part.cost is not None and part.currency else {})
    return Row([Cell(part.sentence, depth=1, rails=on), Cell(), cost], href=href_of(part.link) if part.link else "")


def href_of(link: Link) -> str:
    """The page that tells of another figure.

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

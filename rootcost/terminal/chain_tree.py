"""A chain as a tree on the terminal: the cost of each span, alone and with all below it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text
from rich.tree import Tree

from ledger.plurals import counted
from rootcost.terminal.tables import amounts

if TYPE_CHECKING:
    from api.models import ChainTree, SpanNode


def chain_tree(tree: ChainTree, *, most_nodes: int = 60) -> Tree:
    """The chain as a tree, cut after `most_nodes` spans."""
    head = Text.assemble((tree.chain.root_name or tree.chain.chain_id, "bold"), "  ", (amounts(tree.cost), "bold green"))
    if tree.basis:
        head.append(f"  {tree.basis}", "dim")
    if tree.unpriced_calls:
        head.append(f"  {counted(tree.unpriced_calls, 'call')} unpriced", "yellow")
    root = Tree(head)
    hung: dict[str | None, Tree] = {None: root}
    for node in tree.nodes[:most_nodes]:
        hung[node.node_id] = hung.get(node.parent_id, root).add(_span(node))
    if len(tree.nodes) > most_nodes:
        root.add(Text(f"… {counted(len(tree.nodes) - most_nodes, 'more span')}", "dim"))
    return root


def _span(node: SpanNode) -> Text:
    line = Text(node.name or node.operation or node.span_id or "span")
    if node.agent_name and node.agent_name not in line.plain:
        line.append(f"  {node.agent_name}", "cyan")
    models = sorted({call.model for call in node.calls if call.model})
    if models:
        line.append(f"  {', '.join(models)}", "dim")
    if node.service_name:
        line.append(f"  @{node.service_name}", "dim")
    if node.edge in ("link", "cut"):
        line.append(f"  ({node.edge})", "yellow")
    if node.own_cost:
        line.append(f"  {amounts(node.own_cost)}", "green")
    if node.subtree_cost and node.subtree_cost != node.own_cost:
        line.append(f"  Σ {amounts(node.subtree_cost)}", "dim green")
    return line

"""Rules as people read them: formula, tree, Python. Nothing of a run directory is executed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.tree import Tree

from evometa.records import Genome
from evometa.rule import DESCENT, GradientRule, formula, make_rule, python_source, simplified
from evometa.rule.update import Update


def rule_of(genome: Genome) -> GradientRule | None:
    """Return the gradient rule of a genome; None where there is none that can be read.

    Updates that use primitives of one's own cannot: only the study file knows them.
    """
    rule = genome.get("rule") if isinstance(genome, dict) else None
    if isinstance(rule, dict) and len(rule) == 1:
        rule = rule.get("gradient")
    if not isinstance(rule, dict):
        return None
    try:
        return make_rule(rule)
    except Exception:  # a stranger's run may hold anything
        return None


def said(genome: Genome) -> str:
    """Return how a genome adapts as a formula: its update, or what its prototypes compare.

    Empty where it cannot be read.
    """
    rule = rule_of(genome)
    if rule is not None:
        return formula(rule)
    genes = genome.get("rule") if isinstance(genome, dict) else None
    genes = genes.get("prototypes") if isinstance(genes, dict) else None
    distance = genes.get("distance") if isinstance(genes, dict) else None
    return _PROTOTYPES.get(distance, "") if isinstance(distance, str) else ""


_PROTOTYPES = {
    "euclidean": "class ← argminₖ ‖f(x) - cₖ‖², cₖ the mean of f over the examples of class k",
    "cosine": "class ← argmaxₖ cos(f(x), cₖ), cₖ the mean of f over the examples of class k",
}


def print_rule(console: Console, genome: Genome, ancestors: Mapping[str, Genome]) -> None:
    """Print a genome's update as a formula and as a tree, and its short form if it has one.

    Args:
        console: where to print.
        genome: of a candidate.
        ancestors: id to genome, nearest first; those whose update was another one are printed.
    """
    rule = rule_of(genome)
    if rule is None:
        if said(genome):
            console.print(f"\n[bold]rule[/]\n  {escape(said(genome))}", highlight=False)
        return
    console.print("\n[bold]update[/]")
    console.print(f"  {escape(formula(rule))}", highlight=False, soft_wrap=True)
    if rule.update == DESCENT:
        return
    shorter = replace(rule, update=simplified(rule.update))
    if len(shorter.update) < len(rule.update):
        console.print(f"  = {escape(formula(shorter))}", highlight=False, soft_wrap=True)
    console.print(Group("", _tree(rule.expression)))
    last = formula(rule)
    for name, ancestor in ancestors.items():
        older = rule_of(ancestor)
        if older is not None and formula(older) != last:
            last = formula(older)
            console.print(f"  from {name}: {escape(last)}", highlight=False, soft_wrap=True)


def print_python(console: Console, genome: Genome) -> None:
    """Print a genome's update as a function of PyTorch alone, ready to be put into a file."""
    rule = rule_of(genome)
    text = python_source(rule) if rule else "# this candidate has no update to be written out"
    console.print(text, highlight=False, markup=False, emoji=False, soft_wrap=True)


def _tree(update: Update) -> RenderableType:
    branches: list[Tree] = []
    for node in update.nodes:
        name = node.value if isinstance(node.value, str) else f"{node.value:.4g}"
        learned = " [dim](learned)[/]" if node.learned else ""
        label = f"{escape(str(name))}{learned} [dim]{node.kind}[/]"
        parent = next(
            (
                branches[place]
                for place, other in enumerate(update.nodes)
                if len(branches) in other.arguments
            ),
            None,
        )
        branches.append(Tree(label) if parent is None else parent.add(label))
    return branches[0]

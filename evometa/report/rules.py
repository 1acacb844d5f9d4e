"""Rules as people read them: formula, tree, Python. Nothing of a run directory is executed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, Group
from rich.markup import escape
from rich.tree import Tree

from evometa.learner import Outline, family_of, formula_of
from evometa.records import Genome


def describe_rule(genome: Genome) -> str:
    """Return how a genome learns as a formula; empty where it cannot be read.

    Families and primitives of one's own cannot: only the study file knows them.
    """
    return formula_of(genome.get("rule")) if isinstance(genome, dict) else ""


def print_rule(console: Console, genome: Genome, ancestors: Mapping[str, Genome]) -> None:
    """Print how a genome learns as a formula and as a tree, and its short form if it has one.

    Args:
        console: where to print.
        genome: of a candidate.
        ancestors: id to genome, nearest first; those whose formula was another one are printed.
    """
    last = describe_rule(genome)
    if not last:
        return
    console.print("\n[bold]rule[/]")
    console.print(f"  {escape(last)}", highlight=False, soft_wrap=True)
    outline = _outline(genome)
    if outline is None:
        return
    if outline.shorter:
        console.print(f"  = {escape(outline.shorter)}", highlight=False, soft_wrap=True)
    console.print(Group("", _tree(outline.tree)))
    for name, ancestor in ancestors.items():
        older = describe_rule(ancestor)
        if older and older != last:
            last = older
            console.print(f"  from {name}: {escape(last)}", highlight=False, soft_wrap=True)


def print_python(console: Console, genome: Genome) -> None:
    """Print how a genome learns as a function of PyTorch alone, ready to be put into a file."""
    text = None
    if describe_rule(genome):
        family, genes = family_of(genome["rule"])
        text = family.source(genes, ())
    text = text or "# this candidate has no update to be written out"
    console.print(text, highlight=False, markup=False, emoji=False, soft_wrap=True)


def _outline(genome: Genome) -> Outline | None:
    family, genes = family_of(genome["rule"])
    return family.outline(genes, ())


def _tree(node: tuple[str, Sequence[Any]]) -> Tree:
    label, branches = node
    tree = Tree(escape(label))
    for branch in branches:
        tree.children.append(_tree(branch))
    return tree

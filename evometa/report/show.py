"""Tables for a terminal."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from evometa.errors import EvometaError
from evometa.records import Genome, Objectives, Status
from evometa.report.ranking import Ranked, lineage, operator_counts
from evometa.report.standing import agreements

GENOMES_SHOWN = 3  # below a ranking; `show` prints the others


def print_top(
    console: Console, ranked: Sequence[Ranked], objectives: Objectives, *, scored: str
) -> None:
    """Print a ranking, one candidate a line, with what it gained over the first baseline."""
    if not ranked:
        console.print("No candidate has been evaluated successfully yet.")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("candidate", no_wrap=True)
    for name in objectives:
        table.add_column(name, justify="right", no_wrap=True)
    if any(row.gain is not None for row in ranked):
        table.add_column("gain", justify="right", no_wrap=True)
    several = any(row.seeds > 1 for row in ranked)
    if several:
        table.add_column("seeds", justify="right")
    if "params" not in objectives:
        table.add_column("params", justify="right")
    table.add_column("seconds", justify="right", no_wrap=True)
    for row in ranked:
        name = f"[bold]{escape(row.name)}[/] {row.id}" if row.name else row.id
        cells = [f"{'*' if row.on_front else ' '}{row.rank}", name]
        cells += [_value(row, objective, scored) for objective in objectives]
        if any(other.gain is not None for other in ranked):
            known = row.gain is not None
            cells.append(f"{row.gain:+.4g} ± {row.gain_interval:.2g}" if known else "")
        if several:
            cells.append(str(row.seeds))
        if "params" not in objectives:
            cells.append(f"{row.params:,}")
        cells += [f"{row.seconds:.1f}"]
        style = "cyan" if row.name else ""
        table.add_row(*cells, style=style if row.feasible else "dim")
    console.print(table)
    about = "± is the 95% interval over meta-validation episodes; * is on the Pareto front"
    if any(row.gain is not None for row in ranked):
        about += "; gain is over the first baseline, on the same episodes"
    if several:
        about += "; values are means over seeds"
    if not all(row.feasible for row in ranked):
        about += "; those that break a constraint are dim"
    console.print(f"{about}.\n", style="dim")
    for row in ranked:
        if row.rank <= GENOMES_SHOWN or row.name:
            console.print(f"{row.id}  {escape(brief(row.genome))}", highlight=False, soft_wrap=True)


def print_rungs(
    console: Console, table: pa.Table, objectives: Objectives, levels: Sequence[Mapping[str, Any]]
) -> None:
    """Print what was done at each rung, and how well it predicts the next one."""
    repeats = pc.max(table["repeat"]).as_py() or 0
    if len(levels) + repeats < 2 or not len(table):
        return
    sums = table.group_by(["rung", "repeat"]).aggregate([("seconds", "sum"), ("seconds", "count")])
    spent = {(row["rung"], row["repeat"]): row for row in sums.to_pylist()}
    found = {agreement.rung: agreement for agreement in agreements(table, objectives)}
    lines = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("rung", "iterations", "candidates", "seconds", "predicts the next (tau)"):
        lines.add_column(name, justify="right")
    last = len(levels) - 1
    stages = [(rung, 0) for rung in range(last)] + [(last, k) for k in range(repeats + 1)]
    for rung, repeat in stages:
        length = f"{levels[rung]['iterations']}" + (f", seed {repeat}" if repeat else "")
        tau = None if repeat else found.get(rung)
        known = f"{tau.tau:.2f} of {tau.pairs}" if tau and tau.pairs > 2 else ""
        row = spent.get((rung, repeat), {"seconds_count": 0, "seconds_sum": 0.0})
        spent_text = f"{row['seconds_sum']:.1f}"
        lines.add_row(str(rung), length, str(row["seconds_count"]), spent_text, known)
    console.print(lines)
    for agreement in found.values():
        if agreement.warning:
            console.print(f"warning: {agreement.warning}", style="yellow", highlight=False)
    console.print()


def print_failures(console: Console, table: pa.Table, run: object) -> None:
    """Print how many candidates failed in which way, and the first reason of each.

    Args:
        console: where to print.
        table: the rows of a run.
        run: its folder or URL, for a command to copy.
    """
    failed = table.filter(pc.not_equal(pc.cast(table["status"], pa.string()), Status.OK.value))
    rows = failed.select(["candidate_id", "status", "error"]).to_pylist()
    counts = Counter(row["status"] for row in rows)
    for status, count in sorted(counts.items()):
        first = next(row for row in rows if row["status"] == status)
        reason = (first["error"].strip().splitlines() or ["no reason given"])[-1]
        console.print(
            f"\n{count} {status}; the first, {first['candidate_id']}: {escape(reason)}",
            style="yellow",
            highlight=False,
        )
    if rows:
        console.print(
            f"All of it: evometa show {escape(str(run))} ID", style="yellow", highlight=False
        )


def find(table: pa.Table, candidate_id: str) -> dict[str, Any]:
    """Return a candidate's row.

    Raises:
        EvometaError: if the run has no such candidate.
    """
    rows: list[dict[str, Any]] = table.filter(
        pc.equal(table["candidate_id"], candidate_id)
    ).to_pylist()
    if not rows:
        ids = table["candidate_id"].to_pylist()
        span = f"it has {ids[0]} to {ids[-1]}" if ids else "it is empty"
        raise EvometaError(f"the run has no candidate {candidate_id!r}; {span}")
    return rows[-1]


def print_operators(console: Console, table: pa.Table, objectives: Objectives) -> None:
    """Print how often each operator was used, and how often its child beat its parent."""
    counts = operator_counts(table, objectives)
    if not counts:
        console.print("No candidate has been made from another one yet.")
        return
    lines = Table(box=None, pad_edge=False, header_style="bold")
    for name, justify in (("operator", "left"), ("uses", "right"), ("better", "right")):
        lines.add_column(name, justify=justify)  # type: ignore[arg-type]
    lines.add_column("share", justify="right")
    for operator, (uses, better) in sorted(counts.items()):
        lines.add_row(escape(operator), str(uses), str(better), f"{better / uses:.0%}")
    console.print(lines)


def print_candidate(
    console: Console, table: pa.Table, candidate_id: str, objectives: Objectives
) -> None:
    """Print one candidate's genome, network, scores, curve and ancestors.

    Raises:
        EvometaError: if the run has no such candidate.
    """
    row = find(table, candidate_id)
    console.print(f"[bold]{row['candidate_id']}[/]  {row['status']}  {escape(made_by(row))}")
    if row["error"]:
        console.print(escape(row["error"]), style="red", highlight=False)
    console.print("\n[bold]genome[/]")
    console.print_json(row["genome"])
    if row["network"]:
        console.print("\n[bold]network[/]")
        console.print(escape(row["network"]), highlight=False)
    console.print("\n[bold]scores[/]")
    _print_scores(console, row, objectives)
    ancestors = lineage(table, candidate_id)[1:]
    console.print("\n[bold]lineage[/]" if ancestors else "\n[bold]lineage[/]  none: no parents")
    child = json.loads(row["genome"])
    for parent in ancestors:
        changes = ", ".join(differences(parent["genome"], child)) or "nothing changed"
        console.print(f"  from {parent['candidate_id']}: {escape(changes)}", highlight=False)
        child = parent["genome"]


def made_by(row: Mapping[str, Any]) -> str:
    """Say what made a candidate; of a known design, which one it is."""
    return f"{row['operator']} {row['name']}".strip()


def differences(parent: Genome, child: Genome, path: str = "") -> list[str]:
    """Say what changed from parent to child: `path: old -> new`."""
    if isinstance(parent, dict) and isinstance(child, dict):
        lines = []
        for key in sorted({*parent, *child}):
            lines += differences(parent.get(key), child.get(key), f"{path}.{key}" if path else key)
        return lines
    if isinstance(parent, list) and isinstance(child, list) and len(parent) == len(child):
        lines = []
        for index, (old, new) in enumerate(zip(parent, child, strict=True)):
            lines += differences(old, new, f"{path}[{index}]")
        return lines
    return [] if parent == child else [f"{path}: {brief(parent)} -> {brief(child)}"]


def brief(genome: Genome) -> str:
    """Return a genome in one line, floats to three digits."""
    if isinstance(genome, dict):
        return " ".join(
            f"{key}=({brief(value)})" if isinstance(value, dict) else f"{key}={brief(value)}"
            for key, value in genome.items()
        )
    if isinstance(genome, list):
        return "[" + " | ".join(map(brief, genome)) + "]"
    return f"{genome:.3g}" if isinstance(genome, float) else str(genome)


def _print_scores(console: Console, row: dict[str, Any], objectives: Objectives) -> None:
    skipped = {"genome", "network", "error", "scores", "curve", "parents"}
    for name, value in row.items():
        if value in (None, "") or name in skipped or name.startswith("gene."):
            continue
        mark = f"  ({objectives[name]})" if name in objectives else ""
        text = f"{value:.6g}" if isinstance(value, float) else str(value)
        if name == "steps":
            text = "  ".join(f"{step}:{mean:.3g}" for step, mean in enumerate(value))
        console.print(f"  {name:<20} {escape(text)}{mark}", highlight=False)
    if row["curve"]:
        points = "  ".join(f"{p['iteration']}:{p['loss']:.3g}" for p in row["curve"][::4])
        console.print(f"  {'learning curve':<20} {points}", highlight=False)


def _value(row: Ranked, objective: str, scored: str) -> str:
    value = row.values[objective]
    if objective == scored:
        return f"{value:.4g} ± {row.interval:.2g}"
    return f"{value:,.0f}" if value == int(value) else f"{value:.4g}"

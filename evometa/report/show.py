"""Tables for a terminal."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.markup import escape

from evometa.errors import EvometaError
from evometa.records import Genome, Objectives, Status
from evometa.report.grid import print_rows
from evometa.report.ranking import Ranked, lineage, operator_counts
from evometa.report.standing import agreements

GENOMES_SHOWN = 3  # below a ranking; `show` prints the others
LONGEST = 20_000  # characters of a genome that a person would still look at


def print_top(
    console: Console, ranked: Sequence[Ranked], objectives: Objectives, *, scored: str
) -> None:
    """Print a ranking, one candidate a line, with what it gained over the first baseline."""
    if not ranked:
        console.print("No candidate has been evaluated successfully yet.")
        return
    gains = any(row.gain is not None for row in ranked)
    several = any(row.seeds > 1 for row in ranked)
    titles = ["#", "candidate", *objectives, *["gain"] * gains, *["seeds"] * several]
    titles += [*["params"] * ("params" not in objectives), "seconds"]
    rows = []
    for row in ranked:
        id_ = escape(row.id)
        name = f"[bold]{escape(row.name)}[/] {id_}" if row.name else id_
        cells = [f"{'*' if row.on_front else ' '}{row.rank}", name]
        cells += [_value(row, objective, scored) for objective in objectives]
        if gains:
            known = row.gain is not None
            cells.append(f"{row.gain:+.4g} ± {row.gain_interval:.2g}" if known else "")
        if several:
            cells.append(str(row.seeds))
        if "params" not in objectives:
            cells.append(f"{row.params:,}")
        cells += [f"{row.seconds:.1f}"]
        style = "cyan" if row.name else ""
        rows.append((cells, style if row.feasible else "dim"))
    print_rows(console, titles, rows, names=2)
    about = "± is the 95% interval over meta-validation episodes; * is on the Pareto front"
    if gains:
        about += "; gain is over the first baseline, on the same episodes"
    if several:
        about += "; values are means over seeds"
    if not all(row.feasible for row in ranked):
        about += "; those that break a constraint are dim"
    console.print(f"{about}.\n", style="dim")
    for row in ranked:
        if row.rank <= GENOMES_SHOWN or row.name:
            text = escape(f"{row.id}  {shortened(brief(row.genome))}")
            console.print(text, highlight=False, soft_wrap=True)


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
    rows = []
    last = len(levels) - 1
    stages = [(rung, 0) for rung in range(last)] + [(last, k) for k in range(repeats + 1)]
    for rung, repeat in stages:
        length = f"{levels[rung]['iterations']}" + (f", seed {repeat}" if repeat else "")
        tau = None if repeat else found.get(rung)
        known = f"{tau.tau:.2f} of {tau.pairs}" if tau and tau.pairs > 2 else ""
        row = spent.get((rung, repeat), {"seconds_count": 0, "seconds_sum": 0.0})
        spent_text = f"{row['seconds_sum']:.1f}"
        rows.append(([str(rung), length, str(row["seconds_count"]), spent_text, known], ""))
    titles = ["rung", "iterations", "candidates", "seconds", "predicts the next (tau)"]
    print_rows(console, titles, rows)
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
            escape(f"\n{count} {status}; the first, {first['candidate_id']}: {reason}"),
            style="yellow",
            highlight=False,
        )
    if rows:
        console.print(
            escape(f"All of it: evometa show {shlex.quote(str(run))} ID"),
            style="yellow",
            highlight=False,
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
    rows = [
        ([escape(operator), str(uses), str(better), f"{better / uses:.0%}"], "")
        for operator, (uses, better) in sorted(counts.items())
    ]
    print_rows(console, ["operator", "uses", "better", "share"], rows)


def print_candidate(
    console: Console, table: pa.Table, candidate_id: str, objectives: Objectives
) -> None:
    """Print one candidate's genome, network, scores, curve and ancestors.

    Raises:
        EvometaError: if the run has no such candidate.
    """
    row = find(table, candidate_id)
    id_, rest = escape(row["candidate_id"]), escape(f"{row['status']}  {made_by(row)}")
    console.print(f"[bold]{id_}[/]  {rest}")
    if row["error"]:
        console.print(escape(row["error"]), style="red", highlight=False)
    console.print("\n[bold]genome[/]")
    genome = shortened(json.dumps(json.loads(row["genome"]), indent=2, ensure_ascii=False))
    console.print(escape(genome), highlight=len(genome) < LONGEST, soft_wrap=True)
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
        text = shortened(f"  from {parent['candidate_id']}: {changes}")
        console.print(escape(text), highlight=False)
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


def shortened(text: str) -> str:
    """Return a text that a person can look at; the whole of a huge one is for programs."""
    if len(text) <= LONGEST:
        return text
    return f"{text[:LONGEST]} ... and {len(text) - LONGEST:,} characters more, see --json"


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
        console.print(escape(f"  {name:<20} {shortened(text)}{mark}"), highlight=False)
    if row["curve"]:
        points = "  ".join(f"{p['iteration']}:{p['loss']:.3g}" for p in row["curve"][::4])
        console.print(f"  {'learning curve':<20} {points}", highlight=False)


def _value(row: Ranked, objective: str, scored: str) -> str:
    value = row.values[objective]
    if objective == scored:
        return f"{value:.4g} ± {row.interval:.2g}"
    return f"{value:,.0f}" if abs(value) < 1e12 and value == int(value) else f"{value:.4g}"

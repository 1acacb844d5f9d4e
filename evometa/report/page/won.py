"""What won, against which baseline, with what confidence."""

from __future__ import annotations

import json

import plotly.graph_objects as go
import pyarrow.compute as pc

from evometa.records import Status
from evometa.report.page.document import (
    LONGEST_LABEL,
    LONGEST_TITLE,
    Html,
    Plot,
    Section,
    code,
    cut,
    folded,
    label,
    paragraph,
    table,
)
from evometa.report.page.facts import TOP, Facts, number
from evometa.report.ranking import Ranked
from evometa.report.rules import describe_rule
from evometa.report.show import brief

LONGEST_GENOME = 150


def won(facts: Facts) -> Section:
    """The best beside the baselines, with intervals."""
    winner = facts.winner
    if winner is None:
        return Section(
            "won",
            "What won",
            "Nothing has won: no candidate has succeeded" + (" yet" if not len(facts.rows) else ""),
        )
    formula = describe_rule(winner.genome)
    body: list[Html | Plot] = [
        Html(
            '<p class="note"><b>Scores of the search itself.</b> All numbers here are on '
            "meta-validation episodes, and candidates were selected by them, so the best is "
            f"flattered: it is the best of {len(facts.ok):,}. What it is worth on tasks that no "
            "search has seen is for a confirmation on meta-test to say.</p>"
        ),
        Plot(_intervals(facts), _intervals_caption(facts), 80 + 30 * len(facts.ranked)),
        _ranking(facts),
        *_against(facts, winner),
        folded(f"genome of {winner.id}", code(json.dumps(winner.genome, indent=1))),
    ]
    if formula:
        body.insert(1, code(formula))
    return Section("won", "What won", _verdict(facts, winner), body)


def lead(facts: Facts) -> str:
    """The run in two sentences."""
    failed = pc.sum(pc.not_equal(pc.cast(facts.final["status"], "string"), Status.OK.value)).as_py()
    if facts.winner is None:
        return f"{len(facts.final):,} candidates, none of which has succeeded."
    return (
        f"{_verdict(facts, facts.winner)}. {len(facts.final):,} candidates, of which "
        f"{failed or 'none'} failed; {int(facts.on_front.sum()):,} on the Pareto front."
    )


def _verdict(facts: Facts, winner: Ranked) -> str:
    value = f"{facts.primary} {number(winner.values[facts.primary])}"
    if facts.primary == facts.scored:
        value += f" ± {winner.interval:.2g}"
    base = facts.baselines[0] if facts.baselines else None
    if base is None:
        return f"{winner.id} is best, with {value}; there is no baseline to compare with"
    if base.id == winner.id:
        return f"The baseline {winner.name} is still the best, with {value}" + _next(facts, winner)
    paired = facts.better_by(winner.id, base.id)
    if paired is None:
        return f"{winner.id} is best, with {value}; it shares no episodes with {base.name}"
    mean, half = paired
    sure = "ahead of" if mean > half else "behind" if -mean > half else "not clearly ahead of"
    what = "" if facts.primary == facts.scored else f" in {facts.of_scores}"
    return f"{winner.id}, with {value}, is {sure} {base.name}{what}: {mean:+.3g} ± {half:.2g}"


def _next(facts: Facts, base: Ranked) -> str:
    """The best candidate where a baseline is better."""
    best = next((row for row in facts.ranked if not row.name), None)
    if best is None:
        return ""
    return f"; the best candidate, {best.id}, differs by {_paired(facts, best, base) or 'unknown'}"


def _intervals(facts: Facts) -> go.Figure:
    figure = go.Figure()
    base = facts.baselines[0] if facts.baselines else None
    rows = list(reversed(facts.ranked))
    for group, colour in ((False, "#3b82f6"), (True, "#f59e0b")):
        chosen = [row for row in rows if bool(row.name) is group]
        pairs = [(row, _point(facts, row, base)) for row in chosen]
        pairs = [(row, point) for row, point in pairs if point is not None]
        figure.add_scatter(
            x=[point[0] for _, point in pairs if point],
            y=[rows.index(row) for row, _ in pairs],
            text=[label(facts.called(row.id)) for row, _ in pairs],
            error_x={
                "type": "data",
                "array": [point[1] for _, point in pairs if point],
                "thickness": 2,
                "width": 0,
            },
            mode="markers",
            marker={"size": 10, "color": colour, "symbol": "diamond" if group else "circle"},
            name="baselines" if group else "candidates",
            hovertemplate="%{text}: %{x:.4g} ± %{error_x.array:.2g}<extra></extra>",
        )
    mean = facts.of_scores == facts.scored
    title = f"{facts.scored}, mean over episodes" if mean else facts.scored
    if base is not None:
        figure.add_vline(x=0, line={"dash": "dot", "width": 1.5, "color": "#f59e0b"})
        title = f"improvement of {facts.of_scores} over {base.name}, on the same episodes"
    figure.update_xaxes(title_text=label(title, LONGEST_TITLE))
    figure.update_yaxes(
        tickvals=list(range(len(rows))),
        ticktext=[label(facts.called(row.id)) for row in rows],
        showgrid=False,
        range=[-0.7, len(rows) - 0.3],
    )
    return figure


def _point(facts: Facts, row: Ranked, base: Ranked | None) -> tuple[float, float] | None:
    if base is not None:
        return facts.better_by(row.id, base.id)
    return row.values.get(facts.scored, row.values[facts.primary]), row.interval


def _intervals_caption(facts: Facts) -> str:
    text = "Bars are 95 % intervals over meta-validation episodes"
    if not facts.baselines:
        return text + "."
    return (
        f"{text} of the paired difference, so what makes an episode hard cancels out. Right of the "
        "dotted line is better; a bar that crosses it is no clear difference."
    )


def _ranking(facts: Facts) -> Html:
    names = list(facts.objectives)
    costs = [] if "params" in names else ["params"]
    base = facts.baselines[0] if facts.baselines else None
    gains = [] if base is None else [f"over {cut(base.name, LONGEST_LABEL)}"]
    header = ["#", "candidate", *names, *costs, "seconds", *gains]
    numbers = range(2, len(header))
    several = len({describe_rule(row.genome) for row in facts.ranked}) > 1
    header += ["update" if several else "genome"]
    rows = []
    for row in facts.ranked:
        cells = [f"{'★ ' if row.on_front else ''}{row.rank}", facts.called(row.id)]
        for name in names:
            interval = f" ± {row.interval:.2g}" if name == facts.scored else ""
            cells.append(number(row.values[name]) + interval)
        cells += [f"{row.params:,}" for _ in costs]
        cells.append(f"{row.seconds:.3g}")
        cells += [_paired(facts, row, base) for _ in gains]
        cells.append(
            describe_rule(row.genome) if several else cut(brief(row.genome), LONGEST_GENOME)
        )
        rows.append(cells)
    marked = [place for place, row in enumerate(facts.ranked) if row.name]
    block = table(header, rows, numbers=numbers, marked=marked)
    about = f"The {TOP} best by {facts.primary}, and the baselines. ★ is on the Pareto front."
    if base is not None:
        about += " “Over” is the paired improvement, with its 95 % interval."
    return Html(block.text + paragraph(about).text)


def _paired(facts: Facts, row: Ranked, base: Ranked | None) -> str:
    paired = None if base is None or base.id == row.id else facts.better_by(row.id, base.id)
    return "" if paired is None else f"{paired[0]:+.3g} ± {paired[1]:.2g}"


def _against(facts: Facts, winner: Ranked) -> list[Html]:
    """The winner against each baseline, where there are several."""
    others = [base for base in facts.baselines if base.id != winner.id]
    if len(others) < 2:
        return []
    rows = [
        (base.name, number(base.values[facts.primary]), _paired(facts, winner, base))
        for base in others
    ]
    header = ["baseline", facts.primary, f"{facts.called(winner.id)} is better by"]
    return [table(header, rows, numbers=(1, 2))]

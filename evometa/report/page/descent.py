"""Where the winner came from: what each ancestor changed, and what that gained."""

from __future__ import annotations

import plotly.graph_objects as go
import pyarrow.compute as pc

from evometa.records import mean_interval
from evometa.report.page.document import Html, Plot, Section, label, table
from evometa.report.page.facts import Facts, number
from evometa.report.ranking import lineage
from evometa.report.rules import describe_rule
from evometa.report.show import differences, made_by

MOST_STEPS = 60


def descent(facts: Facts) -> Section:
    """The winner's line, from its first ancestor to itself."""
    topic = "Lineage"
    if facts.winner is None:
        return Section("lineage", topic, "There is no winner, so no lineage")
    line = lineage(facts.final, facts.winner.id)[::-1]
    if len(line) < 2:
        return Section(
            "lineage",
            topic,
            f"{facts.winner.id} has no parents; it came from: {made_by(line[0])}",
        )
    cut = line[-MOST_STEPS:]
    values = [_value(facts, row["candidate_id"]) for row in cut]
    rows, gains = [], []
    for place, row in enumerate(cut):
        before = cut[place - 1] if place else None
        changes = "; ".join(differences(before["genome"], row["genome"])) if before else "the first"
        paired = facts.better_by(row["candidate_id"], before["candidate_id"]) if before else None
        gains.append((paired[0] if paired else 0.0, row["candidate_id"]))
        value = values[place]
        rows.append(
            (
                facts.called(row["candidate_id"]),
                made_by(row),
                row["status"] if value is None else number(value),
                "" if paired is None else f"{paired[0]:+.3g} ± {paired[1]:.2g}",
                changes or "nothing changed",
                describe_rule(row["genome"]),
            )
        )
    gained, where = max(gains)
    finding = (
        f"{facts.winner.id} is {len(line) - 1} steps from {facts.called(line[0]['candidate_id'])}"
    )
    if gained > 0:
        finding += f"; the largest step, {gained:+.3g} in {facts.of_scores}, made {where}"
    header = [
        "candidate",
        "operator",
        facts.primary,
        f"gain in {facts.of_scores}",
        "what changed",
        "update",
    ]
    caption = (
        "From the first ancestor to the winner; where there were two parents, along the first. "
        "Gains are paired, on the same episodes, with 95 % intervals."
    )
    if len(cut) < len(line):
        caption += f" The last {MOST_STEPS} of {len(line)} are shown."
    body: list[Html | Plot] = [
        Plot(_figure(facts, cut, values), caption, 320),
        table(header, rows, numbers=(2, 3)),
    ]
    return Section("lineage", topic, finding, body)


def _figure(facts: Facts, line: list[dict[str, object]], values: list[float | None]) -> go.Figure:
    half = [mean_interval(facts.scores(str(row["candidate_id"])))[1] for row in line]
    figure = go.Figure()
    figure.add_scatter(
        x=list(range(len(line))),
        y=values,
        mode="lines+markers",
        line={"color": "#3b82f6", "width": 2},
        marker={"size": 9},
        error_y={"type": "data", "array": half, "thickness": 1.5, "width": 0}
        if facts.primary == facts.scored
        else None,
        text=[label(made_by(row)) for row in line],
        hovertemplate="%{text}: %{y:.4g}<extra></extra>",
        showlegend=False,
    )
    figure.update_xaxes(
        tickvals=list(range(len(line))),
        ticktext=[label(facts.called(str(row["candidate_id"]))) for row in line],
        title_text="from the first ancestor to the winner",
    )
    figure.update_yaxes(title_text=label(facts.primary))
    return figure


def _value(facts: Facts, candidate_id: str) -> float | None:
    row = facts.final.filter(pc.equal(facts.final["candidate_id"], candidate_id))
    value: float | None = row[facts.primary][0].as_py()
    return value

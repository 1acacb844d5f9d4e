"""What can be had for what: the Pareto front."""

from __future__ import annotations

import textwrap
from itertools import combinations

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from evometa.report.page.document import LONGEST_TITLE, Plot, Section, label
from evometa.report.page.facts import Facts, Indices, genome_of, number
from evometa.report.ranking import is_baseline
from evometa.report.rules import describe_rule
from evometa.report.show import brief

LINE = 72  # characters of a hover's line
LOG_RATIO = 50.0
MOST_PANELS = 3


def pareto(facts: Facts) -> Section:
    """Each pair of objectives; with one objective, what it costs in parameters."""
    topic = "Pareto front"
    if not len(facts.ok):
        return Section("front", topic, "There is no front: nothing has succeeded")
    names = list(facts.objectives)
    if len(names) == 1:
        names.append("seconds" if names == ["params"] else "params")
    pairs = list(combinations(names, 2))[:MOST_PANELS]
    members = np.flatnonzero(facts.on_front)
    shown = facts.shown(keep=members)
    figure = make_subplots(1, len(pairs), horizontal_spacing=0.09)
    hover = _hover(facts, shown)
    for column, pair in enumerate(pairs, start=1):
        _panel(figure, facts, pair, shown, hover, column)
    caption = (
        "Blue: no other candidate is at least as good in all objectives and better in one. Point "
        "at one for its genome and formula." + facts.drawn_of(len(shown))
    )
    if len(pairs) > 1:
        caption += " Each panel shows two of the objectives, the front is that of all."
    return Section("front", topic, _finding(facts, members), [Plot(figure, caption, 480)])


def _finding(facts: Facts, members: Indices) -> str:
    first, winner, base = facts.primary, facts.winner, facts.baselines[:1]
    if len(facts.objectives) == 1 or winner is None:
        return f"One objective, {first}, shown against its cost"
    text = f"{len(members):,} of {len(facts.ok):,} candidates are on the front"
    second = list(facts.objectives)[1]
    if not base:
        return text
    sign = 1.0 if facts.objectives[first] == "min" else -1.0
    good = members[facts.losses[members, 0] <= sign * base[0].values[first]]
    if not len(good):
        return f"{text}; none is as good in {first} as {base[0].name}"
    least = good[np.argmin(facts.losses[good, 1])]
    there = facts.ok[second][int(least)].as_py()
    if there == base[0].values[second]:
        return f"{text}; none as good in {first} as {base[0].name} is better in {second}"
    return (
        f"{text}; {base[0].name}'s {first} can be had with {second} {number(there)} where it has "
        f"{number(base[0].values[second])}"
    )


def _hover(facts: Facts, shown: Indices) -> list[str]:
    rows = facts.ok.select(["candidate_id", "genome"]).take(shown).to_pylist()
    lines = []
    for row in rows:
        genome = genome_of(row)
        parts = [
            f"<b>{label(facts.called(row['candidate_id']))}</b>",
            *_wrapped(describe_rule(genome)),
        ]
        lines.append("<br>".join([*parts, *_wrapped(brief(genome))]))
    return lines


def _wrapped(text: str) -> list[str]:
    return [label(line, LINE) for line in textwrap.wrap(text, LINE)[:12]]


def _panel(
    figure: go.Figure,
    facts: Facts,
    pair: tuple[str, str],
    shown: Indices,
    hover: list[str],
    column: int,
) -> None:
    vertical, horizontal = pair
    y, x = (facts.ok[name].to_numpy() for name in pair)
    known = is_baseline(facts.ok)
    members = facts.on_front
    for mask, name, marker in (
        (~members & ~known, "dominated", {"size": 6, "color": "#94a3b8", "opacity": 0.5}),
        (members & ~known, "Pareto front", {"size": 9, "color": "#3b82f6"}),
        (known, "baselines", {"size": 12, "color": "#f59e0b", "symbol": "diamond"}),
    ):
        places = np.flatnonzero(mask[shown])
        figure.add_scatter(
            x=x[shown[places]],
            y=y[shown[places]],
            mode="markers",
            marker=marker,
            name=name,
            showlegend=column == 1,
            text=[hover[place] for place in places],
            hovertemplate="%{text}<br>"
            + f"{label(vertical)} %{{y:.4g}}, {label(horizontal)} %{{x:,.6g}}<extra></extra>",
            row=1,
            col=column,
        )
    if len(facts.objectives) == 2:
        order = np.flatnonzero(members)[np.argsort(x[members], kind="stable")]
        figure.add_scatter(
            x=x[order],
            y=y[order],
            mode="lines",
            line={"shape": "hv", "width": 1.5, "color": "#3b82f6"},
            hoverinfo="skip",
            showlegend=False,
            row=1,
            col=column,
        )
    for values, name, update in (
        (x, horizontal, figure.update_xaxes),
        (y, vertical, figure.update_yaxes),
    ):
        direction = {"min": " (less is better)", "max": " (more is better)"}
        title = name + direction.get(facts.objectives.get(name, ""), "")
        update(title_text=label(title, LONGEST_TITLE), row=1, col=column)
        if values.min() > 0 and values.max() / values.min() > LOG_RATIO:
            update(type="log", row=1, col=column)

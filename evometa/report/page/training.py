"""How the best learned, and which episodes are hard."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import pyarrow as pa
import pyarrow.compute as pc
from plotly.subplots import make_subplots

from evometa.report.page.document import LONGEST_TITLE, Plot, Section, label
from evometa.report.page.facts import Facts, spread
from evometa.report.ranking import Ranked

CURVES = 6
MOST_EPISODES = 1000


def curves(facts: Facts) -> Section:
    """Meta-train loss along the training, of the best and the baselines."""
    topic = "Learning curves"
    chosen = [row for row in facts.ranked if row.name or row.rank <= CURVES]
    figure, ends = go.Figure(), {}
    for row in chosen:
        points = _row(facts, row.id)["curve"][0].as_py() or []
        points = [points[place] for place in spread(len(points), MOST_EPISODES)]
        if not points:
            continue
        loss = [point["loss"] for point in points]
        ends[row.id] = loss
        figure.add_scatter(
            x=[point["iteration"] for point in points],
            y=loss,
            mode="lines",
            line={"width": 2, "dash": "dot" if row.name else "solid"},
            name=label(facts.called(row.id)),
        )
    if not ends:
        return Section("curves", topic, "No learning curves have been recorded")
    figure.update_xaxes(title_text="meta-iteration")
    figure.update_yaxes(title_text="meta-train loss (query set)")
    values = np.array([value for loss in ends.values() for value in loss])
    values = values[np.isfinite(values)]
    if len(values) and values.min() > 0 and values.max() / values.min() > 8:
        figure.update_yaxes(type="log")
    caption = f"The {CURVES} best, and dotted the baselines: mean loss of the training episodes."
    return Section("curves", topic, _still_falling(facts, ends), [Plot(figure, caption)])


def _still_falling(facts: Facts, ends: dict[str, list[float]]) -> str:
    winner = facts.winner
    loss = ends.get(winner.id, []) if winner else []
    if winner is None or len(loss) < 5:
        return "How the best were trained"
    tail = max(1, len(loss) // 5)
    before, after = np.mean(loss[-2 * tail : -tail]), np.mean(loss[-tail:])
    if after < 0.97 * before:
        return f"{winner.id} was still learning when its training ended: longer may pay"
    return f"{winner.id} had levelled off when its training ended"


def difficulty(facts: Facts) -> Section:
    """The winner and the first baseline, episode by episode."""
    topic = "Episodes"
    winner = facts.winner
    scores = np.array(facts.scores(winner.id)) if winner else np.zeros(0)
    if winner is None or len(scores) < 2:
        return Section("episodes", topic, "No scores of single episodes to show")
    base = next((row for row in facts.baselines if row.id != winner.id), None)
    against = np.array(facts.scores(base.id)) if base else np.zeros(0)
    if base is None or len(against) != len(scores):
        base = None
    figure = make_subplots(1, 2 if base else 1, horizontal_spacing=0.1)
    _sorted_panel(figure, facts, winner, base)
    sign = 1.0 if facts.scored_direction == "max" else -1.0
    hardest = np.sort(sign * scores)[: max(1, len(scores) // 10)]
    finding = (
        f"The hardest tenth of the episodes has a mean {facts.scored} of "
        f"{sign * hardest.mean():.3g}, where all have {scores.mean():.3g}"
    )
    caption = (
        f"Left: the episodes from the easiest to the hardest for the {CURVES} best; the band is "
        "from the lowest to the highest of them."
        if base
        else "The episodes, from the easiest to the hardest for the best."
    )
    if base is not None:
        better = int(np.sum(sign * (scores - against) > 0))
        finding = f"{winner.id} beats {base.name} in {better:,} of {len(scores):,} episodes"
        _pairs_panel(figure, facts, scores, against, base)
        caption += f" Right: each dot an episode; {_side(facts)} the line {winner.id} is better."
    if len(scores) > MOST_EPISODES:
        caption += f" Drawn: {MOST_EPISODES:,} of {len(scores):,} episodes."
    return Section("episodes", topic, finding, [Plot(figure, caption, 430)])


def _side(facts: Facts) -> str:
    return "above" if facts.scored_direction == "max" else "below"


def _sorted_panel(figure: go.Figure, facts: Facts, winner: Ranked, base: Ranked | None) -> None:
    best = [facts.scores(row.id) for row in facts.ranked[:CURVES]]
    length = len(best[0])
    stack = np.array([scores for scores in best if len(scores) == length])
    order = np.argsort(stack.mean(axis=0) * (-1.0 if facts.scored_direction == "max" else 1.0))
    order = order[spread(length, MOST_EPISODES)]
    place = np.linspace(0, 1, len(order))
    band = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
    figure.add_scatter(x=place, y=stack.max(axis=0)[order], **band, row=1, col=1)
    figure.add_scatter(
        x=place,
        y=stack.min(axis=0)[order],
        **band,
        fill="tonexty",
        fillcolor="rgba(59,130,246,0.18)",
        row=1,
        col=1,
    )
    for row, colour in ((base, "#f59e0b"), (winner, "#3b82f6")):
        if row is not None:
            figure.add_scatter(
                x=place,
                y=np.array(facts.scores(row.id))[order],
                mode="lines",
                line={"width": 1.6, "color": colour},
                name=label(facts.called(row.id)),
                row=1,
                col=1,
            )
    figure.update_xaxes(title_text="episodes, easy to hard", tickformat=".0%", row=1, col=1)
    figure.update_yaxes(title_text=label(facts.of_scores), row=1, col=1)


def _pairs_panel(
    figure: go.Figure, facts: Facts, scores: np.ndarray, against: np.ndarray, base: Ranked
) -> None:
    drawn = spread(len(scores), MOST_EPISODES)
    ends = [float(min(scores.min(), against.min())), float(max(scores.max(), against.max()))]
    figure.add_scatter(
        x=ends, y=ends, mode="lines", line={"dash": "dot", "color": "#94a3b8", "width": 1.5},
        hoverinfo="skip", showlegend=False, row=1, col=2,
    )  # fmt: skip
    figure.add_scatter(
        x=against[drawn],
        y=scores[drawn],
        mode="markers",
        marker={"size": 6, "color": "#3b82f6", "opacity": 0.6},
        showlegend=False,
        row=1,
        col=2,
    )
    figure.update_xaxes(
        title_text=label(f"{facts.scored} of {base.name}", LONGEST_TITLE), row=1, col=2
    )
    winner = facts.winner.id if facts.winner else ""
    figure.update_yaxes(
        title_text=label(f"{facts.scored} of {winner}", LONGEST_TITLE), row=1, col=2
    )


def _row(facts: Facts, candidate_id: str) -> pa.Table:
    return facts.ok.filter(pc.equal(facts.ok["candidate_id"], candidate_id))

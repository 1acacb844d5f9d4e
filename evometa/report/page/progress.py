"""How the best, and the dominated volume, grew with evaluations and device-seconds."""

from __future__ import annotations

import moocore
import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from evometa.report.page.document import LONGEST_TITLE, Plot, Section, label, paragraph
from evometa.report.page.facts import Facts, Floats, Indices, duration, spread
from evometa.report.ranking import front

CHECKPOINTS = 100  # at which the hypervolume is computed
SHOWN = (0.02, 0.9)  # quantiles that the frame holds at least
LOG_RATIO = 50.0
REFERENCE = 0.9  # quantile of the objectives beyond which nothing counts


def progress(facts: Facts) -> Section:
    """Best so far, and hypervolume so far."""
    topic = "Progress"
    if not len(facts.ok):
        return Section("progress", topic, "There is no progress to show: nothing has succeeded")
    sign = 1.0 if facts.objectives[facts.primary] == "min" else -1.0
    best = np.minimum.accumulate(facts.losses[:, 0])
    evaluations, seconds = _clocks(facts)
    last = int(np.argmin(facts.losses[:, 0]))
    share = (evaluations[last]) / max(1, len(facts.final))
    finding = (
        f"The best {facts.primary} came at evaluation {evaluations[last]:,} of "
        f"{len(facts.final):,}, after {duration(seconds[last])} of device time"
    )
    if share < 0.5 and len(facts.ok) > 20:
        finding += "; the second half of the search did not improve on it"
    body = [_best_plot(facts, sign * best, evaluations, seconds)]
    if len(facts.objectives) < 2:
        note = "With one objective the hypervolume says no more than the best."
        return Section("progress", topic, finding, [*body, paragraph(note)])
    return Section("progress", topic, finding, [*body, _volume_plot(facts, evaluations, seconds)])


def _clocks(facts: Facts) -> tuple[Indices, Floats]:
    """Return how many evaluations, and device-seconds, it took to get to each row of `ok`."""
    told = facts.ok["told"].to_numpy()
    order = facts.rows["told"].to_numpy()
    spent = np.cumsum(facts.rows["seconds"].fill_null(0.0).to_numpy())
    evaluations = np.searchsorted(facts.final["told"].to_numpy(), told, side="right")
    return evaluations, spent[np.searchsorted(order, told, side="right") - 1]


def _panels(left: str) -> go.Figure:
    figure = make_subplots(1, 2, shared_yaxes=True, horizontal_spacing=0.04)
    figure.update_xaxes(title_text="evaluations", col=1)
    figure.update_xaxes(title_text="device-seconds", col=2)
    figure.update_yaxes(title_text=label(left, LONGEST_TITLE), col=1)
    return figure


def _best_plot(facts: Facts, best: Floats, evaluations: Indices, seconds: Floats) -> Plot:
    steps = np.flatnonzero(np.diff(best, prepend=np.nan) != 0)
    steps = np.append(steps, len(best) - 1)
    values = facts.ok[facts.primary].to_numpy()
    shown = facts.shown()
    figure = _panels(facts.primary)
    ids = np.array(facts.ok["candidate_id"].to_pylist(), dtype=object)
    for column, clock in ((1, evaluations), (2, seconds)):
        figure.add_scatter(
            x=clock[shown],
            y=values[shown],
            customdata=[label(i) for i in ids[shown]],
            mode="markers",
            marker={"size": 4, "color": "#94a3b8", "opacity": 0.55},
            name="candidates",
            showlegend=column == 1,
            hovertemplate="%{customdata}: %{y:.4g}<extra></extra>",
            row=1,
            col=column,
        )
        figure.add_scatter(
            x=clock[steps],
            y=best[steps],
            mode="lines",
            line={"shape": "hv", "width": 2.5, "color": "#3b82f6"},
            name="best so far",
            showlegend=column == 1,
            row=1,
            col=column,
        )
    for base, dash in zip(facts.baselines, ("dot", "dash", "dashdot"), strict=False):
        for column, clock in ((1, evaluations), (2, seconds)):
            figure.add_scatter(
                x=[0, clock[-1]],
                y=[base.values[facts.primary]] * 2,
                mode="lines",
                line={"dash": dash, "width": 1.5, "color": "#f59e0b"},
                name=label(base.name),
                showlegend=column == 1,
                row=1,
                col=column,
            )
    cut = _focus(figure, values, [base.values[facts.primary] for base in facts.baselines])
    caption = "Each dot a candidate, the blue line the best so far."
    return Plot(figure, caption + cut + facts.drawn_of(len(shown)))


def _focus(figure: go.Figure, values: Floats, also: list[float]) -> str:
    """Show what most candidates reach, where a few are far off; say how many are outside."""
    finite = values[np.isfinite(values)]
    low, high = (float(q) for q in np.quantile(finite, [SHOWN[0], SHOWN[1]]))
    best, worst = float(finite.min()), float(finite.max())
    low, high = min([low, *also]), max([high, *also])
    logarithmic = best > 0 and high / best > LOG_RATIO
    if logarithmic:
        figure.update_yaxes(type="log")
        low, high, best, worst = (float(np.log10(v)) for v in (low, high, best, worst))
    low = best if best > low - (high - low) else low
    high = worst if worst < high + (high - low) else high
    if low < high:
        margin = 0.06 * (high - low)
        figure.update_yaxes(range=[low - margin, high + margin])
    shown = np.log10(finite) if logarithmic else finite
    hidden = int(((shown < low) | (shown > high)).sum())
    return f" Outside the frame: {hidden:,} of them; double-click shows all." if hidden else ""


def _volume_plot(facts: Facts, evaluations: Indices, seconds: Floats) -> Plot:
    places, volume = _volumes(facts.losses)
    figure = _panels("hypervolume, share of the box")
    for column, clock in ((1, evaluations), (2, seconds)):
        figure.add_scatter(
            x=clock[places],
            y=volume,
            mode="lines",
            line={"shape": "hv", "width": 2.5, "color": "#10b981"},
            fill="tozeroy",
            fillcolor="rgba(16,185,129,0.12)",
            name="hypervolume",
            showlegend=False,
            row=1,
            col=column,
        )
    figure.update_yaxes(rangemode="tozero")
    caption = (
        f"Volume that the Pareto front so far dominates in {', '.join(facts.objectives)}, as a "
        "share of the box between the best of each and the value that nine in ten candidates "
        f"reach; computed at {len(places)} points."
    )
    return Plot(figure, caption, 340)


def _volumes(losses: Floats) -> tuple[Indices, Floats]:
    """Return rows, and the hypervolume of all rows up to each as a share of its box."""
    best, worst = losses.min(axis=0), np.quantile(losses, REFERENCE, axis=0)
    span = np.where(worst > best, worst - best, 1.0)
    scaled = (losses - best) / span
    places = spread(len(losses), CHECKPOINTS)
    found, kept, start = [], np.zeros((0, losses.shape[1])), 0
    for place in places:
        seen = np.concatenate([kept, scaled[start : place + 1]])
        kept, start = seen[front(seen)], place + 1
        found.append(
            float(moocore.hypervolume(np.unique(kept, axis=0), ref=np.ones(losses.shape[1])))
        )
    return places, np.array(found)

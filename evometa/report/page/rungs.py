"""Whether cheap evaluations tell what dear ones would: agreement of adjacent rungs."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from plotly.subplots import make_subplots
from scipy.stats import kendalltau, spearmanr

from evometa.records import Status
from evometa.report.page.document import LONGEST_TITLE, Plot, Section, label, table
from evometa.report.page.facts import MOST_DRAWN, Facts, Floats, spread

FEWEST = 3


def agreement(facts: Facts) -> Section:
    """Rank correlation of the primary objective between each rung and the next."""
    topic = "Rungs"
    rows = facts.rows.filter(pc.equal(facts.rows["repeat"], 0))
    rungs = sorted(pc.unique(rows["rung"]).to_pylist())
    if len(rungs) < 2:
        return Section("rungs", topic, "One rung: every candidate was evaluated at full fidelity")
    pairs = [(low, high, *_both(rows, facts.primary, low, high)) for low, high in pairwise(rungs)]
    pairs = [pair for pair in pairs if len(pair[2]) >= FEWEST]
    if not pairs:
        return Section("rungs", topic, "Too few candidates were evaluated at two rungs to compare")
    lines, taus = [], []
    figure = make_subplots(1, len(pairs), horizontal_spacing=0.09)
    for column, (low, high, at_low, at_high) in enumerate(pairs, start=1):
        tau, rho = kendalltau(at_low, at_high).statistic, spearmanr(at_low, at_high).statistic
        taus.append(tau)
        lines.append((f"{low} → {high}", f"{len(at_low):,}", f"{tau:.2f}", f"{rho:.2f}"))
        drawn = spread(len(at_low), MOST_DRAWN)
        figure.add_scatter(
            x=at_low[drawn],
            y=at_high[drawn],
            mode="markers",
            marker={"size": 6, "color": "#3b82f6", "opacity": 0.6},
            showlegend=False,
            row=1,
            col=column,
        )
        figure.update_xaxes(
            title_text=label(f"{facts.primary} at rung {low}", LONGEST_TITLE), col=column
        )
        figure.update_yaxes(
            title_text=label(f"{facts.primary} at rung {high}", LONGEST_TITLE), col=column
        )
    worst = min(taus)
    word = "agree well" if worst > 0.7 else "agree in part" if worst > 0.4 else "hardly agree"
    caption = (
        "Candidates evaluated at both rungs. Those that went on had been selected at the lower, "
        "which makes the agreement look worse than it is among all."
    )
    return Section(
        "rungs",
        topic,
        f"Adjacent rungs {word}: Kendall's tau is {worst:.2f}{' or more' if len(taus) > 1 else ''}",
        [
            Plot(figure, caption),
            table(
                ["rungs", "candidates", "Kendall's tau", "Spearman's rho"], lines, numbers=(1, 2, 3)
            ),
        ],
    )


def _both(rows: pa.Table, primary: str, low: int, high: int) -> tuple[Floats, Floats]:
    fine = pc.equal(pc.cast(rows["status"], pa.string()), Status.OK.value)
    rows = rows.filter(fine).select(["number", "rung", primary])
    one, other = (rows.filter(pc.equal(rows["rung"], rung)) for rung in (low, high))
    _, left, right = np.intersect1d(
        one["number"].to_numpy(), other["number"].to_numpy(), return_indices=True
    )
    return one[primary].to_numpy()[left], other[primary].to_numpy()[right]

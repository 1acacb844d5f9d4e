"""Which genes and which operators matter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import unescape

import numpy as np
import optuna
import plotly.graph_objects as go
import pyarrow as pa
import pyarrow.compute as pc
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.visualization import plot_parallel_coordinate

from evometa.records import Status
from evometa.report.optuna_study import quiet, study_of
from evometa.report.page.document import LONGEST_TITLE, Html, Plot, Section, label, paragraph, table
from evometa.report.page.facts import Facts, Floats, spread
from evometa.report.ranking import operator_counts

FEWEST = 20  # candidates below which an importance would be chance
MOST_TRIALS = 1000
BEST = 25  # candidates, at least, whose genes are held against all
MOST_LINES = 250
MOST_GENES = 15
MOST_AXES = 8
FREQUENT = 0.3
ENOUGH = 5  # children, to tell how good an operator is


def influence(facts: Facts) -> list[Section]:
    """Genes, parallel coordinates, operators."""
    if len(facts.ok) < FEWEST:
        few = f"Too few candidates to tell which genes matter: {len(facts.ok)} of {FEWEST}"
        return [Section("genes", "Genes", few), operators(facts)]
    sample = facts.ok.take(spread(len(facts.ok), MOST_TRIALS))
    study = study_of(facts.name, sample, facts.objectives, text=_name, varied=True)
    share = min(0.5, max(0.1, BEST / len(sample)))
    importances = _importances(study, share)
    if not importances[0]:
        nothing = "No gene varies, so none can matter"
        return [Section("genes", "Genes", nothing), operators(facts)]
    best_first = list(importances[0])
    return [
        _genes(facts, importances, len(sample), share),
        operators(facts),
        _parallel(facts, best_first[:MOST_AXES]),
    ]


def _name(text: str) -> str:
    """Return a gene's name or word whole: cut, two might be the same."""
    return label(text, len(text))


def _importances(study: optuna.Study, share: float) -> list[dict[str, float]]:
    """Return for each objective the genes' importances, the largest first."""
    evaluator = PedAnovaImportanceEvaluator(target_quantile=share)
    found = []
    for place, direction in enumerate(study.directions):
        # the evaluator takes lower targets for better
        sign = 1.0 if direction == optuna.study.StudyDirection.MINIMIZE else -1.0

        def target(
            trial: optuna.trial.FrozenTrial, place: int = place, sign: float = sign
        ) -> float:
            return sign * float(trial.values[place])

        with quiet():
            found.append(get_param_importances(study, evaluator=evaluator, target=target))
    return found


def _genes(facts: Facts, importances: list[dict[str, float]], sample: int, share: float) -> Section:
    names = list(importances[0])[:MOST_GENES]
    figure = go.Figure()
    for objective, shares in zip(facts.objectives, importances, strict=True):
        figure.add_bar(
            y=names[::-1],
            x=[shares.get(name, 0.0) for name in names[::-1]],
            orientation="h",
            name=label(objective),
            hovertemplate="%{y}: %{x:.1%}<extra></extra>",
        )
    figure.update_layout(barmode="group", bargap=0.3)
    figure.update_xaxes(title_text="importance, share of all genes", tickformat=".0%")
    figure.update_yaxes(showgrid=False)
    caption = (
        "PED-ANOVA (Watanabe et al., 2023), as Optuna computes it: how far a gene's values among "
        f"the best {share:.0%} differ from those of all. It sees what the search tried, where a "
        f"good gene is tried more often. From {sample:,} of {len(facts.ok):,} candidates"
        + (": few, so read it with care." if sample < 200 else ".")
    )
    top = next(iter(importances[0].items()))
    # the names are label already, for plotly; a heading escapes by itself
    gene = unescape(top[0])
    finding = f"{gene} matters most for {facts.primary}: {top[1]:.0%} of the importance"
    height = 120 + (14 + 11 * len(importances)) * len(names)
    return Section("genes", "Genes", finding, [Plot(figure, caption, height)])


def _parallel(facts: Facts, names: list[str]) -> Section:
    order = np.argsort(facts.losses[:, 0], kind="stable")
    rows = np.sort(order[spread(len(order), MOST_LINES)])
    study = study_of(
        facts.name,
        facts.ok.take(rows),
        {facts.primary: facts.objectives[facts.primary]},
        text=label,
        varied=True,
    )
    present = [name for name in names if any(name in trial.params for trial in study.trials)]
    with quiet():
        figure = plot_parallel_coordinate(
            study,
            params=present,
            target=lambda trial: trial.values[0],
            target_name=label(facts.primary),
        )
    _recolour(figure, facts.objectives[facts.primary])
    caption = (
        f"A line a candidate, through its values of the {len(present)} genes that matter most: the "
        f"better the bluer, the worst grey. {len(rows):,} of {len(facts.ok):,} candidates."
    )
    finding = _shared(study.trials, facts.objectives[facts.primary])
    return Section("parallel", "Parallel coordinates", finding, [Plot(figure, caption, 480)])


def _shared(trials: Sequence[optuna.trial.FrozenTrial], direction: str) -> str:
    """Say which value of a gene is more frequent among the best fifth than among all."""
    ordered = sorted(trials, key=lambda t: t.values[0], reverse=direction == "max")
    best = ordered[: max(5, len(ordered) // 5)]
    lead, text = 0.0, ""
    everywhere = Counter(pair for trial in ordered for pair in trial.params.items())
    for (name, value), count in Counter(p for t in best for p in t.params.items()).items():
        here, there = count / len(best), everywhere[name, value] / len(ordered)
        if here >= FREQUENT and here - there > lead:
            lead = here - there
            text = f"{name} is {value} in {here:.0%} of the best fifth, in {there:.0%} of all"
    return unescape(text) or "The good ones differ from the others in no single gene"


def _recolour(figure: go.Figure, direction: str) -> None:
    """Colour lines by rank, so that a few bad ones do not hide the others, for dark and light."""
    lines = [trace for trace in figure.data if trace.mode == "lines" and trace.y[0] is not None]
    figure.data = sorted(lines, key=lambda t: t.y[0] if direction == "max" else -t.y[0])
    for place, trace in enumerate(figure.data):
        share = (place + 1) / len(lines)
        trace.line = {"color": "#3b82f6" if share > 0.5 else "#94a3b8", "width": 1 + share}
        trace.opacity = 0.15 + 0.75 * share**3
    figure.update_layout(title=None, plot_bgcolor=None, template=None, margin={"t": 30, "b": 60})
    for note in figure.layout.annotations:
        note.font.color = None


def operators(facts: Facts) -> Section:
    """How often a child was better than its parent, by the operator that made it."""
    topic = "Operators"
    counts = operator_counts(facts.final, facts.objectives)
    if not counts:
        return Section("operators", topic, "No candidate has been made from another one")
    gains = child_gains(facts)
    ordered = sorted(
        counts, key=lambda name: (counts[name][0] < ENOUGH, -counts[name][1] / counts[name][0])
    )
    figure = go.Figure()
    for name in ordered:
        values = gains.get(name, np.zeros(0))
        figure.add_box(
            y=values[spread(len(values), 2000)],
            name=label(name),
            boxpoints=False,
            showlegend=False,
        )
    figure.add_hline(y=0, line={"dash": "dot", "width": 1.5, "color": "#94a3b8"})
    everything = np.concatenate([np.zeros(1), *gains.values()])
    low, high = np.quantile(everything, [0.1, 0.9])
    if low < high:
        figure.update_yaxes(range=[low - 0.1 * (high - low), high + 0.1 * (high - low)])
    figure.update_yaxes(
        title_text=label(f"improvement of {facts.primary} over the parent", LONGEST_TITLE)
    )
    caption = (
        f"Above the dotted line, the child has a better {facts.primary} than its (first) parent. "
        "Boxes hold the middle half; whiskers may leave the frame."
    )
    rows = []
    for name in ordered:
        uses, wins = counts[name]
        median = f"{np.median(gains[name]):+.3g}" if name in gains else ""
        rows.append((name, f"{uses:,}", f"{wins:,}", f"{wins / uses:.0%}", median))
    header = ["operator", "children", "better than the parent", "share", "median improvement"]
    uses, wins = counts[ordered[0]]
    finding = f"{ordered[0]} makes better children most often: {wins / uses:.0%} of {uses:,}"
    if uses < ENOUGH:
        finding = "No operator has made enough children to be judged"
    about = "Better: nowhere worse than the parent, and somewhere better."
    body: list[Html | Plot] = [
        Plot(figure, caption, 380),
        table(header, rows, numbers=(1, 2, 3, 4)),
        paragraph(about),
    ]
    return Section("operators", topic, finding, body)


def child_gains(facts: Facts) -> dict[str, Floats]:
    """Return for each operator the improvements of the primary objective from parent to child."""
    final = facts.final
    fine = pc.equal(pc.cast(final["status"], pa.string()), Status.OK.value).to_numpy()
    values = final[facts.primary].to_numpy()
    lists = final["parents"].combine_chunks()
    has = pc.greater(pc.list_value_length(lists), 0).fill_null(False).to_numpy(False)
    children = np.flatnonzero(has & fine)
    if not len(children):
        return {}
    firsts = pc.list_element(lists.take(pa.array(children)), 0)
    parents = pc.index_in(firsts, final["candidate_id"].combine_chunks()).to_numpy(False)
    known = np.isfinite(parents.astype(np.float64))
    children, parents = children[known], parents[known].astype(np.int64)
    children, parents = children[fine[parents]], parents[fine[parents]]
    sign = 1.0 if facts.objectives[facts.primary] == "min" else -1.0
    gains = sign * (values[parents] - values[children])
    names = np.array(final["operator"].cast(pa.string()).to_pylist(), dtype=object)[children]
    return {str(name): gains[names == name] for name in sorted(set(names))}

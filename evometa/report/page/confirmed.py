"""What the best are worth on meta-test, where that was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
import pyarrow as pa

from evometa.errors import EvometaError
from evometa.metrics import scored_metric
from evometa.report.confirmed import Confirmed, compare, told_apart
from evometa.report.page.document import Html, Plot, Section, label, paragraph, table
from evometa.report.page.facts import number

TOPIC = "Confirmation"


def confirmation(confirmed: pa.Table | None, study: Mapping[str, Any]) -> Section:
    """The confirmation, or plainly that there is none.

    Args:
        confirmed: `confirm.parquet` of the run, if there is one.
        study: study.json.
    """
    if confirmed is None:
        text = (
            "Nothing in this report has touched meta-test. Until the best are trained again with "
            "other seeds and tested there, the scores are optimistic: evometa confirm RUN"
        )
        return Section("confirmed", TOPIC, "No confirmation on meta-test exists", [paragraph(text)])
    try:
        found = compare(confirmed, study)
    except EvometaError:
        text = "Its columns are not those that a confirmation has; confirm again."
        return Section("confirmed", TOPIC, "The confirmation cannot be read", [paragraph(text)])
    if not found:
        reasons = sorted({str(row["status"]) for row in confirmed.to_pylist()})
        text = f"All {len(confirmed)} trainings ended as {', '.join(reasons)}."
        return Section("confirmed", TOPIC, "No training has succeeded", [paragraph(text)])
    name, scored = scored_metric(study).name, scored_metric(study).of_scores
    body: list[Html | Plot] = [
        Plot(_intervals(found, scored), _caption(confirmed), 110 + 34 * len(found)),
        _table(found, scored, name),
    ]
    if all(each.name for each in found):
        body.append(paragraph(told_apart(found, confirmed)))
    if any(each.bias for each in found) or not all(each.name for each in found):
        body.append(paragraph(_about_bias(found, scored)))
    return Section("confirmed", TOPIC, _finding(found, scored), body)


def _finding(found: Sequence[Confirmed], scored: str) -> str:
    best = found[0]
    text = f"{best.name or best.id} reaches {scored} {best.test} on meta-test"
    rival = next((each for each in found[1:] if each.name in best.gains), None)
    if rival is None:
        return text
    gain = best.gains[rival.name]  # over the best of the baselines
    sure = "" if abs(gain.mean) > gain.half and gain.seeds else ", which may be chance"
    word = "better" if gain.mean > 0 else "worse"
    return f"{text}: {abs(gain.mean):.4g} ± {gain.half:.2g} {word} than {rival.name}{sure}"


def _caption(confirmed: pa.Table) -> str:
    episodes = max(map(len, confirmed["scores"].to_pylist()), default=0)
    lengths = sorted(set(confirmed["iterations"].to_pylist()))
    return (
        f"Means over new seeds, each trained for {', '.join(map(str, lengths))} meta-iterations, "
        f"on the same {episodes:,} episodes of meta-test. Bars are 95 % intervals over seeds and "
        "episodes; rings are single seeds. The order is that of meta-validation with the new "
        "seeds, so that meta-test has chosen nothing."
    )


def _intervals(found: Sequence[Confirmed], scored: str) -> go.Figure:
    figure = go.Figure()
    for baseline, colour in ((False, "#3b82f6"), (True, "#f59e0b")):
        rows = [each for each in found if bool(each.name) is baseline]
        names = [label(each.name or each.id) for each in rows]
        figure.add_scatter(
            x=[each.test.mean for each in rows],
            y=names,
            error_x={"array": [each.test.half for each in rows], "thickness": 2},
            mode="markers",
            marker={"size": 11, "color": colour},
            name="baselines" if baseline else "candidates",
        )
        seeds = [(s, n) for each, n in zip(rows, names, strict=True) for s in each.by_seed]
        figure.add_scatter(
            x=[s for s, _ in seeds],
            y=[n for _, n in seeds],
            mode="markers",
            marker={"size": 7, "symbol": "circle-open", "color": colour},
            showlegend=False,
            hoverinfo="x",
        )
    order = [label(each.name or each.id) for each in found]
    figure.update_yaxes(categoryorder="array", categoryarray=order[::-1])
    figure.update_xaxes(title=f"{label(scored)} on meta-test")
    return figure


def _table(found: Sequence[Confirmed], scored: str, name: str) -> Html:
    own = scored != name  # the metric is no mean over episodes
    others = list(dict.fromkeys(name for each in found for name in each.gains))
    header = ["candidate", f"{scored}, meta-test", "meta-validation", "flattered by"]
    header += [f"gain over {other}" for other in others]
    header += [f"{name}, meta-test"] * own
    header += ["params", "multiply-accumulates", "ms to adapt", "seeds"]
    rows = [
        [
            f"{each.name} {each.id}" if each.name else each.id,
            str(each.test),
            str(each.validation),
            str(each.bias or ""),
            *(each.gains[other].signed if other in each.gains else "" for other in others),
            *[number(each.metrics[name])] * own,
            *(number(each.metrics.get(cost, 0.0)) for cost in ("params", "macs")),
            number(1e3 * each.metrics.get("adapt_seconds", 0.0)),
            f"{each.seeds}" + (f", {each.failed} failed" if each.failed else ""),
        ]
        for each in found
    ]
    return table(header, rows, numbers=range(1, len(header)), marked=[0])


def _about_bias(found: Sequence[Confirmed], scored: str) -> str:
    best = found[0]
    if best.bias is None:
        return (
            "What selection has flattered is not known of the first one: for that, a candidate "
            "must have been trained in full by the search, and as long, with two seeds and more, "
            "by the confirmation."
        )
    word = "better" if best.bias.mean > 0 else "worse"
    return (
        f"The {scored} by which the search ranked {best.name or best.id} was "
        f"{abs(best.bias.mean):.4g} ± {best.bias.half:.2g} {word} than the mean of its new "
        "trainings, on the very same meta-validation episodes: the luck of its seed, which a "
        "search selects for. The rest of the way to the score on meta-test is that of other "
        "episodes."
    )

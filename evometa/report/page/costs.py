"""What failed, and where the time went."""

from __future__ import annotations

from collections import Counter

import numpy as np
import plotly.graph_objects as go
import pyarrow as pa
import pyarrow.compute as pc
from plotly.subplots import make_subplots

from evometa.records import Status
from evometa.report.page.document import (
    Html,
    Plot,
    Section,
    cards,
    code,
    folded,
    label,
    paragraph,
    table,
)
from evometa.report.page.facts import Facts, duration, spread

MOST_REASONS = 12
MOST_READ = 5000
MOST_SHARES = 8
MEANING = {
    "INVALID": "rejected before any training",
    "DIVERGED": "a loss or a parameter was no longer finite",
    "OOM": "out of memory",
    "TIMEOUT": "took too long",
    "ERROR": "the study's code raised",
    "LOST": "the infrastructure failed",
}
COLOURS = {
    "OK": "#10b981", "INVALID": "#94a3b8", "DIVERGED": "#f59e0b", "OOM": "#8b5cf6",
    "TIMEOUT": "#14b8a6", "ERROR": "#ef4444", "LOST": "#ec4899",
}  # fmt: skip


def failures(facts: Facts) -> Section:
    """How many failed in which way, and why."""
    topic = "Failures"
    status = pc.cast(facts.rows["status"], pa.string())
    failed = facts.rows.filter(pc.not_equal(status, Status.OK.value))
    if not len(failed):
        nothing = "Nothing has been evaluated" if not len(facts.rows) else "Nothing failed"
        return Section("failures", topic, nothing)
    counts = Counter(pc.cast(failed["status"], pa.string()).to_pylist())
    worst, most = counts.most_common(1)[0]
    which = "all" if most == len(failed) else f"{most:,} of them"
    figure = go.Figure()
    names = [name for name, _ in counts.most_common()][::-1]
    figure.add_bar(
        y=[label(name) for name in names],
        x=[counts[name] for name in names],
        orientation="h",
        marker={"color": [COLOURS.get(name, "#94a3b8") for name in names]},
        hovertemplate="%{y}: %{x:,}<extra></extra>",
    )
    figure.update_xaxes(title_text="evaluations", tickformat=",d", dtick=1 if most < 10 else None)
    figure.update_yaxes(showgrid=False)
    caption = "; ".join(f"{name}: {MEANING.get(name, 'unknown')}" for name in names[::-1]) + "."
    return Section(
        "failures",
        topic,
        f"{len(failed):,} of {len(facts.rows):,} evaluations failed, {which} {worst}",
        [
            Plot(figure, caption, 110 + 42 * len(names)) if len(names) > 1 else paragraph(caption),
            *_reasons(failed),
        ],
    )


def _reasons(failed: pa.Table) -> list[Html]:
    read = failed.select(["candidate_id", "status", "error"]).take(spread(len(failed), MOST_READ))
    groups: dict[tuple[str, str], list[str]] = {}
    texts: dict[tuple[str, str], str] = {}
    for row in read.to_pylist():
        error = (row["error"] or "").strip()
        key = row["status"], (error.splitlines() or ["no reason given"])[-1]
        groups.setdefault(key, []).append(row["candidate_id"])
        texts.setdefault(key, error)
    first = sorted(groups, key=lambda key: -len(groups[key]))[:MOST_REASONS]
    rows = [(key[0], f"{len(groups[key]):,}", key[1], ", ".join(groups[key][:3])) for key in first]
    blocks = [table(["class", "times", "last line of the reason", "such as"], rows, numbers=(1,))]
    if len(groups) > len(first) or len(read) < len(failed):
        said = f"The {len(first)} most frequent of {len(groups):,} reasons"
        blocks.append(paragraph(f"{said}, in {len(read):,} of {len(failed):,} failures."))
    long = [texts[key] for key in first if "\n" in texts[key]][:3]
    if long:
        blocks.append(folded("the first tracebacks in full", *(code(text) for text in long)))
    return blocks


def time_spent(facts: Facts) -> Section:
    """Device-seconds by outcome, by node, and over time."""
    topic = "Time"
    if not len(facts.rows):
        return Section("time", topic, "No time has been spent")
    seconds = facts.rows["seconds"].fill_null(0.0).to_numpy()
    total = float(seconds.sum())
    status = np.array(pc.cast(facts.rows["status"], pa.string()).to_pylist(), dtype=object)
    nodes = np.array(
        pc.cast(facts.rows["node"], pa.string()).fill_null("").to_pylist(), dtype=object
    )
    lost = float(seconds[status != Status.OK.value].sum())
    saved = pc.sum(facts.rows["saved_seconds"]).as_py() or 0.0
    wall = _wall(facts)
    ran = seconds[seconds > 0]
    body: list[Html | Plot] = [
        cards(
            [
                (duration(total), "device time"),
                (duration(wall), "from the first start to the last end"),
                (f"{total / wall:.1f}" if wall else "0", "evaluations at once, on average"),
                (duration(float(np.median(ran))) if len(ran) else "0 s", "an evaluation, median"),
                (duration(lost), "on failures"),
                (duration(saved), "saved by reusing results"),
            ]
        ),
        Plot(_figure(seconds, status, nodes, facts), _caption(len(seconds)), 340),
        _shares(facts, total),
    ]
    share = f"{lost / total:.1%}" if lost else "none"
    finding = f"{duration(total)} of device time, {share} of it on failures"
    return Section("time", topic, finding, body)


def _shares(facts: Facts, total: float) -> Html:
    """Device time by rung and by what made the candidates."""
    named = facts.rows.select(["rung", "operator", "seconds"])
    words = [facts.rows[name].cast(pa.string()) for name in ("operator", "name")]
    made_by = pc.utf8_trim(pc.binary_join_element_wise(*words, " "), " ")
    named = named.set_column(1, "operator", made_by)
    rows = []
    for column in ("rung", "operator"):
        sums = named.group_by(column).aggregate([("seconds", "sum"), ("seconds", "count")])
        for row in sums.sort_by([("seconds_sum", "descending")]).slice(0, MOST_SHARES).to_pylist():
            spent = row["seconds_sum"] or 0.0
            part = f"{spent / total:.1%}" if total else ""
            what = f"{column} {row[column]}"
            rows.append((what, f"{row['seconds_count']:,}", duration(spent), part))
    header = ["spent on", "evaluations", "device time", "share"]
    return table(header, rows, numbers=(1, 2, 3))


def _caption(n: int) -> str:
    text = "Left: device time by host and outcome. Right: how long single evaluations took."
    return text + (f" Right: {20000:,} of {n:,} evaluations." if n > 20000 else "")


def _figure(seconds: np.ndarray, status: np.ndarray, nodes: np.ndarray, facts: Facts) -> go.Figure:
    figure = make_subplots(1, 2, horizontal_spacing=0.1)
    hosts = [name for name, _ in Counter(nodes.tolist()).most_common(12)]
    for outcome in sorted(set(status)):
        mine = status == outcome
        figure.add_bar(
            x=[float(seconds[mine & (nodes == host)].sum()) for host in hosts],
            y=[label(host) or "unknown" for host in hosts],
            orientation="h",
            name=label(outcome),
            marker={"color": COLOURS.get(outcome, "#94a3b8")},
            hovertemplate="%{y}: %{x:,.4g} s<extra></extra>",
            row=1,
            col=1,
        )
    drawn = seconds[spread(len(seconds), 20000)]
    figure.add_histogram(
        x=drawn[drawn > 0], nbinsx=40, marker={"color": "#3b82f6"}, showlegend=False, row=1, col=2
    )
    figure.update_layout(barmode="stack", bargap=0.4)
    figure.update_xaxes(title_text="device-seconds", row=1, col=1)
    figure.update_xaxes(title_text="seconds an evaluation", row=1, col=2)
    figure.update_yaxes(title_text="evaluations", row=1, col=2)
    figure.update_yaxes(showgrid=False, row=1, col=1)
    return figure


def _wall(facts: Facts) -> float:
    started = pc.cast(facts.rows["started_at"], pa.int64()).to_numpy() / 1e6
    ended = started + facts.rows["seconds"].fill_null(0.0).to_numpy()
    return float(ended.max() - started.min())

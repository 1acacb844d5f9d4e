"""The model card of an export: what it is, what it scored, by which protocol, at what cost."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from evometa.learner import family_of, preset
from evometa.learner.families import Named
from evometa.records import Evaluation, Genome, genome_hash, mean_interval
from evometa.report.confirmed import Confirmed, compare
from evometa.reuse.learner import FewShotLearner
from evometa.reuse.stored import StoredRun
from evometa.store import read_confirmed, versions


def model_card(
    run: StoredRun,
    candidate_id: str,
    learner: FewShotLearner,
    now: Evaluation | None,
    facts: Mapping[str, Any],
    difference: float,
    written: bool,
) -> str:
    """Return the card as Markdown.

    Args:
        run: the run.
        candidate_id: of the candidate.
        learner: the trained candidate.
        now: its evaluation, if it was trained for this export.
        facts: learner.json.
        difference: between the export's outputs and the learner's.
        written: whether `rule.py` is there.
    """
    evaluation = now or run.evaluation(candidate_id)
    confirmed = _find(run, candidate_id)
    parts = [
        f"# {candidate_id} of {str(run.kept.get('file')).rpartition('/')[2]}",
        _summary(facts),
        "```\npython example.py\n```",
        "In a program of your own, with this folder on its path:",
        _USE,
        "## Score",
        _score(run, confirmed, evaluation),
        "## Protocol",
        _protocol(run, learner, evaluation),
        "## Cost",
        _cost(evaluation, confirmed.metrics if confirmed else evaluation.metrics),
        "## Learning rule",
        _rule(run, evaluation.candidate.genome, facts, written),
        "## Network",
        _fenced(evaluation.network),
        "## Genome",
        _fenced(json.dumps(evaluation.candidate.genome, indent=1)),
        "## Origin",
        _origin(run, evaluation, difference),
    ]
    return "\n\n".join(parts) + "\n"


_USE = """```python
from learner import Learner

learner = Learner(device="cpu")
adapted = learner.adapt(x, y)
adapted.predict(x_new)
```"""


def _summary(facts: Mapping[str, Any]) -> str:
    kind = "classes" if facts["outputs"] is None else "values"
    shapes = [
        f"`{leaf['name'] or 'x'}`: {leaf['dtype']} of shape "
        f"`({', '.join(['examples', *map(str, leaf['shape'])])})`"
        for leaf in facts["inputs"]
    ]
    limits = [
        f"It takes {_count(*limits)} {axis}."
        for axis, limits in facts["limits"].items()
        if tuple(limits) != (1, None)
    ]
    return " ".join(
        [
            "A few-shot learner: from a few labelled examples of a new task it learns to predict "
            f"{kind}. Inputs are {'; '.join(shapes)}.",
            *limits,
            "It needs the files of this folder and PyTorch.",
        ]
    )


def _count(least: int, most: int | None) -> str:
    if most is None:
        return f"{least} or more"
    return f"exactly {least}" if least == most else f"from {least} to {most}"


def _find(run: StoredRun, candidate_id: str) -> Confirmed | None:
    table = read_confirmed(run.place)
    found = [] if table is None else compare(table, run.kept)
    return next((each for each in found if each.id == candidate_id), None)


def _score(run: StoredRun, confirmed: Confirmed | None, evaluation: Evaluation) -> str:
    metric = run.kept["metrics"][0]
    if confirmed is not None:
        return _confirmed_score(metric, confirmed)
    half = evaluation.interval or mean_interval(evaluation.scores)[1]
    return (
        f"{metric} {evaluation.metrics[metric]:.4g} ± {half:.2g} on {len(evaluation.scores)} "
        "meta-validation episodes. **Not confirmed**: the search selected by scores on these "
        "episodes, so it is flattered, and meta-test has not been touched."
    )


def _confirmed_score(metric: str, mine: Confirmed) -> str:
    counted = "seeds and episodes" if mine.test.seeds else "episodes"
    lines = [
        f"{metric} {mine.test} on meta-test, mean over {mine.seeds} trainings with seeds that the "
        f"search had not seen; the interval (95 %) counts {counted}. These weights are of one of "
        "them."
    ]
    lines += [f"- gain over {name}: {gain.signed}" for name, gain in mine.gains.items()]
    if mine.bias is not None:
        lines.append(f"- the search's own score was flattered by {mine.bias}")
    return "\n".join(lines)


def _protocol(run: StoredRun, learner: FewShotLearner, evaluation: Evaluation) -> str:
    training: Mapping[str, Any] = run.kept["training"]
    task = ", ".join(f"{key} {value}" for key, value in run.kept["task"].items())
    return "\n".join(
        [
            f"- task: {task}",
            f"- meta-training: {training['tasks']} episodes a meta-iteration; these weights were "
            f"trained {learner.trained}",
            f"- batch-norm protocol: {training['norm']}"
            + (_company(run, evaluation) if training["norm"] == "transductive" else ""),
        ]
    )


def _company(run: StoredRun, evaluation: Evaluation) -> str:
    """Say what a transductive learner is worth when its queries come one at a time."""
    metric = run.kept["metrics"][0]
    alone = evaluation.metrics.get(f"one_by_one_{metric}")
    found = (
        ""
        if alone is None
        else (
            f": {metric} was {evaluation.metrics[metric]:.4g} for all queries of a task at once, "
            f"and {alone:.4g} one at a time"
        )
    )
    return (
        "; where the network has batch norm, new inputs are normalised by the statistics of those "
        f"that are given together, so predict in batches like those of the task{found}"
    )


def _cost(evaluation: Evaluation, metrics: Mapping[str, float]) -> str:
    lines = [
        f"- parameters: {metrics['params']:,.0f}",
        f"- multiply-accumulates of one prediction: {metrics['macs']:,.0f}",
        f"- adapting to a task: {1e3 * metrics['adapt_seconds']:.3g} ms on {evaluation.device}",
        f"- one training with its evaluation: {evaluation.seconds:.0f} s on {evaluation.device}",
    ]
    return "\n".join(lines)


def rule_of(run: StoredRun, genome: Genome) -> Named:
    """Return the family of a candidate and its genes."""
    own = isinstance(genome, dict) and "rule" in genome
    return family_of(genome["rule"] if own else preset("maml"), run.file.study.all_families)


def _rule(run: StoredRun, genome: Genome, facts: Mapping[str, Any], written: bool) -> str:
    family, genes = rule_of(run, genome)
    how = [f"`{family.formula(genes, run.file.study.primitives)}`"]
    if facts["steps"]:
        how.append(f"{facts['steps']} steps.")
    if written:
        how.append("Written out in `rule.py`, to be read.")
    return "\n\n".join(how)


def _origin(run: StoredRun, evaluation: Evaluation, difference: float) -> str:
    wrote = ", ".join(f"{name} {version}" for name, version in versions().items())
    return "\n".join(
        [
            f"- run `{run.place}`, study file sha256 `{run.kept.get('file_sha256')}`",
            f"- seed {evaluation.candidate.seed}, genome sha256 "
            f"`{genome_hash(evaluation.candidate.genome)}`",
            f"- exported with {wrote}",
            f"- checked: outputs differ from those of the search-time learner by {difference:.1e} "
            "of the largest",
        ]
    )


def _fenced(text: str) -> str:
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}\n{text}\n{fence}"

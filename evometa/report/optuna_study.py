"""A run as an Optuna study: for its importance and plots, and for its dashboard."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import optuna
import pyarrow as pa
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from evometa.records import Objectives, Status
from evometa.report.genes import Gene, genes, is_number, values_of

MOST_WORDS, FEW_WORDS = 50, 12  # different words of a gene, to keep it; to plot it
FEW = 8  # different floats: a choice among numbers, not a range
LOG_RATIO = 100.0  # positive genes that span more are on a logarithmic scale
LARGEST = 2**53  # beyond, JSON readers round


def study_of(
    name: str,
    table: pa.Table,
    objectives: Objectives,
    *,
    storage: BaseStorage | None = None,
    text: Callable[[str], str] = str,
    varied: bool = False,
) -> optuna.Study:
    """Return a new Optuna study with a trial for each row.

    Args:
        name: of the study.
        table: one row a candidate.
        objectives: name to direction.
        storage: where it is kept; default in memory.
        text: applied to the names and words of genes, to escape them.
        varied: leave out genes that have one value alone, or more than a dozen words.
    """
    with quiet():
        study = optuna.create_study(
            study_name=name,
            storage=storage,
            directions=["maximize" if d == "max" else "minimize" for d in objectives.values()],
        )
        study.set_metric_names(list(objectives))
        study.add_trials(trials(table, objectives, text=text, varied=varied))
    return study


def trials(
    table: pa.Table,
    objectives: Objectives,
    *,
    text: Callable[[str], str] = str,
    varied: bool = False,
) -> Iterator[FrozenTrial]:
    """Yield a trial for each row: genes as parameters, the learning curve as intermediate values.

    Failures are failed trials. User attributes tell the rest: id, status, operator, costs.
    """
    found = genes(table)
    distributions = {
        text(path): distribution
        for path, values in values_of(found).items()
        if (distribution := _distribution(values, text, FEW_WORDS if varied else MOST_WORDS))
        and (len(values) > 1 or not varied)
    }
    heavy = [n for n in ("scores", "steps", "parents", "network") if n in table.column_names]
    rows = (
        row for batch in table.drop_columns(heavy).to_batches(1024) for row in batch.to_pylist()
    )
    for flat, row in zip(found, rows, strict=True):
        yield _trial(row, flat, objectives, distributions, text)


def _trial(
    row: Mapping[str, Any],
    flat: Mapping[str, Gene],
    objectives: Objectives,
    distributions: Mapping[str, BaseDistribution],
    text: Callable[[str], str],
) -> FrozenTrial:
    ok = row["status"] == Status.OK
    own = {}
    for path, value in flat.items():
        distribution = distributions.get(text(path))
        if distribution is None:
            continue
        word = any(isinstance(choice, str) for choice in getattr(distribution, "choices", ()))
        own[text(path)] = text(str(value)) if word else value
    skipped = {"genome", "curve", "candidate_id", *objectives}
    attributes = {
        name: value.isoformat() if hasattr(value, "isoformat") else value
        for name, value in row.items()
        if name not in skipped and not name.startswith("gene.") and value not in (None, "")
    }
    return create_trial(
        state=TrialState.COMPLETE if ok else TrialState.FAIL,
        values=[row[name] for name in objectives] if ok else None,
        params=own,
        distributions={name: distributions[name] for name in own},
        user_attrs={"candidate": row["candidate_id"], **attributes},
        intermediate_values={point["iteration"]: point["loss"] for point in row["curve"]},
    )


def _distribution(
    values: Sequence[Any], text: Callable[[str], str], most_words: int
) -> BaseDistribution | None:
    """Return what holds all values of a gene; None for one with too many words."""
    if not is_number(list(values)):
        few = len(values) <= most_words
        return CategoricalDistribution([text(word) for word in values]) if few else None
    if len(values) <= FEW and any(isinstance(value, float) for value in values):
        return CategoricalDistribution([float(value) for value in values])
    low, high = values[0], values[-1]
    if not all(math.isfinite(value) and abs(value) <= LARGEST for value in (low, high)):
        return None
    log = low > 0 and high / low > LOG_RATIO
    if all(isinstance(value, int) for value in values):
        return IntDistribution(low, high, log=log)
    return FloatDistribution(low, high, log=log)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Optuna's log lines and notices of experimental features off the screen."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            for kind in (UserWarning, optuna.exceptions.ExperimentalWarning):
                warnings.simplefilter("ignore", kind)
            yield
    finally:
        optuna.logging.set_verbosity(level)

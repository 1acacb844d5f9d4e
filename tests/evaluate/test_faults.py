"""Mistakes in a task or a measure of the user's own are named, in terms of their code."""

import random
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from evometa import Study, Training
from evometa import space as s
from evometa.errors import StudyError, TaskError
from evometa.evaluate import Evaluator, Rejected, Trainer, admit, check_episodes
from evometa.learner import Family
from evometa.metrics import Measure, Metric, interquartile_mean
from evometa.network import mlp
from evometa.records import Candidate, Status
from evometa.task import Batch, EpisodeBatch, Sinusoid

CPU = torch.device("cpu")


class Lines:
    metrics: ClassVar = {"query_loss": "min"}

    def load(self, data, *, download=False, skip_broken=False):
        return self

    def episodes(self, split, n, generator):
        x, y = self.data(n, generator)
        return EpisodeBatch(Batch(x[:, :5], y[:, :5]), Batch(x[:, 5:], y[:, 5:]))

    def data(self, n, generator):
        x = torch.rand(n, 15, 3, generator=generator)
        return x, x @ torch.rand(n, 3, 2, generator=generator)

    def loss(self, predict, side):
        return F.mse_loss(predict(side.inputs), side.targets)

    def scores(self, predict, side):
        return {"query_loss": self.loss(predict, side)}

    def describe(self):
        return {"name": type(self).__name__}


def of(**members):
    return type("Mine", (Lines,), members)()


def study(task, **options):
    return Study(
        space=s.Struct(k=s.Int(2, 9)),
        build=lambda g: mlp(3, [g["k"]], 2),
        task=task,
        training=Training(iterations=2, tasks=2, validation=4),
        **options,
    )


def changed(change):
    return lambda self, n, g: change(*Lines.data(self, n, g))


def nan(x, y):
    x[0, 1, 1] = float("nan")
    return x, y


def unseeded(self, n, generator):
    return Lines.data(self, n, None)


EPISODES = {
    "float64": (changed(lambda x, y: (x.double(), y)), r"support.inputs.*float32.*got float64"),
    "NaN": (changed(nan), "support.inputs.*finite, but holds NaN"),
    "numpy": (changed(lambda x, y: (x.numpy(), y)), "must be a tensor, got numpy.ndarray"),
    "no common axis": (changed(lambda x, y: (x, y[:1])), "axis of tasks, of length 2, got"),
    "own randomness": (unseeded, "must draw from `generator` alone"),
    "raises": (changed(lambda x, y: y[99]), r"raised at line \d+ of test_faults.py, .*IndexError"),
}


@pytest.mark.parametrize("name", EPISODES)
def test_episodes_that_cannot_be_learned_from(name):
    data, message = EPISODES[name]
    with pytest.raises(TaskError, match=message):
        check_episodes(of(data=data))


def test_a_tuple_is_no_episode_batch():
    task = of(episodes=lambda self, split, n, g: (torch.zeros(n, 2), torch.zeros(n, 2)))
    with pytest.raises(TaskError, match=r"must return EpisodeBatch\(support, query\), got tuple"):
        check_episodes(task)


def fault(self, predict, side):
    return {"query_loss": 1 / 0}


JUDGED = {
    "loss is no scalar": ({"loss": lambda s, p, side: p(side.inputs)}, "must return a scalar"),
    "loss is a number": ({"loss": lambda s, p, side: float(p(side.inputs).sum())}, "scalar tensor"),
    "loss never predicts": ({"loss": lambda s, p, side: torch.zeros(())}, "must call `predict`"),
    "old form": ({"loss": lambda s, p, t: F.mse_loss(p, t)}, "loss.* raised at line .*TypeError"),
    "scores are floats": (
        {"scores": lambda s, p, side: {"query_loss": float(s.loss(p, side))}},
        "must return tensors, but 'query_loss' is float",
    ),
    "scores are no dict": ({"scores": lambda s, p, side: s.loss(p, side)}, "a dict of scalar"),
    "other names": ({"scores": lambda s, p, side: {"mse": s.loss(p, side)}}, "must return the met"),
    "a score for each": (
        {"scores": lambda s, p, side: {"query_loss": p(side.inputs).sum(-1)}},
        "must return scalars",
    ),
}


@pytest.mark.parametrize("name", JUDGED)
def test_losses_and_scores_that_are_none(name):
    members, message = JUDGED[name]
    with pytest.raises((TaskError, Rejected), match=message):
        admit(study(of(**members)), {"k": 3}, 0, CPU)


def test_targets_that_would_be_broadcast_are_refused():
    data = changed(lambda x, y: (x, y.sum(-1)))
    with pytest.raises(
        TaskError, match=r"\(5,\) and the network's predictions \(5, 1\).*unsqueeze"
    ):
        made = study(of(data=data))
        admit(Study(made.space, lambda g: mlp(3, [4], 1), made.task), {"k": 3}, 0, CPU)


@pytest.mark.parametrize("metrics", [("auc",), {"auc": "up"}, {}, ["auc"], {"auc": None}])
def test_a_metric_without_direction_is_refused(metrics):
    with pytest.raises(StudyError, match="direction"):
        study(of(metrics=metrics))


def test_what_user_code_does_to_a_genome_stays_with_it():
    def build(genome):
        width = genome.pop("k")
        genome["extra"] = [1]
        return mlp(3, [width], 2)

    made = Study(s.Struct(k=s.Int(2, 9)), build, Lines(), training=Training(2, 2, 4))
    genome = {"k": 4}
    (result,) = Evaluator(made)([Candidate(0, genome, 0)])
    assert result.status is Status.OK, result.error
    assert genome == {"k": 4}


# ---------------------------------------------------------------- measures


def width(candidate):
    candidate.genome["k"] = 99  # a copy
    return sum(p.numel() for p in candidate.module.parameters())


def drift(candidate):
    """How far the trained weights are from those of a fresh network; needs the trained ones."""
    predictions = candidate.adapt()(candidate.inputs)
    return float(predictions.abs().mean())


def test_measures_are_metrics_objectives_and_constraints():
    measures = {"weights": Measure(width, "min"), "size": Measure(drift, "max", trained=True)}
    made = study(Lines(), measures=measures, objectives={"size": "max", "weights": "min"})
    (result,) = Evaluator(made)([Candidate(0, {"k": 5}, 0)])
    assert result.metrics["weights"] == result.metrics["params"] == 5 * 3 + 5 + 2 * 5 + 2
    assert result.metrics["size"] > 0
    made = study(Lines(), measures=measures, constraints=["weights <= 10"])
    (result,) = Evaluator(made)([Candidate(0, {"k": 5}, 0)])
    assert (result.status, result.seconds < 5) == (Status.INVALID, True)
    assert "weights is 32, but the study asks for weights <= 10" in result.error


BAD_MEASURES = {
    "raises": (lambda c: 1 / 0, r"'mine' raised at line \d+ of test_faults.py.*ZeroDivisionError"),
    "NaN": (lambda c: float("nan"), "'mine' must give a finite number, but gave nan"),
    "text": (lambda c: "fast", "'mine' raised.*could not convert"),
}


@pytest.mark.parametrize("name", BAD_MEASURES)
@pytest.mark.parametrize("trained", [True, False])
def test_a_measure_that_fails_is_named(name, trained):
    function, message = BAD_MEASURES[name]
    made = study(Lines(), measures={"mine": Measure(function, "min", trained=trained)})
    (result,) = Evaluator(made)([Candidate(0, {"k": 5}, 0)])
    assert result.status is Status.ERROR
    with pytest.raises(AssertionError, match=message.replace("'mine'", "'mine'")):
        raise AssertionError(result.error)


def test_a_measure_needs_a_direction_and_a_name_of_its_own():
    with pytest.raises(StudyError, match="must be a Measure"):
        study(Lines(), measures={"latency": width})
    with pytest.raises(StudyError, match="direction of a measure"):
        Measure(width, "down")
    with pytest.raises(StudyError, match="must not be called like the metric 'params'"):
        study(Lines(), measures={"params": Measure(width, "min")})


# ---------------------------------------------------------------- metrics that are no means


@dataclass(frozen=True)
class Pooled(Sinusoid):
    """One number of the predictions of all episodes together."""

    metrics: ClassVar = {
        "worst": Metric("min", lambda pairs: float(np.abs(pairs[..., 0] - pairs[..., 1]).max())),
        "middle": Metric("min", "median"),
    }

    def scores(self, predict, side):
        predictions = predict(side.inputs)
        pairs = torch.cat([predictions, side.targets], -1)
        return {"worst": pairs, "middle": F.mse_loss(predictions, side.targets)}


def test_a_metric_may_be_no_mean():
    made = Study(
        s.Struct(k=s.Int(2, 9)),
        lambda g: mlp(1, [g["k"]], 1),
        Pooled(eval_queries=7),
        training=Training(iterations=2, tasks=2, validation=9),
    )
    (result,) = Evaluator(made)([Candidate(0, {"k": 4}, 0)])
    assert result.status is Status.OK, result.error
    assert result.metrics["worst"] == pytest.approx(max(result.scores))
    assert result.metrics["middle"] <= result.metrics["worst"] ** 2
    assert 0 < result.interval < result.metrics["worst"]


def test_summaries_and_their_intervals():
    values = [5.0, 1.0, 2.0, 3.0, 100.0, 4.0, 0.0, 2.5]
    assert Metric("max", "median").value(values) == np.median(values)
    assert Metric("max", "iqm").value(values) == interquartile_mean(values) == 2.875
    assert Metric("max", "rms").value([3.0, 4.0]) == pytest.approx(12.5**0.5)
    rng = np.random.default_rng(0)
    normal = rng.normal(size=400).tolist()
    mean, median = Metric("max"), Metric("max", "median")
    # asymptotically, a normal median is sqrt(pi / 2) times as uncertain as the mean
    ratio = median.half_interval(normal) / mean.half_interval(normal)
    assert ratio == pytest.approx((np.pi / 2) ** 0.5, rel=0.2)
    with pytest.raises(StudyError, match="summary of a metric"):
        Metric("max", "mode")


# ---------------------------------------------------------------- families


def test_families_that_are_none_are_refused():
    twin = Family("gradient", lambda g, s: None, lambda: s.Struct(x=s.Choice(1)))
    with pytest.raises(StudyError, match="must differ in name, got 'gradient' twice"):
        study(Lines(), families=[twin])
    with pytest.raises(StudyError, match="must be evometa.learner.Family"):
        study(Lines(), families=["mine"])
    with pytest.raises(StudyError, match="`space` of the family 'mine' must be a function"):
        Family("mine", lambda g, s: None, {"x": 1})

    class Lame:
        traits = None

        def adapt(self, meta, support):
            return None

    own = Family("lame", lambda g, s: Lame(), lambda: s.Struct(x=s.Choice(1)))
    made = Study(
        s.Struct(rule=s.Choice(lame=own.space())), lambda g: mlp(3, [4], 2), Lines(), families=[own]
    )
    with pytest.raises(Rejected, match="Lame lacks init, trajectory, predict, meta_loss"):
        admit(made, {"rule": {"lame": {"x": 1}}}, 0, CPU)
    with pytest.raises(Rejected, match="a family must be one of gradient, prototypes, .*, lame"):
        admit(made, {"rule": {"other": {"x": 1}}}, 0, CPU)


def test_prototypes_say_what_a_task_lacks():
    with pytest.raises(Rejected, match="need a task of classes, with a field `ways`, and Lines"):
        rule = {"prototypes": {"distance": "cosine"}}
        admit(study(Lines()), {"k": 3, "rule": rule}, 0, CPU)


# ---------------------------------------------------------------- randomness and state of `build`


def ported(genome):
    """Initial weights from numpy, as ported code has them."""
    module = mlp(3, [genome["k"]], 2)
    with torch.no_grad():
        drawn = np.random.randn(*module[0].weight.shape)  # noqa: NPY002
        module[0].weight.copy_(torch.from_numpy(drawn))
    return module


def hidden(genome):
    module = mlp(3, [genome["k"]], 2)
    with torch.no_grad():
        module[0].weight.fill_(np.random.default_rng().normal())
    return module


def test_numpys_generator_is_seeded_and_others_are_named():
    made = Study(s.Struct(k=s.Int(2, 9)), ported, Lines(), training=Training(2, 2, 4))
    found = [Evaluator(made)([Candidate(0, {"k": 4}, 5)])[0].scores for _ in range(2)]
    assert found[0] == found[1]
    made = Study(made.space, hidden, Lines())
    with pytest.raises(Rejected, match="'0.weight' came out differently twice"):
        admit(made, {"k": 4}, 0, CPU)


class Drawing(nn.Module):
    """Drops features by numbers of one generator or another."""

    def __init__(self, width, draw):
        super().__init__()
        self.first, self.last, self.draw = nn.Linear(3, width), nn.Linear(width, 2), draw

    def forward(self, x):
        hidden = self.first(x).tanh()
        return self.last(hidden * self.draw() if self.training else hidden)


def from_torch():
    return (torch.rand(()) > 0.5).float()


def from_numpy():
    return float(np.random.rand() > 0.5)  # noqa: NPY002


def from_random():
    return float(random.gauss(0, 1))


def from_all():
    return from_torch() + from_numpy() * np.random.randn() + from_random()  # noqa: NPY002


DRAWS = {
    from_torch: "",
    from_numpy: "draws from numpy while",
    from_random: "draws from random while",
    from_all: "draws from numpy and random while",
}


@pytest.mark.parametrize("draw", [*DRAWS])
def test_whoever_gives_random_numbers_they_come_from_the_seed_and_it_is_said(draw):
    def build(genome):
        return Drawing(genome["k"], draw)

    made = Study(s.Struct(k=s.Int(2, 9)), build, Lines(), training=Training(6, 2, 4))
    mine, theirs = Candidate(1, {"k": 4}, 5), Candidate(0, {"k": 4}, 9)
    found = []
    for pack in ([mine], [theirs, mine]):  # neither the process nor neighbours matter
        random.seed(len(found))
        np.random.seed(len(found))  # noqa: NPY002
        before = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
        found.append(Evaluator(made)(pack)[-1])
        assert (random.getstate(), np.random.get_state()[1].tolist()) == before  # noqa: NPY002
    assert [each.status for each in found] == [Status.OK] * 2, found[0].error
    assert found[0].scores == found[1].scores and found[0].curve == found[1].curve
    assert DRAWS[draw] in found[0].note and (found[0].plan == "loop") == bool(DRAWS[draw])


@pytest.mark.parametrize("draw", [*DRAWS])
def test_a_training_that_goes_on_draws_what_it_would_have_drawn(draw):
    made = Study(
        s.Struct(k=s.Int(2, 9)),
        lambda genome: Drawing(genome["k"], draw),
        Lines(),
        training=Training(7, 2, 4),
    )
    admission = admit(made, {"k": 4}, 5, CPU)
    given = {"plan": admission.plan, "device": CPU, "seeds": [3]}
    whole = Trainer([admission.learner], made.task, made.training, **given)
    whole.run()
    half = Trainer([admission.learner], made.task, made.training, **given)
    half.run(3)
    kept = [half.checkpoint(0)]
    rest = Trainer([admission.learner], made.task, made.training, checkpoints=kept, **given)
    rest.run()
    assert torch.equal(whole.pack.flat, rest.pack.flat)


def untidy(genome):
    torch.set_grad_enabled(False)
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    return mlp(3, [genome["k"]], 2).float()


def test_what_build_leaves_behind_does_not_reach_another_candidate():
    def build(genome):
        return untidy(genome) if genome["k"] == 2 else mlp(3, [genome["k"]], 2)

    made = Study(s.Struct(k=s.Int(2, 9)), build, Lines(), training=Training(2, 2, 4))
    (alone,) = Evaluator(made)([Candidate(1, {"k": 4}, 5)])
    pack = Evaluator(made)([Candidate(0, {"k": 2}, 5), Candidate(1, {"k": 4}, 5)])
    assert [each.status for each in pack] == [Status.OK] * 2, pack[0].error
    assert pack[1].scores == alone.scores
    assert torch.is_grad_enabled() and torch.get_default_dtype() == torch.float32


def test_a_summary_need_not_take_single_episodes():
    def curve(pairs):
        if len(np.unique(pairs[..., 1])) < 2:
            raise ValueError("only one class")
        return float(pairs[..., 0].mean())

    scores = [[[0.2, 0.0]], [[0.4, 1.0]], [[0.6, 1.0]]]
    metric = Metric("max", curve)
    assert metric.each(scores) == [pytest.approx(0.4)] * 3
    assert metric.half_interval(scores) > 0

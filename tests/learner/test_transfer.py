"""Plain transfer against plain loops of torch.optim, and its laws."""

from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call

from evometa.evaluate import LOOP, VMAP, Trainer, begin
from evometa.learner import Embedded, make_learner, preset
from evometa.learner.finetuned import Finetuned
from evometa.learner.transfer import _head
from evometa.study import Training
from evometa.task import Glyphs, Sinusoid
from evometa.task.episodes import part_of
from evometa.task.protocol import Batch, EpisodeBatch
from tests.learner.laws import CPU
from tests.learner.points import (
    FEATURES,
    Points,
    drawn,
    embedding,
    extremes,
    learner_on,
    mapped_equals_looped,
    order_changes_nothing,
    packed_equals_single,
    padding_changes_nothing,
    permuting_ways_permutes,
    predicted,
    queries_do_not_see_each_other,
    setting,
)

PRESETS = ["transfer", "baseline++"]
TASK = Points()


@dataclass(frozen=True)
class Pool(Points):
    """Always the same episodes, the next ones at each call."""

    pool: object = None

    def episodes(self, split, n, generator):
        return part_of(self.pool, slice(n))


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("plan", [LOOP, VMAP], ids=str)
def test_the_training_is_that_of_an_ordinary_classifier(name, plan):
    """A meta-batch is a minibatch of examples, each of one of all classes."""
    iterations, tasks = 4, 3
    pool = drawn(TASK, iterations * tasks)
    learner = learner_on(Pool(pool=pool), preset(name))
    begun = begin(learner, 0)
    training = Training(iterations=iterations, tasks=tasks, validation=1)
    trainer = Trainer([learner], Pool(pool=pool), training, seeds=[0], plan=plan, device=CPU)
    trainer.run()
    meta = trainer.results()[0].meta
    ours = {**meta["params"], **meta["learned"]}
    begun = {**begun["params"], **begun["learned"]}
    leaves = {n: value.clone().requires_grad_() for n, value in begun.items()}
    optimiser = torch.optim.Adam(leaves.values(), lr=1e-3)
    module = embedding()
    for row in range(iterations):
        batch = part_of(pool, slice(row * tasks, (row + 1) * tasks))
        x = torch.cat([batch.support.inputs, batch.query.inputs], 1).flatten(0, 1)
        y = torch.cat(
            [side.classes.gather(1, side.targets) for side in (batch.support, batch.query)], 1
        ).flatten()
        own = {n: value for n, value in leaves.items() if not n.startswith("all:")}
        features = functional_call(module, own, (x,))
        if name == "transfer":
            logits = features @ leaves["all:weight"] + leaves["all:bias"]
        else:
            likeness = F.cosine_similarity(features[:, None], leaves["all:weight"].T[None], -1)
            logits = leaves["all:scale"] * likeness
        optimiser.zero_grad()
        F.cross_entropy(logits, y).backward()
        optimiser.step()
    for key, value in leaves.items():
        torch.testing.assert_close(ours[key], value.detach(), rtol=1e-7, atol=1e-9, msg=key)


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_fine_tuning_is_that_of_torch(kind):
    steps, rate, decay = 7, 0.3, 1e-2
    task = Points(ways=4, shots=3)
    support, query = part_of(drawn(task), 0)
    head = Finetuned(kind, steps, rate, decay)
    plain = Embedded(setting(task).network, head, task.loss, 4)
    found = predicted(plain, begin(plain, 0), support, query.inputs)
    with torch.no_grad():
        features, new = (embedding()(side.inputs) for side in (support, query))
    if kind == "linear":
        features, new = (
            torch.cat([each / FEATURES**0.5, torch.ones_like(each[:, :1])], 1)
            for each in (features, new)
        )
        weight = torch.zeros(4, FEATURES + 1, dtype=torch.float64)
    else:
        unit = F.normalize(features)
        weight = torch.stack([unit[support.targets == k].sum(0) for k in range(4)])
    weight = torch.nn.Parameter(weight)

    def logits(x):
        return (
            F.linear(x, weight) if kind == "linear" else 10 * F.normalize(x) @ F.normalize(weight).T
        )

    optimiser = torch.optim.SGD([weight], lr=rate, weight_decay=decay)
    for _ in range(steps):
        optimiser.zero_grad()
        F.cross_entropy(logits(features), support.targets).backward()
        optimiser.step()
    torch.testing.assert_close(found, logits(new).detach(), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("head", ["mean", "ridge", "linear", "cosine"])
@pytest.mark.parametrize("normalise", [True, False])
def test_without_training_it_is_its_head_on_the_untrained_network(head, normalise):
    rule = preset("transfer", head=head, normalise=normalise)
    learner = learner_on(TASK, rule)
    support, query = part_of(drawn(TASK), 0)
    own = _head(head, normalise, 100, 1.0)
    plain = Embedded(learner.network, own, TASK.loss, 3)
    torch.testing.assert_close(
        predicted(learner, begin(learner, 0), support, query.inputs),
        predicted(plain, begin(plain, 0), support, query.inputs),
    )


@pytest.mark.parametrize("name", PRESETS)
def test_new_tasks_know_nothing_of_the_classifier_of_all_classes(name):
    learner = learner_on(TASK, preset(name))
    meta, other = begin(learner, 0), begin(learner, 0)
    assert meta["learned"].keys() > {"all:weight"}
    other["learned"] = {key: value * torch.nan for key, value in meta["learned"].items()}
    support, query = part_of(drawn(TASK, split="meta-test"), 0)
    foreign = support._replace(classes=support.classes + 10_000)  # of another split
    assert torch.equal(
        predicted(learner, other, foreign, query.inputs),
        predicted(learner, meta, support, query.inputs),
    )


@pytest.mark.parametrize("name", PRESETS)
def test_laws(name):
    learner = learner_on(TASK, preset(name))
    meta, (support, query) = begin(learner, 0), part_of(drawn(TASK), 0)
    for law in (order_changes_nothing, padding_changes_nothing, permuting_ways_permutes):
        law(learner, meta, support, query.inputs)
    queries_do_not_see_each_other(learner, meta, support, query.inputs)
    grads = mapped_equals_looped(learner, drawn(TASK))
    assert all(value.abs().max() > 0 for value in grads.values()), "all is trained"
    packed_equals_single(TASK, preset(name))


@pytest.mark.parametrize("name", PRESETS)
def test_extremes(name):
    extremes(preset(name))


def test_padding_has_no_part_in_the_training():
    task = Glyphs(ways=3, shots=3, queries=3, drawings=6, sampling="unequal").load(None)
    episodes = task.episodes("meta-train", 4, torch.Generator().manual_seed(1))
    row = int((~episodes.support.inputs.mask).sum(1).argmax())
    support, query = part_of(episodes, row)
    real = support.inputs.mask
    assert not real.all()
    module = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(784, 4), torch.nn.BatchNorm1d(4)
    )
    made = setting(TASK, embedding())
    learner = make_learner(
        preset("transfer"), replace(made, network=type(made.network)(module), task=task)
    )
    cut = support._replace(inputs=support.inputs.values[real], targets=support.targets[real])
    meta = begin(learner, 0)
    one, other = (learner.meta_loss(meta, side, query) for side in (support, cut))
    torch.testing.assert_close(one.loss, other.loss)


def test_classes_are_numbered_within_meta_train():
    task = Glyphs(ways=3, queries=2, drawings=4, classes_per_split=(5, 4, 4)).load(None)
    for split in ("meta-train", "meta-validation", "meta-test"):
        found = task.episodes(split, 60, torch.Generator().manual_seed(0)).support.classes
        assert set(found.flatten().tolist()) == set(range(task.available(split)))


@dataclass(frozen=True)
class Nameless(Points):
    """Does not say which classes its episodes are of."""

    def episodes(self, split, n, generator):
        sides = super().episodes(split, n, generator)
        return EpisodeBatch(*(Batch(side.inputs, side.targets) for side in sides))


class Uncounted:
    """Does not say how many classes there are."""

    ways, loss, episodes = 3, TASK.loss, TASK.episodes


@dataclass(frozen=True)
class Beyond(Points):
    """Numbers classes of the data, not of meta-train."""

    def episodes(self, split, n, generator):
        sides = super().episodes(split, n, generator)
        return EpisodeBatch(*(side._replace(classes=side.classes + 9) for side in sides))


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (Nameless(), "must be a `ClassBatch`.*got Batch"),
        (Uncounted(), "a method `available"),
        (Beyond(), "from 0 to 69"),
        (Sinusoid(), "need a task of classes"),
    ],
)
def test_a_task_that_lacks_something_is_refused(task, message):
    made = replace(setting(TASK), task=task)
    with pytest.raises(ValueError, match=message):
        make_learner(preset("transfer"), made)


@pytest.mark.parametrize(
    "genes",
    [{"head": "svm"}, {"classifier": "tree"}, {"steps": -1}, {"rate": 0.0}, {"normalise": 2}],
)
def test_genes_that_have_no_such_value_are_refused(genes):
    with pytest.raises(ValueError, match="must"):
        learner_on(TASK, preset("transfer", **genes))

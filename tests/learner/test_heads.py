"""Laws of all heads on an embedding: order, padding, plans, packs, extremes, bad input."""

import pytest
import torch

from evometa import Training
from evometa.evaluate import LOOP, VMAP, Trainer, begin
from evometa.learner import predictor, preset
from evometa.network import Network
from evometa.records import Status
from evometa.task import Sinusoid
from evometa.task.episodes import part_of
from evometa.task.protocol import IGNORED, Batch, EpisodeBatch
from tests.evaluate.test_contract import evaluated, flat_net, glyphs
from tests.evaluate.test_presets import Points, embedding
from tests.learner.laws import CPU, assert_same, grads_of, learner_of, shapes, waves
from tests.learner.laws import Waves as Values
from tests.learner.worlds import Navigate

HEADS = {
    "protonet": ("protonet", {}),
    "cosine": ("protonet", {"distance": "cosine", "scale": "fixed"}),
    "mahalanobis": ("protonet", {"distance": "mahalanobis", "scale": "learned"}),
    "median": ("protonet", {"pooling": "median"}),
    "attention": ("protonet", {"pooling": "attention"}),
    "feat": ("protonet", {"set_step": "attention"}),
    "matching": ("matching", {}),
    "matching cosine": ("matching", {"distance": "cosine", "scale": "learned"}),
    "matching set": ("matching", {"context": "set"}),
    "matching-fce": ("matching-fce", {}),
    "relation": ("relation", {"width": 5}),
    "relation task": ("relation", {"width": 5, "target": "task"}),
    "relation maps": ("relation", {"width": 3}),
    "siamese": ("siamese", {}),
    "contrastive": ("siamese", {"pairs": "contrastive", "pooling": "mean"}),
    "triplet": ("siamese", {"pairs": "triplet", "pooling": "logsumexp"}),
    "siamese euclidean": ("siamese", {"distance": "euclidean", "pairs": "contrastive"}),
    "gaussian": ("gaussian", {}),
    "gaussian map": ("gaussian", {"density": "map"}),
    "gaussian set": ("gaussian", {"set_step": "attention"}),
    "ridge": ("ridge", {}),
    "logistic": ("logistic", {}),
    "bayesian": ("bayesian", {}),
    "bayesian rbf": ("bayesian", {"kernel": "rbf", "target": "likelihood"}),
}
VALUES = ("ridge", "bayesian", "bayesian rbf")
CLASSES_ONLY = [name for name in HEADS if name not in VALUES]
OUTPUTS = torch.zeros(6, 4)
MAPS = ("relation maps",)


def learner(name, ways=3):
    base, changes = HEADS[name]
    genome = preset(base, ways=None, **changes)
    module, outputs = embedding(), OUTPUTS
    if name in MAPS:
        module.append(torch.nn.Unflatten(1, (1, 2, 2)))
        outputs = OUTPUTS.view(-1, 1, 2, 2)
    return learner_of(genome, Network(module), Points(None, ways), outputs=outputs)


def predicted(learner, meta, support, inputs):
    return learner.predict(learner.adapt(meta, support), inputs)


def a_meta(learner):
    """Return parameters that are none of the initial zeros and ones."""
    meta = begin(learner, 0)
    generator = torch.Generator().manual_seed(1)
    for part in ("params", "learned"):
        for name, value in meta[part].items():
            noise = torch.randn(value.shape, generator=generator, dtype=torch.float64)
            meta[part][name] = value + 0.1 * noise
    return meta


@pytest.mark.parametrize("name", HEADS)
def test_mapped_equals_looped(name):
    loop_loss, loop = grads_of(learner(name), shapes(), LOOP)
    vmap_loss, mapped = grads_of(learner(name), shapes(), VMAP)
    assert loop_loss == pytest.approx(vmap_loss, rel=1e-10)
    assert_same(mapped, loop, rtol=1e-7, atol=1e-10)
    moved = {key for key, value in loop.items() if value.abs().max() > 0}
    assert {"params.0.weight", "params.2.weight"} <= moved


@pytest.mark.parametrize("name", HEADS)
def test_packed_equals_single(name):
    pool = shapes(12)

    def trained(seeds):
        training = Training(iterations=3, tasks=4, validation=1)
        learners = [learner(name) for _ in seeds]
        options = {"seeds": seeds, "plan": VMAP, "device": CPU}
        trainer = Trainer(learners, Points(pool), training, **options)
        trainer.run()
        return [each.meta for each in trainer.results()]

    pack = trained([0, 1])
    for seed, meta in enumerate(pack):
        (alone,) = trained([seed])
        for part in ("params", "learned"):
            assert_same(meta[part], alone[part], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", HEADS)
def test_the_order_of_the_support_does_not_matter_and_queries_stand_alone(name):
    own = learner(name)
    meta, (support, query) = a_meta(own), part_of(shapes(1), 0)
    found = predicted(own, meta, support, query.inputs)
    order = torch.randperm(len(support.targets), generator=torch.Generator().manual_seed(0))
    other = predicted(own, meta, Batch(*(leaf[order] for leaf in support)), query.inputs)
    torch.testing.assert_close(found, other, rtol=1e-8, atol=1e-10)
    single = [predicted(own, meta, support, each[None]) for each in query.inputs]
    torch.testing.assert_close(torch.cat(single), found)
    turned = torch.tensor([2, 0, 1])
    relabelled = support._replace(targets=turned[support.targets])
    torch.testing.assert_close(predicted(own, meta, relabelled, query.inputs)[:, turned], found)


@pytest.mark.parametrize("name", HEADS)
def test_padding_changes_nothing(name):
    own = learner(name)
    meta, (support, query) = a_meta(own), part_of(shapes(1), 0)
    odd = torch.full((3, 3), 7.0, dtype=torch.float64)
    ignored = torch.full((3,), IGNORED)

    def padded(side):
        return Batch(torch.cat([side.inputs, odd]), torch.cat([side.targets, ignored]))

    def loss(side, asked):
        leaves = {key: value.clone().requires_grad_() for key, value in meta["params"].items()}
        found = own.meta_loss({**meta, "params": leaves}, side, asked)
        grads = torch.autograd.grad(found.objective, list(leaves.values()), allow_unused=True)
        return found, [grad for grad in grads if grad is not None]

    class Skipping(Points):
        def loss(self, predict, side):
            outputs = predict(side.inputs)
            return torch.nn.functional.cross_entropy(outputs, side.targets, ignore_index=IGNORED)

    own = type(own)(**{**vars(own), "loss": Skipping(None).loss})
    (one, grads), (other, others) = loss(support, query), loss(padded(support), padded(query))
    torch.testing.assert_close(one, other)
    for mine, theirs in zip(grads, others, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-7, atol=1e-10)


def equal(episodes):
    support = episodes.support
    return episodes._replace(
        support=support._replace(inputs=support.inputs[:, :1].expand_as(support.inputs))
    )


def all_equal(episodes):
    same = episodes.support.inputs[:, :1]
    return EpisodeBatch(*(side._replace(inputs=same.expand_as(side.inputs)) for side in episodes))


def without_the_last(episodes):
    support = episodes.support
    return episodes._replace(support=support._replace(targets=support.targets.clamp(max=1)))


EXTREMES = {
    "equal examples": (3, lambda: equal(shapes())),
    "equal to the queries": (3, lambda: all_equal(shapes())),
    "one shot": (3, lambda: shapes(shots=1)),
    "60 ways": (60, lambda: shapes(tasks=1, ways=60, shots=1)),
    "far apart": (3, lambda: EpisodeBatch(*(s._replace(inputs=1e4 * s.inputs) for s in shapes()))),
    "an absent class": (3, lambda: without_the_last(shapes())),
}


@pytest.mark.parametrize("extreme", EXTREMES)
@pytest.mark.parametrize("name", HEADS)
def test_derivatives_are_finite(name, extreme):
    ways, episodes = EXTREMES[extreme]
    own = learner(name, ways)
    _, grads = grads_of(own, episodes(), VMAP)
    assert all(bool(value.isfinite().all()) for value in grads.values())
    support, query = part_of(episodes(), 0)
    found = predicted(own, begin(own, 0), support, query.inputs)
    assert found.isfinite().all()
    if extreme == "an absent class":
        assert 2 not in found.argmax(1)


@pytest.mark.parametrize("name", CLASSES_ONLY)
def test_a_task_without_classes_is_refused(name):
    base, changes = HEADS[name]
    for task in (Values(None), Sinusoid(), Navigate()):
        with pytest.raises(ValueError, match="need a task of classes, with a field `ways`"):
            learner_of(preset(base, **changes), Network(embedding()), task, outputs=OUTPUTS)


@pytest.mark.parametrize("name", VALUES)
def test_a_policy_has_nothing_to_fit(name):
    base, changes = HEADS[name]
    own = learner_of(preset(base, **changes), Network(embedding()), Navigate(), outputs=OUTPUTS)
    with pytest.raises(ValueError, match="labelled examples.*got dict"):
        own.adapt(begin(own, 0), {"goal": torch.zeros(2, 2)})


@pytest.mark.parametrize("name", VALUES)
def test_values_are_learned_by_loop_and_by_vmap(name):
    base, changes = HEADS[name]
    torch.manual_seed(0)
    network = Network(torch.nn.Sequential(torch.nn.Linear(1, 6), torch.nn.Tanh()).double())
    own = learner_of(preset(base, **changes), network, Values(None))
    _, loop = grads_of(own, waves(), LOOP)
    _, mapped = grads_of(own, waves(), VMAP)
    assert_same(mapped, loop, rtol=1e-7, atol=1e-10)
    assert all(bool(value.isfinite().all()) for value in loop.values())


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("protonet", {"distance": "manhattan"}, "`distance` must be one of"),
        ("protonet", {"pooling": "max"}, "`pooling` must be one of"),
        ("matching", {"context": "lstm"}, "`context` must be one of"),
        ("matching", {"steps": 0}, "`steps >= 1` must hold"),
        ("matching", {"ways": 1}, "`ways` must be a number from 2"),
        ("matching", {"ways": [5, 2]}, "`ways` must be a number from 2"),
        ("relation", {"width": 0}, "`width >= 1` must hold"),
        ("siamese", {"pairs": "hinge"}, "`pairs` must be one of"),
        ("gaussian", {"density": "laplace"}, "`density` must be one of"),
        ("logistic", {"penalty": 0.0}, "`penalty` must be above 0"),
        ("bayesian", {"noise": -1.0}, "`noise` must be above 0"),
    ],
)
def test_genes_that_have_no_such_value_are_refused(name, changes, reason):
    with pytest.raises(ValueError, match=reason):
        learner_of(preset(name, **changes), Network(embedding()), Points(None), outputs=OUTPUTS)


def test_own_weights_need_to_know_the_features():
    for name in ("relation", "siamese", "matching-fce"):
        with pytest.raises(ValueError, match="`outputs` of the setting must be known"):
            learner_of(preset(name), Network(embedding()), Points(None))
        with pytest.raises(ValueError, match="returns one tensor"):
            outputs = (OUTPUTS, OUTPUTS)
            learner_of(preset(name), Network(embedding()), Points(None), outputs=outputs)


@pytest.mark.parametrize("name", ["matching-fce", "relation", "siamese", "gaussian", "logistic"])
def test_ways_and_shots_vary_from_one_meta_batch_to_the_next(name):
    task = glyphs(ways=(2, 4), shots=(1, 3))
    rule = preset(name, ways=[2, 5])
    result = evaluated(task, flat_net(6), rule, "vmap", {"iterations": 5, "validation": 8})
    assert result.status is Status.OK, result.error


def test_a_walk_through_an_episode_needs_no_more_than_predict():
    own = learner("matching-fce")
    meta, (support, query) = begin(own, 0), part_of(shapes(1), 0)
    adapted = own.adapt(meta, support)
    found = predictor(own, adapted)(query.inputs)
    torch.testing.assert_close(found, own.predict(adapted, query.inputs))

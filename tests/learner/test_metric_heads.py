"""Metric heads against plain loops of the published algorithms, one query and class at a time."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from evometa.evaluate import begin
from evometa.learner import preset
from evometa.learner.order import shuffled
from evometa.network import Network
from evometa.task.episodes import part_of
from evometa.task.protocol import Batch
from tests.evaluate.test_presets import Points, embedding
from tests.learner.laws import learner_of, shapes
from tests.learner.test_heads import OUTPUTS, a_meta

WAYS = 3


def episode():
    return part_of(shapes(1, ways=WAYS, shots=3), 0)


def learned(name, **changes):
    own = learner_of(
        preset(name, ways=None, **changes), Network(embedding()), Points(None), outputs=OUTPUTS
    )
    meta, (support, query) = a_meta(own), episode()
    found = own.predict(own.adapt(meta, support), query.inputs)
    support = shuffled(support) if name == "matching-fce" else support  # as it is read
    embedded = [
        functional_call(embedding(), {k: meta["params"][k] for k in own.network.params}, (x,))
        for x in (support.inputs, query.inputs)
    ]
    numbers = {k.removeprefix("head:"): v for k, v in meta["params"].items() if "head:" in k}
    numbers |= {**meta["learned"], **meta["constants"]}
    return found, embedded, support.targets, numbers, own.meta_loss(meta, support, query)


def likeness(distance, one, other):
    if distance == "cosine":
        return F.cosine_similarity(one, other, dim=0)
    return -((one - other) ** 2).sum()


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_matching_is_a_mixture_of_labels_by_attention(distance):
    found, (keys, queries), labels, own, _ = learned("matching", distance=distance)
    for row, query in enumerate(queries):
        scores = torch.stack([own["scale"] * likeness(distance, query, key) for key in keys])
        weights = scores.softmax(0)
        for k in range(WAYS):
            torch.testing.assert_close(found[row, k], weights[labels == k].sum().log())


def test_the_full_conditional_embedding_is_the_published_one():
    found, (support, queries), labels, own, _ = learned("matching-fce", steps=4)
    both = nn.LSTM(4, 4, bidirectional=True).double()
    with torch.no_grad():
        for name, end in (("forward", ""), ("backward", "_reverse")):
            getattr(both, f"weight_ih_l0{end}").copy_(own[f"{name}.inputs"].T)
            getattr(both, f"weight_hh_l0{end}").copy_(own[f"{name}.memory"].T)
            getattr(both, f"bias_ih_l0{end}").copy_(own[f"{name}.bias"])
            getattr(both, f"bias_hh_l0{end}").zero_()
        walked, _ = both(support)
    keys = walked[:, :4] + walked[:, 4:] + support
    for row, query in enumerate(queries):
        h, c = torch.zeros(4).double(), torch.zeros(4).double()
        for _ in range(4):
            read = sum(w * key for w, key in zip((keys @ h).softmax(0), keys, strict=True))
            gates = query @ own["query.inputs"] + own["query.bias"]
            gates = gates + torch.cat([h, read]) @ own["query.memory"]
            i, f, g, o = gates.chunk(4)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh() + query
        scores = torch.stack([own["scale"] * likeness("euclidean", h, key) for key in keys])
        for k in range(WAYS):
            wanted = scores.softmax(0)[labels == k].sum().log()
            torch.testing.assert_close(found[row, k], wanted)


def seen_by_all(own, rows):
    """One head of PyTorch's own attention, with what goes around it."""
    attention = nn.MultiheadAttention(4, 1, bias=False).double()
    with torch.no_grad():
        maps = [own[f"set.{name}"].T for name in ("query", "key", "value")]
        attention.in_proj_weight.copy_(torch.cat(maps))
        attention.out_proj.weight.copy_(own["set.out"].T)
        moved = rows + attention(rows, rows, rows)[0]
    return F.layer_norm(moved, (4,), own["set.weight"], own["set.bias"])


def test_the_set_step_is_attention_with_a_residual_and_a_norm():
    found, (support, queries), labels, own, _ = learned("protonet", set_step="attention")
    means = torch.stack([support[labels == k].mean(0) for k in range(WAYS)])
    torch.testing.assert_close(found, -(torch.cdist(queries, seen_by_all(own, means)) ** 2))
    found, (support, queries), labels, own, _ = learned("matching", context="set")
    scores = -(torch.cdist(queries, seen_by_all(own, support)) ** 2)
    wanted = scores.softmax(1) @ F.one_hot(labels).double()
    torch.testing.assert_close(found.exp(), wanted)


def test_mahalanobis_is_that_of_simple_cnaps():
    found, (support, queries), labels, own, _ = learned("protonet", distance="mahalanobis")
    rows = support.detach().numpy()
    for k in range(WAYS):
        mine = rows[labels == k]
        share = len(mine) / (len(mine) + 1)
        covariance = share * np.cov(mine.T) + (1 - share) * np.cov(rows.T) + np.eye(4)
        for row, query in enumerate(queries.detach().numpy()):
            apart = query - mine.mean(0)
            wanted = -apart @ np.linalg.solve(covariance, apart) / 2
            assert found[row, k].item() == pytest.approx(float(own["scale"]) * wanted)


def test_medians_and_attended_means():
    found, (support, queries), labels, own, _ = learned("protonet", pooling="median")
    rows = support.detach().numpy()
    medians = np.stack([np.median(rows[labels == k], axis=0) for k in range(WAYS)])
    torch.testing.assert_close(found, -(torch.cdist(queries, torch.tensor(medians)) ** 2))
    found, (support, queries), labels, own, _ = learned("protonet", pooling="attention")
    for k in range(WAYS):
        mine = support[labels == k]
        typical = F.cosine_similarity(mine, mine.mean(0, keepdim=True))
        centre = (own["sharpness"] * typical).softmax(0) @ mine
        torch.testing.assert_close(found[:, k], -((queries - centre) ** 2).sum(1))


@pytest.mark.parametrize("density", ["student", "map"])
def test_gaussian_heads_have_the_densities_of_scipy(density):
    found, (support, queries), labels, own, _ = learned("gaussian", density=density)
    weight, shape, rate = (own[f"log_{name}"].exp().item() for name in ("weight", "shape", "rate"))
    rows, queries = support.detach().numpy(), queries.detach().numpy()
    for k in range(WAYS):
        mine = rows[labels == k]
        n, mean = len(mine), mine.mean(0)
        after = rate + ((mine - mean) ** 2).sum(0) / 2 + n * weight * mean**2 / (n + weight) / 2
        place, worth, alpha = n * mean / (n + weight), n + weight, shape + n / 2
        if density == "student":
            width = np.sqrt(after * (worth + 1) / (alpha * worth))
            wanted = scipy.stats.t.logpdf(queries, 2 * alpha, place, width)
        else:
            wanted = scipy.stats.norm.logpdf(queries, place, np.sqrt(after / (alpha - 0.5)))
        np.testing.assert_allclose(found[:, k].detach(), wanted.sum(1), rtol=1e-10)


def test_relation_of_vectors_is_a_network_on_joined_ones():
    found, (support, queries), labels, own, told = learned("relation", width=5)
    joined = torch.cat([own["class"], own["query"]], 1)
    scores = torch.zeros(len(queries), WAYS).double()
    for row, query in enumerate(queries):
        for k in range(WAYS):
            pair = torch.cat([support[labels == k].sum(0), query])
            inner = (joined @ pair + own["first.bias"]).relu()
            inner = (inner @ own["hidden"] + own["hidden.bias"]).relu()
            scores[row, k] = inner @ own["out"] + own["out.bias"]
    torch.testing.assert_close(found, scores)
    one_hot = F.one_hot(episode().query.targets).double()
    torch.testing.assert_close(told.objective, F.mse_loss(scores.sigmoid(), one_hot))
    torch.testing.assert_close(told.loss, F.cross_entropy(scores, episode().query.targets))


def test_relation_of_maps_is_a_convolution_of_joined_ones():
    torch.manual_seed(0)
    module = nn.Conv2d(1, 3, 3, padding=1).double()
    rule = preset("relation", ways=None, width=6)
    outputs = torch.zeros(4, 3, 5, 7)
    own = learner_of(rule, Network(module), Points(None, 2), outputs=outputs)
    meta = a_meta(own)
    x, y = torch.randn(4, 1, 5, 7).double(), torch.tensor([0, 1, 1, 0])
    queries = torch.randn(3, 1, 5, 7).double()
    found = own.predict(own.adapt(meta, Batch(x, y)), queries)
    w = {k.removeprefix("head:"): v for k, v in meta["params"].items()}
    maps, queries = (
        functional_call(module, {key: w[key] for key in ("weight", "bias")}, (inputs,))
        for inputs in (x, queries)
    )
    joined = torch.cat([w["class"], w["query"]], 1)

    def block(inputs, kernel, name):
        maps = F.conv2d(inputs, kernel, padding=1)
        scale, shift = w[f"{name}.weight"].flatten(), w[f"{name}.bias"].flatten()
        mean, variance = statistics.setdefault(
            name, (maps.mean((0, 2, 3)), maps.var((0, 2, 3), correction=0))
        )
        normed = F.batch_norm(maps, mean, variance, scale, shift)
        return F.max_pool2d(normed.relu(), 2, ceil_mode=True)

    def pairs(asked):
        sums = [maps[y == k].sum(0) for k in range(2)]
        return torch.stack([torch.cat([each, one]) for one in asked for each in sums])

    statistics = {}  # of the pairs that are seen first: those of the support set
    for asked in (maps, queries):
        inner = block(block(pairs(asked), joined, "first"), w["second"], "second").flatten(1)
    inner = (inner @ w["hidden"] + w["hidden.bias"]).relu()
    torch.testing.assert_close(found.flatten(), inner @ w["out"] + w["out.bias"])
    with pytest.raises(ValueError, match="need features of shape"):
        learner_of(rule, Network(module), Points(None, 2), outputs=outputs[..., 0])


PAIRS = {"binary": "max", "contrastive": "mean", "triplet": "logsumexp"}


@pytest.mark.parametrize("distance", ["weighted", "euclidean"])
@pytest.mark.parametrize("pairs", PAIRS)
def test_siamese_networks_judge_each_pair(distance, pairs):
    pooling = PAIRS[pairs]
    found, (support, queries), labels, own, told = learned(
        "siamese", distance=distance, pairs=pairs, pooling=pooling
    )
    targets, weights = episode().query.targets, own["log_weights"].exp()

    def apart(one, other):
        if distance == "weighted":
            return (weights * (one - other).abs()).sum()
        return weights * ((one - other) ** 2).sum()

    same, other, triplets = [], [], []
    for row, query in enumerate(queries):
        distances = [apart(query, each) for each in support]
        for k in range(WAYS):
            mine = torch.stack([own["bias"] - distances[i] for i in range(9) if labels[i] == k])
            pool = {"max": mine.max(), "mean": mine.mean(), "logsumexp": mine.exp().sum().log()}
            torch.testing.assert_close(found[row, k], pool[pooling])
        near = [d for d, label in zip(distances, labels, strict=True) if label == targets[row]]
        far = [d for d, label in zip(distances, labels, strict=True) if label != targets[row]]
        same, other = same + near, other + far
        triplets += [(own["margin"] + one - two).relu() for one in near for two in far]
    same, other = torch.stack(same), torch.stack(other)
    if pairs == "binary":
        wanted = -F.logsigmoid(own["bias"] - same).mean() - F.logsigmoid(other - own["bias"]).mean()
        wanted = wanted / 2
    elif pairs == "triplet":
        wanted = torch.stack(triplets).mean()
    else:
        margin = own["margin"]
        if distance == "euclidean":
            same, other, margin = same.sqrt(), other.sqrt(), margin.sqrt()
        wanted = ((same**2).mean() + ((margin - other).relu() ** 2).mean()) / 2
    torch.testing.assert_close(told.objective, wanted)
    assert not math.isclose(told.objective, told.loss)


@pytest.mark.parametrize("pairs", PAIRS)
def test_one_shot_of_euclidean_siamese_networks_is_the_nearest_neighbour(pairs):
    rule = preset("siamese", ways=None, distance="euclidean", pairs=pairs)
    own = learner_of(rule, Network(embedding()), Points(None, 20), outputs=OUTPUTS)
    support, query = part_of(shapes(1, ways=20, shots=1, queries=6), 0)
    meta = begin(own, 0)
    found = own.predict(own.adapt(meta, support), query.inputs).argmax(1)
    keys, queries = (
        functional_call(embedding(), meta_of(meta), (x.inputs,)) for x in (support, query)
    )
    assert torch.equal(found, torch.cdist(queries, keys).argmin(1))


def meta_of(meta):
    return {key: value for key, value in meta["params"].items() if not key.startswith("head:")}

"""Modules of all kinds, held against plain PyTorch: they work as there, or are refused."""

import copy
import threading

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, vmap
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm
from torch.utils.checkpoint import checkpoint

from evometa.network import Network, check_faithful

pytestmark = [
    pytest.mark.filterwarnings("ignore:There is a performance drop"),
    pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad"),
    pytest.mark.filterwarnings("ignore:.*torch.nn.utils.weight_norm"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.script"),
]


class Recurrent(nn.Module):
    """Any recurrent layer, and a head on its last output."""

    def __init__(self, kind, change=None, **settings):
        super().__init__()
        self.cell = kind(1, 4, **settings)
        self.first = settings.get("batch_first", False)
        if change is not None:
            change(self.cell)
        width = settings.get("proj_size", 0) or 4
        self.head = nn.Linear(width * (2 if settings.get("bidirectional") else 1), 2)

    def forward(self, inputs):
        steps = inputs.unsqueeze(-1)
        if self.first:
            return self.head(self.cell(steps)[0][:, -1])
        return self.head(self.cell(steps.transpose(0, 1))[0][-1])


class Checkpointed(nn.Module):
    """A network that computes a part again in the backward pass."""

    def __init__(self, reentrant):
        super().__init__()
        self.stem = nn.Linear(3, 3)
        self.a, self.b = nn.Sequential(nn.Linear(3, 4), nn.Tanh()), nn.Linear(4, 2)
        self.reentrant = reentrant

    def forward(self, inputs):
        hidden = checkpoint(self.a, self.stem(inputs), use_reentrant=self.reentrant)
        return self.b(hidden)


class Tied(nn.Module):
    """A network that uses a matrix twice."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2)
        self.b.weight = self.a.weight

    def forward(self, inputs):
        return self.c(self.b(self.a(inputs).tanh()))


class Features(nn.Module):
    """A network that keeps features on itself, by hand and by a hook."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.seen, self.last = nn.Linear(3, 4), nn.Linear(4, 2), [], None
        self.a.register_forward_hook(self.keep)

    def keep(self, module, inputs, outputs):
        del module, inputs
        self.last = outputs

    def forward(self, inputs):
        hidden = self.a(inputs).tanh()
        self.seen.append(hidden)
        return self.b(hidden + self.last)


class Buffered(nn.Module):
    """A network with a constant buffer and a frozen layer."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)
        self.a.requires_grad_(False)
        self.register_buffer("shift", torch.randn(4))

    def forward(self, inputs):
        return self.b(self.a(inputs) + self.shift)


def chain(layer):
    return nn.Sequential(layer, nn.Tanh(), nn.Linear(4, 2))


WORKING = {
    "lstm": lambda: Recurrent(nn.LSTM),
    "gru": lambda: Recurrent(nn.GRU, batch_first=True),
    "rnn": lambda: Recurrent(nn.RNN, nonlinearity="relu"),
    "deep lstm": lambda: Recurrent(nn.LSTM, num_layers=2, bidirectional=True, batch_first=True),
    "lstm without bias": lambda: Recurrent(nn.LSTM, bias=False),
    "projected lstm": lambda: Recurrent(nn.LSTM, proj_size=2, num_layers=2),
    "normed lstm": lambda: Recurrent(nn.LSTM, lambda c: weight_norm(c, "weight_hh_l0")),
    "parametrized lstm": lambda: Recurrent(
        nn.GRU, lambda c: parametrizations.weight_norm(c, "weight_hh_l0")
    ),
    "pruned gru": lambda: Recurrent(
        nn.GRU, lambda c: prune.l1_unstructured(c, "weight_hh_l0", amount=0.5)
    ),
    "weight norm": lambda: chain(weight_norm(nn.Linear(3, 4))),
    "weight parametrization": lambda: chain(parametrizations.weight_norm(nn.Linear(3, 4))),
    "pruned": lambda: chain(prune.l1_unstructured(nn.Linear(3, 4), "weight", amount=0.5)),
    "checkpoint": lambda: Checkpointed(False),
    "reentrant checkpoint": lambda: Checkpointed(True),
    "tied": Tied,
    "features": Features,
    "buffers": Buffered,
    "double": lambda: nn.Sequential(chain(nn.Linear(3, 4))).double(),
}


LOOPED = {name for name in WORKING if any(kind in name for kind in ("lstm", "gru", "rnn"))}
"""What PyTorch cannot map over weights: such candidates run in a loop."""


def inputs_for(module, count=5):
    generator = torch.Generator().manual_seed(1)
    dtype = next(module.parameters()).dtype
    return torch.randn(count, 3, generator=generator).to(dtype)


def trained_plainly(module, inputs, targets, rate, steps):
    module = module.train()
    own = [p for p in module.parameters() if p.requires_grad]
    optimiser = torch.optim.SGD(own, rate)
    for _ in range(steps):
        optimiser.zero_grad()
        (module(inputs) - targets).square().mean().backward()
        optimiser.step()
    return {k: v.detach() for k, v in module.named_parameters() if v.requires_grad}


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("kind", WORKING)
def test_a_network_trains_as_its_module_does(kind, plain):
    module = WORKING[kind]()
    inputs = inputs_for(module)
    targets = torch.ones(5, 2, dtype=inputs.dtype)
    check_faithful(module, inputs)
    network = Network(module, plain=plain)
    params = {name: value.requires_grad_() for name, value in network.params.items()}
    for _ in range(3):
        outputs, _ = network(params, network.buffers, inputs, norm="batch", training=True)
        loss = (outputs - targets).square().mean()
        grads = torch.autograd.grad(loss, list(params.values()))
        params = {
            name: (value - 0.1 * grad).detach().requires_grad_()
            for (name, value), grad in zip(params.items(), grads, strict=True)
        }
    expected = trained_plainly(module, inputs, targets, 0.1, 3)
    assert params.keys() == expected.keys()
    torch.testing.assert_close(params, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", WORKING)
def test_the_weights_given_are_the_weights_used(kind, training):
    module = WORKING[kind]()
    inputs = inputs_for(module)
    network = Network(module)
    weights = {name: value + 0.3 for name, value in network.params.items()}
    with torch.no_grad():
        # the same tensors again, others between: nothing of a call may stay for the next
        for params in (weights, network.params, network.params, weights, weights):
            found, _ = network(params, network.buffers, inputs, norm="batch", training=training)
            own = dict(module.named_parameters())
            before = {name: own[name].clone() for name in params}
            for name, value in params.items():
                own[name].copy_(value)
            torch.testing.assert_close(found, module.train(training)(inputs))
            for name, value in before.items():
                own[name].copy_(value)


@pytest.mark.parametrize("kind", [kind for kind in WORKING if kind not in LOOPED])
def test_mapped_networks_equal_the_loop(kind):
    module = WORKING[kind]()
    network = Network(module, plain=True)
    rows = torch.stack([inputs_for(module, count)[:4] for count in (4, 5, 6)])

    def outputs(params, inputs):
        return network(params, network.buffers, inputs, norm="batch", training=False)[0]

    stacked = {k: torch.stack([v, v + 0.1, v - 0.1]) for k, v in network.params.items()}
    found = vmap(outputs)(stacked, rows)
    expected = [outputs({k: v[i] for k, v in stacked.items()}, rows[i]) for i in range(3)]
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-4, atol=1e-5)


class Keeping(nn.Module):
    """A recurrent network that goes on where the last call ended."""

    def __init__(self):
        super().__init__()
        self.cell, self.head, self.state = nn.LSTM(1, 4, batch_first=True), nn.Linear(4, 2), None

    def forward(self, inputs):
        outputs, self.state = self.cell(inputs.unsqueeze(-1), self.state)
        return self.head(outputs[:, -1])


class Counting(nn.Module):
    """A network that does something else at each call."""

    def __init__(self, start=0):
        super().__init__()
        self.layer, self.calls = nn.Linear(3, 2), [start]

    def forward(self, inputs):
        self.calls[0] += 1
        return self.layer(inputs) * self.calls[0]


class Growing(nn.Module):
    """A network that makes a layer while it runs."""

    def __init__(self):
        super().__init__()
        self.layer, self.more = nn.Linear(3, 4), None

    def forward(self, inputs):
        if self.more is None:
            self.more = nn.Linear(4, 2)
        return self.more(self.layer(inputs))


class Closed(nn.Module):
    """A network that reaches its layer through a function that closes over it."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.function = lambda inputs: self.layer(inputs)

    def forward(self, inputs):
        return self.function(inputs)


class Rolling(nn.Module):
    """A network that counts its calls in a buffer."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, inputs):
        if self.training:
            self.calls += 1
        return self.layer(inputs)


class Drawing(nn.Module):
    """A network that draws from a generator of its own."""

    def __init__(self):
        super().__init__()
        self.layer, self.rng = nn.Linear(3, 2), np.random.default_rng(0)

    def forward(self, inputs):
        return self.layer(inputs) * float(self.rng.random())


class Listed(nn.Module):
    """A network whose layers PyTorch does not know."""

    def __init__(self):
        super().__init__()
        self.first, self.layers = nn.Linear(3, 3), [nn.Linear(3, 2)]

    def forward(self, inputs):
        return self.layers[0](self.first(inputs))


class Locked(nn.Linear):
    """A network that cannot be copied."""

    def __init__(self):
        super().__init__(3, 2)
        self.lock = threading.Lock()


class Refusing(nn.Linear):
    """A network that does not let itself be copied."""

    def __deepcopy__(self, memo):
        raise RuntimeError("one of its kind")


class Complex(nn.Module):
    """A network with a complex parameter."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.turn = nn.Parameter(torch.ones(2, dtype=torch.complex64))

    def forward(self, inputs):
        return (self.layer(inputs) * self.turn).real


class Mixed(nn.Module):
    """A network with a layer of another precision."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 2).double()

    def forward(self, inputs):
        return self.b(self.a(inputs).double()).float()


REFUSED = {
    "kept state": (Keeping, "depends on what it saw before .*state"),
    "counter": (Counting, "depends on what it saw before"),
    "new layer": (Growing, "makes the parameter more"),
    "closure": (Closed, "by another reference"),
    "buffer": (Rolling, "changes its buffer calls"),
    "generator": (Drawing, "random generator"),
    "plain list": (Listed, r"layers\[0\].weight is not registered"),
    "lock": (Locked, "cannot be copied"),
    "no copy": (lambda: Refusing(3, 2), "cannot be copied: .*one of its kind"),
    "scripted": (lambda: torch.jit.script(chain(nn.Linear(3, 4))), "leave out torch.jit.script"),
    "lazy": (lambda: nn.Sequential(nn.LazyLinear(2)), "0.weight, 0.bias has no shape"),
    "complex": (Complex, "turn is torch.complex64, and real numbers"),
    "mixed": (Mixed, "one type, got float32 and float64; b.weight"),
    "spectral norm": (
        lambda: chain(spectral_norm(nn.Linear(3, 4))),
        "is called again.*0.weight|changes its buffer",
    ),
    "spectral parametrization": (
        lambda: chain(parametrizations.spectral_norm(nn.Linear(3, 4))),
        "changes its buffer|is called again",
    ),
    "instance norm": (
        lambda: nn.Sequential(
            nn.Unflatten(1, (1, 3)),
            nn.InstanceNorm1d(1, track_running_stats=True),
            nn.Flatten(),
            nn.Linear(3, 2),
        ),
        "changes its buffer",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_work_is_refused_with_a_sentence(kind):
    build, said = REFUSED[kind]
    module = build()
    with pytest.raises(ValueError, match=said) as refusal:
        check_faithful(module, torch.randn(5, 3, generator=torch.Generator().manual_seed(1)))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("build", [Features, Keeping, lambda: chain(nn.Linear(3, 4))])
def test_holding_a_network_against_its_module_leaves_the_module_as_it_was(build):
    module = build()
    before, state = copy.deepcopy(module.state_dict()), torch.get_rng_state()
    modes = [part.training for part in module.eval().modules()]
    try:
        check_faithful(module, torch.randn(5, 3, generator=torch.Generator()))
    except ValueError:
        assert module.state is None
    torch.testing.assert_close(module.state_dict(), before, rtol=0, atol=0)
    assert [part.training for part in module.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)


class Failing(nn.Module):
    """A network that keeps what it sees, and fails under `vmap`."""

    def __init__(self):
        super().__init__()
        self.layer, self.seen = nn.Linear(3, 2), []

    def forward(self, inputs):
        self.kept = inputs
        self.seen.append(inputs)
        outputs = self.layer(inputs)
        return outputs if outputs.sum().item() else -outputs


def test_a_call_that_fails_leaves_nothing_behind():
    network = Network(Failing())

    def outputs(inputs):
        return network(network.params, network.buffers, inputs, norm="batch", training=True)[0]

    with pytest.raises(RuntimeError):
        vmap(outputs)(torch.randn(2, 5, 3))
    form = network._form._module
    assert form.seen == [] and not hasattr(form, "kept")
    assert form.layer.weight is None
    inputs = torch.randn(5, 3)
    torch.testing.assert_close(
        outputs(inputs), nn.functional.linear(inputs, *network.params.values())
    )


def normed(change):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.BatchNorm1d(4))
    for layer in (module[1], module[3]):
        nn.init.uniform_(layer.weight)
        nn.init.uniform_(layer.running_mean)
        nn.init.uniform_(layer.running_var)
    change(module)
    return module


class Tuned(nn.Sequential):
    """A network that keeps its second layer frozen, as is written to fine-tune."""

    def train(self, mode=True):
        super().train(mode)
        self[1].eval()
        return self


FROZEN = {
    "by eval": lambda: normed(lambda m: m[1].eval()),
    "by train": lambda: Tuned(*normed(lambda m: None)),
    "affine": lambda: normed(lambda m: m[1].eval().requires_grad_(False)),
    "all": lambda: normed(lambda m: m.eval()),
}


@pytest.mark.parametrize("mapped", [True, False])
@pytest.mark.parametrize("kind", FROZEN)
def test_frozen_batch_norm_uses_its_statistics_in_every_form(kind, mapped):
    module, inputs = FROZEN[kind](), torch.randn(6, 3)
    network = Network(module)
    if kind == "by train":
        module.train()
    plain = functional_call(copy.deepcopy(module), network.params, inputs)
    assert network.has_batch_norm == (kind != "all")
    assert set(network.statistics) == (
        set() if kind == "all" else {"3.running_mean", "3.running_var"}
    )
    for norm in ("batch", "record"):
        used = network if mapped else network.unmapped
        found, left = used(network.params, network.buffers, inputs, norm=norm, training=True)
        torch.testing.assert_close(found, plain)
        torch.testing.assert_close(left["1.running_mean"], module[1].running_mean)
    first, _ = network(network.params, left, inputs[:2], norm="stored", training=False)
    torch.testing.assert_close(first, plain[:2])  # as alone as together


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m[1].requires_grad_(False),
        lambda m: setattr(m, "1", nn.BatchNorm1d(4, track_running_stats=False)),
    ],
)
def test_batch_norm_that_is_not_frozen_sees_the_batch(change):
    module, inputs = normed(change), torch.randn(6, 3)
    network = Network(module)
    found, left = network(network.params, network.buffers, inputs, norm="record", training=True)
    torch.testing.assert_close(found, module.train()(inputs))
    one, _ = network(network.params, left, inputs[:1], norm="stored", training=False)
    torch.testing.assert_close(one, found[:1])
    assert ("1.weight" in network.affine) == module[1].weight.requires_grad


def test_batch_norm_is_found_by_every_reference_and_keeps_its_hooks():
    class Aliased(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.head = nn.BatchNorm1d(3), nn.Linear(3, 2)
            self.line = [self.norm]
            self.norm.register_forward_hook(lambda module, inputs, outputs: outputs * 3)

        def forward(self, inputs):
            return self.head(self.line[0](inputs))

    module, inputs = Aliased(), torch.randn(6, 3)
    check_faithful(module, inputs)
    network = Network(module)
    found, _ = network(network.params, network.buffers, inputs, norm="batch", training=True)
    torch.testing.assert_close(found, module(inputs))


class Masked(nn.Module):
    """A transformer that looks away from what is negative."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
        self.embed, self.encoder = nn.Linear(1, 4), nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(4, 2)

    def forward(self, inputs):
        mask = inputs < -1
        mask = torch.cat([torch.zeros_like(mask[:, :1]), mask[:, 1:]], 1)
        hidden = self.encoder(self.embed(inputs.unsqueeze(-1)), src_key_padding_mask=mask)
        return self.head(hidden[:, 0])


@pytest.mark.parametrize("training", [True, False])
def test_masked_transformers_can_be_mapped_and_looped(training):
    module = Masked().train(training)
    network = Network(module, plain=True)
    inputs = torch.randn(3, 5, 6)

    def outputs(inputs):
        return network(network.params, network.buffers, inputs, norm="batch", training=training)[0]

    before = torch.backends.mha.get_fastpath_enabled()
    with torch.no_grad():
        found = vmap(outputs)(inputs)
        looped = torch.stack([outputs(part) for part in inputs])
        torch.backends.mha.set_fastpath_enabled(False)
        expected = torch.stack([module(part) for part in inputs])
        torch.backends.mha.set_fastpath_enabled(before)
    torch.testing.assert_close(found, looped, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(looped, expected, rtol=1e-4, atol=1e-5)
    assert torch.backends.mha.get_fastpath_enabled() == before


def test_dropout_comes_back_after_scoring_where_it_is_not_frozen():
    module = nn.Sequential(nn.Linear(3, 40), nn.Dropout(0.5), nn.Linear(40, 40), nn.Dropout(0.5))
    module[3].eval()
    network = Network(module)
    inputs, plain = torch.randn(5, 3), copy.deepcopy(module)
    for training in (True, False, True, False):
        plain.train(training)
        plain[3].eval()
        torch.manual_seed(0)
        expected = plain(inputs)
        torch.manual_seed(0)
        found, _ = network(network.params, network.buffers, inputs, norm="batch", training=training)
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("hooked", [False, True])
def test_calls_of_one_kind_are_not_mixed_up_with_those_of_another(hooked):
    module, inputs = normed(lambda m: None), torch.randn(6, 3)
    if hooked:
        module[1].register_forward_hook(lambda module, inputs, outputs: outputs * 2)
    network = Network(module)

    def call(used, norm, training):
        return used(network.params, network.buffers, inputs, norm=norm, training=training)

    kinds = [
        (used, norm, training)
        for used in (network, network.unmapped)
        for norm in ("batch", "record", "stored")
        for training in (True, False)
    ]
    fresh = [call(*kind) for kind in kinds]
    for _ in range(2):
        for kind, expected in zip(kinds, fresh, strict=True):
            for _ in range(2):
                torch.testing.assert_close(call(*kind), expected, rtol=0, atol=0)
    assert not torch.allclose(fresh[0][0], fresh[4][0])

"""Networks as functions, and what they cost."""

import copy

import pytest
import torch
from torch import nn

from evometa.network import ConvBlock, Network, conv_net, measure_cost, mlp


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
@pytest.mark.parametrize("reduce", ["pool", "stride", "none"])
@pytest.mark.parametrize("skip", [False, True])
def test_blocks_give_the_shapes_they_promise(norm, reduce, skip):
    block = ConvBlock(3, 6, kernel=5, norm=norm, reduce=reduce, skip=skip)
    half = 13 if reduce == "none" else 7
    assert block(torch.rand(2, 3, 13, 13)).shape == (2, 6, half, half)


@pytest.mark.parametrize("head", ["mean", "flatten"])
def test_conv_nets_predict_one_row_an_image(head):
    net = conv_net([ConvBlock(1, 4), ConvBlock(4, 4, reduce="stride")], 5, head=head)
    assert net(torch.rand(3, 1, 28, 28)).shape == (3, 5)


def test_the_published_network_has_its_published_size():
    blocks = [ConvBlock(1 if index == 0 else 64, 64, reduce="stride") for index in range(4)]
    net = conv_net(blocks, 5)
    net(torch.rand(1, 1, 28, 28))
    assert sum(p.numel() for p in net.parameters()) == 112_261


def test_a_stateless_network_equals_its_module():
    module = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten())
    network = Network(module)
    inputs = torch.randn(4, 1, 6, 6)
    outputs, _ = network(network.params, network.buffers, inputs, norm="batch", training=True)
    torch.testing.assert_close(outputs, copy.deepcopy(module).train()(inputs))


def test_recorded_statistics_are_used_when_asked():
    network = Network(nn.BatchNorm1d(2, affine=False))
    seen, new = torch.randn(50, 2) * 3 + 1, torch.randn(5, 2)
    network_state = network.buffers
    _, recorded = network(network.params, network_state, seen, norm="record", training=True)
    outputs, _ = network(network.params, recorded, new, norm="stored", training=True)
    expected = (new - seen.mean(0)) / (seen.var(0, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(outputs, expected)
    assert network.buffers["running_mean"].abs().sum() == 0, "nothing is kept between calls"


def test_costs_are_counted_on_the_meta_device():
    with torch.device("meta"):
        cost, outputs = measure_cost(mlp(2, [8], 3), torch.empty(7, 2))
    shape = tuple(outputs.shape)
    assert (cost.params, cost.macs, shape) == (2 * 8 + 8 + 8 * 3 + 3, 2 * 8 + 8 * 3, (7, 3))

"""Hand-written cells equal PyTorch's, with derivatives that PyTorch's lack."""

import pytest
import torch
from torch import nn
from torch.func import grad, vmap

from evometa.network import cell_weights, gru, lstm

CELLS = {"lstm": (4, nn.LSTMCell), "gru": (3, nn.GRUCell)}


def made(name):
    gates, kind = CELLS[name]
    like, generator = torch.zeros((), dtype=torch.float64), torch.Generator().manual_seed(0)
    weights = cell_weights(gates, 3, 5, 5, like, generator)
    weights["bias"] = torch.randn(gates * 5, generator=generator, dtype=torch.float64)
    torch_cell = kind(3, 5).double()
    with torch.no_grad():
        torch_cell.weight_ih.copy_(weights["inputs"].T)
        torch_cell.weight_hh.copy_(weights["memory"].T)
        torch_cell.bias_ih.copy_(weights["bias"])
        torch_cell.bias_hh.zero_()
    return weights, torch_cell


def walked(name, weights, sequence):
    output = cell = torch.zeros(sequence.shape[1], 5, dtype=torch.float64)
    for inputs in sequence:
        if name == "lstm":
            output, cell = lstm(weights, inputs, output, cell)
        else:
            output = gru(weights, inputs, output)
    return output


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_equals_that_of_torch(name):
    weights, cell = made(name)
    sequence = torch.randn(4, 2, 3, dtype=torch.float64)
    state = None
    for inputs in sequence:
        state = cell(inputs, state)
    wanted = state[0] if name == "lstm" else state
    torch.testing.assert_close(walked(name, weights, sequence), wanted)


@pytest.mark.parametrize("name", CELLS)
def test_second_derivatives_are_mapped(name):
    weights, _ = made(name)
    sequences = torch.randn(3, 4, 2, 3, dtype=torch.float64)

    def slope(weights, sequence):
        first = grad(lambda own: walked(name, own, sequence).square().sum())(weights)
        return sum(value.square().sum() for value in first.values())

    mapped = vmap(grad(slope), (None, 0))(weights, sequences)
    for row in range(3):
        alone = grad(slope)(weights, sequences[row])
        for key, value in alone.items():
            torch.testing.assert_close(mapped[key][row], value)

"""What does a candidate compute? Ordinary `torch.nn` modules, seen as pure functions of tensors.

`blocks` holds builders that study files may use; any other module works as well. `Network` makes a
module stateless, so that inner loops can differentiate through it and `vmap` over it. `cost` counts
parameters and multiply-accumulates without running anything. `cells` holds recurrent cells.
"""

from evometa.network.blocks import ConvBlock, conv_net, mlp
from evometa.network.cells import cell_weights, drawn, gru, lstm
from evometa.network.cost import Cost, measure_cost
from evometa.network.faithful import check_faithful
from evometa.network.padding import Padded, unpadded
from evometa.network.stateless import Network, Norm, Tensors

__all__ = [
    "ConvBlock",
    "Cost",
    "Network",
    "Norm",
    "Padded",
    "Tensors",
    "cell_weights",
    "check_faithful",
    "conv_net",
    "drawn",
    "gru",
    "lstm",
    "measure_cost",
    "mlp",
    "unpadded",
]

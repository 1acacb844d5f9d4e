"""Builders for the networks that few-shot studies start from."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}
"""Activations by their name in a genome; all have a second derivative almost everywhere."""


def mlp(inputs: int, hidden: Sequence[int], outputs: int, activation: str = "relu") -> nn.Module:
    """Build a multi-layer perceptron with Glorot-normal weights and zero biases.

    Glorot and Bengio (2010); of the usual choices it meta-trains fastest on small networks.

    Args:
        inputs: features of an example.
        hidden: width of each hidden layer.
        outputs: features of a prediction.
        activation: a name in `ACTIVATIONS`.

    Returns:
        A module from `(examples, inputs)` to `(examples, outputs)`.
    """
    widths = [inputs, *hidden, outputs]
    layers: list[nn.Module] = []
    for index, (fan_in, fan_out) in enumerate(pairwise(widths)):
        layer = nn.Linear(fan_in, fan_out)
        nn.init.xavier_normal_(layer.weight)
        nn.init.zeros_(layer.bias)
        layers.append(layer)
        if index < len(hidden):
            layers.append(ACTIVATIONS[activation]())
    return nn.Sequential(*layers)


class ConvBlock(nn.Module):
    """Convolution, normalisation, activation, and a way to halve the image.

    Args:
        inputs: channels in.
        width: channels out.
        kernel: side of the kernel, odd.
        norm: `"batch"`, `"group"` or `"none"`.
        activation: a name in `ACTIVATIONS`.
        reduce: `"pool"` (2x2 max), `"stride"` (the convolution's) or `"none"`.
        skip: add the input, projected by a 1x1 convolution where shapes differ.
    """

    def __init__(
        self,
        inputs: int,
        width: int,
        *,
        kernel: int = 3,
        norm: str = "batch",
        activation: str = "relu",
        reduce: str = "pool",
        skip: bool = False,
    ) -> None:
        super().__init__()
        stride = 2 if reduce == "stride" else 1
        self.conv = nn.Conv2d(inputs, width, kernel, stride=stride, padding=kernel // 2)
        self.norm = _norm(norm, width)
        self.activation = ACTIVATIONS[activation]()
        self.project: nn.Module | None = None
        self.skip = skip
        if skip:
            same = inputs == width and stride == 1
            self.project = nn.Identity() if same else nn.Conv2d(inputs, width, 1, stride=stride)
        self.pool: nn.Module = (
            nn.MaxPool2d(2, ceil_mode=True) if reduce == "pool" else nn.Identity()
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Map `(examples, inputs, height, width)` to half the height and width, or the same."""
        outputs = self.norm(self.conv(inputs))
        if self.project is not None:
            outputs = outputs + self.project(inputs)
        return self.pool(self.activation(outputs))  # type: ignore[no-any-return]


def conv_net(blocks: Sequence[nn.Module], outputs: int | None, head: str = "mean") -> nn.Module:
    """Chain convolutional blocks and a linear head.

    Args:
        blocks: modules between images.
        outputs: features of a prediction; None for no linear layer, as prototypes want it.
        head: what the linear layer sees: `"mean"` over positions, or `"flatten"`.

    Returns:
        A module from `(examples, channels, height, width)` to `(examples, outputs)`. The linear
        layer's inputs are sized at the first call.
    """
    gather: list[nn.Module] = (
        [nn.AdaptiveAvgPool2d(1), nn.Flatten()] if head == "mean" else [nn.Flatten()]
    )
    linear = [] if outputs is None else [nn.LazyLinear(outputs)]
    return nn.Sequential(*blocks, *gather, *linear)


def _norm(name: str, width: int) -> nn.Module:
    if name == "batch":
        return nn.BatchNorm2d(width)
    if name == "group":
        groups = max(g for g in (1, 2, 4, 8) if width % g == 0)
        return nn.GroupNorm(groups, width)
    return nn.Identity()

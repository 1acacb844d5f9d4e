"""What a gradient rule adds to a network: tensors of its own, where they start, what they do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from evometa.learner.embedded import ABSENT
from evometa.learner.protocol import Tensors
from evometa.network import Network
from evometa.task.classes import ways_of
from evometa.task.protocol import Side

Embed = Callable[[Any], Any]
"""The network before the first step as a function of inputs."""


class Addition(Protocol):
    """An addition to a network: a frozen dataclass of pure functions of values.

    Its tensors have names that no network has, `LAYER.NAME` with a colon in the layer's.
    """

    @property
    def any_ways(self) -> bool:
        """Whether it lets the network learn tasks of any number of classes."""
        ...

    def init(self, network: Network, generator: torch.Generator) -> Tensors:
        """Return tensors that the outer loop trains, by name."""
        ...

    def like(self, network: Network) -> Tensors:
        """Return what `start` will add, in shapes that can be spread to those of any episode."""
        ...

    def start(self, params: Tensors, embed: Embed, support: Side) -> Tensors:
        """Return the tensors that an episode adds before its first step.

        Args:
            params: of the network, and of the additions before this one.
            embed: the network with these.
            support: of the episode.
        """
        ...

    def applied(self, params: Tensors) -> Tensors:
        """Return all tensors, those of the network changed as this addition says."""
        ...

    def outputs(self, params: Tensors, outputs: Any) -> Any:
        """Return predictions from what the network returns."""
        ...


@dataclass(frozen=True)
class PrototypeHead:
    """A linear layer on the network's outputs that starts as prototypes (Triantafillou, 2020).

    Its weights are `2·cₖ` and its biases `-‖cₖ‖²` for the mean `cₖ` of each class of the support,
    so that before the first step its logits differ from negative squared distances by the same
    number for all classes. The outer loop's gradient goes through the means. A class without an
    example is never predicted.

    Attributes:
        most: classes in an episode whose side does not say how many it has.
        features: numbers that the network returns for an example; None where that is not known.
    """

    most: int | None
    features: int | None = None

    LAYER: ClassVar = "head:prototypes"

    @property
    def any_ways(self) -> bool:
        """Whether it lets the network learn tasks of any number of classes: it does."""
        return True

    def init(self, network: Network, generator: torch.Generator) -> Tensors:
        """Return nothing: an episode brings all."""
        del network, generator
        return {}

    def like(self, network: Network) -> Tensors:
        """Return weight and bias of one class, for which all numbers are learned alike."""
        some = next(iter(network.params.values()))
        weight = some.new_zeros(1, self.features or 1)
        return {f"{self.LAYER}.weight": weight, f"{self.LAYER}.bias": some.new_zeros(1)}

    def start(self, params: Tensors, embed: Embed, support: Side) -> Tensors:
        """Return weights `(ways, features)`, biases and which classes are there, `(ways,)`."""
        del params
        features = embed(support.inputs).flatten(1)
        labels = torch.arange(ways_of(support, self.most), device=features.device)
        members = (support.targets == labels.unsqueeze(1)).to(features.dtype)  # (ways, examples)
        counts = members.sum(1)
        means = members @ features / counts.clamp(min=1).unsqueeze(1)
        return {
            f"{self.LAYER}.weight": 2 * means,
            f"{self.LAYER}.bias": -means.square().sum(1),
            f"there:{self.LAYER}": counts > 0,
        }

    def applied(self, params: Tensors) -> Tensors:
        """Return all tensors: the network stays as it is."""
        return params

    def outputs(self, params: Tensors, outputs: Any) -> Tensor:
        """Return logits of shape `(examples, ways)`."""
        weight, bias = params[f"{self.LAYER}.weight"], params[f"{self.LAYER}.bias"]
        logits = outputs.flatten(1) @ weight.T + bias
        return torch.where(params[f"there:{self.LAYER}"], logits, ABSENT)


@dataclass(frozen=True)
class Context:
    """A few numbers that adapt in the place of weights (CAVIA, Zintgraf et al., 2019).

    They start at 0 and move layers by learned matrices: a layer that has weight and bias gives
    `scale·layer(x) + shift` for each of its outputs. As `shift` of the first layer alone that is
    the same as to give the context to it as further inputs.

    Attributes:
        size: numbers of the context; 0 for scales and shifts that adapt themselves.
        scales: whether layers are scaled as well.
        layers: name, inputs and outputs of each layer that is moved.
    """

    size: int
    scales: bool
    layers: tuple[tuple[str, int, int], ...]

    NUMBERS: ClassVar = "context:own.numbers"

    @staticmethod
    def of(network: Network, size: int, *, film: bool) -> Context:
        """Return a context for a network.

        Args:
            network: the network.
            size: numbers of the context; 0 for scales and shifts that adapt themselves.
            film: scale and shift all layers but the last (FiLM, Perez et al., 2018); otherwise the
                first one is shifted.

        Raises:
            ValueError: if no layer has weight and bias, one for each output.
        """
        params = network.params
        weights = {n.removesuffix(".weight"): v for n, v in params.items() if n.endswith(".weight")}
        fit = [
            (layer, weight[0].numel(), len(weight))
            for layer, weight in weights.items()
            if f"{layer}.bias" in params and params[f"{layer}.bias"].shape == weight.shape[:1]
        ]
        if not fit:
            raise ValueError(
                "a context must enter a layer that has weight and bias, and the network has none "
                f"(it has {list(params)})"
            )
        return Context(size, film, tuple((fit[:-1] or fit) if film else fit[:1]))

    @property
    def any_ways(self) -> bool:
        """Whether it lets the network learn tasks of any number of classes."""
        return False

    def init(self, network: Network, generator: torch.Generator) -> Tensors:
        """Return the matrices, drawn as PyTorch's linear layers are."""
        some, found = next(iter(network.params.values())), {}
        for layer, inputs, outputs in self.layers if self.size else ():
            far = (self.size if self.scales else inputs + self.size) ** -0.5
            for what in self._what:
                drawn = torch.rand(outputs, self.size, generator=generator).to(some)
                found[f"context:{layer}.{what}"] = far * (2 * drawn - 1)
        return found

    def like(self, network: Network) -> Tensors:
        """Return zeros: the context, or all scales and shifts."""
        return self._zeros(network.params)

    def start(self, params: Tensors, embed: Embed, support: Side) -> Tensors:
        """Return zeros, whatever the support is."""
        del embed, support
        return self._zeros(params)

    def applied(self, params: Tensors) -> Tensors:
        """Return all tensors, with the layers moved by the context."""
        moved = dict(params)
        for layer, _, _ in self.layers:
            by = [params[f"context:{layer}.{what}"] for what in self._what]
            if self.size:
                by = [matrix @ params[self.NUMBERS] for matrix in by]
            shift, *scale = by
            weight, bias = params[f"{layer}.weight"], params[f"{layer}.bias"]
            if scale:
                factor = 1 + scale[0]
                weight = weight * factor.view(-1, *[1] * (weight.dim() - 1))
                bias = bias * factor
            moved |= {f"{layer}.weight": weight, f"{layer}.bias": bias + shift}
        return moved

    def outputs(self, params: Tensors, outputs: Any) -> Any:
        """Return the network's own predictions."""
        del params
        return outputs

    def _zeros(self, params: Tensors) -> Tensors:
        some = next(iter(params.values()))
        if self.size:
            return {self.NUMBERS: some.new_zeros(self.size)}
        return {
            f"context:{layer}.{what}": some.new_zeros(outputs)
            for layer, _, outputs in self.layers
            for what in self._what
        }

    @property
    def _what(self) -> tuple[str, ...]:
        return ("shift", "scale") if self.scales else ("shift",)

"""A module as a pure function of its parameters and buffers."""

from __future__ import annotations

import copy
from collections.abc import Set
from typing import Any, Literal, TypeAlias, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.parametrize import is_parametrized

from evometa.network.copying import Kept, check_plain, copied
from evometa.network.padding import Padded
from evometa.network.structure import structure_of
from evometa.network.surroundings import surroundings

Tensors: TypeAlias = dict[str, Tensor]

Norm: TypeAlias = Literal["batch", "record", "stored"]
"""Where batch normalisation takes its statistics from: the batch at hand; the batch at hand,
keeping them in the buffers; the buffers."""


class Network:
    """An ordinary module made stateless: tensors in, tensors out, nothing kept between calls.

    Batch-norm layers are replaced by layers without running averages, which update in place and
    so can be neither differentiated twice nor mapped over tasks. Their parameters keep their names.

    Args:
        module: any module that trains with ordinary PyTorch. It is copied, never changed.
        plain: avoid fused attention and cuDNN's recurrent cells, which have no second derivative.

    Attributes:
        params: initial trainable parameters by name, detached.
        buffers: initial buffers by name, detached; batch-norm statistics and frozen parameters
            among them.
        affine: names of the parameters of batch norm.
        statistics: names of the buffers that hold batch-norm statistics.
        has_batch_norm: whether the norm protocol makes a difference.
        kind: `"convolution"` if there is one among the layers, else `"dense"`.
        text: the layers, as PyTorch prints them.
        structure: text that is equal for modules of equal structure.
        mapped: whether it is called within `vmap`; see `unmapped`.
    """

    def __init__(self, module: nn.Module, *, plain: bool = False) -> None:
        self.mapped = True
        check_plain(module)
        form = copied(module)
        set_training(form)
        norms = [layer for layer in form.modules() if is_norm(layer)]
        self.has_batch_norm = any(not _is_frozen(layer) for layer in norms)
        for layer in norms:
            _make_episodic(layer)
        convolves = any(isinstance(m, nn.modules.conv._ConvNd) for m in module.modules())
        self.kind = "convolution" if convolves else "dense"
        named = dict(form.named_parameters())
        frozen = {name: value for name, value in named.items() if not value.requires_grad}
        self.params: Tensors = {k: v.detach().clone() for k, v in named.items() if k not in frozen}
        self.buffers: Tensors = {
            k: v.detach().clone()
            for k, v in {**frozen, **dict(form.named_buffers())}.items()
            if k in frozen or not any(v is value for value in named.values())
        }
        self.affine = _names(form, "weight", "bias", among=self.params)
        self.statistics = _names(form, "running_mean", "running_var", among=self.buffers)
        shapes = [(name, tuple(value.shape)) for name, value in self.params.items()]
        self.text = repr(module)
        self.structure = (
            f"{type(module).__name__} {shapes} {'plain ' if plain else ''}{structure_of(module)}"
        )
        self._surroundings = surroundings(module, plain=plain)
        self._form = _Form(form, self.buffers.keys() - frozen.keys() - set(self.statistics))

    @property
    def unmapped(self) -> Network:
        """The same network for calls outside of `vmap`: faster there, and wrong within."""
        found = copy.copy(self)
        found.mapped = False
        return found

    def __call__(
        self, params: Tensors, buffers: Tensors, inputs: Any, *, norm: Norm, training: bool
    ) -> tuple[Any, Tensors]:
        """Compute outputs and the buffers after the call.

        Args:
            params: parameters by name.
            buffers: buffers by name.
            inputs: what the module's `forward` takes, any pytree, `examples` first; or `Padded`.
            norm: where batch norm takes its statistics from; padding has no part in them.
            training: whether dropout and the like are active.

        Returns:
            What `forward` returns, and the new buffers.
        """
        self._form.become(norm, training, self.mapped)
        if self._surroundings is None:
            return self._form(params, buffers, inputs)
        with self._surroundings():
            return self._form(params, buffers, inputs)


class _Form:
    """A module that is given its tensors anew for each call.

    `torch.func.functional_call` does the same; it looks all names up again each time, a tenth of
    the time of a meta-gradient of a small network.

    Args:
        module: in training mode; its batch-norm layers are `_EpisodeBatchNorm`.
        moving: names of the buffers that it may change in place.
    """

    def __init__(self, module: nn.Module, moving: Set[str]) -> None:
        self._module, self._moving = module, moving
        names: dict[int, str] = {}
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            names.setdefault(id(tensor), name)  # the first one of shared tensors
        self._recurrent = [m for m in module.modules() if isinstance(m, nn.RNNBase)]
        self._norms = [m for m in module.modules() if isinstance(m, _EpisodeBatchNorm)]
        self._hooked = any(m._forward_hooks or m._forward_pre_hooks for m in self._norms)
        self._places: dict[str, list[tuple[dict[str, Tensor | None], str]]] = {}
        for owner in module.modules():
            for table in (owner._parameters, owner._buffers):
                places = cast(dict[str, Tensor | None], table)
                for leaf, value in places.items():
                    if value is not None:
                        self._places.setdefault(names[id(value)], []).append((places, leaf))
        for layer in self._recurrent:  # what it was made with is not what it is given
            layer._flat_weight_refs = [None] * len(layer._flat_weights)
        self._still = [part for part in module.modules() if not part.training]
        self._now: tuple[Norm, bool, bool] = ("batch", True, True)
        self._leave()
        self._kept = Kept(module)

    def become(self, norm: Norm, training: bool, mapped: bool) -> None:
        """Prepare for calls of a kind."""
        if self._now == (norm, training, mapped):
            return
        for layer in self._norms:
            layer.norm, layer.mapped = norm, mapped
        if training != self._now[1]:
            self._module.train(training)
            for part in self._still:
                part.training = False
        if training != self._now[1] or self._hooked:
            self._kept = Kept(self._module)
        self._now = norm, training, mapped

    def __call__(self, params: Tensors, buffers: Tensors, inputs: Any) -> tuple[Any, Tensors]:
        try:
            if isinstance(inputs, Padded):
                inputs, mask = inputs
                for layer in self._norms:
                    layer.mask = mask
            for tensors in (params, buffers):
                for name, value in tensors.items():
                    given = value.clone() if name in self._moving else value
                    for table, leaf in self._places[name]:
                        table[leaf] = given
            for cell in self._recurrent:
                weights = (getattr(cell, name, None) for name in cell._flat_weights_names)
                cell._flat_weights = list(weights)
            outputs = self._module(inputs)
            left = {}
            for name in buffers:
                table, leaf = self._places[name][0]
                left[name] = cast(Tensor, table[leaf])
            return outputs, left
        finally:
            self._leave()
            self._kept.restore()

    def _leave(self) -> None:
        """Hold no tensor between calls, so that no graph outlives its use."""
        for places in self._places.values():
            for table, leaf in places:
                table[leaf] = None
        for norm in self._norms:
            norm.mask = None
        for layer in self._recurrent:
            layer._flat_weights = [None] * len(layer._flat_weights)


class _EpisodeBatchNorm(_BatchNorm):
    """Batch norm over dimension 1 whose statistics belong to an episode, not to a history.

    A frozen one, which is in evaluation mode while the network trains, always has its own.
    """

    norm: Norm
    mapped: bool
    frozen: bool
    mask: Tensor | None = None  # which examples are real, where some are padding

    def forward(self, inputs: Tensor) -> Tensor:
        stored = self.frozen or self.norm == "stored"
        several = inputs.numel() > inputs.shape[1]  # PyTorch's own refuses one value a channel
        plain = self.norm == "batch" and not self.mapped and self.mask is None
        if not stored and plain and several:
            return F.batch_norm(
                inputs, None, None, self.weight, self.bias, training=True, eps=self.eps
            )
        if stored:
            assert self.running_mean is not None and self.running_var is not None
            mean, var = self.running_mean, self.running_var
        else:
            var, mean = self._statistics(inputs)
        if self.norm == "record" and not stored:
            # assigned, not updated in place: differentiable and safe under vmap
            self.running_mean, self.running_var = mean, var
        # Plain arithmetic: mapped over tasks, PyTorch's own batch norm has a wrong second
        # derivative (seen with 2.13; the tests compare with the loop).
        shape = [1, -1] + [1] * (inputs.dim() - 2)
        scale = torch.rsqrt(var + self.eps)
        if self.weight is not None:
            scale = scale * self.weight
        shift = -mean * scale
        if self.bias is not None:
            shift = shift + self.bias
        return torch.addcmul(shift.view(shape), inputs, scale.view(shape))

    def _statistics(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return variance and mean of each channel, over the examples that are real."""
        dims = [d for d in range(inputs.dim()) if d != 1]
        if self.mask is None:
            return torch.var_mean(inputs, dims, correction=0)
        if len(inputs) != len(self.mask):
            raise ValueError(
                f"batch norm must see one row for each of {len(self.mask)} examples where some "
                f"are padding, but it sees {len(inputs)}; use group norm"
            )
        real = self.mask.to(inputs.dtype).view([-1] + [1] * (inputs.dim() - 1))
        count = real.sum() * (inputs[0, 0].numel())
        mean = (inputs * real).sum(dims) / count
        centred = inputs - mean.view([1, -1] + [1] * (inputs.dim() - 2))
        return (centred.square() * real).sum(dims) / count, mean


def is_norm(layer: nn.Module) -> bool:
    """Return whether a layer is batch norm as PyTorch computes it."""
    return (
        isinstance(layer, _BatchNorm)
        and type(layer).forward in (_BatchNorm.forward, nn.SyncBatchNorm.forward)
        and not is_parametrized(layer)
    )


def set_training(module: nn.Module) -> None:
    """Set training mode; what is in evaluation mode before stays so, as frozen layers do."""
    still = [part for part in module.modules() if not part.training]
    module.train()
    for part in still:
        part.training = False


def _is_frozen(layer: nn.Module) -> bool:
    return not layer.training and layer.running_mean is not None


def _make_episodic(layer: nn.Module) -> None:
    """Change a batch-norm layer where it is, so that all who refer to it see the change."""
    assert isinstance(layer, _BatchNorm)
    frozen = _is_frozen(layer)
    layer._buffers.pop("num_batches_tracked", None)
    if not frozen:
        like = layer.weight if layer.weight is not None else layer.running_mean
        zeros = torch.zeros(layer.num_features)
        zeros = zeros if like is None else zeros.to(like).detach()
        layer.running_mean, layer.running_var = zeros, torch.ones_like(zeros)
    layer.__class__ = _EpisodeBatchNorm
    assert isinstance(layer, _EpisodeBatchNorm)
    layer.norm, layer.mapped, layer.frozen = "batch", True, frozen


def _names(form: nn.Module, *leaves: str, among: Tensors) -> tuple[str, ...]:
    layers = [
        name
        for name, m in form.named_modules()
        if isinstance(m, _EpisodeBatchNorm) and not (m.frozen and leaves[0] == "running_mean")
    ]
    names = [f"{layer}.{leaf}" if layer else leaf for layer in layers for leaf in leaves]
    return tuple(name for name in names if name in among)

"""A module as a pure function of its parameters and buffers."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Literal, TypeAlias, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm

from evometa.network.padding import Padded

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
        self._plain = plain
        self.mapped = True
        self._recurrent = any(isinstance(m, nn.RNNBase) for m in module.modules())
        self.has_batch_norm = any(isinstance(m, _BatchNorm) for m in module.modules())
        convolves = any(isinstance(m, nn.modules.conv._ConvNd) for m in module.modules())
        self.kind = "convolution" if convolves else "dense"
        norms: tuple[Norm, ...] = ("batch", "record", "stored") if self.has_batch_norm else ()
        form = _stateless(module, "batch", training=True, mapped=True)
        self._forms = {
            (norm, training, mapped): _Form(_stateless(module, norm, training, mapped))
            for norm in norms or ("batch",)
            for training in (True, False)
            for mapped in ((True, False) if norms else (True,))
        }
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
        self.structure = f"{self.text} {shapes} {'plain' if plain else ''}"

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
        key = (norm, training, self.mapped) if self.has_batch_norm else ("batch", training, True)
        with _plain_kernels(self._recurrent) if self._plain else nullcontext():
            return self._forms[key](params, buffers, inputs)


class _Form:
    """A module that is given its tensors anew for each call.

    `torch.func.functional_call` does the same; it looks all names up again each time, a tenth of
    the time of a meta-gradient of a small network.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        names: dict[int, str] = {}
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            names.setdefault(id(tensor), name)  # the first one of shared tensors
        self._recurrent = [m for m in module.modules() if isinstance(m, nn.RNNBase)]
        self._norms = [m for m in module.modules() if isinstance(m, _EpisodeBatchNorm)]
        self._places: dict[str, list[tuple[dict[str, Tensor | None], str]]] = {}
        for owner in module.modules():
            for table in (owner._parameters, owner._buffers):
                places = cast(dict[str, Tensor | None], table)
                for leaf, value in places.items():
                    if value is not None:
                        self._places.setdefault(names[id(value)], []).append((places, leaf))
        self._leave()

    def __call__(self, params: Tensors, buffers: Tensors, inputs: Any) -> tuple[Any, Tensors]:
        if isinstance(inputs, Padded):
            inputs, mask = inputs
            for layer in self._norms:
                layer.mask = mask
        for tensors in (params, buffers):
            for name, value in tensors.items():
                for table, leaf in self._places[name]:
                    table[leaf] = value
        try:
            outputs = self._module(inputs)
            left = {}
            for name in buffers:
                table, leaf = self._places[name][0]
                left[name] = cast(Tensor, table[leaf])
            return outputs, left
        finally:
            self._leave()

    def _leave(self) -> None:
        """Hold no tensor between calls, so that no graph outlives its use."""
        for places in self._places.values():
            for table, leaf in places:
                table[leaf] = None
        for norm in self._norms:
            norm.mask = None
        for layer in self._recurrent:  # which keep a list of their weights
            layer._flat_weights = [None] * len(layer._flat_weights)


class _EpisodeBatchNorm(nn.Module):
    """Batch norm over dimension 1 whose statistics belong to an episode, not to a history."""

    weight: nn.Parameter | None
    bias: nn.Parameter | None
    running_mean: Tensor
    running_var: Tensor
    mask: Tensor | None = None  # which examples are real, where some are padding

    def __init__(self, original: _BatchNorm, norm: Norm, mapped: bool) -> None:
        super().__init__()
        self.norm, self.mapped, self.eps = norm, mapped, original.eps
        self.register_parameter("weight", original.weight)
        self.register_parameter("bias", original.bias)
        like = original.weight if original.weight is not None else original.running_mean
        zeros = torch.zeros(original.num_features)
        zeros = zeros if like is None else zeros.to(like)
        self.register_buffer("running_mean", zeros)
        self.register_buffer("running_var", torch.ones_like(zeros))

    def forward(self, inputs: Tensor) -> Tensor:
        if self.norm == "batch" and not self.mapped and self.mask is None:
            return F.batch_norm(
                inputs, None, None, self.weight, self.bias, training=True, eps=self.eps
            )
        if self.norm == "stored":
            mean, var = self.running_mean, self.running_var
        else:
            var, mean = self._statistics(inputs)
        if self.norm == "record":
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


def _stateless(module: nn.Module, norm: Norm, training: bool, mapped: bool) -> nn.Module:
    form = copy.deepcopy(module)
    for parent in list(form.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, _BatchNorm):
                setattr(parent, name, _EpisodeBatchNorm(child, norm, mapped))
    if isinstance(form, _BatchNorm):
        form = _EpisodeBatchNorm(form, norm, mapped)
    return form.train(training)


def _names(form: nn.Module, *leaves: str, among: Tensors) -> tuple[str, ...]:
    layers = [name for name, m in form.named_modules() if isinstance(m, _EpisodeBatchNorm)]
    names = [f"{layer}.{leaf}" if layer else leaf for layer in layers for leaf in leaves]
    return tuple(name for name in names if name in among)


@contextmanager
def _plain_kernels(recurrent: bool) -> Iterator[None]:
    cells = torch.backends.cudnn.flags(enabled=False) if recurrent else nullcontext()
    with sdpa_kernel(SDPBackend.MATH), cells:
        yield

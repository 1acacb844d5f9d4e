"""A module as a pure function of its parameters and buffers."""

from __future__ import annotations

import copy
from typing import Literal, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

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

    Attributes:
        params: initial trainable parameters by name, detached.
        buffers: initial buffers by name, detached; batch-norm statistics and frozen parameters
            among them.
        has_batch_norm: whether the norm protocol makes a difference.
        has_convolution: whether a convolution is among the layers.
        text: the layers, as PyTorch prints them.
        structure: text that is equal for modules of equal structure.
    """

    def __init__(self, module: nn.Module) -> None:
        self.has_batch_norm = any(isinstance(m, _BatchNorm) for m in module.modules())
        self.has_convolution = any(isinstance(m, nn.modules.conv._ConvNd) for m in module.modules())
        self._forms = {
            (norm, training): _stateless(module, norm, training)
            for norm in (("batch", "record", "stored") if self.has_batch_norm else ("batch",))
            for training in (True, False)
        }
        form = self._forms["batch", True]
        named = dict(form.named_parameters())
        frozen = {name: value for name, value in named.items() if not value.requires_grad}
        self.params: Tensors = {k: v.detach().clone() for k, v in named.items() if k not in frozen}
        self.buffers: Tensors = {
            k: v.detach().clone() for k, v in {**frozen, **dict(form.named_buffers())}.items()
        }
        shapes = [(name, tuple(value.shape)) for name, value in self.params.items()]
        self.text = repr(module)
        self.structure = f"{self.text} {shapes}"

    def __call__(
        self, params: Tensors, buffers: Tensors, inputs: Tensor, *, norm: Norm, training: bool
    ) -> tuple[Tensor, Tensors]:
        """Compute outputs and the buffers after the call.

        Args:
            params: parameters by name.
            buffers: buffers by name.
            inputs: shape `(examples, *shape)`.
            norm: where batch norm takes its statistics from.
            training: whether dropout and the like are active.

        Returns:
            Outputs of shape `(examples, *outputs)`, and the new buffers.
        """
        form = self._forms[norm if self.has_batch_norm else "batch", training]
        tensors = {**params, **buffers}
        outputs = functional_call(form, tensors, (inputs,))
        # functional_call writes buffers that the forward pass replaced back into the dict
        return cast(Tensor, outputs), {name: tensors[name] for name in buffers}


class _EpisodeBatchNorm(nn.Module):
    """Batch norm over dimension 1 whose statistics belong to an episode, not to a history."""

    weight: nn.Parameter | None
    bias: nn.Parameter | None
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, original: _BatchNorm, norm: str) -> None:
        super().__init__()
        self.norm, self.eps = norm, original.eps
        self.register_parameter("weight", original.weight)
        self.register_parameter("bias", original.bias)
        like = original.weight if original.weight is not None else original.running_mean
        device = like.device if like is not None else None
        self.register_buffer("running_mean", torch.zeros(original.num_features, device=device))
        self.register_buffer("running_var", torch.ones(original.num_features, device=device))

    def forward(self, inputs: Tensor) -> Tensor:
        # Plain arithmetic: mapped over tasks, PyTorch's own batch norm has a wrong second
        # derivative (seen with 2.13; the tests compare with the loop).
        shape = [1, -1] + [1] * (inputs.dim() - 2)
        if self.norm == "stored":
            mean, var = self.running_mean, self.running_var
        else:
            dims = [d for d in range(inputs.dim()) if d != 1]
            var, mean = torch.var_mean(inputs, dims, correction=0)
        if self.norm == "record":
            # assigned, not updated in place: differentiable and safe under vmap
            self.running_mean, self.running_var = mean, var
        scale = torch.rsqrt(var + self.eps)
        if self.weight is not None:
            scale = scale * self.weight
        shift = -mean * scale
        if self.bias is not None:
            shift = shift + self.bias
        return torch.addcmul(shift.view(shape), inputs, scale.view(shape))


def _stateless(module: nn.Module, norm: str, training: bool) -> nn.Module:
    form = copy.deepcopy(module)
    for parent in list(form.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, _BatchNorm):
                setattr(parent, name, _EpisodeBatchNorm(child, norm))
    if isinstance(form, _BatchNorm):
        form = _EpisodeBatchNorm(form, norm)
    return form.train(training)

"""The network as a pure function, and its meta-trained weights; needs PyTorch alone."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Tensors = dict[str, Tensor]

TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


class Network:
    """The programs and the weights of a folder.

    Attributes:
        facts: learner.json.
        meta: part (`params`, `learned`, `constants`, `buffers`) to name to tensor.
    """

    def __init__(self, folder: Path, device: str) -> None:
        self.facts: dict[str, Any] = json.loads((folder / "learner.json").read_text("utf-8"))
        self.meta: dict[str, Tensors] = {
            "params": {},
            "learned": {},
            "constants": {},
            "buffers": {},
        }
        for key, value in read_safetensors(folder / "weights.safetensors").items():
            part, name = key.split("/", 1)
            self.meta[part][name] = value.to(device)
        self._programs = {
            norm: _program(folder / f"network_{norm}.pt2", device)
            for norm in self.facts["programs"]
        }

    def __call__(
        self, params: Tensors, buffers: Tensors, inputs: Tensor, norm: str
    ) -> tuple[Tensor, Tensors]:
        """Compute outputs of shape `(examples, ...)`, and the buffers after the call.

        Args:
            params: parameters by name.
            buffers: buffers by name.
            inputs: shape `(examples, ...)`.
            norm: where batch norm takes its statistics from: the inputs (`"record"`, and leaves
                them in the buffers), or the buffers (`"stored"`).
        """
        found: tuple[Tensor, Tensors] = self._programs[norm](params, buffers, inputs)
        return found

    def inputs(self, x: Tensor) -> Tensor:
        """Return inputs where the weights are, or say what shape they should have."""
        sample = tuple(self.facts["sample"])
        if tuple(x.shape[1:]) != sample or not len(x):
            raise ValueError(
                f"inputs must have the shape (examples, {sample}), got {tuple(x.shape)}"
            )
        some = next(iter(self.meta["params"].values()))
        return x.to(some.device, some.dtype)

    def targets(self, y: Tensor) -> Tensor:
        """Return targets where the weights are, or say what shape they should have."""
        some = next(iter(self.meta["params"].values()))
        if self.facts["classes"]:
            if y.dim() != 1 or y.is_floating_point():
                raise ValueError(f"classes must be numbers from 0, one an example, got {y.shape}")
            return y.to(some.device, torch.int64)
        outputs = self.facts["outputs"]
        y = y.unsqueeze(1) if y.dim() == 1 else y
        if y.shape[1:] != (outputs,):
            raise ValueError(f"targets must have {outputs} values each, got {tuple(y.shape)}")
        return y.to(some.device, some.dtype)


def _program(path: Path, device: str) -> Callable[..., Any]:
    program = torch.export.load(path)
    if torch.device(device).type != "cpu":
        from torch.export.passes import move_to_device_pass

        program = move_to_device_pass(program, device)
    return program.module()


def read_safetensors(path: Path) -> Tensors:
    """Read tensors by name: 8 bytes of length, a JSON header, then the numbers."""
    data = bytearray(path.read_bytes())
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        first, last = (8 + length + offset for offset in entry["data_offsets"])
        kind, shape = TYPES[entry["dtype"]], entry["shape"]
        empty = torch.empty(shape, dtype=kind)
        tensors[name] = (
            torch.frombuffer(data[first:last], dtype=kind).reshape(shape) if last > first else empty
        )
    return tensors

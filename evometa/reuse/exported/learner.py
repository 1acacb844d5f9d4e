"""Adapt to a new task from a few labelled examples, and predict; needs PyTorch alone.

learner = Learner()
adapted = learner.adapt(x, y)  # x as README.md says; y: labels of any kind, or values
adapted.predict(x_new)
"""

from __future__ import annotations

import json
import struct
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


class Learner:
    """What was meta-trained. Adapting changes nothing in it.

    Args:
        folder: of the exported files.
        device: where to adapt and to predict.
    """

    def __init__(self, folder: Path | None = None, device: str = "cpu") -> None:
        self.folder, self.device = folder or Path(__file__).parent, torch.device(device)
        self.facts: dict[str, Any] = json.loads((self.folder / "learner.json").read_text("utf-8"))
        tensors = read_safetensors(self.folder / "weights.safetensors")
        self.weights = [tensors[name].to(device) for name in self.facts["weights"]]
        self._programs: dict[str, Callable[..., list[Tensor]]] = {}

    def adapt(self, x: Any, y: Any, steps: int | None = None) -> Adapted:
        """Learn a task from labelled examples.

        Args:
            x: inputs; each tensor begins with the examples.
            y: one label an example, a tensor of whole numbers or a list of anything that can be
                sorted; or values, shape `(examples, outputs)` or `(examples,)`.
            steps: inner steps, at most as many as in meta-training; default all of them.

        Raises:
            ValueError: if something does not fit; says what would.
        """
        inputs = self.inputs(x, "examples")
        targets, labels = self._targets(y, len(inputs[0]))
        arguments = [*self.weights, *inputs, targets]
        if labels is not None:
            self._check_length("classes", len(labels))
            arguments.append(torch.arange(len(labels), device=self.device))
        last = self.facts["steps"]
        if steps is None:
            return Adapted(self, self.run("adapt", arguments), labels)
        if not last:
            raise ValueError("this learner has no steps to choose from; leave `steps` out")
        if not isinstance(steps, int) or not 0 <= steps <= last:
            raise ValueError(f"`steps` must be a whole number from 0 to {last}, got {steps!r}")
        line = self.run("trajectory", arguments)
        each = len(line) // (last + 1)
        return Adapted(self, line[steps * each : (steps + 1) * each], labels)

    def example(self) -> tuple[Any, Tensor, Any, Tensor]:
        """Return a task that it was not trained on: examples, targets, new inputs, theirs."""
        task = read_safetensors(self.folder / "task.safetensors")

        def inputs(side: str) -> Any:
            named = {leaf["name"]: task[side + leaf["name"]] for leaf in self.facts["inputs"]}
            return named.get("", named)

        return inputs("x"), self.named(task["y"]), inputs("x_new"), self.named(task["y_new"])

    def named(self, numbers: Tensor) -> Any:
        """Return labels by number, where they mean the same in every task; else the numbers."""
        labels = self.facts.get("labels")
        return numbers if labels is None else [labels[number] for number in numbers.tolist()]

    def run(self, name: str, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Run a program of the folder."""
        if name not in self._programs:
            program = torch.export.load(self.folder / f"{name}.pt2")
            if self.device.type != "cpu":
                from torch.export.passes import move_to_device_pass

                program = move_to_device_pass(program, str(self.device))
            self._programs[name] = program.module()
        with torch.no_grad():
            return list(self._programs[name](*tensors))

    def inputs(self, x: Any, axis: str) -> list[Tensor]:
        """Return inputs as a list of tensors of the types of meta-training.

        Args:
            x: a tensor; or the dict, list or tuple of tensors that the network takes, or a dict
                from their names in learner.json.
            axis: what it counts, `examples` or `queries`.

        Raises:
            ValueError: if they are not like those of meta-training.
        """
        wanted = self.facts["inputs"]
        names = [leaf["name"] for leaf in wanted]
        if names == [""]:
            given = {"": x}
        elif isinstance(x, dict) and x.keys() >= set(names):
            given = x
        else:
            paths, _ = pytree.tree_flatten_with_path(x)
            given = {pytree.keystr(path): leaf for path, leaf in paths}
        missing = [name for name in names if name not in given]
        if missing:
            raise ValueError(f"inputs must hold {', '.join(names)}, but {missing[0]} is not there")
        found = [self._input(leaf, given[leaf["name"]]) for leaf in wanted]
        if len({len(each) for each in found}) > 1:
            raise ValueError(
                f"all inputs must be equally many, got {[len(each) for each in found]}"
            )
        self._check_length(axis, len(found[0]))
        return found

    def _input(self, leaf: dict[str, Any], given: Any) -> Tensor:
        what, shape = f"inputs{leaf['name']}", tuple(leaf["shape"])
        dtype, low, high = getattr(torch, leaf["dtype"]), leaf["low"], leaf["high"]
        tensor = torch.as_tensor(given)
        if tensor.dim() != len(shape) + 1 or tuple(tensor.shape[1:]) != shape or not len(tensor):
            axes = ", ".join(["examples", *map(str, shape)])
            raise ValueError(f"{what} must have the shape ({axes}), got {tuple(tensor.shape)}")
        if tensor.is_complex() or (tensor.is_floating_point() and not dtype.is_floating_point):
            raise ValueError(f"{what} must be {leaf['dtype']}, got {tensor.dtype}")
        if not dtype.is_floating_point:
            if dtype != torch.bool and int(tensor.min()) < min(low, 0):
                raise ValueError(
                    f"{what} must be at least {min(low, 0):g}, got {int(tensor.min())}"
                )
            if dtype != torch.bool and int(tensor.max()) > high + 0.05 * (high - low):
                warnings.warn(
                    f"{what} reach up to {int(tensor.max())}, but in meta-training to {high:g}: "
                    "predictions there are guesses",
                    stacklevel=4,
                )
            return tensor.to(self.device, dtype)
        least, most = float(tensor.min()), float(tensor.max())
        if not tensor.is_floating_point() and low >= 0 and high <= 1 < most:
            raise ValueError(
                f"{what} must be {leaf['dtype']} from {low:g} to {high:g}, got {tensor.dtype} up "
                f"to {most:g}; divide by the largest value there can be, such as 255"
            )
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{what} must be finite, but some are NaN or infinite")
        if least < 2 * low - high or most > 2 * high - low:
            warnings.warn(
                f"{what} reach from {least:g} to {most:g}, but in meta-training from {low:g} to "
                f"{high:g}: predictions there are guesses",
                stacklevel=4,
            )
        return tensor.to(self.device, dtype)

    def _targets(self, y: Any, examples: int) -> tuple[Tensor, Any]:
        """Return targets, and the labels that they stand for, sorted; None for values."""
        outputs, most = self.facts["outputs"], self.facts["classes"]
        if outputs is None:
            numbers, labels = _numbered(y, self.facts.get("labels"))
            if most is not None and len(labels) > most:
                raise ValueError(
                    f"the learner tells {most} classes apart, but these examples have {len(labels)}"
                )
        else:
            values = torch.as_tensor(y)
            values = values.unsqueeze(1) if values.dim() == 1 else values
            if tuple(values.shape[1:]) != (outputs,):
                raise ValueError(
                    f"targets must have {outputs} values each, got the shape {tuple(values.shape)}"
                )
            numbers, labels = values.to(getattr(torch, self.facts["dtype"])), None
            if not bool(torch.isfinite(numbers).all()):
                raise ValueError("targets must be finite, but some are NaN or infinite")
        if len(numbers) != examples:
            raise ValueError(f"there are {examples} examples, but {len(numbers)} targets")
        return numbers.to(self.device), labels

    def _check_length(self, axis: str, length: int) -> None:
        least, most = self.facts["limits"].get(axis, (1, None))
        if length < least or (most is not None and length > most):
            wanted = f"{least} or more" if most is None else f"from {least} to {most}"
            wanted = f"exactly {least}" if least == most else wanted
            raise ValueError(f"there must be {wanted} {axis}, got {length}: see README.md")


@dataclass(frozen=True)
class Adapted:
    """A learner that has seen the examples of a task.

    Attributes:
        learner: what it was.
        state: what it knows.
        labels: the classes that it has seen, in the order of `outputs`; None for values.
    """

    learner: Learner
    state: list[Tensor]
    labels: Any

    def outputs(self, x: Any) -> Tensor:
        """Return logits of the classes that were seen, or values; shape `(queries, ...)`."""
        inputs = self.learner.inputs(x, "queries")
        (found,) = self.learner.run("predict", [*self.state, *inputs])
        return found if self.labels is None else found[..., : len(self.labels)]

    def predict(self, x: Any) -> Any:
        """Return the likeliest label of each input, or its values."""
        outputs = self.outputs(x)
        if self.labels is None:
            return outputs
        best = outputs.argmax(-1)
        if isinstance(self.labels, Tensor):
            return self.labels[best.to(self.labels.device)]
        return [self.labels[number] for number in best.tolist()]


def _numbered(y: Any, known: list[Any] | None = None) -> tuple[Tensor, Any]:
    """Return labels as numbers from 0, and the different ones, sorted.

    Args:
        y: labels.
        known: all labels, where they mean the same in every task: these are returned then.

    Raises:
        ValueError: if they are no labels, or not known.
    """
    if known is not None:
        given = y.tolist() if isinstance(y, Tensor) else list(y)
        new = [label for label in given if label not in known]
        if new:
            raise ValueError(f"labels must be some of {known}, but one is {new[0]!r}")
        whole = isinstance(y, Tensor)
        numbers = torch.tensor([known.index(label) for label in given])
        return numbers, torch.tensor(known) if whole else known
    if isinstance(y, list | tuple):
        if any(label is None or label != label for label in y):
            raise ValueError("labels must not be missing")
        labels = sorted(set(y))
        places = {label: place for place, label in enumerate(labels)}
        return torch.tensor([places[label] for label in y]), labels
    y = torch.as_tensor(y)
    if y.dim() != 1 or y.is_floating_point() or y.is_complex():
        raise ValueError(
            f"labels must be whole numbers, one an example, got {y.dtype} of shape {tuple(y.shape)}"
        )
    labels, numbers = torch.unique(y, return_inverse=True)
    return numbers, labels


def read_safetensors(path: Path) -> dict[str, Tensor]:
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

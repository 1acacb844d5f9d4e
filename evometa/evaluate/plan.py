"""How a pack's inner loops are executed."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch

from evometa.errors import StudyError

ALL = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """How a meta-gradient is computed; the numbers are the same up to rounding.

    Written as text, `vmap`, `loop`, `vmap:8`, `vmap:8x4+compile`, ...: how many candidates times
    tasks are mapped at once, then what else is done.

    Attributes:
        tasks: tasks mapped at once by `vmap`; 1 takes one after the other, in the memory of one;
            `ALL` the whole meta-batch.
        candidates: candidates of a pack mapped at once.
        compile: compile the whole meta-gradient with TorchInductor. Costs up to a minute for each
            network, and needs a C++ compiler (CPU) or Triton (CUDA).
        graph: capture the whole outer step as a CUDA graph, which is then launched as one.
        channels_last: keep images channels last in memory.
    """

    tasks: int = ALL
    candidates: int = ALL
    compile: bool = False
    graph: bool = False
    channels_last: bool = False

    def __str__(self) -> str:
        if self.tasks == self.candidates == 1:
            name = "loop"
        elif self.tasks == self.candidates == ALL:
            name = "vmap"
        else:
            name = f"vmap:{self.candidates or 'all'}x{self.tasks or 'all'}"
        extras = ("compile", "graph", "channels_last")
        return "+".join([name, *(extra for extra in extras if getattr(self, extra))])


LOOP = Plan(tasks=1, candidates=1)
VMAP = Plan()

_SYNTAX = re.compile(
    r"(loop|vmap)(?::(?:(\d+|all)x)?(\d+|all))?((?:\+(?:compile|graph|channels_last))*)"
)


def parse_plan(text: str) -> Plan:
    """Read a plan as `str(plan)` writes it; `vmap:8` maps 8 tasks of each candidate.

    Raises:
        StudyError: if the text is no plan.
    """
    match = _SYNTAX.fullmatch(text)
    if match is None or (match[1] == "loop" and match[3]):
        raise StudyError(
            f"a plan must be 'loop', 'vmap', 'vmap:TASKS' or 'vmap:CANDIDATESxTASKS', and may end "
            f"with '+compile', '+graph' or '+channels_last', got {text!r}"
        )
    extras = set(match[4].split("+"))
    tasks, candidates = (0 if n in (None, "all") else int(n) for n in (match[3], match[2]))
    base = LOOP if match[1] == "loop" else Plan(tasks, candidates)
    return Plan(
        base.tasks,
        base.candidates,
        compile="compile" in extras,
        graph="graph" in extras,
        channels_last="channels_last" in extras,
    )


def default_plan(kind: str, device: torch.device) -> Plan:
    """Return the plan that usually wins, known without a timing.

    On a CPU, `vmap` turns convolutions into grouped ones, which lose to the plain loop; over small
    dense layers it wins by about eight.

    Args:
        kind: of the network, `"dense"` or `"convolution"`.
        device: where it runs.
    """
    return LOOP if kind == "convolution" and device.type == "cpu" else VMAP

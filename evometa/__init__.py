"""Joint search of network architectures and the learning rules they adapt with.

The names below are imported on first use: `import evometa` loads no torch, ray, deap or optuna.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evometa import space
    from evometa.reuse.learner import load_learner
    from evometa.store import load
    from evometa.study import Rung, Study, Training, halving

__version__ = "0.1.0"

__all__ = ["Rung", "Study", "Training", "__version__", "halving", "load", "load_learner", "space"]

_HOMES = {
    "Rung": "evometa.study",
    "Study": "evometa.study",
    "Training": "evometa.study",
    "halving": "evometa.study",
    "load": "evometa.store",
    "load_learner": "evometa.reuse.learner",
}


def __getattr__(name: str) -> Any:
    if name == "space":
        return importlib.import_module("evometa.space")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'evometa' has no attribute {name!r}")

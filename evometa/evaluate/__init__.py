"""From a candidate to its evaluation: gate, meta-train, meta-validate, and name what failed.

`Evaluator` is the one callable that executors carry to their workers. It needs torch and numpy
only, so it runs and can be measured on machines without Ray, DEAP or Optuna.
"""

from evometa.evaluate.evaluator import Evaluator
from evometa.evaluate.gate import Admission, Rejected, admit
from evometa.evaluate.training import Diverged, Outcome, meta_train, validate

__all__ = [
    "Admission",
    "Diverged",
    "Evaluator",
    "Outcome",
    "Rejected",
    "admit",
    "meta_train",
    "validate",
]

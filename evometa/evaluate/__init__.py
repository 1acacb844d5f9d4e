"""From a candidate to its evaluation: gate, pack, plan, train, score, and name what failed.

`Evaluator` is the one callable that executors carry to their workers. It needs torch and numpy
only, so it runs and can be measured on machines without Ray, DEAP or Optuna.
"""

from evometa.evaluate.calibration import calibrate
from evometa.evaluate.evaluator import Evaluator
from evometa.evaluate.faults import check_episodes
from evometa.evaluate.gate import Admission, admit
from evometa.evaluate.identity import identify
from evometa.evaluate.plan import LOOP, VMAP, Plan, parse_plan
from evometa.evaluate.probe import BeyondLimits, Rejected
from evometa.evaluate.randomness import begin
from evometa.evaluate.scoring import Outcome, score
from evometa.evaluate.training import Checkpoint, Trained, Trainer

__all__ = [
    "LOOP",
    "VMAP",
    "Admission",
    "BeyondLimits",
    "Checkpoint",
    "Evaluator",
    "Outcome",
    "Plan",
    "Rejected",
    "Trained",
    "Trainer",
    "admit",
    "begin",
    "calibrate",
    "check_episodes",
    "identify",
    "parse_plan",
    "score",
]

"""Where does it run? Executors carry packs of candidates to an evaluator and bring back results.

`Serial` runs in this process, `Simulated` on a clock that nobody waits for, and
`evometa.execute.ray_pool.RayPool` on the workers of a Ray cluster. None of them knows what it runs.
"""

from evometa.execute.early_errors import EarlyErrors
from evometa.execute.interrupts import Interrupts, interruptible
from evometa.execute.protocol import Evaluate, Executor, Interruptible, failed
from evometa.execute.serial import Serial
from evometa.execute.simulated import Simulated
from evometa.execute.supervisor import Limits

__all__ = [
    "EarlyErrors",
    "Evaluate",
    "Executor",
    "Interruptible",
    "Interrupts",
    "Limits",
    "Serial",
    "Simulated",
    "failed",
    "interruptible",
]

"""Start a search or go on with it; the command line calls this, and so may a notebook."""

from evometa.launch.description import (
    COMPARISON,
    check_same,
    describe,
    is_comparison,
    named,
    refuse_existing,
    require_study,
    schema_of,
    stored_study,
)
from evometa.launch.driver import Watch, make_executor, resume, start
from evometa.launch.preparation import adjusted, choose_plans, preflight, prepare
from evometa.launch.settings import Data, Settings, Workers

__all__ = [
    "COMPARISON",
    "Data",
    "Settings",
    "Watch",
    "Workers",
    "adjusted",
    "check_same",
    "choose_plans",
    "describe",
    "is_comparison",
    "make_executor",
    "named",
    "preflight",
    "prepare",
    "refuse_existing",
    "require_study",
    "resume",
    "schema_of",
    "start",
    "stored_study",
]

"""Start a search or go on with it; the command line calls this, and so may a notebook."""

from evometa.launch.description import (
    check_same,
    describe,
    named,
    refuse_existing,
    schema_of,
    stored_study,
)
from evometa.launch.driver import Watch, make_executor, resume, start
from evometa.launch.preparation import adjusted, choose_plans, preflight, prepare
from evometa.launch.settings import Data, Settings, Workers

__all__ = [
    "Data",
    "Settings",
    "Watch",
    "Workers",
    "adjusted",
    "check_same",
    "choose_plans",
    "describe",
    "make_executor",
    "named",
    "preflight",
    "prepare",
    "refuse_existing",
    "resume",
    "schema_of",
    "start",
    "stored_study",
]

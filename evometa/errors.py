"""Every error that evometa raises on purpose.

Each message says what must hold, what came, and how to mend it. All derive from `EvometaError`,
so that one `except` catches them; each also derives from the builtin that fits.
"""


class EvometaError(Exception):
    """Root of all errors raised on purpose by evometa."""


class SpaceError(EvometaError, ValueError):
    """A search space is malformed, has nothing left to propose, or does not suit a searcher."""


class GenomeError(EvometaError, ValueError):
    """A genome lies outside its space; the message begins with the path of the offender."""


class StudyError(EvometaError, ValueError):
    """A study file cannot be loaded, or declares something that cannot work."""


class TaskError(EvometaError, ValueError):
    """A task cannot be made: data missing or broken, or too few classes or images."""


class StoreError(EvometaError, RuntimeError):
    """A run directory cannot be created, read or written."""


class Interrupted(KeyboardInterrupt):
    """A person or a batch system asks to stop: Ctrl-C or SIGTERM, not a candidate's own code."""


class ExecutorError(EvometaError, RuntimeError):
    """Candidates cannot be run: no cluster at the address, or all workers gone."""

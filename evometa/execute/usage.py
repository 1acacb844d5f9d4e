"""What a process has had of the machine's cores."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Usage:
    """Seconds since a process began.

    Attributes:
        cpu: of all its threads on a core.
        waited: in which its main thread could have run, had a core been free; None if unknown.
    """

    cpu: float
    waited: float | None


def usage(process: int) -> Usage | None:
    """Return what a process of this machine has had; None where the system does not say."""
    try:
        # after the name, which may hold anything: state, then 10 fields, then user and system time
        fields = Path(f"/proc/{process}/stat").read_text("utf-8", "replace").rpartition(")")[2]
        user, system = fields.split()[11:13]
    except (OSError, ValueError):
        return None
    cpu = (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
    try:
        waited = int(Path(f"/proc/{process}/schedstat").read_text("ascii").split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return Usage(cpu, None)
    return Usage(cpu, waited)


def told(before: Usage | None, after: Usage | None, seconds: float) -> str:
    """Say what a process has had in so many seconds; empty if it is not known."""
    if before is None or after is None:
        return ""
    text = f"; in {seconds:.1f} s it had {after.cpu - before.cpu:.1f} s of CPU time"
    if before.waited is None or after.waited is None:
        return text
    return f"{text}, and waited {after.waited - before.waited:.1f} s for a core that others used"

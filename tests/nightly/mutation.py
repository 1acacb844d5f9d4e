"""Does any test notice when the code is changed a little? A mutation run of the core rooms.

    pip install -e '.[nightly]'
    python -m tests.nightly.mutation                          # all mutants: a night, or more
    python -m tests.nightly.mutation --sample 90 --seed 1     # ten a room
    python -m tests.nightly.mutation --rooms space rule --sample 60 --seed 1

Each room is copied to a folder of its own, mutated by mutmut, and held against the fast tests of
the room, those without the mark `slow`. What survives is printed as a diff; mutants that are known
to be equivalent are in `equivalents.toml`, with the reason. Ends with 1 where a room is below
`--goal`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EQUIVALENTS = Path(__file__).with_name("equivalents.toml")
COPIED = ("evometa", "tests", "search_spaces", "cluster", "pyproject.toml", "README.md")
ROOMS = {
    "learner": ["tests/learner", "tests/evaluate/test_presets.py"],
    "rule": ["tests/rule", "tests/learner", "tests/evaluate/test_identity.py"],
    "evaluate": ["tests/evaluate"],
    "search": ["tests/search"],
    "space": ["tests/space"],
    "store": ["tests/store"],
    "task": ["tests/task"],
    "network": ["tests/network", "tests/learner"],
    "report": ["tests/report"],
}
"""The rooms in which numbers are made, and the tests that speak for each."""

# mutated classes are slow, and have more members than a protocol asks for
UNFIT = ("tests/space/test_nesting.py::test_proposals_are_cheap",)
SETTINGS = """[mutmut]
source_paths = evometa
only_mutate =
    evometa/{room}/*
do_not_mutate =
    evometa/*/protocol.py
also_copy =
    search_spaces
    cluster
    README.md
track_dependencies = false
timeout_multiplier = 4
timeout_constant = 5
pytest_add_cli_args =
    -p
    no:cacheprovider
    --timeout=900
    -m
    not slow and not nightly
pytest_add_cli_args_test_selection =
    {tests}
"""
STATUS = {0: "survived", 1: "killed", 3: "killed", 5: "untested", 33: "untested"}


@dataclass
class Room:
    """A room in a folder of its own.

    Attributes:
        name: of the room.
        folder: where its copy is.
    """

    name: str
    folder: Path

    def prepare(self) -> None:
        """Copy, mutate, and run the tests once to see which function each of them reaches.

        Raises:
            RuntimeError: if the tests fail without any mutant.
        """
        for name in COPIED:
            whence = ROOT / name
            copy = shutil.copytree if whence.is_dir() else shutil.copy
            copy(whence, self.folder / name)
        tests = [*ROOMS[self.name], *(f"--deselect={name}" for name in UNFIT)]
        settings = SETTINGS.format(room=self.name, tests="\n    ".join(tests))
        (self.folder / "setup.cfg").write_text(settings)
        said = self._mutmut("run", "--max-children", "1", "none of them")
        if "nothing matches" not in said:  # it ends so when all is prepared
            raise RuntimeError(f"the tests of {self.name} cannot be run:\n{said[-3000:]}")

    def mutants(self) -> list[str]:
        """Return the names of all mutants."""
        return sorted(name for found in self._verdicts() for name in found)

    def run(self, names: Sequence[str], workers: int) -> dict[str, str]:
        """Return what became of mutants, by their names."""
        self._mutmut("run", "--max-children", str(workers), *names)
        codes = {name: code for found in self._verdicts() for name, code in found.items()}
        return {name: STATUS.get(codes[name], "timeout or crash") for name in names}

    def shown(self, name: str) -> str:
        """Return a mutant as a diff."""
        return self._mutmut("show", name)

    def _verdicts(self) -> Iterator[dict[str, int]]:
        for path in (self.folder / "mutants/evometa" / self.name).rglob("*.meta"):
            yield json.loads(path.read_text())["exit_code_by_key"]

    def _mutmut(self, *arguments: str) -> str:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [Path(sys.executable).with_name("mutmut"), *arguments],
            cwd=self.folder,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        return done.stdout


def function_of(name: str) -> str:
    """Return the function of a mutant: `evometa.space.numeric.Int.mutate`."""
    module, _, rest = name.rpartition(".")
    rest = rest.rpartition("__mutmut_")[0]
    parts = rest.removeprefix("x_").split("ǁ") if "ǁ" not in rest else rest.split("ǁ")[1:]
    return ".".join([module, *parts])


def change_of(diff: str) -> tuple[str, str]:
    """Return the lines that a diff takes away, and those that it adds."""
    lines = diff.splitlines()
    old = [line[1:].strip() for line in lines if line.startswith("-") and line[:3] != "---"]
    new = [line[1:].strip() for line in lines if line.startswith("+") and line[:3] != "+++"]
    return "\n".join(old), "\n".join(new)


def judged(room: Room, names: Sequence[str], workers: int) -> Counter[str]:
    """Run mutants, print those that nobody noticed, and return how many came to which end."""
    known = {
        (each["function"], each["old"], each["new"])
        for each in tomllib.loads(EQUIVALENTS.read_text()).get("mutant", [])
    }
    counts: Counter[str] = Counter()
    for name, end in room.run(names, workers).items():
        if end in ("survived", "untested"):
            diff = room.shown(name)
            if (function_of(name), *change_of(diff)) in known:
                end = "equivalent"
            else:
                print(f"{end}: {function_of(name)}\n{diff}", flush=True)
        counts[end] += 1
    return counts


def main() -> int:
    """Run what the command line asks for; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rooms", nargs="+", choices=ROOMS, default=[*ROOMS])
    parser.add_argument("--sample", type=int, help="mutants in all, the same number in each room")
    parser.add_argument("--seed", type=int, default=0, help="draws the sample")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--goal", type=float, default=0.9, help="share that must be noticed")
    wanted = parser.parse_args()
    table, poor = [], False
    for name in wanted.rooms:
        with tempfile.TemporaryDirectory(prefix=f"mutation-{name}-") as folder:
            room = Room(name, Path(folder))
            room.prepare()
            every = room.mutants()
            count = len(every) if wanted.sample is None else wanted.sample // len(wanted.rooms)
            drawn = random.Random(wanted.seed).sample(every, min(count, len(every)))
            counts = judged(room, drawn, wanted.workers)
        real = len(drawn) - counts["equivalent"]
        noticed = counts["killed"] + counts["timeout or crash"]
        poor = poor or noticed < wanted.goal * real
        rest = ", ".join(f"{number} {end}" for end, number in sorted(counts.items()))
        table.append(f"{name:10}{noticed:5} of {real:5}  {noticed / max(1, real):6.1%}   {rest}"
                     f"; {len(every)} mutants in all")  # fmt: skip
        print(table[-1], flush=True)
    print("\n".join(["", "room       noticed", *table]))
    return int(poor)


if __name__ == "__main__":
    sys.exit(main())

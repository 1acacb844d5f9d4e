"""Who may import whom, and what `import evometa` must not load."""

import ast
import subprocess
import sys
from pathlib import Path

import evometa

ROOT = Path(evometa.__file__).parent

LEAVES = {"errors", "records", "limits", "agreement", "metrics", "files", "plain"}
ALLOWED = {
    "space": LEAVES,
    "search": LEAVES | {"space"},
    "network": LEAVES,
    "rule": LEAVES | {"space"},  # rule_space is a space
    "task": LEAVES | {"network"},  # padding
    "learner": LEAVES | {"rule", "network", "space", "task"},
    "user_code": set(),
    "study": LEAVES | {"space", "task", "learner"},
    "study_file": LEAVES | {"study", "task", "user_code"},
    "evaluate": LEAVES | {"network", "rule", "task", "learner", "study", "user_code"},
    "execute": LEAVES,
    "store": LEAVES,
    "report": LEAVES | {"learner"},  # formulas
    "run": LEAVES | {"search", "execute"},
    "budget": LEAVES,
    "observe": LEAVES | {"run"},
    "warm": LEAVES | {"store", "study", "report"},
    "records": set(),
    "limits": {"errors", "records"},
    "metrics": {"errors", "records"},
    "agreement": set(),
    "files": set(),
    "plain": {"errors"},
    "errors": set(),
}
HEAVY = {
    "ray": {"execute/ray_pool.py", "tune.py"},
    "deap": {
        "search/individual.py",
        "search/populations.py",
        "search/regularized_evolution.py",
        "space/tree_operators.py",
    },
    "optuna": {
        "search/optuna_samplers.py",
        "report/optuna_study.py",
        "report/convert.py",
        "report/page/influence.py",
    },
    "plotly": {
        f"report/page/{name}.py"
        for name in (
            "confirmed",
            "costs",
            "descent",
            "document",
            "fronts",
            "influence",
            "progress",
            "rungs",
            "training",
            "won",
        )
    },
    "tensorboardX": {"report/convert.py"},
}
TORCH_ROOMS = {
    "reuse",
    "network",
    "rule",
    "task",
    "learner",
    "evaluate",
    "check",
    "user_code",
}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            if node.module == "evometa":
                yield from (f"evometa.{alias.name}" for alias in node.names)


def files():
    for path in sorted(ROOT.rglob("*.py")):
        yield path.relative_to(ROOT), set(imports(path))


def test_rooms_import_only_what_they_may():
    for path, found in files():
        room = path.parts[0].removesuffix(".py")
        if room not in ALLOWED:
            continue
        for name in found:
            parts = name.split(".")
            if parts[0] == "evometa" and len(parts) > 1 and parts[1] != room:
                assert parts[1] in ALLOWED[room], f"{path} imports {name}"


def test_heavy_libraries_stay_in_their_files():
    for path, found in files():
        for library, homes in HEAVY.items():
            if any(name.split(".")[0] == library for name in found):
                assert str(path) in homes, f"{path} imports {library}"
        if any(name.split(".")[0] == "torch" for name in found):
            assert path.parts[0].removesuffix(".py") in TORCH_ROOMS, f"{path} imports torch"


def test_candidates_are_evaluated_without_the_rest():
    """A GPU machine needs torch, numpy and pillow, not what searches and stores."""
    code = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('ray', 'deap', 'moocore', 'optuna', 'pyarrow', 'typer', 'rich'):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
from evometa import Study, Training, space as s
from evometa.evaluate import Evaluator
from evometa.network import mlp
from evometa.records import Candidate
from evometa.task import Sinusoid

study = Study(s.Struct(w=s.Int(1, 9)), lambda g: mlp(1, [g['w']], 1), Sinusoid(),
              training=Training(iterations=2, tasks=2, validation=2))
print(Evaluator(study)([Candidate(0, {'w': 3}, 0)])[0].status)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "OK", result.stdout + result.stderr


def test_evometa_alone_loads_nothing_heavy():
    code = (
        "import sys, evometa, evometa.search\n"
        "print([m for m in ('torch', 'ray', 'deap', 'optuna', 'plotly') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stdout + result.stderr

"""A study is more than its file: what it imports and reads is found, kept, and brought along."""

import hashlib
import importlib.util
import io
import os
import pickle
import random
import shutil
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import numpy as np
import pytest
import ray
import torch
from rich.console import Console

from evometa.check import print_check
from evometa.errors import StudyError
from evometa.launch import Data, Settings, Workers, preflight, prepare, resume, start
from evometa.launch import refuse_existing as refuse
from evometa.reuse.rerun import rerun
from evometa.reuse.stored import read_run
from evometa.store import RunDirectory, read_table
from evometa.study_file import Shipped, load_kept, load_study
from evometa.study_file import bundle as bundle_module
from tests.commands import Command, evometa
from tests.test_warm import Nobody

HEAD = """
from torch import nn
from evometa import Study, Training
from evometa import space as s
from evometa.network import mlp
from evometa.task import Sinusoid
"""
TAIL = """
study = Study(
    space=s.Struct(width=s.Int(2, 60)),
    build=build,
    task=Sinusoid(shots=3, queries=3, eval_queries=5),
    training=Training(iterations=2, tasks=2, validation=4),
)
"""


def write(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(text, bytes):
            path.write_bytes(text)
        else:
            path.write_text(textwrap.dedent(text))
    return folder


def study_text(body):
    return HEAD + textwrap.dedent(body) + TAIL


def width(file, genome=None):
    """Return how wide the study's network is."""
    return file.study.build(genome or {"width": 4})[0].out_features


LATE = study_text("""
    def build(genome):
        from helpers import make
        return make(genome)
    """)


def make(text):
    return f"from evometa.network import mlp\ndef make(genome): return mlp(1, [{text}], 1)\n"


def test_two_studies_have_each_their_own_helpers_also_when_imported_late(tmp_path):
    early = study_text("""
        import helpers
        from helpers import make as direct
        def build(genome):
            assert helpers.make is direct
            return direct(genome)
        """)
    for name, text in (("late", LATE), ("early", early)):
        folder = tmp_path / name
        for size in (11, 12):
            write(folder / str(size), {"study.py": text, "helpers.py": make(size)})
        first, second = (load_study(folder / str(size) / "study.py") for size in (11, 12))
        assert [width(first), width(second), width(first)] == [11, 12, 11]
    assert "helpers" not in sys.modules


def test_a_helper_changed_between_two_loads_is_read_again_and_the_first_keeps_its_own(tmp_path):
    """Also within the same second and with the same size, where compiled files would be stale."""
    path = write(tmp_path, {"study.py": LATE, "helpers.py": make(11)}) / "study.py"
    first = load_study(path)
    assert width(first) == 11
    write(tmp_path, {"helpers.py": make(12)})
    second = load_study(path)
    assert (width(second), width(first)) == (12, 11)
    assert not (tmp_path / "__pycache__").exists()


LAYOUTS = {
    "the project's root": {
        "pyproject.toml": "",
        "models/nets.py": make(11),
        "studies/a.py": study_text("from models.nets import make as build"),
    },
    "the root by git, import in a function": {
        ".git/HEAD": "",
        "models/__init__.py": "",
        "models/nets.py": make(11),
        "studies/deep/er/a.py": study_text("""
            def build(genome):
                import models.nets as nets
                return nets.make(genome)
            """),
    },
    "a package, relative imports": {
        "studies/__init__.py": "",
        "studies/a.py": study_text("from .parts.nets import make as build"),
        "studies/parts/__init__.py": "from . import nets",
        "studies/parts/nets.py": "from ..shared import make",
        "studies/shared.py": make(11),
    },
    "a package, absolute imports": {
        "studies/__init__.py": "SIZE = 11",
        "studies/a.py": study_text("""
            import studies.shared
            build = studies.shared.make
            """),
        "studies/shared.py": "from studies import SIZE\n" + make("SIZE"),
    },
    "src": {
        "setup.cfg": "",
        "src/own/__init__.py": "",
        "src/own/nets.py": make(11),
        "studies/a.py": study_text("from own.nets import make as build"),
    },
    "by name": {
        "studies/a.py": study_text("""
            import importlib
            from importlib import import_module
            def build(genome):
                assert importlib.import_module("blocks").nets is import_module("blocks.nets")
                return import_module(f"blocks.n{'ets'}").make(genome)
            """),
        "studies/blocks/__init__.py": "from . import nets",
        "studies/blocks/nets.py": make(11),
    },
    "a path of its own": {
        "lib/nets.py": make(11),
        "studies/a.py": study_text("""
            import pathlib, sys
            sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "lib"))
            def build(genome):
                from nets import make
                return make(genome)
            """),
    },
    "a name that is not one": {
        "studies/my study-2.0.py": study_text("from helpers import make as build"),
        "studies/helpers.py": make(11),
    },
    "a name that is installed as well": {
        "studies/a.py": study_text("from yaml import make as build"),
        "studies/yaml.py": make(11),
    },
    "a folder named as what is installed": {
        "pyproject.toml": "",
        "numpy/notes.py": "",
        "evometa/network.py": "raise ValueError",
        "studies/a.py": study_text("""
            import numpy as np
            def build(genome):
                return mlp(1, [int(np.int64(11))], 1)
            """),
    },
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_works_here_and_from_what_is_kept(name, tmp_path):
    files = LAYOUTS[name]
    write(tmp_path / "project", files)
    (path,) = [f for f in files if f.startswith("studies/") and "Study(" in files[f]]
    file = load_study(tmp_path / "project" / path)
    assert width(file) == 11
    bundle = load_study(tmp_path / "project" / path).bundle()  # late imports are not known yet
    shutil.rmtree(tmp_path / "project")
    assert width(load_kept(bundle, "run/study.py")) == 11


READS = {
    "while it is loaded": """
        W = int((pathlib.Path(__file__).parent / "size.txt").read_text())
        def build(genome): return mlp(1, [W], 1)
        """,
    "in build": """
        def build(genome):
            with open(os.path.join(os.path.dirname(__file__), "size.txt")) as file:
                return mlp(1, [int(file.read())], 1)
        """,
    "in a folder": """
        HERE = pathlib.Path(__file__).resolve().parent
        def build(genome): return mlp(1, [int((HERE / "data" / "v1" / "size.txt").read_text())], 1)
        """,
    "in a folder above": """
        def build(genome):
            up = pathlib.Path(__file__).parents[1]
            return mlp(1, [int((up / "config" / "size.txt").read_text())], 1)
        """,
    "by a name that is made": """
        def build(genome):
            return mlp(1, [int(pathlib.Path(__file__).with_name(f"w{1 + 1}.txt").read_text())], 1)
        """,
    "by numpy": """
        import numpy as np
        def build(genome):
            return mlp(1, [int(np.load(pathlib.Path(__file__).with_suffix(".npy")))], 1)
        """,
    "by the helper": """
        def build(genome):
            from parts.helper import size
            return mlp(1, [size()], 1)
        """,
}


def reading(folder, name):
    np_bytes = folder / "x.npy"
    folder.mkdir(parents=True, exist_ok=True)
    np.save(np_bytes, np.int64(11))
    texts = ["a/size.txt", "a/data/v1/size.txt", "config/size.txt", "a/w2.txt"]
    write(
        folder / "project",
        {
            **dict.fromkeys(texts, "11"),
            "a/study.npy": np_bytes.read_bytes(),
            "a/.secret": "never kept",
            "a/parts/__init__.py": "",
            "a/parts/size.txt": "11",
            "a/parts/helper.py": "import importlib.resources as r\n"
            "def size(): return int((r.files(__package__) / 'size.txt').read_text())\n",
            "a/study.py": study_text("import os, pathlib\n" + textwrap.dedent(READS[name])),
        },
    )
    return folder / "project"


def searched(path, run, candidates=2):
    file = prepare(load_study(path), Data())
    preflight(file, 0, "cpu", 1)
    start(file, run, Settings(candidates, device="cpu"), Workers("serial"), lambda *_: Nobody())


@pytest.mark.parametrize("name", READS)
def test_a_run_goes_on_without_the_originals(name, tmp_path):
    project = reading(tmp_path, name)
    searched(project / "a" / "study.py", tmp_path / "run")
    shutil.rmtree(project)
    table = resume(tmp_path / "run", Workers("serial"), lambda *_: Nobody(), candidates=3)
    assert table["status"].to_pylist() == ["OK"] * 3
    assert set(table["params"].to_pylist()) == {11 * 3 + 1}
    assert rerun(read_run(tmp_path / "run"), "c000002").verdict == "equal"
    assert not list((tmp_path / "run").rglob("*secret*"))


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_killed_search_goes_on_without_the_originals(tmp_path):
    """To the table of a search that was never killed."""
    body = """
        import os, pathlib
        def build(genome):
            from helpers import make
            with pathlib.Path(COUNT).open("ab") as count:
                count.write(b".")
            if KILLED and pathlib.Path(COUNT).stat().st_size == 40:
                os.kill(os.getpid(), 9)
            return make(genome)
        """
    body = body.replace("COUNT", repr(str(tmp_path / "count")))
    for name, killed in (("whole", "False"), ("killed", "True")):
        text = study_text(body.replace("KILLED", killed))
        write(tmp_path / name, {"study.py": text, "helpers.py": make("genome['width']")})
    options = ("--executor", "serial", "-n", 20, "--plan", "loop", "--searcher", "random")
    evometa("search", "whole/study.py", *options, "--run", "expected", folder=tmp_path)
    (tmp_path / "count").unlink()
    code, said = Command(
        "search", "killed/study.py", *options, "--run", "run", folder=tmp_path
    ).wait()
    assert code == -9, said
    shutil.rmtree(tmp_path / "killed")
    evometa("resume", "run", "--executor", "serial", folder=tmp_path)
    tables = [read_table(tmp_path / name).sort_by("number") for name in ("run", "expected")]
    columns = ("status", "genome", "query_loss", "scores")
    first, second = ([table[name].to_pylist() for name in columns] for table in tables)
    assert first[0] == ["OK"] * 20
    assert first == second


@pytest.fixture
def run(tmp_path):
    write(tmp_path / "project", {"study.py": LATE, "helpers.py": make(11)})
    searched(tmp_path / "project" / "study.py", tmp_path / "run")
    return tmp_path / "run"


def test_a_kept_helper_that_was_changed_or_lost_is_named(run):
    (kept,) = (run / "files").rglob("helpers.py")
    kept.write_text(make(12))
    with pytest.raises(StudyError, match=r"helpers\.py is not what it was"):
        read_run(run)
    kept.unlink()
    with pytest.raises(StudyError, match=r"helpers\.py cannot be read"):
        read_run(run)


def test_another_search_with_a_changed_helper_says_so(run, tmp_path):
    path = tmp_path / "project" / "study.py"
    with pytest.raises(Exception, match="go on with it"):
        refuse(run, load_study(path))
    write(path.parent, {"helpers.py": make(12)})
    with pytest.raises(Exception, match=r"another study.*helpers\.py: sha256 .* -> "):
        refuse(run, load_study(path))


def test_large_files_are_named_and_must_be_as_they_were(tmp_path, monkeypatch):
    monkeypatch.setattr(bundle_module, "FILE_BYTES", 1000)
    body = """
        import pathlib
        def build(genome):
            data = (pathlib.Path(__file__).parent / "large.bin").read_bytes()
            return mlp(1, [data[0]], 1)
        """
    write(tmp_path / "p", {"study.py": study_text(body), "large.bin": b"\x0b" * 2000})
    searched(tmp_path / "p" / "study.py", tmp_path / "run")
    assert not list((tmp_path / "run").rglob("large.bin"))
    assert width(read_run(tmp_path / "run").file) == 11
    (tmp_path / "p" / "large.bin").write_bytes(b"\x0c" * 2000)
    with pytest.raises(StudyError, match=r"large\.bin, too large to be kept, is not what it was"):
        read_run(tmp_path / "run")
    (tmp_path / "p" / "large.bin").unlink()
    with pytest.raises(StudyError, match=r"large\.bin, too large .* no longer at .*large\.bin"):
        read_run(tmp_path / "run")


def test_files_in_sum_are_bounded_and_the_smallest_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(bundle_module, "TOTAL_BYTES", 2500)
    body = 'FILES = __file__, "a.bin", "b.bin"\ndef build(genome): return mlp(1, [3], 1)'
    write(tmp_path, {"s.py": study_text(body), "a.bin": b"a" * 1200, "b.bin": b"b" * 900})
    bundle = load_study(tmp_path / "s.py").bundle()
    assert [name.rpartition("/")[2] for name in bundle.large] == ["a.bin"]
    assert {name.rpartition("/")[2] for name in bundle.small} == {"s.py", "b.bin"}


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", ""])
def test_names_that_lead_out_of_the_folder_are_refused(name):
    bundle = bundle_module.Bundle("s.py", "s", ["."], {"s.py": b"", name: b"x"}, {})
    with pytest.raises(StudyError, match="relative name"):
        bundle.unpack()


CHANGING = """
import os, random, sys, warnings
import numpy as np, torch
torch.set_default_dtype(torch.float64)
torch.set_grad_enabled(False)
torch.set_num_threads(2)
torch.use_deterministic_algorithms(True, warn_only=True)
torch.set_default_device("meta")
random.seed(9); np.random.seed(9); torch.manual_seed(9)
warnings.simplefilter("ignore")
sys.path.insert(0, "/tmp")
os.chdir("/")
import helpers
DRAWN = random.random(), float(np.random.rand())
"""


def test_loading_leaves_the_process_as_it_was(tmp_path):
    text = CHANGING + study_text("from helpers import make as build")
    write(tmp_path, {"study.py": text, "helpers.py": make(11)})

    def state():
        return (
            list(sys.path),
            Path.cwd(),
            [str(each) for each in warnings.filters],
            torch.get_default_dtype(),
            torch.get_default_device(),
            torch.is_grad_enabled(),
            torch.get_num_threads(),
            torch.are_deterministic_algorithms_enabled(),
            torch.get_rng_state().tolist(),
            random.getstate(),
            np.random.get_state()[1].tolist(),  # noqa: NPY002
        )

    before, names = state(), {*sys.modules}
    load_study(tmp_path / "study.py")
    assert state() == before
    new = {*sys.modules} - names
    assert all(name.startswith("evometa_study_") for name in new)


def test_what_a_study_draws_while_it_is_loaded_is_the_same_every_time(tmp_path):
    body = """
        import random
        import numpy as np
        import torch
        DRAWN = random.random(), np.random.rand(), float(torch.rand(()))
        def build(genome): return mlp(1, [3], 1), DRAWN
        """
    write(tmp_path, {"study.py": study_text(body)})
    first, second = (load_study(tmp_path / "study.py").study.build({})[1] for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    "line", ["sys.exit('no data')", "raise KeyboardInterrupt", "raise SystemExit(3)", "1 / 0"]
)
@pytest.mark.parametrize("helper", [False, True])
def test_whatever_ends_a_study_is_named_with_its_line(line, helper, tmp_path):
    own = "import helpers" if helper else line
    write(tmp_path, {"study.py": f"import sys\n\n{own}\n", "helpers.py": f"import sys\n{line}\n"})
    with pytest.raises(StudyError, match="raised at line 3") as caught:
        load_study(tmp_path / "study.py")
    assert ("helpers.py, line 2" in str(caught.value)) is helper
    assert "evometa_study_" not in str(caught.value)


def test_ctrl_c_while_a_study_is_loaded_still_stops(tmp_path):
    text = "import signal\nsignal.raise_signal(signal.SIGINT)\nfor _ in range(9): pass\n"
    write(tmp_path, {"study.py": text})
    with pytest.raises(KeyboardInterrupt):
        load_study(tmp_path / "study.py")


def test_what_is_missing_is_named_as_the_study_names_it(tmp_path):
    write(tmp_path, {"study.py": "from models.nets import x\n", "models/__init__.py": ""})
    with pytest.raises(StudyError, match=r"No module named 'models\.nets'$"):
        load_study(tmp_path / "study.py")
    write(tmp_path, {"study.py": "try:\n import absent\nexcept ImportError as e: study = e.name\n"})
    with pytest.raises(StudyError, match="has a str"):
        load_study(tmp_path / "study.py")
    write(tmp_path, {"study.py": "import bad\n", "bad.py": "def f(:\n"})
    with pytest.raises(StudyError, match=r"bad\.py does not parse: line 1"):
        load_study(tmp_path / "study.py")


def test_the_declaration_is_out_of_the_reach_of_the_studys_code(tmp_path):
    body = """
        KNOWN = {"small": {"width": 2}}
        def build(genome):
            KNOWN["small"]["width"] = 99
            return mlp(1, [3], 1)
        """
    text = study_text(body).replace("    task=", "    baselines=KNOWN,\n    task=")
    write(tmp_path, {"study.py": text})
    file = load_study(tmp_path / "study.py")
    file.study.build({})
    assert file.study.baselines == {"small": {"width": 2}}


def test_constraints_are_given_copies():
    from evometa import space as s

    space = s.Struct(a=s.Int(1, 5), b=s.List(s.Int(1, 5), min=1, max=3), constraints=[spoils])
    rng = np.random.default_rng(0)
    genome = space.sample(rng)
    for _ in range(20):
        before = pickle.dumps(genome)
        space.validate(genome)
        child = space.mutate(genome, rng)
        assert pickle.dumps(genome) == before
        space.validate(child)
        genome = space.crossover(genome, child, rng)


def spoils(genome):
    genome["b"].append(77)
    return bool(genome.pop("a"))


def test_another_process_imports_by_what_is_sent(tmp_path):
    """Functions that travel by value, as lambdas do, import late and read files as well."""
    body = """
        import functools, pathlib, threading
        LOCK = threading.Lock()
        @functools.lru_cache
        def size(): return int((pathlib.Path(__file__).parent / "size.txt").read_text())
        class Base: pass
        def outer():
            def build(genome):
                import importlib
                from helpers import make, Known
                assert isinstance(Known(), Base)
                assert importlib.import_module("helpers").make is make
                return make(genome)
            return build
        build = outer()
        """
    helpers = "import study\nclass Known(study.Base): pass\n" + make("study.size()")
    write(tmp_path / "p", {"study.py": study_text(body), "helpers.py": helpers})
    write(tmp_path / "p", {"size.txt": "11"})
    file = load_study(tmp_path / "p" / "study.py")
    assert width(file) == 11
    sent = ray.cloudpickle.dumps(Shipped.of(file, file.study))
    (tmp_path / "sent").write_bytes(sent)
    shutil.rmtree(tmp_path / "p")
    code = (
        "import pathlib, pickle, sys\n"
        "got = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes()).evaluate\n"
        "print(got.build({'width': 4})[0].out_features)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "sent"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "EVOMETA_CACHE": str(tmp_path / "cache")},
    )
    assert found.stdout.strip() == "11", found.stderr


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_workers_import_and_read_late(tmp_path):
    body = """
        import pathlib
        def build(genome):
            from helpers import make
            size = int((pathlib.Path(__file__).parent / "size.txt").read_text())
            assert not pathlib.Path(__file__).is_relative_to(ORIGINAL)
            return make({"width": size})
        """
    body = body.replace("ORIGINAL", repr(str(tmp_path / "p")))
    write(
        tmp_path / "p",
        {"study.py": study_text(body), "helpers.py": make("genome['width']"), "size.txt": "11"},
    )
    file = prepare(load_study(tmp_path / "p" / "study.py"), Data())
    with pytest.raises(AssertionError):  # in this process the originals are used
        file.study.build({"width": 4})
    start(
        file,
        tmp_path / "run",
        Settings(3, device="cpu"),
        Workers("ray", count=1, gpus=0),
        lambda *_: Nobody(),
    )
    table = read_table(tmp_path / "run")
    assert table["status"].to_pylist() == ["OK"] * 3, table["error"].to_pylist()
    assert set(table["params"].to_pylist()) == {11 * 3 + 1}


def test_a_run_without_kept_files_still_opens(run, tmp_path):
    """As those of before have none; what they import is looked for where it was."""
    import json

    kept = RunDirectory.read(run)
    del kept["files"]
    (run / "study.json").write_text(json.dumps(kept))
    shutil.rmtree(run / "files")
    assert width(read_run(run).file) == 11
    assert importlib.util.find_spec("helpers") is None


def test_check_lists_what_is_kept_with_a_run_and_what_is_only_named(tmp_path, monkeypatch):
    monkeypatch.setattr(bundle_module, "FILE_BYTES", 1000)
    body = """
        from pathlib import Path
        import helper

        def build(genome):
            late = Path(__file__).with_name("la" + "te.bin").read_bytes()
            Path(__file__).with_name("large.bin").read_bytes()
            return mlp(1, [genome["width"] + len(late) - 7], 1)
    """
    files = {"helper.py": "X = 1\n", "late.bin": b"1234567", "large.bin": b"0" * 2000}
    write(tmp_path, {**files, "study.py": study_text(body)})
    said = io.StringIO()
    print_check(Console(file=said, width=10_000), load_study(tmp_path / "study.py"), 3, 0)
    lines = said.getvalue().splitlines()
    for name, data in files.items():
        digest = hashlib.sha256(data if isinstance(data, bytes) else data.encode()).hexdigest()
        (line,) = [each for each in lines if f"/{name}, {len(data):,} bytes" in each]
        assert digest[:12] in line
        assert (f"must stay at {tmp_path / name}" in line) == (name == "large.bin")
    assert any(each.split()[:2] == ["files", "3"] for each in lines)

"""The README's Python blocks run as printed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import evometa

ROOT = Path(__file__).resolve().parents[1]
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a small run of the sinusoid study."""
    folder = tmp_path_factory.mktemp("readme")
    study = str(ROOT / "search_spaces" / "sinusoid.py")
    result = run([sys.executable, "-m", "evometa.cli", "search", study, *SHORT], folder)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


SHORT = ("-n", "4", "--iterations", "3", "--executor", "serial")


def run(command, folder):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_block_runs(number, place):
    result = run([sys.executable, "-W", "error", "-c", BLOCKS[number]], place)
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("number", [n for n, b in enumerate(BLOCKS) if "study = Study(" in b])
def test_the_studies_of_the_readme_search(number, place):
    (place / f"mine{number}.py").write_text(BLOCKS[number])
    evometa("search", f"mine{number}.py", *SHORT, "--iterations", "9", folder=place)


def test_both_commands_are_there():
    text = (ROOT / "README.md").read_text()
    assert "pip install . && evometa search search_spaces/sinusoid.py" in text
    assert "pip install '.[test]' && python -m pytest" in text

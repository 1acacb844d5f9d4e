"""A search survives what happens to its driver and to its disk, at any moment."""

import random
import shutil
import time

import pytest

from tests.driven import STUDY, Driven, begun, rows, run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

# a plan that the clock cannot change: two plans differ in rounding
SERIAL = ("--executor", "serial")
KINDS = {
    "plain": ("-n", 24),
    "rungs": ("-n", 16, "--rungs", 2, "--seeds", 2, "--constraint", "params <= 60"),
    "packs": ("-n", 24, "--pack", 4, "--searcher", "nsga2"),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Each kind of search, never stopped: its table, and how long it takes."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "study.py").write_text(STUDY)
    found = {}
    for kind, options in KINDS.items():
        started = time.monotonic()
        run(folder, "search", "study.py", "--run", kind, "--plan", "vmap", *SERIAL, *options)
        found[kind] = rows(folder / kind), time.monotonic() - started
    return found


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "study.py").write_text(STUDY)
    return tmp_path


def go_on(folder, name, kind, where):
    """Resume, or start where there is nothing to resume, as a person would."""
    if (folder / name / "study.json").exists():
        return Driven(folder, "resume", name, *where)
    options = (*KINDS[kind], "--plan", "vmap")
    return Driven(folder, "search", "study.py", "--run", name, *options, *where)


def survive(folder, whole, kinds, kills, where):
    """Kill searches at random moments and resume them, until all of them are through.

    Half of the moments are any, from the first; half are after something new is stored.
    """
    chance, moments, kept = random.Random(kills), [], 0
    while len(moments) < kills:
        kind = kinds[len(moments) % len(kinds)]
        table, seconds = whole[kind]
        name, before, through = f"{kind}{len(moments)}", {}, False
        while not through:
            driven = go_on(folder, name, kind, where)
            later, moment = chance.random() < 0.5, chance.uniform(0, seconds / 2)
            if len(moments) == kills:
                through = driven.ends(120)
            else:
                through = later and driven.stores(folder / name, len(before))
                through = through or driven.ends(moment)
            if not through:
                driven.kill()
                moments.append(f"{name}: {moment:.3f} s after {'new rows' if later else 'start'}")
                print(moments[-1])
            now = begun(folder / name)
            assert before.items() <= now.items(), "what was stored is lost, or was made again"
            kept += 0 < len(now) < len(table)
            before = now
        assert driven.process.exitcode == 0, driven.said
        assert rows(folder / name) == table
        assert not (folder / name / "logs").exists()
    assert kept >= kills / 4, "nearly all the moments were before the first row, or after the last"


def test_sixteen_kills(folder, whole):
    survive(folder, whole, list(KINDS), 16, SERIAL)


def test_four_kills_with_ray(folder, whole):
    where = ("--executor", "ray", "--workers", 2)
    survive(folder, whole, ["rungs"], 4, where)


@pytest.mark.parametrize("kind", ["plain", "rungs"])
@pytest.mark.parametrize(
    ("befall", "word"),
    [(Driven.fill_the_disk, "File too large"), (Driven.lock, "Read-only file system")],
    ids=["full", "read-only"],
)
def test_a_disk_that_takes_no_more(folder, whole, kind, befall, word):
    """One of the two moments is any, the other after the first row."""
    table, seconds = whole[kind]
    chance = random.Random(f"{kind} {word}")
    for later in (False, True):
        name, stopped, longest = f"run{later}", False, seconds
        while not stopped:
            longest /= 2  # `seconds` may be of a slow minute
            shutil.rmtree(folder / name, ignore_errors=True)
            driven, moment = go_on(folder, name, kind, SERIAL), chance.uniform(0, longest)
            print(f"{moment:.3f} s after {'the first row' if later else 'the start'}")
            if (later and driven.stores(folder / name, 0)) or driven.ends(moment):
                continue  # it was through before
            before = begun(folder / name)
            befall(driven)
            assert driven.ends(60)
            driven.unlock()
            stopped = driven.process.exitcode != 0
        assert driven.process.exitcode == 2, driven.said
        assert word in driven.said and "Traceback" not in driven.said
        assert "cannot be written" in driven.said or "cannot be created" in driven.said
        assert before.items() <= begun(folder / name).items()
        driven = go_on(folder, name, kind, SERIAL)
        assert driven.ends(60) and driven.process.exitcode == 0, driven.said
        assert before.items() <= begun(folder / name).items()
        assert rows(folder / name) == table

"""A search survives what happens to its driver and to its disk, at any change to its folder."""

import random

import pytest

from tests.driven import STUDY, Driven, begun, rows

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

QUICK = STUDY.replace("time.sleep(0.03)", "None")
# a plan that the clock cannot change: two plans differ in rounding
SERIAL = ("--executor", "serial")
KINDS = {
    "plain": ("-n", 12),
    "rungs": ("-n", 12, "--rungs", 2, "--seeds", 2, "--constraint", "params <= 60"),
    "packs": ("-n", 12, "--pack", 4, "--searcher", "nsga2"),
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "study.py").write_text(QUICK)
    return tmp_path


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Gives of a kind of search, never stopped, its table and how often it changes its folder."""
    folder, found = tmp_path_factory.mktemp("whole"), {}
    (folder / "study.py").write_text(QUICK)

    def of(kind):
        if kind not in found:
            driven = go_on(folder, kind, kind, SERIAL)
            assert driven.ends(250) and driven.process.exitcode == 0, driven.said
            found[kind] = rows(folder / kind), driven.changes
        return found[kind]

    return of


def go_on(folder, name, kind, where, **more):
    """Resume, or start where there is nothing to resume, as a person would."""
    more["part"] = 1
    if (folder / name / "study.json").exists():
        return Driven(folder, "resume", name, *where, **more)
    options = (*KINDS[kind], "--plan", "vmap")
    return Driven(folder, "search", "study.py", "--run", name, *options, *where, **more)


def survive(folder, whole, kind, kills, where):
    """Kill a search before any of the changes that are left, again and again; let it end."""
    (table, changes), before, chance = whole(kind), {}, random.Random(f"{kind} {kills}")
    kept = 0
    for kill in range(kills):
        when = chance.randint(1, max(20, changes * 2 // (kills - kill + 1)))
        driven = go_on(folder, kind, kind, where, befalls=("kill", when))
        assert driven.ends(250), driven.said
        print(f"killed before change {when} of about {changes}: {driven.process.exitcode}")
        changes, now = changes - when, begun(folder / kind)
        assert before.items() <= now.items(), "what was stored is lost, or was made again"
        kept += 0 < len(now) < len(table)
        before = now
    assert kept, "all kills were before the first row, or after the last"
    driven = go_on(folder, kind, kind, where)
    assert driven.ends(250) and driven.process.exitcode == 0, driven.said
    assert before.items() <= begun(folder / kind).items()
    assert rows(folder / kind) == table
    assert not (folder / kind / "logs").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_kills(folder, whole, kind):
    survive(folder, whole, kind, 3, SERIAL)


@pytest.mark.nightly
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", KINDS)
def test_twelve_kills(folder, whole, kind):
    survive(folder, whole, kind, 12, SERIAL)


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_four_kills_with_ray(folder, whole):
    survive(folder, whole, "rungs", 4, ("--executor", "ray", "--workers", 2))


FAULTS = {"fill": "File too large", "lock": "Read-only file system"}
MOMENTS = [
    pytest.param(what, kind, share, marks=[] if quick else pytest.mark.nightly)
    for what in FAULTS
    for kind, share, quick in (
        ("plain", 0.0, what == "lock"),
        ("plain", 0.3, what == "fill"),
        ("rungs", 0.1, False),
        ("rungs", 0.6, what == "lock"),
        ("rungs", 0.5, what == "fill"),
    )
]


@pytest.mark.parametrize(("what", "kind", "share"), MOMENTS)
def test_a_disk_that_takes_no_more(folder, whole, what, kind, share):
    table, changes = whole(kind)
    driven = go_on(folder, "run", kind, SERIAL, befalls=(what, 1 + int(share * changes)))
    assert driven.ends(250) and driven.process.exitcode == 2, driven.said
    assert FAULTS[what] in driven.said and "Traceback" not in driven.said
    assert "cannot be written" in driven.said or "cannot be created" in driven.said
    before = begun(folder / "run")
    driven = go_on(folder, "run", kind, SERIAL)
    assert driven.ends(250) and driven.process.exitcode == 0, driven.said
    assert before.items() <= begun(folder / "run").items()
    assert rows(folder / "run") == table

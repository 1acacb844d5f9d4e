"""Laws of the supervisor, on a cluster that does not exist."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evometa.errors import ExecutorError
from evometa.execute.failures import Failure
from evometa.execute.fleet import Gone
from evometa.execute.supervisor import Limits, Supervisor
from evometa.records import Candidate, Status
from tests.execute.world import World

FATE = {
    "segfault": Status.LOST,
    "eat": Status.OOM,
    "sleep": Status.TIMEOUT,
    "cancel": Status.ERROR,
}


def supervise(world, **options):
    return Supervisor(world, clock=world.clock, **options)


def submit(supervisor, genomes, pack=1):
    crowd = [Candidate(number, genome, 0) for number, genome in enumerate(genomes)]
    for start in range(0, len(crowd), pack):
        supervisor.submit(crowd[start : start + pack])
    return crowd


def collect(supervisor, world, n, seconds=1e5):
    found, until = [], world.now + seconds
    while len(found) < n and world.now < until:
        found += supervisor.collect(1.0)
    assert supervisor.collect(1.0) == []
    return {evaluation.candidate.number: evaluation for evaluation in found}, found


genomes = st.lists(
    st.one_of(st.floats(0.01, 5.0), st.floats(0.01, 5.0), st.sampled_from(sorted(FATE))),
    max_size=24,
)


@settings(max_examples=150, deadline=None)
@given(
    genomes,
    st.integers(1, 6),
    st.lists(st.integers(1, 3), min_size=1, max_size=3),
    st.booleans(),
    st.integers(0, 9),
)
def test_every_innocent_is_right_and_every_guilty_one_has_its_status(
    genomes, pack, slots, elastic, seed
):
    world = World({f"node-{i}": n for i, n in enumerate(slots)}, seed)
    most = None if elastic else sum(slots)
    supervisor = supervise(world, most=most, elastic=elastic, limits=Limits(hard=20.0))
    submit(supervisor, genomes, pack)
    by_number, found = collect(supervisor, world, len(genomes))
    assert len(found) == len(by_number) == len(genomes)
    for number, genome in enumerate(genomes):
        assert by_number[number].status is FATE.get(genome, Status.OK), genome


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4))
def test_nothing_is_lost_when_nodes_come_and_go(seed, pack):
    world = World({"a": 2, "b": 2}, seed)
    supervisor = supervise(world, elastic=True)
    genomes = [world.random.uniform(0.1, 20.0) for _ in range(40)]

    def preempt(node):
        world.leaving.add(node)
        world.later(2.0, lambda: world.lose(node))

    for i, at in enumerate(sorted(world.random.uniform(5, 150) for _ in range(8))):
        node = world.random.choice(["a", "b", *(f"new-{j}" for j in range(i))])
        world.later(at, lambda node=node: preempt(node))
        world.later(at + 1, lambda i=i: world.free.update({f"new-{i}": 2}) or world.settle())
    submit(supervisor, genomes, pack)
    by_number, found = collect(supervisor, world, 40)
    assert len(found) == len(by_number) == 40
    assert {e.status for e in found} == {Status.OK}


def test_draining_stops_new_work_at_once_and_is_no_failure_of_the_pack():
    world = World({"a": 1, "b": 1})
    supervisor = supervise(world, most=2)
    submit(supervisor, [10.0] * 6)
    supervisor.collect(2.0)
    world.leaving.add("a")
    supervisor.collect(0.1)
    marked = world.now
    _, found = collect(supervisor, world, 6)
    assert [place for at, place, _ in world.begun if at > marked] == ["b"] * 4
    assert "a" not in world.place.values()
    assert {e.status for e in found} == {Status.OK}


def test_a_pack_of_a_lost_node_runs_on_another():
    world = World({"a": 1, "b": 1})
    supervisor = supervise(world, most=2)
    submit(supervisor, [10.0] * 2)
    supervisor.collect(2.0)
    (lost,) = [pack for _, place, pack in world.begun if place == "a"]
    world.later(1.0, lambda: world.lose("a"))
    collect(supervisor, world, 2)
    assert [place for _, place, pack in world.begun if pack == lost] == ["a", "b"]
    assert supervisor.counts().failures == {"node": 1}


def test_who_eats_memory_eats_alone_before_it_is_blamed():
    world = World({"a": 3})
    supervisor = supervise(world, most=3)
    submit(supervisor, [2.0, "eat", *[2.0] * 8])
    by_number, _ = collect(supervisor, world, 10)
    assert by_number[1].status is Status.OOM
    assert world.peak_beside_eater == 0  # at its last run


def test_workers_come_with_the_work_and_go_when_idle():
    world = World({"a": 4})
    supervisor = supervise(world, elastic=True, most=8)
    assert supervisor.counts().starting == 0
    submit(supervisor, [3.0] * 6)
    assert supervisor.counts().starting == 6  # four will come; the rest is what an autoscaler sees
    supervisor.collect(2.0)
    world.free["late"] = 2
    world.settle()
    joined = world.now
    collect(supervisor, world, 6)
    assert any(place == "late" and at - joined < 2 for at, place, _ in world.begun)
    collect(supervisor, world, 1, seconds=100.0)
    assert supervisor.counts().alive == supervisor.counts().starting == 0
    submit(supervisor, [1.0])
    collect(supervisor, world, 1)


def test_nothing_is_asked_for_after_the_end():
    world = World({"a": 1})
    supervisor = supervise(world, elastic=True)
    submit(supervisor, [3.0] * 6)
    supervisor.close()
    assert not world.waiting and not world.place


def test_a_pack_does_not_wait_behind_a_long_one_while_others_idle():
    world = World({"a": 2})
    supervisor = supervise(world, most=2)
    submit(supervisor, [100.0, 1.0, 1.0, 1.0])
    collect(supervisor, world, 3)
    assert world.now < 10


def test_limits_count_from_when_a_pack_begins_and_grow_with_it():
    world = World({"a": 1})
    supervisor = supervise(world, most=1, limits=Limits(soft=2.0, hard=3.0))
    submit(supervisor, [2.5, 2.5, 2.5, 2.5, "sleep"], pack=2)
    by_number, _ = collect(supervisor, world, 5)
    assert [by_number[n].status for n in range(5)] == [Status.OK] * 4 + [Status.TIMEOUT]
    assert "hard limit of 3 s" in by_number[4].error
    assert "in 3.5 s it had 0.9 s of CPU time, and waited 1.8 s for a core" in by_number[4].error
    assert world.soft == [4.0, 4.0, 2.0]


@pytest.mark.parametrize("limits", [{"hard": 0.0}, {"soft": -1.0}, {"soft": 2.0, "hard": 1.0}])
def test_limits_that_make_no_sense_are_refused(limits):
    with pytest.raises(ExecutorError, match="must hold, but got"):
        Limits(**limits)


def test_no_worker_at_all_is_said():
    world = World({})
    supervisor = supervise(world, most=2)
    submit(supervisor, [1.0])
    with pytest.raises(ExecutorError, match=r"no worker started within 120 s: each worker needs"):
        for _ in range(200):
            supervisor.collect(1.0)


def test_workers_that_cannot_start_are_said():
    world = World({})
    supervisor = supervise(world, most=2)
    for number in (1, 2, 3):
        world.later(number, lambda n=number: [Gone(n, Failure.CRASH, "no module named study")])
    with pytest.raises(ExecutorError, match="cannot load the study: no module named study"):
        for _ in range(20):
            supervisor.collect(1.0)


def test_busy_time_is_counted():
    world = World({"a": 2})
    supervisor = supervise(world, most=2)
    submit(supervisor, [5.0] * 4)
    collect(supervisor, world, 4)
    counts = supervisor.counts()
    assert counts.busy_seconds == pytest.approx(20.0)
    assert (counts.alive, counts.busy, counts.lost) == (2, 0, 0)
    assert counts.utilisation == pytest.approx(20.0 / (2 * (world.now - 1.0)))

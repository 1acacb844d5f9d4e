"""Two drivers of one run on an object store, on a clock that nobody waits for."""

import os
import random

import pytest
from pyarrow import fs

from evometa.errors import StoreError
from evometa.space import gene_value
from evometa.store import RunDirectory, Writer, is_held, lock, run_directory
from evometa.store import writer as writer_module
from evometa.store.lock import LEASE_SECONDS, Lease
from evometa.store.remote import RemotePath
from tests.store.test_store import SCHEMA, SOURCE, STUDY, evaluation, numbers_in


class Clock:
    """That of the store, in whole seconds, and of all drivers."""

    now = 1_000_000.5

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    """Stores stamp by it, leases count by it, and nothing is renewed but when asked for."""
    clock, write = Clock(), RemotePath.write_bytes

    def stamped(self, data):
        os.makedirs(self._path.parent, exist_ok=True)  # noqa: PTH103 - object stores need no folder
        write(self, data)
        os.utime(self._path, (int(clock.now), int(clock.now)))

    monkeypatch.setattr(RemotePath, "write_bytes", stamped)
    monkeypatch.setattr(lock, "RENEW_SECONDS", 1e6)
    monkeypatch.setattr(run_directory, "hold", lambda run: Lease(run, clock))
    monkeypatch.setattr(writer_module, "FLUSH_SECONDS", 1e6)
    return clock


@pytest.fixture
def run(tmp_path, clock):
    return RemotePath(fs.LocalFileSystem(), str(tmp_path / "run"), "s3://bucket/run")


class Driver:
    def __init__(self, directory):
        self.directory = directory
        self.writer = Writer(directory, SCHEMA, gene_value)

    def stores(self, *numbers):
        for number in numbers:
            self.writer.append(evaluation(number), number)
        self.writer.flush()


def begin(run):
    return Driver(RunDirectory.create(run, STUDY, SOURCE))


def follow(run):
    return Driver(RunDirectory.open(run))


def contents(run):
    return {path.name: path.read_bytes() for path in (run / "evaluations").iterdir()}


LOST = "another driver may have taken over"


def test_who_was_suspended_for_longer_than_the_lease_writes_over_nobody(run, clock):
    first = begin(run)
    first.stores(0, 1, 2)
    clock.now += LEASE_SECONDS
    second = follow(run)
    second.stores(*range(3, 20))
    before = contents(run)
    first.directory.lock.renew()
    for attempt in range(2):
        with pytest.raises(StoreError, match=LOST):
            first.stores(3 + attempt)
    with pytest.raises(StoreError, match=LOST):
        first.directory.end({})
    assert contents(run) == before and numbers_in(run) == list(range(20))
    second.directory.lock.renew()
    second.stores(20)
    assert numbers_in(run) == list(range(21))


@pytest.mark.parametrize("followed", [False, True])
def test_a_renewal_after_the_lease_is_a_loss(run, clock, followed):
    for seconds, kept in ((LEASE_SECONDS - 1, True), (LEASE_SECONDS, False)):
        driver = begin(run) if kept else follow(run)
        clock.now += seconds
        if followed and not kept:
            follow(run).directory.lock.release()
        driver.directory.lock.renew()
        if kept:
            driver.stores(0)
            driver.directory.lock.release()
            continue
        with pytest.raises(StoreError, match=LOST):
            driver.stores(1)
        assert list((run / ".lock").iterdir()) == [], "a lost lease must keep nobody out"


def test_a_part_that_came_after_the_lease_is_withdrawn(run, clock, monkeypatch):
    first, write, followed = begin(run), RemotePath.write_bytes, []
    first.stores(0)

    def suspended(path, data):
        if path.name.startswith("part-") and not followed:
            clock.now += LEASE_SECONDS
            followed.append(follow(run))
            followed[0].stores(1, 2)
        write(path, data)

    monkeypatch.setattr(RemotePath, "write_bytes", suspended)
    with pytest.raises(StoreError, match=LOST):
        first.stores(1)
    assert numbers_in(run) == [0, 1, 2] and len(contents(run)) == 2


def test_only_the_clock_of_the_store_can_tell_and_does(run, clock):
    """A machine that is suspended as a whole does not know for how long."""
    first = begin(run)
    first.directory.lock._clock = lambda: 0.0
    first.directory.lock._renewed_at = 0.0
    clock.now += LEASE_SECONDS
    follow(run).stores(0)
    with pytest.raises(StoreError, match=LOST):
        first.stores(1)
    assert numbers_in(run) == [0]


@pytest.mark.parametrize("seed", range(6))
def test_what_was_stored_stays_whoever_sleeps_and_wakes(run, clock, seed):
    chance, drivers, kept, number = random.Random(seed), [begin(run)], set(), 0
    for _ in range(50):
        clock.now += chance.choice([0, 1, 10, LEASE_SECONDS / 2])
        if chance.random() < 0.3:
            try:
                drivers.append(follow(run))
            except StoreError as error:
                assert "another driver works on" in str(error)
        driver = chance.choice([*drivers, drivers[-1], drivers[-1]])
        if chance.random() < 0.5:
            driver.directory.lock.renew()
        try:
            driver.stores(number, number + 1)
            kept |= {number, number + 1}
        except StoreError as error:
            assert LOST in str(error)
        number += 2
        assert kept <= set(numbers_in(run))
    assert len(drivers) > 1 and len(kept) > 10


def test_parts_named_in_the_older_way_are_read_merged_and_followed(run, clock, monkeypatch):
    monkeypatch.setattr(writer_module, "MOST_PARTS", 4)
    begin(run).directory.lock.release()
    older = Driver(RunDirectory.open(run))
    older.writer._named = lambda numbers: run / "evaluations" / f"part-{numbers}.parquet"
    older.stores(0)
    older.stores(1)
    older.directory.lock.release()
    assert set(contents(run)) == {"part-000000.parquet", "part-000001.parquet"}
    newer = follow(run)
    for number in range(2, 9):
        newer.stores(number)
    assert numbers_in(run) == list(range(9)) and len(contents(run)) <= 4
    assert newer.writer.recall(0, 0, 0).candidate.number == 0


def test_parts_merged_by_who_woke_up_late_are_found(run, clock):
    """It deletes parts that it had merged before it slept; who followed must not miss them."""
    first = begin(run)
    for number in range(12):
        first.stores(number)
    first.directory.lock.release()
    second = follow(run)
    first.directory.lock._lost = False
    first.writer._compact(8)
    assert second.writer.recall(11, 0, 0).candidate.number == 11
    second.stores(12)
    second.writer.close()
    assert numbers_in(run) == list(range(13))


def test_a_run_is_held_for_a_lease_after_the_last_renewal_and_no_longer(run, clock):
    driver = begin(run)
    assert is_held(run)
    clock.now += LEASE_SECONDS - 1
    driver.directory.lock.renew()
    clock.now += LEASE_SECONDS - 1
    assert is_held(run), "it has been renewed"
    before = sorted(path.name for path in run.iterdir())
    clock.now += 1  # the driver has died
    assert not is_held(run)
    assert sorted(path.name for path in run.iterdir()) == before, "who looks leaves nothing"
    second = follow(run)
    assert is_held(run)
    second.directory.lock.release()
    assert not is_held(run)


def test_who_may_only_read_goes_by_a_clock_of_its_own(run, clock, monkeypatch):
    begin(run)

    def refused(self, data):
        raise PermissionError("read only")

    monkeypatch.setattr(RemotePath, "write_bytes", refused)
    monkeypatch.setattr(lock.time, "time", lambda: clock.now)
    assert is_held(run)
    clock.now += LEASE_SECONDS
    assert not is_held(run)

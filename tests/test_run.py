"""The loop: same table for any number of workers, any break, any order of arrival."""

import contextlib
import random
from collections import Counter
from dataclasses import replace

import pytest

from evometa.budget import Budget, Meter
from evometa.errors import StoreError, StudyError
from evometa.execute import Serial, Simulated
from evometa.records import Candidate, Evaluation, Status, derive_seed, genome_hash
from evometa.run import Schedule, Search
from evometa.search import RungRole, Wishes, make_searcher
from evometa.space import Choice, Float, Int, List, Struct

OBJECTIVES = {"loss": "min", "cost": "min"}
SPACE = Struct(
    x=Float(0, 1),
    widths=List(Int(1, 8), 1, 3),
    kind=Choice("a", "b"),
    deep=Choice("no", yes=Int(0, 3)),
)


def evaluate(pack):
    return [outcome(candidate) for candidate in pack]


def outcome(candidate):
    chance = random.Random(f"{genome_hash(candidate.genome)}/{candidate.seed}")
    if chance.random() < 0.15:
        return Evaluation(candidate, Status.DIVERGED, error="by chance")
    loss = abs(candidate.genome["x"] - 0.4) + chance.gauss(0, 0.01)
    return Evaluation(
        candidate, Status.OK, {"loss": loss, "cost": float(sum(candidate.genome["widths"]))}
    )


class Table:
    """Keeps evaluations as a run directory would."""

    def __init__(self, stop_after=None):
        self.rows, self._stop_after = [], stop_after

    def append(self, evaluation, told):
        if self._stop_after is not None and len(self.rows) >= self._stop_after:
            raise KeyboardInterrupt
        self.rows.append((told, evaluation))

    def recall(self, *key):
        return next(e for _, e in self.rows if e.candidate.key == key)

    def in_order(self):
        return [evaluation for _, evaluation in sorted(self.rows, key=lambda row: row[0])]


class Nobody:
    def __init__(self):
        self.seen = Counter()

    def recorded(self, evaluation):
        self.seen[evaluation.candidate.id] += 1

    found = recorded

    def tick(self):
        pass


def meter(**budget):
    return Meter(Budget(**budget), OBJECTIVES)


def limited(name, n, seed=5, space=SPACE, **wishes):
    return make_searcher(name, space, OBJECTIVES, seed, Wishes(n, **wishes))


def executor(slots):
    return Simulated(
        evaluate, lambda c: random.Random(derive_seed(slots, c.number)).expovariate(1), slots
    )


def search(
    name="nsga2",
    order="logical",
    slots=1,
    stop_after=None,
    stored=None,
    n=80,
    window=8,
    pack=1,
    **wishes,
):
    """Search, be stopped when `stop_after` rows are kept, and return the table."""
    table = Table(stop_after)
    if stored:
        table.rows = list(stored.rows)
    searcher = limited(name, n, **wishes)
    schedule = Schedule(window, order, pack)
    with contextlib.suppress(KeyboardInterrupt):
        Search(searcher, executor(slots), table, Nobody(), meter(), schedule).run(
            stored.in_order() if stored else ()
        )
    return table


@pytest.mark.parametrize("name", ["random", "evolution", "nsga2", "hybrid"])
def test_one_worker_and_many_give_the_same_table(name):
    tables = [search(name, slots=slots).in_order() for slots in (1, 3, 64)]
    assert tables[0] == tables[1] == tables[2]
    assert len(tables[0]) == 80
    assert Counter(e.status for e in tables[0])[Status.DIVERGED] > 0


@pytest.mark.parametrize("slots", [1, 5])
def test_resumed_equals_uninterrupted(slots):
    whole = search(slots=slots).in_order()
    for stop in (0, 1, 7, 8, 9, 33, 79, 80):
        part = search(slots=slots, stop_after=stop)
        assert len(part.rows) == min(stop, 80)
        again = search(slots=2, stored=part).in_order()
        assert again == whole, f"killed after {stop}"


def test_a_longer_budget_extends_the_same_table():
    short = search(n=50)
    assert search(n=80, stored=short).in_order() == search(n=80).in_order()


@pytest.mark.parametrize("pack", [3, 8])
def test_packs_keep_the_laws(pack):
    """Any number of workers, any break, a longer budget."""
    whole = search(slots=1, pack=pack).in_order()
    assert search(slots=9, pack=pack).in_order() == whole
    for stop in (1, 7, 33, 79):
        part = search(slots=3, stop_after=stop, pack=pack)
        assert search(slots=2, stored=part, pack=pack).in_order() == whole
    for short in (17, 50):
        part = search(n=short, pack=pack)
        assert len(part.rows) == short
        assert search(stored=part, pack=pack).in_order() == whole


def in_company(pack):
    """Like rounding: what comes out depends, a little, on who else is in the pack."""
    noise = random.Random("/".join(c.id for c in pack)).random() * 1e-9
    found = evaluate(pack)
    return [
        replace(e, metrics={name: value + noise for name, value in e.metrics.items()})
        for e in found
    ]


def test_a_pack_that_was_stored_in_part_comes_out_as_it_was():
    def run(stored=(), stop_after=None):
        table = Table(stop_after)
        table.rows = [(e.candidate.number, e) for e in stored]
        searcher = limited("nsga2", 40)
        schedule = Schedule(8, "logical", 4)
        with contextlib.suppress(KeyboardInterrupt):
            Search(searcher, Serial(in_company), table, Nobody(), meter(), schedule).run(stored)
        return table.in_order()

    whole = run()
    for stop in (1, 6, 7, 13, 30, 39):
        assert run(run(stop_after=stop)) == whole, stop


def test_a_pack_larger_than_the_window_is_refused():
    with pytest.raises(StudyError, match="pack <= window"):
        Schedule(window=4, pack=5)


def test_nothing_stored_is_evaluated_again():
    part = search(slots=4, stop_after=40).in_order()
    evaluated = []

    def watch(pack):
        evaluated.extend(c.id for c in pack)
        return evaluate(pack)

    table = Table()
    table.rows = [(e.candidate.number, e) for e in part]
    searcher = limited("nsga2", 80)
    Search(searcher, Serial(watch), table, Nobody(), meter(), Schedule(8)).run(part)
    assert not set(evaluated) & {e.candidate.id for e in part}
    assert len(evaluated) == len(set(evaluated)) == 40


def test_arrival_order_tells_as_results_come_and_goes_on_after_a_break():
    whole = search(order="arrival", slots=6)
    tellings = [told for told, _ in whole.rows]
    assert tellings == list(range(80))
    numbers = [e.candidate.number for _, e in whole.rows]
    assert numbers != sorted(numbers)
    part = search(order="arrival", slots=6, stop_after=30)
    rest = search(order="arrival", slots=6, stored=part)
    assert rest.rows[:30] == part.rows
    assert len({e.candidate.id for _, e in rest.rows}) == len(rest.rows) == 80


class Repeating:
    """A searcher that proposes each genome three times."""

    def __init__(self):
        self.next, self.told = 0, []

    def ask(self, n):
        n = min(n, 12 - self.next)
        self.next += n
        return [
            Candidate(i, {"x": i // 3 / 10, "widths": [1]}, seed=i)
            for i in range(self.next - n, self.next)
        ]

    def tell(self, evaluations):
        self.told += evaluations


@pytest.mark.parametrize("slots", [1, 4])
def test_duplicates_are_not_paid_for_twice(slots):
    evaluated, table, searcher = [], Table(), Repeating()

    def watch(pack):
        evaluated.extend(c.number for c in pack)
        return evaluate(pack)

    run = Simulated(watch, lambda c: 1.0 + c.number % 2, slots)
    Search(searcher, run, table, Nobody(), meter(), Schedule(4)).run()
    assert sorted(evaluated) == [0, 3, 6, 9]
    assert [e.candidate.number for e in searcher.told] == list(range(12))
    for evaluation in table.in_order():
        number = evaluation.candidate.number
        original = number - number % 3
        assert evaluation.copied_from == ("" if number == original else f"c{original:06d}")
        assert evaluation.metrics == table.in_order()[original].metrics


def test_a_changed_searcher_is_noticed():
    part = search(stop_after=20).in_order()
    table = Table()
    other = limited("nsga2", 80, seed=6)
    with pytest.raises(
        StoreError, match="no longer proposes what it proposed before: candidate c000000"
    ):
        Search(other, executor(1), table, Nobody(), meter(), Schedule(8)).run(part)


def test_a_space_that_is_used_up_ends_the_search():
    space = Struct(x=Choice(0.1, 0.2), widths=Choice([1], [2]))
    searcher = limited("evolution", 100, space=space)
    table = Table()
    ended = Search(searcher, executor(2), table, Nobody(), meter(), Schedule(8)).run()
    assert len(table.rows) == 4
    assert ended == "nothing is left to propose"


def test_no_nan_is_ever_ranked():
    def odd(pack):
        values = {0: float("nan"), 1: float("inf"), 2: 1.0}
        return [Evaluation(c, Status.OK, {"loss": values[c.number], "cost": 1.0}) for c in pack]

    table = Table()
    searcher = limited("evolution", 3)
    Search(searcher, Serial(odd), table, Nobody(), meter(), Schedule(2)).run()
    first, second, third = table.in_order()
    assert (first.status, first.metrics, first.error) == (Status.DIVERGED, {}, "loss is nan")
    assert (second.status, third.status) == (Status.DIVERGED, Status.OK)


RUNGS = {"levels": (RungRole(), RungRole(), RungRole()), "repeats": 1}


@pytest.mark.parametrize("name", ["evolution", "hybrid"])
@pytest.mark.parametrize("pack", [1, 4])
def test_rungs_keep_the_laws(name, pack):
    """Any number of workers, any break: promotions are part of the order."""
    whole = search(name, pack=pack, **RUNGS).in_order()
    assert {e.candidate.key[1:] for e in whole} == {(0, 0), (1, 0), (2, 0), (2, 1)}
    assert len({e.candidate.number for e in whole}) == 80
    assert search(name, slots=7, pack=pack, **RUNGS).in_order() == whole
    for stop in (5, 50, len(whole) - 1):
        part = search(name, slots=3, stop_after=stop, pack=pack, **RUNGS)
        assert search(name, slots=2, stored=part, pack=pack, **RUNGS).in_order() == whole


def test_a_longer_budget_with_rungs_loses_nothing():
    short = search(n=40, **RUNGS)
    longer = search(n=80, **RUNGS, stored=short)
    keys = [e.candidate.key for _, e in longer.rows]
    assert len(set(keys)) == len(keys)
    assert {e.candidate.key for _, e in short.rows} <= set(keys)
    assert len({number for number, *_ in keys}) == 80


def test_arrival_order_with_rungs_goes_on_after_a_break():
    part = search("hybrid", "arrival", 6, 60, **RUNGS)
    rest = search("hybrid", "arrival", 6, stored=part, **RUNGS).rows
    assert rest[:60] == part.rows
    keys = [e.candidate.key for _, e in rest]
    assert len(set(keys)) == len(keys)
    assert len({number for number, *_ in keys}) == 80


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        ({"device_seconds": 25.0}, "25 device-seconds are used up"),
        ({"patience": 30}, "front has not moved over 30 results"),
        ({"hours": 1e-9}, "1e-09 hours are over"),
    ],
)
def test_budgets_end_cleanly(budget, said):
    """What was started is finished, recorded and told."""

    def second(pack):
        return [replace(e, seconds=1.0) for e in evaluate(pack)]

    run = Simulated(second, lambda c: 1.0, 4)
    table, searcher = Table(), limited("evolution", 500)
    ended = Search(searcher, run, table, Nobody(), meter(**budget), Schedule(8)).run()
    assert said in ended
    assert [told for told, _ in table.rows] == list(range(len(table.rows)))
    if "device_seconds" in budget:
        assert 25 <= len(table.rows) <= 25 + 8
    assert len(table.rows) < 500


@pytest.mark.parametrize("name", ["hours", "device_seconds", "patience"])
def test_a_budget_of_nothing_is_refused(name):
    with pytest.raises(StudyError, match=f"`{name} > 0` must hold"):
        Budget(**{name: 0})

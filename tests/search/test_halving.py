"""Successive halving: the best go on, whatever the order, and rungs are watched."""

import random

import numpy as np
import pytest

from evometa.limits import parse_limit, violation
from evometa.records import Candidate, Evaluation, Status, repeat_seed
from evometa.search import RungRole, SuccessiveHalving, Wishes, make_searcher
from evometa.space import Float, Struct

SPACE = Struct(x=Float(0.0, 1.0))
ONE = {"loss": "min"}
THREE = (RungRole(), RungRole(), RungRole())


def searcher(levels=THREE, limit=90, objectives=ONE, **wishes):
    return make_searcher("random", SPACE, objectives, 3, Wishes(limit, levels=levels, **wishes))


def tell(halving, candidate, loss, status=Status.OK, scores=(), limits=(), **metrics):
    metrics = {"loss": loss, **metrics}
    beyond = violation(metrics, limits)
    halving.tell([Evaluation(candidate, status, metrics, scores=scores, violation=beyond)])


def whole(halving, loss_of, n=1, **more):
    """Ask and tell until nothing is left; return all that was asked for."""
    asked = []
    while batch := halving.ask(n):
        asked += batch
        for candidate in batch:
            scores = more["scores"](candidate) if "scores" in more else ()
            tell(halving, candidate, loss_of(candidate), scores=scores)
    return asked


@pytest.mark.parametrize("n", [1, 4, 16])
def test_a_third_goes_on_at_each_rung(n):
    asked = whole(searcher(), lambda c: c.genome["x"], n)
    counts = [sum(c.rung == rung for c in asked) for rung in range(3)]
    assert counts == [90, 30, 10]
    top = sorted(c.genome["x"] for c in asked if c.rung == 2)
    everybody = sorted(c.genome["x"] for c in asked if c.rung == 0)
    assert top[0] == everybody[0]
    assert np.mean(top) < np.quantile(everybody, 0.35)


def test_a_candidate_keeps_its_genome_and_seed():
    asked = whole(searcher(), lambda c: c.genome["x"])
    first = {c.number: c for c in asked if c.rung == 0}
    for candidate in asked:
        assert candidate.genome == first[candidate.number].genome
        assert candidate.seed == first[candidate.number].seed


def test_failures_and_copies_are_never_promoted():
    halving, seen = searcher(), []
    while batch := halving.ask(1):
        (candidate,) = batch
        assert not (candidate.rung and candidate.number % 2)
        seen.append(candidate)
        if candidate.number % 2:
            tell(halving, candidate, 0.0, Status.DIVERGED)
        else:
            tell(halving, candidate, candidate.genome["x"])
    assert any(c.rung == 2 for c in seen)


def test_known_designs_reach_every_rung():
    halving = searcher(seeds={"poor": {"x": 0.999}})
    asked = whole(halving, lambda c: c.genome["x"])
    assert [c.rung for c in asked if c.number == 0] == [0, 1, 2]


def test_several_objectives_promote_by_dominance():
    halving = searcher(objectives={"loss": "min", "cost": "min"})
    promoted, all_of = [], {}
    while batch := halving.ask(1):
        (candidate,) = batch
        x = candidate.genome["x"]
        cost = 1 - x if candidate.number % 3 else 2 - x  # every third is dominated by its like
        tell(halving, candidate, x, cost=cost)
        all_of.setdefault(candidate.rung, []).append(candidate.number)
        if candidate.rung:
            promoted.append(candidate.number)
    share = sum(number % 3 == 0 for number in promoted) / len(promoted)
    assert share < 0.2


def test_agreement_tells_a_rung_that_predicts_from_one_that_does_not():
    chance = random.Random(0)
    luck = {number: chance.random() for number in range(1000)}
    good = searcher(limit=200)
    whole(good, lambda c: c.genome["x"])
    bad = searcher(limit=200)
    whole(bad, lambda c: c.genome["x"] if c.rung == 0 else luck[c.number])
    assert good.agreement()[0].tau == 1.0
    assert not good.agreement()[0].warning
    assert abs(bad.agreement()[0].tau) < 0.3
    assert "rung 0 hardly predicts rung 1" in bad.agreement()[0].warning


@pytest.mark.parametrize("helps", [True, False])
def test_a_look_ahead_is_used_only_while_it_helps(helps):
    levels = (RungRole(look_ahead=True), RungRole())
    chance = random.Random(1)
    luck = {number: chance.random() for number in range(10_000)}
    halving = searcher(levels, limit=60)
    asked = whole(halving, lambda c: c.genome["x"] if c.rung or helps else luck[c.number])
    looked = sum(c.rung == 0 for c in asked)
    assert sum(c.rung == 1 for c in asked) == 60
    assert looked > 110 if helps else looked < 75


def test_racing_gives_seeds_to_those_that_may_be_the_best():
    """Five are equally good up to noise, the others clearly worse."""
    chance = np.random.default_rng(0)
    halving = race(limit=30)

    def quality(candidate):
        return 0.0 if candidate.number % 6 == 0 else 1.0

    scores = {}

    def scores_of(candidate):
        key = candidate.number, candidate.repeat
        scores[key] = tuple(quality(candidate) + 0.3 * chance.standard_normal(50))
        return scores[key]

    asked = whole(halving, lambda c: quality(c) + 0.01 * c.genome["x"], scores=scores_of)
    raced = {c.number for c in asked if c.repeat == 2}
    assert raced <= {0, 6, 12, 18, 24}
    best = min(range(30), key=lambda n: np.mean(scores[n, 0]))
    assert best in raced or quality(Candidate(best, {}, 0)) == 0.0
    assert sum(c.repeat == 0 for c in asked) == 30
    own = {c.number: c.seed for c in asked if not c.repeat}
    assert all(c.seed == repeat_seed(own[c.number], c.repeat) for c in asked)
    assert len({c.seed for c in asked}) == len(asked)


def test_the_leader_is_never_a_single_result():
    halving = race(limit=40, repeats=1)
    losses = {}

    def loss(candidate):
        losses.setdefault(candidate.number, []).append(candidate.genome["x"])
        return candidate.genome["x"]

    whole(halving, loss, scores=lambda c: (c.genome["x"],) * 5)
    leader = min(losses, key=lambda number: np.mean(losses[number]))
    assert len(losses[leader]) == 2


def test_results_of_an_earlier_part_count():
    """What was promoted before a break is not promoted again."""
    first = searcher()
    asked = []
    for _ in range(60):
        (candidate,) = first.ask(1)
        asked.append(candidate)
        tell(first, candidate, candidate.genome["x"])
    second = searcher()
    for candidate in asked:
        tell(second, candidate, candidate.genome["x"])
    assert isinstance(second, SuccessiveHalving)
    rest = whole(second, lambda c: c.genome["x"])
    keys = [(c.number, c.rung) for c in asked + rest]
    assert len(set(keys)) == len(keys)
    assert sum(rung == 0 for _, rung in keys) == 90


def test_the_best_that_is_allowed_is_found():
    limits = [parse_limit("cost >= 0.5", ("loss", "cost"))]
    found, seen = make_searcher("hybrid", SPACE, ONE, 0, Wishes(120)), []
    while batch := found.ask(1):
        seen.append(batch[0].genome["x"])
        tell(found, batch[0], seen[-1], limits=limits, cost=seen[-1])
    assert min(x for x in seen if x >= 0.5) < 0.51
    assert sum(x >= 0.5 for x in seen) > 60


LED = {"hybrid": 60, "evolution": 120, "mu+lambda": 120, "nsga2": 120, "nsga3": 200, "local": 120}
LED |= {"cma-es": 100, "tpe": 40, "optuna-cma-es": 100}


@pytest.mark.parametrize("name", LED)
@pytest.mark.parametrize("size", [1.0, 1e31])
def test_constraints_lead_the_search(name, size):
    """The optimum of the loss is forbidden, and nine tenths are; however large losses are."""
    limits = [parse_limit("cost >= 0.9", ("loss", "cost"))]
    found, seen = make_searcher(name, SPACE, ONE, 0, Wishes(LED[name])), []
    while batch := found.ask(1):
        seen.append(batch[0].genome["x"])
        tell(found, batch[0], size * (1 + seen[-1]), limits=limits, cost=seen[-1])
    assert sum(x >= 0.9 for x in seen) > 0.17 * len(seen)


def test_stages_rank_what_is_allowed_first_and_what_is_forbidden_by_how_far():
    halving = searcher((RungRole(), RungRole()), 30, objectives={"loss": "min", "size": "max"})
    limits = [parse_limit("cost <= 10", ("loss", "size", "cost"))]
    for candidate in halving.ask(30):
        cost = 5.0 if candidate.number < 4 else 40.0 - candidate.number
        loss = 1e31 if candidate.number < 4 else 0.0
        tell(halving, candidate, loss, limits=limits, cost=cost, size=float(candidate.number))
    order = [result.candidate.number for result in halving._stages[0].order()]
    assert order == [3, 2, 1, 0, *range(29, 3, -1)]


@pytest.mark.parametrize("name", ["hybrid", "evolution", "nsga2", "nsga3", "local", "cma-es"])
def test_a_metric_turned_round_with_its_direction_changes_nothing(name):
    """Ranks, promotions and proposals are those of the same search."""
    limits = [parse_limit("cost <= 0.8", ("loss", "cost"))]

    def walk(sign, directions):
        levels, asked = (RungRole(), RungRole()), []
        made = make_searcher(name, SPACE, directions, 0, Wishes(60, levels=levels, repeats=1))
        while batch := made.ask(2):
            asked += batch
            for c in batch:
                x = c.genome["x"]
                beyond = violation({"cost": x}, limits)
                metrics = {"loss": sign * (x - 0.3) ** 2, "size": x}
                scores = tuple(sign * ((x - 0.3) ** 2 + e) for e in (0.0, 0.1))
                made.tell([Evaluation(c, Status.OK, metrics, scores, violation=beyond)])
        return [(c.key, c.genome) for c in asked]

    down = walk(1.0, {"loss": "min", "size": "max"})
    assert walk(-1.0, {"loss": "max", "size": "max"}) == down
    assert {key[1:] for key, _ in down} == {(0, 0), (1, 0), (1, 1)}


def race(limit=12, repeats=2, factor=3.0, **wishes):
    return searcher((RungRole(factor),), limit, repeats=repeats, **wishes)


def test_who_fails_with_another_seed_leads_no_longer():
    """The best at first fails with its second seed; the next takes its place in the race."""
    halving, raced = race(), {}
    while batch := halving.ask(1):
        (candidate,) = batch
        raced.setdefault(candidate.number, []).append(candidate.repeat)
        loss = float(candidate.number)
        failed = candidate.number == 0 and candidate.repeat
        tell(halving, candidate, loss, Status.ERROR if failed else Status.OK, scores=(loss,) * 5)
    assert raced[0] == [0, 1]
    assert raced[1] == [0, 1, 2]


@pytest.mark.parametrize("direction", ["min", "max"])
def test_the_race_is_run_in_the_direction_of_the_objective(direction):
    sign = 1.0 if direction == "min" else -1.0
    halving = race(objectives={"loss": direction})
    asked = whole(
        halving,
        lambda c: sign * c.number,
        scores=lambda c: tuple(sign * (c.number + noise) for noise in (-0.3, 0.0, 0.3)),
    )
    assert {c.number for c in asked if c.repeat} == {0}


def test_scores_of_another_metric_do_not_make_contenders():
    """Equal in what is scored, different in the objective."""
    scores = {"scores": lambda c: (0.1, 0.2, 0.3)}
    unknown = whole(race(scored=False), lambda c: float(c.number), **scores)
    assert {c.number for c in unknown if c.repeat} == {0}
    known = whole(race(scored=True), lambda c: float(c.number), **scores)
    assert len({c.number for c in known if c.repeat}) > 1


def test_who_breaks_a_constraint_is_no_contender():
    limits = [parse_limit("cost <= 10", ("loss", "cost"))]
    halving, raced = race(), set()
    while batch := halving.ask(1):
        (candidate,) = batch
        raced |= {candidate.number} if candidate.repeat else set()
        cost = 1.0 if candidate.number == 5 else 20.0
        tell(halving, candidate, 0.0, scores=(0.1, 0.2, 0.3), limits=limits, cost=cost)
    assert raced >= {5}
    assert raced <= {0, 5}  # the first led while it was the only one


def test_who_was_lucky_once_neither_leads_nor_stays_close():
    """The best at first is the worst with a second seed: its means count, episode by episode."""
    halving = race(factor=0.1)  # open to all

    def loss(candidate):
        if candidate.number == 1:
            return 10.0 if candidate.repeat else 0.0
        return 1.0 if candidate.number == 0 else 20.0 + candidate.number

    asked = whole(halving, loss, scores=lambda c: (loss(c),) * 5)
    raced = {number: [c.repeat for c in asked if c.number == number] for number in range(12)}
    assert raced[0] == [0, 1, 2]
    assert raced[1] == [0, 1]


def test_scores_on_different_episodes_are_not_compared():
    asked = whole(race(), lambda c: float(c.number), scores=lambda c: (0.1,) * (3 + c.number))
    assert {c.number for c in asked if c.repeat} == {0}


def test_a_race_forgets_the_oldest(monkeypatch):
    monkeypatch.setattr("evometa.search.halving.WINDOW", 8)
    halving = race(limit=40)
    whole(halving, lambda c: float(c.number), scores=lambda c: (float(c.number),) * 5)
    assert len(halving._racers) == 8


def test_failures_of_a_look_ahead_count_and_end_the_search():
    halving = searcher((RungRole(look_ahead=True), RungRole()), limit=10)
    asked = []
    while (batch := halving.ask(1)) and len(asked) < 50:
        asked += batch
        tell(halving, batch[0], 0.0, Status.INVALID)
    assert len(asked) == 10

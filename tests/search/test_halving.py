"""Successive halving: the best go on, whatever the order, and rungs are watched."""

import random
from dataclasses import replace

import numpy as np
import pytest

from evometa.limits import dominated, parse_limit
from evometa.records import Candidate, Evaluation, Status
from evometa.search import RungRole, SuccessiveHalving, Wishes, make_searcher
from evometa.space import Float, Struct

SPACE = Struct(x=Float(0.0, 1.0))
ONE = {"loss": "min"}
THREE = (RungRole(), RungRole(), RungRole())


def searcher(levels=THREE, limit=90, objectives=ONE, **wishes):
    return make_searcher("random", SPACE, objectives, 3, Wishes(limit, levels=levels, **wishes))


def tell(halving, candidate, loss, status=Status.OK, scores=(), **metrics):
    halving.tell([Evaluation(candidate, status, {"loss": loss, **metrics}, scores=scores)])


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
    levels = (RungRole(), RungRole(race=True), RungRole(race=True))
    chance = np.random.default_rng(0)
    halving = searcher(levels, limit=30)

    def quality(candidate):
        return 0.0 if candidate.number % 6 == 0 else 1.0

    scores = {}

    def scores_of(candidate):
        key = candidate.number, candidate.rung
        scores[key] = tuple(quality(candidate) + 0.3 * chance.standard_normal(50))
        return scores[key]

    asked = whole(halving, lambda c: quality(c) + 0.01 * c.genome["x"], scores=scores_of)
    raced = {c.number for c in asked if c.rung == 2}
    assert raced <= {0, 6, 12, 18, 24}
    best = min(range(30), key=lambda n: np.mean(scores[n, 0]))
    assert best in raced or quality(Candidate(best, {}, 0)) == 0.0
    assert sum(c.rung == 0 for c in asked) == 30


def test_the_leader_is_never_a_single_result():
    levels = (RungRole(), RungRole(race=True))
    halving = searcher(levels, limit=40)
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


def test_limits_make_worse_than_any_that_keeps_them():
    limits = [parse_limit("cost <= 1_0", ("loss", "cost"))]

    def seen(loss, cost):
        evaluation = Evaluation(Candidate(0, {}, 0), Status.OK, {"loss": loss, "cost": cost})
        return dominated(evaluation, limits, ONE).metrics["loss"]

    assert seen(5.0, 10.0) == 5.0
    assert seen(1e6, 9.0) < seen(0.0, 11.0) < seen(-5.0, 30.0)


def test_constraints_lead_the_search():
    """The optimum of the loss is forbidden; the best that is allowed is found."""
    limits = [parse_limit("cost >= 0.5", ("loss", "cost"))]
    wishes = Wishes(120, limits=limits)
    found = make_searcher("hybrid", SPACE, ONE, 0, wishes)
    allowed = []
    while batch := found.ask(1):
        x = batch[0].genome["x"]
        tell(found, batch[0], x, cost=x)
        allowed += [x] if x >= 0.5 else []
    assert min(allowed) < 0.51
    assert len(allowed) > 60


def race(limit=12, seeds=2, **wishes):
    levels = (RungRole(), *[RungRole(race=True)] * seeds)
    return searcher(levels, limit, **wishes)


def test_who_fails_with_another_seed_leads_no_longer():
    """The best at first fails with its second seed; the next takes its place in the race."""
    halving, rungs = race(), {}
    while batch := halving.ask(1):
        (candidate,) = batch
        rungs.setdefault(candidate.number, []).append(candidate.rung)
        loss = float(candidate.number)
        failed = candidate.number == 0 and candidate.rung
        tell(halving, candidate, loss, Status.ERROR if failed else Status.OK, scores=(loss,) * 5)
    assert rungs[0] == [0, 1]
    assert rungs[1] == [0, 1, 2]


@pytest.mark.parametrize("direction", ["min", "max"])
def test_the_race_is_run_in_the_direction_of_the_objective(direction):
    sign = 1.0 if direction == "min" else -1.0
    halving = race(objectives={"loss": direction})
    asked = whole(
        halving,
        lambda c: sign * c.number,
        scores=lambda c: tuple(sign * (c.number + noise) for noise in (-0.3, 0.0, 0.3)),
    )
    assert {c.number for c in asked if c.rung} == {0}


def test_scores_of_another_metric_do_not_make_contenders():
    """Equal in what is scored, different in the objective."""
    scores = {"scores": lambda c: (0.1, 0.2, 0.3)}
    unknown = whole(race(scored=False), lambda c: float(c.number), **scores)
    assert {c.number for c in unknown if c.rung} == {0}
    known = whole(race(scored=True), lambda c: float(c.number), **scores)
    assert len({c.number for c in known if c.rung}) > 1


def test_who_breaks_a_constraint_is_no_contender():
    limits = [parse_limit("cost <= 10", ("loss", "cost"))]
    halving, raced = race(limits=limits), set()
    while batch := halving.ask(1):
        (candidate,) = batch
        raced |= {candidate.number} if candidate.rung else set()
        cost = 1.0 if candidate.number == 5 else 20.0
        tell(halving, candidate, 0.0, scores=(0.1, 0.2, 0.3), cost=cost)
    assert raced >= {5}
    assert raced <= {0, 5}  # the first led while it was the only one


def test_who_was_lucky_once_neither_leads_nor_stays_close():
    """The best at first is the worst with a second seed: its means count, episode by episode."""
    open_to_all = RungRole(factor=0.1)
    halving = searcher((open_to_all, replace(open_to_all, race=True), RungRole(race=True)), 12)

    def loss(candidate):
        if candidate.number == 1:
            return 10.0 if candidate.rung else 0.0
        return 1.0 if candidate.number == 0 else 20.0 + candidate.number

    asked = whole(halving, loss, scores=lambda c: (loss(c),) * 5)
    raced = {number: [c.rung for c in asked if c.number == number] for number in range(12)}
    assert raced[0] == [0, 1, 2]
    assert raced[1] == [0, 1]


def test_scores_on_different_episodes_are_not_compared():
    asked = whole(race(), lambda c: float(c.number), scores=lambda c: (0.1,) * (3 + c.number))
    assert {c.number for c in asked if c.rung} == {0}


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

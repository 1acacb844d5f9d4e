"""Every searcher keeps the contract, and each does what it is for."""

import subprocess
import sys
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from optuna.trial import TrialState

from evometa.errors import GenomeError, SpaceError, StudyError
from evometa.records import Candidate, Evaluation, Status
from evometa.rule import update_space
from evometa.search import SEARCHERS, AskTell, Proposal, Wishes, make_searcher
from evometa.search.ask_tell import unknown_name
from evometa.search.local_search import WIDEST, LocalSearch
from evometa.search.optuna_samplers import _collect, _suggested, tpe
from evometa.search.protocol import Asked
from evometa.search.registry import _maker
from evometa.search.regularized_evolution import RegularizedEvolution
from evometa.space import Choice, Float, Int, List, Struct
from evometa.testing import SearcherContract, evaluate


class TestRandom(SearcherContract):
    def make(self, space, objectives, seed):
        return make_searcher("random", space, objectives, seed)


class TestEvolution(SearcherContract):
    def make(self, space, objectives, seed):
        return make_searcher("evolution", space, objectives, seed)


class TestNSGA2(SearcherContract):
    objectives = {"loss": "min", "cost": "min"}

    def make(self, space, objectives, seed):
        return make_searcher("nsga2", space, objectives, seed)


class TestNSGA3(SearcherContract):
    objectives = {"loss": "min", "cost": "min"}

    def make(self, space, objectives, seed):
        return make_searcher("nsga3", space, objectives, seed)


class TestMuPlusLambda(SearcherContract):
    def make(self, space, objectives, seed):
        return make_searcher("mu+lambda", space, objectives, seed)


class TestLocalSearch(SearcherContract):
    def make(self, space, objectives, seed):
        return make_searcher("local", space, objectives, seed)


class TestLocalSearchOfTwo(TestLocalSearch):
    objectives = {"loss": "min", "cost": "min"}


class TestHybrid(SearcherContract):
    def make(self, space, objectives, seed):
        return make_searcher("hybrid", space, objectives, seed)


class TestHybridOfTwo(TestHybrid):
    objectives = {"loss": "min", "cost": "min"}


class TestTPE(SearcherContract):
    def make(self, space, objectives, seed):
        return make_searcher("tpe", space, objectives, seed)


class TestTPEOfTwo(TestTPE):
    objectives = {"loss": "min", "cost": "min"}


@pytest.mark.slow
class TestGP(SearcherContract):
    length = 14

    def make(self, space, objectives, seed):
        return make_searcher("gp", space, objectives, seed)


class TestOptunaNSGA2(SearcherContract):
    objectives = {"loss": "min", "cost": "min"}

    def make(self, space, objectives, seed):
        return make_searcher("optuna-nsga2", space, objectives, seed)


class NumericContract(SearcherContract):
    """The contract over a space of numbers alone."""

    space = Struct(x=Float(-1.0, 1.0), n=Int(1, 32, log=True), y=Float(0.0, 1.0))
    small = Struct(a=Int(1, 3), b=Int(0, 3))

    @staticmethod
    def score(genome):
        return genome["x"] ** 2 + abs(genome["n"] - 8) / 32 + genome["y"]


class TestCMAES(NumericContract):
    def make(self, space, objectives, seed):
        return make_searcher("cma-es", space, objectives, seed)


class TestOptunaCMAES(NumericContract):
    def make(self, space, objectives, seed):
        return make_searcher("optuna-cma-es", space, objectives, seed)


SESSION = """
import sys
from evometa.testing import SearcherContract
from evometa.search import make_searcher
class C(SearcherContract):
    def __init__(self, name):
        self.name = name
    def make(self, space, objectives, seed):
        return make_searcher(self.name, space, objectives, seed)
for name in sys.argv[1:]:
    for candidate in C(name)._session(11, 60, C.score):
        print(name, candidate)
"""
ANY_SPACE = [name for name in SEARCHERS if "cma" not in name and name != "gp"]


@pytest.fixture(scope="module")
def sessions():
    """What two processes print, of different string hashes."""
    return [
        subprocess.run(
            [sys.executable, "-c", SESSION, *ANY_SPACE],
            env={"PYTHONHASHSEED": hash_seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        for hash_seed in ("1", "77")
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", ANY_SPACE)
def test_other_process_and_hash_seed_same_proposals(name, sessions):
    one, other = ([line for line in said if line.startswith(f"{name} ")] for said in sessions)
    assert one == other
    assert len(one) == 60


@cache
def best_of(name, seed, n=150):
    space = Struct(**{f"x{i}": Float(-1, 1) for i in range(4)}, k=Choice("a", "b", "c"))
    searcher = make_searcher(name, space, {"loss": "min"}, seed)
    values = []
    for _ in range(n):
        (candidate,) = searcher.ask(1)
        evaluation = evaluate(
            candidate,
            lambda g: sum((g[f"x{i}"] - 0.3) ** 2 for i in range(4)) + (g["k"] != "b"),
            {"loss": "min"},
        )
        values.append(evaluation.metrics["loss"])
        searcher.tell([evaluation])
    return min(values)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hybrid", "evolution", "mu+lambda", "nsga2", "local", "tpe"])
def test_learning_searchers_beat_random(name):
    seeds = range(16)
    ours = [best_of(name, seed) for seed in seeds]
    random = [best_of("random", seed) for seed in seeds]
    assert np.mean(ours) < np.mean(random)
    assert np.sum(np.less(ours, random)) >= 10


def test_seed_points_come_first_and_are_validated():
    space = Struct(a=Int(0, 9))
    searcher = make_searcher("random", space, {"loss": "min"}, 0, Wishes(seeds={"known": {"a": 4}}))
    first, second = searcher.ask(2)
    assert (first.genome, first.operator, first.name) == ({"a": 4}, "baseline", "known")
    assert (second.operator, second.name) == ("random", "")
    assert second.genome != {"a": 4}
    with pytest.raises(GenomeError, match="seed point 'bad': a: must be an int from 0 to 9"):
        make_searcher("random", space, {"loss": "min"}, 0, Wishes(seeds={"bad": {"a": 40}}))


@pytest.mark.parametrize(
    ("name", "space", "part"),
    [
        ("gp", Struct(w=List(Int(1, 2), 1, 2)), "w is a list of variable length; use 'tpe'"),
        ("gp", Struct(a=Struct(b=Choice(x=Int(0, 1)))), r"a\.b is a choice of sub-spaces"),
        ("cma-es", Struct(a=Choice(1, 2)), "a is a choice of values; use .*'hybrid'"),
        ("optuna-cma-es", Struct(a=Choice(1, 2)), "a is a choice of values"),
        ("tpe", Struct(u=update_space()), "u is a Tree; use 'hybrid'"),
    ],
)
def test_samplers_say_which_part_they_cannot_handle(name, space, part):
    with pytest.raises(SpaceError, match=f"'{name}' cannot handle this space: {part}"):
        make_searcher(name, space, {"loss": "min"}, 0)


def test_a_strategy_that_proposes_nonsense_is_named_and_the_search_goes_on(caplog):
    class Broken:
        name = "broken"

        def propose(self, rng, asked):
            return Proposal({"a": 99})

        def observe(self, evaluation):
            pass

    (candidate,) = AskTell(Struct(a=Int(0, 9)), Broken(), 0).ask(1)
    assert candidate.operator == "random"
    assert "'broken' proposes genomes outside the space" in caplog.text
    assert "got 99" in caplog.text
    assert len(caplog.records) == 1


def test_an_unknown_searcher_is_refused_with_a_hint():
    with pytest.raises(SpaceError, match="did you mean 'evolution'"):
        make_searcher("evoltion", Struct(a=Int(0, 1)), {"loss": "min"}, 0)


def test_the_old_die():
    space = Struct(x=Float(0, 1))
    searcher = make_searcher("evolution", space, {"loss": "min"}, 0)
    asked = searcher.ask(1)
    searcher.tell([Evaluation(asked[0], Status.OK, {"loss": -1e9})])  # nothing will ever beat it
    for _ in range(200):
        (candidate,) = searcher.ask(1)
        searcher.tell([Evaluation(candidate, Status.OK, {"loss": 1.0})])
    assert asked[0].id not in {c.parents[0] for c in searcher.ask(20) if c.parents}


def test_twin_seeds_come_once_and_survive_foreign_results():
    space = Struct(a=Int(0, 9))
    seeds = {"one": {"a": 4}, "twin": {"a": 4}, "other": {"a": 5}}
    searcher = make_searcher("random", space, {"loss": "min"}, 0, Wishes(seeds=seeds))
    outside = Candidate(7, {"a": 99}, seed=0)
    searcher.tell([Evaluation(outside, Status.OK, {"loss": 0.0})])
    searcher.tell([Evaluation(Candidate(3, {"a": 1}, seed=0), Status.OK, {"loss": 0.0})])
    asked = searcher.ask(9)
    assert [(c.operator, c.name) for c in asked[:2]] == [("baseline", "one"), ("baseline", "other")]
    assert sorted(c.genome["a"] for c in asked) == [0, 2, 3, 4, 5, 6, 7, 8, 9]
    assert searcher.ask(1) == []


def test_optuna_forgets_failures_too(monkeypatch):
    monkeypatch.setattr("evometa.search.optuna_samplers.HISTORY", 20)
    strategy = tpe(Struct(x=Float(0, 1)), {"loss": "min"}, 0)
    for _ in range(100):
        strategy.propose(np.random.default_rng(0), Asked())
    assert len(strategy._study.get_trials(deepcopy=False)) <= 42


class Own:
    """A strategy of a user, which proposes what it is given."""

    name = "own"

    def __init__(self, *proposals):
        self.proposals, self.seen = [*proposals], []

    def propose(self, rng, asked):
        proposal = self.proposals.pop(0)
        if isinstance(proposal, Exception):
            raise proposal
        return proposal

    def observe(self, evaluation):
        self.seen.append(evaluation)
        if evaluation.metrics.get("loss") == 13.0:
            raise ZeroDivisionError("unlucky")


NINE = Struct(a=Int(0, 9))


@pytest.mark.parametrize(
    ("proposal", "said"),
    [
        (KeyError("lost"), "'own' failed in `propose`: KeyError: 'lost'"),
        ({"a": 1}, r"'own' failed in `propose`: it returned \{'a': 1\}, which is no Proposal"),
    ],
)
def test_a_fault_of_a_users_searcher_is_named(proposal, said):
    with pytest.raises(StudyError, match=said):
        AskTell(NINE, Own(proposal), 0).ask(1)


def test_a_fault_in_observe_is_named():
    searcher = AskTell(NINE, Own(Proposal({"a": 1})), 0)
    (candidate,) = searcher.ask(1)
    with pytest.raises(StudyError, match="'own' failed in `observe`: ZeroDivisionError: unlucky"):
        searcher.tell([Evaluation(candidate, Status.OK, {"loss": 13.0})])


def test_a_strategy_that_finds_nothing_within_the_constraints_is_helped_out():
    (candidate,) = AskTell(NINE, Own(*[SpaceError("none")] * 99), 0).ask(1)
    assert candidate.operator == "random"


def test_a_genome_that_is_changed_after_its_proposal_is_not_changed_in_the_table():
    mine = {"a": 1}
    (candidate,) = AskTell(NINE, Own(Proposal(mine)), 0).ask(1)
    mine["a"] = 2
    assert candidate.genome == {"a": 1}


def test_a_search_whose_constraints_leave_next_to_nothing_ends(caplog):
    space = Struct(x=Float(0, 1), constraints={"never again": Once()})
    searcher = make_searcher("random", space, {"loss": "min"}, 0)
    assert len(searcher.ask(3)) < 3
    assert "nothing is left to propose" in caplog.text


class Once:
    """A constraint that one genome satisfies."""

    def __init__(self):
        self.genome = None

    def __call__(self, genome):
        self.genome = self.genome or dict(genome)
        return genome == self.genome


def test_strategies_know_of_no_look_ahead():
    """What was only looked at is not observed; what was trained is, its rungs counted from 0."""
    strategy = Own(*[Proposal({"a": a}) for a in range(3)])
    searcher = AskTell(NINE, strategy, 0, first=1)
    for candidate, rung in zip(searcher.ask(3), (0, 1, 2), strict=True):
        at = replace(candidate, rung=rung)
        searcher.tell([Evaluation(at, Status.OK, {"loss": 0.0})])
    assert [e.candidate.rung for e in strategy.seen] == [0, 1]
    assert [e.candidate.number for e in strategy.seen] == [1, 2]


def test_designs_of_earlier_searches_are_no_baselines():
    """Whatever they are called: names may be equal, hold a colon, or look like a mark."""
    names = ["MAML", "seed:MAML", "earlier:runs/x", "a:b"]
    seeds = {name: {"a": a} for a, name in enumerate(names)}
    designs = {"MAML": {"a": 4}, "seed:x": {"a": 5}}
    wishes = Wishes(seeds=seeds, designs=designs)
    searcher = make_searcher("random", NINE, {"loss": "min"}, 0, wishes)
    found = [(each.operator, each.name) for each in searcher.ask(7)]
    assert found[:4] == [("baseline", name) for name in names]
    assert found[4:] == [("earlier", "MAML"), ("earlier", "seed:x"), ("random", "")]


@pytest.mark.parametrize("word", ["baseline", "earlier"])
def test_a_strategy_cannot_mark_what_it_proposes_as_known(word):
    searcher = AskTell(NINE, Own(Proposal({"a": 1}, operator=word)), 0)
    with pytest.raises(StudyError, match=f"the operator '{word}' marks known designs"):
        searcher.ask(1)


def test_cma_es_needs_numbers():
    with pytest.raises(SpaceError, match="'cma-es' needs numbers, but the space has none"):
        make_searcher("cma-es", Struct(a=Struct()), {"loss": "min"}, 0)


def test_a_climb_along_a_front_does_not_grow_without_bound():
    climb = LocalSearch(Struct(x=Float(0, 1)), {"loss": "min", "cost": "min"}, 0)
    for number in range(4 * WIDEST):  # none dominates another
        metrics = {"loss": float(number), "cost": float(-number)}
        climb.observe(Evaluation(Candidate(number, {"x": 0.5}, 0), Status.OK, metrics))
    assert len(climb._front) == WIDEST
    assert climb._front[-1].id == Candidate(4 * WIDEST - 1, {}, 0).id


def test_evolution_learns_from_the_full_rung_of_earlier_searches():
    evolution = RegularizedEvolution(Struct(x=Float(0, 1)), {"loss": "min"}, 0)
    for number in range(40):
        earlier = Candidate(-1 - number, {"x": 0.5}, 0, rung=2)
        evolution.observe(Evaluation(earlier, Status.OK, {"loss": 1.0}))
    assert evolution.propose(np.random.default_rng(0), Asked()).parents


NESTED = Struct(
    n=Int(1, 9),
    rate=Float(1e-3, 1.0, log=True),
    fixed=List(Int(2, 4, step=2), 2, 2),
    layers=List(Choice("a", None, wide=Struct(w=Int(1, 3), more=List(Float(0, 1), 0, 2))), 1, 3),
)


@pytest.mark.parametrize("seed", range(20))
def test_what_optuna_would_have_suggested_gives_the_genome_again(seed):
    """By the same names and distributions, however deep they lie."""
    genome, found, asked = NESTED.sample(np.random.default_rng(seed)), {}, []
    _collect(NESTED, "", genome, found)

    def suggest(path, distribution):
        asked.append(path)
        value, kind = found[path]
        assert kind == distribution and kind._contains(kind.to_internal_repr(value))
        return value

    assert _suggested(NESTED, "", suggest) == genome
    assert asked == [*found]


def test_trials_run_from_their_proposal_until_they_are_told_or_are_not_wanted():
    strategy, rng = tpe(NESTED, {"loss": "min"}, 0), np.random.default_rng(0)

    def running():
        trials = strategy._study.get_trials(states=(TrialState.RUNNING,))
        return [trial.number for trial in trials]

    candidates = []
    for number, waiting in enumerate([[], [0], [0, 1]]):
        asked = Asked(waiting=[candidates[n] for n in waiting])
        candidates.append(Candidate(number, strategy.propose(rng, asked).genome, 0))
    assert running() == [0, 1, 2]
    strategy.observe(Evaluation(candidates[1], Status.OK, {"loss": 1.0}))
    assert running() == [0, 2]
    strategy.propose(rng, Asked(waiting=[candidates[0]]))
    assert running() == [0, 3], "the third was proposed, and nobody asked for it"
    states = [trial.state for trial in strategy._study.get_trials()][:3]
    assert states == [TrialState.RUNNING, TrialState.COMPLETE, TrialState.FAIL]


SAMPLERS = {
    "tpe": "TPESampler",
    "gp": "GPSampler",
    "optuna-nsga2": "NSGAIISampler",
    "optuna-cma-es": "CmaEsSampler",
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_each_name_of_optuna_has_its_sampler(name):
    """And the seed of each proposal is the sampler's own."""
    space, seeds = Struct(x=Float(0, 1), y=Float(0, 1)), []
    strategy = _maker(name)(space, {"loss": "min"}, 0)
    make = strategy._make
    strategy._make = lambda seed: seeds.append(seed) or make(seed)
    strategy.propose(np.random.default_rng(3), Asked())
    assert type(strategy._study.sampler).__name__ == SAMPLERS[name]
    assert seeds == [int(np.random.default_rng(3).integers(2**31))]


def test_a_name_that_is_near_to_none_gets_no_hint():
    known = ["hybrid", "random"]
    near = unknown_name("a searcher", "hybird", known)
    assert near.endswith("must be one of hybrid, random, got 'hybird'; did you mean 'hybrid'?")
    far = unknown_name("a searcher", "zzz", known)
    assert far == "a searcher must be one of hybrid, random, got 'zzz'"

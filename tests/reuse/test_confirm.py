"""A confirmation is a plain training with a new seed, on episodes that no search has seen."""

import copy
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from rich.console import Console

from evometa.errors import EvometaError, StoreError
from evometa.evaluate import Trainer, admit, parse_plan, score
from evometa.launch import Workers
from evometa.records import derive_seed
from evometa.report.confirmed import as_data, compare, difference, estimate, print_confirmed
from evometa.report.page.confirmed import confirmation
from evometa.report.standing import standing
from evometa.reuse.confirm import Confirmation, _chosen, confirm
from evometa.reuse.learner import load_learner
from evometa.reuse.stored import read_run
from evometa.store import hold, read_confirmed
from evometa.task import Sinusoid
from tests.report.tables import changed
from tests.reuse.conftest import Nobody

SERIAL = Workers("serial")


class Watching(Nobody):
    def __init__(self, stop_after=None):
        self.seen, self._stop_after = [], stop_after

    def recorded(self, evaluation):
        self.seen.append(evaluation.candidate.id)
        if len(self.seen) == self._stop_after:
            raise KeyboardInterrupt


def run_it(run, wanted, watching=None):
    return confirm(run, wanted, SERIAL, lambda total, workers: watching or Nobody())


def plain_losses(run, genome, seed, n):
    """Train a genome by itself; return its losses on episodes of meta-test."""
    study, cpu = run.file.study, torch.device("cpu")
    admission = admit(study, genome, seed, cpu)
    plan = parse_plan(run.settings.plans.get("dense", "vmap"))
    trainer = Trainer(
        [admission.learner],
        study.task,
        study.training,
        seeds=[derive_seed(seed, "meta-train")],
        plan=plan,
        device=cpu,
    )
    trainer.run()
    generator = torch.Generator().manual_seed(derive_seed(run.settings.seed, "meta-test"))
    episodes = study.task.episodes("meta-test", n, generator)
    meta = trainer.results()[0].meta
    outcome = score([admission.learner], [meta], study.task, [episodes], plan=plan, device=cpu)[0]
    return outcome.scores["query_loss"]


def test_it_is_a_training_with_a_new_seed_tested_on_meta_test(waves):
    table = run_it(waves, Confirmation(top=2, seeds=2, episodes=12))
    assert len(table) == (2 + 1) * 2
    row = table.to_pylist()[1]
    original = waves.evaluation(row["candidate_id"]).candidate
    seed = derive_seed(original.seed, "confirm", row["repeat"])
    assert row["seed"] == seed not in (original.seed, waves.settings.seed)

    expected = plain_losses(waves, original.genome, seed, 12)
    np.testing.assert_allclose(row["scores"], expected, rtol=1e-4)
    assert len(row["validation_scores"]) == len(row["search_scores"]) == 20


def test_a_search_never_draws_meta_test(tmp_path, monkeypatch):
    from tests.reuse.conftest import WAVES, make_run

    drawn = set()
    plain = Sinusoid.episodes

    def spy(self, split, n, generator):
        drawn.add(split)
        return plain(self, split, n, generator)

    monkeypatch.setattr(Sinusoid, "episodes", spy)
    run = read_run(make_run(tmp_path, WAVES, 4))
    assert drawn == {"meta-train", "meta-validation"}
    run_it(run, Confirmation(top=1, seeds=1, episodes=3))
    assert "meta-test" in drawn


def test_stopped_and_gone_on_it_is_as_if_it_had_never_stopped(waves, tmp_path):
    wanted = Confirmation(top=2, seeds=2, episodes=5)
    first = Watching(stop_after=3)
    with pytest.raises(KeyboardInterrupt):
        run_it(waves, wanted, first)
    assert len(read_confirmed(waves.place)) == 3
    second = Watching()
    table = run_it(waves, wanted, second)
    assert len(first.seen) + len(second.seen) == len(table) == 6
    (waves.place / "confirm.parquet").unlink()
    whole = run_it(waves, wanted)
    order = [("candidate_id", "ascending"), ("repeat", "ascending")]
    table, whole = table.sort_by(order), whole.sort_by(order)
    columns = ["candidate_id", "repeat", "seed", "iterations"]
    assert table.select(columns).equals(whole.select(columns))
    for column in ("scores", "validation_scores"):  # packs of other sizes round differently
        np.testing.assert_allclose(
            table[column].to_pylist(), whole[column].to_pylist(), rtol=1e-3, atol=1e-4
        )


def test_more_seeds_are_added_to_those_that_are_there(waves):
    run_it(waves, Confirmation(top=1, seeds=1, episodes=5))
    more = Watching()
    table = run_it(waves, Confirmation(top=1, seeds=3, episodes=5), more)
    assert len(more.seen) == 4
    assert len(table) == 6


def test_other_numbers_are_not_mixed_with_those_that_are_there(waves):
    run_it(waves, Confirmation(top=1, seeds=1, episodes=5))
    with pytest.raises(StoreError, match="5 episodes, not of 6 and 7; .* --again"):
        run_it(waves, Confirmation(top=1, seeds=1, episodes=7))
    table = run_it(waves, Confirmation(top=1, seeds=1, episodes=7, again=True))
    assert {len(row) for row in table["scores"].to_pylist()} == {7}


def test_two_confirmations_at_once_are_refused(waves):
    (waves.place / "confirmed").mkdir()
    lock = hold(waves.place / "confirmed")
    with pytest.raises(StoreError):
        run_it(waves, Confirmation(top=1, seeds=1, episodes=3))
    lock.release()


def test_a_named_candidate_is_confirmed_instead_of_the_best(waves):
    table = run_it(waves, Confirmation(seeds=1, episodes=3, only=["c000002"]))
    assert set(table["candidate_id"].to_pylist()) == {"c000002", "c000000"}
    with pytest.raises(StoreError, match="no candidate 'c9'"):
        run_it(waves, Confirmation(seeds=1, episodes=3, only=["c9"], again=True))


def test_the_same_are_confirmed_where_the_metric_is_negated_and_its_direction_turned(waves):
    """Taken from the best of a table that never was searched for in that direction."""
    study = waves.file.study
    negated = [None if v is None else -v for v in waves.table["query_loss"].to_pylist()]
    table = changed(waves.table, query_loss=negated)
    turned = copy.copy(study)
    object.__setattr__(turned, "objectives", {"query_loss": "max"})
    mirror = replace(
        waves,
        file=replace(waves.file, study=turned),
        kept={**waves.kept, "objectives": {"query_loss": "max"}},
        table=table,
    )
    down, up = (
        [design.candidate.id for design in _chosen(run, Confirmation(top=3))]
        for run in (waves, mirror)
    )
    assert up == down
    ok = standing(waves.table).to_pylist()
    best = sorted((row for row in ok if not row["name"]), key=lambda row: row["query_loss"])
    assert down[: len(best[:3])] == [row["candidate_id"] for row in best[:3]]
    assert len(best) > 1


def test_longer_trainings_say_nothing_about_the_bias_of_selection(waves):
    equal = compare(run_it(waves, Confirmation(top=1, seeds=2, episodes=5)), waves.kept)
    assert all(each.bias is not None for each in equal)
    longer = Confirmation(top=1, seeds=2, episodes=5, iterations=9, again=True)
    assert all(each.bias is None for each in compare(run_it(waves, longer), waves.kept))


def test_without_any_success_there_is_nothing_to_confirm(waves):
    status = pa.array(["ERROR"] * len(waves.table)).dictionary_encode()
    at = waves.table.schema.get_field_index("status")
    failed = replace(waves, table=waves.table.set_column(at, "status", status))
    with pytest.raises(EvometaError, match="nothing to confirm"):
        run_it(failed, Confirmation())


def test_a_failed_training_is_kept_with_its_reason(waves, monkeypatch):
    def broken(genome):
        raise RuntimeError("no such network")

    study = replace(waves.file.study, build=broken)
    table = run_it(
        replace(waves, file=replace(waves.file, study=study)),
        Confirmation(top=1, seeds=1, episodes=3),
    )
    assert set(table["status"].to_pylist()) == {"INVALID"}
    assert "no such network" in table["error"][0].as_py()
    assert compare(table, waves.kept) == []


def test_gains_and_bias_follow_the_direction_of_the_metric(waves):
    table = run_it(waves, Confirmation(top=1, seeds=2, episodes=6))
    down = {each.id: each for each in compare(table, waves.kept)}
    kept = {**waves.kept, "objectives": {"query_loss": "max"}}
    up = {each.id: each for each in compare(table, kept)}
    best = next(id_ for id_, each in down.items() if not each.name)
    assert up[best].gains["narrow"].mean == -down[best].gains["narrow"].mean
    assert up[best].bias.mean == -down[best].bias.mean


def test_means_of_scores_do_not_pass_for_a_metric_that_is_no_mean(waves):
    table = run_it(waves, Confirmation(top=2, seeds=2, episodes=5))
    scored = next(iter(waves.kept["metrics"]))
    kept = {**waves.kept, "summaries": {scored: "median"}}
    found = compare(table, kept)
    console = Console(record=True, width=200)
    print_confirmed(console, found, kept, table)
    head, first = console.export_text().splitlines()[:2]
    assert f"mean {scored} of an episode" in head and head.count(scored) == 2
    assert f"{found[0].metrics[scored]:.4g}" in first
    assert as_data(found, kept, table)["metric"] == f"mean {scored} of an episode"
    section = confirmation(table, kept)
    assert f"mean {scored} of an episode" in section.finding


def test_one_seed_says_nothing_of_the_chance_of_seeds(waves):
    table = run_it(waves, Confirmation(top=1, seeds=1, episodes=6))
    for each in compare(table, waves.kept):
        assert each.bias is None and not each.test.seeds
        assert str(each.test).endswith("(one seed)")


def test_a_confirmation_again_forgets_the_weights_of_the_one_before(waves):
    run_it(waves, Confirmation(seeds=1, episodes=3, iterations=2, only=["c000001"]))
    assert "for 2 meta-iterations, by the confirmation" in load_learner(waves, "c000001").trained
    run_it(waves, Confirmation(seeds=1, episodes=3, only=["c000002"], again=True))
    assert "with the seed of the search" in load_learner(waves, "c000001").trained


def test_a_training_that_diverged_leaves_no_weights(waves):
    study = waves.file.study

    def build(genome):
        module = study.build(genome)
        if genome["width"] > 4:
            next(module.parameters()).data.fill_(float("1e30"))
        return module

    broken = replace(waves, file=replace(waves.file, study=replace(study, build=build)))
    table = run_it(broken, Confirmation(seeds=1, episodes=3, only=["c000001"]))
    ended = dict(zip(table["candidate_id"].to_pylist(), table["status"].to_pylist(), strict=True))
    assert ended["c000001"] != "OK"
    assert len([*(waves.place / "confirmed").glob("*.safetensors")]) == 1
    with pytest.raises(EvometaError, match="cannot be trained"):
        load_learner(broken, "c000001")


def test_weights_of_another_seed_will_do(waves):
    run_it(waves, Confirmation(seeds=3, episodes=3, only=["c000001"]))
    folder = waves.place / "confirmed"
    (folder / "c000001-0.safetensors").unlink()
    (folder / "c000001-1.safetensors").write_bytes(b"torn")
    assert load_learner(waves, "c000001").trained.endswith("by the confirmation, seed 2")


def test_a_folder_that_cannot_be_made_is_named(waves):
    (waves.place / "confirmed").write_text("in the way")
    with pytest.raises(StoreError, match="cannot be made"):
        run_it(waves, Confirmation(top=1, seeds=1, episodes=3))


@pytest.mark.parametrize(("seed_spread", "episode_spread"), [(0.0, 1.0), (1.0, 0.0), (0.5, 1.0)])
def test_intervals_cover_the_truth_as_often_as_they_say(seed_spread, episode_spread):
    """Scores are 3 + seed effect + episode effect + noise; 95 % of the intervals hold the 3."""
    rng = np.random.default_rng(0)
    seeds, episodes, rounds = 3, 40, 1500
    held = gained = 0
    for _ in range(rounds):

        def draw(common, truth):
            noise = rng.normal(0, 0.3, (seeds, episodes))
            return truth + rng.normal(0, seed_spread, (seeds, 1)) + common + noise

        one = estimate(draw(rng.normal(0, episode_spread, (1, episodes)), 3.0))
        held += abs(one.mean - 3.0) <= one.half
        common = rng.normal(0, episode_spread, (1, episodes))
        gain = difference(draw(common, 3.0), draw(common, 2.0))
        gained += abs(gain.mean - 1.0) <= gain.half
    for covered in (held / rounds, gained / rounds):
        assert 0.91 < covered <= 1.0, covered  # three seeds are few
        assert seed_spread == 0 or covered < 0.995  # it does not cover by being vague


def test_pairing_takes_the_difficulty_of_episodes_out():
    rng = np.random.default_rng(1)
    hard = rng.normal(0, 5.0, (1, 300))
    one, other = (hard + rng.normal(t, 0.1, (3, 300)) for t in (1.0, 0.0))
    gain = difference(one, other)
    assert gain.half < 0.1 * estimate(one).half
    assert abs(gain.mean - 1.0) < 3 * gain.half

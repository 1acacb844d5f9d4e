"""What is done with a candidate at each rung, and how it goes on from there."""

import os
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from evometa import Study, Training
from evometa import space as s
from evometa.errors import StoreError, StudyError
from evometa.evaluate import Evaluator, training
from evometa.evaluate.checkpoint import (
    find_start,
    load_checkpoint,
    prune,
    save_checkpoint,
    stages_to,
)
from evometa.learner import preset
from evometa.network import mlp
from evometa.records import Candidate, Status, repeat_seed
from evometa.rule import rule_space, update_space
from evometa.study import Rung, halving
from evometa.task import Sinusoid

SPACE = s.Struct(width=s.Int(4, 32), rule=rule_space(update=update_space()))
TASK = Sinusoid(shots=5, queries=5, eval_queries=10)
TRAINING = Training(iterations=30, tasks=4, validation=10)


def study(rungs=(), **more):
    return Study(
        SPACE, lambda g: mlp(1, [g["width"]], 1), TASK, training=TRAINING, rungs=rungs, **more
    )


def candidate(rung=0, number=0, **rule):
    rule = preset("maml", rate=0.05, outer={"adam": {"rate": 5e-3, "schedule": "cosine"}}, **rule)
    return Candidate(number, {"width": 8 + 4 * number, "rule": rule}, seed=7 + number, rung=rung)


def test_a_promoted_candidate_ends_as_if_it_had_never_stopped(tmp_path):
    rungs = halving(3)
    assert [level.iterations for level in study(rungs).levels] == [3, 10, 30]
    evaluate = Evaluator(study(rungs), weights=str(tmp_path))
    found = [evaluate([candidate(rung)])[0] for rung in range(3)]
    (whole,) = Evaluator(study())([candidate()])
    assert [e.status for e in found] == [Status.OK] * 3
    assert found[2].scores == whole.scores
    assert found[2].curve == whole.curve
    assert found[0].scores != found[1].scores != found[2].scores
    (alone,) = Evaluator(study(rungs))([candidate(2)])  # its weights are not at hand
    assert alone.scores == whole.scores


def test_a_promoted_candidate_trains_the_difference_of_the_rungs(tmp_path, monkeypatch):
    """Counted at the optimiser; without its weights it begins at the beginning."""
    steps, step = [], training.outer_step
    monkeypatch.setattr(training, "outer_step", lambda *given: steps.append(1) or step(*given))

    def taken(evaluate, *candidates):
        steps.clear()
        assert all(found.status is Status.OK for found in evaluate([*candidates]))
        return len(steps)

    made = study(halving(3))
    folder, nowhere = Evaluator(made, weights=str(tmp_path)), Evaluator(made)
    assert [taken(folder, candidate(rung)) for rung in range(3)] == [3, 7, 20]
    assert [taken(nowhere, candidate(rung)) for rung in range(3)] == [3, 10, 30]
    assert taken(folder, candidate(0, 1)) == 3
    assert taken(folder, candidate(2, 1)) == 27, "from the first rung to the last"
    again = replace(candidate(2, 1), repeat=1, seed=repeat_seed(8, 1))
    assert taken(folder, again) == 30, "another seed has nothing to go on from"


def test_a_torn_or_later_checkpoint_is_not_used(tmp_path):
    evaluate = Evaluator(study(halving(3)), weights=str(tmp_path))
    first = [evaluate([candidate(rung)])[0] for rung in range(2)]
    assert evaluate([candidate(0)])[0].scores == first[0].scores  # the file is that of rung 1
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:100])
    assert evaluate([candidate(1)])[0].scores == first[1].scores


def test_rules_that_shared_a_pack_go_on_alone_and_in_other_company(tmp_path):
    """Packs of different updates lend each other numbers; checkpoints must not mind."""
    updates = {
        0: ["mul", "rate", "gradient"],
        1: ["mul", "rate", "tanh", "mul", "learned", 1.5, "gradient"],
        2: ["add", "mul", "rate", "gradient", "mul", "learned", 0.01, "parameter"],
    }
    rungs = (Rung(iterations=10),)
    folder = Evaluator(study(rungs), weights=str(tmp_path))

    def pack(rung, numbers):
        made = [candidate(rung, number, update=updates[number]) for number in numbers]
        return [replace(c, genome={**c.genome, "width": 8}) for c in made]

    folder(pack(0, [0, 1, 2]))
    together = {e.candidate.number: e for e in folder(pack(1, [2, 1]))}
    alone = {
        n: Evaluator(study())([replace(c, rung=0)])[0] for n, c in enumerate(pack(1, [0, 1, 2]))
    }
    for number in (1, 2):
        assert together[number].scores == pytest.approx(alone[number].scores, rel=1e-3)
    (last,) = folder(pack(1, [0]))
    assert last.scores == pytest.approx(alone[0].scores, rel=1e-3)


def test_old_checkpoints_are_deleted(tmp_path):
    for age in range(20):
        path = tmp_path / f"c{age:06d}.safetensors"
        path.write_bytes(b"")
        os.utime(path, (1000 - age, 1000 - age))
    prune(tmp_path, most=30)
    assert len(list(tmp_path.iterdir())) == 20
    prune(tmp_path, most=5)
    assert sorted(path.stem for path in tmp_path.iterdir()) == [f"c{age:06d}" for age in range(5)]


def test_a_look_ahead_trains_nothing():
    (found,) = Evaluator(study((Rung(iterations=0, validation=3),)))([candidate()])
    assert found.status is Status.OK
    assert len(found.scores) == 3
    assert found.curve == ()


def test_further_seeds_differ_and_repeat():
    evaluate = Evaluator(study(seeds=3))
    own = candidate()
    other = replace(own, repeat=1, seed=repeat_seed(own.seed, 1))
    first, second, again = (evaluate([each])[0] for each in (own, other, other))
    assert first.scores != second.scores
    assert second.scores == again.scores


def test_cheaper_tasks_are_stages_of_their_own(tmp_path):
    """What the last stage does follows from the whole way, found on disk or not."""
    small = Sinusoid(shots=3, queries=3, eval_queries=10)
    rungs = (
        Rung(iterations=4, task=small, tasks=2, validation=5, steps=1),
        Rung(iterations=8, task=small, tasks=2, steps=1),
        Rung(iterations=15),
    )
    made = study(rungs)
    assert stages_to(made.levels, 3) == [1, 3]
    assert stages_to(made.levels, 1) == [1]
    evaluate = Evaluator(made, weights=str(tmp_path))
    found = [evaluate([candidate(rung, steps=2)])[0] for rung in range(4)]
    assert len(found[0].steps) == 2
    assert len(found[3].steps) == 3
    (alone,) = Evaluator(made)([candidate(3, steps=2)])
    assert alone.scores == found[3].scores
    (direct,) = Evaluator(study())([candidate(steps=2)])
    assert alone.scores != direct.scores


@pytest.mark.parametrize(
    ("rungs", "text"),
    [
        ((Rung(iterations=20), Rung(iterations=10)), "must not fall.*20, 10, 30"),
        ((Rung(iterations=31),), "must not fall"),
    ],
)
def test_rungs_that_cannot_work_are_refused(rungs, text):
    with pytest.raises(StudyError, match=text):
        study(rungs)


def test_bad_fidelities_are_refused():
    with pytest.raises(StudyError, match="`steps >= 1`"):
        Rung(steps=0)
    with pytest.raises(StudyError, match="either `iterations` or `0 < share <= 1`"):
        Rung(iterations=3, share=0.5)
    with pytest.raises(StudyError, match="`rungs >= 1`"):
        halving(0)


def test_a_time_limit_ends_with_its_name():
    made = study()
    (found,) = Evaluator(made).until(lambda: True)([candidate()])
    assert found.status is Status.TIMEOUT
    assert "time limit was reached" in found.error


def test_limits_known_before_training_cost_nothing():
    made = study(constraints=("params <= 20", "rule_size <= 100"))
    fine = replace(candidate(), genome={**candidate().genome, "width": 6})
    good, bad = Evaluator(made)([fine, candidate(number=3)])
    assert good.status is Status.OK
    assert (bad.status, bad.metrics) == (Status.INVALID, {})
    assert "params is 61, but the study asks for params <= 20" in bad.error


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("params < 5", "must read like 'params <= 50_000', got 'params < 5'"),
        ("size <= 5", "one of query_loss, params"),
        ("params <= many", "must read like"),
    ],
)
def test_bad_constraints_are_refused(text, said):
    with pytest.raises(StudyError, match=said):
        study(constraints=(text,))


def test_a_checkpoint_of_an_unknown_rung_is_not_used(tmp_path):
    """Of an older version: it may be of a later rung."""
    evaluate = Evaluator(study(halving(3)), weights=str(tmp_path))
    expected = [evaluate([candidate(rung)])[0] for rung in range(2)][1]
    (file,) = tmp_path.iterdir()
    kept = load_checkpoint(file)
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    assert find_start(tmp_path, candidate(1), metadata["structure"]).checkpoint is not None
    save_file({name: value for name, value in kept.items() if name != "rung"}, file, metadata)
    assert find_start(tmp_path, candidate(1), metadata["structure"]).checkpoint is None
    assert evaluate([candidate(1)])[0].scores == expected.scores


def test_a_checkpoint_of_another_network_of_equal_shapes_is_not_used(tmp_path):
    def made(activation):
        def build(genome):
            return nn.Sequential(nn.Linear(1, genome["width"]), activation, nn.Linear(8, 1))

        return Study(SPACE, build, TASK, training=TRAINING, rungs=halving(3))

    Evaluator(made(nn.Tanh()), weights=str(tmp_path))([candidate(0)])
    assert len([*tmp_path.iterdir()]) == 1
    found = Evaluator(made(nn.SiLU()), weights=str(tmp_path))([candidate(1)])[0]
    scratch = Evaluator(made(nn.SiLU()))([candidate(1)])[0]
    assert found.scores == scratch.scores


def test_a_look_ahead_leaves_no_checkpoint(tmp_path):
    evaluate = Evaluator(study((Rung(iterations=0), *halving(2))), weights=str(tmp_path))
    evaluate([candidate(0)])
    assert [*tmp_path.iterdir()] == []
    evaluate([candidate(1)])
    assert len([*tmp_path.iterdir()]) == 1


def test_a_checkpoint_that_cannot_be_written_is_said(tmp_path):
    nowhere = tmp_path / "file" / "folder"
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StoreError, match="cannot be written"):
        save_checkpoint(nowhere / "c.safetensors", {"x": torch.zeros(1)}, "any")

"""Which episodes a candidate is trained on."""

from dataclasses import dataclass, field

import pytest
import torch

from evometa import Training
from evometa.evaluate import VMAP, Trainer
from evometa.learner import preset
from evometa.network import Network, mlp
from evometa.task import Sinusoid
from tests.learner.laws import CPU, learner_of

TASKS, BLOCK, BLOCKS = 2, 4, 3  # in a meta-batch; meta-iterations in a block; blocks


@pytest.fixture(autouse=True)
def _short_blocks(monkeypatch):
    monkeypatch.setattr("evometa.evaluate.training.BLOCK_MOST", BLOCK)


@dataclass(frozen=True)
class Noted(Sinusoid):
    """Writes down all episodes that are drawn for meta-training."""

    drawn: list = field(default_factory=list)

    def episodes(self, split, n, generator):
        found = super().episodes(split, n, generator)
        if split == "meta-train" and n > 1:  # one is drawn to see its size
            self.drawn.append(found)
        return found


def episodes_of(seeds, iterations, until=None):
    """Return what each seed is trained on: a list of episodes a seed, as texts."""
    task = Noted(shots=2, queries=2)
    learners = [learner_of(preset("fomaml"), Network(mlp(1, [2], 1)), task) for _ in seeds]
    training = Training(iterations=iterations, tasks=TASKS, validation=1)
    trainer = Trainer(learners, task, training, seeds=seeds, plan=VMAP, device=CPU)
    trainer.run(until)
    found = [[] for _ in seeds]
    for place, block in enumerate(task.drawn):
        both = torch.cat([block.support.inputs, block.query.inputs], 1)
        found[place % len(seeds)] += [str(each.flatten().tolist()) for each in both]
    return found


@pytest.mark.parametrize("seeds", [[1], [1, 2]], ids=["alone", "packed"])
def test_no_episode_comes_twice(seeds):
    """Not in another block of the training, and not for another seed."""
    found = episodes_of(seeds, BLOCKS * BLOCK)
    for each in found:
        assert len(each) == BLOCKS * BLOCK * TASKS
    everything = [episode for each in found for episode in each]
    assert len(set(everything)) == len(everything)


def test_episodes_follow_from_the_seed_alone():
    alone, together = episodes_of([2], 2 * BLOCK), episodes_of([1, 2], 2 * BLOCK)
    assert alone[0] == together[1]
    assert set(together[0]).isdisjoint(together[1])


def test_a_longer_training_begins_as_a_shorter_one():
    whole = episodes_of([1], 3 * BLOCK)[0]
    assert whole[: 2 * BLOCK * TASKS] == episodes_of([1], 2 * BLOCK)[0]

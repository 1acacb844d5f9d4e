"""Families beyond gradient steps where ways, shots and sizes of classes vary."""

import pytest
import torch

from evometa.learner import Setting, make_learner, preset
from evometa.network import Network
from evometa.records import Status
from evometa.task.episodes import over, part_of
from tests.evaluate.test_contract import evaluated, flat_net, glyphs, normed
from tests.learner.points import moved

GENES = {
    "transfer": {"steps": 5},
    "baseline++": {"steps": 5},
    "in-context": {"width": 8, "ways": 3},
    "cnp": {"width": 8},
    "mann": {"width": 8, "rows": 8, "size": 4},
    "delta-rule": {},
}


@pytest.mark.parametrize("name", GENES)
@pytest.mark.parametrize("norm", ["inductive", "per-step"])
def test_padded_equals_unpadded(norm, name):
    task = glyphs(shots=3, drawings=6, sampling="unequal")
    episodes = task.episodes("meta-train", 4, torch.Generator().manual_seed(1))
    row = int((~episodes.support.inputs.mask).sum(1).argmax())
    real = episodes.support.inputs.mask[row]
    assert not real.all()
    module = normed(None)(None)
    outputs = module(episodes.support.inputs.values[0]).to("meta")
    setting = Setting(Network(module.double()), task, norm, outputs)
    learner = make_learner(preset(name, **GENES[name]), setting)
    meta = over(lambda leaf: leaf.double(), moved(learner))
    support, query = part_of(episodes, row)
    wide = over(lambda leaf: leaf.double() if leaf.is_floating_point() else leaf, (support, query))
    cut = wide[0]._replace(inputs=wide[0].inputs.values[real], targets=wide[0].targets[real])
    one, other = (learner.meta_loss(meta, side, wide[1]) for side in (wide[0], cut))
    torch.testing.assert_close(one.loss, other.loss, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(one.objective, other.objective, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", GENES)
def test_ways_and_shots_vary_from_one_meta_batch_to_the_next(name):
    task = glyphs(ways=(2, 4), shots=(1, 3), sampling="unequal")
    rule = preset(name, **GENES[name])
    result = evaluated(task, flat_net(4), rule, "loop", {"iterations": 4, "validation": 8})
    assert result.status is Status.OK, result.error
    assert len(result.scores) == 8

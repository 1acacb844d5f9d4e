"""Equal candidates are recognised; those that are none do no harm."""

import pytest
import torch

from evometa import Study, Training
from evometa import space as s
from evometa.errors import StudyError
from evometa.evaluate import Evaluator, identify
from evometa.learner import preset
from evometa.network import mlp
from evometa.records import Candidate, Status
from evometa.rule import rule_space, update_space
from evometa.space import Primitive
from evometa.task import Sinusoid


def study(rule):
    return Study(
        space=s.Struct(width=s.Int(2, 9), rule=rule),
        build=lambda genome: mlp(1, [genome["width"]], 1),
        task=Sinusoid(),
        training=Training(iterations=1, tasks=2, validation=2, later=3),
    )


def genome(update, width=4):
    return {"width": width, "rule": preset("maml", update=update)}


def test_rules_that_do_the_same_are_one_candidate():
    identity = identify(study(rule_space(update=update_space())))
    one = identity(genome(["mul", "rate", "gradient"]))
    assert one == identity(genome(["mul", "gradient", "rate"]))
    assert one != identity(genome(["mul", "rate", "gradient"], width=5))
    assert one != identity(genome(["mul", "rate", "sign", "gradient"]))


@pytest.mark.parametrize(
    "broken", [{}, {"rule": "maml"}, {"rule": []}, {"rule": {"outer": "adam"}}, {"rule": {"a": 1}}]
)
def test_what_is_no_rule_has_an_identity_and_is_rejected(broken):
    here = study(s.Choice("any"))
    assert identify(here)({"width": 3, **broken}) != identify(here)({"width": 4, **broken})
    if broken:
        (result,) = Evaluator(here)([Candidate(0, {"width": 3, **broken}, 0)])
        assert result.status is Status.INVALID and "rule" in result.error


def double(x):
    return 2 * x


def test_primitives_of_rules_are_found_and_must_not_clash():
    own = Primitive("double", ("same",), function=double)
    here = study(rule_space(update=update_space(own=[own])))
    assert here.primitives == (own,)
    candidate = Candidate(0, genome(["mul", "rate", "double", "gradient"]), 0)
    (result,) = Evaluator(here)([candidate])
    assert result.status is Status.OK and result.metrics["later_query_loss"] > 0
    activation = s.Tree(
        [Primitive("x", (), "element"), Primitive("tanh", ("same",), function=torch.tanh)]
    )
    apart = s.Struct(act=activation, rule=rule_space(update=update_space(own=[own])))
    assert Study(apart, lambda g: mlp(1, [2], 1), Sinusoid()).primitives == (own,)
    other = Primitive("double", ("same",), function=torch.tanh)
    both = s.Choice(
        a=rule_space(update=update_space(own=[own])), b=rule_space(update=update_space(own=[other]))
    )
    with pytest.raises(StudyError, match="double"):
        study(both)

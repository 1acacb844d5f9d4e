"""Named mutations and expressions: valid, the same in every process, with a way out."""

import subprocess
import sys

import numpy as np
import pytest

from evometa.errors import SpaceError
from evometa.space import Choice, Int, Primitive, Struct, Tree
from evometa.space.operators import operate, operators
from tests.space.strategies import PRIMITIVES

TREE = Tree(PRIMITIVES, size=16, required=("gradient",))
SPACE = Struct(
    seed=Int(0, 9),
    one=Choice("only"),
    rule=Struct(update=TREE, steps=Int(1, 3)),
    constraints=[lambda genome: genome["seed"] != 3],
)


def test_every_field_that_can_change_has_its_mutations():
    assert list(operators(SPACE)) == [
        "mutate seed",
        *(f"{way} rule.update" for way in ("subtree", "point", "constant", "insert", "delete")),
        "mutate rule.steps",
    ]


def test_mutations_stay_within_the_space_and_change_their_field_alone():
    rng = np.random.default_rng(0)
    genome = SPACE.sample(rng)
    for _ in range(40):
        for name in operators(SPACE):
            child = operate(SPACE, genome, name, rng)
            SPACE.validate(child)
            path = name.partition(" ")[2]
            changed = {
                "seed": child["seed"] != genome["seed"],
                "rule.update": child["rule"]["update"] != genome["rule"]["update"],
                "rule.steps": child["rule"]["steps"] != genome["rule"]["steps"],
            }
            assert changed[path] and sum(changed.values()) == 1
            genome = child


def test_a_field_without_a_way_out_falls_back_to_another():
    stuck = Struct(
        a=Choice(
            x=Struct(p=Int(1, 3), q=Int(1, 3), constraints=[lambda g: g["p"] == 1 and g["q"] == 1]),
            y=Struct(r=Int(1, 9)),
        ),
        b=Int(1, 1000),
    )
    genome = {"a": {"x": {"p": 1, "q": 1}}, "b": 1}
    for seed in range(8):
        stuck.validate(operate(stuck, genome, "mutate a", np.random.default_rng(seed)))


SESSION = """
import sys, numpy as np
from tests.space.test_operators import TREE
x = [object() for _ in range(int(sys.argv[1]))]
rng = np.random.default_rng(5)
trees = [TREE.sample(rng) for _ in range(20)]
for _ in range(60):
    i, j = rng.integers(20, size=2)
    trees[i] = TREE.crossover(TREE.mutate(trees[i], rng), trees[j], rng)
print(trees)
"""


def test_expressions_evolve_alike_in_every_process():
    outputs = set()
    for hash_seed in ("1", "2", "3", "4", "5"):
        environment = {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": ":".join(sys.path)}
        done = subprocess.run(
            [sys.executable, "-c", SESSION, str(1000 * int(hash_seed))],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        outputs.add(done.stdout)
    assert len(outputs) == 1


@pytest.mark.parametrize("kind", ["scalar", "layer"])
def test_a_narrow_leaf_without_narrow_operations_is_a_leaf_at_any_depth(kind):
    tree = Tree(
        [Primitive("x", (), "element"), Primitive("t", (), kind), Primitive("f", ("same",))]
    )
    rng = np.random.default_rng(0)
    for _ in range(50):
        tree.validate(tree.mutate(tree.sample(rng), rng))


def test_broken_primitives_are_refused():
    for make in (
        lambda: Primitive("lambda"),
        lambda: Primitive("two words"),
        lambda: Primitive("learned"),
        lambda: Primitive("f", ("element",)),
        lambda: Primitive("f", ("matrix",)),
        lambda: Tree(["x"]),
        lambda: Tree([Primitive("t", (), "scalar")]),
        lambda: Tree([*PRIMITIVES, PRIMITIVES[0]]),
        lambda: Tree(PRIMITIVES, required=["no"]),
        lambda: Tree(PRIMITIVES, depth=99),
    ):
        with pytest.raises(SpaceError):
            make()

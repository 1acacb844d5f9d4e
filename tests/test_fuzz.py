"""Valid inputs changed at random: readers raise `EvometaError` and nothing else.

A second each from a fixed seed; `EVOMETA_FUZZ=5 pytest -m fuzz` goes on for five minutes each.
"""

import json
import os
import random
import shutil
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings

from evometa import space as s
from evometa.errors import EvometaError, GenomeError
from evometa.records import canonical_json
from evometa.rule import preset, read_rule, rule_space, update_space
from evometa.store import evaluations, read_search, read_table
from evometa.study import load_study
from tests.report.tables import ordinary, write
from tests.space.strategies import seeds, spaces

SECONDS = 60 * float(os.environ.get("EVOMETA_FUZZ", 0))
ROUNDS = 150
pytestmark = [pytest.mark.fuzz, pytest.mark.timeout(60 + 3 * SECONDS)]

ODD = [None, True, -1, 0, 1, 2**70, 0.5, -0.0, 1e308, float("nan"), float("inf"), "", "x",
       "gradient", "\ud800", [], {}, [[]], {"": {}}, [None], "x" * 5000]  # fmt: skip


def rounds():
    """Yield generators, for as long as is asked for."""
    until = time.monotonic() + SECONDS
    number = 0
    while number < ROUNDS or time.monotonic() < until:
        yield random.Random(number)
        number += 1


def deep(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value


def mutated(value, chance):
    """Return plain data with something changed somewhere."""
    if chance.random() < 0.15 or not isinstance(value, dict | list) or not value:
        odd = chance.choice([*ODD, deep(300)])
        return chance.choice([odd, {"gradient": odd}, [odd, value]])
    if isinstance(value, dict):
        key = chance.choice([*value])
        kind = chance.randrange(6)
        if kind == 0:
            return {k: v for k, v in value.items() if k != key}
        if kind == 1:
            return {**value, chance.choice(["colour", "", "rule", "steps"]): chance.choice(ODD)}
        return {**value, key: mutated(value[key], chance)}
    place = chance.randrange(len(value))
    kind = chance.randrange(5)
    if kind == 0:
        return value[:place] + value[place + 1 :]
    if kind == 1:
        return value[:place] + [chance.choice(value)] * chance.choice([2, 70]) + value[place:]
    return [*value[:place], mutated(value[place], chance), *value[place + 1 :]]


def garbled(data, chance):
    """Return bytes with some of them changed, lost or doubled."""
    data = bytearray(data)
    for _ in range(chance.randrange(1, 6)):
        place = chance.randrange(len(data) or 1)
        size = chance.choice([1, 1, 4, 50])
        kind = chance.randrange(4)
        if kind == 0:
            data[place : place + size] = chance.randbytes(size)
        elif kind == 1:
            del data[place : place + size]
        elif kind == 2:
            data[place:place] = data[place : place + size]
        else:
            data[place : place + 1] = (
                bytes([data[place] ^ 1 << chance.randrange(8)]) if data else b""
            )
    return bytes(data)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write(tmp_path_factory.mktemp("fuzz") / "run", ordinary(12))


def test_tables(run, tmp_path):
    part = run / "evaluations" / "part-000000.parquet"
    sound, table = part.read_bytes(), pq.read_table(part)
    shutil.copytree(run, tmp_path / "run")
    part = tmp_path / "run" / "evaluations" / part.name
    for chance in rounds():
        if chance.random() < 0.5:
            part.write_bytes(garbled(sound, chance))
        else:
            pq.write_table(changed(table, chance), part)
        for read in (
            lambda: [*evaluations(read_table(tmp_path / "run"))],
            lambda: read_table(tmp_path / "run", ["query_loss", "genome"]),
            lambda: read_search(tmp_path / "run"),
        ):
            try:
                read()
            except EvometaError:
                continue


def changed(table, chance):
    """Return a table with a column that is lost, retyped, doubled or emptied."""
    place = chance.randrange(table.num_columns)
    name, n = table.column_names[place], len(table)
    kind = chance.randrange(4)
    if kind == 0:
        return table.remove_column(place)
    if kind == 1:
        return table.append_column(name, table[name])
    column = chance.choice(
        [
            pa.nulls(n),
            pa.array(["x"] * n),
            pa.array(["{"] * n),
            pa.array([2**62] * n),
            pa.array([-1] * n),
            pa.array([np.nan] * n),
            pa.array([1e308] * n),
            pa.array([[1.0]] * n),
            pa.array([[None]] * n, pa.list_(pa.string())),
            pa.array([b"\xff"] * n),
            pa.array([{"x": 1}] * n),
            pa.array([True] * n),
            pa.array([2**62] * n, pa.timestamp("ns")),
            pa.array([None, *table[name].to_pylist()[1:]], table[name].type),
        ]
    )
    return table.set_column(place, name, column)


def test_descriptions_of_studies(run, tmp_path):
    sound = json.loads((run / "study.json").read_text())
    shutil.copytree(run, tmp_path / "run")
    file = tmp_path / "run" / "study.json"
    for chance in rounds():
        text = json.dumps(mutated(sound, chance)).encode()
        file.write_bytes(text if chance.random() < 0.7 else garbled(text, chance))
        try:
            read_search(tmp_path / "run")
        except EvometaError:
            continue


STUDY = """
from torch import nn
from evometa import Study, Training
from evometa import space as s
from evometa.task import Sinusoid

study = Study(
    space=s.Struct(width=s.Int(4, 16), act=s.Choice("relu", "tanh")),
    build=lambda genome: nn.Linear(1, 1),
    task=Sinusoid(shots=5),
    objectives={"query_loss": "min", "params": "min"},
    baselines={"narrow": {"width": 4, "act": "relu"}},
    training=Training(iterations=1, tasks=2, validation=3),
)
"""


def test_study_files(tmp_path):
    for number, chance in enumerate(rounds()):
        file = tmp_path / f"study{number}.py"
        file.write_bytes(garbled(STUDY.encode(), chance))
        try:
            load_study(file)
        except EvometaError:
            continue


def test_rules(tmp_path):
    file = tmp_path / "rule.json"
    for chance in rounds():
        name = chance.choice(["maml", "meta-sgd", "adam"])
        text = json.dumps(mutated(preset(name), chance)).encode()
        file.write_bytes(text if chance.random() < 0.7 else garbled(text, chance))
        try:
            read_rule(file)
        except GenomeError:
            continue


def test_genomes():
    space = s.Struct(
        width=s.Int(1, 9),
        rate=s.Float(1e-3, 1.0, log=True),
        layers=s.List(s.Struct(kind=s.Choice("a", "b"), size=s.Int(1, 3)), min=0, max=3),
        body=s.Choice(small=s.Struct(n=s.Int(1, 2)), large=s.List(s.Float(0.0, 1.0), min=1, max=2)),
        rule=rule_space(update=update_space(size=12)),
    )
    for chance in rounds():
        genome = space.sample(np.random.default_rng(chance.randrange(2**32)))
        space.validate(genome)
        for _ in range(3):
            genome = mutated(genome, chance)
        try:
            space.validate(genome)
        except GenomeError:
            continue


@given(spaces, seeds)
@settings(max_examples=150 + int(20 * SECONDS), deadline=None)
def test_genomes_of_any_space(space, seed):
    """What a space can draw it takes; the rest it refuses, or it is plain data like the drawn."""
    chance = random.Random(seed)
    genome = space.sample(np.random.default_rng(seed))
    space.validate(genome)
    text = canonical_json(genome)
    for _ in range(3):
        changed = mutated(genome, chance)
        try:
            space.validate(changed)
        except GenomeError as error:
            assert str(error)
        else:
            space.validate(json.loads(canonical_json(changed)))
    assert canonical_json(genome) == text

"""How does a person like a film, judged by ten ratings of theirs? MovieLens-100k, users as tasks.

A table with one row a rating. An episode is a user: ten ratings to learn from, ten others to be
predicted from the film (genres, year, what others think of it) and the user (age, gender,
occupation). Searched together: a small network, and whether a linear map of its features is fitted
to the ten ratings (ridge), or its weights adapt by a gradient rule. The baseline is what the field
would ask for first: ridge regression of each user on features of the films.

The ratings are those that the package `recbole` carries (`pip install --no-deps recbole==1.2.1`).
They are for research, and not to be passed on: they are read where they are installed.

    evometa search search_spaces/ratings.py
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv
from torch import nn

from evometa import Study, Training
from evometa import space as s
from evometa.learner import preset, ridge_space
from evometa.rule import rule_space
from evometa.task import Table

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "silu": nn.SiLU}
SHARES = {"meta-train": 0.64, "meta-validation": 0.16, "meta-test": 0.2}
PRIOR = 5.0  # ratings of 3.5 that each film has besides its own


def read_ratings() -> pa.Table:
    found = find_spec("recbole")
    folders = [Path(each) for each in (found.submodule_search_locations or ())] if found else []
    folders = [each / "dataset_example" / "ml-100k" for each in folders]
    folder = next((each for each in folders if (each / "ml-100k.inter").is_file()), None)
    if folder is None:
        raise FileNotFoundError(
            "the ratings of MovieLens-100k are not installed; the package recbole carries them: "
            "pip install --no-deps recbole==1.2.1"
        )

    def part(name: str) -> pa.Table:
        table = csv.read_csv(
            folder / f"ml-100k.{name}", parse_options=csv.ParseOptions(delimiter="\t")
        )
        return table.rename_columns([column.partition(":")[0] for column in table.column_names])

    films = part("item").rename_columns(["item_id", "title", "year", "genres"])
    films = films.set_column(2, "year", _years(films["year"]))
    films = films.set_column(3, "genres", pc.split_pattern(films["genres"], " "))
    ratings = part("inter").join(part("user").drop(["zip_code"]), "user_id")
    # joins do not take lists along, and keep no order
    rows = pc.index_in(ratings["item_id"], films["item_id"])
    for name in ("year", "genres"):
        ratings = ratings.append_column(name, films[name].take(rows))
    return ratings.sort_by([("user_id", "ascending"), ("timestamp", "ascending")])


def _years(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_integer(column.type):
        return column
    whole = pc.match_substring_regex(column, r"^\d+$")
    return pc.if_else(whole, column, None).cast(pa.int64())


def dealt(users: np.ndarray) -> dict[str, list[int]]:
    order = np.random.default_rng(0).permutation(np.unique(users))
    ends = np.round(np.cumsum([*SHARES.values()])[:2] * len(order)).astype(int)
    return {split: own.tolist() for split, own in zip(SHARES, np.split(order, ends), strict=True)}


def with_opinion(ratings: pa.Table, train: list[int]) -> pa.Table:
    """Add what the other users of meta-train think of a film, less 3.5, and how many they are."""
    users, films, given = (ratings[name].to_numpy() for name in ("user_id", "item_id", "rating"))
    above, known = given - 3.5, np.isin(users, train).astype(float)
    sums = np.bincount(films, above * known)[films] - above * known
    counts = np.bincount(films, known)[films] - known
    ratings = ratings.append_column("above", pa.array(above))
    ratings = ratings.append_column("opinion", pa.array(sums / (counts + PRIOR)))
    return ratings.append_column("fame", pa.array(np.log1p(counts)))


ratings = read_ratings()
splits = dealt(ratings["user_id"].to_numpy())

task = Table(
    with_opinion(ratings, splits["meta-train"]),
    task="user_id",
    target="above",
    inputs=["genres", "year", "opinion", "fame", "age", "gender", "occupation"],
    shots=10,
    queries=10,
    splits=splits,
    skip_small=True,
)


def build(genome) -> nn.Module:
    layers: list[nn.Module] = []
    for width in genome["hidden"]:
        layers += [nn.LazyLinear(width), ACTIVATIONS[genome["activation"]]()]
    last = nn.LazyLinear(1) if "gradient" in genome["rule"] else nn.Identity()
    return nn.Sequential(*layers, last)


study = Study(
    space=s.Struct(
        hidden=s.List(s.Int(8, 64, step=8), min=1, max=2),
        activation=s.Choice(*ACTIVATIONS),
        rule=s.Choice(ridge=ridge_space(), gradient=rule_space(steps=s.Int(1, 3))),
    ),
    build=build,
    task=task,
    objectives={"query_loss": "min", "params": "min"},
    baselines={
        "ridge": {"hidden": [32], "activation": "relu", "rule": preset("ridge")},
        "MAML": {
            "hidden": [32, 32],
            "activation": "relu",
            "rule": {"gradient": preset("maml", rate=0.05)},
        },
    },
    training=Training(iterations=200, tasks=16, validation=150),
    candidates=40,
)

"""Tables: episodes are rows of one task, encoded as plain Python would from meta-train alone."""

import datetime
import json
import os
import pickle
import subprocess
import sys
from collections import Counter

import duckdb
import numpy as np
import pandas
import polars
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
import torch

from evometa.errors import TaskError
from evometa.evaluate.faults import check_episodes
from evometa.task import SPLITS, ClassBatch, Table, encode
from evometa.task.groups import class_scores

COUNT = 900
RNG = np.random.default_rng(0)
ROWS = {
    "user": RNG.integers(0, 30, COUNT).tolist(),
    "rating": (RNG.permutation(COUNT) / 256).tolist(),  # each once
    "age": [None if u < 0.1 else round(100 * u, 3) for u in RNG.random(COUNT).tolist()],
    "colour": RNG.choice(["red", "green", "blue"], COUNT).tolist(),
    "flag": (RNG.random(COUNT) < 0.3).tolist(),
    "when": RNG.integers(0, 10**6, COUNT).tolist(),
}
TABLE = pa.table(ROWS)
ROLES = {"task": "user", "target": "rating"}


def drawn(task, split="meta-train", n=4, seed=0):
    return task.episodes(split, n, torch.Generator().manual_seed(seed))


def groups_of(task):
    """The names of the tasks of each split."""
    return {s: {task.groups.names[g] for g in own} for s, own in task.groups.splits.items()}


def expected(rows, train):
    """Features of age, colour and flag, in plain Python."""
    known = [rows["age"][i] for i in train if rows["age"][i] is not None]
    mean, spread = np.mean(known), np.std(known)
    share = np.mean([rows["flag"][i] for i in train])
    deviation = np.std([rows["flag"][i] for i in train])
    found = []
    for age, colour, flag in zip(rows["age"], rows["colour"], rows["flag"], strict=True):
        scaled = 0.0 if age is None else (age - mean) / spread
        one_hot = [colour == name for name in ("blue", "green", "red")]
        found.append([scaled, age is None, *one_hot, not any(one_hot), (flag - share) / deviation])
    return np.array(found, np.float32)


def written(folder, form):
    if form == "parquet":
        pq.write_table(TABLE, folder / "t.parquet", row_group_size=100)
        return folder / "t.parquet"
    if form == "parts":
        (folder / "t").mkdir()
        for k in range(3):
            pq.write_table(TABLE.slice(300 * k, 300), folder / "t" / f"part-{k}.parquet")
        (folder / "t" / "_SUCCESS").write_text("")
        (folder / "t" / ".hidden.parquet").write_text("")
        return str(folder / "t")
    if form == "csv":
        pa.csv.write_csv(TABLE, folder / "t.csv")
        return folder / "t.csv"
    if form == "feather":
        pa.feather.write_feather(TABLE, folder / "t.feather")
        return folder / "t.feather"
    with (
        pa.OSFile(str(folder / "t.arrows"), "wb") as file,
        pa.ipc.new_stream(file, TABLE.schema) as w,
    ):
        w.write_table(TABLE, max_chunksize=100)
    return folder / "t.arrows"


MADE = {
    "pyarrow": lambda: TABLE,
    "pandas": TABLE.to_pandas,
    "polars": lambda: polars.from_arrow(TABLE),
    "duckdb": lambda: duckdb.from_arrow(TABLE),
    "dictionaries": lambda: TABLE.set_column(3, "colour", TABLE["colour"].dictionary_encode()),
    "a dict": lambda: ROWS,
}


@pytest.mark.parametrize("form", ["parquet", "parts", "csv", "feather", "stream", *MADE])
def test_features_are_those_of_plain_python(form, tmp_path):
    source = MADE[form]() if form in MADE else written(tmp_path, form)
    task = Table(source, **ROLES, inputs=["age", "colour", "flag"], shots=3, queries=4).load(None)
    check_episodes(task)
    names = groups_of(task)
    assert {split: len(own) for split, own in names.items()} == {
        "meta-train": 19, "meta-validation": 5, "meta-test": 6,
    }  # fmt: skip
    train = [i for i, user in enumerate(ROWS["user"]) if str(user) in names["meta-train"]]
    features = expected(ROWS, train)
    for split in SPLITS:
        episodes = drawn(task, split, n=8)
        assert episodes.support.inputs.shape == (8, 3, 7)
        assert episodes.query.targets.shape == (8, 4, 1)
        for k in range(8):
            own = [np.concatenate([side.inputs[k], side.targets[k]], 1) for side in episodes]
            rows = [
                int(np.flatnonzero(np.float32(ROWS["rating"]) == row[-1])[0])
                for row in np.concatenate(own)
            ]
            np.testing.assert_allclose(
                np.concatenate(own)[:, :-1], features[rows], rtol=1e-5, atol=1e-6
            )
            (user,) = {str(ROWS["user"][row]) for row in rows}
            assert user in names[split] and len(set(rows)) == 7
    again = json.loads(json.dumps(task.describe()["rules"]))
    some = [{name: ROWS[name][i] for name in ("age", "colour", "flag")} for i in range(50)]
    np.testing.assert_allclose(encode(again, some), features[:50], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(task.encode(some), encode(again, pandas.DataFrame(some)))
    assert pickle.loads(pickle.dumps(task)).describe() == task.describe()


def test_all_sources_give_one_task(tmp_path):
    hashes = set()
    for form in ("parquet", "parts", "csv", "feather", "stream"):
        task = Table(written(tmp_path, form), **ROLES, inputs=["age", "colour"]).load(None)
        hashes.add(task.describe()["data"])
    hashes |= {
        Table(make(), **ROLES, inputs=["age", "colour"]).load(None).describe()["data"]
        for make in MADE.values()
    }
    assert len(hashes) == 1
    other = {**ROWS, "age": [*ROWS["age"][:-1], 3.25]}
    task = Table(other, **ROLES, inputs=["age", "colour"]).load(None)
    assert task.describe()["data"] not in hashes


def test_lists_are_vectors_or_sets():
    rows = {
        **ROWS,
        "vector": RNG.normal(2, 3, (COUNT, 4)).tolist(),
        "tags": [sorted({*RNG.choice(["a", "b", "c", "d"], 2)}) for _ in range(COUNT)],
        "codes": [[int(k)] * int(k) for k in RNG.integers(0, 3, COUNT)],
    }
    rows["vector"][0] = None
    task = Table(
        rows, **ROLES, inputs=["vector", "tags", "codes"], categorical=["codes"],
        splits={split: range(10 * k, 10 * k + 10) for k, split in enumerate(SPLITS)},
    ).load(None)  # fmt: skip
    some = pa.table({name: rows[name] for name in ("vector", "tags", "codes")})
    found = task.encode(some)
    train = [
        v for v, u in zip(rows["vector"], rows["user"], strict=True) if u < 10 and v is not None
    ]
    wide = rows["user"][0] < 10
    vectors = np.array([[np.mean(train)] * 4 if v is None else v for v in rows["vector"]])
    np.testing.assert_allclose(
        found[:, :4], (vectors - np.mean(train)) / np.std(train), rtol=1e-4, atol=1e-5
    )
    rest = found[:, 4 + wide :]
    for k in range(COUNT):
        tags = [name in rows["tags"][k] for name in "abcd"]
        codes = [number in rows["codes"][k] for number in (1, 2)]
        assert rest[k].tolist() == [*tags, False, *codes, False]
    other = {"vector": [[0.0] * 4], "tags": [["a", "new"]], "codes": [[7]]}
    assert task.encode(other)[0, 4 + wide :].tolist() == [1, 0, 0, 0, 1, 0, 0, 1]


def test_many_categories_are_hashed():
    names = [f"name {k}" for k in RNG.integers(0, 200, COUNT)]
    task = Table({**ROWS, "name": names}, **ROLES, inputs=["name"], categories=16).load(None)
    features = task.encode({"name": names})
    assert features.shape == (COUNT, 16) and (features.sum(1) == 1).all()
    places = {name: int(row.argmax()) for name, row in zip(names, features, strict=True)}
    assert all(features[i, places[name]] for i, name in enumerate(names))
    assert len(set(places.values())) > 8
    assert "hashed to 16 features" in task.reading.warnings[0]


def test_rules_know_meta_train_alone():
    splits = {split: list(range(10 * k, 10 * k + 10)) for k, split in enumerate(SPLITS)}
    changed = {
        **ROWS,
        "age": [a if u < 10 else 1e6 for a, u in zip(ROWS["age"], ROWS["user"], strict=True)],
        "colour": [
            c if u < 10 else "new" for c, u in zip(ROWS["colour"], ROWS["user"], strict=True)
        ],
    }
    one, other = (
        Table(rows, **ROLES, inputs=["age", "colour"], splits=splits).load(None)
        for rows in (ROWS, changed)
    )
    assert one.describe()["rules"] == other.describe()["rules"]
    assert (drawn(other, "meta-test").query.inputs[..., -1] == 1).all()


def test_support_comes_before_queries_in_time_and_early_tasks_before_late_ones():
    begin = {u: 10**7 * ((u * 7) % 30) for u in range(30)}
    rows = {**ROWS, "when": [w + begin[u] for w, u in zip(ROWS["when"], ROWS["user"], strict=True)]}
    rows["date"] = [
        datetime.datetime(2020, 1, 1) + datetime.timedelta(seconds=w) for w in rows["when"]
    ]
    for time in ("when", "date"):
        task = Table(rows, **ROLES, inputs=["age", "when"], time=time).load(None)
        order = [(u * 7) % 30 for u in range(30)]
        train = {str(u) for u in range(30) if order[u] < 19}
        assert groups_of(task)["meta-train"] == train
        for split in SPLITS:
            support, query = (side.inputs[..., -1] for side in drawn(task, split, n=12))
            assert (support.amax(1) <= query.amin(1)).all()


def test_a_column_says_the_splits():
    words = ["train", "val", "Test"]
    rows = {**ROWS, "fold": [words[u % 3] for u in ROWS["user"]]}
    task = Table(rows, **ROLES, inputs=["age"], splits="fold").load(None)
    assert groups_of(task)["meta-test"] == {str(u) for u in range(30) if u % 3 == 2}
    rows["fold"][5] = "train" if rows["fold"][5] != "train" else "val"
    with pytest.raises(TaskError, match=f"in one split, but '{ROWS['user'][5]}' is in"):
        Table(rows, **ROLES, splits="fold").load(None)
    rows["fold"] = ["a" for _ in words * 300]
    with pytest.raises(TaskError, match="must say train, validation or test, but says 'a'"):
        Table(rows, **ROLES, splits="fold").load(None)


@pytest.mark.parametrize("labels", [("no", "so", "yes"), (False, True), (2, 5, 9), (0.0, 4.0)])
def test_classes_mean_the_same_in_all_tasks(labels):
    rows = {**ROWS, "rating": [labels[k] for k in RNG.integers(0, len(labels), COUNT)]}
    rows["age"] = [float(labels.index(each)) for each in rows["rating"]]
    numbers = isinstance(labels[-1], int | float) and labels[-1] is not True
    kind = {"kind": "classes"} if numbers else {}
    task = Table(rows, **ROLES, inputs=["age", "flag"], **kind).load(None)
    check_episodes(task)
    assert task.labels == labels and task.ways == len(labels)
    for split in SPLITS:
        episodes = drawn(task, split, n=6)
        assert isinstance(episodes.support, ClassBatch)
        assert episodes.query.classes.tolist() == [[*range(len(labels))]] * 6
        for support, query in zip(episodes.support.targets, episodes.query.targets, strict=True):
            assert {*query.tolist()} <= {*support.tolist()}
        ages = episodes.query.inputs[..., 0]
        steps = [ages[episodes.query.targets == k].unique() for k in range(len(labels))]
        assert all(len(step) == 1 for step in steps) and steps == sorted(steps)


def test_scores_of_classes_are_those_of_pairs():
    logits, targets = torch.randn(40, 3), torch.randint(0, 2, (40,))
    logits[:10] = logits[10:20]
    found = class_scores(logits, targets)
    shares = logits.double().softmax(1)
    areas = []
    for k in (0, 1):  # class 2 has no row
        pairs = [
            (shares[i, k] > shares[j, k]) + 0.5 * (shares[i, k] == shares[j, k])
            for i in range(40) for j in range(40) if targets[i] == k != targets[j]
        ]  # fmt: skip
        areas.append(float(sum(pairs)) / len(pairs))
    assert float(found["auroc"]) == pytest.approx(np.mean(areas), abs=2e-3)
    assert float(found["accuracy"]) == pytest.approx(
        float((logits.argmax(1) == targets).float().mean())
    )
    assert float(class_scores(logits, torch.zeros(40, dtype=torch.long))["auroc"]) == 0.5


def test_rows_beyond_are_an_even_sample(tmp_path):
    many = pa.table({"user": [0] * 20_000 + [1] * 40, "x": [*range(20_000), *range(40)],
                     "rating": [*range(20_000), *range(40)]})  # fmt: skip
    splits = {"meta-train": [0], "meta-validation": [1], "meta-test": []}
    task = Table(many, **ROLES, shots=2, queries=3, most=1000, splits=splits)
    with pytest.raises(TaskError, match="meta-test needs at least one group"):
        task.load(None)
    groups = task.source.read(None, skip_broken=False, least=5)
    assert np.diff(groups.starts).tolist() == [1000, 40]
    kept = groups.targets[:1000, 0]
    assert len(set(kept.tolist())) == 1000
    assert np.histogram(kept, 4, (0, 20_000))[0].min() > 200  # 250 each, sigma 13
    assert ("changed", "19000 rows left out, beyond 1000 of a task") in groups.reading.lines()


@pytest.mark.slow
def test_bounded_memory_on_millions_of_rows(tmp_path):
    """Three million rows, 240 MB of them in Arrow, in less than they take."""
    code = """
import resource, sys
import numpy as np, pyarrow as pa, pyarrow.parquet as pq, torch
from evometa.task import Table
schema = pa.schema([("user", pa.int32()), ("rating", pa.float64()), ("x", pa.float64()),
                    ("unused", pa.string())])
rng = np.random.default_rng(0)
with pq.ParquetWriter(sys.argv[1], schema) as writer:
    for _ in range(30):
        n = 100_000
        writer.write_table(pa.table([rng.integers(0, 1000, n, np.int32), rng.normal(size=n),
                                     rng.normal(size=n), pa.array(["x" * 40] * n)], schema=schema))
del writer
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
task = Table(sys.argv[1], task="user", target="rating", inputs=["x"], most=50).load(None)
print(len(task.groups.targets), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""
    run = ["bash", "-c", 'ulimit -v 6000000; exec "$0" -c "$1" "$2"', sys.executable, code]
    found = subprocess.run(
        [*run, str(tmp_path / "t.parquet")], capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    kept, megabytes = map(int, found.stdout.split())
    assert kept == 50_000 and megabytes < 240


def test_small_tasks_are_named_or_left_out():
    rows = {name: [*column, column[0]] for name, column in ROWS.items()}
    rows["user"][-1] = 77
    with pytest.raises(TaskError, match=r"= 15 rows, but 1 have fewer: 77 \(1\)"):
        Table(rows, **ROLES).load(None)
    for task in (Table(rows, **ROLES, skip_small=True).load(None),
                 Table(rows, **ROLES).load(None, skip_broken=True)):  # fmt: skip
        assert "77" not in task.groups.names and len(task.groups.names) == 30
        assert ("ignored", "1 tasks of too few rows: 77 (1)") in task.reading.lines()


def with_(**columns):
    return {**ROWS, **columns}


def changed(name, row, value):
    return {**ROWS, name: [*ROWS[name][:row], value, *ROWS[name][row + 1 :]]}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda: Table(ROWS, task="user", target="rating", inputs=["rating"]),
            "target column 'rating' must not be among",
        ),
        (
            lambda: Table(ROWS, task="user", target="rating", inputs=["user"]),
            "task column 'user' must not.*under another name",
        ),
        (lambda: Table(ROWS, task="user", target="user"), "two columns"),
        (
            lambda: Table(ROWS, task="usr", target="rating"),
            r"no column 'usr' for the task; did you mean 'user'\?",
        ),
        (
            lambda: Table(ROWS, task="user", target="y"),
            "no column 'y' for the target; there are user, rating",
        ),
        (
            lambda: Table(ROWS, **ROLES, inputs=["agee"]),
            "no column 'agee' for the inputs; did you mean 'age'",
        ),
        (lambda: Table(ROWS, **ROLES, time="colour"), "time column 'colour' must hold moments"),
        (lambda: Table(ROWS, **ROLES, inputs="age"), "`inputs` must be a list"),
        (lambda: Table(ROWS, **ROLES, kind="regression"), "`kind` must be"),
        (lambda: Table(ROWS, **ROLES, most=3), "`most` must be at least shots"),
        (lambda: Table(ROWS, **ROLES, splits=(0.5, 0.5, 0.5)), "three shares"),
        (
            lambda: Table(ROWS, **ROLES, splits={split: [1] for split in SPLITS}),
            "splits must differ",
        ),
        (
            lambda: Table(ROWS, **ROLES, splits={each: [99] for each in SPLITS}),
            "names '99', but no row",
        ),
        (lambda: Table([1, 2], **ROLES), "must be a path.*got a builtins.list"),
        (lambda: Table(polars.from_arrow(TABLE).lazy(), **ROLES), "call `.collect"),
        (
            lambda: Table({n: c[:0] for n, c in ROWS.items()}, **ROLES, kind="values"),
            "holds no rows",
        ),
        (
            lambda: Table(changed("rating", 17, float("nan")), **ROLES),
            "have no finite 'rating', as row 17 of",
        ),
        (lambda: Table(changed("rating", 17, float("inf")), **ROLES), "row 17 of"),
        (lambda: Table(changed("user", 3, None), **ROLES), "have no finite 'user', as row 3 of"),
        (
            lambda: Table(changed("when", 3, None), **ROLES, time="when"),
            "have no finite 'when', as row 3 of",
        ),
        (
            lambda: Table(changed("age", 3, float("inf")), **ROLES),
            "have an infinite 'age', as row 3 of pyarrow's Table",
        ),
        (lambda: Table(with_(rating=[1.0] * COUNT), **ROLES), "is 1 in all rows of meta-train"),
        (
            lambda: Table(with_(rating=["a"] * COUNT), **ROLES, kind="values"),
            "must hold numbers to be values",
        ),
        (
            lambda: Table(with_(rating=["a"] * COUNT), **ROLES),
            "from 2 to 100 different ones, but are 1",
        ),
        (lambda: Table(ROWS, **ROLES, kind="classes"), "must be no fractions"),
        (
            lambda: Table(with_(x=[[1.0] * (k % 2 + 1) for k in range(COUNT)]), **ROLES),
            "lists of one length",
        ),
        (lambda: Table(with_(x=[b"x"] * COUNT), **ROLES), "'x' of type binary cannot be encoded"),
        (lambda: Table(with_(x=[1] * COUNT), **ROLES, inputs=["x"]), "no input is left"),
        (lambda: Table(ROWS, **ROLES, shots=0), "`shots >= 1`"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(make, said):
    with pytest.raises(TaskError, match=said):
        make().load(None)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.csv", b"", "t.csv is empty"),
        ("t.csv", b"user,rating,x\n", "holds no rows"),
        ("t.csv", b"user,rating,x\n" + b"1,2,3\n" * 40 + b"1,2,three\n", "t.csv.*'x'"),
        ("t.csv", b"user,rating,x\n" + b"1,2,3\n" * 40 + b"1,two,3\n", "t.csv.*'rating'"),
        ("t.csv", b"user,rating,x\n" + b"1,2,3\n" * 40 + b"1,2\n", "t.csv cannot be read.*got 2"),
        ("t.csv", b"user,rating,rating\n1,2,3\n", "columns of one name: rating"),
        ("t.csv", "user,rating,x\n1,2,\xe9\n".encode("latin-1"), "t.csv.*'x'.*UTF-8"),
        ("t.parquet", b"PAR1 nothing", "t.parquet cannot be read"),
        ("t.feather", b"ARROW nothing", "t.feather cannot be read"),
        ("t.xlsx", b"PK", "must end in .parquet"),
    ],
)  # fmt: skip
def test_broken_files_are_named(name, content, said, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TaskError, match=said):
        Table(tmp_path / name, **ROLES, shots=1, queries=1).load(None)


def test_missing_files_are_named(tmp_path):
    pq.write_table(TABLE, tmp_path / "ratings.parquet")
    with pytest.raises(TaskError, match=r"none at .*rating\.parquet; there is ratings\.parquet"):
        Table(tmp_path / "rating.parquet", **ROLES)
    (tmp_path / "empty").mkdir()
    with pytest.raises(TaskError, match="empty holds no table: 0 files"):
        Table(tmp_path / "empty", **ROLES)
    (tmp_path / "empty" / "a.csv").write_text("user,rating\n1,2\n")
    pq.write_table(TABLE, tmp_path / "empty" / "b.parquet")
    with pytest.raises(TaskError, match=r"of one format.*a.csv, b.parquet"):
        Table(tmp_path / "empty", **ROLES)
    task = Table(tmp_path / "elsewhere.parquet", **ROLES, kind="values")  # --data says where
    assert task.load(tmp_path / "ratings.parquet").groups.labels is None
    with pytest.raises(TaskError, match="the table is in memory"):
        Table(TABLE, **ROLES).load(tmp_path)


def test_rows_that_cannot_be_used_are_left_out_where_wanted():
    rows = changed("rating", 17, None)
    task = Table(rows, **ROLES, inputs=["age"]).load(None, skip_broken=True)
    (said,) = [text for name, text in task.reading.lines() if name == "changed"]
    assert said == "1 rows with no finite 'rating' left out, as row 17 of pyarrow's Table"
    assert len(task.groups.targets) == COUNT - 1


def test_whole_numbers_may_have_fractions_later(tmp_path):
    lines = [f"{k % 5},{k % 7}" for k in range(400_000)] + ["1,2.5"]
    (tmp_path / "t.csv").write_text(
        "user;rating;x\n" + "\n".join(f"{a.replace(',', ';')};{k % 3}" for k, a in enumerate(lines))
    )
    task = Table(tmp_path / "t.csv", **ROLES, shots=1, queries=1, most=10**6).load(None)
    assert Counter(task.groups.targets[:, 0].tolist())[2.5] == 1
    assert task.groups.names == ("0", "1", "2", "3", "4")


def test_new_rows_must_fit_the_rules():
    task = Table(ROWS, **ROLES, inputs=["age", "colour"]).load(None)
    for rows, said in (
        ([{"age": 3.0}], "'colour' is not there"),
        ({"age": ["x"], "colour": ["red"]}, "column 'age' must be one of kind 'number'"),
        (3, "rows must be a list of dicts"),
    ):
        with pytest.raises(TaskError, match=said):
            task.encode(rows)

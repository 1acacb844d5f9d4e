"""Arrays in memory: what is drawn are rows of them, and what cannot be learned from is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from evometa.errors import TaskError
from evometa.evaluate.faults import check_episodes
from evometa.task import SPLITS, Arrays, ClassBatch, GroupTask

RNG = np.random.default_rng(0)
X = RNG.normal(size=(120, 3))
LABELS = np.repeat(np.arange(20), 6)
NAMES = np.array([f"class {label:02}" for label in LABELS])


def drawn(task, split="meta-train", n=4, seed=0):
    return task.episodes(split, n, torch.Generator().manual_seed(seed))


def row_of(example, x=X):
    (place,) = np.flatnonzero((np.float32(x) == example.numpy()).all(1))
    return int(place)


@pytest.mark.parametrize(
    "labels",
    [LABELS, LABELS.astype(float), NAMES, NAMES.tolist(), NAMES.astype(object),
     -LABELS.astype("i1"), torch.as_tensor(LABELS)],
    ids=["numbers", "floats", "texts", "a list", "objects", "below 0", "torch"],
)  # fmt: skip
def test_episodes_are_rows_with_their_labels(labels):
    order = RNG.permutation(len(X))
    own = [labels[place] for place in order] if isinstance(labels, list) else labels[order]
    task = Arrays(X[order], own, ways=3, shots=2, queries=4).load(None)
    check_episodes(task)
    met = {split: set() for split in SPLITS}
    for split in SPLITS:
        episodes = drawn(task, split)
        assert isinstance(episodes.support, ClassBatch)
        assert episodes.support.inputs.shape == (4, 6, 3)
        assert episodes.query.inputs.shape == (4, 12, 3)
        assert episodes.support.inputs.dtype == torch.float32
        for support, query, first, second in zip(
            episodes.support.inputs, episodes.query.inputs,
            episodes.support.targets, episodes.query.targets, strict=True,
        ):  # fmt: skip
            rows = [row_of(example) for example in (*support, *query)]
            assert len(set(rows)) == 18
            true = LABELS[rows]
            assert len({*zip(true, (*first.tolist(), *second.tolist()), strict=True)}) == 3
            met[split] |= set(true)
    assert (
        not met["meta-train"] & met["meta-test"] and not met["meta-train"] & met["meta-validation"]
    )


@pytest.mark.parametrize(
    ("x", "kind"),
    [
        (X.astype(np.float16), torch.float32),
        (torch.as_tensor(X).bfloat16(), torch.float32),
        (X > 0, torch.float32),
        ((10 * X).astype(np.int16), torch.int64),
        ((10 * X).astype(np.int64) + 100, torch.int64),
        (X.tolist(), torch.float32),
    ],
    ids=["half", "bfloat16", "truth values", "int16", "tokens", "lists"],
)
def test_types_become_what_networks_take(x, kind):
    task = Arrays(x, LABELS, ways=2, queries=3).load(None)
    found = drawn(task).support.inputs
    assert found.dtype == kind
    wanted = np.asarray(x.float() if isinstance(x, torch.Tensor) else x, float)
    rows = np.float32(wanted).tolist()
    assert all(example.tolist() in rows for example in found[0].float())


def test_pixels_become_floats_of_0_to_1_and_the_callers_array_stays():
    pixels = RNG.integers(0, 256, (120, 1, 4, 4)).astype(np.uint8)
    before = pixels.copy()
    task = Arrays(pixels, LABELS, ways=2, queries=3).load(None)
    pixels[:] = 0
    found = drawn(task).query.inputs
    rows = {tuple((example * 255).round().int().flatten().tolist()) for example in found[0]}
    assert rows <= {tuple(each.flatten().tolist()) for each in before}
    assert found.dtype == torch.float32 and float(found.max()) <= 1


def test_groups_are_tasks():
    y = X[:, 0] * LABELS
    task = Arrays(X, y, group=NAMES, shots=2, queries=3).load(None)
    assert isinstance(task, GroupTask)
    check_episodes(task)
    episodes = drawn(task, n=13)  # of 13 groups: each once
    assert episodes.support.inputs.shape == (13, 2, 3)
    assert episodes.query.targets.shape == (13, 3, 1)
    met = []
    for k in range(13):
        rows = [row_of(each) for side in episodes for each in side.inputs[k]]
        assert len(set(rows)) == 5 and len(set(LABELS[rows])) == 1
        met.append(LABELS[rows[0]])
        targets = torch.cat([side.targets[k] for side in episodes])[:, 0]
        np.testing.assert_allclose(targets, y[rows].astype(np.float32))
    assert len(set(met)) == 13
    scores = task.scores(
        lambda x: x[:, :1], type(episodes.query)(X_ := torch.ones(2, 3), X_[:, :1] * 3)
    )
    assert scores == {"query_loss": torch.tensor(4.0), "absolute_error": torch.tensor(2.0)}


def test_splits_can_be_named():
    named = {"meta-train": NAMES[:60], "meta-validation": NAMES[60:90], "meta-test": NAMES[90:108]}
    named = {split: sorted(set(own)) for split, own in named.items()}
    task = Arrays(X, NAMES, ways=3, queries=5, splits=named).load(None)
    assert [task.available(split) for split in SPLITS] == [10, 5, 3]
    rows = [row_of(each) for each in drawn(task, "meta-test").support.inputs.flatten(0, 1)]
    assert set(NAMES[rows]) == set(named["meta-test"])
    (nowhere,) = [text for name, text in task.classes.reading.lines() if name == "ignored"]
    assert nowhere == "2 classes of no split: class 18, class 19"


def test_the_hash_follows_the_data():
    task = Arrays(X, LABELS, ways=2, queries=3)
    same = Arrays(X.copy(), LABELS, ways=2, queries=3)
    other = X.copy()
    other[5, 1] += 1
    assert task.load(None).describe() == same.load(None).describe()
    assert (
        task.load(None).describe() != Arrays(other, LABELS, ways=2, queries=3).load(None).describe()
    )
    groups = Arrays(X, LABELS, group=LABELS, shots=2, queries=3)
    assert groups.describe() != Arrays(other, LABELS, group=LABELS, shots=2, queries=3).describe()
    assert groups.describe()["shots"] == 2


def test_copies_between_classes_are_said():
    x = X.copy()
    x[7] = x[100]
    task = Arrays(x, LABELS, ways=2, queries=3).load(None)
    (text,) = [text for name, text in task.classes.reading.lines() if name == "warning"]
    assert text.startswith("1 examples come more than once")
    with pytest.raises(TaskError, match="all 120 examples are the same"):
        Arrays(np.ones((120, 3)), LABELS, ways=2, queries=3).load(None)


def holed(value, dtype=float):
    found = X.astype(dtype)
    found[17, 1] = value
    return found


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Arrays(X, LABELS[:-1]), r"`y` must have the shape \(120,\).*got \(119,\)"),
        (lambda: Arrays(X, LABELS[:, None]), r"`y` must have the shape \(120,\).*got \(120, 1\)"),
        (lambda: Arrays(X, LABELS + 0.5), r"values such as 0.5; to learn values, say with `group`"),
        (lambda: Arrays(X, [None, *NAMES[1:]]), "row 0 is missing"),
        (lambda: Arrays(X, [3, *NAMES[1:].tolist()]), "labels of one kind, got int, str"),
        (lambda: Arrays(X, np.where(LABELS == 3, np.nan, LABELS)), "row 18 is missing"),
        (lambda: Arrays(holed(np.nan), LABELS), "1 of 120 rows are not, as row 17"),
        (lambda: Arrays(holed(1e39), LABELS), "within float32.*row 17"),
        (lambda: Arrays(X.astype(complex), LABELS), "complex128"),
        (lambda: Arrays(X.astype(str), LABELS), "texts and categories must be numbers first"),
        (lambda: Arrays([[1.0], [1.0, 2.0]], [0, 1]), "`x` must be an array"),
        (lambda: Arrays(np.ones((0, 3)), []), "there are no examples"),
        (lambda: Arrays(3.0, []), "there are no examples"),
        (lambda: Arrays(X, LABELS, splits=(0.5, 0.5, 0.5)), "three shares of sum 1"),
        (lambda: Arrays(X, LABELS, splits={"train": [0]}), "`splits` must name meta-train"),
        (lambda: Arrays(X, LABELS, splits={split: [1] for split in SPLITS}), "splits must differ"),
        (lambda: Arrays(X, LABELS, splits={each: [99] for each in SPLITS}), "names 99, but no row"),
        (lambda: Arrays(X, LABELS, ways=9, queries=3).load(None), "needs at least ways = 9"),
        (lambda: Arrays(X, LABELS, ways=2, queries=9).load(None), "= 10 examples"),
        (lambda: Arrays(X, NAMES, group=LABELS), "`y` of groups must be 120 numbers"),
        (lambda: Arrays(X, X[:, 0], group=LABELS, queries=9).load(None), "have fewer: "),
        (lambda: Arrays(X, X[:, 0], group=LABELS, shots=(1, 2)), "one number of `shots`"),
        (lambda: Arrays(X, X[:, 0], group=LABELS, queries=0), "`queries >= 1`"),
        (lambda: Arrays(X, holed(np.inf)[:, 1], group=LABELS), "`y` must be finite.*row 17"),
    ],
)  # fmt: skip
def test_what_cannot_be_learned_from_is_refused(make, said):
    with pytest.raises(TaskError, match=said):
        make()


def test_a_data_folder_is_refused(tmp_path):
    for task in (Arrays(X, LABELS, queries=3), Arrays(X, X[:, 0], group=LABELS, queries=3)):
        with pytest.raises(TaskError, match="arrays are in memory"):
            task.load(tmp_path)


def test_what_is_too_small_can_be_skipped():
    kept = np.flatnonzero((LABELS != 4) | (np.arange(120) % 6 == 0))
    task = Arrays(X[kept], LABELS[kept], ways=2, queries=3)
    with pytest.raises(TaskError, match=r"fewer: 4 \(1\)"):
        task.load(None)
    found = task.load(None, skip_broken=True)
    assert sum(found.available(split) for split in SPLITS) == 19
    groups = Arrays(X[kept], X[kept, 0], group=LABELS[kept], shots=1, queries=3)
    with pytest.raises(TaskError, match=r"1 have fewer: 4 \(1\)"):
        groups.load(None)
    skipped = groups.load(None, skip_broken=True)
    assert sum(len(own) for own in skipped.groups.splits.values()) == 19
    assert replace(skipped) == skipped

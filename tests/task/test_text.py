"""Texts: what is drawn are texts of one class, encoded as plain Python would."""

import math
import pickle
from collections import Counter

import numpy as np
import pandas
import polars
import pyarrow as pa
import pytest
import torch
from torch import nn

from evometa import Study, Training
from evometa import space as s
from evometa.errors import TaskError
from evometa.evaluate.faults import check_episodes
from evometa.evaluate.gate import admit
from evometa.learner import preset
from evometa.task import SPLITS, Grams, Text, Tokens, Vectors

TOPICS = ["apples", "boats", "cars", "dogs", "eggs", "fields", "glass", "horses", "ink", "jam"]
TEXTS = [f"{topic} number {k} of ünïcödé 漢字 🐈"[: 28 + k] for topic in TOPICS for k in range(8)]
LABELS = [topic for topic in TOPICS for _ in range(8)]
FEW = {"ways": 2, "shots": 2, "queries": 3, "splits": (0.6, 0.2, 0.2)}


def drawn(task, split="meta-train", n=4, seed=0):
    return task.episodes(split, n, torch.Generator().manual_seed(seed))


def written(folder, splits=False):
    for k, (text, label) in enumerate(zip(TEXTS, LABELS, strict=True)):
        place = TOPICS.index(label)
        inner = ("train/" if place < 6 else "val/" if place < 8 else "test/") if splits else ""
        path = folder / f"{inner}{label}" / f"{k}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8-sig" if k % 2 else "utf-8")
    return folder


def numbered(texts):
    """A frozen encoder that says which texts it was given."""
    return np.array([[TEXTS.index(text), len(text)] for text in texts], float)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("EVOMETA_CACHE", str(tmp_path_factory.mktemp("cache")))


TABLE = {"what": TEXTS, "of": LABELS}
SOURCES = {
    "list": lambda folder: {"source": TEXTS, "labels": LABELS},
    "tuple": lambda folder: {"source": tuple(TEXTS), "labels": np.array(LABELS)},
    "folder": lambda folder: {"source": written(folder)},
    "a folder's name": lambda folder: {"source": str(written(folder))},
    "pandas": lambda folder: {"source": pandas.DataFrame(TABLE), "text": "what", "label": "of"},
    "polars": lambda folder: {"source": polars.DataFrame(TABLE), "text": "what", "label": "of"},
    "arrow": lambda folder: {"source": pa.table(TABLE), "text": "what", "label": "of"},
}


@pytest.mark.parametrize("form", SOURCES)
def test_episodes_are_texts_with_their_labels(form, tmp_path):
    task = Text(**SOURCES[form](tmp_path), encoder=Vectors(numbered, "numbers"), **FEW).load(None)
    check_episodes(task)
    met = {}
    for split in SPLITS:
        for side in drawn(task, split):
            for inputs, targets in zip(side.inputs, side.targets, strict=True):
                places = inputs[:, 0].int().tolist()
                assert inputs[:, 1].tolist() == [len(TEXTS[place]) for place in places]
                pairs = {
                    (LABELS[p], label) for p, label in zip(places, targets.tolist(), strict=True)
                }
                assert len(pairs) == 2
                met.setdefault(split, set()).update(label for label, _ in pairs)
    assert len(met["meta-train"]) <= 6 and not met["meta-train"] & met["meta-test"]
    assert pickle.loads(pickle.dumps(task.classes)).digest() == task.classes.digest()


def test_folders_may_say_the_splits(tmp_path):
    task = Text(encoder=Grams(64), **FEW).load(written(tmp_path, splits=True))
    assert [task.available(split) for split in SPLITS] == [6, 2, 2]
    heads = dict(task.reading.lines())
    assert heads["data"] == f"{tmp_path}: 10 classes, 80 texts"
    assert heads["encoder"] == "name Grams, size 64, least 2, most 4"


def hashed(gram):
    """The feature and the sign of an n-gram, with Python's own numbers."""
    found = 0
    for character in gram:
        found = (found * 0x100000001B3 + ord(character) + 1) % 2**64
    found = found * 0x9E3779B97F4A7C15 % 2**64
    found ^= found >> 29
    found = found * 0x9E3779B97F4A7C15 % 2**64
    return found >> 33, -1 if found >> 32 & 1 else 1


@pytest.mark.parametrize(("least", "most"), [(1, 1), (2, 4), (3, 3)])
def test_grams_are_counts_of_hashes(least, most):
    size = 50
    found = Grams(size, least, most).encode([*TEXTS[:20], "", "a"])
    for text, row in zip([*TEXTS[:20], "", "a"], found, strict=True):
        padded, counts = f" {text.lower()} ", Counter()
        for length in range(least, most + 1):
            for start in range(len(padded) - length + 1):
                place, sign = hashed(padded[start : start + length])
                counts[place % size] += sign
        norm = math.sqrt(sum(value**2 for value in counts.values()) / size) or 1.0
        np.testing.assert_allclose(
            row, [counts[k] / norm for k in range(size)], rtol=1e-5, atol=1e-6
        )
    assert found.dtype == np.float32


def test_grams_do_not_depend_on_company():
    many = [TEXTS[k % 80] for k in range(2500)]
    np.testing.assert_array_equal(
        Grams().encode(many), np.concatenate([Grams().encode([text]) for text in many[:80]])[
            np.arange(2500) % 80
        ]
    )  # fmt: skip
    assert Grams(7).encode([]).shape == (0, 7)


def test_tokens_come_with_a_mask():
    encoder = Tokens(length=15, vocabulary=500, tokenizer=lambda t: [len(w) for w in t.split()])
    task = Text(TEXTS, LABELS, encoder=encoder, **FEW).load(None)
    check_episodes(task)
    wanted = {tuple(len(word) for word in text.split()) for text in TEXTS}
    for side in drawn(task):
        tokens, mask = side.inputs["tokens"], side.inputs["mask"]
        assert tokens.shape == (4, len(side.targets[0]), 15) and tokens.dtype == torch.int64
        assert mask.dtype == torch.bool and mask.shape == tokens.shape
        for row, real in zip(tokens.flatten(0, 1), mask.flatten(0, 1), strict=True):
            assert tuple(row[real].tolist()) in wanted and (row[~real] == 0).all()
    characters = Tokens(length=5, vocabulary=300).encode(["abc", "", "漢字xyzzy"])
    assert characters.tolist() == [
        [97, 98, 99, -1, -1], [-1] * 5, [ord("漢") % 300, ord("字") % 300, 120, 121, 122],
    ]  # fmt: skip


class Bag(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.embed, self.head = nn.Embedding(256, 8), nn.Linear(8, outputs)

    def forward(self, text):
        words = self.embed(text["tokens"]) * text["mask"].unsqueeze(-1)
        return self.head(words.sum(1) / text["mask"].sum(1, keepdim=True).clamp(min=1))


@pytest.mark.parametrize(
    ("encoder", "build", "sampling"),
    [
        (Tokens(20), lambda genome: Bag(2), "equal"),
        (Tokens(20), lambda genome: Bag(2), "unequal"),
        (Grams(32), lambda genome: nn.Linear(32, 2), "equal"),
    ],
)
def test_networks_learn_from_them(encoder, build, sampling):
    task = Text(TEXTS, LABELS, encoder=encoder, sampling=sampling, **FEW).load(None)
    study = Study(
        space=s.Struct(x=s.Int(0, 1)), build=build, task=task, training=Training(norm="inductive")
    )
    for rule in (preset("maml", rate=0.1), preset("protonet", ways=2)):
        assert admit(study, {"x": 0, "rule": rule}, 0, torch.device("cpu")).cost.params > 0


def test_vectors_are_computed_once(monkeypatch):
    calls = []

    def embed(texts):
        calls.append(len(texts))
        return torch.tensor([[float(len(text))] for text in texts])

    one = Vectors(embed, "one").encode(TEXTS)
    assert calls == [80] and one[:, 0].tolist() == [len(text) for text in TEXTS]
    np.testing.assert_array_equal(Vectors(embed, "one").encode(TEXTS), one)
    assert calls == [80]
    Vectors(embed, "two").encode(TEXTS)
    Vectors(embed, "one").encode([*TEXTS[:-1], "other"])
    assert calls == [80, 80, 80]


def test_the_hash_follows_texts_and_encoder():
    tasks = [
        Text(TEXTS, LABELS, encoder=Grams(32), **FEW),
        Text(list(TEXTS), LABELS, encoder=Grams(32), **FEW),
        Text([*TEXTS[:-1], "other"], LABELS, encoder=Grams(32), **FEW),
        Text(TEXTS, LABELS, encoder=Grams(33), **FEW),
    ]
    told = [task.load(None).describe() for task in tasks]
    assert told[0] == told[1] != told[2] and told[3] != told[0]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Text(TEXTS), "texts need `labels`; a table needs"),
        (lambda: Text(TEXTS, LABELS[1:]), "80 texts must have one label each, got 79"),
        (lambda: Text("folder", LABELS), "not with a path or a table"),
        (lambda: Text(pa.table(TABLE), text="what"), "both columns"),
        (lambda: Text(pa.table(TABLE), text="whta", label="of"), "did you mean 'what'"),
        (
            lambda: Text(pa.table({"t": [1, 2], "of": [1, 2]}), text="t", label="of"),
            "hold texts, got int64",
        ),
        (lambda: Text([*TEXTS[:-1], " "], LABELS), "1 of 80 are, as row 79 of the list"),
        (lambda: Text([*TEXTS[:-1], None], LABELS), "row 79 of the list .counted from 0., None"),
        (lambda: Text([*TEXTS[:-1], b"x"], LABELS), "row 79 of the list"),
        (lambda: Text(TEXTS, [None, *LABELS[1:]]), "row 0 is missing"),
        (lambda: Text([], []), "holds no texts"),
        (lambda: Text(), "pass --data DIR"),
        (lambda: Text("nowhere"), "none at nowhere"),
        (
            lambda: Text(TEXTS, LABELS, encoder=Tokens(9, 5, lambda t: [7])),
            "vocabulary, 5, but text 0 .* has 7",
        ),
        (
            lambda: Text(TEXTS, LABELS, encoder=Tokens(9, 5, lambda t: ["a"])),
            "whole numbers, but for text 0",
        ),
        (
            lambda: Text(TEXTS, LABELS, encoder=Vectors(lambda t: np.ones(3), "v")),
            "shape .texts, size.",
        ),
        (
            lambda: Text(
                TEXTS, LABELS, encoder=Vectors(lambda t: np.full((len(t), 2), np.nan), "v")
            ),
            "finite.*text 0",
        ),
        (lambda: Text(TEXTS, LABELS, encoder=Grams(0)), "`size >= 1`"),
        (lambda: Text(TEXTS, LABELS, ways=9, queries=3), "ways = 9"),
        (lambda: Text(TEXTS, LABELS, ways=2), "shots . queries = 16 examples"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(make, said):
    with pytest.raises(TaskError, match=said):
        make().load(None)


def test_broken_files_are_named(tmp_path):
    written(tmp_path)
    (tmp_path / "cars" / "latin.txt").write_bytes("é voilà".encode("latin-1"))
    task = Text(tmp_path, encoder=Grams(16), **FEW)
    with pytest.raises(TaskError, match=r"latin\.txt is not UTF-8: byte 0 is 0xe9"):
        task.load(None)
    (tmp_path / "cars" / "latin.txt").write_text("")
    with pytest.raises(TaskError, match=r"latin\.txt is empty"):
        task.load(None)
    (tmp_path / "cars" / "picture.png").write_text("")
    found = task.load(None, skip_broken=True)
    ignored = [text for name, text in found.reading.lines() if name == "ignored"]
    assert any("latin.txt is empty" in text for text in ignored)
    assert "1 of no suffix of a text: cars/picture.png" in ignored
    (tmp_path / "empty").mkdir()
    with pytest.raises(TaskError, match=r"class folders with texts \(.txt\)"):
        task.load(tmp_path / "empty")
    with pytest.raises(TaskError, match="texts are in memory"):
        Text(TEXTS, LABELS).load(tmp_path)

"""Studies of real data, where it is installed: ratings in a wheel, the package list of Debian."""

import subprocess
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from evometa.errors import StudyError
from evometa.study_file import load_study
from evometa.task import SPLITS

SPACES = Path(__file__).resolve().parents[2] / "search_spaces"


def ratings_folder():
    found = find_spec("recbole")
    folders = [Path(each) for each in (found.submodule_search_locations or ())] if found else []
    folders = [each / "dataset_example" / "ml-100k" for each in folders]
    return next((each for each in folders if (each / "ml-100k.inter").is_file()), None)


def table(name):
    path = ratings_folder() / f"ml-100k.{name}"
    lines = path.read_text(encoding="utf-8").splitlines()[1:]
    return [line.split("\t") for line in lines]


def test_who_has_no_ratings_is_told_where_they_are(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: None)
    with pytest.raises(StudyError, match="pip install --no-deps recbole"):
        load_study(SPACES / "ratings.py")


@pytest.mark.skipif(ratings_folder() is None, reason="the package recbole is not installed")
def test_ratings_are_those_of_the_wheel():
    task = load_study(SPACES / "ratings.py").study.task.load(None)
    rows, films = table("inter"), {row[0]: row for row in table("item")}
    assert len(task.groups.targets) == len(rows) == 100_000
    assert {*task.groups.names} == {row[0] for row in rows}
    train = {task.groups.names[each] for each in task.groups.splits["meta-train"]}
    sums, counts = defaultdict(float), defaultdict(int)
    for user, film, rating, _ in rows:
        if user in train:
            sums[film] += float(rating) - 3.5
            counts[film] += 1
    own = defaultdict(list)
    for user, film, rating, _ in rows:
        above, known = float(rating) - 3.5, user in train
        opinion = (sums[film] - known * above) / (counts[film] - known + 5)
        own[user].append((above, sorted(films[film][3].split()), opinion))
    rule = next(r for r in task.describe()["rules"] if r["column"] == "opinion")
    genres = next(r for r in task.describe()["rules"] if r["column"] == "genres")["values"]
    for split in SPLITS:
        for group in task.groups.splits[split][:20]:
            part = slice(*task.groups.starts[group : group + 2])
            inputs = task.groups.inputs[part]
            place = len(genres) + 1 + 2  # behind the year
            found = sorted(
                (float(target), [n for n, there in zip(genres, x, strict=False) if there], x[place])
                for target, x in zip(task.groups.targets[part, 0], inputs, strict=True)
            )
            wanted = sorted(own[task.groups.names[group]])
            assert [each[:2] for each in found] == [each[:2] for each in wanted]
            opinions = np.array([each[2] for each in found]) * rule["spread"] + rule["mean"]
            np.testing.assert_allclose(opinions, [each[2] for each in wanted], atol=1e-5)


def list_of_packages():
    try:
        found = subprocess.run(["apt-cache", "dumpavail"], capture_output=True, check=False)
    except OSError:
        return b""
    return found.stdout


@pytest.mark.skipif(
    list_of_packages().count(b"\nPackage: ") < 20_000, reason="there is no whole list of packages"
)
def test_packages_are_told_apart_by_their_words():
    task = load_study(SPACES / "packages.py").study.task.load(None)
    episodes = task.episodes("meta-test", 40, torch.Generator().manual_seed(0))
    right = []
    for k in range(40):  # nearest mean, in numpy
        support, labels = (each[k].numpy() for each in episodes.support[:2])
        query, answers = (each[k].numpy() for each in episodes.query[:2])
        means = np.stack([support[labels == label].mean(0) for label in range(5)])
        means /= np.linalg.norm(means, axis=1, keepdims=True)
        right.append(((query @ means.T).argmax(1) == answers).mean())
    assert np.mean(right) > 0.4  # guessing gives 0.2

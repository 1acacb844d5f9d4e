"""Laws of tasks, one suite for all of them."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from evometa.errors import TaskError
from evometa.task import SPLITS, Glyphs, ImageFolder, Omniglot, Sinusoid
from evometa.task.episodes import part_of

SMALL = (8, 6, 6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twelve classes of eight images, each class a grey level."""
    root = tmp_path_factory.mktemp("images")
    for index in range(12):
        (root / f"class{index:02d}").mkdir()
        for example in range(8):
            pixels = np.full((20, 30, 3), 20 * index + example, dtype=np.uint8)
            name = f"{example}.{'png' if example % 2 else 'jpg'}"
            Image.fromarray(pixels).save(root / f"class{index:02d}" / name)
    return root


@pytest.fixture(params=["glyphs", "folder", "sinusoid"])
def task(request, folder):
    if request.param == "glyphs":
        return Glyphs(ways=3, queries=4, classes_per_split=SMALL, drawings=6).load(None)
    if request.param == "folder":
        return ImageFolder(ways=2, shots=2, queries=3, size=8, fractions=(0.5, 0.25, 0.25)).load(
            folder
        )
    return Sinusoid(shots=3, queries=4, eval_queries=4)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def flat(episodes):
    return [tensor for side in episodes for tensor in side]


def test_the_same_seed_gives_the_same_episodes(task):
    one, same, other = (task.episodes("meta-train", 5, generator(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(flat(one), flat(same), strict=True))
    assert not torch.equal(one.support.inputs, other.support.inputs)


def test_splits_never_share_episodes(task):
    batches = [task.episodes(split, 5, generator(1)).support.inputs for split in SPLITS]
    assert not torch.equal(batches[0], batches[1])
    assert not torch.equal(batches[1], batches[2])


def test_shapes_and_types(task):
    support, query = task.episodes("meta-validation", 5, generator())
    for side in (support, query):
        assert side.inputs.dtype == torch.float32
        assert side.inputs.shape[:2] == side.targets.shape[:2]
        assert len(side.inputs) == 5
    predictions = torch.zeros(query.targets.shape[1], 3 if query.targets.dim() == 2 else 1)
    side = part_of(query, 0)
    side = side._replace(targets=side.targets.clamp(max=2))
    scores = task.scores(lambda inputs: predictions, side)
    assert [*scores] == [*task.metrics]
    assert all(value.dim() == 0 for value in scores.values())


def test_images_of_one_channel_do_not_pass_for_channels_last():
    task = Glyphs(ways=3, queries=4, classes_per_split=SMALL, drawings=6).load(None)
    inputs = task.episodes("meta-train", 2, generator()).support.inputs
    assert inputs[0].stride() == torch.empty(inputs[0].shape).stride()


def test_a_task_travels_with_its_data(task):
    twin = pickle.loads(pickle.dumps(task, protocol=5))
    one, two = (t.episodes("meta-test", 3, generator(4)) for t in (task, twin))
    assert all(torch.equal(a, b) for a, b in zip(flat(one), flat(two), strict=True))
    assert twin.describe() == task.describe()


def test_an_unknown_split_is_named(task):
    with pytest.raises(TaskError, match="meta-train, meta-validation, meta-test, got 'test'"):
        task.episodes("test", 1, generator())


def test_classes_are_balanced_distinct_and_disjoint_between_splits(folder):
    task = ImageFolder(ways=2, shots=2, queries=3, size=8, fractions=(0.5, 0.25, 0.25)).load(folder)
    seen = {}
    for split in SPLITS:
        support, query = task.episodes(split, 60, generator())
        assert support.targets[0].tolist() == [0, 0, 1, 1]
        assert query.targets[0].tolist() == [0, 0, 0, 1, 1, 1]
        levels = torch.round(support.inputs.mean((2, 3, 4)) * 255)  # 20 * class + example
        classes = torch.div(levels, 20, rounding_mode="floor")
        assert (classes[:, 0] == classes[:, 1]).all(), "a label is one class"
        assert (classes[:, 0] != classes[:, 2]).all(), "labels are different classes"
        together = torch.cat([levels, torch.round(query.inputs.mean((2, 3, 4)) * 255)], 1)
        assert all(len(row.unique()) == 10 for row in together), "no image comes twice"
        seen[split] = set(classes.unique().tolist())
    assert not seen["meta-train"] & seen["meta-validation"]
    assert not (seen["meta-train"] | seen["meta-validation"]) & seen["meta-test"]
    assert len(set.union(*seen.values())) == 12


def test_shared_arrays_are_never_written(folder):
    task = ImageFolder(ways=2, shots=1, queries=2, size=8, rotations=True).load(folder)
    task.classes.examples.flags.writeable = False
    before = task.classes.examples.copy()
    task.episodes("meta-train", 20, generator()).support.inputs.add_(1.0)
    assert np.array_equal(task.classes.examples, before)


def test_rotations_are_classes_of_their_own():
    glyphs = Glyphs(ways=2, classes_per_split=(4, 4, 4), queries=3, drawings=4).load(None)
    one = glyphs.classes.episodes(glyphs.shape, "meta-train", 1, generator())
    assert one.support.inputs.shape == (1, 2, 1, 28, 28)
    from dataclasses import replace

    turned = replace(glyphs.classes, rotations=True)
    images = turned.examples[:, 0].astype(np.float32) / 255
    found = turned.episodes(glyphs.shape, "meta-train", 40, generator()).support.inputs[:, :, 0]
    turns = set()
    for image in found.flatten(0, 1).numpy():
        for quarter in range(4):
            back = np.rot90(image, -quarter)
            if np.isclose(images, back).all((1, 2)).any():
                turns.add(quarter)
    assert turns == {0, 1, 2, 3}


def test_folders_may_say_the_split(tmp_path, folder):
    for index, source in enumerate(sorted(folder.iterdir())):
        target = tmp_path / ("train", "val", "test")[index % 3]
        target.mkdir(exist_ok=True)
        (target / source.name).symlink_to(source)
    task = ImageFolder(ways=2, shots=1, queries=2, size=8, channels=1).load(tmp_path)
    levels = task.episodes("meta-train", 40, generator()).support.inputs.mean((2, 3, 4)) * 255
    assert set((levels.round() // 20).unique().tolist()) == {0, 3, 6, 9}


def test_bad_folders_are_named(tmp_path, folder):
    task = ImageFolder(ways=2, shots=1, queries=2, size=8)
    with pytest.raises(TaskError, match="there is none at"):
        task.load(tmp_path / "nowhere")
    with pytest.raises(TaskError, match="has none"):
        task.load(tmp_path)
    with pytest.raises(TaskError, match=r"shots \+ queries = 90.*class00 \(8\).*and 7 more"):
        ImageFolder(ways=2, shots=1, queries=89, size=8).load(folder)
    with pytest.raises(
        TaskError, match="meta-validation needs at least ways = 5 classes, but has 2"
    ):
        ImageFolder(ways=5, shots=1, queries=2, size=8).load(folder)
    with pytest.raises(TaskError, match="load"):
        task.episodes("meta-train", 1, generator())


def test_a_broken_image_is_named_or_left_out(tmp_path, folder, caplog):
    import shutil

    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy" / "class03" / "1.png").write_bytes(b"not an image")
    task = ImageFolder(ways=2, shots=1, queries=2, size=8)
    with pytest.raises(TaskError, match=r"class03/1\.png is not a readable image.*--skip-broken"):
        task.load(tmp_path / "copy")
    assert len(task.load(tmp_path / "copy", skip_broken=True).classes.examples) == 95
    assert "1 broken images are left out" in caplog.text


@pytest.mark.parametrize("cut", [0, 100, 300, 600, -40])
def test_a_damaged_cache_is_made_anew(folder, tmp_path, monkeypatch, cut):
    monkeypatch.setenv("EVOMETA_CACHE", str(tmp_path))
    task = ImageFolder(ways=2, shots=1, queries=2, size=8)
    first = task.load(folder)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    for damaged in (whole[:cut], whole[:cut] + b"\xff" * 30 + whole[cut:][30:]):
        file.write_bytes(damaged)
        assert task.load(folder).describe() == first.describe()


def test_sine_waves_are_sine_waves():
    episodes = Sinusoid(shots=50, amplitude=(1.0, 2.0)).episodes("meta-test", 200, generator())
    x, y = episodes.query
    assert x.abs().max() <= 5
    assert y.abs().max() <= 2
    # least squares on sin and cos leaves nothing, and gives amplitude and phase back
    basis = torch.cat([torch.sin(x), torch.cos(x)], -1).double()
    solved = torch.linalg.lstsq(basis, y.double()).solution
    torch.testing.assert_close(basis @ solved, y.double(), atol=1e-5, rtol=0)
    amplitude = solved.norm(dim=1)
    assert amplitude.min() >= 0.999 and amplitude.max() <= 2.001
    phase = torch.atan2(-solved[:, 1], solved[:, 0])
    assert phase.min() >= -1e-3 and phase.max() <= torch.pi + 1e-3


@pytest.mark.slow
def test_omniglot_has_both_published_splits(omniglot_folder):
    random = Omniglot(split="random").load(omniglot_folder)
    assert [len(random.classes.splits[s]) for s in SPLITS] == [1100, 100, 423]
    assert random.classes.rotations
    background = Omniglot(split="background").load(omniglot_folder)
    assert [len(background.classes.splits[s]) for s in SPLITS] == [864, 100, 659]
    assert background.classes.splits["meta-test"].min() == 964
    support, query = random.episodes("meta-train", 4, generator())
    assert support.inputs.shape == (4, 5, 1, 28, 28)
    assert query.inputs.shape == (4, 75, 1, 28, 28)
    ink = random.classes.examples.mean() / 255
    assert 0.03 < ink < 0.2, "ink is 1, paper is 0"


@pytest.mark.slow
def test_extracted_folders_equal_the_archives(omniglot_folder, tmp_path):
    import zipfile

    for archive in omniglot_folder.glob("*.zip"):
        zipfile.ZipFile(archive).extractall(tmp_path)
    one, two = (Omniglot().load(place) for place in (omniglot_folder, tmp_path))
    assert one.describe() == two.describe()


def test_incomplete_omniglot_is_named(tmp_path):
    with pytest.raises(TaskError, match="must hold images_background.zip"):
        Omniglot().load(tmp_path)
    (tmp_path / "images_background").mkdir()
    (tmp_path / "images_evaluation.zip").write_bytes(b"no zip")
    with pytest.raises(TaskError, match="must hold 964 characters of 20 drawings, but holds 0"):
        Omniglot().load(tmp_path)
    with pytest.raises(TaskError, match=r"--download.*--data DIR"):
        Omniglot().load(None)

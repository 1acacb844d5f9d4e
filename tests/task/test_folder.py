"""A folder is read as what it means; all else in it is passed over and said, or refused."""

import io
import logging
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from evometa.check import print_check
from evometa.cli import app
from evometa.errors import TaskError
from evometa.launch import Data, prepare
from evometa.study_file import load_study
from evometa.task import Glyphs, ImageFolder, Omniglot
from evometa.task.folder import Broken, list_folder, shown

STUDY = """
from torch import nn
from evometa import Study, Training, space as s
from evometa.task import ImageFolder
study = Study(
    space=s.Struct(w=s.Int(8, 16)),
    build=lambda g: nn.Sequential(nn.Flatten(), nn.LazyLinear(2)),
    task=ImageFolder(ways=2, shots=1, queries=2, channels=1, size=8),
    training=Training(iterations=2, tasks=2, validation=4),
)
"""


def picture(number):
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (10, 12), np.uint8))


def fill(folder, classes=10, each=4, suffix=".png", first=0):
    for index in range(classes):
        (folder / f"c{index}").mkdir(parents=True, exist_ok=True)
        for example in range(each):
            number = first + 100 * index + example
            picture(number).save(folder / f"c{index}" / f"{example}{suffix}")
    return folder


@pytest.fixture
def data(tmp_path):
    return fill(tmp_path / "data")


@pytest.fixture
def log(caplog):
    caplog.set_level(logging.WARNING)
    return caplog


def load(folder, **how):
    task = ImageFolder(ways=2, shots=1, queries=2, size=8, channels=1, fractions=(0.5, 0.25, 0.25))
    return task.load(folder, **how).classes


def checked(folder, tmp_path, *options):
    (tmp_path / "study.py").write_text(STUDY)
    said = CliRunner().invoke(
        app,
        ["check", str(tmp_path / "study.py"), "--data", str(folder), "--samples", "1", *options],
    )
    return said, " ".join(said.output.split())


def test_what_systems_and_tools_leave_behind_is_no_data(data, log):
    whole = load(data)
    fork = b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(40)
    image = (data / "c0/0.png").read_bytes()
    for name in ("c0", "c1"):
        (data / name / "._0.png").write_bytes(fork)
        (data / name / ".hidden.png").write_bytes(image)
        (data / name / ".DS_Store").write_bytes(b"x")
        (data / name / "Thumbs.db").write_bytes(b"x")
        (data / name / "Desktop.ini").write_bytes(b"x")
        for folder in (".ipynb_checkpoints", ".thumbnails"):
            (data / name / folder).mkdir()
            (data / name / folder / "0.png").write_bytes(image)
    for folder in ("__MACOSX", ".ipynb_checkpoints", ".cache", "lost+found"):
        (data / folder).mkdir()
        (data / folder / "0.png").write_bytes(image)
    found = load(data)
    assert found.digest() == whole.digest()
    assert not log.records, "it is of no interest to a search"
    ignored = found.reading.ignored
    assert sorted(ignored["resource forks of macOS"]) == ["c0/._0.png", "c1/._0.png"]
    assert {"__MACOSX", "lost+found", "c0/Thumbs.db", "c1/Desktop.ini"} <= set(
        ignored["left by the operating system or by a tool"]
    )
    assert {".cache", ".ipynb_checkpoints", "c0/.DS_Store", "c1/.thumbnails"} <= set(
        ignored["hidden"]
    )


def test_no_image_is_left_out_without_a_word(data, log):
    whole = load(data)
    (data / "empty").mkdir()
    (data / "empty/inner").mkdir()
    (data / "notes.txt").write_text("x")
    (data / "c0/4.heic").write_bytes(b"x")
    (data / "c0/5").write_bytes(b"x")
    (data / "outside.png").write_bytes((data / "c0/0.png").read_bytes())
    found = load(data)
    assert found.digest() == whole.digest()
    assert found.reading.ignored == {
        "of no suffix of an image": ["notes.txt", "c0/4.heic", "c0/5"],
        "beside the class folders": ["outside.png"],
        "folders without images": ["empty/inner", "empty"],
    }
    for name in ("c0/4.heic", "outside.png", "empty"):
        assert name in log.text


def test_all_formats_of_a_folder_are_read_whatever_their_capitals(tmp_path):
    data = tmp_path / "data"
    names = [".png", ".WEBP", ".tiff", ".BMP", ".gif", ".JPG", ".ppm", ".jp2"]
    for index in range(10):
        (data / f"c{index}").mkdir(parents=True)
        for number, suffix in enumerate(names):
            picture(100 * index + number).save(data / f"c{index}" / f"{number}{suffix}")
    reading = load(data).reading
    assert (reading.classes, reading.images, reading.ignored) == (10, 80, {})
    assert reading.formats == dict.fromkeys(
        ("PNG", "WEBP", "TIFF", "BMP", "GIF", "JPEG", "PPM", "JPEG2000"), 10
    )
    assert sum(reading.modes.values()) == 80


def test_check_prints_what_was_read_and_what_was_not(data, tmp_path):
    (data / "c0/._0.png").write_bytes(b"x")
    (data / "c0/a.txt").write_bytes(b"x")
    Image.merge("LA", (picture(7), picture(8))).save(data / "c1/7.png")
    shutil.copy(data / "c0/0.png", data / "c3/copy.png")
    said, text = checked(data, tmp_path)
    assert said.exit_code == 0, said.output
    for part in (
        f"{data}: 10 classes, 42 images",
        "formats 42 PNG",
        "modes 41 L, 1 LA",
        "changed 1 with transparency, put on white paper",
        "ignored 1 resource forks of macOS: c0/._0.png",
        "ignored 1 of no suffix of an image: c0/a.txt",
        "warning 1 images come more than once",
        "c0/0.png = c3/copy.png",
    ):
        assert part in text
    assert text.count("c3/copy.png") == 1, "it is printed or logged, not both"


def test_tasks_that_make_their_own_data_have_nothing_to_read(tmp_path):
    study = STUDY.replace("ImageFolder", "Glyphs").replace("channels=1", "drawings=3")
    (tmp_path / "study.py").write_text(study)
    with io.StringIO() as text:
        study = prepare(load_study(tmp_path / "study.py"), Data())
        print_check(Console(file=text), study, 1, 0)
        assert "images" not in text.getvalue()


# splits


def test_splits_may_be_capitalised_and_what_lies_beside_them_is_said(tmp_path):
    for number, name in enumerate(("Train", "VAL", "Test", "more")):
        fill(tmp_path / name, classes=2, first=1000 * number)
    found = load(tmp_path)
    assert {split: len(classes) for split, classes in found.splits.items()} == {
        "meta-train": 2, "meta-validation": 2, "meta-test": 2,
    }  # fmt: skip
    assert found.reading.ignored == {"beside the class folders": ["more"]}


@pytest.mark.parametrize("there", [["train", "test"], ["Train"], ["train", "val"], ["meta-test"]])
def test_missing_splits_are_named(tmp_path, there):
    for name in there:
        fill(tmp_path / name)
    with pytest.raises(TaskError) as error:
        load(tmp_path)
    text = str(error.value)
    assert f"has {' and '.join(sorted(there))}, but nothing for" in text
    for split, short in {
        "meta-train": "train",
        "meta-validation": "val",
        "meta-test": "test",
    }.items():
        assert (split in text.split("nothing for")[1]) == (
            short not in {name.lower().removeprefix("meta-") for name in there}
        )


def test_two_folders_for_a_split_are_named(tmp_path):
    for name in ("train", "Training", "val", "test"):
        fill(tmp_path / name)
    with pytest.raises(TaskError, match="one folder for meta-train, but .* has Training and train"):
        load(tmp_path)


def test_splits_without_class_folders_are_named(tmp_path):
    for name in ("train", "val", "test"):
        (tmp_path / name).mkdir()
        picture(0).save(tmp_path / name / "0.png")
    with pytest.raises(TaskError, match="test must hold one folder a class"):
        load(tmp_path)


def test_a_class_may_be_called_like_a_split(data):
    (data / "c0").rename(data / "train")
    found = load(data)
    assert found.reading.classes == 10


def test_classes_of_one_name_in_two_splits_are_said(tmp_path, log):
    for number, name in enumerate(("train", "val", "test")):
        fill(tmp_path / name, classes=2, first=1000 * number)
    load(tmp_path)
    assert "2 classes have the same name in several splits: train/c0 = val/c0 = test/c0" in log.text


# what cannot be read


def bomb(path):
    Image.new("1", (20000, 10000)).save(path)


def fifo(path):
    os.mkfifo(path)


def dead(path):
    path.symlink_to("nowhere.png")


def circle(path):
    path.symlink_to(path.name)


def truncated(path):
    picture(1).save(path)
    path.write_bytes(path.read_bytes()[:70])


def folder_of_images(path):
    path.mkdir()
    picture(1).save(path / "0.png")


def way_back(path):
    path.symlink_to("..")


def no_depth(path):
    Image.fromarray(np.zeros((9, 9), np.int32)).save(path, "TIFF")


BROKEN = {
    bomb: "too large",
    fifo: "is no file but a pipe",
    dead: "leads nowhere",
    circle: "leads nowhere",
    truncated: "not a readable image",
    lambda path: path.write_bytes(b""): "is empty",
    lambda path: path.write_bytes(b"hello"): "known format",
    lambda path: path.write_bytes(b"II*\0" + bytes(range(200))): "not a readable image",
    folder_of_images: "a folder of images within the class folder c3",
    way_back: "a folder of images within the class folder c3",
    no_depth: "mode is I",
}


@pytest.mark.parametrize("make", BROKEN, ids=lambda make: make.__name__)
def test_what_is_broken_is_named_or_left_out_with_a_warning(data, log, make):
    make(data / "c3/zz.png")
    with pytest.raises(TaskError, match=rf"c3/zz\.png .*{BROKEN[make]}.*--skip-broken"):
        load(data)
    for _ in range(2):  # the second time from the cache
        log.clear()
        found = load(data, skip_broken=True)
        assert found.reading.images == 40
        assert "1 broken images are left out" in log.text and "c3/zz.png" in log.text


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read all files")
@pytest.mark.parametrize("name", ["c3/0.png", "c3"])
def test_what_may_not_be_read_is_named(data, name):
    (data / name).chmod(0)
    try:
        with pytest.raises(TaskError, match=name):
            load(data)
        assert load(data, skip_broken=True).reading.images == (39 if "." in name else 36)
    finally:
        (data / name).chmod(0o755)


def test_files_without_permission_are_named(data, monkeypatch, log):
    """The same for root, who may read all files."""
    opened = Image.open

    def refused(file, *arguments, **named):
        if str(file).endswith("c3/0.png"):
            raise PermissionError(13, "Permission denied", str(file))
        return opened(file, *arguments, **named)

    monkeypatch.setattr(Image, "open", refused)
    with pytest.raises(TaskError, match=r"c3/0\.png is not a readable image: .*Permission denied"):
        load(data)
    assert load(data, skip_broken=True).reading.images == 39
    assert "c3/0.png" in log.text


def test_names_of_any_bytes_are_read(data, tmp_path):
    odd = os.fsdecode(b"caf\xe9\x1b[31m.png")
    picture(1).save(data / "c3" / odd)
    (data / "c4").rename(data / os.fsdecode(b"\xff\xfe"))
    assert load(data).reading.images == 41
    shutil.copy(data / "c3" / odd, data / "c5" / odd)
    said, text = checked(data, tmp_path)
    assert said.exit_code == 0, said.output
    assert "caf\\udce9" in text
    (data / "c3" / odd).write_bytes(b"")
    said, text = checked(data, tmp_path)
    assert isinstance(said.exception, TaskError)
    assert "caf\\udce9" in str(said.exception)
    shown(data / "c3" / odd).encode()


def test_places_that_are_no_folder_are_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(TaskError, match="that is a file at"):
        load(tmp_path / "file")
    fill(tmp_path / "outer" / "inner")
    with pytest.raises(TaskError, match="pass --data .*inner if the class folders are in there"):
        load(tmp_path / "outer")


def test_small_classes_go_with_their_broken_images(data, log):
    for number in range(2):
        (data / "c3" / f"{number}.png").write_bytes(b"")
    found = load(data, skip_broken=True)
    assert (found.reading.classes, found.reading.images) == (9, 36)
    assert "1 classes have too few images and are left out: c3" in log.text
    assert found.starts.tolist() == list(range(0, 37, 4))


# sets from which nothing, or something wrong, is learned


def test_equal_images_are_refused(tmp_path):
    fill(tmp_path)
    for path in tmp_path.rglob("*.png"):
        picture(1).save(path)
    with pytest.raises(TaskError, match=r"all 40 images are the same image.*c0/0\.png"):
        load(tmp_path)
    for path in tmp_path.rglob("*.png"):
        Image.new("L", (8, 8), 255).save(path)
    with pytest.raises(TaskError, match="all 40 images are one and the same flat colour"):
        load(tmp_path)


def test_flat_images_are_said(tmp_path, log):
    fill(tmp_path)
    Image.new("L", (9, 9), 3).save(tmp_path / "c4/1.png")
    found = load(tmp_path)
    assert found.reading.warnings == ["1 of 40 images are of a single colour each, as c4/1.png"]
    assert "c4/1.png" in log.text


def test_copies_are_said(tmp_path, log):
    fill(tmp_path)
    shutil.copytree(tmp_path / "c2", tmp_path / "c2 copy")
    shutil.copy(tmp_path / "c5/0.png", tmp_path / "c6/9.png")
    text = " ".join(load(tmp_path).reading.warnings)
    assert "these classes hold the same images: c2, c2 copy" in text
    assert "5 images come more than once" in text
    assert all(warning in log.text for warning in load(tmp_path).reading.warnings)


def test_classes_that_are_all_copies_are_refused(tmp_path):
    fill(tmp_path / "one", classes=1)
    for name in ("a", "b", "c", "d", "e", "f", "g", "h"):
        shutil.copytree(tmp_path / "one/c0", tmp_path / "data" / name)
    with pytest.raises(TaskError, match="all 8 classes hold the same images, a as b"):
        load(tmp_path / "data")


def test_copies_across_splits_are_counted(tmp_path):
    for number, name in enumerate(("train", "val", "test")):
        fill(tmp_path / name, classes=2, first=1000 * number)
    shutil.copy(tmp_path / "train/c0/1.png", tmp_path / "test/c1/7.png")
    shutil.copy(tmp_path / "train/c0/0.png", tmp_path / "train/c1/7.png")
    text = " ".join(load(tmp_path).reading.warnings)
    assert "2 images come more than once, 1 of them in more than one split" in text
    assert "more than one split: train/c0/1.png = test/c1/7.png" in text


def test_depth_that_is_hardly_used_is_refused(tmp_path):
    for index in range(10):
        (tmp_path / f"c{index}").mkdir()
        for example in range(4):
            deep = np.asarray(picture(10 * index + example)).astype(np.uint16)  # 8 of 16 bits
            Image.fromarray(deep).save(tmp_path / f"c{index}/{example}.png")
    with pytest.raises(TaskError, match=r"use at most 0\.39% of the range.*c\d/\d\.png.*2 of 256"):
        load(tmp_path)
    Image.fromarray(np.full((9, 9), 60000, np.uint16)).save(tmp_path / "c0/0.png")
    load(tmp_path)


# the cache, and arguments


def test_the_cache_knows_changed_files_and_the_rule(tmp_path, monkeypatch):
    data = fill(tmp_path, suffix=".bmp")
    before, path = load(data), data / "c0/0.bmp"
    old = path.stat()
    path.write_bytes((data / "c1/0.bmp").read_bytes()[:-50] + bytes(50))
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))
    assert path.stat().st_size == old.st_size
    after = load(data)
    assert after.digest() != before.digest()
    monkeypatch.setattr("evometa.task.decoded._decode_all", lambda *_: 1 / 0)
    assert load(data).digest() == after.digest()
    monkeypatch.setattr("evometa.task.images.DECODING", -1)
    with pytest.raises(ZeroDivisionError):
        load(data)


@pytest.mark.parametrize("mine", [[np.zeros((3, 8, 8))], np.zeros((9, 8, 8)), {"a": []}, ()])
def test_arrays_given_as_classes_are_refused(mine):
    for task in (Glyphs, ImageFolder, Omniglot):
        with pytest.raises(TypeError, match="classes"):
            task(ways=3, classes=mine)
        with pytest.raises(TaskError, match=r"`classes` is what `load` has read.*Arrays"):
            replace(task(ways=3), classes=mine)


def test_listing_is_sorted_and_relative(data):
    found = list_folder(data, Broken(skip=False))
    assert list(found.files) == [f"c{number}" for number in range(10)]
    assert [path.name for path in found.files["c0"]] == ["0.png", "1.png", "2.png", "3.png"]


@pytest.mark.parametrize("make", [Glyphs, Omniglot, ImageFolder])
@pytest.mark.parametrize("given", ["classes", "images", "data", "way"])
def test_what_a_task_does_not_take_is_refused_by_what_it_takes(make, given):
    wanted = f"{make.__name__} takes ways, shots, queries.*'{given}'.*use Arrays"
    with pytest.raises(TaskError, match=wanted):
        make(**{given: [np.zeros((30, 8, 8), np.float32)] * 10})
    assert make(ways=3).ways == 3

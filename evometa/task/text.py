"""Few-shot tasks of texts: in a folder, in a table, or in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from evometa.errors import TaskError
from evometa.files import local
from evometa.task.arrays import LabelledArrays, Splits, as_plain
from evometa.task.classes import ClassTask, class_task
from evometa.task.encoders import Encoder, Grams
from evometa.task.folder import Broken, list_folder, shown
from evometa.task.protocol import SPLITS
from evometa.task.reading import listed
from evometa.task.sampler import Classes, Range

ENDINGS = frozenset({".txt"})


def Text(
    source: Any = None,
    labels: Sequence[Any] | None = None,
    *,
    text: str | None = None,
    label: str | None = None,
    encoder: Encoder = Grams(),  # noqa: B008 - a value
    ways: Range = 5,
    shots: Range = 1,
    queries: int = 15,
    splits: Splits = (0.64, 0.16, 0.2),
    seed: int = 0,
    sampling: str = "equal",
) -> ClassTask:
    """Return few-shot classification of texts.

    New texts become inputs by `encoder.encode([...])`; of `Tokens`, -1 says where the mask is not.

    Args:
        source: a folder of class folders with UTF-8 `.txt` files, which folders `train`, `val` and
            `test` may divide; or texts, with `labels`; or a table, as `Table` takes it, with the
            names of the columns `text` and `label`. `--data` takes the place of a path.
        labels: of the texts, of any one kind.
        text: the column of texts.
        label: the column of labels.
        encoder: `Grams(size)`, hashed character n-grams, vectors; `Tokens(length, vocabulary,
            tokenizer)`, for networks that embed; `Vectors(function, name)`, those of a frozen
            encoder, kept in the cache.
        ways: classes in an episode, or a pair of least and most.
        shots: support texts a class, or a pair.
        queries: query texts a class.
        splits: as in `Arrays`; of no effect where folders say the splits.
        seed: shuffles the classes before they are split.
        sampling: `"equal"`, `"unequal"` or `"meta-dataset"`; see `ClassTask`.

    Raises:
        TaskError: if an argument has no such value.
    """
    if (text is None) != (label is None):
        raise TaskError(f"a table needs both columns, got (text={text!r}, label={label!r})")
    if labels is not None:
        if isinstance(source, str | Path) or text is not None or source is None:
            raise TaskError("`labels` go with a list of texts, not with a path or a table")
        if len(source) != len(labels):
            raise TaskError(f"{len(source)} texts must have one label each, got {len(labels)}")
        source, labels = list(source), list(labels)
    elif text is None and not isinstance(source, str | Path | None):
        raise TaskError("texts need `labels`; a table needs the names of its columns")
    found = Texts(source, labels, text, label, encoder, splits, seed)
    return class_task(found, ways, shots, queries, sampling)


@dataclass(frozen=True, eq=False, repr=False)
class Texts:
    """Where the classes of a `Text` come from; the arguments are described there."""

    source: Any
    labels: Sequence[Any] | None
    text: str | None
    label: str | None
    encoder: Encoder
    splits: Splits
    seed: int

    def read(
        self, data: Path | None, *, download: bool, skip_broken: bool, least: int
    ) -> tuple[Classes, list[str]]:
        """Return the encoded texts by class.

        Raises:
            TaskError: if there are none, or one cannot be read or encoded.
        """
        held = not isinstance(self.source, str | Path | None)
        if data is not None and held:
            raise TaskError(f"the texts are in memory, but got --data {data}; leave it out")
        path = data if data is not None else self.source
        if self.text is not None and self.label is not None:
            found = _of_table(path, self.text, self.label, skip_broken)
        elif held:
            found = _in_memory(self.source, self.labels or (), skip_broken)
        elif path is None:
            raise TaskError("texts must be given: pass --data DIR, or Text(folder)")
        else:
            found = _of_folder(local(path), skip_broken)
        if not found.texts:
            raise TaskError(f"{found.place} holds no texts")
        arrays = LabelledArrays.of(
            self.encoder.encode(found.texts),
            found.labels,
            found.splits or self.splits,
            self.seed,
            place=found.place,
            what="texts",
        )
        classes, names = arrays.read(None, download=False, skip_broken=skip_broken, least=least)
        lengths = [len(each) for each in found.texts]
        details = [
            ("characters", f"{min(lengths)} to {max(lengths)}, median {np.median(lengths):.0f}"),
            ("encoder", ", ".join(f"{name} {v}" for name, v in self.encoder.describe().items())),
        ]
        assert classes.reading is not None, "arrays say what they are"
        ignored = {**classes.reading.ignored, **found.ignored}
        reading = replace(classes.reading, details=details, ignored=ignored)
        return replace(classes, reading=reading, masked=self.encoder.masked), names

    def describe(self) -> dict[str, Any]:
        """Return name and arguments; the texts are known by the hash of what they become."""
        own: dict[str, Any] = {"name": "Text", "text": self.text, "label": self.label}
        own |= {"encoder": self.encoder.describe(), "seed": self.seed}
        return {**own, "splits": as_plain(self.splits)}


@dataclass(frozen=True)
class _Found:
    """Texts with their labels.

    Attributes:
        place: where they are from.
        texts: the texts.
        labels: of each.
        splits: split name to labels, where folders say so.
        ignored: why entries were passed over, to their names.
    """

    place: str
    texts: list[str]
    labels: list[Any]
    splits: dict[str, list[str]] | None = None
    ignored: dict[str, Sequence[str]] = field(default_factory=dict)


def _of_folder(folder: Path, skip: bool) -> _Found:
    broken = Broken(skip)
    listing = list_folder(folder, broken, ENDINGS, "text")
    texts, labels = [], []
    for name, files in listing.files.items():
        for file in files:
            try:
                own = file.read_bytes().decode("utf-8-sig")
            except OSError as error:
                broken.refuse(file, f"cannot be read: {error.strerror}")
                continue
            except UnicodeDecodeError as error:
                broken.refuse(
                    file, f"is not UTF-8: byte {error.start} is {error.object[error.start]:#x}"
                )
                continue
            if not own.strip():
                broken.refuse(file, "is empty")
                continue
            texts.append(own)
            labels.append(name)
    ignored: dict[str, Sequence[str]] = dict(listing.passed)
    if broken.entries:
        ignored["broken"] = broken.entries
    splits = None
    if listing.split_of:
        present = {*labels}
        splits = {
            split: [n for n, own in listing.split_of.items() if own == split and n in present]
            for split in SPLITS
        }
    return _Found(shown(folder), texts, labels, splits, ignored)


def _in_memory(texts: Sequence[Any], labels: Sequence[Any], skip: bool) -> _Found:
    kept, ignored = _usable(texts, "the list", skip)
    return _Found("a list", [texts[k] for k in kept], [labels[k] for k in kept], ignored=ignored)


def _of_table(source: Any, text: str, label: str, skip: bool) -> _Found:
    from evometa.task.table_columns import is_text, plain  # Arrow, only here
    from evometa.task.table_files import column_of, parts_of

    texts: list[Any] = []
    labels: list[Any] = []
    parts = parts_of(source, [text, label])
    for part in parts:
        column_of(part.schema, label, "the labels", part.name)
        kind = column_of(part.schema, text, "the texts", part.name)
        if not is_text(getattr(kind, "value_type", kind)):
            raise TaskError(f"column {text!r} of {part.name} must hold texts, got {kind}")
        for batch in part.read([text, label]):
            texts += plain(batch.column(text)).to_pylist()
            labels += plain(batch.column(label)).to_pylist()
    kept, ignored = _usable(texts, parts[0].name, skip)
    return _Found(
        parts[0].name, [texts[k] for k in kept], [labels[k] for k in kept], ignored=ignored
    )


def _usable(
    texts: Sequence[Any], where: str, skip: bool
) -> tuple[list[int], dict[str, Sequence[str]]]:
    """Return the places of texts, and what is none.

    Raises:
        TaskError: if one is missing, empty or of another type, unless it is to be left out.
    """
    bad = [k for k, each in enumerate(texts) if not (isinstance(each, str) and each.strip())]
    if not bad:
        return list(range(len(texts))), {}
    named = [f"row {k} of {where}" for k in bad]
    if not skip:
        raise TaskError(
            f"texts must not be missing or empty, but {len(bad)} of {len(texts)} are, as "
            f"{listed(named)} (counted from 0), {texts[bad[0]]!r}; mend them, or leave them out "
            "with --skip-broken"
        )
    lost = {*bad}
    return [k for k in range(len(texts)) if k not in lost], {"missing or empty texts": named}

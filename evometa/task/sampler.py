"""Images by class, and how episodes are drawn from them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from evometa.errors import TaskError
from evometa.task.protocol import Batch, EpisodeBatch, split_seed

Images = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Episodic:
    """The shape of an episode of classes.

    Attributes:
        ways: classes in an episode.
        shots: support examples a class.
        queries: query examples a class.
    """

    ways: int
    shots: int
    queries: int

    def __post_init__(self) -> None:
        for name, least in (("ways", 2), ("shots", 1), ("queries", 1)):
            if getattr(self, name) < least:
                raise TaskError(
                    f"`{name} >= {least}` must hold, but got ({name}={getattr(self, name)})"
                )


@dataclass(frozen=True)
class ImageClasses:
    """Images sorted by class, and which classes belong to which split.

    Never written to: on a worker the arrays are shared by all processes of a node.

    Attributes:
        images: shape `(images, channels, height, width)`, 0 to 255.
        starts: shape `(classes + 1,)`; class `c` owns images `starts[c]` to `starts[c + 1]`.
        splits: split name to class numbers.
        rotations: count each of the four right-angle rotations as a class of its own.
    """

    images: Images
    starts: npt.NDArray[np.int64]
    splits: Mapping[str, npt.NDArray[np.int64]]
    rotations: bool = False

    def check(self, shape: Episodic, names: list[str]) -> None:
        """Raise `TaskError` if a class or a split is too small for an episode."""
        counts = np.diff(self.starts)
        small = [
            f"{name} ({count})"
            for name, count in zip(names, counts, strict=True)
            if count < shape.shots + shape.queries
        ]
        if small:
            more = f" and {len(small) - 5} more" if len(small) > 5 else ""
            raise TaskError(
                f"each class needs at least shots + queries = {shape.shots + shape.queries} images,"
                f" but these have fewer: {', '.join(small[:5])}{more}; "
                "add images, or lower shots or queries"
            )
        for split, classes in self.splits.items():
            available = len(classes) * (4 if self.rotations else 1)
            if available < shape.ways:
                raise TaskError(
                    f"{split} needs at least ways = {shape.ways} classes, but has {available}; "
                    "add classes, lower ways, or change the split"
                )

    def episodes(
        self, shape: Episodic, split: str, n: int, generator: torch.Generator
    ) -> EpisodeBatch:
        """Draw episodes: distinct classes in random label order, distinct images in a class.

        Returns:
            Support of shape `(n, ways * shots, channels, height, width)` and queries likewise,
            0 to 1, sorted by label.
        """
        rng = np.random.default_rng(split_seed(split, generator))
        own = self.splits[split]
        turns = 4 if self.rotations else 1
        each = shape.shots + shape.queries
        picks = np.stack(
            [rng.choice(len(own) * turns, shape.ways, replace=False) for _ in range(n)]
        )
        classes, turn = own[picks // turns], picks % turns
        first, counts = self.starts[classes], np.diff(self.starts)[classes]
        chosen = _distinct(rng, counts, each) + first[..., None]  # (n, ways, each)
        pixels = self.images[chosen]  # a copy, so that the shared array stays untouched
        for quarter in range(1, turns):
            which = turn == quarter
            pixels[which] = np.rot90(pixels[which], quarter, axes=(-2, -1))
        inputs = torch.from_numpy(pixels).float().div_(255.0)
        labels = torch.arange(shape.ways).view(1, -1, 1).expand(n, -1, each)
        k = shape.shots
        return EpisodeBatch(
            Batch(inputs[:, :, :k].flatten(1, 2), labels[:, :, :k].flatten(1)),
            Batch(inputs[:, :, k:].flatten(1, 2), labels[:, :, k:].flatten(1)),
        )

    def digest(self) -> str:
        """Return a short hash of images and split."""
        digest = hashlib.sha256(np.ascontiguousarray(self.images).data)
        digest.update(np.ascontiguousarray(self.starts).data)
        for split, classes in self.splits.items():
            digest.update(split.encode() + np.ascontiguousarray(classes).data)
        return digest.hexdigest()[:16]


def classification_loss(predictions: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy of logits of shape `(examples, ways)`."""
    return F.cross_entropy(predictions, targets)


def classification_scores(predictions: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Return the accuracy and the mean cross-entropy of one episode."""
    right = (predictions.argmax(-1) == targets).to(predictions.dtype)
    return {"accuracy": right.mean(), "query_loss": F.cross_entropy(predictions, targets)}


CLASSIFICATION_METRICS = ("accuracy", "query_loss")


def _distinct(
    rng: np.random.Generator, counts: npt.NDArray[np.int64], k: int
) -> npt.NDArray[np.int64]:
    """Draw `k` distinct numbers below each count: the order of the smallest random keys."""
    keys = rng.random((*counts.shape, int(counts.max())))
    keys[np.arange(keys.shape[-1]) >= counts[..., None]] = 2.0  # beyond the class's images
    smallest = np.argpartition(keys, k - 1, axis=-1)[..., :k] if k < keys.shape[-1] else None
    if smallest is None:
        return np.argsort(keys, axis=-1)[..., :k]
    inner = np.argsort(np.take_along_axis(keys, smallest, -1), axis=-1)
    return np.take_along_axis(smallest, inner, -1)

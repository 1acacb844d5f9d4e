"""Drawn glyphs: random stroke characters, so that nobody needs a download to have images."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from evometa.errors import TaskError
from evometa.task.classes import ClassTask, class_task, takes_no_more
from evometa.task.image_folder import shuffled_splits
from evometa.task.sampler import Classes, Range

Images = npt.NDArray[np.uint8]

POINTS = 10  # straight pieces of a curve
OVERSAMPLING = 3
PEN = 5  # width of a stroke, in oversampled pixels
SPAN = 0.45  # least distance between the ends of a stroke, as a share of the image's side
JITTER = 0.035  # of a control point, as a share of the image's side


@dataclass(frozen=True)
class DrawnGlyphs:
    """Where `Glyphs` come from; the arguments are described there."""

    classes_per_split: tuple[int, int, int]
    drawings: int
    size: int
    seed: int

    def read(
        self, data: Path | None, *, download: bool, skip_broken: bool, least: int
    ) -> tuple[Classes, list[str]]:
        """Draw the glyphs.

        Raises:
            TaskError: if a data folder is given.
        """
        if data is not None:
            raise TaskError(f"glyphs are drawn, not read, but got --data {data}; leave it out")
        number = sum(self.classes_per_split)
        rng = np.random.default_rng(self.seed)
        images = np.stack(
            [
                drawing
                for _ in range(number)
                for drawing in _draw_class(rng, self.drawings, self.size)
            ]
        )
        starts = np.arange(number + 1) * self.drawings
        splits = shuffled_splits(self.classes_per_split, number, self.seed)
        names = [f"glyph {index}" for index in range(number)]
        return Classes(images[:, None], starts, splits), names

    def describe(self) -> dict[str, Any]:
        """Return name and arguments, from which the glyphs follow."""
        return {"name": "Glyphs", **asdict(self)}


@takes_no_more
def Glyphs(
    ways: Range = 5,
    shots: Range = 1,
    queries: int = 15,
    classes_per_split: tuple[int, int, int] = (200, 50, 50),
    drawings: int = 20,
    size: int = 28,
    seed: int = 0,
    sampling: str = "equal",
) -> ClassTask:
    """Return few-shot classification of made-up characters, ink 1 on paper 0.

    A class is two to four smooth strokes; an example moves their control points a little, and
    turns, scales and shifts the whole.

    Args:
        ways: classes in an episode, or a pair of least and most.
        shots: support drawings a class, or a pair.
        queries: query drawings a class.
        classes_per_split: classes of meta-train, meta-validation and meta-test.
        drawings: examples of each class.
        size: side of the images, in pixels.
        seed: draws the glyphs.
        sampling: `"equal"`, `"unequal"` or `"meta-dataset"`; see `ClassTask`.
    """
    return class_task(
        DrawnGlyphs(classes_per_split, drawings, size, seed), ways, shots, queries, sampling
    )


def _draw_class(rng: np.random.Generator, drawings: int, size: int) -> list[Images]:
    strokes = [_stroke(rng) for _ in range(int(rng.integers(2, 5)))]
    return [_draw(rng, strokes, size) for _ in range(drawings)]


def _stroke(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Draw the four control points of a stroke whose ends are far apart, in the unit square."""
    while True:
        control = rng.uniform(0.08, 0.92, (4, 2))
        if np.linalg.norm(control[3] - control[0]) > SPAN:
            return control


def _draw(rng: np.random.Generator, strokes: list[npt.NDArray[np.float64]], size: int) -> Images:
    """Draw one example: each stroke is a cubic Bezier curve through jittered control points."""
    side = size * OVERSAMPLING
    angle, scale = rng.normal(0, 0.1), rng.normal(1, 0.06)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shift = rng.normal(0, 0.03, 2) + 0.5
    t = np.linspace(0, 1, POINTS + 1)[:, None]
    basis = np.hstack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3])
    canvas = Image.new("L", (side, side))
    pen = ImageDraw.Draw(canvas)
    for stroke in strokes:
        control = (stroke + rng.normal(0, JITTER, stroke.shape) - 0.5) @ turn.T + shift
        line = [tuple(point) for point in (basis @ control * side).tolist()]
        pen.line(line, fill=255, width=PEN, joint="curve")
    small = canvas.resize((size, size), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.uint8)

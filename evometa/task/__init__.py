"""On what is learned? Few-shot tasks: arrays, tables, texts, images, Omniglot, glyphs, waves.

A task draws episodes (a support set to adapt to, a query set to be scored on) from three disjoint
splits, and judges a learner on them. Tasks hold numpy arrays once loaded and travel to workers with
them; everything random comes from the generator that `episodes` is given.
"""

from evometa.metrics import Metric
from evometa.task.arrays import Arrays
from evometa.task.classes import ClassTask
from evometa.task.encoders import Grams, Tokens, Vectors
from evometa.task.glyphs import Glyphs
from evometa.task.groups import GroupTask
from evometa.task.image_folder import ImageFolder
from evometa.task.omniglot import Omniglot
from evometa.task.protocol import (
    IGNORED,
    SPLITS,
    Batch,
    ClassBatch,
    EpisodeBatch,
    Predict,
    Side,
    Task,
    split_seed,
)
from evometa.task.sinusoid import Sinusoid
from evometa.task.table import Table, encode
from evometa.task.text import Text

__all__ = [
    "IGNORED",
    "SPLITS",
    "Arrays",
    "Batch",
    "ClassBatch",
    "ClassTask",
    "EpisodeBatch",
    "Glyphs",
    "Grams",
    "GroupTask",
    "ImageFolder",
    "Metric",
    "Omniglot",
    "Predict",
    "Side",
    "Sinusoid",
    "Table",
    "Task",
    "Text",
    "Tokens",
    "Vectors",
    "encode",
    "split_seed",
]

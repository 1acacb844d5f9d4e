"""On what is learned? Families of few-shot tasks: waves, image folders, Omniglot, drawn glyphs.

A task draws episodes (a support set to adapt to, a query set to be scored on) from three disjoint
splits. Tasks hold numpy arrays once loaded and travel to workers with them; everything random comes
from the generator that `episodes` is given.
"""

from evometa.task.glyphs import Glyphs
from evometa.task.image_folder import ImageFolder
from evometa.task.omniglot import Omniglot
from evometa.task.protocol import SPLITS, Batch, EpisodeBatch, Task
from evometa.task.sinusoid import Sinusoid

__all__ = [
    "SPLITS",
    "Batch",
    "EpisodeBatch",
    "Glyphs",
    "ImageFolder",
    "Omniglot",
    "Sinusoid",
    "Task",
]

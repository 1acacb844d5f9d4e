"""People's own observers: they are told of each new evaluation, and are never in the way.

An observer is a function of an evaluation. What makes it is a context manager, entered with the
run's folder or URL when the search begins and left when it ends, so that files and connections are
closed:

    @contextmanager
    def printing(run):
        yield lambda evaluation: print(evaluation.candidate.id, evaluation.metrics)
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TypeAlias, cast

from evometa.errors import StudyError
from evometa.records import Evaluation
from evometa.run import Observer

log = logging.getLogger(__name__)

Observe: TypeAlias = Callable[[Evaluation], object]
"""Takes notice of an evaluation that has just been recorded, each once; those of earlier sessions
are not told again. It runs in the driver, between two results, so it should be quick."""

MakeObserver: TypeAlias = Callable[[str], AbstractContextManager[Observe]]
"""Makes an observer from the run's folder or URL, and ends it."""


def find_observer(name: str) -> MakeObserver:
    """Return what makes an observer.

    Args:
        name: `FILE.py:NAME`, or `MODULE:NAME` for what is installed.

    Raises:
        StudyError: if there is none.
    """
    home, _, attribute = name.rpartition(":")
    if not home:
        raise StudyError(f"an observer must read like FILE.py:NAME or MODULE:NAME, got {name!r}")
    try:
        module = _run(Path(home)) if home.endswith(".py") else importlib.import_module(home)
    except Exception as error:
        raise StudyError(f"the observer {name} cannot be loaded: {error}") from error
    make = getattr(module, attribute, None)
    if not callable(make):
        raise StudyError(f"an observer must be made by a function, but {home} has no {attribute!r}")
    return cast(MakeObserver, make)


def _run(path: Path) -> ModuleType:
    name = f"evometa_observer_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # it ends in .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class _Own:
    name: str
    context: AbstractContextManager[Observe]
    observe: Observe


class Observers:
    """An observer, and people's own beside it; one of these that raises is told no more.

    Args:
        shown: the search's own observer.
        makers: make the others.
        run: the run's folder or URL.
    """

    def __init__(self, shown: Observer, makers: Sequence[MakeObserver], run: str) -> None:
        self._shown, self._makers, self._run = shown, makers, run
        self._own: list[_Own] = []

    def __enter__(self) -> Observers:
        for make in self._makers:
            name = getattr(make, "__qualname__", repr(make))
            try:
                context = make(self._run)
                self._own.append(_Own(name, context, context.__enter__()))
            except Exception:
                _warn(name)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for own in self._own:
            try:
                own.context.__exit__(kind, error, trace)
            except Exception as raised:
                if raised is not error:  # else it only passes on what ends the search
                    _warn(own.name)

    def found(self, evaluation: Evaluation) -> None:
        """Pass on to the search's own observer alone."""
        self._shown.found(evaluation)

    def recorded(self, evaluation: Evaluation) -> None:
        """Pass on to all."""
        self._shown.recorded(evaluation)
        for own in list(self._own):
            try:
                own.observe(evaluation)
            except Exception:
                _warn(own.name)
                self._own.remove(own)
                with contextlib.suppress(Exception):
                    own.context.__exit__(*sys.exc_info())

    def tick(self) -> None:
        """Pass on to the search's own observer alone."""
        self._shown.tick()


def _warn(name: str) -> None:
    log.warning("The observer %s raised, and is told no more:", name, exc_info=True)

"""A study's code on its way to other processes, on other machines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from evometa.study_file.bundle import Bundle
from evometa.study_file.loading import StudyFile
from evometa.study_file.modules import StudyModules, serve_all_imports, study_of


@dataclass(frozen=True)
class Home:
    """Makes the modules of a study importable where it is unpickled.

    Attributes:
        bundle: the study with all that it needs.
        name: of its private package.
    """

    bundle: Bundle
    name: str

    def __reduce__(self) -> Any:
        return _settle, (self.bundle, self.name)


@dataclass(frozen=True)
class Shipped:
    """An evaluator that brings along the code and the files of its study.

    Attributes:
        home: unpickled first, since `evaluate` refers to the study's modules.
        evaluate: an `Evaluator`.
    """

    home: Home
    evaluate: Any

    @classmethod
    def of(cls, file: StudyFile, evaluate: Any) -> Shipped:
        """Return an evaluator of a study, ready to be pickled."""
        return cls(Home(file.bundle(), file.modules.name), evaluate)

    def __call__(self, pack: Sequence[Any]) -> Any:
        """Evaluate the candidates of a pack."""
        return self.evaluate(pack)

    def until(self, late: Callable[[], bool]) -> Shipped:
        """Return the same evaluator, which stops when `late` says so."""
        return replace(self, evaluate=self.evaluate.until(late))


def _settle(bundle: Bundle, name: str) -> Home:
    if study_of(name) is None:
        folder = bundle.unpack()
        roots = [folder / root for root in bundle.roots]
        StudyModules(name, (bundle.module, folder / bundle.study), roots)
        serve_all_imports()
    return Home(bundle, name)

"""The modules of one study, under private names.

A study imports what lies beside it as if its folders stood at the front of `sys.path`: local files
win over installed packages, which win over folders without `__init__.py`. But its modules are those
of a private package, so that two studies may each have their own `helpers`, whenever they import
it, and neither `sys.path` nor anybody else's names are touched.
"""

from __future__ import annotations

import builtins
import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import (
    BuiltinImporter,
    FrozenImporter,
    ModuleSpec,
    PathFinder,
    SourceFileLoader,
)
from pathlib import Path
from types import ModuleType
from typing import Any

from evometa.user_code import user_code

PREFIX = "evometa_study_"
SEED = 0  # of what modules draw while they are imported
_STUDIES: dict[str, StudyModules] = {}
_python_import = builtins.__import__


class StudyModules:
    """A private package, whose parts are what a study may import from its folders.

    Args:
        name: of the package; begins with `PREFIX`, and differs from those of other studies.
        main: the study's own module: its name within the package, and its file.
        roots: folders from which the study imports, the first winning.

    Attributes:
        sources: the text of each module that has been run, by path.
        opened: files that code of the study has opened to read, while it was watched.
    """

    def __init__(self, name: str, main: tuple[str, Path], roots: Sequence[Path]) -> None:
        self.name, self.main = name, main
        self.sources: dict[Path, bytes] = {}
        self.opened: set[Path] = set()
        self._owned: dict[str, bool] = {}
        self._running = 0
        self._path: list[str] = []  # Python's, before the study was run
        self._builtins = {**vars(builtins), "__import__": self.import_}
        self._importlib = _Importlib(self)
        self._package = ModuleType(name)
        self._package.__path__ = [str(root) for root in roots]
        self._package.__spec__ = ModuleSpec(name, None, is_package=True)
        sys.modules[name], _STUDIES[name] = self._package, self
        if _Finder not in sys.meta_path:
            sys.meta_path.insert(0, _Finder)
        importlib.invalidate_caches()

    @property
    def roots(self) -> list[Path]:
        """The folders from which the study imports."""
        return [Path(root) for root in self._package.__path__]

    @property
    def files(self) -> set[Path]:
        """The files of all modules that have been imported."""
        start = f"{self.name}."
        modules = [module for name, module in sys.modules.items() if name.startswith(start)]
        return {Path(file) for m in modules if (file := getattr(m, "__file__", None))}

    def run(self) -> ModuleType:
        """Run the study's file; what it does to the process is taken back.

        Folders that it puts on `sys.path` are its own from then on.
        """
        before, self._path = list(sys.path), list(sys.path)
        try:
            return importlib.import_module(f"{self.name}.{self.main[0]}")
        finally:
            self._adopt()
            self._path, sys.path[:] = [], before

    def import_(
        self,
        name: str,
        globals: Any = None,
        locals: Any = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> Any:
        """Do what an `import` statement of the study asks for."""
        fromlist = fromlist or ()
        top = name.partition(".")[0]
        with self._plain_names():
            if level:
                return _python_import(name, globals, locals, fromlist, level)
            if not self.owns(top):
                found = _python_import(name, globals, locals, fromlist, 0)
                return self._importlib if found is importlib else found
            found = _python_import(f"{self.name}.{name}", globals, locals, fromlist, 0)
            return found if fromlist else sys.modules[f"{self.name}.{top}"]

    def owns(self, top: str) -> bool:
        """Tell whether the study means a module of its own by a name."""
        self._adopt()
        if top not in self._owned:
            self._owned[top] = self._finds(top)
        return self._owned[top]

    @contextlib.contextmanager
    def running(self, module: ModuleType) -> Iterator[None]:
        """Let a module's code import as the study does, now and later.

        Global generators are seeded, and what code does to the process is taken back, when the
        outermost of the modules that import each other is done.
        """
        module.__dict__["__builtins__"] = self._builtins
        self._running += 1
        try:
            with user_code(seed=SEED) if self._running == 1 else contextlib.nullcontext():
                yield
        finally:
            self._running -= 1

    def _finds(self, top: str) -> bool:
        if top == "evometa" or BuiltinImporter.find_spec(top) or FrozenImporter.find_spec(top):
            return False
        spec = PathFinder.find_spec(f"{self.name}.{top}", self._package.__path__)
        if spec is None or spec.loader is not None:
            return spec is not None
        if top in sys.modules or importlib.util.find_spec(top) is not None:
            return False
        folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
        return any(True for folder in folders for _ in folder.rglob("*.py"))

    def _adopt(self) -> None:
        """Take over the folders that the study has put on `sys.path` while it is run."""
        old, now, roots = self._path, list(sys.path), self._package.__path__
        if not old or now == old:
            return
        self._path = now
        front = True
        ahead: list[str] = []
        behind: list[str] = []
        for entry in now:
            front &= entry not in old
            folder = Path(entry).resolve()
            installed = {"site-packages", "dist-packages"} & {*folder.parts}
            if entry not in old and not installed and folder.is_dir() and str(folder) not in roots:
                (ahead if front else behind).append(str(folder))
        self._package.__path__ = [*ahead, *roots, *behind]
        self._owned.clear()

    @contextlib.contextmanager
    def _plain_names(self) -> Iterator[None]:
        """Let messages speak of modules by the study's names."""
        try:
            yield
        except ModuleNotFoundError as error:
            error.name = (error.name or "").replace(f"{self.name}.", "")
            error.msg = str(error.msg).replace(f"{self.name}.", "")
            error.args = (error.msg,)
            raise


def study_of(name: str) -> StudyModules | None:
    """Return the study to which a module of this name belongs."""
    return _STUDIES.get(name.partition(".")[0]) if name.startswith(PREFIX) else None


def serve_all_imports() -> None:
    """Let functions of studies that have come by value, without their modules, import as well.

    It is for processes of workers: it replaces Python's `__import__`.
    """

    def import_(
        name: str,
        globals: Any = None,
        locals: Any = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> Any:
        study = study_of(str((globals or {}).get("__name__", "")))
        return (study.import_ if study else _python_import)(name, globals, locals, fromlist, level)

    builtins.__import__ = import_


class _Finder:
    """Finds the modules of studies, and of nobody else."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        study = study_of(name)
        if study is None:
            return None
        own, file = study.main
        if name == f"{study.name}.{own}":
            loader = _Loader(study, name, str(file))
            return importlib.util.spec_from_file_location(name, file, loader=loader)
        spec = None if path is None else PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(study, name, str(spec.loader.path))
        return spec


class _Loader(SourceFileLoader):
    """Runs the text of a module, never compiled code that may be older."""

    def __init__(self, study: StudyModules, name: str, path: str) -> None:
        super().__init__(name, path)
        self._study = study

    def exec_module(self, module: ModuleType) -> None:
        with self._study.running(module):
            super().exec_module(module)

    def get_data(self, path: str) -> bytes:
        data = super().get_data(path)
        return self._study.sources.setdefault(Path(path), data)

    def path_stats(self, path: str) -> Any:
        raise OSError("compiled code is neither read nor written")


class _Importlib(ModuleType):
    """`importlib`, as a study sees it: `import_module` knows the study's modules."""

    def __init__(self, study: StudyModules) -> None:
        super().__init__("importlib", importlib.__doc__)
        self._study = study

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib, name)

    def import_module(self, name: str, package: str | None = None) -> ModuleType:
        """Import a module by its name."""
        study = self._study
        with study._plain_names():
            if name.startswith("."):
                own = package and study_of(package) is None and study.owns(package.split(".")[0])
                return importlib.import_module(name, f"{study.name}.{package}" if own else package)
            own = study.owns(name.partition(".")[0])
            return importlib.import_module(f"{study.name}.{name}" if own else name)

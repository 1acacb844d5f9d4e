"""Run a study file and return its study, with what it needs."""

from __future__ import annotations

import hashlib
import importlib.util
import tempfile
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from evometa.errors import Interrupted, StudyError
from evometa.files import local, oddity
from evometa.study import Study
from evometa.study_file.bundle import Bundle
from evometa.study_file.modules import PREFIX, StudyModules, study_of
from evometa.study_file.watch import watched
from evometa.user_code import copied, raised_by_code

PROJECT = ("pyproject.toml", "setup.cfg", "setup.py", ".git")
"""What makes a folder the root of a project."""

_loaded: Counter[str] = Counter()


@dataclass(frozen=True)
class StudyFile:
    """A study with the file it came from.

    Attributes:
        study: the declaration.
        path: the file.
        source: its text.
        modules: the file's module and those that it imports from its folders.
        base: the folder of its project; what it opens below is kept with a run.
        kept: the bundle it was loaded from, if it was.
    """

    study: Study
    path: Path
    source: str
    modules: StudyModules
    base: Path
    kept: Bundle | None = None

    @property
    def sha256(self) -> str:
        """Hash of the text."""
        return hashlib.sha256(self.source.encode()).hexdigest()

    def bundle(self) -> Bundle:
        """Return the study with all that it needs, as far as that is known by now."""
        return self.kept or Bundle.collect(self.modules, self.base)

    def packed(self) -> StudyFile:
        """Return the same with its bundle as it is now, whatever becomes of the files."""
        return replace(self, kept=self.bundle())


def load_study(path: Path | str) -> StudyFile:
    """Run a study file and return its `study`.

    The file imports from its own folder; if it lies in a package, also from the folder that holds
    the package; and from the root of its project and the `src` there. The root is the nearest
    folder above with one of `PROJECT`, or else the current folder, if the file is below it. State
    of the process that the file changes is put back.

    Args:
        path: a Python file that assigns a `Study` to the name `study`.

    Raises:
        StudyError: if the file is missing, does not parse, raises, or has no `study`.
    """
    path = local(path)
    if not path.is_file():
        odd = oddity(path) or "none"
        raise StudyError(f"a study file must exist, but there is {odd} at {path}")
    if path.suffix != ".py":
        raise StudyError(f"a study file must be a Python file ending in .py, got {path}")
    file = path.parent.resolve() / path.name
    top, module = _package(file)
    root = _project(file.parent)
    roots = [top, file.parent]
    if root is not None:
        roots += [root, *(src for src in (root / "src",) if src.is_dir())]
    return _load(path, (module, file), list(dict.fromkeys(roots)), _base(file, root))


def load_kept(bundle: Bundle, path: Path | str) -> StudyFile:
    """Run the study of a bundle.

    Args:
        bundle: as a run keeps it.
        path: for messages: where the bundle is from.

    Raises:
        StudyError: as `load_study`; also if a large file is not on this machine.
    """
    folder = bundle.unpack()
    roots = [folder / root for root in bundle.roots]
    return _load(Path(path), (bundle.module, folder / bundle.study), roots, folder, bundle)


def _load(
    path: Path,
    main: tuple[str, Path],
    roots: Sequence[Path],
    base: Path,
    kept: Bundle | None = None,
) -> StudyFile:
    _, file = main
    text = file.read_bytes()
    key = hashlib.sha256(b"%s\0%s" % (str(file).encode(), text)).hexdigest()[:12]
    _loaded[key] += 1  # each has its own modules: what it imports may have changed
    again = f"_{_loaded[key]}" if _loaded[key] > 1 else ""
    modules = StudyModules(f"{PREFIX}{key}{again}", main, roots)
    study = getattr(_run(path, modules), "study", None)
    if not isinstance(study, Study):
        found = "has none" if study is None else f"has a {type(study).__name__}"
        raise StudyError(
            f"a study file must assign an evometa.Study to the name `study`, but {path} {found}; "
            "end it with `study = Study(space=..., build=..., task=...)`"
        )
    # what is searched does not change when the file's code changes its own dicts
    study = replace(
        study, objectives=copied(study.objectives), baselines=copied(dict(study.baselines))
    )
    for root in modules.roots:
        base = root if base.is_relative_to(root) else base
    source = importlib.util.decode_source(modules.sources[file])
    return StudyFile(study, path, source, modules, base, kept)


def _run(path: Path, modules: StudyModules) -> object:
    try:
        with watched():
            return modules.run()
    except SyntaxError as error:
        own = error.filename in (None, str(modules.main[1]))
        raise StudyError(
            f"{path if own else error.filename} does not parse: line {error.lineno}: {error.msg}: "
            f"{(error.text or '').strip()}"
        ) from error
    except BaseException as error:
        if isinstance(error, Interrupted) or not raised_by_code(error):
            raise
        text = str(error).replace(f"{modules.name}.", "")
        raise StudyError(
            f"{path} raised{_where(error, modules)}: {type(error).__name__}: {text}"
        ) from error


def _where(error: BaseException, modules: StudyModules) -> str:
    """Name the line of the study, and that of the module it imports, where an error came from."""
    own, line = str(modules.main[1]), ""
    frames = list(traceback.walk_tb(error.__traceback__))
    lines = traceback.extract_tb(error.__traceback__)
    for (frame, _), place in zip(frames, lines, strict=True):
        if study_of(str(frame.f_globals.get("__name__"))) is not modules:
            continue
        if place.filename == own:
            line = f" at line {place.lineno}: {place.line}"
        else:
            line = (
                f"{line.partition(' (')[0]} ({place.filename}, line {place.lineno}: {place.line})"
            )
    return line


def _package(file: Path) -> tuple[Path, str]:
    """Return the folder that holds the package of a file, and the file's name as a module."""
    top, parts = file.parent, [file.stem.replace(".", "_")]
    while (top / "__init__.py").is_file() and top.name.isidentifier():
        parts.insert(0, top.name)
        top = top.parent
    return top, ".".join(parts)


def _project(folder: Path) -> Path | None:
    """Return the root of the project of a folder."""
    for each in (folder, *folder.parents[:-1]):
        if any((each / name).exists() for name in PROJECT):
            return each
    here = Path.cwd()
    return here if folder.is_relative_to(here) and here != Path(here.anchor) else None


def _base(file: Path, root: Path | None) -> Path:
    """Return the folder below which files are the study's: its project, else one above its own."""
    if root is not None:
        return root
    above = file.parent.parent
    shared = {Path.home(), Path(tempfile.gettempdir()).resolve(), Path(file.anchor)}
    return file.parent if above in shared else above

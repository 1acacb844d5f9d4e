"""What a study needs besides its own text: modules that it can import, files that it reads.

Nothing is run here. Imports are followed wherever they stand, in functions as well. A text in the
code that names a file beside it, or a pattern of such files, as `f"weights{k}.pt"` is one, counts
as reading it; what the code opens while it is watched is known besides.
"""

from __future__ import annotations

import ast
import contextlib
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from evometa.study_file.modules import StudyModules

MOST_FILES = 1000  # of a folder, or of a pattern
FOLDER_BYTES = 16 * 2**20
_PLACEHOLDER = re.compile(r"%[-+ #0-9.]*[sdifgr]|\{[^{}]*\}")
_FINDERS = {"__file__", "__path__", "__spec__", "getfile", "get_data", "files", "getsourcefile"}


def needed_files(study: StudyModules, base: Path) -> set[Path]:
    """Return the files that a study needs, its own file among them.

    Args:
        study: the study's modules; it has been run.
        base: files below it are the study's, besides those of its roots.
    """
    search = _Search(study, base)
    search.follow([study.main[1], *study.sources, *study.files])
    return {
        file for file in search.found | study.opened if _is_ones_own(file, [base, *study.roots])
    }


@dataclass
class _Search:
    study: StudyModules
    base: Path
    found: set[Path] = field(default_factory=set)

    def follow(self, files: Iterable[Path]) -> None:
        """Add files, and what the modules among them need."""
        waiting = [*files]
        while waiting:
            file = waiting.pop()
            if file in self.found or not file.is_file():
                continue
            self.found.add(file)
            if file.suffix != ".py":
                continue
            with contextlib.suppress(SyntaxError, ValueError, OSError):
                tree = ast.parse(self.study.sources.get(file) or file.read_bytes())
                waiting += self._imported(file, tree)
                waiting += self._named(file, tree)

    def _imported(self, file: Path, tree: ast.AST) -> Iterator[Path]:
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield from self._modules(alias.name)
            elif isinstance(node, ast.ImportFrom):
                start = f"{node.module}." if node.module else ""
                above = file.parents[node.level - 1] if node.level else None
                for alias in node.names:
                    yield from self._modules(start + alias.name, above)
            elif isinstance(node, ast.Call) and _name(node.func) in ("import_module", "__import__"):
                asked = node.args[0] if node.args else None
                if isinstance(asked, ast.Constant) and isinstance(asked.value, str):
                    name = asked.value
                    dots = len(name) - len(name.lstrip("."))
                    yield from self._modules(name[dots:], file.parents[dots - 1] if dots else None)
                else:  # it may be any of those beside it
                    yield from _all_below(file.parent, "*.py")

    def _modules(self, name: str, above: Path | None = None) -> Iterator[Path]:
        """Yield the files of a module and of the packages that it lies in."""
        parts = name.split(".")
        if above is None and not self.study.owns(parts[0]):
            return
        for folder in self.study.roots if above is None else [above]:
            if above is not None:
                yield folder / "__init__.py"
            for part in parts:
                yield folder / f"{part}.py"
                yield from folder.glob(f"{part}.*.so") if part.isidentifier() else ()
                folder = folder / part
                yield folder / "__init__.py"

    def _named(self, file: Path, tree: ast.AST) -> Iterator[Path]:
        """Yield the files that texts of a module name, alone or behind those that name folders."""
        texts = {text for node in ast.walk(tree) if (text := _text(node))}
        if not _FINDERS & {_name(node) for node in ast.walk(tree)}:
            return
        above = [file.parent, *file.parent.parents]
        folders = [folder for folder in above if folder.is_relative_to(self.base)]
        seen = set(folders)
        for _ in range(3):
            inner = []
            for folder in folders:
                for path in (path for text in texts for path in _matches(folder, text)):
                    if path.is_file():
                        yield path
                    elif path.is_dir() and path not in seen:
                        seen.add(path)
                        inner.append(path)
            folders = inner
            for folder in folders:
                yield from _small_folder(folder)


def _text(node: ast.AST) -> str:
    """Return the text of a node, with stars for what is put into it."""
    if isinstance(node, ast.JoinedStr):
        parts = [v.value if isinstance(v, ast.Constant) else "*" for v in node.values]
        return "".join(map(str, parts))
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return _PLACEHOLDER.sub("*", node.value)
    return ""


def _matches(folder: Path, text: str) -> list[Path]:
    if len(text) > 200 or "\0" in text or "\n" in text or text.startswith(("/", "~")):
        return []
    parts = Path(text).parts
    if not parts or {"..", "**"} & {*parts} or not re.search(r"\w", text):
        return []
    with contextlib.suppress(OSError, ValueError, NotImplementedError):
        if "*" not in text:
            return [folder / text]
        found: list[Path] = []
        for path in folder.glob(text):
            if len(found) == MOST_FILES:
                break
            found.append(path)
        return found
    return []


def _small_folder(folder: Path) -> list[Path]:
    """Return all files of a folder; none where they are too many or too large to be kept."""
    files = _all_below(folder, "*")
    size = sum(file.stat().st_size for file in files)
    return files if len(files) < MOST_FILES and size <= FOLDER_BYTES else []


def _all_below(folder: Path, pattern: str) -> list[Path]:
    found: list[Path] = []
    for path in folder.rglob(pattern):
        if len(found) == MOST_FILES:
            break
        if path.is_file() and _is_ones_own(path, [folder]):
            found.append(path)
    return found


def _name(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    if isinstance(node, ast.alias):
        return node.name
    return node.id if isinstance(node, ast.Name) else ""


def _is_ones_own(file: Path, folders: Iterable[Path]) -> bool:
    """Tell whether a file lies in one of the folders, and is neither hidden nor installed."""
    for folder in folders:
        if file.is_relative_to(folder):
            parts = file.relative_to(folder).parts
            foreign = any(p.startswith(".") or p in ("__pycache__", "site-packages") for p in parts)
            inside = Path(sys.prefix).is_relative_to(folder) and file.is_relative_to(sys.prefix)
            return not foreign and not inside and file.is_file()
    return False

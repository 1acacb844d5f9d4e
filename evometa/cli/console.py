"""Where commands print: the one place that knows what a terminal, a file or a pipe can take.

Texts of a run, of errors, of the network may hold anything, so whatever steers a terminal is shown
as its escape: `\\x1b` of colours and titles, controls, marks that turn the direction of writing. A
sign that the encoding lacks becomes another. Where there is no terminal, no line is cut or broken.
What cannot be written does not end a command: a search goes on behind a closed pipe.
"""

from __future__ import annotations

import codecs
import logging
import os
import re
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleDimensions, ConsoleOptions, RenderableType
from rich.errors import MarkupError
from rich.markup import escape
from rich.segment import Segment
from rich.text import Text

ENDLESS = 100_000  # columns where there is no terminal
_STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)
_SIGNS = {
    "±": "+-",
    "…": "...",
    "★": "*",
    "▲": "^",
    "▼": "v",
    "←": "<-",
    "→": "->",
    "\u00d7": "x",
    "·": "*",
    "∞": "inf",
    "≤": "<=",
    "≥": ">=",
    "\u2013": "-",
    "—": "-",
    "\u2018": "'",
    "\u2019": "'",
    "“": '"',
    "”": '"',
    "∇": "grad ",
    "ₖ": "_k",
    "ᵢ": "_i",
    "²": "^2",
    "√": "sqrt",
    "‖": "||",
    "\u2212": "-",
}
"""What stands for a sign that an encoding lacks; for all others, a question mark."""


def _replacement(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    lacking = error.object[error.start : error.end]
    return "".join(_SIGNS.get(sign, "?") for sign in lacking), error.end


codecs.register_error("evometa", _replacement)


class SafeConsole(Console):
    """A console that prints whatever comes, wherever it goes.

    Attributes:
        lost: why what was printed has not been written; None if all was, or nobody wants it.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(emoji=False, **options)
        self.lost: OSError | None = None

    @property
    def size(self) -> ConsoleDimensions:
        """The terminal's; without one, so wide that nothing must be cut."""
        width, height = super().size
        return ConsoleDimensions(width if self.is_terminal else ENDLESS, height)

    @size.setter
    def size(self, new_size: tuple[int, int]) -> None:
        raise NotImplementedError("a console is as large as its terminal")

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a text as it can be shown; brackets that are no markup are printed as they are."""
        text = self.shown(text)
        try:
            return super().render_str(text, **options)
        except MarkupError:
            return super().render_str(escape(text), **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Yield segments in which nothing of a text steers the terminal."""
        for text, style, control in super().render(renderable, options):
            if control:
                yield Segment(text, style, control)
            else:
                yield Segment(self.shown(text), style and style.update_link(None))

    def shown(self, text: str) -> str:
        """Return a text in which controls are escapes, and signs that the encoding has."""
        text = _STEERING.sub(lambda found: ascii(found[0])[1:-1], text)
        if text.isascii() or self.encoding.startswith("utf"):
            return text
        try:
            return text.encode(self.encoding, "evometa").decode(self.encoding)
        except (LookupError, UnicodeError):
            return text.encode("ascii", "evometa").decode("ascii")

    def data(self, text: str) -> None:
        """Print a text for other programs as it is: JSON, whose controls are escapes already."""
        try:
            if not self.quiet:
                self.file.write(f"{text}\n")
                self.file.flush()
        except BrokenPipeError:
            self.on_broken_pipe()
        except OSError as error:
            self._give_up(error)

    def _check_buffer(self) -> None:
        try:
            super()._check_buffer()
        except OSError as error:  # the disk is full, or the terminal gone
            self._give_up(error)

    def on_broken_pipe(self) -> None:
        """Print no more: who has read it, `head` say, has gone."""
        self._give_up(None)

    def _give_up(self, error: OSError | None) -> None:
        self.lost, self.quiet = error, True
        del self._buffer[:]
        # what is left in Python's own buffer would fail again at the end
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, self.file.fileno())
        except (OSError, ValueError):
            pass
        finally:
            os.close(nowhere)


class _Warnings(logging.Handler):
    """Prints warnings as everything else is printed."""

    def emit(self, record: logging.LogRecord) -> None:
        err.print(self.format(record), markup=False, highlight=False, soft_wrap=True)


out = SafeConsole()
err = SafeConsole(stderr=True)


def prepare() -> None:
    """Let logged warnings and what others print in this process come out like the rest."""
    if not any(isinstance(handler, _Warnings) for handler in logging.root.handlers):
        logging.root.addHandler(_Warnings(logging.WARNING))
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="evometa")

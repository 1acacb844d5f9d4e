"""Plain data from JSON texts of whatever origin: a genome, a rule, the description of a study."""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

from evometa.errors import StoreError

LONGEST_GENOME = 1_000_000  # characters; those of the largest spaces have some ten thousand
DEEPEST = 100  # genomes and studies nest some ten levels; recursion ends at about a thousand
_PERHAPS_INFINITE = re.compile(r"[eE]\+?\d{3}|\d{300}")


def parsed(text: str, what: str) -> Any:
    """Return the plain data of a JSON text.

    Args:
        text: of whatever origin.
        what: the text is, for the message.

    Raises:
        StoreError: if it is no JSON, holds NaN or an infinity, or is nested too deep.
    """
    try:
        value = json.loads(text, parse_constant=_refuse)
    except ValueError as error:
        raise StoreError(f"{what} cannot be read: it is no JSON: {error}") from error
    except RecursionError as error:
        raise StoreError(
            f"{what} cannot be read: it is nested deeper than {DEEPEST} levels"
        ) from error
    if text.count("[") + text.count("{") > DEEPEST or _PERHAPS_INFINITE.search(text):
        _check(value, what)
    return value


def _check(value: Any, what: str) -> None:
    """Raise `StoreError` if a value is nested too deep, or a number in it is not finite."""
    level = [value]
    for _ in range(DEEPEST + 1):
        if any(isinstance(inner, float) and not math.isfinite(inner) for inner in level):
            raise StoreError(f"{what} cannot be read: a number is not finite")
        inside: list[Any] = []
        for inner in level:
            if isinstance(inner, dict | list):
                inside += inner.values() if isinstance(inner, dict) else inner
        if not inside:
            return
        level = inside
    raise StoreError(f"{what} cannot be read: it is nested deeper than {DEEPEST} levels")


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is not finite")

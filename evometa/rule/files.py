"""Rules in files: what `evometa show RUN ID --json` prints, edited by hand or not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evometa.errors import GenomeError, StoreError
from evometa.files import local, oddity
from evometa.plain import parsed
from evometa.rule.canonical import check_update
from evometa.rule.gradient import make_rule
from evometa.space import Primitive


def read_rule(path: Path | str, own: Sequence[Primitive] = ()) -> dict[str, Any]:
    """Return the rule genome of a JSON file.

    Args:
        path: holds the genome of a gradient rule, or a genome with a field `rule`.
        own: primitives of one's own that the update may use.

    Raises:
        GenomeError: if there is no such file, or no rule that can learn in it; with the reason.
    """
    file = local(path)
    try:
        if oddity(file):
            raise GenomeError(f"{path}: a rule must be in a file, but it is {oddity(file)}")
        genome = parsed(file.read_text(encoding="utf-8"), "the rule")
    except OSError as error:
        raise GenomeError(f"{path}: a rule file must exist, got {error.strerror}") from error
    except (StoreError, UnicodeDecodeError) as error:
        raise GenomeError(f"{path}: a rule file must be JSON: {error}") from error
    rule = genome.get("rule", genome) if isinstance(genome, dict) else genome
    if isinstance(rule, dict) and set(rule) == {"gradient"}:
        rule = rule["gradient"]
    if not isinstance(rule, dict):
        raise GenomeError(f"{path}: a rule must be an object of genes, got {type(rule).__name__}")
    try:
        check_update(make_rule(rule, own))
    except (ValueError, TypeError) as error:
        raise GenomeError(f"{path}: {error}") from error
    return rule

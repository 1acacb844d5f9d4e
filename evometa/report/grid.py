"""Tables on whatever is as wide as it is."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

NATURAL = 100_000  # columns, more than any table has


def print_rows(
    console: Console,
    titles: Sequence[str],
    rows: Sequence[tuple[Sequence[str], str]],
    *,
    names: int = 1,
) -> None:
    """Print a table; where the terminal is narrower, a line a cell, so that nothing is cut.

    Args:
        console: where to print.
        titles: of the columns, plain text.
        rows: cells of each row as markup, and its style.
        names: so many columns from the left say what a row is about; the others are numbers.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    for place, title in enumerate(titles):
        justify = "left" if place < names else "right"
        table.add_column(escape(title), justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for cells, style in rows:
        table.add_row(*cells, style=style)
    endless = console.options.update(width=NATURAL)
    if Measurement.get(console, endless, table).maximum <= console.width:
        console.print(table)
        return
    for cells, style in rows:
        console.print(" ".join(cells[:names]), style=style, highlight=False)
        for title, cell in zip(titles[names:], cells[names:], strict=True):
            if cell:
                console.print(f"  {escape(title)}: {cell}", style=style, highlight=False)

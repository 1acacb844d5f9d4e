"""Which row a candidate counts with."""

from __future__ import annotations

import numpy as np
import pyarrow as pa


def highest_rungs(table: pa.Table) -> pa.Table:
    """Return one row a candidate, that of its highest rung, in the order of the table."""
    rung, number = (table[name].to_numpy() for name in ("rung", "number"))
    if not rung.any():
        return table
    order = np.lexsort((rung, number))
    last = np.append(np.diff(number[order]) != 0, True)
    return table.take(pa.array(np.sort(order[last])))

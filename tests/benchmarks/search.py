"""What searchers find within a budget, what they cost, and how busy they keep the workers.

    python -m tests.benchmarks.search                       # everything but what others find
    python -m tests.benchmarks.search --only regret --seeds 100
    python -m tests.benchmarks.search --peers               # run the others again, an hour or so

Problems are in `search_problems`: five synthetic ones of known optimum, two of two objectives, and
a table of 6,480 candidates that were meta-trained for real. The figures of the other libraries do
not change with this one; they are kept in `search_peers.parquet`, with the versions they are of.
"""

from __future__ import annotations

import argparse
import multiprocessing
from importlib.metadata import version
from pathlib import Path

import moocore
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from evometa.records import mean_interval
from tests.benchmarks import search_costs, search_rungs
from tests.benchmarks.search_contenders import able, values_of
from tests.benchmarks.search_problems import FRONTS, SINGLE, Problem

POINTS = (50, 100, 200)
OURS = ("hybrid", "evolution", "mu+lambda", "nsga2", "nsga3", "local", "random")
PEERS = ("Optuna TPE", "Optuna NSGA-II", "Optuna GP", "DEAP mu+lambda")
GP_SEEDS, GP_BUDGET = 10, 100  # a proposal takes up to a second
KEPT = Path(__file__).with_name("search_peers.parquet")
PROBLEMS = {make().name: make for make in (*SINGLE, *FRONTS)}


def measure(job: tuple[str, str, int, int]) -> list[float]:
    """Return regrets, or hypervolumes as shares of the best known, at each of `POINTS`."""
    contender, name, seed, budget = job
    problem = PROBLEMS[name]()
    found = values_of(contender, problem, seed, budget)
    points = [point for point in POINTS if point <= budget]
    return [_after(problem, found[:point]) for point in points]


def _after(problem: Problem, found: list[tuple[tuple[float, ...], tuple[float, ...]]]) -> float:
    true = np.array([values for _, values in found])
    if problem.reference:
        return float(moocore.hypervolume(true, ref=problem.reference))
    chosen = int(np.argmin([shown[0] for shown, _ in found]))  # as its user would choose
    return float(true[chosen, 0] - problem.best)


def run(contenders: tuple[str, ...], names: list[str], seeds: int, workers: int) -> list[dict]:
    """Return one row a contender, problem and seed."""
    rows = []
    with multiprocessing.Pool(workers) as pool:
        for name in names:
            for contender in contenders:
                if not able(contender, PROBLEMS[name]().space):
                    continue
                slow = contender == "Optuna GP"
                count, budget = (GP_SEEDS, GP_BUDGET) if slow else (seeds, POINTS[-1])
                jobs = [(contender, name, seed, budget) for seed in range(count)]
                for seed, values in enumerate(pool.imap(measure, jobs)):
                    row = {"contender": contender, "problem": name, "seed": seed}
                    cells = zip(POINTS, values, strict=False)
                    rows.append({**row, **{f"at_{point}": value for point, value in cells}})
                print(f"  {name}: {contender}", end="\r", flush=True)
    return rows


def print_problem(name: str, rows: list[dict]) -> None:
    """Print means and 95% intervals over seeds, the best and those within its interval marked."""
    front = bool(PROBLEMS[name]().reference)
    print(f"\n| {name}{', hypervolume' if front else ', regret'} | seeds | ", end="")
    print(" | ".join(f"after {point}" for point in POINTS) + " |")
    print("|---" * (len(POINTS) + 2) + "|")
    contenders = list(dict.fromkeys(row["contender"] for row in rows))
    cells: dict[str, list[tuple[float, float] | None]] = {}
    for contender in contenders:
        mine = [row for row in rows if row["contender"] == contender]
        columns = [[row.get(f"at_{p}") for row in mine] for p in POINTS]
        cells[contender] = [mean_interval(c) if None not in c else None for c in columns]
    sign = -1 if front else 1
    best = [min((sign * c[k][0], c[k][1]) for c in cells.values() if c[k]) for k in range(3)]
    for contender in contenders:
        count = sum(row["contender"] == contender for row in rows)
        texts = []
        for cell, (value, half) in zip(cells[contender], best, strict=True):
            if cell is None:
                texts.append("")
                continue
            mark = "**" if sign * cell[0] - cell[1] <= value + half else ""
            texts.append(f"{mark}{cell[0]:.4f} ± {cell[1]:.4f}{mark}")
        print(f"| {contender} | {count} | {' | '.join(texts)} |")


def bench_regret(names: list[str], seeds: int, workers: int, ours: tuple[str, ...]) -> None:
    kept = pq.read_table(KEPT).to_pylist() if KEPT.exists() else []
    for name in names:
        rows = run(ours, [name], seeds, workers)
        print_problem(name, rows + [row for row in kept if row["problem"] == name])


def keep_peers(names: list[str], seeds: int, workers: int, peers: tuple[str, ...]) -> None:
    rows = pq.read_table(KEPT).to_pylist() if KEPT.exists() else []
    rows = [r for r in rows if r["problem"] not in names or r["contender"] not in peers]
    for name in names:
        rows += run(peers, [name], seeds, workers)
        table = pa.Table.from_pylist(rows)
        made_with = {lib: version(lib) for lib in ("optuna", "deap")}
        pq.write_table(table.replace_schema_metadata(made_with), KEPT, compression="zstd")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parts = ("regret", "rungs", "cost", "utilisation", "scale")
    parser.add_argument("--only", choices=parts)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--problems", nargs="*", default=list(PROBLEMS))
    parser.add_argument("--searchers", nargs="*", default=list(OURS))
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--peers", nargs="*", default=None, help="run these, or all, again")
    args = parser.parse_args()
    if args.peers is not None:
        keep_peers(args.problems, args.seeds, args.workers, tuple(args.peers) or PEERS)
        return
    wanted = [args.only] if args.only else list(parts)
    if "regret" in wanted:
        bench_regret(args.problems, args.seeds, args.workers, tuple(args.searchers))
    if "rungs" in wanted:
        search_rungs.bench(min(args.seeds, 100))
    if "cost" in wanted:
        search_costs.bench_cost()
    if "utilisation" in wanted:
        search_costs.bench_utilisation()
    if "scale" in wanted:
        search_costs.bench_scale()


if __name__ == "__main__":
    main()

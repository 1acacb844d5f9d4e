"""Tables across runs and versions, where they came from, and the schema's documentation."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import evometa
from evometa.errors import StoreError
from evometa.records import Candidate, Evaluation, Status, repeat_seed
from evometa.space import gene_value
from evometa.store import RunDirectory, Writer, evaluations, make_schema
from evometa.store.schema import COLUMNS, VERSION

SCHEMA = make_schema({"a": int}, ["loss"])
ADDED_LATER = [column.name for column in COLUMNS if column.since > 1]


def evaluation(number, **changes):
    candidate = Candidate(number, {"a": number}, number, operator="random", searcher="random")
    made = Evaluation(candidate, Status.OK, {"loss": number / 3}, (0.5, float(number)), ((1, 2.0),))
    return replace(made, **changes)


def write(path, numbers, study=None):
    study = {} if study is None else study
    with RunDirectory.create(path, study, "") as run, Writer(run, SCHEMA, gene_value) as writer:
        for number in numbers:
            writer.append(evaluation(number), number)


def make_old(run):
    """Write a run's parts again as version 1 wrote them."""
    for path in (run / "evaluations").iterdir():
        table = pq.read_table(path).drop_columns(ADDED_LATER)
        pq.write_table(table.replace_schema_metadata({"evometa.schema": "1"}), path)


def test_older_rows_are_read_as_todays(tmp_path):
    write(tmp_path / "run", range(3))
    new = evometa.load(tmp_path / "run")
    make_old(tmp_path / "run")
    old = evometa.load(tmp_path / "run")
    assert set(old.column_names) == set(new.column_names)
    assert old.select(new.column_names).schema.types == new.schema.types
    assert list(evaluations(old)) == [evaluation(number) for number in range(3)]
    assert evometa.load(tmp_path / "run", columns=["note"])["note"].to_pylist() == [""] * 3


def test_a_run_may_go_on_under_a_newer_version(tmp_path):
    run = tmp_path / "run"
    write(run, range(3))
    make_old(run)
    with RunDirectory.open(run) as held, Writer(held, SCHEMA, gene_value) as writer:
        writer._most_parts = 1
        writer.append(evaluation(3), 3)
    (part,) = (run / "evaluations").glob("part-*.parquet")
    assert pq.read_schema(part).metadata[b"evometa.schema"] == str(VERSION).encode()
    assert list(evaluations(evometa.load(run))) == [evaluation(number) for number in range(4)]


def test_newer_rows_are_refused(tmp_path):
    write(tmp_path / "run", range(1))
    (path,) = (tmp_path / "run" / "evaluations").iterdir()
    newer = {"evometa.schema": str(VERSION + 1)}
    pq.write_table(pq.read_table(path).replace_schema_metadata(newer), path)
    with pytest.raises(StoreError, match=f"schema version {VERSION + 1}.*install"):
        evometa.load(tmp_path / "run")


def test_several_runs_are_one_table(tmp_path):
    write(tmp_path / "one", range(3))
    write(tmp_path / "two", range(2))
    make_old(tmp_path / "two")
    both = evometa.load(tmp_path / "one", str(tmp_path / "two"))
    assert both["run"].to_pylist() == ["one"] * 3 + ["two"] * 2
    best = both.group_by("run").aggregate([("loss", "min")])
    assert best.to_pylist() == [
        {"run": "one", "loss_min": 0.0},
        {"run": "two", "loss_min": 0.0},
    ]
    few = evometa.load(tmp_path / "one", tmp_path / "two", columns=["loss"])
    assert few.column_names == ["run", "loss"]
    with pytest.raises(StoreError, match="each run must be given once"):
        evometa.load(tmp_path / "one", tmp_path / "one")


def test_runs_of_one_name_are_told_apart(tmp_path):
    for folder in ("x", "y"):
        write(tmp_path / folder / "run", range(1))
    both = evometa.load(tmp_path / "x" / "run", tmp_path / "y" / "run")
    assert both["run"].to_pylist() == [str(tmp_path / folder / "run") for folder in "xy"]


def test_columns_and_runs_that_are_not_there_are_named(tmp_path):
    write(tmp_path / "run", range(1))
    with pytest.raises(StoreError, match="no column 'los'; it has .*loss"):
        evometa.load(tmp_path / "run", columns=["los"])
    with pytest.raises(StoreError, match="no folder evaluations"):
        evometa.load(tmp_path)


def test_an_empty_run_has_its_columns(tmp_path):
    write(tmp_path / "run", [])
    assert len(evometa.load(tmp_path / "run")) == 0
    table = evometa.load(tmp_path / "run", columns=["status", "loss"])
    assert table.column_names == ["status", "loss"] and len(table) == 0


def test_torn_parts_are_left_out(tmp_path):
    write(tmp_path / "run", range(2))
    (tmp_path / "run" / "evaluations" / "part-000009.parquet").write_bytes(b"PAR1 torn")
    assert evometa.load(tmp_path / "run", columns=["number"])["number"].to_pylist() == [0, 1]


def test_rows_keep_the_order_of_telling_and_one_a_rung(tmp_path):
    run = tmp_path / "run"
    write(run, [])
    # number, rung, repeat, place
    told = [(2, 0, 0, 0), (0, 0, 0, 1), (2, 1, 0, 2), (1, 0, 0, 3), (2, 1, 1, 4), (0, 0, 0, 5)]
    with RunDirectory.open(run) as held, Writer(held, SCHEMA, gene_value) as writer:
        for number, rung, repeat, place in reversed(told):
            candidate = replace(evaluation(number).candidate, rung=rung, repeat=repeat)
            writer.append(evaluation(number, candidate=candidate), place)
    rows = evometa.load(run, columns=["number", "rung", "repeat", "told"]).to_pylist()
    assert [tuple(row.values()) for row in rows] == told[:-1]


def test_parts_say_where_they_came_from(tmp_path):
    repository = tmp_path / "studies"
    repository.mkdir()
    study = repository / "study.py"
    study.write_text("study = None\n")

    def git(*arguments):
        name = ("-c", "user.name=A", "-c", "user.email=a@b.example")
        command = ["git", "-C", str(repository), *name, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "one")
    said = {
        "file": str(study),
        "file_sha256": "12ab",
        "task": {"name": "Omniglot", "archives": "34cd"},
    }
    write(tmp_path / "clean", range(1), said)
    study.write_text("study = 1\n")
    write(tmp_path / "dirty", range(1), said)
    write(tmp_path / "outside", range(1), {"file": str(tmp_path / "study.py")})

    def origins(run):
        return json.loads(evometa.load(tmp_path / run).schema.metadata[b"evometa.provenance"])

    (clean,), (dirty,), (outside,) = map(origins, ("clean", "dirty", "outside"))
    assert clean["commit"] == git("rev-parse", "HEAD") and clean["dirty"] is False
    assert dirty["dirty"] is True and outside["commit"] is None
    assert clean["file_sha256"] == "12ab" and clean["task"] == said["task"]
    assert {"python", "evometa", "torch", "ray", "pyarrow"} <= set(clean["versions"])


def test_every_column_is_documented():
    """The README's table is the list of columns, sentence by sentence."""
    text = (Path(evometa.store.__file__).parent / "README.md").read_text()
    words = {pa.list_(pa.string()): "list of string", pa.list_(pa.float64()): "list of double"}
    words |= {pa.timestamp("us", "UTC"): "timestamp, UTC"}
    for column in COLUMNS:
        kind = words.get(column.type, "word" if pa.types.is_dictionary(column.type) else None)
        kind = "list of (iteration, loss)" if column.name == "curve" else kind or str(column.type)
        since = f" (since version {column.since})" if column.since > 1 else ""
        assert f"| `{column.name}` | {kind} | {column.text}{since} |" in text
    assert f"version {VERSION}" in text


KEPT = {  # study.json of version 2: two rungs, and two further seeds as rungs of their own
    "schema": 2,
    "metrics": ["loss"],
    "constraints": ["loss <= 1"],
    "levels": [{"iterations": n, "seed": seed} for n, seed in ((3, 0), (9, 0), (9, 1), (9, 2))],
    "earlier": {"seeds": {"earlier:runs/x/c000007": {"a": 7}}, "results": [], "skipped": 0},
}


def make_version_2(run, rows):
    """Write a run as version 2 wrote it, from number, rung, operator and status."""
    write(run, [], KEPT)
    made = []
    with RunDirectory.open(run) as held, Writer(held, SCHEMA, gene_value) as writer:
        for told, (number, rung, operator, status) in enumerate(rows):
            candidate = replace(evaluation(number).candidate, rung=rung, operator=operator)
            metrics = {"loss": number / 2} if status is Status.OK else {}
            made.append(evaluation(number, candidate=candidate, status=status, metrics=metrics))
            writer.append(made[-1], told)
    (path,) = (run / "evaluations").iterdir()
    table = pq.read_table(path).drop_columns(["repeat", "name", "violation"])
    pq.write_table(table.replace_schema_metadata({"evometa.schema": "2"}), path)


OLD_ROWS = [
    (0, 0, "seed:MAML: slow", Status.OK),
    (1, 0, "seed:seed:x", Status.OK),
    (2, 0, "earlier:runs/x/c000007", Status.OK),
    (3, 0, "mutate", Status.ERROR),
    (0, 1, "seed:MAML: slow", Status.OK),
    (4, 1, "mutate", Status.OK),
    (0, 2, "seed:MAML: slow", Status.OK),
    (0, 3, "seed:MAML: slow", Status.OK),
]


def test_rungs_prefixes_and_constraints_of_version_2_are_read_as_todays(tmp_path):
    run = tmp_path / "run"
    make_version_2(run, OLD_ROWS)
    found = [each.candidate for each in evaluations(evometa.load(run))]
    keys = [(0, 0, 0), (1, 0, 0), (2, 0, 0), (3, 0, 0), (0, 1, 0), (4, 1, 0), (0, 1, 1), (0, 1, 2)]
    assert [each.key for each in found] == keys
    names = [(each.operator, each.name) for each in found]
    maml = ("baseline", "MAML: slow")
    assert names[:4] == [
        maml,
        ("baseline", "seed:x"),
        ("earlier", "runs/x/c000007"),
        ("mutate", ""),
    ]
    assert names[4:] == [maml, ("mutate", ""), maml, maml]
    assert [each.seed for each in found[-2:]] == [repeat_seed(0, 1), repeat_seed(0, 2)]
    broken = evometa.load(run, columns=["violation"])["violation"].to_pylist()
    assert broken == [0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0]
    study = RunDirectory.read(run)
    assert study["levels"] == [{"iterations": 3}, {"iterations": 9}] and study["seeds"] == 3
    assert study["earlier"]["seeds"] == {"runs/x/c000007": {"a": 7}}


def test_a_run_of_version_2_goes_on_and_is_recalled_by_its_new_key(tmp_path):
    run = tmp_path / "run"
    make_version_2(run, OLD_ROWS)
    before = list(evaluations(evometa.load(run)))
    with RunDirectory.open(run) as held, Writer(held, SCHEMA, gene_value) as writer:
        assert writer.recall(0, 1, 2) == before[-1]
        writer._most_parts = 1
        writer.append(evaluation(9), 8)
    (part,) = (run / "evaluations").glob("part-*.parquet")
    assert pq.read_schema(part).metadata[b"evometa.schema"] == str(VERSION).encode()
    assert list(evaluations(evometa.load(run))) == [*before, evaluation(9)]


def test_a_metric_that_is_now_a_column_is_not_mistaken_for_it(tmp_path):
    run = tmp_path / "run"
    make_version_2(run, OLD_ROWS[:1])
    kept = {**KEPT, "metrics": ["loss", "violation"]}
    (run / "study.json").write_text(json.dumps(kept))
    with pytest.raises(StoreError, match="a metric 'violation', which is a column of its own"):
        evometa.load(run)


def test_a_table_is_what_others_take(tmp_path):
    write(tmp_path / "run", range(2))
    table = evometa.load(tmp_path / "run")
    assert isinstance(table, pa.Table)
    assert table.to_pandas()["loss"].tolist() == table["loss"].to_pylist()


def test_frames_are_a_call_away(tmp_path):
    polars = pytest.importorskip("polars")
    write(tmp_path / "run", range(3))
    table = evometa.load(tmp_path / "run")
    assert polars.from_arrow(table)["loss"].to_list() == table["loss"].to_pylist()

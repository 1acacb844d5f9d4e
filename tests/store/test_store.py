"""The table is the truth: round trips, torn parts, full disks, killed writers."""

import math
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evometa.errors import StoreError
from evometa.records import Candidate, Evaluation, Status
from evometa.space import gene_value
from evometa.store import RunDirectory, Writer, evaluations, make_schema, read_table, repair
from evometa.store import writer as writer_module

SCHEMA = make_schema({"a": int, "b": float, "c": str}, ["loss", "params"])
STUDY = {"objectives": {"loss": "min"}}
SOURCE = "study = None\n"


def evaluation(number, **changes):
    genome = {"a": number, "b": number / 7, "c": "x"}
    made = Evaluation(
        Candidate(number, genome, seed=number, operator="random", searcher="random"),
        Status.OK,
        {"loss": 1 / (1 + number), "params": 10.0},
        scores=(0.1, number / 3),
        curve=((1, 2.0), (2, 1.5)),
        node="here",
        started_at=1_700_000_000.25,
    )
    return replace(made, **changes)


def write(path, numbers, **changes):
    with RunDirectory.create(path, STUDY, SOURCE) as run, Writer(run, SCHEMA, gene_value) as writer:
        for number in numbers:
            writer.append(evaluation(number, **changes), number)
            writer.flush()


def numbers_in(path):
    return read_table(path)["number"].to_pylist()


texts = st.text(max_size=20)
finite = st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(list(Status)),
    texts,
    st.lists(texts, max_size=3),
    st.lists(finite, max_size=4),
    st.dictionaries(st.sampled_from(["loss", "params"]), finite),
    st.integers(0, 2**63 - 1),
)
def test_what_is_written_is_read(tmp_path_factory, status, text, parents, scores, metrics, seed):
    path = tmp_path_factory.mktemp("runs") / "run"
    genome = {"a": 3, "b": 0.1, "c": text}
    more = {"operator": text, "searcher": "s", "name": text, "rung": 1, "repeat": 2}
    candidate = Candidate(7, genome, seed, parents=tuple(parents), **more)
    original = Evaluation(
        candidate,
        status,
        metrics,
        tuple(scores),
        ((1, 0.5),),
        tuple(scores),
        error=text,
        note=text,
        started_at=12.5,
        violation=0.25,
    )
    with RunDirectory.create(path, STUDY, SOURCE) as run, Writer(run, SCHEMA, gene_value) as writer:
        writer.append(original, 7)
    table = read_table(path)
    assert list(evaluations(table)) == [original]
    assert table["gene.c"].to_pylist() == [text]
    assert table.schema.metadata[b"evometa.schema"] == b"3"


def test_rows_come_back_in_the_order_of_telling(tmp_path):
    write(tmp_path / "run", [4, 0, 2, 1, 3])
    assert numbers_in(tmp_path / "run") == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("damage", [b"", b"PAR1", b"garbage" * 50, "truncate"])
def test_broken_parts_are_set_aside_and_the_rest_is_read(tmp_path, damage, caplog):
    run = tmp_path / "run"
    write(run, range(4))
    part = run / "evaluations" / "part-000002.parquet"
    part.write_bytes(part.read_bytes()[:-20] if damage == "truncate" else damage)
    assert numbers_in(run) == [0, 1, 3]
    assert part.exists(), "reading changes nothing"
    assert "part-000002" in caplog.text
    assert repair(run) == [run / "set-aside" / "part-000002.parquet"]
    assert not part.exists()
    assert numbers_in(run) == [0, 1, 3]


def test_unfinished_files_are_ignored(tmp_path):
    run = tmp_path / "run"
    write(run, range(2))
    (run / "evaluations" / ".part-000009.parquet.tmp").write_bytes(b"half")
    assert numbers_in(run) == [0, 1]


def test_parts_are_merged_and_nothing_is_lost(tmp_path):
    run = tmp_path / "run"
    write(run, range(150))
    assert numbers_in(run) == list(range(150))
    assert len(list((run / "evaluations").iterdir())) <= writer_module.PARTS_AT_REST


def test_a_row_is_rewritten_a_few_times_only(tmp_path, monkeypatch):
    monkeypatch.setattr(writer_module, "MOST_PARTS", 8)
    written = []
    whole = Writer._write
    monkeypatch.setattr(
        Writer,
        "_write",
        lambda self, path, table: (written.append(len(table)), whole(self, path, table)),
    )
    run = tmp_path / "run"
    write(run, range(300))
    assert numbers_in(run) == list(range(300))
    assert sum(written) < 300 * 6
    assert len(list((run / "evaluations").iterdir())) <= writer_module.PARTS_AT_REST


def test_no_merge_is_long(tmp_path, monkeypatch):
    """What is merged at once does not grow with the table, nor how often a row is written."""
    monkeypatch.setattr(writer_module, "MOST_PARTS", 8)
    monkeypatch.setattr(writer_module, "LARGE", 16)
    written = []
    whole = Writer._write
    monkeypatch.setattr(
        Writer,
        "_write",
        lambda self, path, table: (written.append(len(table)), whole(self, path, table)),
    )
    run = tmp_path / "run"
    write(run, range(600))
    assert numbers_in(run) == list(range(600))
    assert 16 < max(written) <= 3 * 16 and sum(written) < 600 * 4
    assert 600 / max(written) <= len(list((run / "evaluations").iterdir())) <= 600 / 16 + 8


def test_a_failure_between_merging_and_deleting_does_no_harm(tmp_path, monkeypatch, caplog):
    run = tmp_path / "run"
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: (_ for _ in ()).throw(OSError))
    write(run, range(70))
    monkeypatch.undo()
    assert "stay as they are" in caplog.text
    assert numbers_in(run) == list(range(70))


def test_a_part_that_tore_meanwhile_does_not_stop_the_search(tmp_path):
    run = tmp_path / "run"
    with (
        RunDirectory.create(run, STUDY, SOURCE) as held,
        Writer(held, SCHEMA, gene_value) as writer,
    ):
        for number in range(100):
            writer.append(evaluation(number), number)
            writer.flush()
            if number == 5:
                (run / "evaluations" / "part-000003.parquet").write_bytes(b"")
    assert numbers_in(run) == [n for n in range(100) if n != 3]


def test_odd_characters_and_numbers_do_not_jam_the_writer(tmp_path):
    run = tmp_path / "run"
    odd = Candidate(0, {"a": 2**70, "b": 0.5, "c": "\ud800"}, seed=0)
    with (
        RunDirectory.create(run, STUDY, SOURCE) as held,
        Writer(held, SCHEMA, gene_value) as writer,
    ):
        writer.append(evaluation(0, candidate=odd, error="bad \udcff text"), 0)
        writer.append(evaluation(1), 1)
    first, _ = evaluations(read_table(run))
    assert first.candidate == odd
    assert first.error == "bad \\udcff text"


def test_what_the_system_refuses_is_not_set_aside(tmp_path, monkeypatch):
    run = tmp_path / "run"
    write(run, range(2))

    def refuse(*_, **__):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("evometa.store.reader.pq.ParquetFile", refuse)
    for call in (repair, read_table):
        with pytest.raises(StoreError, match="Too many open files"):
            call(run)
    monkeypatch.undo()
    assert numbers_in(run) == [0, 1]


def test_set_aside_parts_are_kept_apart(tmp_path):
    run = tmp_path / "run"
    write(run, range(2))
    for damage in (b"one", b"two"):
        (run / "evaluations" / "part-000001.parquet").write_bytes(damage)
        repair(run)
    assert {path.read_bytes() for path in (run / "set-aside").iterdir()} == {b"one", b"two"}


def test_recall_finds_old_and_waiting_rows(tmp_path):
    with (
        RunDirectory.create(tmp_path / "run", STUDY, SOURCE) as run,
        Writer(run, SCHEMA, gene_value) as writer,
    ):
        for number in range(3):
            writer.append(evaluation(number), number)
        assert writer.recall(1, 0, 0) == evaluation(1)
        with pytest.raises(StoreError, match="no evaluation of candidate 9 at rung 0"):
            writer.recall(9, 0, 0)


def test_a_full_disk_is_named_and_the_rows_wait(tmp_path, monkeypatch):
    run = tmp_path / "run"
    with RunDirectory.create(run, STUDY, SOURCE) as directory:
        writer = Writer(directory, SCHEMA, gene_value)
        writer.append(evaluation(0), 0)
        writer.flush()
        monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space")))
        with pytest.raises(StoreError, match=r"No space.*evometa resume"):
            for number in range(1, 500):
                writer.append(evaluation(number), number)
        assert sorted(p.name for p in (run / "evaluations").iterdir()) == ["part-000000.parquet"]
        monkeypatch.undo()
        writer.close()
    assert numbers_in(run) == list(range(256 + 1))


WRITER = """
import sys
from pathlib import Path
from tests.store.test_store import *
run = Path(sys.argv[1])
with RunDirectory.create(run, STUDY, SOURCE) as directory:
    writer = Writer(directory, SCHEMA, gene_value)
    print("ready", flush=True)
    for number in range(100000):
        writer.append(evaluation(number), number)
        if number % 5 == 0:
            writer.flush()
"""


@pytest.mark.slow
def test_a_killed_writer_leaves_a_whole_prefix(tmp_path):
    chance = random.Random(0)
    for attempt in range(5):
        run = tmp_path / f"run{attempt}"
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(run)],
            env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
            stdout=subprocess.PIPE,
        )
        process.stdout.readline()
        time.sleep(chance.uniform(0.05, 1.0))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        found = numbers_in(run)
        assert found == list(range(len(found)))
        with RunDirectory.open(run):  # the lock went with the process
            assert repair(run) == []


@pytest.mark.slow
def test_a_really_limited_disk(tmp_path):
    code = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))\n" + (
        textwrap.dedent(WRITER).replace("number % 5 == 0", "number == 40")
    )
    code = "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n" + code
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "run")],
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert "StoreError" in result.stderr and "cannot be written" in result.stderr
    assert not list((tmp_path / "run" / "evaluations").glob(".*"))


def test_a_run_that_exists_is_refused(tmp_path):
    write(tmp_path / "run", [0])
    with pytest.raises(StoreError, match="evometa resume"):
        RunDirectory.create(tmp_path / "run", STUDY, SOURCE)


def test_a_run_whose_making_was_cut_short_is_made(tmp_path):
    run = tmp_path / "run"
    for left in ("evaluations", "weights"):
        (run / left).mkdir(parents=True)
        write(run, [0])
        shutil.rmtree(run)
    for left in ("study.py", ".study.py.tmp", ".study.json.tmp"):
        (run / "evaluations").mkdir(parents=True)
        (run / left).write_text("half of")
        write(run, [0])
        assert numbers_in(run) == [0] and RunDirectory.read(run) == STUDY
        shutil.rmtree(run)
    for other in ("notes.txt", "evaluations/part-000000.parquet", "weights/c000000.safetensors"):
        (run / other).parent.mkdir(parents=True)
        (run / other).touch()
        with pytest.raises(StoreError, match="exists"):
            write(run, [0])
        shutil.rmtree(run)


def test_a_second_driver_is_refused(tmp_path):
    with (
        RunDirectory.create(tmp_path / "run", STUDY, SOURCE),
        pytest.raises(StoreError, match=f"another driver works on .*process {os.getpid()}"),
    ):
        RunDirectory.open(tmp_path / "run")
    with RunDirectory.open(tmp_path / "run") as run:
        assert run.study == STUDY


def test_no_run_is_named(tmp_path):
    for call in (RunDirectory.open, read_table):
        with pytest.raises(StoreError, match="run directory"):
            call(tmp_path)
    (tmp_path / "study.json").write_text("{")
    with pytest.raises(StoreError, match="study.json cannot be read"):
        RunDirectory.open(tmp_path)


def test_columns_that_clash_are_refused():
    with pytest.raises(StoreError, match="'seconds'"):
        make_schema({}, ["seconds"])


def test_nan_never_becomes_a_genome(tmp_path):
    with (
        RunDirectory.create(tmp_path / "run", STUDY, SOURCE) as run,
        Writer(run, SCHEMA, gene_value) as writer,
        pytest.raises(ValueError, match="JSON compliant"),
    ):
        writer.append(evaluation(0, candidate=Candidate(0, {"a": math.nan}, 0)), 0)


@pytest.mark.parametrize("reader", ["polars", "pandas", "duckdb"])
def test_others_open_the_parts(tmp_path, reader):
    library = pytest.importorskip(reader)
    write(tmp_path / "run", range(5))
    pattern = str(tmp_path / "run/evaluations/*.parquet")
    if reader == "polars":
        assert len(library.read_parquet(pattern)) == 5
    elif reader == "pandas":
        assert len(library.read_parquet(tmp_path / "run/evaluations")) == 5
    else:
        query = f"select min(loss) from '{pattern}' where status = 'OK'"
        assert library.connect().execute(query).fetchone()[0] == pytest.approx(0.2)

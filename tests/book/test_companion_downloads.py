"""The tables for download hold every number of the committed runs, and say what each one is."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet
import pytest

import companion_downloads
from companion_downloads import MEANINGS, RUNS, committed_runs, load_dictionary
from companion_numbers import Entry, describing, found_in, numbers
from companion_speed import benchmark_rows, benchmarks, run_times
from tests.book.tiny_book import make_book, make_run
from tests.repository import ROOT

ACCURACY = "accuracy.jepa, last block.linear"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_book(tmp_path)
    make_run(tmp_path, "demo/01_pretrain/jepa-seed0")
    return tmp_path


def leaves(value: object) -> int:
    """Numbers in a JSON value, counted without the code under test; an interval is none."""
    if isinstance(value, dict):
        return sum(leaves(part) for name, part in value.items() if name != "interval")
    if isinstance(value, list):
        return sum(leaves(part) for part in value)
    return isinstance(value, int | float)


def test_every_number_of_every_committed_run_is_a_row():
    """No more and no fewer than the files hold."""
    runs = committed_runs(ROOT)
    found = list(numbers(runs, []))
    for run in runs:
        rows = [number for number in found if number.run == run.id]
        assert len(rows) == leaves(run.read("results.json"))
        assert len({number.key for number in rows}) == len(rows)


def test_the_dictionary_describes_every_committed_number():
    """A chapter that keeps a new number says what it is in book/data_dictionary.yml."""
    entries = load_dictionary(ROOT)
    unknown = {
        f"{run.notebook}:{key}"
        for run in committed_runs(ROOT)
        for key, *_ in found_in(run.read("results.json"))
        if describing(run.notebook, key, entries) is None
    }
    assert unknown == set()


def test_intervals_lists_words_and_truth_values():
    """A value with an interval is one number; words and nulls are none."""
    results = {
        "a": {"value": 0.5, "interval": [0.4, 0.6], "seeds": 3, "basis": "seeds"},
        "b": [1, {"c": True}, None],
        "d": {"value": "word"},
    }
    assert list(found_in(results)) == [
        ("a", 0.5, (0.4, 0.6)),
        ("a.seeds", 3.0, None),
        ("b.0", 1.0, None),
        ("b.1.c", 1.0, None),
    ]


def test_the_first_entry_that_fits_gives_the_unit():
    """Patterns are of notebook and key."""
    entries = [Entry("x:a.*", "nats", ""), Entry("*:a.b", "bits", ""), Entry("*", "", "")]
    assert [describing(n, "a.b", entries).unit for n in ("x", "y")] == ["nats", "bits"]
    assert describing("x", "b", entries[:2]) is None


def test_both_files_say_the_same(root: Path):
    """Committed runs alone; what is empty in CSV is null in Parquet."""
    app = SimpleNamespace(srcdir=root, outdir=root / "site", builder=SimpleNamespace(format="html"))
    app.outdir.mkdir()
    companion_downloads.write_tables(app, None)
    with (app.outdir / "downloads" / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    table = pyarrow.parquet.read_table(app.outdir / "downloads" / "results.parquet")
    assert table.column_names == list(rows[0]) == ["run", "key", "value", "low", "high", "unit"]
    assert {row["run"].split("/")[0] for row in rows} == {"reference"}
    as_text = [
        {name: "" if value is None else str(value) for name, value in row.items()}
        for row in table.to_pylist()
    ]
    assert as_text == rows
    (row,) = (r for r in rows if r["key"] == ACCURACY and "/jepa-seed0" in r["run"])
    assert (row["value"], row["low"], row["high"]) == ("0.27", "0.261", "0.279")


def test_a_failed_build_writes_nothing(root: Path):
    """Neither does one into another format."""
    app = SimpleNamespace(srcdir=root, outdir=root, builder=SimpleNamespace(format="html"))
    companion_downloads.write_tables(app, ValueError())
    app.builder.format = "latex"
    companion_downloads.write_tables(app, None)
    assert not (root / "downloads").exists()


def test_the_page_lists_runs_and_meanings(root: Path):
    """Each committed run with its files; the real page has the markers and the columns."""
    app = SimpleNamespace(
        srcdir=root,
        config=SimpleNamespace(companion_runs={"notebooks/01_pretrain": "reference/a/b"}),
        env=SimpleNamespace(found_docs=set(), note_reread=lambda: None),
    )
    (root / "book" / "data_dictionary.yml").write_text('- {keys: "*", unit: s, meaning: "a | b"}')
    source = [f"{RUNS}\n\n{MEANINGS}\n"]
    companion_downloads.show_downloads(app, "book/downloads", source)
    run = "/book/runs/reference/01_pretrain/jepa-seed0"
    assert f"{{download}}`results.json <{run}/results.json>`" in source[0]
    assert f"{{download}}`curves.png <{run}/figures/curves.png>`" in source[0]
    assert "demo" not in source[0] and "a \\| b" in source[0]
    page = (ROOT / "book" / "downloads.md").read_text()
    assert page.splitlines().count(RUNS) == page.splitlines().count(MEANINGS) == 1


def test_times_come_from_manifests(root: Path):
    """With the hardware of each run; a run without a speed leaves that cell empty."""
    table = run_times(committed_runs(root), {}).replace("\\", "")
    assert "2 min 5 s of training, kept or made in it; at most 1.2 GB of memory" in table
    assert "A_CPU*, 2 cores, 2 threads, no GPU, Linux" in table


def test_benchmarks_are_ratios_to_the_first(tmp_path: Path):
    """With date and hardware; without a file the page says so."""
    assert "No result" in benchmarks(tmp_path / "benchmarks.json")
    table = {"title": "masks", "items": 64, "seconds": {"a loop": 0.5, "ours": 0.125}}
    assert benchmark_rows(table) == [("a loop", "128", "1\\.0"), ("ours", "512", "4\\.0")]
    path = tmp_path / "benchmarks.json"
    kept = {"date": "2026-01-02", "hardware": {"cpu": "X", "cores": 2}, "tables": [table]}
    path.write_text(json.dumps(kept))
    shown = benchmarks(path).replace("\\", "")
    assert "Measured 2026-01-02 on X, 2 cores, no GPU." in shown and "**masks**" in shown

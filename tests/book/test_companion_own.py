"""The page of the reader's own runs, with and without such runs."""

import shutil
from pathlib import Path

import pytest

from companion_files import run_from_id
from companion_own import MARKER, accuracy_table, own_runs_page, single_values
from tests.book.tiny_book import make_book, make_run, write_json
from tests.repository import ROOT


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_book(tmp_path)
    return tmp_path


def test_the_page_has_the_marker_once():
    """Without it nothing would be shown."""
    lines = (ROOT / "book" / "your_runs.md").read_text().splitlines()
    assert lines.count(MARKER) == 1


def test_without_runs_the_page_says_how_to_make_some(root: Path):
    """Committed runs are not the reader's own."""
    page = own_runs_page(root, f"# Title\n\n{MARKER}\n")
    assert page.startswith("# Title") and "make book" in page and "jepa-seed0" not in page


def test_every_run_shows_numbers_figures_and_provenance(root: Path):
    """Each finished run has a column, its figures with alternative texts, and its card."""
    for name in ("jepa-seed0", "jepa-seed1"):
        make_run(root, f"demo/01_pretrain/{name}")
    page = own_runs_page(root, MARKER)
    assert page.count("## 01\\_pretrain, preset demo") == 1
    for name in ("jepa-seed0", "jepa-seed1"):
        figure = f"/book/runs/demo/01_pretrain/{name}/figures/curves.png"
        assert f':::{{image}} {figure}\n:alt: "Loss: it \\"falls\\", see # 1."' in page
        assert f"- Run\n  - `demo/01_pretrain/{name}`" in page
    assert "earlier state" not in page


def test_methods_share_the_row_of_the_trained_encoder(root: Path):
    """JEPA and SparseJEPA can be compared in one row, in per cent and with intervals."""
    for method, value in (("jepa", 0.25), ("sparsejepa", 0.5)):
        folder = make_run(root, f"demo/01_pretrain/{method}-seed0")
        accuracy = {f"{method}, last block": {"kNN": {"value": value, "interval": [0, 1]}}}
        write_json(folder / "results.json", {"method": method, "accuracy": accuracy})
    runs = [run_from_id(root, f"demo/01_pretrain/{m}-seed0") for m in ("jepa", "sparsejepa")]
    table = accuracy_table(runs).replace("\\", "").replace("\u202f", " ")
    assert (
        "* - trained encoder, last block: kNN\n  - 25.0 % [0.0, 100.0]\n  - 50.0 % [0.0, 100.0]"
        in table
    )


def test_runs_of_every_notebook_can_be_shown(tmp_path: Path):
    """As a reader's `make book` makes them: the committed runs, taken for own ones."""
    committed = ROOT / "book/runs/reference"
    for manifest in sorted(committed.glob("*/*/manifest.json")):
        own = tmp_path / "book/runs/demo" / manifest.parent.relative_to(committed)
        own.mkdir(parents=True)
        for name in ("manifest.json", "results.json"):
            shutil.copy(manifest.with_name(name), own)
        (tmp_path / "notebooks").mkdir(exist_ok=True)
        shutil.copy(ROOT / "notebooks" / f"{own.parent.name}.ipynb", tmp_path / "notebooks")
    page = own_runs_page(tmp_path, MARKER).replace("\\", "")
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        assert f"## {notebook.stem}, preset demo" in page
    assert "fine: always the most frequent class" in page


def test_stale_own_runs_are_shown_and_said_to_be_stale(root: Path):
    """The reader's own old runs do not fail the build."""
    make_run(root, "demo/01_pretrain/jepa-seed0")
    (root / "src" / "sparsejepa" / "used.py").write_text("answer = 43\n")
    page = own_runs_page(root, MARKER).replace("\\", "")
    assert "Made by an earlier state of this checkout: src/sparsejepa/used.py has changed" in page


def test_damaged_own_runs_are_named_and_the_others_shown(root: Path):
    """One broken file costs one run, not the page."""
    for name in ("jepa-seed0", "jepa-seed1"):
        make_run(root, f"demo/01_pretrain/{name}")
    (root / "book/runs/demo/01_pretrain/jepa-seed0/results.json").write_text("{")
    page = own_runs_page(root, MARKER).replace("\\", "")
    assert "demo/01_pretrain/jepa-seed0/results.json is damaged" in page
    assert "### demo: jepa-seed1" in page and "### demo: jepa-seed0" not in page


def test_interactive_runs_are_shown(root: Path):
    """A notebook run in Jupyter or on Colab leaves no executed copy."""
    folder = make_run(root, "own/01_pretrain/interactive")
    (folder / "executed.ipynb").unlink()
    assert "### own: interactive" in own_runs_page(root, MARKER)


def test_curves_are_no_single_values():
    """Lists stay out of the table, numbers with an interval stay whole."""
    interval = {"value": 1.0, "interval": [0.0, 2.0]}
    results = {"a": {"b": 1, "c": [1, 2]}, "d": interval, "e": "word", "f": None}
    assert list(single_values(results)) == [("a.b", 1), ("d", interval), ("e", "word")]

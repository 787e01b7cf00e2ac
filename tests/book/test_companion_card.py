"""The provenance card says all of what a run was made from."""

import json
from pathlib import Path

import pytest

from companion_card import command_block, commit, hardware, provenance_card
from companion_files import Run, certificate_line, finished_runs, run_from_id, run_of_page
from sparsejepa.companion.certificates import write_certificates
from sparsejepa.companion.provenance import code_of
from tests.book.tiny_book import make_book, make_run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    make_book(tmp_path)
    return run_from_id(tmp_path, "reference/01_pretrain/jepa-seed0")


def test_card_has_every_fact(run: Run):
    """Run, date, commit, seed, data with hash and origin, hardware, precision, time, files."""
    card = provenance_card(run, run.read("manifest.json"))
    for fact in (
        "`reference/01_pretrain/jepa-seed0`",
        "2026\\-01\\-02 03\\:04 UTC, by the code of commit `fedcba987654` with uncommitted changes",
        "* - Code\n  - unchanged since",
        "* - Seed\n  - 0",
        "`scenes train`, drawn, pixels SHA-256 `0123456789ab…`",
        "A\\_CPU\\*\\, 2 cores\\, 2 threads\\, no GPU\\, Linux",
        "* - Precision\n  - `bf16`",
        "1 min 1 s for the notebook\\; 2 min 5 s of training\\, kept or made",
        "{download}`results.json </book/runs/reference/01_pretrain/jepa-seed0/results.json>`",
        "{download}`manifest.json </book/runs/reference/01_pretrain/jepa-seed0/manifest.json>`",
        "* - `note`\n  - `` a `b` | *c* ``",
        "* - `torch`\n  - `2.14.1`",
        "```bash\nsparsejepa run notebooks/01_pretrain.ipynb --preset reference -p note=",
    ):
        assert fact in card


def test_card_of_an_empty_manifest_says_unknown(run: Run):
    """A manifest of another version of the library still gives a page."""
    card = provenance_card(run, {})
    assert "unknown" in card and "None are recorded" in card


def test_several_image_sets_are_all_named(run: Run):
    """A manifest may hold a list of data sets."""
    manifest = run.read("manifest.json")
    manifest["data"].append(manifest["data"][0] | {"split": "test"})
    card = provenance_card(run, manifest)
    assert "`scenes train`" in card and "`scenes test`" in card


def test_commit_says_whether_it_was_clean():
    """A run from changed files is not passed off as the commit's."""
    assert commit("a" * 40) == "`" + "a" * 12 + "`"
    assert commit("a" * 40 + "-dirty").endswith(" with uncommitted changes")
    assert commit("unknown") == "`unknown`"


def test_hardware_names_gpus():
    """A GPU run shows its GPUs."""
    assert "T4" in hardware({"cpu": "x", "cores": 2, "gpus": ["T4"]})


def test_the_card_says_what_changed_and_what_was_compared(run: Run):
    """In one line, with versions that were others in the check; else that the run is stale."""
    (run.root / "src" / "sparsejepa" / "used.py").write_text("answer = 6 * 7\n")
    manifest = run.read("manifest.json")
    assert certificate_line(run, manifest) == "changed since"
    certificate = {
        "parts": ["report", "training"],
        "valid_for": code_of(run.root, "01_pretrain"),
        "compared": {"tensors": 14, "numbers": 212},
        "versions": {"torch": "2.15.0", "python": "3.11.7"},
        "date": "2026-12-01",
        "changed": 3,
    }
    write_certificates(run.root, {run.id: certificate})
    assert certificate_line(run, manifest) == (
        "3 files have changed since; certified on 2026-12-01: 14 tensors and 212 numbers of a "
        "size-reduced copy are equal to the bit (torch 2.14.1 then, 2.15.0 in the check)"
    )


def test_command_cannot_leave_its_block():
    """Backticks in a parameter do not end the block."""
    assert command_block("a ``` b").startswith("````bash\n")


def test_pages_know_their_runs(tmp_path: Path):
    """A notebook's page shows the run of the configuration, a run's page itself, others none."""
    shown = {"notebooks/a": "reference/a/x"}
    assert run_of_page(tmp_path, "notebooks/a", shown).id == "reference/a/x"
    run = run_of_page(tmp_path, "book/runs/demo/a/y/executed", shown)
    assert (run.id, run.source_page) == ("demo/a/y", "notebooks/a")
    assert run.page == "book/runs/demo/a/y/executed"
    assert run_of_page(tmp_path, "book/index", shown) is None
    with pytest.raises(ValueError, match="preset/notebook/run"):
        run_from_id(tmp_path, "reference/a")


def test_unfinished_runs_are_not_listed(run: Run):
    """Without its manifest a run has not ended."""
    make_run(run.root, "demo/01_pretrain/jepa-seed0")
    assert len(finished_runs(run.root)) == 3
    (run.folder / "manifest.json").unlink()
    ids = [one.id for one in finished_runs(run.root)]
    assert ids == ["demo/01_pretrain/jepa-seed0", "reference/01_pretrain/sparsejepa-seed0"]


def test_damaged_file_is_named(run: Run):
    """Half a JSON file is an error with the file's name."""
    (run.folder / "results.json").write_text(json.dumps({"a": 1})[:-1])
    with pytest.raises(ValueError, match="results.json is damaged"):
        run.read("results.json")

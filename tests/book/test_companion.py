"""The Sphinx extension without Sphinx's build: checks, pages, cards, tables, and mended HTML."""

import csv
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

import companion
import companion_page
import companion_tables
from companion_book import Book
from companion_card import at_a_glance, code_line, provenance_card
from sparsejepa.companion.certify import leaves
from sparsejepa.companion.files import read_json, write_json
from sparsejepa.companion.manifest import write_certificates
from sparsejepa.companion.provenance import code_of
from tests.book.tiny_book import edit_results, executed, make_book, make_run, opened
from tests.repository import ROOT

PAGE, RUN = "notebooks/01_pretrain", "reference/01_pretrain/jepa-seed0"
OTHER = "book/runs/reference/01_pretrain/sparsejepa-seed0/executed"
STALE: dict[str, str] = {}  # runs that the configuration announces as stale


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_book(tmp_path)
    return tmp_path


def check(root: Path) -> Book:
    return opened(root, {PAGE: RUN}, {PAGE, OTHER}, STALE)


def shown(book: Book) -> list[dict]:
    """The cells of the run's page."""
    path = book.root / f"{PAGE}.ipynb"
    source = path.read_text() if path.is_file() else ""
    return companion_page.page_of_run(book, RUN, source)["cells"]


def replace(root: Path, place: str, old: str, new: str) -> None:
    (root / place).write_text((root / place).read_text().replace(old, new))


def test_a_page_shows_the_run_between_the_clean_prose(root: Path, warnings: list[str]):
    """Title in words, table and card after it, outputs, prose mended since, no parameters."""
    replace(root, f"{PAGE}.ipynb", "## Curves", "## Curves, explained")
    cells = shown(check(root))
    assert cells[0]["source"].startswith("# Pretraining: JEPA, seed 0\n")
    assert "Question" not in cells[1]["source"] and "method jepa" in cells[1]["source"]
    assert "Where this comes from" in cells[2]["source"]
    assert cells[-1]["outputs"] and warnings == []
    assert "## Curves, explained" in [cell["source"] for cell in cells]
    for cell in cells:
        tags = set(cell["metadata"].get("tags", []))
        assert not tags & {"parameters", "injected-parameters"} or "remove-cell" in tags
    shutil.rmtree(root / OTHER.removesuffix("/executed"))
    assert shown(Book(root, {}, ()))[0]["source"].startswith("# Pretraining\n"), "the only run"
    code = [cell for cell in executed()["cells"] if cell["cell_type"] == "code"]
    assert companion_page.with_cells({"cells": code}, ["card"])["cells"][0]["source"] == "card"


@pytest.mark.parametrize("name", ["executed.ipynb", "results.json", "manifest.json"])
@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_text("{")])
def test_a_run_that_is_not_whole_fails_the_build(root: Path, warnings: list[str], name, damage):
    """The page still opens, with the bare source, and says what is wrong."""
    damage(root / "book" / "runs" / RUN / name)
    cells = shown(check(root))
    assert len(warnings) == 1 and RUN in warnings[0] and name in warnings[0]
    assert "No run to show" in cells[1]["source"] and name.split(".")[0] in cells[1]["source"]
    assert not any(cell.get("outputs") for cell in cells)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda r: replace(r, f"{PAGE}.ipynb", "plot()", "plot(2)"), f"{PAGE}.ipynb changed"),
        (lambda r: replace(r, "notebooks/presets/reference.yml", "seed: 0", "seed: 7"), "seed"),
        (lambda r: edit_results(r, RUN, steps=1201), "results.json is not what the run wrote"),
        (lambda root: (root / f"{PAGE}.ipynb").unlink(), "is no longer there"),
    ],
)
def test_a_stale_or_edited_run_fails_the_build(root: Path, warnings: list[str], change, reason):
    """With page, run, reason and command; the page says it too."""
    change(root)
    cells = shown(check(root))
    (message,) = [one for one in warnings if f"the run {RUN} " in one]
    assert message.startswith(f"stale: {PAGE}: the run {RUN} is stale: ") and reason in message
    command = "sparsejepa run notebooks/01_pretrain.ipynb --preset reference --run jepa-seed0"
    assert f"`{command}`" in message
    assert "This run is stale" in cells[1]["source"]


def test_stale_runs_that_are_announced_build(root: Path, warnings: list[str], monkeypatch):
    """Their page says so; an edited run is never tolerated."""
    replace(root, "src/sparsejepa/used.py", "42", "43")
    monkeypatch.setitem(STALE, RUN, "it is made again next week")
    cells = shown(check(root))
    assert not [one for one in warnings if f"the run {RUN} " in one]
    assert "This run is stale" in cells[1]["source"]
    edit_results(root, RUN, steps=0)
    check(root)
    assert [one for one in warnings if f"the run {RUN} is stale" in one]


def test_runs_that_no_page_shows_are_checked_too(root: Path, warnings: list[str]):
    """Their numbers stand on other pages; the reader's own runs may be as they like."""
    own, other = (make_run(root, f"{p}/01_pretrain/jepa-seed1") for p in ("demo", "reference"))
    check(root)
    assert warnings == []
    for folder in (own, other):
        (folder / "results.json").write_text("{}")
    check(root)
    name = "reference/01_pretrain/jepa-seed1"
    assert len(warnings) == 1 and f"book/runs/{name}/executed: the run {name}" in warnings[0]
    (other / "results.json").unlink()
    check(root)
    assert f"the run {name} has no results.json" in warnings[1] and len(warnings) == 2


def test_the_card_has_every_fact(root: Path):
    """Of the run, its code, data and files; a command cannot leave its block."""
    book = Book(root, {}, ())
    card = provenance_card(book, RUN, book.facts(RUN))
    for fact in (
        f"`{RUN}`",
        "2026\\-01\\-02 03\\:04\\:05Z, by the code of commit `fedcba987654` with",
        "* - Code\n  - unchanged since",
        "* - Seed\n  - 0",
        "`scenes` train, drawn, pixels `0123456789ab…`",
        "* - Precision\n  - `bf16`",
        f"{{download}}`results.json </book/runs/{RUN}/results.json>`",
        f"{{download}}`manifest.json </book/runs/{RUN}/manifest.json>`",
        "* - `note`\n  - `` a `b` | *c* ``",
        "* - `torch`\n  - `2.14.1`",
        "```bash\nsparsejepa run notebooks/01_pretrain.ipynb --preset reference -p note=",
    ):
        assert fact in card
    assert "unknown" in provenance_card(book, RUN, {"timing": {}})


def test_the_card_says_what_changed_and_what_was_compared(root: Path):
    """In one line; without a certificate that the run is stale."""
    replace(root, "src/sparsejepa/used.py", "42", "43")
    assert code_line(Book(root, {}, ()), RUN) == "changed since"
    certificate = {
        "run_sha256": read_json(root / "book/runs" / RUN / "manifest.json")["sha256"],
        "parts": ["report", "training"],
        "valid_for": code_of(root, "01_pretrain"),
        "compared": {"tensors": 14, "numbers": 212},
        "versions": {"torch": "2.15.0", "python": "3.11.7"},
        "date": "2026-12-01",
        "changed": 3,
    }
    write_certificates(root, {RUN: certificate})
    assert code_line(Book(root, {}, ()), RUN) == (
        "3 files have changed since; certified on 2026-12-01: 14 tensors and 212 numbers of a "
        "size-reduced copy are equal to the bit (torch 2.15.0, python 3.11.7)"
    )


def test_a_glance_is_from_the_files_of_the_run():
    """Question and distance from the chapters' file, the rest from manifest, times and ledger."""
    book = Book(ROOT, {}, ())
    assert set(book.chapters) == {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert all(one["question"].endswith("?") and one["distance"] for one in book.chapters.values())
    run = "reference/04_jepa_score/all"
    glance = at_a_glance(book, run, book.facts(run))
    resting = [j for j in book.judgements if j.claim.notebook == "04_jepa_score"]
    assert any(j.runs for j in resting)
    assert all((f"<claim-{j.claim.id}>" in glance) == bool(j.runs) for j in resting)
    for word in ("Question", "cifar100 train", "no GPU", "for the notebook", "Distance from"):
        assert word in glance


def test_own_runs_say_whether_they_learned(root: Path):
    """Above both controls or not; damaged and unfinished ones do not stop the build."""
    assert "make book" in companion_tables.own_runs(Book(root, {}, ()))
    for seed, value in enumerate((0.5, 0.2)):
        folder = make_run(root, f"own/01_pretrain/jepa-seed{seed}")
        (folder / "executed.ipynb").unlink()  # as a run in Jupyter or on Colab
        names = ("jepa, last block", "untrained encoder, last block", "raw pixels")
        accuracy = {
            name: {"linear probe": {"value": x, "interval": [x - 0.01, x + 0.01]}}
            for name, x in zip(names, (value, 0.2, 0.1), strict=True)
        }
        write_json(folder / "results.json", {"method": "jepa", "accuracy": accuracy})
    (make_run(root, "demo/01_pretrain/half") / "manifest.json").unlink()
    (make_run(root, "demo/01_pretrain/broken") / "results.json").write_text("{")
    write_json(make_run(root, "demo/01_pretrain/older") / "results.json", {"linear": 0.5})
    page = companion_tables.own_runs(Book(root, {}, ())).replace("\\", "")
    assert "`own/01_pretrain/jepa-seed0` **learned**: last block 50.0" in page
    assert "`own/01_pretrain/jepa-seed1` **has not clearly learned**" in page
    assert "* - `own/01_pretrain/jepa-seed1`\n" in page and "reference" not in page
    assert "half" not in page and "`demo/01_pretrain/broken` cannot be shown" in page


def test_every_number_of_every_committed_run_is_a_row(tmp_path: Path):
    """No more and no fewer; a failed build writes nothing. Each run is in the table of runs."""
    book = Book(ROOT, {}, ())
    app = SimpleNamespace(companion=book, outdir=tmp_path, builder=SimpleNamespace(format="html"))
    companion_tables.write_csv(app, ValueError())
    assert not list(tmp_path.iterdir())
    companion_tables.write_csv(app, None)
    with (tmp_path / "downloads" / "results.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    table = companion_tables.committed_runs(book)
    for run in book.runs(committed=True):
        keys = [row["key"] for row in rows if row["run"] == run]
        # Counted without the code under test; an interval is no number of its own.
        values = [(p.split(" > "), x) for p, x, _ in leaves(book.read(run, "results.json"), None)]
        kept = [p for p, x in values if isinstance(x, int | float) and "interval" not in p]
        assert len(keys) == len(set(keys)) == len(kept)
        assert f"* - `{run}`" in table
    found = {(row["run"], row["key"]): row for row in rows}
    pixels = found[RUN, "accuracy.raw pixels.kNN"]
    assert float(pixels["low"]) < float(pixels["value"]) < float(pixels["high"])


def test_buttons_of_a_run_open_the_clean_notebook():
    """Colab, source and edit change, a download of the executed notebook does not."""
    page = f"book/runs/{RUN}/executed"
    colab = "https://colab.research.google.com/github/a/b/blob/main"
    buttons = [
        {"buttons": [{"url": f"{colab}/{page}.ipynb"}]},
        {"url": f"../_sources/{page}.ipynb"},
        {"javascript": "window.print()"},
    ]
    companion_page.point_buttons_at_source(buttons, page, RUN)
    assert buttons[0]["buttons"][0]["url"] == f"{colab}/{PAGE}.ipynb"
    assert buttons[1]["url"] == f"../_sources/{page}.ipynb"


def test_other_peoples_html_is_mended(root: Path):
    """Roles that do not fit and empty header cells, Thebe's files; all else is left."""
    entry = '<div id="a" role="doc-biblioentry"><p role="note">A</p></div>'
    table = '<tr><th class="blank" >&nbsp;</th><th scope="col">loss</th></tr>'
    kept = SimpleNamespace(filename="_static/theme.js", attributes={})
    inline = SimpleNamespace(filename=None, attributes={"body": 'const THEBE_JS_URL = "x"'})
    linked = SimpleNamespace(filename="_static/sphinx-thebe.js", attributes={})
    context = {
        "body": f'<div role="list" class="c">{entry}</div>{table}',
        "script_files": [inline, kept, linked, "_static/plain.js"],
    }
    app = SimpleNamespace(companion=Book(root, {PAGE: RUN}, {PAGE}))
    companion.mend_page(app, PAGE, "page.html", context, None)
    assert context["body"] == (
        '<div class="c"><div id="a"><p role="note">A</p></div></div>'
        '<tr><td class="blank" >&nbsp;</td><th scope="col">loss</th></tr>'
    )
    assert context["script_files"] == [kept, "_static/plain.js"]


def test_pages_get_the_address_of_the_repository(root: Path):
    """The configuration is its only place; an executed page becomes its run."""
    config = SimpleNamespace(html_theme_options={"repository_url": "https://example.org/a/b"})
    env = SimpleNamespace(note_reread=lambda: None)
    app = SimpleNamespace(companion=Book(root, {PAGE: RUN}, {PAGE}), config=config, env=env)
    source = ["git clone @REPOSITORY@ x"]
    companion.show_run(app, "book/index", source)
    assert source == ["git clone https://example.org/a/b x"]
    source = [(root / f"{PAGE}.ipynb").read_text()]
    companion.show_run(app, PAGE, source)
    assert json.loads(source[0])["cells"][-1]["outputs"]

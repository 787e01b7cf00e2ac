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
from companion_card import at_a_glance, code_line, commit, hardware, provenance_card
from sparsejepa.companion.certificates import write_certificates
from sparsejepa.companion.files import read_json, write_json
from sparsejepa.companion.provenance import code_of
from tests.book.tiny_book import executed, make_book, make_run
from tests.repository import ROOT

PAGE, RUN = "notebooks/01_pretrain", "reference/01_pretrain/jepa-seed0"
OTHER = "book/runs/reference/01_pretrain/sparsejepa-seed0/executed"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_book(tmp_path)
    return tmp_path


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Kind, page and sentence of every warning that the extension gives."""
    given: list[str] = []

    def warn(message: str, *values: str, location: str, type: str, subtype: str) -> None:
        assert (type, location) == ("companion", values[0])
        given.append(f"{subtype}: {message % values}")

    monkeypatch.setattr(companion, "logger", SimpleNamespace(warning=warn, info=lambda *_: None))
    return given


STALE: dict[str, str] = {}  # runs that the configuration announces as stale


def opened(root: Path, pages: tuple[str, ...] = (PAGE, OTHER)) -> Book:
    """The book, after the checks before a build."""
    config = SimpleNamespace(
        companion_runs={PAGE: RUN}, companion_stale=STALE, html_theme_options={}
    )
    app = SimpleNamespace(srcdir=root, config=config)
    companion.open_book(app, SimpleNamespace(found_docs=set(pages)), [])
    return app.companion


def shown(book: Book, run: str = RUN) -> list[dict]:
    """The cells of a run's page."""
    source = (book.root / f"{PAGE}.ipynb").read_text()
    return companion_page.page_of_run(book, run, source)["cells"]


def test_a_page_shows_the_run_between_the_clean_prose(root: Path, warnings: list[str]):
    """Title in words, table and card after it, outputs, prose mended since, no parameters."""
    path = root / f"{PAGE}.ipynb"
    path.write_text(path.read_text().replace("## Curves", "## Curves, explained"))
    cells = shown(opened(root))
    assert cells[0]["source"].startswith("# Pretraining: JEPA, seed 0\n")
    assert "Question" not in cells[1]["source"] and "method jepa" in cells[1]["source"]
    assert "Where this comes from" in cells[2]["source"]
    assert cells[-1]["outputs"] and warnings == []
    assert "## Curves, explained" in [cell["source"] for cell in cells]
    for cell in cells:
        tags = set(cell["metadata"].get("tags", []))
        assert not tags & {"parameters", "injected-parameters"} or "remove-cell" in tags


def test_only_a_run_among_several_is_named_in_the_title(root: Path):
    """A notebook with one run keeps its own title."""
    shutil.rmtree(root / OTHER.removesuffix("/executed"))
    assert shown(opened(root, (PAGE,)))[0]["source"].startswith("# Pretraining\n")


def test_the_card_comes_first_where_there_is_no_title():
    """A notebook without Markdown still gets its card."""
    cells = [cell for cell in executed()["cells"] if cell["cell_type"] == "code"]
    page = companion_page.with_cells({"cells": cells}, ["card"])
    assert page["cells"][0]["source"] == "card"


@pytest.mark.parametrize("name", ["executed.ipynb", "results.json", "manifest.json"])
@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_text("{")])
def test_a_run_that_is_not_whole_fails_the_build(root: Path, warnings: list[str], name, damage):
    """The page still opens, with the bare source, and says what is wrong."""
    damage(root / "book" / "runs" / RUN / name)
    cells = shown(opened(root))
    assert len(warnings) == 1 and RUN in warnings[0] and name in warnings[0]
    assert "No run to show" in cells[1]["source"] and name.split(".")[0] in cells[1]["source"]
    assert not any(cell.get("outputs") for cell in cells)


def changed_notebook(root: Path) -> None:
    path = root / f"{PAGE}.ipynb"
    path.write_text(path.read_text().replace("plot()", "plot(2)"))


def changed_library(root: Path) -> None:
    (root / "src" / "sparsejepa" / "used.py").write_text("answer = 43\n")


def changed_preset(root: Path) -> None:
    path = root / "notebooks" / "presets" / "reference.yml"
    path.write_text(path.read_text().replace("seed: 0", "seed: 7"))


def edited_results(root: Path) -> None:
    path = root / "book" / "runs" / RUN / "results.json"
    write_json(path, read_json(path) | {"steps": 1201})


def edited_manifest(root: Path) -> None:
    path = root / "book" / "runs" / RUN / "manifest.json"
    write_json(path, read_json(path) | {"seed": 1})


def removed_figure(root: Path) -> None:
    (root / "book" / "runs" / RUN / "figures" / "curves.png").unlink()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (changed_notebook, "notebooks/01_pretrain.ipynb changed"),
        (changed_library, "src/sparsejepa changed"),
        (changed_preset, "seed"),
        (edited_results, "results.json is not what the run wrote"),
        (edited_manifest, "manifest.json is not what the run wrote"),
        (removed_figure, "figures/curves.png is no longer there"),
        (lambda root: (root / f"{PAGE}.ipynb").unlink(), "is no longer there"),
    ],
)
def test_a_stale_or_edited_run_fails_the_build(root: Path, warnings: list[str], change, reason):
    """With page, run, reason and command; the page says it too."""
    change(root)
    book = opened(root)
    (message,) = [one for one in warnings if f"the run {RUN} " in one]
    assert message.startswith(f"stale: {PAGE}: the run {RUN} is stale: ") and reason in message
    command = "sparsejepa run notebooks/01_pretrain.ipynb --preset reference --run jepa-seed0"
    assert f"`{command}`" in message
    cells = companion_page.page_of_run(book, RUN, "")["cells"]
    assert "This run is stale" in cells[1]["source"]


def test_stale_runs_that_are_announced_build(root: Path, warnings: list[str], monkeypatch):
    """Their page says so; an edited run is never tolerated."""
    (root / "src" / "sparsejepa" / "used.py").write_text("answer = 43\n")
    monkeypatch.setitem(STALE, RUN, "it is made again next week")
    book = opened(root)
    assert not [one for one in warnings if f"the run {RUN} " in one]
    assert "This run is stale" in companion_page.page_of_run(book, RUN, "")["cells"][1]["source"]
    (root / "book" / "runs" / RUN / "results.json").write_text("{}")
    opened(root)
    assert [one for one in warnings if f"the run {RUN} is stale" in one]


def test_runs_that_no_page_shows_are_checked_too(root: Path, warnings: list[str]):
    """Their numbers stand on other pages; the reader's own runs may be as they like."""
    own, other = (make_run(root, f"{p}/01_pretrain/jepa-seed1") for p in ("demo", "reference"))
    opened(root)
    assert warnings == []
    for folder in (own, other):
        (folder / "results.json").write_text("{}")
    opened(root)
    name = "reference/01_pretrain/jepa-seed1"
    assert len(warnings) == 1 and f"book/runs/{name}/executed: the run {name}" in warnings[0]
    (other / "results.json").unlink()
    opened(root)
    assert f"the run {name} has no results.json" in warnings[1] and len(warnings) == 2


def test_pages_know_their_runs(root: Path):
    """A notebook's page shows the run of the configuration, a run's page itself, others none."""
    book = Book(root, {PAGE: RUN}, {PAGE, OTHER, "book/index"})
    assert book.run_of_page("book/index") is None
    assert book.page_of_run == {RUN: PAGE, "reference/01_pretrain/sparsejepa-seed0": OTHER}


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
    assert companion_tables.wall_time({}) == "unknown"
    assert commit({"commit": "a" * 40}) == "`" + "a" * 12 + "`"
    assert "T4" in hardware({"cpu": "x", "cores": 2, "gpus": ["T4"]})


def test_the_card_says_what_changed_and_what_was_compared(root: Path):
    """In one line; without a certificate that the run is stale."""
    changed_library(root)
    assert code_line(Book(root, {}, ()), RUN) == "changed since"
    certificate = {
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
    assert sum(f"<claim-{j.claim.id}>" in glance for j in resting if j.runs) > 0
    assert all((f"<claim-{j.claim.id}>" in glance) == bool(j.runs) for j in resting)
    for word in ("Question", "cifar100 train", "no GPU", "for the notebook", "Distance from"):
        assert word in glance


def test_own_runs_say_whether_they_learned(root: Path):
    """Above both controls or not; damaged and unfinished ones do not stop the build."""
    assert "make book" in companion_tables.own_runs(Book(root, {}, ()))
    for seed, value in enumerate((0.5, 0.2)):
        folder = make_run(root, f"own/01_pretrain/jepa-seed{seed}")
        (folder / "executed.ipynb").unlink()  # as a run in Jupyter or on Colab
        probes = {
            "jepa, last block": value,
            "untrained encoder, last block": 0.2,
            "raw pixels": 0.1,
        }
        accuracy = {
            name: {"linear probe": {"value": x, "interval": [x - 0.01, x + 0.01]}}
            for name, x in probes.items()
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


def test_committed_runs_are_one_table():
    """Each run once."""
    book = Book(ROOT, {}, ())
    table = companion_tables.committed_runs(book)
    assert all(f"* - `{run}`" in table for run in book.runs(committed=True))


def leaves(value: object) -> int:
    """Numbers in a JSON value, counted without the code under test; an interval is none."""
    if isinstance(value, dict):
        return sum(leaves(part) for name, part in value.items() if name != "interval")
    if isinstance(value, list):
        return sum(leaves(part) for part in value)
    return isinstance(value, int | float)


def test_every_number_of_every_committed_run_is_a_row(tmp_path: Path):
    """No more and no fewer; a failed build and another format write nothing."""
    book = Book(ROOT, {}, ())
    app = SimpleNamespace(companion=book, outdir=tmp_path, builder=SimpleNamespace(format="html"))
    companion_tables.write_csv(app, ValueError())
    assert not list(tmp_path.iterdir())
    companion_tables.write_csv(app, None)
    with (tmp_path / "downloads" / "results.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for run in book.runs(committed=True):
        keys = [row["key"] for row in rows if row["run"] == run]
        assert len(keys) == len(set(keys)) == leaves(book.read(run, "results.json"))
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

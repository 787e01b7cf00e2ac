"""The Sphinx extension, without Sphinx's build: pages, warnings, buttons."""

import json
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest

import companion_runs
from companion_files import run_from_id
from tests.book.tiny_book import executed, make_book

DOCNAME = "notebooks/01_pretrain"
RUN = "reference/01_pretrain/jepa-seed0"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_book(tmp_path)
    return tmp_path


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """(subtype, message) of every warning that the extension gives."""
    given: list[tuple[str, str]] = []

    def warn(message: str, *values: str, location: str, type: str, subtype: str) -> None:
        assert (type, location) == ("companion", DOCNAME)
        given.append((subtype, message % values))

    monkeypatch.setattr(companion_runs, "logger", SimpleNamespace(warning=warn))
    return given


def read(root: Path, docname: str = DOCNAME) -> tuple[dict, set[str]]:
    """The notebook that the page shows, and the files that it depends on."""
    depends: set[str] = set()
    environment = SimpleNamespace(note_dependency=depends.add)
    config = SimpleNamespace(companion_runs={DOCNAME: RUN}, html_theme_options={})
    app = SimpleNamespace(srcdir=root, config=config, env=environment)
    source = [(root / f"{docname}.ipynb").read_text()]
    companion_runs.show_run(app, docname, source)
    return json.loads(source[0]), depends


def test_page_shows_the_run_with_its_card_after_the_title(root: Path, warnings: list):
    """Outputs come from the run, the second cell is the card, nothing is warned about."""
    page, depends = read(root)
    assert page["cells"][0]["source"].startswith("# Pretraining: jepa-seed0\n")
    assert "Where this comes from" in page["cells"][1]["source"]
    assert page["cells"][-1]["outputs"]
    assert warnings == []
    run = run_from_id(root, RUN)
    figure = run.folder / "figures" / "curves.png"
    assert {str(path) for path in [*run.files, figure, run.source, run.preset_file]} < depends
    assert str(root / "src" / "sparsejepa" / "used.py") in depends


def test_parameters_are_not_shown_twice(root: Path, warnings: list):
    """Neither defaults nor injected values show beside the card's effective ones."""
    page, _ = read(root)
    for cell in page["cells"]:
        tags = set(cell["metadata"].get("tags", []))
        assert not tags & {"parameters", "injected-parameters"} or "remove-cell" in tags


def test_a_runs_own_page_shows_itself(root: Path, warnings: list):
    """Further runs of a notebook have pages of their own, named after the run."""
    page, _ = read(root, "book/runs/reference/01_pretrain/sparsejepa-seed0/executed")
    assert page["cells"][0]["source"].startswith("# Pretraining: sparsejepa-seed0\n")
    assert "`reference/01_pretrain/sparsejepa-seed0`" in page["cells"][1]["source"]


@pytest.mark.parametrize("name", ["executed.ipynb", "results.json", "manifest.json"])
def test_missing_run_warns_and_shows_the_bare_source(root: Path, warnings: list, name: str):
    """The page still opens, says what is wrong, and the build fails by the warning."""
    (run_from_id(root, RUN).folder / name).unlink()
    page, _ = read(root)
    ((subtype, message),) = warnings
    assert subtype == "missing" and f"has no {name}" in message
    assert "sparsejepa reproduce --preset reference" in message
    assert "No run to show" in page["cells"][1]["source"]
    assert not any(cell.get("outputs") for cell in page["cells"])


def test_damaged_run_warns(root: Path, warnings: list):
    """Half a file is like none."""
    (run_from_id(root, RUN).folder / "manifest.json").write_text("{")
    page, _ = read(root)
    ((subtype, message),) = warnings
    assert subtype == "missing" and "is damaged" in message
    assert "No run to show" in page["cells"][1]["source"]


def changed_notebook(root: Path) -> None:
    path = root / f"{DOCNAME}.ipynb"
    path.write_text(path.read_text().replace("plot()", "plot(2)"))


def changed_library(root: Path) -> None:
    (root / "src" / "sparsejepa" / "used.py").write_text("answer = 43\n")


def changed_preset(root: Path) -> None:
    path = root / "notebooks" / "presets" / "reference.yml"
    path.write_text(path.read_text().replace("seed: 0", "seed: 7"))


@pytest.mark.parametrize("change", [changed_notebook, changed_library, changed_preset])
def test_stale_run_warns_and_says_so_on_the_page(root: Path, warnings: list, change):
    """A changed notebook, library file or preset makes a run stale, and says which it was."""
    change(root)
    page, _ = read(root)
    ((subtype, message),) = warnings
    assert subtype == "stale" and RUN in message
    assert "This run is stale" in page["cells"][1]["source"]
    assert "Where this comes from" in page["cells"][2]["source"]


def test_mended_prose_is_shown_and_makes_nothing_stale(root: Path, warnings: list):
    """The page has the clean notebook's prose beside the run's outputs."""
    path = root / f"{DOCNAME}.ipynb"
    path.write_text(path.read_text().replace("## Curves", "## Curves, explained"))
    page, _ = read(root)
    assert warnings == []
    assert "## Curves, explained" in [cell["source"] for cell in page["cells"]]


def test_a_run_whose_notebook_is_gone_is_stale_but_shown(root: Path, warnings: list):
    """Its prose is then that of the run."""
    (root / f"{DOCNAME}.ipynb").unlink()
    run = companion_runs.run_of_page(root, DOCNAME, {DOCNAME: RUN})
    page = companion_runs.page_of_run(run, DOCNAME, "")
    ((subtype, message),) = warnings
    assert subtype == "stale" and "no longer there" in message
    assert "## Curves" in [cell["source"] for cell in page["cells"]]


def test_card_comes_first_where_there_is_no_title():
    """A notebook without Markdown still gets its card."""
    cells = [cell for cell in executed()["cells"] if cell["cell_type"] == "code"]
    page = companion_runs.with_cells({"cells": cells}, ["card"])
    assert [cell["source"] for cell in page["cells"][:1]] == ["card"]


def test_buttons_of_a_run_open_the_clean_notebook():
    """Colab, source and edit change, a download of the executed notebook does not."""
    page, source = f"book/runs/{RUN}/executed", DOCNAME
    site = "https://github.com/a/b"
    buttons = [
        {
            "buttons": [
                {"url": f"https://colab.research.google.com/github/a/b/blob/main/{page}.ipynb"}
            ]
        },
        {"url": f"{site}/edit/main/{page}.ipynb"},
        {"url": f"../_sources/{page}.ipynb"},
        {"javascript": "window.print()"},
    ]
    companion_runs.redirect(buttons, page, source)
    assert buttons[0]["buttons"][0]["url"].endswith(f"/github/a/b/blob/main/{source}.ipynb")
    assert buttons[1]["url"] == f"{site}/edit/main/{source}.ipynb"
    assert buttons[2]["url"] == f"../_sources/{page}.ipynb"


def test_pages_get_the_address_of_the_repository(root: Path):
    """The configuration is its only place."""
    config = SimpleNamespace(
        companion_runs={}, html_theme_options={"repository_url": "https://example.org/a/b"}
    )
    source = ["git clone @REPOSITORY@ x"]
    companion_runs.show_run(SimpleNamespace(srcdir=root, config=config), "book/index", source)
    assert source == ["git clone https://example.org/a/b x"]


def test_thebe_is_dropped_and_nothing_else():
    """Inline and linked scripts of Thebe go, others stay."""
    kept = SimpleNamespace(filename="_static/theme.js", attributes={})
    inline = SimpleNamespace(filename=None, attributes={"body": 'const THEBE_JS_URL = "x"'})
    linked = SimpleNamespace(filename="_static/sphinx-thebe.js", attributes={})
    context = {"script_files": [inline, kept, linked, "_static/plain.js"]}
    companion_runs.drop_thebe(None, "p", "t", context, None)
    assert context["script_files"] == [kept, "_static/plain.js"]


def test_sphinx_loggers_are_used():
    """Only Sphinx's own logger counts a warning for -W."""
    assert isinstance(companion_runs.logger, logging.LoggerAdapter)

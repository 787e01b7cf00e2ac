"""A committed run that somebody edits or removes fails the build, wherever its numbers stand."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

import companion_runs
from companion_files import run_from_id
from sparsejepa.companion.files import read_json, write_json
from tests.book.tiny_book import make_book, make_run

DOCNAME = "notebooks/01_pretrain"
RUN = "reference/01_pretrain/jepa-seed0"
CONFIG = SimpleNamespace(companion_runs={DOCNAME: RUN}, html_theme_options={})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_book(tmp_path)
    return tmp_path


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Subtype and message of every warning that the extension gives."""
    given: list[str] = []

    def warn(message: str, *values: str, location: str, type: str, subtype: str) -> None:
        given.append(f"{subtype}: {message % values}")

    monkeypatch.setattr(companion_runs, "logger", SimpleNamespace(warning=warn))
    return given


def edited_results(root: Path) -> None:
    path = run_from_id(root, RUN).folder / "results.json"
    write_json(path, read_json(path) | {"steps": 1201})


def edited_manifest(root: Path) -> None:
    path = run_from_id(root, RUN).folder / "manifest.json"
    write_json(path, read_json(path) | {"seed": 1})


def edited_output(root: Path) -> None:
    path = run_from_id(root, RUN).folder / "executed.ipynb"
    path.write_text(path.read_text().replace("## Curves", "## Curve"))


def removed_figure(root: Path) -> None:
    (run_from_id(root, RUN).folder / "figures" / "curves.png").unlink()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (edited_results, "results.json is not what the run wrote"),
        (edited_manifest, "manifest.json is not what the run wrote"),
        (edited_output, "executed.ipynb is not what the run wrote"),
        (removed_figure, "figures/curves.png is no longer there"),
    ],
)
def test_an_edited_run_warns(root: Path, warnings: list[str], change, reason: str):
    """With the page, the run, the file, and the command that makes it again."""
    change(root)
    environment = SimpleNamespace(note_dependency=lambda path: None)
    app = SimpleNamespace(srcdir=root, config=CONFIG, env=environment)
    source = [(root / f"{DOCNAME}.ipynb").read_text()]
    companion_runs.show_run(app, DOCNAME, source)
    command = "sparsejepa run notebooks/01_pretrain.ipynb --preset reference --run jepa-seed0"
    assert warnings == [
        f"stale: {DOCNAME}: the run {RUN} is stale: {reason}; make it again by `{command}`, or run "
        "`sparsejepa certify` if only code has changed."
    ]
    assert "This run is stale" in json.loads(source[0])["cells"][1]["source"]


def test_runs_that_no_page_shows_are_checked_too(root: Path, warnings: list[str]):
    """Their numbers stand on other pages; the reader's own runs may be as they like."""
    environment = SimpleNamespace(found_docs={DOCNAME})

    def check() -> list[str]:
        warnings.clear()
        app = SimpleNamespace(srcdir=root, config=CONFIG)
        companion_runs.check_runs_without_page(app, environment, [])
        return warnings

    own, other = (
        make_run(root, f"{preset}/01_pretrain/jepa-seed1") for preset in ("demo", "reference")
    )
    assert check() == []
    edited_results(root)  # of a run that has a page, where it is reported
    (own / "results.json").write_text("{}")
    assert check() == []
    (other / "results.json").write_text("{}")
    (message,) = check()
    name = "reference/01_pretrain/jepa-seed1"
    assert message.startswith(f"stale: book/runs/{name}/executed: the run {name} is stale")
    (other / "results.json").unlink()
    (message,) = check()
    assert message.startswith(f"missing: book/runs/{name}/executed: the run {name} has no results")
    environment.found_docs.add(f"book/runs/{name}/executed")
    assert check() == []

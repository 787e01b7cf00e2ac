"""Running a notebook: parameters are checked first, and no failure costs an earlier result."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from sparsejepa.companion.files import read_json
from sparsejepa.companion.manifest import staleness
from sparsejepa.companion.runs import RunFailed, run_notebook
from tests.companion.tiny_repository import PARAMETERS, git, make_repository, toy_notebook

NOTEBOOK = Path("notebooks/toy.ipynb")
FILES = ["executed.ipynb", "results.json", "timing.json"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_repository(tmp_path_factory.mktemp("runs") / "checkout")


@pytest.fixture(scope="module")
def finished(root: Path) -> Path:
    """A named run of the preset; later tests fail and succeed beside it."""
    return run_notebook(root, NOTEBOOK, "demo", "jepa-seed1")


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"overrides": {"sed": 1}}, "toy.ipynb has no parameter 'sed'; did you mean 'seed'? Its"),
        ({"overrides": {"run_folder": 1}}, "'run_folder'; did you mean 'run_names'? Its param"),
        ({"overrides": {"lambda": 1}}, "'lambda'. Its parameters are seed, rate, meth"),
        ({"overrides": {"seed": True}}, "seed must be int, not True"),
        ({"overrides": {"rate": float("nan")}}, "rate must be a finite float, not nan"),
        ({"overrides": {"method": 1}}, "method must be str, not 1"),
        ({"run": "jepa"}, "no run 'jepa' of toy; its runs are jepa-seed0, jepa-seed1."),
        ({"notebook": "tyo"}, "notebooks/tyo.ipynb does not exist; there are: toy."),
    ],
)
def test_what_is_wrong_stops_before_anything_runs(root: Path, wrong: dict, message: str):
    """One sentence that names the value and what there is, and no folder is made."""
    before = set(root.rglob("*"))
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        run_notebook(root, **{"notebook": NOTEBOOK, "preset": "demo"} | wrong)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert set(root.rglob("*")) == before


def test_a_parameters_cell_is_of_typed_lines(tmp_path: Path):
    """What could not be checked is refused."""
    root = make_repository(tmp_path)
    for line in ("x = 3", "x: int | None = None", "x: int = 2.5", "x: int = len('abc')"):
        nbformat.write(toy_notebook(f"{PARAMETERS}\n{line}"), root / NOTEBOOK)
        with pytest.raises(ValueError, match=re.escape(f"'{line}' as name: type = default, a pl")):
            run_notebook(root, NOTEBOOK, "demo")


def test_a_finished_run_is_complete(finished: Path, root: Path):
    """In its named folder, with the parameters of defaults, preset and run, and fresh."""
    assert finished == root / "book" / "runs" / "demo" / "toy" / "jepa-seed1"
    manifest = read_json(finished / "manifest.json")
    defaults = {"method": "jepa", "crash": False, "run_names": ""}
    assert manifest["parameters"] == defaults | {"seed": 1, "rate": 0.25}
    assert (manifest["preset"], manifest["run"]) == ("demo", "jepa-seed1")
    assert manifest["command"].endswith("run notebooks/toy.ipynb --preset demo --run jepa-seed1")
    assert read_json(finished / "results.json")["answer"] == 42
    assert staleness(root, "demo/toy/jepa-seed1", {"rate": 0.25, "seed": 1}) == []
    assert set(content(finished)) == {*FILES, "manifest.json"}
    assert list(manifest["files"]) == FILES


def test_an_executed_copy_can_be_published(finished: Path, root: Path):
    """No local path, one frame of a progress bar, an injected cell."""
    text = (finished / "executed.ipynb").read_text()
    for private in (root, root.parent, Path.home(), sys.prefix, "attempts"):
        assert str(private) not in text
    notebook = nbformat.reads(text, as_version=4)
    injected = next(c for c in notebook.cells if "injected-parameters" in c.metadata.tags)
    assert 'run_folder = "book/runs/demo/toy/jepa-seed1"' in injected.source
    streams = {o.name: o.text for c in notebook.cells for o in c.get("outputs", [])}
    assert streams["stderr"] == "step 2"
    assert streams["stdout"] == "working in . of ~ into book/runs/demo/toy/jepa-seed1\n"
    assert "papermill" not in notebook.metadata, "the manifest has all of it"


@pytest.mark.parametrize("crashed", [False, True])
def test_a_failed_run_keeps_the_earlier_results(
    finished: Path, root: Path, capsys: pytest.CaptureFixture[str], crashed: bool
):
    """One sentence with the cell's error, the failed copy aside, the finished run untouched.

    Also where a crash between the two renames of publishing left the finished run aside.
    """
    before, source = content(finished), (root / NOTEBOOK).read_text()
    if crashed:
        finished.rename(root / "book/runs/attempts/demo/toy/jepa-seed1/earlier")
    (root / NOTEBOOK).write_text(source.replace("if crash:", "if True:"))
    try:
        with pytest.raises(RunFailed) as error:
            run_notebook(root, NOTEBOOK, "demo", "jepa-seed1")
    finally:
        (root / NOTEBOOK).write_text(source)
    failed = "book/runs/attempts/demo/toy/jepa-seed1/failed.ipynb"
    said = rf"failed in cell 4: ValueError: the loss is nan in .* \(see {failed};[^\n]*$"
    assert re.search(said, str(error.value))
    text = (root / failed).read_text()
    assert "the loss is nan" in text and str(root) not in text
    assert content(finished) == before
    assert "jepa-seed1: cell 4" in capsys.readouterr().err


def test_a_killed_run_leaves_no_half_of_one(root: Path):
    """SIGKILL: nothing in the run folder, the lock is free, and the next run is whole."""
    (root / "wait").touch()
    command = [sys.executable, "-m", "sparsejepa.cli", "run", "toy", "--preset", "demo"]
    killed = subprocess.Popen([*command, "--run", "jepa-seed0"], cwd=root)
    while not (root / "waiting").exists():
        assert killed.poll() is None
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    (root / "wait").unlink()
    assert not (root / "book" / "runs" / "demo" / "toy" / "jepa-seed0").exists()
    finished = run_notebook(root, NOTEBOOK, "demo", "jepa-seed0")
    assert set(content(finished)) == {*FILES, "manifest.json"}


def test_committed_runs_are_made_by_committed_code(tmp_path: Path):
    """A changed library is refused, one sentence; a README is no code, an own run is free."""
    root = make_repository(tmp_path)
    run_notebook(root, NOTEBOOK, "demo", "jepa-seed0")
    git(root, "init", "-q")
    git(root, "add", "--force", "src", "notebooks", "book/runs/demo")
    git(root, "commit", "-qm", "all")
    (root / "README.md").touch()
    folder = run_notebook(root, NOTEBOOK, "demo", "jepa-seed0")
    assert "dirty" not in read_json(folder / "manifest.json")["commit"]
    toy = root / "src" / "sparsejepa" / "toy.py"
    toy.write_text(toy.read_text() + "\n")
    with pytest.raises(ValueError, match="src/sparsejepa/toy.py is not committed: commit"):
        run_notebook(root, NOTEBOOK, "demo", "jepa-seed0")
    run_notebook(root, NOTEBOOK, "demo", "jepa-seed0", {"rate": 0.3})

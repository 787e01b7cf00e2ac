"""Running a notebook: parameters are checked first, and no failure costs an earlier result."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from sparsejepa.companion import attempts
from sparsejepa.companion.hashes import source_hash
from sparsejepa.companion.manifest import staleness
from sparsejepa.companion.runs import RunFailed, run_notebook
from tests.companion.tiny_repository import PARAMETERS, make_repository, toy_notebook
from tests.repository import ROOT

NOTEBOOK = Path("notebooks/toy.ipynb")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_repository(tmp_path_factory.mktemp("runs") / "checkout")


@pytest.fixture(scope="module")
def finished(root: Path) -> Path:
    """A named run of the preset; later tests fail and succeed beside it."""
    return run_notebook(NOTEBOOK, "demo", "jepa-seed1", root=root)


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def attempt_of(root: Path, folder: Path) -> Path:
    runs = root / "book" / "runs"
    return runs / "attempts" / folder.relative_to(runs)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"sed": 1}, "notebooks/toy.ipynb has no parameter 'sed'; did you mean 'seed'? Its param"),
        ({"colour": 1}, "no parameter 'colour'. Its parameters are seed, rate, method, crash."),
        ({"run_folder": "x"}, "no parameter 'run_folder'"),
        ({"seed": "one"}, "seed must be int, not 'one'"),
        ({"seed": 1.5}, "seed must be int, not 1.5"),
        ({"seed": True}, "seed must be int, not True"),
        ({"rate": "fast"}, "rate must be float, not 'fast'"),
        ({"rate": float("nan")}, "rate must be a finite number"),
        ({"crash": 1}, "crash must be bool, not 1"),
        ({"method": 1}, "method must be str, not 1"),
    ],
)
def test_wrong_parameters_stop_before_anything_runs(root: Path, overrides: dict, message: str):
    """One sentence that names the parameter, and no folder is made."""
    before = set(root.rglob("*"))
    with pytest.raises(ValueError) as error:
        run_notebook(NOTEBOOK, "demo", overrides=overrides, root=root)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert set(root.rglob("*")) == before


@pytest.mark.parametrize(
    ("notebook", "preset", "run", "message"),
    [
        ("notebooks/toy.ipynb", "dmo", None, "no preset 'dmo'; the presets are demo"),
        ("notebooks/toy.ipynb", "demo", "jepa", "no run 'jepa' of toy; its runs are jepa-seed0"),
        ("notebooks/tyo.ipynb", "demo", None, "notebooks/tyo.ipynb does not exist; there are: toy"),
    ],
)
def test_unknown_names_are_answered_with_the_known(root, notebook, preset, run, message):
    """A notebook, preset or run that is not there."""
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        run_notebook(Path(notebook), preset, run, root=root)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("width = 3", "write the parameter line 'width = 3' as name: type = default"),
        ("width: int | None = None", "with one of the types int, float, str, bool"),
        ("width: int = 2.5", "width must be int, not 2.5"),
        ("width: int = len('abc')", "the default of width must be a plain value"),
    ],
)
def test_a_parameters_cell_is_of_typed_lines(tmp_path: Path, line: str, message: str):
    """What could not be checked is refused."""
    root = make_repository(tmp_path)
    nbformat.write(toy_notebook(f"{PARAMETERS}\n{line}"), root / NOTEBOOK)
    with pytest.raises(ValueError) as error:
        run_notebook(NOTEBOOK, "demo", root=root)
    assert message in str(error.value)


def test_a_finished_run_is_complete(finished: Path, root: Path):
    """In its named folder, with the parameters of defaults, preset and run, and fresh."""
    assert finished == root / "book" / "runs" / "demo" / "toy" / "jepa-seed1"
    manifest = json.loads((finished / "manifest.json").read_text())
    assert manifest["parameters"] == {"seed": 1, "rate": 0.25, "method": "jepa", "crash": False}
    assert (manifest["preset"], manifest["run"]) == ("demo", "jepa-seed1")
    assert manifest["command"] == (
        "sparsejepa run notebooks/toy.ipynb --preset demo --run jepa-seed1"
    )
    assert list(manifest["library_sha256"]) == ["sparsejepa", "sparsejepa.toy"]
    assert json.loads((finished / "results.json").read_text())["answer"] == 42
    given = {"rate": 0.25, "seed": 1}
    assert staleness(finished, root / NOTEBOOK, root / "src", given) == []
    assert set(content(finished)) == {"executed.ipynb", "manifest.json", "results.json"}
    assert list(manifest["files"]) == ["executed.ipynb", "results.json"]


def test_an_executed_copy_can_be_published(finished: Path, root: Path):
    """No local path, one frame of a progress bar, the source's hash, an injected cell."""
    text = (finished / "executed.ipynb").read_text()
    for private in (root, root.parent, Path.home(), sys.prefix, "attempts"):
        assert str(private) not in text
    assert source_hash(finished / "executed.ipynb") == source_hash(root / NOTEBOOK)
    notebook = nbformat.reads(text, as_version=4)
    injected = next(c for c in notebook.cells if "injected-parameters" in c.metadata.tags)
    assert 'run_folder = "book/runs/demo/toy/jepa-seed1"' in injected.source
    streams = {o.name: o.text for c in notebook.cells for o in c.get("outputs", [])}
    assert streams["stderr"] == "step 2"
    assert streams["stdout"] == "working in . of ~ into book/runs/demo/toy/jepa-seed1\n"
    paths = {key: notebook.metadata.papermill[key] for key in ("input_path", "output_path")}
    assert paths == {"input_path": "notebooks/toy.ipynb", "output_path": "executed.ipynb"}


def test_a_failed_run_keeps_the_earlier_results(
    finished: Path, root: Path, capsys: pytest.CaptureFixture[str]
):
    """One sentence with the cell's error, the failed copy aside, the finished run untouched."""
    before = content(finished)
    source = (root / NOTEBOOK).read_text()
    (root / NOTEBOOK).write_text(source.replace("if crash:", "if True:"))
    try:
        with pytest.raises(RunFailed) as error:
            run_notebook(NOTEBOOK, "demo", "jepa-seed1", root=root)
    finally:
        (root / NOTEBOOK).write_text(source)
    assert "failed in cell 4: ValueError: the loss is nan in" in str(error.value)
    assert "\n" not in str(error.value)
    failed = attempt_of(root, finished) / "failed.ipynb"
    assert str(failed.relative_to(root)) in str(error.value)
    assert "the loss is nan" in failed.read_text() and str(root) not in failed.read_text()
    assert content(finished) == before
    assert "cell 4 of 5" in capsys.readouterr().err


def test_a_killed_run_goes_on_from_its_checkpoints(root: Path):
    """SIGKILL during the training: nothing in the run folder, and the next run finds the rest."""
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
    finished = run_notebook(NOTEBOOK, "demo", "jepa-seed0", root=root)
    assert json.loads((finished / "results.json").read_text())["found"] == "half-way"
    assert json.loads((finished / "manifest.json").read_text())["resumed"] is True
    assert set(content(finished)) == {"executed.ipynb", "manifest.json", "results.json"}


def test_checkpoints_depend_on_all_that_makes_them():
    """Training, and what watches it: its numbers of each epoch are kept in the checkpoint."""
    script = "import sys, sparsejepa.probing.evaluate, sparsejepa.training.pretrain as p; " + (
        "print(*(m.__file__ for n, m in sys.modules.items() if n.startswith('sparsejepa.')))"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    used = {Path(file) for file in found.stdout.decode().split() if "__init__" not in file}
    known = attempts.checkpoint_inputs({}, ROOT / "src")["library"]
    assert {str(file.relative_to(ROOT / "src")) for file in used} <= known.keys() | {
        "sparsejepa/atomic_files.py"
    }


@pytest.mark.parametrize("renames", range(5))
@pytest.mark.parametrize("earlier", [False, True])
def test_a_crash_while_publishing_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renames: int, earlier: bool
):
    """Cut off after any number of renames, the run folder holds one whole run or none."""
    attempt, run = tmp_path / "attempts" / "a", tmp_path / "runs" / "a"
    new, old = {"manifest.json": b"new", "results.json": b"new"}, {"manifest.json": b"old"}
    for folder, files in ((attempt, new), (run, old if earlier else {})):
        for name, text in files.items():
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(text)
    rename, left = Path.rename, [renames]

    def rename_until(path: Path, target: Path) -> Path:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return rename(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", rename_until)
        try:
            attempts.publish(attempt, run)
        except KeyboardInterrupt:
            pass
    attempts.recover(attempt, run)
    assert content(run) in ([new, old] if earlier else [new, {}])
    attempts.prepare_attempt(attempt, {"inputs": {}})
    assert {path.name for path in attempt.iterdir()} == {"run.json"}


def test_two_cannot_make_one_run(tmp_path: Path):
    """The second says so, and the lock ends with its holder."""
    with attempts.only_one(tmp_path), pytest.raises(ValueError, match="Another process"):
        with attempts.only_one(tmp_path):
            pass
    with attempts.only_one(tmp_path):
        pass


def test_an_unwritable_folder_stops_before_anything_runs(tmp_path: Path):
    """Nothing could be kept there, so nothing starts."""
    root = make_repository(tmp_path)
    (root / "book").touch()
    with pytest.raises(OSError, match="book"):
        run_notebook(NOTEBOOK, "demo", root=root)

"""Old code against new code: what is equal is certified, what differs is named."""

import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from sparsejepa.companion.certify import _run_all, agree, certify, compare_runs, verify
from sparsejepa.companion.files import read_json, write_json
from sparsejepa.companion.manifest import seal_run, stale_runs, staleness
from sparsejepa.companion.parameters import StudyRun
from sparsejepa.companion.runs import run_notebook
from tests.companion.tiny_repository import TOY, git, make_repository, write_preset

RUNS = ["demo/toy/jepa-seed0", "demo/toy/jepa-seed1"]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two runs made at a commit whose `golden` has a copy of both."""
    root = make_repository(tmp_path / "checkout")
    write_preset(root, {"toy": {"parameters": {"rate": 0.1}, "runs": {"jepa-seed0": {}}}}, "golden")
    git(root, "init", "-q")
    git(root, "add", "src", "notebooks")
    git(root, "commit", "-qm", "all")
    for run in ("jepa-seed0", "jepa-seed1"):
        run_notebook(root, Path("toy"), "demo", run)
    monkeypatch.chdir(root)
    return root


def outcomes(root: Path, **options: str) -> dict[str, tuple[str, str]]:
    return {run: (state, why) for run, state, why in certify(root, "demo", **options)}


def test_equal_behaviour_is_certified(root: Path):
    """Renamed, moved and reworded code keeps its runs; both seeds by one golden copy."""
    assert {state for state, _ in outcomes(root).values()} == {"unchanged"}
    library = root / "src" / "sparsejepa"
    (library / "toy.py").write_text("from sparsejepa.moved import answer\n\n__all__ = ['answer']\n")
    (library / "moved.py").write_text(TOY.replace("42", "40 + 2"))
    assert len(stale_runs(root, "demo")) == 2
    found = outcomes(root)
    assert found == {run: ("certified", "0 tensors and 1 numbers are equal") for run in RUNS}
    assert stale_runs(root, "demo") == []
    assert {why for _, why in outcomes(root).values()} == {"certified for this code before"}


def test_other_behaviour_is_stale_and_named(root: Path):
    """The first number that differs, before and after; no certificate is written."""
    (root / "src" / "sparsejepa" / "toy.py").write_text(TOY.replace("42", "43"))
    assert outcomes(root) == {run: ("stale", "report: answer: 42 -> 43") for run in RUNS}
    assert staleness(root, RUNS[0])
    (root / "src" / "sparsejepa" / "toy.py").write_text(TOY.replace("42", "1 / 0"))
    state, why = outcomes(root)[RUNS[0]]
    assert state == "stale" and "its copy fails with the new code" in why
    assert "ZeroDivisionError" in why


def test_a_certificate_is_of_one_run(root: Path):
    """Not of a later one of that name, made by other code."""
    toy = root / "src" / "sparsejepa" / "toy.py"
    toy.write_text(TOY.replace("42", "40 + 2"))
    assert outcomes(root)[RUNS[0]][0] == "certified"
    toy.write_text(TOY.replace("42", "43"))
    git(root, "commit", "-qam", "other behaviour")
    run_notebook(root, Path("toy"), "demo", "jepa-seed0")
    toy.write_text(TOY.replace("42", "40 + 2"))
    assert staleness(root, RUNS[0]) and not staleness(root, RUNS[1])
    assert outcomes(root)[RUNS[0]] == ("stale", "report: answer: 43 -> 42")


def test_a_missing_base_is_one_sentence(root: Path):
    """As in a shallow clone."""
    (root / "src" / "sparsejepa" / "toy.py").write_text(TOY + "\n")
    with pytest.raises(ValueError, match="Revision 000000000000, .* is not in this clone") as error:
        outcomes(root, base="0" * 40)
    assert "\n" not in str(error.value)


def test_reports_run_again_and_are_compared(root: Path):
    """All numbers agree; an edited file or another number is named; what takes long is left."""
    assert {one[1:] for one in verify(root, "demo", 5.0)} == {("agrees", "1 numbers compared")}
    assert {one.state for one in verify(root, "demo", -1.0)} == {"not done"}
    folder = root / "book" / "runs" / RUNS[0]
    (folder / "results.json").write_text('{"answer": 41}')
    edited = (RUNS[0], "edited", "results.json is not what the run wrote")
    assert edited in verify(root, "demo", -1.0)
    seal_run(folder, read_json(folder / "manifest.json"))
    said = "1 numbers compared; answer: printed 41, computed 42"
    assert (RUNS[0], "differs", said) in verify(root, "demo", 5.0)


def left_by(tree: Path, weights: list[float], **results: object) -> Path:
    """The folder of a run in a tree, which read one training."""
    run, training = (tree / "book/runs/golden" / name for name in ("01/a", "trainings/a"))
    made = {"parameters": {"seed": 0, tree.name: 1}, "trainings": {"golden/trainings/a": {}}}
    write_json(run / "manifest.json", made)
    write_json(run / "results.json", results)
    training.mkdir(parents=True)
    save_file({"w": np.array(weights)}, training / "encoder.safetensors")
    return run


def test_what_is_compared_of_a_run(tmp_path: Path):
    """Tensors and numbers that the old code left; words, times and what came since are not."""
    kept, since = {"accuracy": [0.5, 1], "loss": 2.0, "note": "a"}, {"note": "b", "more": 3}
    old = left_by(tmp_path / "old", [1.0, np.nan, 2.0], **kept, seconds=1.0)
    new = left_by(tmp_path / "new", [1.0, np.nan, 2.0], **kept | since, seconds=2.0)
    assert compare_runs(old, new) == ({"tensors": 1, "numbers": 3}, {})
    other = left_by(tmp_path / "other", [1.0, 0.0, 3.0], loss=2, accuracy=[0.5])
    assert compare_runs(old, other)[1] == {
        "training": "encoder.safetensors > w > 1: nan -> 0.0",
        "report": "accuracy > 1: 1 -> None",
    }


def test_a_training_is_killed_at_its_first_checkpoint(tmp_path: Path, monkeypatch):
    """And goes on from there; the last words of a run that fails are kept."""
    (tmp_path / "book" / "runs").mkdir(parents=True)
    code = "import pathlib, time; file = pathlib.Path('book/runs/checkpoint.pt'); file.exists() or "
    code += "(file.touch(), time.sleep(600)); 1 / 0"
    monkeypatch.setattr(StudyRun, "command", [sys.executable, "-c", code])
    run = StudyRun("golden", "01_pretrain", "a", {}, ())
    words = f"{tmp_path.name} code: ZeroDivisionError: division by zero"
    assert _run_all(tmp_path, [run]) == {run.id: words}


def test_tolerances_depend_on_the_kind_of_number():
    """Counts and words are exact; accuracies may lose near-ties; smooth functions little."""
    assert agree("steps", 3, 3) and not agree("steps", 3, 4)
    for place, printed, near, far in (
        ("accuracy > jepa > kNN > value", 0.336, 0.339, 0.342),
        ("history > 3 > loss", 0.2, 0.2001, 0.201),
    ):
        assert agree(place, printed, near) and not agree(place, printed, far)
    assert not agree("method", "jepa", "mae") and not agree("missing", 0.1, None)

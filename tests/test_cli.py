"""The command line: what is wrong is one sentence on stderr, and the exit code says whose fault."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from sparsejepa.atomic_files import write_atomically
from sparsejepa.cli import app
from sparsejepa.companion import doctor, runs
from sparsejepa.companion.manifest import RunFailed
from sparsejepa.companion.parameters import parse_overrides
from tests.companion.tiny_repository import make_repository


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(make_repository(tmp_path / "checkout"))
    return Path.cwd()


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def test_a_users_mistake_is_one_sentence(root: Path):
    """Exit code 2, no traceback but with --debug, nothing made."""
    for option, value, message in (
        ("-p", "seed", "Write a parameter as name=value, not 'seed'"),
        ("--preset", "dmo", "no preset 'dmo'; the presets are demo"),
    ):
        result = call("run", "notebooks/toy.ipynb", option, value)
        assert result.exit_code == 2
        assert message in result.stderr and result.stderr.count("\n") == 1
        assert message in str(call("--debug", "run", "toy", option, value).exception)
    assert not (root / "book").exists()


def test_parameters_are_read_as_the_notebook_types_them(root: Path):
    """A word stays a word even where YAML sees a truth value or a number."""
    typed = ["method=a=yes", "seed=7", "rate=1e-3", "crash=true"]
    values = {"method": "a=yes", "seed": 7, "rate": 0.001, "crash": True}
    assert parse_overrides(root / "notebooks" / "toy.ipynb", typed) == values


@pytest.mark.parametrize(
    ("error", "code"),
    [(RunFailed("toy failed"), 1), (OSError("disk full"), 2), (KeyboardInterrupt(), 130)],
)
def test_exit_codes(root: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int):
    """A run that failed, a machine that is in the way, a user who pressed Ctrl-C."""

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(runs, "run_notebook", fail)
    result = call("run", "toy")
    assert result.exit_code == code
    assert result.stderr.count("\n") == 1


def test_what_cannot_be_written_is_one_sentence(root: Path, monkeypatch: pytest.MonkeyPatch):
    """With the place, before anything is run; of a sentence of ours just that."""
    (root / "book").touch()
    result = call("run", "toy")
    assert result.exit_code == 2
    assert str(root / "book") in result.stderr and "Not a directory" in result.stderr
    place = root / "notebooks"
    monkeypatch.setattr(runs, "run_notebook", lambda *_: write_atomically(place, b"content"))
    result = call("run", "toy")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"Could not save {place} (")
    assert result.stderr.endswith("writable folder, then run again to resume\n")


def test_never_more_runs_than_jobs(root: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs at a time share the cores."""
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(runs, "reproduce", lambda root, stale, *shared: asked.append(shared))
    for cores, jobs in (("8", "3"), ("2", "5")):
        call("reproduce", "--cores", cores, "--jobs", jobs)
    assert asked == [(3, 2), (2, 1)]


def test_a_dry_run_says_what_is_stale(root: Path):
    """With the reason, and makes nothing."""
    result = call("reproduce", "--dry-run")
    assert result.exit_code == 0
    why = "it has not been run yet (there is no manifest.json)"
    assert result.stdout.splitlines() == [f"demo/toy/jepa-seed{s} (train): {why}" for s in (0, 1)]
    assert not (root / "book").exists()


def test_outside_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The sentence says what to do."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sparsejepa.companion.provenance.__file__", str(tmp_path / "a.py"))
    result = call("doctor")
    assert result.exit_code == 2 and "clone the repository" in result.stderr


def test_doctor_finds_what_is_there(root: Path, monkeypatch: pytest.MonkeyPatch):
    """Versions that are not the tested ones; a data folder, with ~ or relative to the checkout."""
    monkeypatch.setenv("HOME", str(root / "home"))
    monkeypatch.setenv("SPARSEJEPA_DATA", "~/data")
    (root / "constraints.txt").write_text("# tested\npapermill==0.0.1\nnot-installed==1.0\n")
    for folder in (root / "home" / "data", root / "near"):
        (folder / "cifar100").mkdir(parents=True)
        (folder / "cifar100" / "train-0.parquet").touch()
    result = call("doctor")
    assert result.exit_code == 0, result.output
    assert "ok    Python 3." in result.stdout
    assert "has no test Parquet file" in result.stdout
    assert "(tested 0.0.1); for the tested ones: pip install -c" in result.stdout
    monkeypatch.chdir(root / "notebooks")
    for variable, folder in (("~/data", root / "home" / "data"), ("near", root / "near")):
        (folder / "cifar100" / "test-0.parquet").touch()
        monkeypatch.setenv("SPARSEJEPA_DATA", variable)
        assert "ok    data set cifar100: local Parquet" in call("doctor").stdout


def test_doctor_fails_on_what_prevents_runs(root: Path, monkeypatch: pytest.MonkeyPatch):
    """A missing package: exit code 1, and the command that mends it."""
    monkeypatch.setattr(doctor, "NEEDED", ("no-such-package",))
    result = call("doctor")
    assert result.exit_code == 1
    assert "fail  not installed: no-such-package: run pip install" in result.stdout

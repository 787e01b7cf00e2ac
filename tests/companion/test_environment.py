"""The checkout is found and described, and its place on this machine stays private."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from sparsejepa.companion.environment import commit, repository_root
from sparsejepa.companion.local_paths import remove_local_paths
from tests.companion.tiny_repository import make_repository


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(make_repository(tmp_path / "checkout"))
    return Path.cwd()


def test_the_commit_says_dirty(root: Path):
    """What differs from the commit counts, except runs."""

    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
        subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True)

    git("init")
    git("add", ".")
    git("commit", "-m", "A toy")
    clean = commit(root)
    assert re.fullmatch("[0-9a-f]{40}", clean)
    (root / "book" / "runs").mkdir(parents=True)
    (root / "book" / "runs" / "results.json").touch()
    assert commit(root) == clean
    (root / "src" / "sparsejepa" / "toy.py").write_text("")
    assert commit(root) == f"{clean}-dirty"


def test_a_checkout_is_found_from_inside_and_from_beside(
    root: Path, monkeypatch: pytest.MonkeyPatch
):
    """From a folder of it, and from the folder that it was cloned into, as on Colab."""
    monkeypatch.chdir(root / "notebooks")
    assert repository_root() == root
    module = root.parent / "elsewhere" / "environment.py"
    monkeypatch.setattr("sparsejepa.companion.environment.__file__", str(module))
    monkeypatch.chdir(root.parent)
    assert repository_root() == root
    shutil.rmtree(root)
    with pytest.raises(FileNotFoundError, match="clone the repository"):
        repository_root()


def test_local_paths_become_general(monkeypatch: pytest.MonkeyPatch):
    """The checkout's become relative, others lose what is private; look-alikes stay."""
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("SPARSEJEPA_DATA", "/disk/sets/")

    def seen(text: str) -> str:
        return remove_local_paths(text, Path("/home/me/code"))

    assert seen("/home/me/code/src/a.py, /home/me/code") == "src/a.py, ."
    assert seen("~/code/src/a.py and /home/me/x") == "src/a.py and ~/x"
    assert seen("/disk/sets/cifar100") == "$SPARSEJEPA_DATA/cifar100"
    assert seen("/tmp/of-me/ipykernel_1/2.py:3") == "2.py:3"
    assert seen("/home/me/code2/a /home/meow /var/tmp/x") == "~/code2/a /home/meow /var/tmp/x"

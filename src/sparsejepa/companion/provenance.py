"""What a run was made from: checkout, code, files, versions, hardware. Never users or hosts."""

import hashlib
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sparsejepa.companion.files import read_json

# The packages that a result may depend on, as their distributions are called.
PACKAGES = (
    *("torch", "torchvision", "timm", "accelerate", "safetensors", "datasets", "numpy", "scipy"),
    *("scikit-learn", "pandas", "matplotlib", "seaborn", "papermill"),
)
# Measured times: equal runs differ in them, so they are kept apart from results.
TIME = re.compile(r"(\w+_)?(seconds|minutes)(_\w+)?|images_per_second")


def repository_root() -> Path:
    """The checkout that holds `notebooks/` and `src/sparsejepa/`.

    Looked for from the working folder upwards, then from this file upwards (an editable install),
    then one level below the working folder (Colab, where a notebook starts beside its clone).

    Raises:
        FileNotFoundError: there is no checkout in any of these places.
    """
    here = Path.cwd()
    below = sorted(folder for folder in here.iterdir() if folder.is_dir())
    for folder in (here, *here.parents, *Path(__file__).resolve().parents, *below):
        if (folder / "notebooks").is_dir() and (folder / "src" / "sparsejepa").is_dir():
            return folder
    raise FileNotFoundError(
        "No checkout of the companion (a folder with notebooks/ and src/sparsejepa/) was found at "
        "or above the working folder: clone the repository and change into it first."
    )


def runs_root(root: Path) -> Path:
    """The folder of all runs in a checkout."""
    return root / "book" / "runs"


# Code ------------------------------------------------------------------------------------------


def git(root: Path, *arguments: str) -> str | None:
    """What git prints, or None where git or the repository is missing."""
    try:
        answer = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.rstrip()


def commit(root: Path) -> str:
    """The checkout's commit, with `-dirty` when code that runs differs from it; else "unknown"."""
    head = git(root, "rev-parse", "HEAD")
    if not head:
        return "unknown"
    return f"{head}-dirty" if uncommitted_code(root) else head


def uncommitted_code(root: Path) -> list[str]:
    """Files of `src/` and `notebooks/` that differ from the commit."""
    changes = git(root, "status", "--porcelain", "--untracked-files=all", "--", "src", "notebooks")
    return [line[3:] for line in (changes or "").splitlines() if "egg-info" not in line]


def tree_id(path: Path) -> str:
    """Git's id of a folder of Python files, or of one file; computed without git.

    `git rev-parse COMMIT:PATH` gives the same id for a folder whose files are all committed. The
    files on disk count, committed or not.
    """
    return _object_id(path).hex()


def _object_id(path: Path) -> bytes:
    if path.is_file():
        content, kind = path.read_bytes().replace(b"\r\n", b"\n"), b"blob"
    else:
        kept = [p for p in path.iterdir() if p.suffix == ".py" or _holds_python(p)]
        # Git sorts folders as if their names ended in a slash.
        kept.sort(key=lambda p: p.name + "/" * p.is_dir())
        content, kind = b"", b"tree"
        for item in kept:
            mode = b"40000" if item.is_dir() else b"100644"
            content += mode + b" " + item.name.encode() + b"\0" + _object_id(item)
    return hashlib.sha1(kind + b" %d\0" % len(content) + content, usedforsecurity=False).digest()


def _holds_python(path: Path) -> bool:
    return path.is_dir() and path.name != "__pycache__" and any(path.rglob("*.py"))


def library_tree(root: Path) -> str:
    """The id of the library's folder as it is on disk."""
    return tree_id(root / "src" / "sparsejepa")


def notebook_sha256(notebook: Path) -> str:
    """Of a notebook's code, cell by cell: prose and outputs do not count."""
    cells = read_json(notebook)["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return hashlib.sha256(json.dumps(code).encode()).hexdigest()


def code_of(root: Path, notebook: str) -> dict[str, str]:
    """What decides the numbers of a run besides parameters and inputs."""
    return {
        "library_tree": library_tree(root),
        "notebook_sha256": notebook_sha256(root / "notebooks" / f"{notebook}.ipynb"),
    }


# Files -----------------------------------------------------------------------------------------


def file_sha256(path: Path) -> str:
    """Of a file's content; line ends of text may change on their way through git."""
    content = path.read_bytes()
    if path.suffix in (".json", ".ipynb"):
        content = content.replace(b"\r\n", b"\n")
    return hashlib.sha256(content).hexdigest()


def seal(content: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping with a hash of itself, which tells a careless edit."""
    return {**content, "sha256": _own_sha256(content)}


def is_sealed(content: Mapping[str, Any]) -> bool:
    """Whether the mapping is what `seal` made."""
    return content.get("sha256") == _own_sha256(content)


def _own_sha256(content: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in content.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def file_hashes(folder: Path, leave_out: Iterable[str]) -> dict[str, str]:
    """SHA-256 of every file below a folder, by its path in it; hidden files do not count."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    names = sorted(
        path.as_posix()
        for path in paths
        if path.parts[0] not in leave_out and not any(part.startswith(".") for part in path.parts)
    )
    return {name: file_sha256(folder / name) for name in names}


def edits(folder: Path, sealed: Mapping[str, Any]) -> list[str]:
    """A sentence for each file that is gone or is not what was written."""
    if "files" not in sealed or "sha256" not in sealed:
        return ["its manifest lists no files, as those of older versions: run it again"]
    found = [] if is_sealed(sealed) else ["manifest.json is not what the run wrote"]
    for name, recorded in sealed["files"].items():
        path = folder / name
        if not path.is_file():
            found.append(f"{name} is no longer there")
        elif file_sha256(path) != recorded:
            found.append(f"{name} is not what the run wrote")
    return found


# Machine ---------------------------------------------------------------------------------------


def versions() -> dict[str, str]:
    """Versions of Python, this library and those of `PACKAGES` that are installed."""
    found = {"python": platform.python_version()}
    for name in ("sparsejepa", *PACKAGES):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, str | int | list[str]]:
    """CPU model, usable cores; GPUs and threads if PyTorch is loaded, which this never does."""
    facts: dict[str, str | int | list[str]] = {
        "system": platform.system(),
        "cpu": cpu_model(),
        "cores": cores(),
        "gpus": [],
    }
    torch = sys.modules.get("torch")
    if torch is not None:
        facts["threads"] = torch.get_num_threads()
        if torch.cuda.is_available():
            devices = range(torch.cuda.device_count())
            facts["gpus"] = [torch.cuda.get_device_name(device) for device in devices]
    return facts


def cpu_model() -> str:
    """The processor's name, as the system gives it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def cores() -> int:
    """Cores that this process may use, which containers and clusters limit."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def peak_memory_gb() -> float | None:
    """The largest resident memory of this process so far, in GB (10^9 bytes)."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts kibibytes, macOS bytes.
    return round(peak * (1 if sys.platform == "darwin" else 1024) / 1e9, 2)

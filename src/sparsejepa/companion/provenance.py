"""What a run was made from: checkout, code, files, versions, hardware. Never users or hosts."""

import hashlib
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sparsejepa.companion.files import read_json

# The packages that a result may depend on, as their distributions are called.
PACKAGES = (
    *("sparsejepa", "torch", "torchvision", "timm", "accelerate", "safetensors", "datasets"),
    *("numpy", "scipy", "scikit-learn", "pandas", "matplotlib", "seaborn", "papermill"),
)


def repository_root() -> Path:
    """The checkout that holds `notebooks/` and `src/sparsejepa/`; FileNotFoundError without one.

    It is at or above the working folder, or this file (an editable install), or one level below the
    working folder (Colab, where a notebook starts beside its clone).
    """
    here = Path.cwd()
    below = sorted(folder for folder in here.iterdir() if folder.is_dir())
    for folder in (here, *here.parents, *Path(__file__).resolve().parents, *below):
        if (folder / "notebooks").is_dir() and (folder / "src" / "sparsejepa").is_dir():
            return folder
    lacks = "No checkout was found at or above the working folder"
    raise FileNotFoundError(f"{lacks}: clone the repository and change into it first.")


def runs_root(root: Path) -> Path:
    """The folder of all runs in a checkout."""
    return root / "book" / "runs"


def notebook_path(root: Path, notebook: str | Path) -> Path:
    """The source of a notebook, given its name or a path."""
    return root / "notebooks" / f"{Path(notebook).name.removesuffix('.ipynb')}.ipynb"


def git(root: Path, *arguments: str) -> str:
    """What git prints; "" where git or the repository is missing."""
    command = ["git", "-C", str(root), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.rstrip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def commit(root: Path) -> str:
    """The checkout's commit, with `-dirty` when code that runs differs from it; else "unknown"."""
    head = git(root, "rev-parse", "HEAD")
    return f"{head}-dirty" if head and uncommitted_code(root) else head or "unknown"


def uncommitted_code(root: Path) -> list[str]:
    """Files of `src/` and `notebooks/` that differ from the commit."""
    changes = git(root, "status", "--porcelain", "--untracked-files=all", "--", "src", "notebooks")
    return [line[3:] for line in changes.splitlines()]


def code_of(root: Path, notebook: str) -> dict[str, str]:
    """What decides the numbers of a run besides parameters and inputs, as SHA-256."""
    library = file_hashes(root / "src" / "sparsejepa", ("__pycache__",), "*.py")
    cells = read_json(notebook_path(root, notebook))["cells"]
    # Prose and outputs do not count.
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return {"library_tree": _json_sha256(library), "notebook_sha256": _json_sha256(sources)}


def file_sha256(path: Path) -> str:
    """Of a file's content; line ends of text may change on their way through git."""
    content = path.read_bytes()
    if path.suffix in (".json", ".ipynb", ".py"):
        content = content.replace(b"\r\n", b"\n")
    return hashlib.sha256(content).hexdigest()


def file_hashes(folder: Path, leave_out: Iterable[str], pattern: str = "*") -> dict[str, str]:
    """SHA-256 of every file below a folder, by its path in it; hidden files do not count."""
    paths = (path.relative_to(folder) for path in folder.rglob(pattern) if path.is_file())
    shown = (p for p in paths if not any(part.startswith(".") for part in p.parts))
    names = sorted(p.as_posix() for p in shown if p.parts[0] not in leave_out)
    return {name: file_sha256(folder / name) for name in names}


def _json_sha256(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def seal(content: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping with a hash of itself, which tells a careless edit."""
    rest = {key: value for key, value in content.items() if key != "sha256"}
    return {**rest, "sha256": _json_sha256(rest)}


def listed_files(run_id: str, manifest: Mapping[str, Any]) -> dict[str, str]:
    """SHA-256 of every file of a run and of its trainings, by place in the folder of all runs."""
    folders = {run_id: manifest["files"], **manifest["trainings"]}
    return {f"{place}/{n}": sha for place, files in folders.items() for n, sha in files.items()}


def edits(runs: Path, run_id: str, manifest: Mapping[str, Any]) -> list[str]:
    """A sentence for each file of a run, and of its trainings, that is not what was written."""
    if manifest != seal(manifest):
        return ["manifest.json is not what the run wrote"]
    found = []
    for place, sha in listed_files(run_id, manifest).items():
        name = place.removeprefix(f"{run_id}/")
        if not (runs / place).is_file():
            found.append(f"{name} is no longer there")
        elif file_sha256(runs / place) != sha:
            found.append(f"{name} is not what the run wrote")
    return found


def installed(distribution: str) -> str:
    """Its version, "" where it is not there."""
    return next((d.version for d in importlib.metadata.distributions(name=distribution)), "")


def versions() -> dict[str, str]:
    """Versions of Python and those of `PACKAGES` that are installed."""
    found = {name: version for name in PACKAGES if (version := installed(name))}
    return {"python": platform.python_version(), **found}


def hardware() -> dict[str, Any]:
    """CPU model, usable cores; GPUs and threads if PyTorch is loaded, which this never does."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(encoding="utf-8", errors="replace") if cpuinfo.exists() else ""
    named = re.search(r"^model name[^:\n]*:(.*)$", text, re.MULTILINE)
    cpu = named[1].strip() if named else platform.processor() or platform.machine()
    # Containers and clusters limit the cores of a process.
    usable = getattr(os, "sched_getaffinity", lambda process: range(os.cpu_count() or 1))
    facts = {"system": platform.system(), "cpu": cpu, "cores": len(usable(0)), "gpus": []}
    if torch := sys.modules.get("torch"):
        facts["threads"] = torch.get_num_threads()
        devices = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
        facts["gpus"] = [torch.cuda.get_device_name(device) for device in devices]
    return facts


def remove_local_paths(value: Any, root: Path, also: Mapping[str, str] | None = None) -> Any:
    """A text, or a tree of JSON with texts, in which no path tells of this machine.

    Paths below the checkout become relative, folders of `also` what they map to; home, data and
    Python get a general name; of a temporary file its name is left.
    """
    if isinstance(value, Mapping):
        return {key: remove_local_paths(item, root, also) for key, item in value.items()}
    if isinstance(value, list):
        return [remove_local_paths(item, root, also) for item in value]
    if not isinstance(value, str):
        return value
    home, data = Path.home(), os.environ.get("SPARSEJEPA_DATA", "").rstrip("/")
    general = {str(root): ".", sys.prefix: "$PYTHON", str(home): "~", data: "$SPARSEJEPA_DATA"}
    if root.is_relative_to(home):
        # IPython shortens paths in tracebacks itself.
        general[f"~/{root.relative_to(home)}"] = "."
    general |= also or {}
    paths = "|".join(re.escape(p) for p in sorted(general, key=len, reverse=True) if len(p) > 1)
    whole = rf"(?<![\w.~-])({paths})(/|(?![\w-]|\.\w))"
    value = re.sub(whole, lambda found: (general[found[1]] + found[2]).removeprefix("./"), value)
    # Folders below may carry a user's name.
    temporary = "|".join({re.escape(tempfile.gettempdir()), "/tmp"})
    return re.sub(rf"(?<![\w.~-])(?:{temporary})/(?:[^\s/'\"<>:,)]+/)*", "", value)

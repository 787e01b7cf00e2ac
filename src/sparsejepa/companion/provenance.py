"""What a run was made from: checkout, code, files, versions, hardware. Never users or hosts."""

import hashlib
import importlib.metadata
import json
import os
import platform
import re
import resource
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

    Looked for from the working folder upwards, then from this file upwards (an editable install),
    then one level below the working folder (Colab, where a notebook starts beside its clone).
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


def notebook_path(root: Path, notebook: str) -> Path:
    """The source of a notebook of that name."""
    return root / "notebooks" / f"{notebook}.ipynb"


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
    return [line[3:] for line in changes.splitlines() if "egg-info" not in line]


def code_of(root: Path, notebook: str) -> dict[str, str]:
    """What decides the numbers of a run besides parameters and inputs, as SHA-256."""
    library = root / "src" / "sparsejepa"
    cells = read_json(notebook_path(root, notebook))["cells"]
    return {
        "library_tree": _json_sha256(file_hashes(library, ("__pycache__",), "*.py")),
        # Prose and outputs do not count.
        "notebook_sha256": _json_sha256(
            ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        ),
    }


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


def edits(runs: Path, run_id: str, manifest: Mapping[str, Any]) -> list[str]:
    """A sentence for each file of a run, and of its trainings, that is not what was written."""
    found = [] if manifest == seal(manifest) else ["manifest.json is not what the run wrote"]
    listed = {name: (f"{run_id}/{name}", sha) for name, sha in manifest.get("files", {}).items()}
    for place, files in manifest.get("trainings", {}).items():
        listed |= {f"{place}/{name}": (f"{place}/{name}", sha) for name, sha in files.items()}
    for name, (place, sha) in listed.items():
        if not (runs / place).is_file():
            found.append(f"{name} is no longer there")
        elif file_sha256(runs / place) != sha:
            found.append(f"{name} is not what the run wrote")
    return found


def installed(distribution: str) -> str:
    """Its version, "" where it is not there."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def versions() -> dict[str, str]:
    """Versions of Python and those of `PACKAGES` that are installed."""
    found = {"python": platform.python_version()} | {name: installed(name) for name in PACKAGES}
    return {name: version for name, version in found.items() if version}


def hardware() -> dict[str, Any]:
    """CPU model, usable cores; GPUs and threads if PyTorch is loaded, which this never does."""
    facts = {"system": platform.system(), "cpu": cpu_model(), "cores": cores(), "gpus": []}
    if torch := sys.modules.get("torch"):
        facts["threads"] = torch.get_num_threads()
        devices = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
        facts["gpus"] = [torch.cuda.get_device_name(device) for device in devices]
    return facts


def cpu_model() -> str:
    """The processor's name, as the system gives it."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(encoding="utf-8", errors="replace") if cpuinfo.exists() else ""
    named = re.search(r"^model name[^:\n]*:(.*)$", text, re.MULTILINE)
    return named[1].strip() if named else platform.processor() or platform.machine()


def cores() -> int:
    """Cores that this process may use, which containers and clusters limit."""
    limited = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if limited else os.cpu_count() or 1


def peak_memory_gb() -> float:
    """The largest resident memory of this process so far, in GB (10^9 bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts kibibytes, macOS bytes.
    return round(peak * (1 if sys.platform == "darwin" else 1024) / 1e9, 2)


def remove_local_paths(value: Any, root: Path, also: Mapping[str, str] | None = None) -> Any:
    """A text, or a tree of JSON with texts, in which no path tells of this machine.

    Paths below the checkout become relative, the folders of `also` what they map to, the home
    folder, that of the data and Python's get a general name; of a temporary file its name is left.
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
    for path in sorted(general, key=len, reverse=True):
        if len(path) > 1:
            # Where it is a whole path, not a part of a longer name.
            whole, name = r"(?<![\w.~-])" + re.escape(path), general[path]
            value = re.sub(whole + "/", "" if name == "." else f"{name}/", value)
            value = re.sub(whole + r"(?![\w-]|\.\w)", name, value)
    # The folders below a temporary one may carry a user's name.
    temporary = "|".join({re.escape(tempfile.gettempdir()), "/tmp"})
    return re.sub(rf"(?<![\w.~-])(?:{temporary})/(?:[^\s/'\"<>:,)]+/)*", "", value)

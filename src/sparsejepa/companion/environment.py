"""Where and with what a run was made: checkout, versions, hardware. Never paths, users or hosts."""

import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path

# The packages that a result may depend on, as their distributions are called.
PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "accelerate",
    "safetensors",
    "datasets",
    "numpy",
    "scipy",
    "scikit-learn",
    "pandas",
    "matplotlib",
    "seaborn",
    "papermill",
)


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


def commit(root: Path) -> str:
    """The checkout's commit, with `-dirty` when files differ from it, or "unknown" without git.

    `book/runs` does not count: a study writes there, and its second run is as clean as its first.
    """
    changes = _git(root, "status", "--porcelain", "--", ".", ":(exclude)book/runs")
    head = _git(root, "rev-parse", "HEAD")
    if not head or changes is None:
        return "unknown"
    return f"{head}-dirty" if changes else head


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


def _git(root: Path, *arguments: str) -> str | None:
    try:
        answer = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.strip()

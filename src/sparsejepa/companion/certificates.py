"""Which other code a run is known to be the same for: `book/runs/certificates.json`.

`sparsejepa certify` writes it. A certificate says that a run made by one tree is what another tree
computes: a size-reduced copy of it, run in both on one machine, gave the same numbers to the bit.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparsejepa.companion.files import read_json, write_json
from sparsejepa.companion.provenance import code_of, is_sealed, runs_root, seal

# Parts of a run that are valid apart: a training outlives a changed report of it.
TRAINING, REPORT = "training", "report"


def read_certificates(root: Path) -> dict[str, Any]:
    """Certificates by the run's id, `preset/notebook/run`.

    Raises:
        ValueError: the file was edited by hand.
    """
    path = runs_root(root) / "certificates.json"
    if not path.is_file():
        return {}
    content = read_json(path)
    if not is_sealed(content):
        raise ValueError(
            "book/runs/certificates.json is not what `sparsejepa certify` wrote: put the committed "
            "file back, or delete it and run `sparsejepa certify`."
        )
    return content["certificates"]


def write_certificates(root: Path, certificates: Mapping[str, Any]) -> None:
    """Replaces the file.

    Raises:
        OSError: it cannot be written.
    """
    ordered = {name: certificates[name] for name in sorted(certificates)}
    write_json(runs_root(root) / "certificates.json", seal({"certificates": ordered}))


def certificate_of(root: Path, run_id: str, part: str = REPORT) -> dict[str, Any] | None:
    """The certificate that makes a run, or its training alone, valid for the code on disk."""
    found = read_certificates(root).get(run_id)
    if found is None or part not in found["parts"]:
        return None
    now = code_of(root, run_id.split("/")[1])
    wanted = now if part == REPORT else {"library_tree": now["library_tree"]}
    return found if wanted.items() <= found["valid_for"].items() else None

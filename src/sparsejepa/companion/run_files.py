"""What a finished run is made of: a hash of each file and of the manifest, kept in the manifest.

Without them, a number that somebody edits would go on carrying the run's provenance. They find
accidents and careless edits, not forgery: who edits a file can seal the run again. That is for
`sparsejepa verify`, which computes the numbers again.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparsejepa.companion.attempts import KEPT
from sparsejepa.companion.files import read_json, write_json

MANIFEST = "manifest.json"
FILES, SELF = "files", "manifest_sha256"
# Line ends in these may change on their way through git.
TEXT = (".json", ".ipynb")


def seal(run_folder: Path) -> None:
    """Writes into the run's manifest which files lie beside it now.

    Raises:
        FileNotFoundError: the run has no manifest, so it is not finished.
        OSError: the folder cannot be written.
    """
    path = run_folder / MANIFEST
    write_json(path, sealed(run_folder, read_json(path)))


def sealed(run_folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest with the hashes of the run's files, and with its own."""
    files = {name: _file_sha256(run_folder / name) for name in _names(run_folder)}
    whole = {key: value for key, value in manifest.items() if key != SELF} | {FILES: files}
    return whole | {SELF: _manifest_sha256(whole)}


def edits(run_folder: Path, manifest: Mapping[str, Any]) -> list[str]:
    """A sentence for each file of the run that is gone or is not what the run wrote.

    Other files in the folder do not count: systems put their own everywhere.
    """
    if FILES not in manifest or SELF not in manifest:
        return ["its manifest lists no files, as those of older versions: run it again"]
    found = []
    if _manifest_sha256(manifest) != manifest[SELF]:
        found.append(f"{MANIFEST} is not what the run wrote")
    for name, recorded in manifest[FILES].items():
        path = run_folder / name
        if not path.is_file():
            found.append(f"{name} is no longer there")
        elif _file_sha256(path) != recorded:
            found.append(f"{name} is not what the run wrote")
    return found


def _names(run_folder: Path) -> list[str]:
    """Files of the run by their path in its folder, without what an attempt keeps for itself."""
    paths = (path.relative_to(run_folder) for path in run_folder.rglob("*") if path.is_file())
    return sorted(
        path.as_posix()
        for path in paths
        if path.parts[0] not in (MANIFEST, *KEPT)
        and not any(part.startswith(".") for part in path.parts)
    )


def _file_sha256(path: Path) -> str:
    content = path.read_bytes()
    if path.suffix in TEXT:
        content = content.replace(b"\r\n", b"\n")
    return hashlib.sha256(content).hexdigest()


def _manifest_sha256(manifest: Mapping[str, Any]) -> str:
    """Of all but the hash itself, whatever the order of keys and the layout of the file."""
    content = {key: value for key, value in manifest.items() if key != SELF}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

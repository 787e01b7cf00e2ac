"""Files written whole or not at all: a reader, or the next run, never sees half of one."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_with(path: Path, write: Callable[[Path], Any]) -> None:
    """Lets `write` fill a temporary file beside `path`, then puts it in place in one step.

    Raises:
        OSError: the folder can't be written or the disk is full; an earlier file is untouched.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=f".{path.name}")
        os.close(handle)
        temporary = Path(name)
        write(temporary)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        # mkstemp keeps others from reading; what a run leaves behind is an ordinary file.
        temporary.chmod(0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(
            error.errno,
            f"Could not save {path} ({error.strerror or error}); what was saved before is intact. "
            f"Free some disk space or choose a writable folder, then run again to resume",
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Replaces `path` by `content` in one step.

    Raises:
        OSError: as `write_with`.
    """
    write_with(path, lambda temporary: temporary.write_bytes(content))

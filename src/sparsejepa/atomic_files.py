"""Files written whole or not at all: a reader, or the next run, never sees half of one."""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, SoftFileLock, Timeout


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


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds a lock on a folder; where the file system has no locks, a lock file alone.

    Raises:
        ValueError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for kind in (FileLock, SoftFileLock):
        lock = kind(folder / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise ValueError(
                f"Another process is making this run (in {folder}): wait for it or stop it."
            ) from error
        except (NotImplementedError, OSError):
            if kind is SoftFileLock:
                raise
            continue
        break
    try:
        yield
    finally:
        lock.release()

"""Encoded images from a folder, Parquet files or the Hugging Face Hub, one at a time."""

import functools
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sparsejepa.data.decoding import Unreadable
from sparsejepa.data.image_set import first_line, image_column

# What a folder is searched for; other files in it are no images.
ENDINGS = frozenset(".avif .bmp .gif .jpeg .jpg .jp2 .png .ppm .pgm .tif .tiff .webp".split())


@dataclass(frozen=True)
class Source:
    """Encoded images by number."""

    name: str  # where they are
    paths: list[str]  # what each one is called; unique, in a fixed order
    read: Callable[[int], bytes]  # raises OSError or Unreadable
    left_out: str = ""  # sentences on what was taken for no images


def readable(name: object) -> str:
    """A file's name as text; bytes that are not UTF-8 become \\xNN, whatever the locale."""
    return str(name).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def open_source(images: str, split: str = "train") -> Source:
    """A folder of images or Parquet files (and the folders in it), a Parquet file, or a Hub set.

    Args:
        images: a path, or the Hub's name of a data set, as "name" or "name:configuration".
        split: of a data set on the Hub; "test", "validation", ...

    Raises:
        FileNotFoundError: there are no images there.
        ConnectionError: the Hub did not give the data set.
        ValueError: a Parquet file is damaged, or it is unclear which column has the images.
    """
    path = Path(images).expanduser()
    if path.is_dir():
        return _folder(path)
    if path.is_file():
        return _parquet([path], path.parent, readable(path.resolve()))
    name, _, configuration = images.partition(":")
    if path.suffix.lower() in (".parquet", *ENDINGS) or not 1 <= len(name.split("/")) <= 2:
        raise FileNotFoundError(f"There is no folder, Parquet file or data set {images!r}.")
    return _hub(name, configuration or None, split)


def _folder(folder: Path) -> Source:
    found, notes = _files(folder)
    files = [file for file in found if file.suffix.lower() in ENDINGS]
    tables = [file for file in found if file.suffix.lower() == ".parquet"]
    name = readable(folder.resolve())
    if tables and not files:
        return replace(_parquet(tables, folder, name), left_out=" ".join(notes))
    if not files:
        endings = f"files must end in {', '.join(sorted(ENDINGS))}, or all be .parquet."
        raise FileNotFoundError(" ".join([f"There are no images in {folder}: {endings}", *notes]))
    if others := [file.suffix.lower() for file in found if file.suffix.lower() not in ENDINGS]:
        kinds = ", ".join(sorted({readable(ending) or "no ending" for ending in others})[:10])
        notes.insert(0, f"{len(others):,} other files in the folder were left out ({kinds}).")
    paths = _unique([file.relative_to(folder).as_posix() for file in files])
    return Source(name, paths, lambda index: files[index].read_bytes(), " ".join(notes))


def _files(folder: Path) -> tuple[list[Path], list[str]]:
    """Files that are not hidden, each real folder once: linked ones after all others, no loops."""
    found, seen, notes = [], set(), []
    todo = deque([folder])
    while todo:
        here = todo.popleft()
        try:
            real = here.resolve(strict=True)
            inside = sorted(here.iterdir()) if real not in seen else []
        except (OSError, RuntimeError):
            notes.append(f"The folder {readable(here.relative_to(folder))} cannot be opened.")
            continue
        seen.add(real)
        for path in (path for path in inside if not path.name.startswith(".")):
            if path.is_dir():
                todo.append(path) if path.is_symlink() else todo.appendleft(path)
            elif path.is_file():
                found.append(path)
            elif path.is_symlink():
                link = readable(path.relative_to(folder))
                notes.append(f"{link} is a broken link and is left out.")
    return sorted(found), notes


def _unique(names: Sequence[str]) -> list[str]:
    """Readable names, of which no two are equal; those that are readable keep themselves."""
    taken = {name for name in names if readable(name) == name}
    paths = []
    for name in names:
        path, count = readable(name), 1
        while path != name and path in taken:
            count += 1
            path = f"{readable(name)} ({count})"
        taken.add(path)
        paths.append(path)
    return paths


def _parquet(files: Sequence[Path], folder: Path, name: str) -> Source:
    """Row groups are read one at a time: the files may be larger than the memory."""
    paths: list[str] = []
    places: list[tuple[Path, str, int, int]] = []  # file, column, row group, row in it
    labels = _unique([file.relative_to(folder).as_posix() for file in files])
    for file, label in zip(files, labels, strict=True):
        try:
            with file.open("rb") as opened:
                table = pq.ParquetFile(opened)
                sizes = [table.metadata.row_group(g).num_rows for g in range(table.num_row_groups)]
        except (pa.ArrowException, OSError) as error:
            raise ValueError(
                f"{file} is neither a folder of images nor a whole Parquet file "
                f"({first_line(error)})."
            ) from error
        column = image_column(table.schema_arrow.empty_table(), readable(file))
        rows = [(group, row) for group, size in enumerate(sizes) for row in range(size)]
        paths += [f"{label}#{number}" for number in range(len(rows))]
        places += [(file, column, *place) for place in rows]

    @functools.lru_cache(maxsize=1)
    def cells(file: Path, column: str, group: int) -> pa.ChunkedArray:
        with file.open("rb") as opened:
            return pq.ParquetFile(opened).read_row_group(group, [column])[column]

    def read(index: int) -> bytes:
        *place, row = places[index]
        try:
            return _content(cells(*place)[row].as_py(), place[0].parent)
        except pa.ArrowException as error:
            raise Unreadable(
                f"its part of the file cannot be read ({first_line(error)})"
            ) from error

    return Source(name, paths, read)


def _content(cell: Mapping[str, bytes | str | None] | bytes | None, folder: Path) -> bytes:
    """The encoded image of a cell, which may hold a path alone, absolute or from the folder."""
    cell = {"bytes": cell} if isinstance(cell, bytes) else cell or {}
    if cell.get("bytes"):
        return cell["bytes"]
    if not cell.get("path"):
        raise Unreadable("its cell is empty")
    file = folder / cell["path"]
    if not file.is_file():
        raise Unreadable(f"its row holds a path alone, {cell['path']}, where there is no file")
    return file.read_bytes()


def _hub(name: str, configuration: str | None, split: str) -> Source:
    # Slow to import, and not needed for local files.
    import datasets

    try:
        found = datasets.load_dataset(name, configuration, split=split)
    except Exception as error:  # the client raises some twenty types for "no network" alone
        raise ConnectionError(
            f"{name!r} is no folder or file here, and the Hub did not give its split {split!r} "
            f"({first_line(error)}). A configuration is named as {name}:CONFIGURATION."
        ) from error
    column = image_column(found.data.table, f"{name} on the Hub")
    if isinstance(found.features[column], datasets.Image):
        found = found.cast_column(column, datasets.Image(decode=False))
    place = f"{name}:{configuration}" if configuration else name
    paths = [f"{split}#{row}" for row in range(len(found))]
    return Source(
        f"Hub {place}, {split}", paths, lambda index: _content(found[index][column], Path())
    )

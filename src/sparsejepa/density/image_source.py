"""Encoded images from a folder, Parquet files or the Hugging Face Hub, one at a time."""

import os
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from sparsejepa.data.decoding import Unreadable, first_line
from sparsejepa.data.image_set import image_column

# What a folder is searched for; other files in it are no images.
ENDINGS = frozenset(".avif .bmp .gif .jpeg .jpg .jp2 .png .ppm .pgm .tif .tiff .webp".split())

Images = dict[str, Callable[[], bytes]]  # raise OSError or Unreadable


class Source(NamedTuple):
    """Encoded images."""

    name: str  # where they are
    images: Images  # what each one is called: file, file#row in Parquet, split#row on the Hub
    notes: list[str]  # sentences on what was taken for no images


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
    if path.is_file():
        return Source(readable(path.resolve()), _rows([path], path.parent), [])
    if path.is_dir():
        return _folder(path)
    name = images.partition(":")[0]
    if path.suffix.lower() in (".parquet", *ENDINGS) or not 1 <= len(name.split("/")) <= 2:
        raise FileNotFoundError(f"There is no folder, Parquet file or data set {images!r}.")
    return _hub(images, split)


def _folder(folder: Path) -> Source:
    found, notes = _files(folder)
    files = [file for file in found if file.suffix.lower() in ENDINGS]
    tables = [file for file in found if file.suffix.lower() == ".parquet"]
    name = readable(folder.resolve())
    if tables and not files:
        return Source(name, _rows(tables, folder), notes)
    if not files:
        endings = f"files must end in {', '.join(sorted(ENDINGS))}, or all be .parquet."
        raise FileNotFoundError(" ".join([f"There are no images in {folder}: {endings}", *notes]))
    if others := [file.suffix.lower() for file in found if file.suffix.lower() not in ENDINGS]:
        kinds = ", ".join(sorted({readable(ending) or "no ending" for ending in others})[:10])
        notes.insert(0, f"{len(others):,} other files in the folder were left out ({kinds}).")
    return Source(name, {name: file.read_bytes for name, file in _named(files, folder)}, notes)


def _files(folder: Path) -> tuple[list[Path], list[str]]:
    """Files that are not hidden, each real folder once: linked ones after all others, no loops."""
    found, seen, todo, closed = [], set(), [folder], []
    for top in todo:
        for place, inside, names in os.walk(top, onerror=closed.append):
            here = Path(place)
            inside[:] = sorted(name for name in inside if not name.startswith("."))
            if here.resolve() in seen:
                inside.clear()
                continue
            seen.add(here.resolve())
            found += [here / name for name in names if not name.startswith(".")]
            todo += [here / name for name in inside if (here / name).is_symlink()]
    notes = [f"The folder {readable(error.filename)} cannot be opened." for error in closed]
    broken = [path for path in sorted(found) if path.is_symlink() and not path.exists()]
    notes += [f"{readable(p.relative_to(folder))} is a broken link and left out." for p in broken]
    return sorted(path for path in found if path.is_file()), notes


def _named(files: Iterable[Path], folder: Path) -> Iterable[tuple[str, Path]]:
    """Readable names within the folder, no two equal; names that are readable stay as they are."""
    names = {file: file.relative_to(folder).as_posix() for file in files}
    taken = {name for name in names.values() if readable(name) == name}
    for file, name in names.items():
        unique, count = readable(name), 1
        while unique != name and unique in taken:
            count += 1
            unique = f"{readable(name)} ({count})"
        taken.add(unique)
        yield unique, file


def _rows(files: Iterable[Path], folder: Path) -> Images:
    """Row groups are read one at a time: the files may be larger than the memory."""

    @lru_cache(maxsize=1)
    def cells(file: Path, column: str, group: int) -> pa.ChunkedArray:
        with file.open("rb") as opened:
            return pq.ParquetFile(opened).read_row_group(group, [column])[column]

    def read(file: Path, column: str, group: int, row: int) -> bytes:
        try:
            return _content(cells(file, column, group)[row].as_py(), file.parent)
        except pa.ArrowException as error:
            raise Unreadable(f"its part of the file is damaged ({first_line(error)})") from error

    images: Images = {}
    for name, file in _named(files, folder):
        try:
            with file.open("rb") as opened:
                table = pq.ParquetFile(opened)
                sizes = [table.metadata.row_group(g).num_rows for g in range(table.num_row_groups)]
        except (pa.ArrowException, OSError) as error:
            raise ValueError(
                f"{file} is neither a folder of images nor a whole Parquet file "
                f"({first_line(error)})."
            ) from error
        column = image_column(table.schema_arrow, readable(file))
        places = [(group, row) for group, size in enumerate(sizes) for row in range(size)]
        for number, place in enumerate(places):
            images[f"{name}#{number}"] = partial(read, file, column, *place)
    return images


def _content(cell: Mapping[str, Any] | bytes | None, folder: Path) -> bytes:
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


def _hub(name: str, split: str) -> Source:
    # Slow to import, and not needed for local files.
    import datasets

    repository, _, configuration = name.partition(":")
    try:
        found = datasets.load_dataset(repository, configuration or None, split=split)
    except Exception as error:  # the client raises some twenty types for "no network" alone
        raise ConnectionError(
            f"{repository!r} is no folder or file here, and the Hub did not give its split "
            f"{split!r} ({first_line(error)}). A configuration is named as NAME:CONFIGURATION."
        ) from error
    column = image_column(found.data.schema, f"{repository} on the Hub")
    if isinstance(found.features[column], datasets.Image):
        found = found.cast_column(column, datasets.Image(decode=False))

    def read(row: int) -> bytes:
        return _content(found[row][column], Path())

    images = {f"{split}#{row}": partial(read, row) for row in range(len(found))}
    return Source(f"Hub {name}, {split}", images, [])

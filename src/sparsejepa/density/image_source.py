"""Encoded images from a folder, Parquet files or the Hugging Face Hub, one at a time."""

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache, partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sparsejepa.data.decoding import Unreadable
from sparsejepa.data.image_set import image_column
from sparsejepa.errors import in_short

# What a folder is searched for; other files in it are no images.
ENDINGS = frozenset(".avif .bmp .gif .jpeg .jpg .jp2 .png .ppm .pgm .tif .tiff .webp".split())

# What reads an image, by its name: file, file#row in Parquet, split#row on the Hub.
Images = dict[str, Callable[[], bytes]]


def readable(name: object) -> str:
    """A file's name as text; bytes that are not UTF-8 become \\xNN, whatever the locale."""
    return str(name).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def open_source(images: str, split: str = "train") -> tuple[str, Images]:
    """The place of the images, and what reads each of them; prints what it leaves out.

    `images` is a folder, a Parquet file, a folder of such files, or a data set on the Hub as "name"
    or "name:configuration", of which `split` is taken.

    FileNotFoundError: there are no images there; ConnectionError: the Hub did not give the data
    set; ValueError: a Parquet file is damaged, or it is unclear which column has the images.
    """
    path = Path(images).expanduser()
    if path.is_file():
        return readable(path.resolve()), _rows([path], path.parent)
    if path.is_dir():
        return readable(path.resolve()), _folder(path)
    return f"Hub {images}, {split}", _hub(images, split)


def _folder(folder: Path) -> Images:
    """Files that are not hidden, of each real folder once, whatever links lead to it."""
    found, seen = [], set()

    def closed(error: OSError) -> None:
        print(f"The folder {readable(error.filename)} cannot be opened.")

    for place, inside, names in os.walk(folder, onerror=closed, followlinks=True):
        new = os.path.realpath(place) not in seen
        seen.add(os.path.realpath(place))
        inside[:] = sorted(name for name in inside if new and not name.startswith("."))
        found += [Path(place, name) for name in names if new and not name.startswith(".")]
    files = sorted(file for file in found if file.suffix.lower() in ENDINGS)
    tables = sorted(file for file in found if file.suffix.lower() == ".parquet")
    if not files and tables:
        return _rows(tables, folder)
    if not files:
        endings = f"files must end in {', '.join(sorted(ENDINGS))}, or all be .parquet."
        raise FileNotFoundError(f"There are no images in {folder}: {endings}")
    if others := sorted(file.suffix.lower() or "no ending" for file in set(found) - set(files)):
        kinds = readable(", ".join(dict.fromkeys(others)))
        print(f"{len(others):,} other files in the folder were left out ({kinds}).")
    return {name: file.read_bytes for name, file in _named(files, folder)}


def _named(files: Iterable[Path], folder: Path) -> Iterator[tuple[str, Path]]:
    """Readable names within the folder, no two equal; names that are readable stay as they are."""
    names = {file: file.relative_to(folder).as_posix() for file in files}
    taken = {name for name in names.values() if readable(name) == name}
    for file, name in names.items():
        unique, numbers = readable(name), itertools.count(2)
        while unique != name and unique in taken:
            unique = f"{readable(name)} ({next(numbers)})"
        taken.add(unique)
        yield unique, file


def _rows(files: Iterable[Path], folder: Path) -> Images:
    """Row groups are read one at a time: the files may be larger than the memory."""

    @lru_cache(maxsize=1)
    def cells(file: Path, column: str, group: int) -> pa.ChunkedArray:
        # pyarrow itself refuses names that are not UTF-8.
        with file.open("rb") as opened:
            return pq.ParquetFile(opened).read_row_group(group, [column])[column]

    images: Images = {}
    for title, file in _named(files, folder):
        try:
            with file.open("rb") as opened:
                table = pq.ParquetFile(opened).metadata
        except (pa.ArrowException, OSError) as error:
            what = f"{file} is neither a folder of images nor a whole Parquet file"
            raise ValueError(f"{what} ({in_short(error)}).") from error
        column, first = image_column(table.schema.to_arrow_schema(), readable(file)), len(images)
        for group in range(table.num_row_groups):
            own = partial(cells, file, column, group)
            for row in range(table.row_group(group).num_rows):
                images[f"{title}#{len(images) - first}"] = partial(_content, own, row, file.parent)
    return images


def _hub(name: str, split: str) -> Images:
    # Slow to import, and not needed for local files.
    import datasets

    repository, _, configuration = name.partition(":")
    try:
        found = datasets.load_dataset(repository, configuration or None, split=split)
    except Exception as error:  # the client raises some twenty types for "no network" alone
        what = f"{name!r} is no folder or file here, and the Hub did not give its split {split!r}"
        advice = "A configuration is named as NAME:CONFIGURATION."
        raise ConnectionError(f"{what} ({in_short(error)}). {advice}") from error
    column = image_column(found.data.schema, f"{repository} on the Hub")
    cells = partial(found.data.column, column)
    return {f"{split}#{row}": partial(_content, cells, row, Path()) for row in range(len(found))}


def _content(cells: Callable[[], pa.ChunkedArray], row: int, folder: Path) -> bytes:
    """The encoded image of a cell, which may hold a path alone, absolute or from the folder."""
    cell = cells()[row].as_py()
    cell = cell if isinstance(cell, Mapping) else {"bytes": cell}
    if cell["bytes"]:
        return cell["bytes"]
    if not cell.get("path"):
        raise Unreadable("its cell is empty")
    return (folder / cell["path"]).read_bytes()

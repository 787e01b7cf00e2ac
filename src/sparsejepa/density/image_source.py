"""Encoded images from a folder, Parquet files or the Hugging Face Hub, one at a time."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sparsejepa.data.decoding import Unreadable

# What a folder is searched for; other files in it are no images.
ENDINGS = frozenset(".avif .bmp .gif .jpeg .jpg .jp2 .png .ppm .pgm .tif .tiff .webp".split())


@dataclass(frozen=True)
class Source:
    """Encoded images by number."""

    name: str  # where they are
    paths: list[str]  # what each one is called; unique, in a fixed order
    read: Callable[[int], bytes]  # raises OSError or Unreadable
    left_out: str = ""  # sentences on what was taken for no images


def readable(name: str) -> str:
    """A file's name as text; bytes that are not UTF-8 become \\xNN, whatever the locale."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def open_source(images: str, split: str = "train") -> Source:
    """A folder of images or Parquet files (and the folders in it), a Parquet file, or a Hub set.

    Args:
        images: a path, or the Hub's name of a data set, as "name" or "name:configuration".
        split: of a data set on the Hub; "test", "validation", ...

    Raises:
        FileNotFoundError: there are no images there.
        ConnectionError: the Hub did not give the data set.
        ValueError: a Parquet file is damaged or has no column of images.
    """
    path = Path(images).expanduser()
    if path.is_dir():
        return _folder(path)
    if path.is_file():
        return _parquet([path], path.parent, str(path.resolve()))
    name, _, configuration = images.partition(":")
    if path.suffix.lower() in (".parquet", *ENDINGS) or not 1 <= len(name.split("/")) <= 2:
        raise FileNotFoundError(f"There is no folder, Parquet file or data set {images!r}.")
    return _hub(name, configuration or None, split)


def _folder(folder: Path) -> Source:
    found, notes = _files(folder)
    files = [file for file in found if file.suffix.lower() in ENDINGS]
    tables = [file for file in found if file.suffix.lower() == ".parquet"]
    name = readable(str(folder.resolve()))
    if tables and not files:
        source = _parquet(tables, folder, name)
        return replace(source, left_out=" ".join(notes))
    if not files:
        raise FileNotFoundError(
            f"There are no images in {folder}: files must end in {', '.join(sorted(ENDINGS))}, or "
            "all be .parquet."
        )
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
            if here == folder:
                raise
            notes.append(f"The folder {readable(str(here.relative_to(folder)))} cannot be opened.")
            continue
        seen.add(real)
        for path in inside:
            if path.name.startswith("."):
                continue
            if path.is_dir():
                todo.append(path) if path.is_symlink() else todo.appendleft(path)
            elif path.is_file():
                found.append(path)
            elif path.is_symlink():
                link = readable(path.relative_to(folder).as_posix())
                notes.append(f"{link} is a broken link and is left out.")
    return sorted(found), notes


def _unique(names: Sequence[str]) -> list[str]:
    """Readable names, of which no two are equal."""
    counts: dict[str, int] = {}
    # Names that are readable as they are keep themselves.
    taken = {name for name in names if readable(name) == name}
    paths = []
    for name in names:
        path = readable(name)
        while path != name and path in taken:
            counts[name] = counts.get(name, 1) + 1
            path = f"{readable(name)} ({counts[name]})"
        taken.add(path)
        paths.append(path)
    return paths


def _parquet(files: Sequence[Path], folder: Path, name: str) -> Source:
    """Row groups are read one at a time: the files may be larger than the memory."""
    groups: list[tuple[int, Path, int]] = []  # first image, file, row group
    paths: list[str] = []
    columns: dict[Path, str] = {}
    names = _unique([file.relative_to(folder).as_posix() for file in files])
    for file, label in zip(files, names, strict=True):
        try:
            with file.open("rb") as opened:
                table = pq.ParquetFile(opened)
                columns[file] = _image_column(table.schema_arrow, readable(str(file)))
                sizes = [table.metadata.row_group(g).num_rows for g in range(table.num_row_groups)]
        except (pa.ArrowException, OSError) as error:
            raise ValueError(
                f"{file} is neither a folder of images nor a whole Parquet file ({_short(error)})."
            ) from error
        before = len(paths)
        for group, size in enumerate(sizes):
            groups.append((len(paths), file, group))
            paths += [f"{label}#{len(paths) - before + row}" for row in range(size)]
    held: dict[int, pa.ChunkedArray] = {}

    def read(index: int) -> bytes:
        number = max(n for n, (first, _, _) in enumerate(groups) if first <= index)
        first, file, group = groups[number]
        if number not in held:
            held.clear()
            column = columns[file]
            try:
                with file.open("rb") as opened:
                    held[number] = pq.ParquetFile(opened).read_row_group(group, [column])[column]
            except pa.ArrowException as error:
                raise Unreadable(
                    f"its part of the file cannot be read ({_short(error)})"
                ) from error
        return _content(held[number][index - first].as_py(), file.parent)

    return Source(name, paths, read)


def _image_column(schema: pa.Schema, place: str) -> str:
    """`img` or `image` if they hold encoded images, else the first column that does."""
    for name in sorted(schema.names, key=lambda name: name not in ("img", "image")):
        kind = schema.field(name).type
        encoded = pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
        if encoded or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            return name
    raise ValueError(
        f"There is no image column in {place}: it has {', '.join(schema.names)}, and one of "
        "encoded images is needed (binary, or a struct with the field 'bytes')."
    )


def _content(cell: Mapping[str, bytes | str | None] | bytes | None, folder: Path) -> bytes:
    """The encoded image of a cell, which may hold a path alone, absolute or from the folder."""
    if isinstance(cell, bytes):
        cell = {"bytes": cell}
    cell = cell or {}
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
            f"({_short(error)}). A configuration is named as {name}:CONFIGURATION."
        ) from error
    column = _image_column(found.data.table.schema, f"{name} on the Hub")
    if isinstance(found.features[column], datasets.Image):
        found = found.cast_column(column, datasets.Image(decode=False))
    place = f"{name}:{configuration}" if configuration else name
    return Source(
        f"Hub {place}, {split}",
        [f"{split}#{row}" for row in range(len(found))],
        lambda index: _content(found[index][column], Path()),
    )


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__

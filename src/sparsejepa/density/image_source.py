"""Encoded images from a folder, Parquet files or the Hugging Face Hub, one at a time."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sparsejepa.data.image_set import first_line, image_column

# What a folder is searched for; other files in it are no images.
ENDINGS = frozenset(".avif .bmp .gif .jpeg .jpg .jp2 .png .ppm .pgm .tif .tiff .webp".split())


@dataclass(frozen=True)
class Source:
    """Images by number."""

    name: str  # where they are
    paths: list[str]  # what each one is called; unique, in a fixed order
    read: Callable[[int], bytes]  # the encoded image; b"" if there is none
    left_out: str = ""  # a sentence on files that were taken for no images


def open_source(images: str, split: str = "train") -> Source:
    """A folder (and the folders in it), a Parquet file, or a data set on the Hub.

    Args:
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
        return _parquet(path)
    if re.fullmatch(r"[\w.-]+(/[\w.-]+)?", images) and path.suffix.lower() not in (
        ".parquet",
        *ENDINGS,
    ):
        return _hub(images, split)
    raise FileNotFoundError(f"There is no folder, Parquet file or data set {images!r}.")


def _folder(folder: Path) -> Source:
    found = sorted(
        file for file in folder.rglob("*") if file.is_file() and not file.name.startswith(".")
    )
    files = [file for file in found if file.suffix.lower() in ENDINGS]
    if not files:
        raise FileNotFoundError(
            f"There are no images in {folder}: files must end in {', '.join(sorted(ENDINGS))}."
        )
    return Source(
        str(folder.resolve()),
        [file.relative_to(folder).as_posix() for file in files],
        lambda index: files[index].read_bytes(),
        _left_out([file.suffix.lower() for file in found if file.suffix.lower() not in ENDINGS]),
    )


def _left_out(endings: list[str]) -> str:
    if not endings:
        return ""
    kinds = ", ".join(sorted({ending or "no ending" for ending in endings})[:10])
    return f"{len(endings):,} other files in the folder were left out ({kinds})."


def _parquet(file: Path) -> Source:
    """Row groups are read one at a time: the file may be larger than the memory."""
    try:
        table = pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"{file} is neither a folder of images nor a Parquet file ({first_line(error)})."
        ) from error
    column = image_column(table.schema_arrow.empty_table(), str(file))
    starts = [0]
    for group in range(table.num_row_groups):
        starts.append(starts[-1] + table.metadata.row_group(group).num_rows)
    held: dict[int, pa.ChunkedArray] = {}

    def read(index: int) -> bytes:
        group = next(g for g in range(len(starts) - 1) if index < starts[g + 1])
        if group not in held:
            held.clear()
            held[group] = table.read_row_group(group, [column])[column]
        return (held[group][index - starts[group]].as_py() or {}).get("bytes") or b""

    return Source(str(file.resolve()), [f"{file.name}#{row}" for row in range(starts[-1])], read)


def _hub(name: str, split: str) -> Source:
    # Slow to import, and not needed for local files.
    import datasets

    try:
        found = datasets.load_dataset(name, split=split)
    except Exception as error:  # the client raises some twenty types for "no network" alone
        raise ConnectionError(
            f"{name!r} is no folder or file here, and the Hub did not give its split {split!r} "
            f"({first_line(error)})."
        ) from error
    column = image_column(found.data.table.slice(0, 0), f"{name} on the Hub")
    encoded = found.cast_column(column, datasets.Image(decode=False))

    def read(index: int) -> bytes:
        image = encoded[index][column] or {}
        if image.get("bytes"):
            return image["bytes"]
        return Path(image["path"]).read_bytes() if image.get("path") else b""

    return Source(f"Hub {name}, {split}", [f"{split}#{row}" for row in range(len(found))], read)

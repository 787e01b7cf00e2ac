"""Image sets as one uint8 tensor: drawn, from a local folder, or from the Hugging Face Hub."""

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Callable
from glob import glob
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Int64, Shaped
from pandas.api.types import infer_dtype
from PIL import Image, ImageOps
from torch import Tensor

from sparsejepa.data.batches import Images
from sparsejepa.data.decoding import Unreadable, decode_image
from sparsejepa.data.scenes import LAYOUTS, draw_scenes
from sparsejepa.errors import in_short

# Name -> (repository on the Hub, revision): a commit that holds Parquet files; MTEB pins it too.
HUB_SETS = {"cifar100": ("uoft-cs/cifar100", "aadb3af77e9048adbea6b47c21a81e47dd092ae5")}

# SHA-256 of the decoded pixels, row-major. As records of CIFAR-100's binary version these images
# have the SHA-1 sums that Apache MXNet publishes.
KNOWN_PIXELS = {
    ("cifar100", "train"): "4e457917601a66aed021f5fa37957b56c6319557c0a8ed5484de3c390af45430",
    ("cifar100", "test"): "4cb8e5d9309da489bf6b19cc10cd96c3ae6f8daf225380b605aaee4c0d6aee19",
}

DRAWN = {"train": 20_000, "test": 4_000}  # images per split of a drawn set

# Names of columns that say that they are labels, the surest first; also those that end in "_label".
LABEL_NAMES = ("label", "labels", "class", "classes", "target", "category", "fine_label", "y")
# Integers that are no classes, however few there are; also names that end in one of them.
NO_LABELS = ("id", "idx", "index", "width", "height", "size", "__index_level_0__")
FULL = 512  # pixels a side below which a huge JPEG is not reduced
LARGEST = 10_000  # from here on, integers are codes, which are numbered anew

Labels = dict[str, Int64[Tensor, "N"]]
Names = dict[str, tuple[str, ...]]
Files = tuple[Path | None, list[Path]]  # Parquet files, or a folder and the image files below it


@dataclasses.dataclass(frozen=True, eq=False)
class ImageSet:
    """One split of an image set, decoded, in memory."""

    name: str
    split: str  # "train", "test", ...
    images: Images
    labels: Labels  # the first key is the default label
    label_names: Names  # class names; a label without names has no key
    pixel_sha256: str  # of `images`, row-major
    origin: str  # "drawn", "local Parquet", "local folder" or "Hub <repository>@<revision>"
    factors: dict[str, Shaped[Tensor, "N ..."]] = dataclasses.field(default_factory=dict)
    # what else is known of each image: how it was drawn (scenes.py), or other columns of numbers
    candidates: tuple[str, ...] = ()  # columns that may be labels, where no name says which

    @property
    def side(self) -> int:
        """Pixels along a side of the square images; other shapes are a ValueError."""
        height, width = self.images.shape[1:3]
        if height != width:
            raise ValueError(
                f"{self.name} {self.split} has images of {width}x{height} pixels, and an encoder "
                f"takes square ones: crop them, or load them with size={min(height, width)}."
            )
        return height

    def why_no_labels(self) -> str:
        """One sentence for a set without labels: there are none, or it is unclear which."""
        if not self.candidates:
            return f"{self.name} has no labels: an encoder can be trained on it, but not probed."
        return (
            f"It is unclear which column of {self.name} is the label, {', '.join(self.candidates)}:"
            " name one with label=, use label='none', or call the column 'label'."
        )

    def take(self, n: int) -> "ImageSet":
        """The first `n` images, 0 means all; a ValueError where there are fewer."""
        count = len(self.images)
        if not 0 <= n <= count:
            raise ValueError(f"Cannot take {n} images of {self.name} {self.split}: it has {count}.")
        if n in (0, count):
            return self
        cut = {"images": self.images[:n], "pixel_sha256": pixel_sha256(self.images[:n])}
        cut["labels"] = {name: values[:n] for name, values in self.labels.items()}
        cut["factors"] = {name: values[:n] for name, values in self.factors.items()}
        return dataclasses.replace(self, **cut)


def load_image_set(
    name: str, split: str = "train", label: str = "", size: int = 0, first: int = 0
) -> ImageSet:
    """Loads one split of an image set, or the `first` images of it.

    `scenes` and `objects` are drawn. Another name is a folder of `$SPARSEJEPA_DATA`, or, with a
    slash in it, a path; without a folder `cifar100` is fetched from the Hub. A folder holds Parquet
    files (`train.parquet`, `train-*.parquet`) with one column of encoded images, or image files:
    `train/<class>/*.png`, where `train/` and `<class>/` may be missing.

    Labels are the columns that the Hub's metadata calls classes, then those whose name says label,
    else the only column of few different values; `label` names the first, or is "none". Text and
    large integers are numbered in sorted order, over all splits. Other columns of numbers become
    `factors`. With `size`, images are scaled to cover a square and cropped.

    Raises:
        FileNotFoundError: the set or the split is neither local nor on the Hub.
        ConnectionError: the set is not local and the Hub did not answer.
        ValueError: files, images or labels cannot be used, or are not those of the known name.

    Example:
        >>> images = load_image_set("scenes", "test", first=100)
        >>> images.images.shape, list(images.labels)
        (torch.Size([100, 32, 32, 3]), ['label', 'count', 'distance'])
    """
    if name in LAYOUTS:
        if split not in DRAWN:
            raise FileNotFoundError(f"{name} has the splits {', '.join(DRAWN)}, not {split!r}.")
        drawn = draw_scenes(first or DRAWN[split], 0, split, name)
        known = (drawn.labels, drawn.label_names, pixel_sha256(drawn.images), "drawn")
        return ImageSet(name, split, drawn.images, *known, drawn.factors)
    folder = Path(name).expanduser().resolve()
    if "/" not in name and not name.startswith("~"):
        folder = Path(os.environ.get("SPARSEJEPA_DATA") or "$SPARSEJEPA_DATA").expanduser() / name
    place, splits = str(folder), _splits(folder)
    there = f"only the splits {', '.join(splits)}" if splits else "no images"
    missing = f"{folder.name} {split} is not here: {split}-*.parquet or {split}/<class>/*.png is "
    missing += f"needed in {folder}, which holds {there}."
    if split in splits:
        table = _read(splits[split])
        origin = "local folder" if splits[split][0] else "local Parquet"
    elif name in HUB_SETS:
        origin = place = "Hub {}@{}".format(*HUB_SETS[name])
        table, splits = _read_hub(*HUB_SETS[name], split, missing), {}
    else:
        raise FileNotFoundError(missing)
    if len(table) == 0:
        raise ValueError(f"There are no images in {place}: the table has no rows.")
    column = image_column(table.schema, place)

    def everywhere(column: str) -> pd.Series:
        """The values of a column, those of this split first."""
        parts = [table, *(_read(splits[other], [column]) for other in splits if other != split)]
        found = [part[column] for part in parts if column in part.column_names]
        return pd.Series([value for values in found for value in values.to_pylist()])

    others = table.drop([column])
    labels, names, candidates = _labels(others, label, everywhere, place)
    images = _decode(table[column], folder, place, size)
    digest, known = pixel_sha256(images), KNOWN_PIXELS.get((folder.name, split))
    if not size and known not in (None, digest):
        raise ValueError(
            f"The pixels of {folder.name} {split} from {place} have SHA-256 {digest[:12]}…, not "
            f"the known {known[:12]}…: this is another or a changed data set; fetch the files "
            "again, or give their folder another name."
        )
    factors = {}
    for other in others.column_names:
        values = others[other].to_numpy()
        if values.dtype.kind in "iufb" and not {other, other.removesuffix("_label")} & set(labels):
            values = values.astype(np.int64) if values.dtype.kind in "iu" else values
            factors[other] = torch.tensor(values)
    known = names, digest, origin, factors, candidates
    return ImageSet(folder.name, split, images, labels, *known).take(first)


def pixel_sha256(images: Images) -> str:
    """SHA-256 of the pixels in row-major order, in hexadecimal."""
    return hashlib.sha256(images.cpu().contiguous().numpy()).hexdigest()


def _splits(folder: Path) -> dict[str, Files]:
    """The splits of a folder: of its Parquet files if there are any, else of its images."""
    # Links are followed, hidden files and folders left out.
    names = sorted(Path(name) for name in glob("**/*", root_dir=folder, recursive=True))
    splits: dict[str, Files] = {}
    for name in (name for name in names if name.suffix.lower() == ".parquet"):
        named = name.parent in (Path(), Path("data"))
        split = re.split("[-.]", name.name)[0] if named else name.parent.name
        splits.setdefault(split, (None, []))[1].append(folder / name)
    if splits:
        return splits
    readable = {end for end, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    names = [name for name in names if name.suffix.lower() in readable]
    whole = not {"train", "test"} & {name.parts[0] for name in names}
    for name in names:
        split, root = ("train", folder) if whole else (name.parts[0], folder / name.parts[0])
        splits.setdefault(split, (root, []))[1].append(folder / name)
    return splits


def _read(files: Files, columns: list[str] | None = None) -> pa.Table:
    """The rows of all files, in the order of the files: encoded images, or paths to them."""
    root, paths = files
    if root:
        return _class_folders(root, paths)
    tables = []
    try:
        for file in paths:
            tables.append(pq.ParquetFile(file).read(columns))
            if set(tables[-1].column_names) != set(tables[0].column_names):
                raise pa.ArrowInvalid(", ".join(tables[-1].column_names))
        return pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"{file} is no complete Parquet file, or differs in its columns from those before it "
            f"({in_short(error)}): fetch it again, and keep one data set per folder."
        ) from error


def _class_folders(root: Path, paths: list[Path]) -> pa.Table:
    """Paths as images, and as labels the names of the folders that they lie in."""
    parts = [path.relative_to(root).parts for path in paths]
    loose = [part[0] for part in parts if len(part) == 1]
    if 0 < len(loose) < len(paths):
        raise ValueError(f"{root} holds images beside folders of classes, such as {loose[0]}.")
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.binary())])
    images = pa.array([{"bytes": None, "path": os.fsencode(path)} for path in paths], kind)
    if loose:
        return pa.table({"image": images})
    names = [os.fsencode(part[0]).decode(errors="replace") for part in parts]
    # The classes take turns, so that the first images of a set are of all classes.
    turns = pd.Series(names).groupby(names).cumcount()
    return pa.table({"image": images, "label": names}).take(turns.argsort(kind="stable").to_numpy())


def _read_hub(repository: str, revision: str, split: str, missing: str) -> pa.Table:
    # Slow to import, and not needed for local files.
    import datasets

    try:
        found = datasets.load_dataset(repository, revision=revision, split=split)
    except Exception as error:  # the client raises some twenty types for "no network" alone
        raise ConnectionError(
            f"{missing[:-1]} (the Hub did not give {repository}: {in_short(error)})."
        ) from error
    table = found.with_format("arrow")[:]
    return table.replace_schema_metadata(found.features.arrow_schema.metadata)


def image_column(schema: pa.Schema, place: str) -> str:
    """The only column of encoded images, or `img` or `image` among several; else a ValueError."""
    found = []
    for field in schema:
        encoded = pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0
        if encoded or field.type in (pa.binary(), pa.large_binary()):
            found.append(field.name)
    found = [name for name in ("img", "image") if name in found][:1] or found
    if len(found) != 1:
        has = ", ".join(f"{field.name} ({field.type})" for field in schema)
        raise ValueError(
            f"{place} needs one column of encoded images (a struct with the field 'bytes'), or "
            f"one called 'image'; it has {has}."
        )
    return found[0]


def _labels(
    table: pa.Table, label: str, everywhere: Callable[[str], pd.Series], place: str
) -> tuple[Labels, Names, tuple[str, ...]]:
    """Labels, their class names, and the columns that could be labels where none clearly is."""
    columns, count = table.column_names, len(table)
    info = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {})
    features = info.get("features", {})
    classes = {c: features[c]["names"] for c in columns if (features.get(c) or {}).get("names")}
    named = sorted(
        (c for c in columns if c.casefold().endswith("_label") or c.casefold() in LABEL_NAMES),
        key=lambda c: (*LABEL_NAMES, c.casefold()).index(c.casefold()),
    )
    asked = [c for c in (label, f"{label}_label") if label and c in columns][:1]
    if label not in ("", "none") and not asked:
        raise ValueError(f"{place} has no column {label!r}; choose from {', '.join(columns)}.")
    chosen = [] if label == "none" else list(dict.fromkeys([*asked, *classes, *named]))
    candidates, kinds = [], ("integer", "boolean", "string")
    if not chosen and not label:
        # At least two values, of two images each on average.
        for column in (c for c in columns if not c.casefold().endswith(NO_LABELS)):
            values = everywhere(column).dropna()
            if infer_dtype(values) in kinds and 2 <= values.nunique() <= len(values) / 2:
                candidates.append(column)
    if len(candidates) == 1:
        chosen, candidates = candidates, []
    labels, label_names = {}, {}
    for column in chosen:
        short, known = column.removesuffix("_label"), column in classes
        short = column if short in columns else short
        values = pd.Series(table[column].to_pylist()) if known else everywhere(column)
        missing, values = values[:count].isna().any(), values.dropna()
        kind = "missing" if missing else infer_dtype(values)
        if kind == "floating" and (values % 1 == 0).all():
            values, kind = values.astype(np.int64), "integer"
        if kind not in kinds:
            raise ValueError(
                f"Column {column!r} in {place} holds {kind} values, and needs one class an image: "
                "mend it, name another column with label=, or use label='none'."
            )
        names = classes.get(column, ("False", "True") if kind == "boolean" else ())
        # Larger ones are codes: a probe has an output for every number up to the largest.
        if kind == "string" or not known and values.max() >= LARGEST:
            values, names = pd.factorize(values, sort=True)
        labels[short] = torch.from_numpy(np.asarray(values[:count]).astype(np.int64))
        if len(names):
            label_names[short] = tuple(map(str, names))
    return labels, label_names, tuple(candidates)


def _decode(column: pa.ChunkedArray, folder: Path, place: str, size: int) -> Images:
    pixels = np.empty((0, 0, 0, 3), dtype=np.uint8)
    for index, cell in enumerate(cell.as_py() for chunk in column.chunks for cell in chunk):
        cell = cell if isinstance(cell, dict) else {"bytes": cell}
        content, path, title = cell["bytes"], cell.get("path"), f"Image {index} in {place}"
        if content is None and path:
            file = folder / os.fsdecode(path)
            content, title = file.read_bytes() if file.is_file() else None, str(file)
        if content is None:
            raise ValueError(f"{title} is missing: fetch it, or drop its row.")
        try:
            image = decode_image(content, size or FULL).image
        except Unreadable as error:
            raise ValueError(f"{title} cannot be used: {error}.") from error
        if size:
            image = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
        if index == 0:
            pixels = np.empty((len(column), image.height, image.width, 3), dtype=np.uint8)
        if image.size != (pixels.shape[2], pixels.shape[1]):
            raise ValueError(
                f"{title} is {image.width}x{image.height} pixels and the first is "
                f"{pixels.shape[2]}x{pixels.shape[1]}: resize them all to one size, or load them "
                "with size=32, say."
            )
        pixels[index] = np.asarray(image)
    return torch.from_numpy(pixels)

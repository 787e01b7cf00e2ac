"""Image sets as one uint8 tensor: from local Parquet, the Hugging Face Hub, or drawn."""

import contextlib
import dataclasses
import hashlib
import os
from pathlib import Path

import pyarrow as pa
from jaxtyping import Int64, Shaped, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sparsejepa.atomic_files import write_with
from sparsejepa.data.parquet import (
    decode,
    first_line,
    image_column,
    integer_labels,
    read_parquet,
    sha256_of_files,
)
from sparsejepa.data.scenes import draw_scenes

# Name -> (repository on the Hub, revision): a commit that holds Parquet files; MTEB pins it too.
HUB_SETS = {"cifar100": ("uoft-cs/cifar100", "aadb3af77e9048adbea6b47c21a81e47dd092ae5")}

# SHA-256 of the decoded pixels, [N, H, W, 3] bytes in row-major order. Computed from images that,
# written back as records of CIFAR-100's binary version (coarse byte, fine byte, 3072 pixel bytes,
# planes red, green, blue), have the SHA-1 sums that Apache MXNet publishes:
# train.bin e207cd2e05b73b1393c74c7f5e7bea451d63e08e,
# test.bin 8fb6623e830365ff53cf14adec797474f5478006.
KNOWN_PIXELS = {
    ("cifar100", "train"): "4e457917601a66aed021f5fa37957b56c6319557c0a8ed5484de3c390af45430",
    ("cifar100", "test"): "4cb8e5d9309da489bf6b19cc10cd96c3ae6f8daf225380b605aaee4c0d6aee19",
}

# The drawn set: images per split, and the seed that everybody shares.
SCENES = {"train": 20_000, "test": 4_000}
SCENES_SEED = 0


@dataclasses.dataclass(frozen=True, eq=False)
class ImageSet:
    """One split of an image set, decoded, in memory."""

    name: str  # as given to load_image_set
    split: str  # "train", "test", ...
    images: UInt8[Tensor, "N H W 3"]  # RGB bytes
    labels: dict[str, Int64[Tensor, "N"]]  # the first key is the default label
    label_names: dict[str, tuple[str, ...]]  # class names; a label without names has no key
    pixel_sha256: str  # of `images`, row-major
    origin: str  # "drawn", "local Parquet" or "Hub <repository>@<revision>"
    factors: dict[str, Shaped[Tensor, "N ..."]] = dataclasses.field(default_factory=dict)
    # what is known of how each image was drawn (see scenes.py); empty for photographs

    def take(self, n: int) -> "ImageSet":
        """The first `n` images; 0 means all.

        Raises:
            ValueError: `n` is negative or more than there are.
        """
        count = len(self.images)
        if not 0 <= n <= count:
            raise ValueError(f"Cannot take {n} images of {self.name} {self.split}: it has {count}.")
        if n in (0, count):
            return self
        images = self.images[:n]
        return dataclasses.replace(
            self,
            images=images,
            labels={name: values[:n] for name, values in self.labels.items()},
            factors={name: values[:n] for name, values in self.factors.items()},
            pixel_sha256=pixel_sha256(images),
        )


def load_image_set(name: str, split: str) -> ImageSet:
    """Loads one split of an image set.

    `scenes` is drawn. Every other name is looked for at `$SPARSEJEPA_DATA/<name>/<split>-*.parquet`
    (the Hub's column layout: `img` or `image`, integer label columns), then, for `cifar100`, on
    the Hub. Decoded images are kept under `$SPARSEJEPA_CACHE` (default `~/.cache/sparsejepa`),
    keyed by the content they came from; where that folder cannot be written, loading is slower.

    Raises:
        FileNotFoundError: the set or the split is neither local nor on the Hub.
        ConnectionError: the set is not local and the Hub did not answer.
        ValueError: the files are damaged, have no image column, images of several sizes, or are
            not the set that they are named after.
    """
    if name == "scenes":
        return _drawn_scenes(split)
    files = _local_files(name, split)
    if files:
        table, origin = read_parquet(files), "local Parquet"
        place = str(files[0].parent)
        key = sha256_of_files(files)
    elif name in HUB_SETS:
        repository, revision = HUB_SETS[name]
        table, fingerprint = _read_hub(name, split, repository, revision)
        origin = place = f"Hub {repository}@{revision}"
        key = hashlib.sha256(f"{revision} {fingerprint}".encode()).hexdigest()
    else:
        raise FileNotFoundError(_missing(name, split))

    column = image_column(table, place)
    labels, label_names = integer_labels(table, place)
    cache = _cache_folder() / f"{name}-{split}-{key[:32]}.safetensors"
    images = _read_cache(cache)
    if images is None:
        images = decode(table[column], place)
        _write_cache(cache, images)
    digest = pixel_sha256(images)
    known = KNOWN_PIXELS.get((name, split), digest)
    if digest != known:
        raise ValueError(
            f"The pixels of {name} {split} from {place} have SHA-256 {digest[:12]}…, not the known "
            f"{known[:12]}…: this is another or a changed data set; fetch the files again, or "
            "give their folder another name."
        )
    return ImageSet(name, split, images, labels, label_names, digest, origin)


def pixel_sha256(images: UInt8[Tensor, "N H W 3"]) -> str:
    """SHA-256 of the pixels in row-major order, in hexadecimal."""
    return hashlib.sha256(images.cpu().contiguous().numpy()).hexdigest()


def _drawn_scenes(split: str) -> ImageSet:
    if split not in SCENES:
        raise FileNotFoundError(f"scenes has the splits {', '.join(SCENES)}, not {split!r}.")
    drawn = draw_scenes(SCENES[split], SCENES_SEED, split)
    return ImageSet(
        "scenes",
        split,
        drawn.images,
        drawn.labels,
        drawn.label_names,
        pixel_sha256(drawn.images),
        "drawn",
        drawn.factors,
    )


def _local_files(name: str, split: str) -> list[Path]:
    if Path(name).name != name:
        raise ValueError(f"An image set is named after a folder in SPARSEJEPA_DATA, not {name!r}.")
    root = os.environ.get("SPARSEJEPA_DATA")
    return sorted((Path(root).expanduser() / name).glob(f"{split}-*.parquet")) if root else []


def _missing(name: str, split: str) -> str:
    """One sentence: what was looked for, and which variable to set."""
    root = os.environ.get("SPARSEJEPA_DATA")
    if not root:
        return (
            f"{name} {split} is not here: set SPARSEJEPA_DATA to the folder that holds "
            f"{name}/{split}-*.parquet."
        )
    folder = Path(root).expanduser() / name
    splits = sorted({file.name.split("-")[0] for file in folder.glob("*-*.parquet")})
    there = f"only the splits {', '.join(splits)}" if splits else "no Parquet files"
    return (
        f"{name} {split} is not here: {folder} (from SPARSEJEPA_DATA) holds {there}, "
        f"and {split}-*.parquet is needed."
    )


def _read_hub(name: str, split: str, repository: str, revision: str) -> tuple[pa.Table, str]:
    # Slow to import, and not needed for local files.
    import datasets

    try:
        found = datasets.load_dataset(repository, revision=revision, split=split)
    except Exception as error:  # the client raises some twenty types for "no network" alone
        raise ConnectionError(
            f"{_missing(name, split)[:-1]} (the Hub did not give {repository}: "
            f"{first_line(error)})."
        ) from error
    return found.data.table, found._fingerprint


def _cache_folder() -> Path:
    return Path(os.environ.get("SPARSEJEPA_CACHE") or "~/.cache/sparsejepa").expanduser()


def _read_cache(file: Path) -> UInt8[Tensor, "N H W 3"] | None:
    """The images in a cache file, or nothing where it is missing or damaged."""
    try:
        with safe_open(file, "pt") as cache:
            images = cache.get_tensor("images")
            whole = pixel_sha256(images) == cache.metadata()["pixel_sha256"]
    except (OSError, SafetensorError, KeyError, TypeError):
        return None
    return images if whole else None


def _write_cache(file: Path, images: UInt8[Tensor, "N H W 3"]) -> None:
    """A folder that cannot be written is no error: the next load is slower."""
    facts = {"pixel_sha256": pixel_sha256(images)}
    with contextlib.suppress(OSError, SafetensorError):
        write_with(file, lambda temporary: save_file({"images": images}, temporary, facts))

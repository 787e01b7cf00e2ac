"""Reads the Hub's Parquet layout: encoded images in one column, integer labels in others."""

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Int64, UInt8
from PIL import Image
from torch import Tensor

IMAGE_COLUMNS = ("img", "image")


def read_parquet(files: list[Path]) -> pa.Table:
    """The rows of all files, in the order of the files.

    Raises:
        ValueError: a file is damaged, or the files do not have the same columns.
    """
    tables = []
    for file in files:
        try:
            tables.append(pq.ParquetFile(file).read())
        except (pa.ArrowException, OSError) as error:
            raise ValueError(
                f"{file} is no complete Parquet file ({first_line(error)}): fetch it again."
            ) from error
    try:
        return pa.concat_tables(tables)
    except pa.ArrowException as error:
        raise ValueError(
            f"The Parquet files in {files[0].parent} differ in their columns "
            f"({first_line(error)}): keep one data set per folder."
        ) from error


def sha256_of_files(files: list[Path]) -> str:
    """One SHA-256 for the contents of all files, in hexadecimal; names do not count."""
    digest = hashlib.sha256()
    for file in files:
        with open(file, "rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()


def image_column(table: pa.Table, place: str) -> str:
    """The name of the column of encoded images.

    Raises:
        ValueError: there is none, or it does not hold images.
    """
    for name in IMAGE_COLUMNS:
        if name in table.column_names:
            kind = table.schema.field(name).type
            if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
                return name
            raise ValueError(
                f"Column {name!r} in {place} holds {kind}, not images: a struct with the field "
                "'bytes' (encoded PNG or JPEG) is needed."
            )
    raise ValueError(
        f"There is no image column in {place}: it has {', '.join(table.column_names)}, and "
        "'img' or 'image' is needed."
    )


def integer_labels(
    table: pa.Table, place: str
) -> tuple[dict[str, Int64[Tensor, "N"]], dict[str, tuple[str, ...]]]:
    """Integer columns as labels, and the class names that Hugging Face's metadata gives them.

    `fine_label` becomes `fine`; other columns keep their names. Columns that are not integers are
    no labels.

    Raises:
        ValueError: a label is missing in some row.
    """
    metadata = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}"))
    features = metadata.get("info", {}).get("features", {})
    labels, label_names = {}, {}
    for column in table.column_names:
        if not pa.types.is_integer(table.schema.field(column).type):
            continue
        if table[column].null_count:
            raise ValueError(f"Column {column!r} in {place} has missing values: fill or drop them.")
        label = column.removesuffix("_label")
        label = column if label in table.column_names else label
        labels[label] = torch.from_numpy(table[column].to_numpy().astype(np.int64))
        if features.get(column, {}).get("names"):
            label_names[label] = tuple(features[column]["names"])
    return labels, label_names


def decode(column: pa.ChunkedArray, place: str) -> UInt8[Tensor, "N H W 3"]:
    """The images of a column as RGB bytes.

    Raises:
        ValueError: an image is damaged or missing, sizes differ, or there are no images.
    """
    pixels = None
    index = 0
    for chunk in column.chunks:
        for encoded in chunk.field("bytes"):
            try:
                with Image.open(io.BytesIO(encoded.as_py())) as image:
                    decoded = np.asarray(image.convert("RGB"))
            except (OSError, SyntaxError, TypeError, ValueError) as error:
                raise ValueError(
                    f"Image {index} in {place} cannot be decoded ({first_line(error)}): "
                    "fetch the files again."
                ) from error
            if pixels is None:
                pixels = np.empty((len(column), *decoded.shape), dtype=np.uint8)
            if decoded.shape != pixels.shape[1:]:
                height, width = pixels.shape[1:3]
                raise ValueError(
                    f"Image {index} in {place} is {decoded.shape[1]}x{decoded.shape[0]} pixels and "
                    f"the first is {width}x{height}: resize them all to one size."
                )
            pixels[index] = decoded
            index += 1
    if pixels is None:
        raise ValueError(f"There are no images in {place}: the table has no rows.")
    return torch.from_numpy(pixels)


def first_line(error: Exception) -> str:
    """What an error says, short enough for a sentence of ours."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")

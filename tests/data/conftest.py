"""Fixtures of the data room."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sparsejepa.data.scenes import draw_scenes


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes tables as Parquet files of the set `toy`, the only one there is."""
    monkeypatch.setenv("SPARSEJEPA_DATA", str(tmp_path / "sets"))

    def write(*tables: pa.Table, name: str = "toy"):
        folder = tmp_path / "sets" / name
        folder.mkdir(parents=True, exist_ok=True)
        for index, one in enumerate(tables):
            pq.write_table(one, folder / f"train-{index:05d}-of-{len(tables):05d}.parquet")
        return folder / f"train-00000-of-{len(tables):05d}.parquet"

    return write


@pytest.fixture(scope="session")
def train():
    return draw_scenes(4000, 0, "train")


@pytest.fixture(scope="session")
def test():
    return draw_scenes(1500, 0, "test")

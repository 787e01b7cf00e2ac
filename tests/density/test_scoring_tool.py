"""`sparsejepa score`: one row an image, whatever the files are and whenever it is killed."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from sparsejepa.density.jepa_score import jepa_score
from sparsejepa.density.scoring_tool import score_images
from tests.data.tiny_parquet import pixels, table
from tests.density.tiny_images import (
    awkward,
    embedding,
    encoded,
    folder_of,
    plain,
    quiet,
    rows,
    tiny_file,
)

READABLE = ("cmyk.jpg", "grey.png", "grey16.png", "huge.jpg", "palette.gif", "plain.png")
READABLE += ("transparent.png", "turned.jpg")
SKIPPED = ("corrupt.png", "empty.png", "float.tif", "text.jpg", "too_huge.png")


@pytest.fixture
def weights(tmp_path: Path) -> str:
    return str(tiny_file(tmp_path))


def test_a_folder_with_every_awkward_file(tmp_path: Path, weights: str, monkeypatch):
    """Converted or skipped, and said so; no row is missing, and the order is that of the paths."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 160 * 120 - 1)
    folder = folder_of(tmp_path / "images", awkward() | {"notes.txt": b"", "sub/b.png": b""})
    folder_of(folder, {"sub/b.png": encoded(plain(7))})
    said: list[str] = []
    done = score_images(str(folder), weights, tmp_path / "scores.parquet", say=said.append)
    found = rows(tmp_path / "scores.parquet")
    assert list(found) == sorted((*READABLE, *SKIPPED, "sub/b.png"))
    assert done.scored == len(READABLE) + 1
    for name in SKIPPED:
        assert found[name]["score"] is None and found[name]["note"].startswith("skipped: it ")
        assert f"{name} was {found[name]['note']}." in said
    assert f"{done.scored} images scored, {done.scored} in all; 6 were converted" in said[1]
    for name in READABLE:
        row = found[name]
        assert np.isfinite(row["score"])
        assert (row["rank"], row["clipped"], row["null_directions"]) == (7, 0, 1)
    assert found["huge.jpg"]["note"] == "reduced from 160x120"
    assert not (tmp_path / "scores.parquet.parts").exists()


def test_scores_are_those_of_the_library(tmp_path: Path, weights: str):
    """A plain image of the right size goes in as it is; percentiles are shares below."""
    files = {f"{seed}.png": encoded(plain(seed)) for seed in range(5)}
    score_images(
        str(folder_of(tmp_path / "images", files)), weights, tmp_path / "s.parquet", say=quiet
    )
    found = list(rows(tmp_path / "s.parquet").values())
    unit = torch.from_numpy(np.concatenate([pixels(1, seed, 16) for seed in range(5)]))
    expected = jepa_score(embedding(), unit.permute(0, 3, 1, 2) / 255)
    scores = [row["score"] for row in found]
    assert scores == pytest.approx(expected.score.tolist(), rel=1e-5)
    below = [20.0 * sum(other < score for other in scores) for score in scores]
    assert [row["percentile"] for row in found] == pytest.approx(below)


def test_a_second_call_scores_only_what_is_new(tmp_path: Path, weights: str):
    """The table is complete, earlier scores are as they were, and it says how many there are."""
    folder = folder_of(tmp_path / "images", {"b.png": encoded(plain(1)), "c.png": b"broken"})
    out = tmp_path / "s.parquet"
    score_images(str(folder), weights, out, say=quiet)
    before = rows(out)
    folder_of(folder, {"a.png": encoded(plain(2))})
    said: list[str] = []
    assert score_images(str(folder), weights, out, say=said.append).scored == 1
    assert said[0] == "1 of 3 images have their score already."
    assert list(rows(out)) == ["a.png", "b.png", "c.png"]
    assert rows(out)["b.png"]["score"] == before["b.png"]["score"]


@pytest.mark.parametrize("name", ["scores.html", "scores", "folder.parquet"])
def test_the_table_is_a_parquet_file(tmp_path: Path, weights: str, name: str):
    """Its contact sheet would overwrite a table called .html; a folder is never taken for one."""
    folder = folder_of(tmp_path / "images", {"a.png": encoded(plain())})
    (tmp_path / "folder.parquet").mkdir()
    with pytest.raises(ValueError, match=r"a file whose name ends in \.parquet, unlike .*" + name):
        score_images(str(folder), weights, tmp_path / name, say=quiet)


def test_other_files_of_the_folder_are_counted(tmp_path: Path, weights: str):
    """So that nobody believes that pictures of an unknown kind were scored."""
    files = {"a.png": encoded(plain()), "b.heic": b"x", "c.txt": b"x", "README": b"x"}
    said: list[str] = []
    score_images(
        str(folder_of(tmp_path / "images", files)),
        weights,
        tmp_path / "s.parquet",
        say=said.append,
    )
    assert said[0] == "3 other files in the folder were left out (.heic, .txt, no ending)."


def test_other_settings_do_not_mix(tmp_path: Path, weights: str):
    """Another encoder, or other images, need another table."""
    folder = folder_of(tmp_path / "images", {"a.png": encoded(plain())})
    out = tmp_path / "s.parquet"
    score_images(str(folder), weights, out, say=quiet)
    other = folder_of(tmp_path / "others", {"a.png": encoded(plain(1))})
    with pytest.raises(ValueError, match="made with another images .* choose another --out"):
        score_images(str(other), weights, out, say=quiet)
    out.write_bytes(b"PAR1 no more")
    with pytest.raises(ValueError, match="is damaged or no table of scores"):
        score_images(str(folder), weights, out, say=quiet)


def test_a_parquet_file_in_row_groups(tmp_path: Path, weights: str):
    """Rows are named by their number; a row without an image is skipped."""
    images = table(pixels(5, size=16))
    empty = pa.table({"img": pa.array([{"bytes": None, "path": None}], images["img"].type)})
    file = tmp_path / "images.parquet"
    pq.write_table(pa.concat_tables([images, empty]), file, row_group_size=2)
    score_images(str(file), weights, tmp_path / "s.parquet", say=quiet)
    found = rows(tmp_path / "s.parquet")
    assert list(found) == [f"images.parquet#{row}" for row in range(6)]
    assert found["images.parquet#5"]["note"] == "skipped: it is empty"
    unit = torch.from_numpy(pixels(5, size=16)).permute(0, 3, 1, 2) / 255
    expected = jepa_score(embedding(), unit).score.tolist()
    assert [row["score"] for row in found.values()][:5] == pytest.approx(expected, rel=1e-5)


def test_a_data_set_of_the_hub(tmp_path: Path, weights: str, monkeypatch):
    """Through `datasets`, here from a local file in place of the network."""
    import datasets

    file = tmp_path / "images.parquet"
    pq.write_table(table(pixels(3, size=16)), file)
    monkeypatch.setattr(
        datasets,
        "load_dataset",
        lambda name, split: datasets.Dataset.from_parquet(str(file), cache_dir=str(tmp_path)),
    )
    score_images("owner/name", weights, tmp_path / "s.parquet", split="test", say=quiet)
    found = rows(tmp_path / "s.parquet")
    assert list(found) == ["test#0", "test#1", "test#2"]
    assert all(np.isfinite(row["score"]) for row in found.values())


def test_weights_that_cannot_be_fetched(tmp_path: Path, monkeypatch):
    """One sentence, and no trace is left beside the table."""
    import timm

    def offline(*arguments, **options):
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", offline)
    folder = folder_of(tmp_path / "images", {"a.png": encoded(plain())})
    with pytest.raises(ConnectionError, match=r"^The weights of test_vit2.r160_in1k are not on"):
        score_images(str(folder), "test_vit2.r160_in1k", tmp_path / "s.parquet", say=quiet)
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_a_timm_model_by_its_name(tmp_path: Path, monkeypatch):
    """With its own size, crop and statistics; here with random weights in place of the network."""
    from sparsejepa.density import scoring_tool
    from sparsejepa.density.scored_backbone import scored_backbone

    name = "test_vit2.r160_in1k"
    network = scored_backbone(name, pretrained=False)
    monkeypatch.setattr(scoring_tool, "scored_backbone", lambda _: network)
    folder = folder_of(tmp_path / "images", {"a.png": encoded(plain(0, 200))})
    score_images(str(folder), name, tmp_path / "s.parquet", say=quiet)
    prepared = network.prepare(plain(0, 200))
    assert prepared.shape == (3, 160, 160) and 0 <= prepared.min() < prepared.max() <= 1
    normalised = (prepared[None] - 0.5) / 0.5
    model = network.encoder.backbone.network
    torch.testing.assert_close(network.encoder(prepared[None]), model(normalised))
    row = rows(tmp_path / "s.parquet")["a.png"]
    assert row["score"] == pytest.approx(jepa_score(network.encoder, prepared[None]).score.item())


def test_the_contact_sheet_shows_both_ends(tmp_path: Path, weights: str):
    """One file with its images inside, likeliest first, a described image each; names escaped."""
    files = {f"{seed}.png": encoded(plain(seed)) for seed in range(4)}
    files["<b>&.png"] = encoded(plain(9))
    folder = folder_of(tmp_path / "images", files)
    done = score_images(str(folder), weights, tmp_path / "s.parquet", say=quiet)
    page = done.sheet.read_text()
    assert done.sheet == tmp_path / "s.html"
    assert "<b>&.png" not in page and "&lt;b&gt;&amp;.png" in page
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    shown = re.findall(r'<img src="data:image/jpeg;base64,[\w+/=]+" alt="(\S+): among the', page)
    order = sorted(done.rows, key=lambda row: -row.score)
    expected = [row.path for row in (*order[:3], *order[:2:-1])]
    assert [name.replace("&lt;b&gt;&amp;", "<b>&") for name in shown] == expected

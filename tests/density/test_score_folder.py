"""`sparsejepa score`: one row an image, whatever the files are and whenever it is killed."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from typer.testing import CliRunner

from sparsejepa.cli import app
from sparsejepa.density import score_folder
from sparsejepa.density.image_source import open_source
from sparsejepa.density.jepa_score import jepa_score, pooled
from sparsejepa.density.score_folder import score_images
from sparsejepa.model.vit import save_encoder
from sparsejepa.probing.backbones import Backbone, load_backbone
from tests.data.tiny_parquet import pixels, table
from tests.density.tiny_images import awkward, encoded, encoder, folder_of, plain, rows, tiny_file

NOISE = {f"{seed}.png": encoded(plain(seed)) for seed in range(1, 5)}
BLACK = encoded(Image.new("RGB", (16, 16)))


@pytest.fixture
def score(tmp_path: Path) -> Callable[..., int]:
    """Scores by the tiny encoder into s.parquet, or as told."""
    weights = str(tiny_file(tmp_path))

    def run(images: Path | str, out: str = "s.parquet", **options) -> int:
        return score_images(str(images), out=tmp_path / out, **{"backbone": weights} | options)

    return run


def bent(bend: Callable[[Tensor], Tensor]) -> Backbone:
    """A backbone of eight grey levels, of which the last four go through `bend`."""

    class Bent(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            levels = F.adaptive_avg_pool2d(images, 4).flatten(1)[:, :8]
            return torch.cat([levels[:, :4], bend(levels[:, 4:])], dim=1)

    cfg = {"input_size": (3, 16, 16), "mean": (0.0,) * 3, "std": (1.0,) * 3, "crop_pct": 1.0}
    cfg |= {"interpolation": "bicubic", "crop_mode": "center"}
    return Backbone(Bent(), "bent", cfg, False).eval()


def test_a_folder_with_every_awkward_file(tmp_path: Path, score, monkeypatch, capsys) -> None:
    """Converted or skipped, and said so; no row is missing, and the order is that of the paths."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 160 * 120 - 1)
    skipped = ("corrupt.png", "empty.png", "float.tif", "text.jpg", "too_huge.png")
    files = awkward() | {"notes.txt": b"", "c.heic": b"", "sub/b.png": encoded(plain(7))}
    scored = score(folder_of(tmp_path / "images", files))
    said, found = capsys.readouterr().out, rows(tmp_path / "s.parquet")
    assert list(found) == sorted(files.keys() - {"notes.txt", "c.heic"})
    assert said.startswith("2 other files in the folder were left out (.heic, .txt).")
    assert scored == len(found) - len(skipped)
    for name, row in found.items():
        if name in skipped:
            assert row["score"] is None and row["note"].startswith("skipped: it ")
            assert f"{name} was {row['note']}." in said
        else:
            assert np.isfinite(row["score"])
            assert (row["rank"], row["clipped"], row["null_directions"]) == (7, 0, 1)
    assert found["huge.jpg"]["note"] == "reduced from 160x120"


def test_scores_are_those_of_the_library(tmp_path: Path, score) -> None:
    """A plain image of the right size goes in as it is; percentiles are shares below."""
    score(folder_of(tmp_path / "images", NOISE))
    found = list(rows(tmp_path / "s.parquet").values())
    unit = torch.from_numpy(np.concatenate([pixels(1, seed, 16) for seed in range(1, 5)]))
    scores = [row["score"] for row in found]
    expected = jepa_score(pooled(encoder()), unit.permute(0, 3, 1, 2) / 255).score.tolist()
    assert scores == pytest.approx(expected, rel=1e-5)
    below = [25.0 * sum(other < score for other in scores) for score in scores]
    assert [row["percentile"] for row in found] == pytest.approx(below)


def test_a_row_belongs_to_a_content(tmp_path: Path, score) -> None:
    """Replaced: scored again. Renamed, kept: not scored again. Gone: dropped. As a fresh table."""
    folder = folder_of(tmp_path / "images", NOISE | {"b.png": b"broken"})
    assert score(folder) == 4
    folder_of(folder, {"1.png": encoded(plain(9)), "b.png": encoded(plain(8))})
    (folder / "2.png").rename(folder / "two.png")
    (folder / "3.png").unlink()
    assert score(folder) == 2
    score(folder, "fresh.parquet", batch_size=1)
    found, fresh = (rows(tmp_path / name) for name in ("s.parquet", "fresh.parquet"))
    assert list(found) == list(fresh) == ["1.png", "4.png", "b.png", "two.png"]
    for name, row in found.items():
        assert row.pop("score") == pytest.approx(fresh[name].pop("score"), rel=1e-6)
    assert found == fresh


def test_null_directions_are_counted_once_on_the_first_images(tmp_path: Path, score) -> None:
    """The squares stop at black: a count of all four if black is first and alone, and it stays."""
    folder = folder_of(tmp_path / "images", {"0.png": BLACK} | NOISE)
    square = {"backbone": bent(torch.square)}
    for limit in (1, 0, 2):  # the last one keeps the others' rows
        score(folder, limit=limit, **square)
    found = rows(tmp_path / "s.parquet")
    assert [row["null_directions"] for row in found.values()] == [4] * 5
    score(folder, "whole.parquet", batch_size=1, **square)
    whole = rows(tmp_path / "whole.parquet")
    assert [row["null_directions"] for row in whole.values()] == [0] * 5
    assert [row["clipped"] for row in whole.values()] == [4, 0, 0, 0, 0]


def test_an_image_without_a_derivative_is_skipped(tmp_path: Path, score) -> None:
    """The root has none at black: a row that says so. Where all are so, a sentence and all rows."""
    root = {"backbone": bent(torch.sqrt)}
    folder = folder_of(tmp_path / "images", {"0.png": BLACK} | NOISE)
    score(folder, **root)
    row = rows(tmp_path / "s.parquet")["0.png"]
    assert row["note"] == "skipped: its Jacobian is not finite" and row["score"] is None
    alone = folder_of(tmp_path / "black", {"a.png": BLACK, "b.png": BLACK})
    with pytest.raises(ValueError, match="None of the images could be read; see their notes"):
        score(alone, "b.parquet", **root)
    assert len(rows(tmp_path / "b.parquet")) == 2


def test_interrupted_it_goes_on(tmp_path: Path, score, monkeypatch) -> None:
    """The table is written meanwhile and at Ctrl-C; then it becomes that of a whole call."""
    out, decode, calls = tmp_path / "s.parquet", score_folder.decode_image, []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 7:
            assert list(rows(out)) == list(NOISE)
            raise KeyboardInterrupt
        return decode(*arguments)

    later = {f"{seed}.png": encoded(plain(seed)) for seed in range(5, 10)}
    folder = folder_of(tmp_path / "images", NOISE | later)
    with monkeypatch.context() as patched:
        patched.setattr(score_folder, "decode_image", interrupted)
        patched.setattr(score_folder, "PAUSE", 0.0)
        with pytest.raises(KeyboardInterrupt):
            score(folder, batch_size=1)
    assert list(rows(out)) == list(NOISE)
    assert score(folder, batch_size=1) == 5
    score(folder, "whole.parquet", batch_size=1)
    assert rows(out) == rows(tmp_path / "whole.parquet")


def test_a_backbone_is_its_weights_and_not_its_spelling(tmp_path: Path, score, monkeypatch) -> None:
    """Relative, absolute, copied: the table goes on. Other weights or heads: refused."""
    folder = folder_of(tmp_path / "images", NOISE)
    score(folder)
    before = rows(tmp_path / "s.parquet")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "copy.safetensors").write_bytes(Path("encoder.safetensors").read_bytes())
    for name in ("encoder.safetensors", "./encoder.safetensors", "copy.safetensors"):
        assert score(folder, backbone=name) == 0
    other = encoder()
    with torch.no_grad():
        next(other.parameters()).add_(0.5)
    save_encoder(tmp_path / "other.safetensors", other)
    with pytest.raises(ValueError, match="its weights is .* choose another --out"):
        score(folder, backbone="other.safetensors")
    with pytest.raises(ValueError, match="its images is"):
        score(folder_of(tmp_path / "others", NOISE))
    assert rows(tmp_path / "s.parquet") == before


@pytest.mark.parametrize("name", ["s.html", "s", "folder.parquet", "own.parquet", "sheet.parquet"])
def test_nothing_of_the_users_is_overwritten(tmp_path: Path, score, name: str) -> None:
    """A table of another name, an own Parquet file, an own page beside the table."""
    (tmp_path / "folder.parquet").mkdir()
    pq.write_table(pa.table({"mine": [1]}), tmp_path / "own.parquet")
    (tmp_path / "sheet.html").write_text("my notes")
    folder = folder_of(tmp_path / "images", NOISE)
    with pytest.raises(ValueError, match=r"choose another --out|ends in \.parquet") as error:
        score(folder, name)
    assert "delete" not in str(error.value)
    assert (tmp_path / "sheet.html").read_text() == "my notes"
    assert pq.read_table(tmp_path / "own.parquet").to_pylist() == [{"mine": 1}]


def test_linked_and_hidden_folders(tmp_path: Path) -> None:
    """Each real folder once, however many links lead to it or round in a circle; none hidden."""
    files = dict.fromkeys(["z/a.png", ".hidden/a.png", ".a.png"], b"x")
    folder = folder_of(tmp_path / "images", files)
    far = folder_of(tmp_path / "far", {"a.png": b"x"})
    (folder / "link").symlink_to(far)
    (folder / "again").symlink_to(far)
    (folder / "a_link").symlink_to(folder / "z")
    (folder / "z" / "loop").symlink_to(folder)
    (folder / "gone.png").symlink_to(tmp_path / "nowhere")
    assert list(open_source(str(folder))[1]) == ["a_link/a.png", "again/a.png", "gone.png"]


@pytest.mark.skipif(sys.platform == "darwin", reason="its file system wants UTF-8")
def test_names_that_are_not_utf8(tmp_path: Path, score) -> None:
    """Readable, and no two the same; of folder, images, table and encoder."""
    folder = tmp_path / os.fsdecode(b"f\xe9")
    odd = {os.fsdecode(b"caf\xe9.png"): NOISE["1.png"], "caf\\xe9.png": NOISE["2.png"]}
    folder_of(folder, odd | {"é.png": NOISE["3.png"]})
    weights = tmp_path / os.fsdecode(b"\xff.safetensors")
    weights.write_bytes((tmp_path / "encoder.safetensors").read_bytes())
    out = os.fsdecode(b"\xfe.parquet")
    score(folder, out, backbone=str(weights))
    assert score(folder, out, backbone=str(weights)) == 0
    with (tmp_path / out).open("rb") as file:
        found = pq.read_table(file)["path"].to_pylist()
    assert sorted(found) == ["caf\\xe9.png", "caf\\xe9.png (2)", "é.png"]


def test_names_in_a_terminal_of_ascii(tmp_path: Path, score) -> None:
    """Beyond ASCII where the terminal has ASCII alone; of damaged images too."""
    folder = folder_of(tmp_path / "Fotos für", {"é.png": NOISE["1.png"], "ü.png": b"broken"})
    command = [sys.executable, "-m", "sparsejepa.cli", "score", folder, "--backbone"]
    command += [tmp_path / "encoder.safetensors", "--out", tmp_path / "ä.parquet"]
    ascii_alone = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run(command, env=os.environ | ascii_alone, check=True)
    assert list(rows(tmp_path / "ä.parquet")) == ["é.png", "ü.png"]


def test_parquet_in_row_groups_and_shards(tmp_path: Path, score) -> None:
    """Rows are named by file and number; without an image or with a path alone, they say so."""
    images = table(pixels(5, size=16))
    cells = [{"bytes": None, "path": path} for path in (None, "gone.png", "far.png")]
    extra = pa.table({"img": pa.array(cells, images["img"].type)})
    folder = folder_of(tmp_path / "set", {"sub/far.image": NOISE["1.png"]})
    one, far = folder / "sub/b.parquet", folder / "sub/far.png"
    pq.write_table(pa.concat_tables([images, extra]), one, row_group_size=2)
    score(one)
    far.with_suffix(".image").rename(far)
    found = rows(tmp_path / "s.parquet")
    assert list(found) == [f"b.parquet#{row}" for row in range(8)]
    assert found["b.parquet#5"]["note"] == "skipped: its cell is empty"
    assert "gone.png" in found["b.parquet#6"]["note"]
    unit = torch.from_numpy(pixels(5, size=16)).permute(0, 3, 1, 2) / 255
    expected = jepa_score(pooled(encoder()), unit).score.tolist()
    assert [row["score"] for row in found.values()][:5] == pytest.approx(expected, rel=1e-5)
    assert score(one) == 1  # far.png is there now
    far.unlink()
    pq.write_table(pa.table({"img": [NOISE["2.png"]]}), folder / "a.parquet")  # plain binary
    score(folder, "shards.parquet")
    assert list(rows(tmp_path / "shards.parquet"))[:2] == ["a.parquet#0", "sub/b.parquet#0"]


def test_a_data_set_of_the_hub(tmp_path: Path, score, monkeypatch) -> None:
    """Through `datasets`, here from a local file; a configuration stands after a colon."""
    import datasets

    file, asked = str(tmp_path / "images.parquet"), []
    pq.write_table(table(pixels(3, size=16)), file)

    def load(*names, split):
        asked.append((*names, split))
        return datasets.Dataset.from_parquet(file, cache_dir=str(tmp_path / "cache"))

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert score("owner/name", split="test") == 3
    assert list(rows(tmp_path / "s.parquet")) == ["test#0", "test#1", "test#2"]
    score("owner/name:small", "t.parquet")
    assert asked == [("owner/name", None, "test"), ("owner/name", "small", "train")]


def test_a_timm_model_with_its_own_preprocessing(tmp_path: Path, score) -> None:
    """Its size, crop and statistics; from a file with its name, or a folder with config.json."""
    name = "test_vit2.r160_in1k"
    network = load_backbone(name, pretrained=False)
    folder = folder_of(tmp_path / "images", {"a.png": encoded(plain(0, 200))})
    score(folder, backbone=network)
    ready = network.prepare(plain(0, 200))[None]
    assert ready.shape == (1, 3, 160, 160) and 0 <= ready.min() < ready.max() <= 1
    torch.testing.assert_close(network.embedding()(ready), network.network((ready - 0.5) / 0.5))
    file = tmp_path / "model.safetensors"
    save_file(network.network.state_dict(), file)
    assert score(folder, backbone=name, weights=file) == 0
    with pytest.raises(ValueError, match="does not say of which network"):
        score(folder, backbone=str(file))
    config = {"architecture": "test_vit2", "pretrained_cfg": network.network.pretrained_cfg}
    (tmp_path / "config.json").write_text(json.dumps(config, default=str))
    assert score(folder, backbone=f"local-dir:{tmp_path}") == 0


def test_the_contact_sheet_shows_both_ends(tmp_path: Path, score) -> None:
    """One file with its images inside, likeliest first, a described image each; names escaped."""
    folder = folder_of(tmp_path / "images", NOISE | {"<b>&.png": encoded(plain(9))})
    score(folder)
    page = (tmp_path / "s.html").read_text()
    assert "<b>&.png" not in page and "&lt;b&gt;&amp;.png" in page
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    shown = re.findall(r'<img src="data:image/jpeg;base64,[\w+/=]+" alt="(\S+): among the', page)
    order = sorted(rows(tmp_path / "s.parquet").values(), key=lambda row: -row["score"])
    expected = [row["path"] for row in (*order[:3], *order[:2:-1])]
    assert [name.replace("&lt;b&gt;&amp;", "<b>&") for name in shown] == expected


@pytest.mark.parametrize(
    ("images", "backbone", "message"),
    [
        ("empty", None, "There are no images in"),
        ("owner/name", None, "is no folder or file here, and the Hub did not give its split"),
        ("text.parquet", None, "is neither a folder of images nor a whole Parquet file"),
        ("images", "vit_tiny_patch16_224.typo", "timm has no vit_tiny_patch16_224.typo with these"),
        ("images", "gone.safetensors", "There is no file of weights gone.safetensors"),
        ("images", "damaged.safetensors", "damaged.safetensors is not a whole file of weights"),
        ("images", "mine.pth", "is not a whole file of weights"),
        ("images", "pointer.safetensors", "is a Git LFS pointer"),
        ("images", "images", "this is a folder: name a file of weights in it"),
        ("images", "owner/model", "a model on the Hub is written hf-hub:owner/model"),
        ("unreadable", None, "None of the images could be read"),
    ],
)
def test_a_users_mistake_is_one_sentence(
    tmp_path: Path, monkeypatch, images: str, backbone: str | None, message: str
) -> None:
    """On the command line: exit code 2, no traceback, and never the advice to delete a file."""
    monkeypatch.chdir(tmp_path)
    weights = str(tiny_file(tmp_path))
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.parquet").write_text("no table")
    (tmp_path / "damaged.safetensors").write_bytes(b"no weights")
    (tmp_path / "mine.pth").write_bytes(b"PK")
    (tmp_path / "pointer.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    folder_of(tmp_path / "images", {"a.png": encoded(plain())})
    folder_of(tmp_path / "unreadable", {"a.png": b"broken"})
    arguments = ["score", images, "--backbone", backbone or weights, "--out", "s.parquet"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert message in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr and "delete" not in result.stderr

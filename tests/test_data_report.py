"""The data report: counts that add up, licences from a manifest, the histogram and its picture."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from pictures import encoded, scene, tar, toned
from skimage.color import rgb2lab

from model.data import in_memory, open_photos
from model.data_report import DataReport, SourceReport, ab_counts, gamut_outline, licences
from model.sources import SourceConfig
from pipeline.errors import InputError

NONE = np.zeros((112, 112), np.int64)


def test_lines_say_what_was_kept_and_why_not() -> None:
    dives = SourceReport("dives", 30, 27, 2, {"dark": 4, "near-duplicate": 100})
    stills = SourceReport("stills", 10, 9, 1, {"dark": 1})
    alone, both = DataReport((stills,), NONE), DataReport((dives, stills), NONE)
    assert alone.lines() == ["stills: 10 pictures (9 to train on, 1 held out); left out 1 dark"]
    assert both.lines()[0].startswith("dives: 30 pictures (27 to train on, 2 held out, 1 between them in neither)")
    assert both.lines()[-1].startswith("all: 40 pictures (36 to train on, 3 held out, 1 between them in neither)")
    assert both.lines()[-1].endswith("left out 5 dark, 100 near-duplicate")


def test_a_report_of_real_sources_adds_up_and_is_json(tmp_path: Path) -> None:
    pictures = {f"{n}.png": encoded(scene(n)) for n in range(30)} | {"g.png": encoded(scene(1)[..., 0])}
    first = SourceConfig(str(tar(tmp_path / "a.tar", pictures)), licence="CC0", name="first")
    second = SourceConfig(str(tar(tmp_path / "b.tar", {f"b{n}.png": encoded(scene(50 + n)) for n in range(8)})))
    photos = open_photos([first, second], tmp_path / "cache")
    train, held = photos.split()
    told = json.loads(json.dumps(photos.report.to_json()))
    assert told["total"]["pictures"] == len(photos) == 38
    assert told["total"]["train"] == len(train)
    assert told["total"]["held_out"] == len(held)
    assert [source["pictures"] for source in told["sources"]] == [30, 8]
    assert told["sources"][0]["dropped"] == {"grey": 1}
    assert photos.report.training_data() == [
        {"source": "b.tar", "repository": "", "licence": "none stated", "photographs": 8},
        {"source": "first", "repository": "", "licence": "CC0", "photographs": 30},
    ]


def test_a_manifest_tells_of_licences(tmp_path: Path) -> None:
    rows = ["file,source,repository,licence", "a.png,zoo,some/where,MIT", "clip.mp4,reef,,CC-BY"]
    (tmp_path / "MANIFEST.csv").write_text("\n".join(rows))
    for path in (tmp_path, tmp_path / "a.tar"):
        found = licences([SourceConfig(str(path), name="own", licence="CC0")], [["x/a.png", "b.png", "clip.mp4@1.50s"]])
        assert [tuple(row.values()) for row in found] == [
            ("own", "", "CC0", 1),
            ("reef", "", "CC-BY", 1),
            ("zoo", "some/where", "MIT", 1),
        ]


@pytest.mark.parametrize("content", [b"name,origin\na.png,zoo\n", b"\xff\xfe\x00"])
def test_a_manifest_that_is_none_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "MANIFEST.csv").write_bytes(content)
    with pytest.raises(InputError, match=r"MANIFEST\.csv.*columns"):
        licences([SourceConfig(str(tmp_path))], [["a.png"]])


def test_the_histogram_counts_colours_where_they_are() -> None:
    picture = scene(3)
    counts = ab_counts(picture)
    ab = rgb2lab(picture[::4, ::4])[..., 1:].reshape(-1, 2)
    expected, _, _ = np.histogram2d(ab[:, 0], ab[:, 1], bins=112, range=[[-112, 112]] * 2)
    assert counts.sum() == expected.sum() == 23 * 30
    assert np.abs(counts - expected).sum() < 0.02 * counts.sum()  # on the border of two cells
    both = in_memory([picture, toned(picture, (0, 0, 0), (255, 255, 255))]).report.histogram
    np.testing.assert_array_equal(both[:50], counts[:50])
    assert both.sum() == 2 * counts.sum()


def test_the_outline_goes_around_every_colour_and_no_farther() -> None:
    outline = gamut_outline().astype(np.float32)
    colours = np.random.default_rng(0).integers(0, 256, (1, 3000, 3), np.uint8)
    ab = rgb2lab(colours)[0, :, 1:]
    inside = [cv2.pointPolygonTest(outline, (float(a), float(b)), True) for a, b in ab]
    assert min(inside) > -0.5
    corners = rgb2lab(
        np.array([[[255, 0, 0], [255, 255, 0], [0, 255, 0], [0, 255, 255], [0, 0, 255], [255, 0, 255]]], "u1")
    )
    for a, b in corners[0, :, 1:]:
        assert np.hypot(*(outline - (a, b)).T).min() < 0.1


def test_the_picture_of_the_histogram_shows_what_colours_there_are(tmp_path: Path) -> None:
    drawn = []
    for colour in ((220, 40, 30), (40, 60, 220)):
        report = in_memory([np.full((64, 64, 3), colour, np.uint8)] * 2).report
        report.ab_histogram_png(tmp_path / "data.png")
        picture = cv2.imread(str(tmp_path / "data.png"))
        assert min(picture.shape[:2]) > 400
        drawn.append(picture.astype(int))
    assert (tmp_path / "data.png").stat().st_size > 10_000
    assert [p.name for p in tmp_path.iterdir()] == ["data.png"]
    rows, columns = np.nonzero(np.abs(drawn[0] - drawn[1]).sum(2) > 60)
    assert np.ptp(rows) + np.ptp(columns) > 100  # red lies elsewhere than blue

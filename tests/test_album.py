import dataclasses
import errno
import gzip
import hashlib
import io
import os
import struct
import subprocess
import tarfile
import zipfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage.color import rgb2lab

from pipeline import album as album_stage
from pipeline import storage
from pipeline.album import assemble_album, colorize_images, cut_album, list_members
from pipeline.album_store import StoreReader
from pipeline.errors import EngineError, InputError, StorageError, UnreadableError, VerificationError
from pipeline.frames import Look, Segment
from pipeline.infer import network_size
from pipeline.limits import DEFAULT_LIMITS, Limits
from pipeline.zip_writer import ZipWriter

RNG = np.random.default_rng(2)


class Painter:
    """Paints what it sees by its lightness, so that a mix-up of pictures shows; remembers its batches."""

    key = "painter"

    def __init__(self):
        self.batches = []

    def __call__(self, lightness):
        self.batches.append(lightness.shape)
        quarter = lightness[:, 0, ::4, ::4]
        return np.stack([quarter * 0.5 - 10, 30 - quarter * 0.4], axis=1).astype(np.float32)


def grey(seed, width=60, height=40):
    return np.random.default_rng(seed).integers(20, 230, (height // 5, width // 5), np.uint8).repeat(5, 0).repeat(5, 1)


def encoded(pixels, kind="PNG", **options):
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind, **options)
    return out.getvalue()


HUES = np.dstack([grey(1), grey(2), grey(3)])
IMAGES = {
    "roll 1/a.png": encoded(grey(4)),
    "roll 1/b.jpg": encoded(grey(5, 40, 60), "JPEG"),
    "roll 1/notes.txt": b"Filmed in 1931.",
    "in colour.png": encoded(HUES),
    "roll 2/c.tif": encoded(grey(6), "TIFF", compression="tiff_lzw"),
    "roll 2/broken.png": encoded(grey(7))[:-60],
    "roll 2/c.bmp": encoded(grey(8, 60, 40), "BMP"),
    "empty.jpg": b"",
}
TAR_MODES = {"tar": "w", "tar.gz": "w:gz", "tar.bz2": "w:bz2", "tar.xz": "w:xz"}
KINDS = ["zip", *TAR_MODES]


def make(path, kind, files=IMAGES):
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.comment = b"An archive"
            archive.writestr(zipfile.ZipInfo("roll 1/", (1990, 1, 2, 3, 4, 6)), b"")
            for i, (name, data) in enumerate(files.items()):
                info = zipfile.ZipInfo(name, (1985, 5, 6, 7, 8, 2 * i))
                info.compress_type = zipfile.ZIP_DEFLATED if i % 2 else zipfile.ZIP_STORED
                info.external_attr, info.comment = (0o640 << 16), f"member {i}".encode()
                archive.writestr(info, data)
    else:
        with tarfile.open(path, TAR_MODES[kind]) as archive:
            folder = tarfile.TarInfo("roll 1")
            folder.type, folder.mode, folder.mtime = tarfile.DIRTYPE, 0o750, 5
            archive.addfile(folder)
            for i, (name, data) in enumerate(files.items()):
                info = tarfile.TarInfo(name)
                info.size, info.mtime, info.mode, info.uname = len(data), 1000 + i, 0o640, "someone"
                archive.addfile(info, io.BytesIO(data))
    return path


def work(source, destination, scratch, look=Look(), limits=DEFAULT_LIMITS, members=256):  # noqa: B008
    album = list_members(str(source), limits)
    files = [
        colorize_images(album.part(segment), segment, Painter(), look, limits, scratch / f"{segment.index}.segment")
        for segment in cut_album(album, members)
    ]
    return assemble_album(album, files, destination, limits)


def unpacked(path, kind):
    if kind == "zip":
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
            return {info.filename: (info, archive.read(info)) for info in archive.infolist()}
    with tarfile.open(path) as archive:
        return {info.name: (info, archive.extractfile(info).read() if info.isfile() else b"") for info in archive}


def colourful(data):
    return np.ptp(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int), axis=-1).mean() > 3


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_comes_back_as_one_of_its_kind(tmp_path, kind):
    source, target = make(tmp_path / f"in.{kind}", kind), tmp_path / "out" / f"in.{kind}"
    made = work(source, target, tmp_path, members=2)
    before, after = unpacked(source, kind), unpacked(target, kind)
    assert list(after) == list(before)
    assert (made.coloured, made.kept, made.copied, made.bytes) == (4, 1, 4, target.stat().st_size)
    assert {error.name for error in made.errors} == {"roll 2/broken.png", "empty.jpg"}
    assert [str(error) for error in made.errors][1] == "empty.jpg: is empty"
    coloured = {"roll 1/a.png", "roll 1/b.jpg", "roll 2/c.tif", "roll 2/c.bmp"}
    for name, (info, data) in after.items():
        old, old_data = before[name]
        if name in coloured:
            assert colourful(data)
            assert Image.open(io.BytesIO(data)).size == Image.open(io.BytesIO(old_data)).size
        else:
            assert data == old_data
        fields = (
            ("date_time", "compress_type", "external_attr", "comment", "create_system", "flag_bits")
            if kind == "zip"
            else ("mtime", "mode", "uname", "type")
        )
        assert [getattr(info, field) for field in fields] == [getattr(old, field) for field in fields]
    if kind == "zip":
        assert zipfile.ZipFile(target).comment == b"An archive"


def test_a_folder_is_mirrored(tmp_path):
    for name, data in IMAGES.items():
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        os.utime(path, (10**9, 10**9))
    made = work(tmp_path / "in", tmp_path / "out", tmp_path)
    there = {p.relative_to(tmp_path / "out").as_posix(): p for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert there.keys() == IMAGES.keys()
    assert (made.coloured, made.kept, made.copied, len(made.errors)) == (4, 1, 3, 2)
    for name, path in there.items():
        assert path.stat().st_mtime == 10**9
        unchanged = name in ("roll 1/notes.txt", "in colour.png", "roll 2/broken.png", "empty.jpg")
        assert (path.read_bytes() == IMAGES[name]) == unchanged


def test_an_image_on_a_bad_sector_fails_alone(tmp_path, monkeypatch):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.png", "b.png", "c.png"):
        (folder / name).write_bytes(IMAGES["roll 1/a.png"])
    plain = storage._LocalFile.readinto

    def failing(file, buffer):
        if file.name.name == "b.png":
            raise UnreadableError(f"{file.name}: cannot be read: Input/output error")
        return plain(file, buffer)

    monkeypatch.setattr(storage._LocalFile, "readinto", failing)
    made = work(folder, tmp_path / "out", tmp_path)
    assert (made.coloured, made.copied) == (2, 0)
    assert [str(error) for error in made.errors] == ["b.png: cannot be read: Input/output error"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "c.png"]


def test_an_image_that_may_not_be_read_fails_alone(tmp_path, monkeypatch):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.png", "b.png", "c.png"):
        (folder / name).write_bytes(IMAGES["roll 1/a.png"])

    class Guarded(storage._LocalFile):
        def __init__(self, path):
            if path.name == "b.png":
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            super().__init__(path)

    monkeypatch.setattr(storage, "_LocalFile", Guarded)
    made = work(folder, tmp_path / "out", tmp_path)
    assert [str(error) for error in made.errors] == ["b.png: cannot be read: Permission denied"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "c.png"]


def test_a_single_image_comes_back_as_itself(tmp_path):
    (tmp_path / "x.png").write_bytes(IMAGES["roll 1/a.png"])
    made = work(tmp_path / "x.png", tmp_path / "out.png", tmp_path)
    assert (made.coloured, made.copied, made.errors) == (1, 0, ())
    assert colourful((tmp_path / "out.png").read_bytes())
    (tmp_path / "c.png").write_bytes(IMAGES["in colour.png"])
    made = work(tmp_path / "c.png", tmp_path / "out.png", tmp_path)
    assert (made.kept, made.warnings) == (1, ("in colour already and copied as they are: 1",))
    assert (tmp_path / "out.png").read_bytes() == IMAGES["in colour.png"]


@pytest.mark.parametrize("width", [60, 61, 64])
def test_grey_dpx_of_any_width(tmp_path, width):
    """FFmpeg pads its rows."""
    pixels = np.random.default_rng(1).integers(20, 230, (20, width), np.uint8)
    encoder = av.CodecContext.create("dpx", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = width, 20, "gray", Fraction(1, 24)
    packets = encoder.encode(av.VideoFrame.from_ndarray(pixels, format="gray"))
    (tmp_path / "a.dpx").write_bytes(bytes(packets[0]))
    made = work(tmp_path / "a.dpx", tmp_path / "out.dpx", tmp_path)
    assert (made.coloured, made.errors) == (1, ())
    decoder = av.CodecContext.create("dpx", "r")
    rgb = decoder.decode(av.Packet((tmp_path / "out.dpx").read_bytes()))[0].to_ndarray()
    lightness = [rgb2lab(picture / 255)[..., 0] for picture in (np.dstack([pixels] * 3), rgb)]
    assert np.abs(lightness[0] - lightness[1]).max() < 0.5


def test_recolor_and_saturation(tmp_path):
    (tmp_path / "c.png").write_bytes(IMAGES["in colour.png"])
    assert work(tmp_path / "c.png", tmp_path / "out.png", tmp_path, Look(recolor=True)).coloured == 1
    assert (tmp_path / "out.png").read_bytes() != IMAGES["in colour.png"]
    work(tmp_path / "c.png", tmp_path / "grey.png", tmp_path, Look(saturation=0.0, recolor=True))
    pixels = np.asarray(Image.open(tmp_path / "grey.png"))
    assert np.ptp(pixels.astype(int), axis=-1).max() == 0


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_the_result_does_not_depend_on_segments_batches_or_the_day(tmp_path, kind, monkeypatch):
    files = {f"{i}.png": encoded(grey(i, *((60, 40) if i % 3 else (40, 80)))) for i in range(12)}
    source = make(tmp_path / "in", kind, files)
    work(source, tmp_path / "a", tmp_path)
    monkeypatch.setattr(album_stage, "_BATCH", 2)
    monkeypatch.setattr(album_stage, "_WINDOW_PAGES", 3)
    os.utime(source, (0, 0))
    work(source, tmp_path / "b", tmp_path, members=5)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_pictures_of_unlike_sizes_share_batches_by_network_size(tmp_path):
    files = {f"{i}.png": encoded(grey(i, 60 + 10 * (i % 2), 60 + 10 * (i % 2))) for i in range(10)}
    files |= {f"wide{i}.png": encoded(grey(i, 120, 60)) for i in range(3)}
    album = list_members(str(make(tmp_path / "in", "zip", files)))
    painter = Painter()
    colorize_images(album, cut_album(album)[0], painter, Look(), DEFAULT_LIMITS, tmp_path / "s")
    assert sorted(shape[0] for shape in painter.batches) == [3, 10]
    assert {shape[2:] for shape in painter.batches} == {network_size(60, 60), network_size(120, 60)}


def test_each_picture_gets_its_own_colour(tmp_path):
    """Flat pictures, each painted by its own lightness: the hue tells whose colour it got."""
    levels = list(range(40, 220, 12))
    files = {f"{v}.png": encoded(np.full((30 + 10 * (v % 3), 50), v, np.uint8)) for v in levels}
    work(make(tmp_path / "in", "tar", files), tmp_path / "out", tmp_path)
    for name, (_, data) in unpacked(tmp_path / "out", "tar").items():
        if name != "roll 1":
            alone = tmp_path / "one.png"
            alone.write_bytes(files[name])
            work(alone, tmp_path / "alone.png", tmp_path)
            assert (tmp_path / "alone.png").read_bytes() == data


def test_pages_of_a_tiff_spread_over_windows(tmp_path, monkeypatch):
    monkeypatch.setattr(album_stage, "_WINDOW_PAGES", 2)
    out = io.BytesIO()
    pages = [grey(1), grey(2, 30, 30), HUES, grey(4), grey(5)]
    with tifffile.TiffWriter(out) as writer:
        for page in pages:
            writer.write(page, photometric="rgb" if page.ndim == 3 else "minisblack", metadata=None, contiguous=False)
    files = {"first.png": encoded(grey(8)), "m.tif": out.getvalue(), "last.png": encoded(grey(9))}
    made = work(make(tmp_path / "in", "zip", files), tmp_path / "out", tmp_path)
    assert (made.coloured, made.errors) == (3, ())
    with tifffile.TiffFile(io.BytesIO(unpacked(tmp_path / "out", "zip")["m.tif"][1])) as result:
        assert [page.shape for page in result.pages] == [(*page.shape[:2], 3) for page in pages]
        np.testing.assert_array_equal(result.pages[2].asarray(), HUES)  # in colour already: kept, amid coloured ones
        assert np.ptp(result.pages[4].asarray().astype(int), axis=-1).mean() > 3


def test_many_pages_are_decoded_side_by_side_without_mixing(tmp_path):
    out = io.BytesIO()
    pages = np.stack([np.full((50, 64), 5 * i, np.uint8) for i in range(50)])
    tifffile.imwrite(out, pages, photometric="minisblack", compression="zlib", metadata=None)
    (tmp_path / "m.tif").write_bytes(out.getvalue())
    work(tmp_path / "m.tif", tmp_path / "grey.tif", tmp_path, Look(saturation=0))
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "grey.tif")[..., 1], pages)


def test_a_bad_page_fails_its_file_alone(tmp_path):
    out = io.BytesIO()
    tifffile.imwrite(out, np.stack([grey(1)] * 3), photometric="minisblack", compression="zlib", metadata=None)
    data = bytearray(out.getvalue())
    with tifffile.TiffFile(io.BytesIO(data)) as source:
        data[source.pages[1].dataoffsets[0] + 2] ^= 0xFF
    files = {"m.tif": bytes(data), "ok.png": encoded(grey(9))}
    made = work(make(tmp_path / "in", "tar", files), tmp_path / "out", tmp_path)
    assert made.coloured == 1
    assert [error.name for error in made.errors] == ["m.tif"]
    assert unpacked(tmp_path / "out", "tar")["m.tif"][1] == bytes(data)


def test_hostile_members_do_not_come_back_and_nothing_is_written_elsewhere(tmp_path):
    source = tmp_path / "deep" / "in.tar"
    source.parent.mkdir()
    with tarfile.open(source, "w") as archive:
        for name, kind in (("../up.png", b"0"), ("/abs.png", b"0"), ("link.png", b"2"), ("dev.png", b"3")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, "/etc/passwd", 100 if kind == b"0" else 0
            archive.addfile(info, io.BytesIO(bytes(100)))
        info = tarfile.TarInfo("good.png")
        info.size = len(IMAGES["roll 1/a.png"])
        archive.addfile(info, io.BytesIO(IMAGES["roll 1/a.png"]))
    scratch, out = tmp_path / "scratch", tmp_path / "out"
    scratch.mkdir()
    out.mkdir()
    made = work(source, out / "in.tar", scratch)
    assert list(unpacked(out / "in.tar", "tar")) == ["good.png"]
    assert len(made.errors) == 4
    assert all(error.left_out for error in made.errors)
    files = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert files == {"deep/in.tar", "out/in.tar", "scratch/0.segment"}


def test_a_truncated_archive_gives_what_is_whole(tmp_path):
    files = {f"{i}.png": encoded(RNG.integers(0, 255, (60, 60), np.uint8)) for i in range(6)}
    for kind in ("zip", "tar", "tar.gz"):
        source = make(tmp_path / f"in.{kind}", kind, files)
        source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
        made = work(source, tmp_path / f"out.{kind}", tmp_path)
        assert made.coloured >= 2
        assert "truncated" in str(made.errors[0])
        assert [name for name in unpacked(tmp_path / f"out.{kind}", kind) if "png" in name] == list(files)[
            : made.coloured
        ]


def test_names_of_unknown_encoding_come_back_byte_for_byte(tmp_path):
    name = "表紙.png".encode("cp932")
    source = make(tmp_path / "in.zip", "zip", {"1" * len(name): b"", "x.png": IMAGES["roll 1/a.png"]})
    source.write_bytes(source.read_bytes().replace(b"1" * len(name), name))
    work(source, tmp_path / "out.zip", tmp_path)
    with zipfile.ZipFile(tmp_path / "out.zip", metadata_encoding="cp932") as archive:
        assert archive.namelist() == ["roll 1/", "表紙.png", "x.png"]
    with tarfile.open(tmp_path / "in.tar", "w", encoding="latin-1", format=tarfile.GNU_FORMAT) as archive:
        info = tarfile.TarInfo("é" * 120 + ".png")
        info.size = len(IMAGES["roll 1/a.png"])
        archive.addfile(info, io.BytesIO(IMAGES["roll 1/a.png"]))
    work(tmp_path / "in.tar", tmp_path / "out.tar", tmp_path)
    with tarfile.open(tmp_path / "out.tar", encoding="latin-1") as archive:
        assert archive.getnames() == ["é" * 120 + ".png"]


def test_the_system_tools_read_what_is_written(tmp_path):
    for kind, command in (("zip", ["unzip", "-tqq"]), ("tar.xz", ["tar", "-tf"]), ("tar.gz", ["tar", "-tf"])):
        work(make(tmp_path / f"in.{kind}", kind), tmp_path / f"out.{kind}", tmp_path)
        try:
            subprocess.run([*command, tmp_path / f"out.{kind}"], check=True, capture_output=True)
        except FileNotFoundError:
            pytest.skip(f"{command[0]} is not installed")


def test_the_date_in_a_gzip_header_is_the_sources(tmp_path):
    source = make(tmp_path / "in", "tar")
    source.write_bytes(gzip.compress(source.read_bytes(), mtime=123456789))
    work(source, tmp_path / "out", tmp_path)
    assert struct.unpack("<I", (tmp_path / "out").read_bytes()[4:8]) == (123456789,)


def test_segments_cover_all_members_once_and_hold_hundreds_of_small_files(tmp_path):
    files = {f"{i}.png" if i % 3 else f"{i}.txt": b"x" for i in range(1000)}
    album = list_members(str(make(tmp_path / "in", "zip", files)))
    segments = cut_album(album)
    assert [segment.frames for segment in segments] == [256, 256, 154]
    assert [(s.start, s.end) for s in segments] == list(
        zip([0] + [s.end for s in segments[:-1]], [s.end for s in segments], strict=True)
    )
    assert segments[-1].end == 1001
    large = tuple(dataclasses.replace(member, size=200 << 20) for member in album.members)
    assert {s.frames for s in cut_album(dataclasses.replace(album, members=large))} == {2}
    assert len(cut_album(dataclasses.replace(album, kind="tar.gz", members=large))) <= 17
    assert cut_album(dataclasses.replace(album, members=())) == ()


def test_what_a_segment_says_of_itself(tmp_path):
    album = list_members(str(make(tmp_path / "in", "zip")))
    heard = []
    result = colorize_images(
        album, cut_album(album)[0], Painter(), Look(), DEFAULT_LIMITS, tmp_path / "s", heard.append
    )
    assert result.pts == (1, 2, 4, 5, 7)
    assert result.frames == 5
    assert sum(heard) == 7
    assert result.passed_through == 1
    assert result.metrics["failed"] == 2
    assert result.sha256 == hashlib.sha256((tmp_path / "s").read_bytes()).hexdigest()
    assert result.bytes == (tmp_path / "s").stat().st_size
    states = {r.ordinal: r.state for r in StoreReader(result.path).results}
    assert states == {1: "coloured", 2: "coloured", 4: "kept", 5: "coloured", 6: "failed", 7: "coloured", 8: "failed"}


def test_a_missing_or_damaged_segment_is_found(tmp_path):
    album = list_members(str(make(tmp_path / "in", "zip")))
    first, second = (
        colorize_images(album, segment, Painter(), Look(), DEFAULT_LIMITS, tmp_path / f"{segment.index}")
        for segment in cut_album(album, 4)
    )
    with pytest.raises(VerificationError, match="have no result yet"):
        assemble_album(album, [first], tmp_path / "out")
    Path(second.path).write_bytes(Path(second.path).read_bytes()[:700])
    with pytest.raises(VerificationError, match="segment file is damaged"):
        assemble_album(album, [first, second], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_written_is_read_back(tmp_path, monkeypatch):
    source = make(tmp_path / "in", "zip")

    add = ZipWriter.add
    small = encoded(grey(1, 5, 5))
    monkeypatch.setattr(ZipWriter, "add", lambda writer, source, entry, _: add(writer, source, entry, small))
    with pytest.raises(VerificationError, match="expected"):
        work(source, tmp_path / "out", tmp_path)
    assert not (tmp_path / "out").exists()


def test_an_engine_that_fails_is_not_a_members_fault(tmp_path):
    def broken(_):
        raise EngineError("no device")

    album = list_members(str(make(tmp_path / "in", "zip")))
    with pytest.raises(EngineError):
        colorize_images(album, Segment(0, 0, 9), broken, Look(), DEFAULT_LIMITS, tmp_path / "s")


def test_a_source_that_changes_meanwhile_is_noticed(tmp_path):
    source = make(tmp_path / "in", "tar")
    album = list_members(str(source))
    files = [colorize_images(album, cut_album(album)[0], Painter(), Look(), DEFAULT_LIMITS, tmp_path / "s")]
    make(source, "tar", {name.upper(): data for name, data in IMAGES.items()})
    with pytest.raises(InputError, match="changed"):
        assemble_album(album, files, tmp_path / "out")
    with pytest.raises(InputError, match="changed"):
        colorize_images(album, cut_album(album)[0], Painter(), Look(), DEFAULT_LIMITS, tmp_path / "s")


def test_an_archive_of_nothing_to_pass_on_is_refused(tmp_path):
    album = list_members(str(make(tmp_path / "in", "zip", {}))).part(Segment(0, 5, 6))
    for empty in (album, list_members(str(make_hostile(tmp_path / "h")))):
        with pytest.raises(InputError, match="no member that can be passed on"):
            assemble_album(empty, [], tmp_path / "out")


def make_hostile(path):
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("../x.png"))
    return path


def test_flat_pictures_that_pack_too_well_come_back_all_the_same(tmp_path):
    limits = Limits(ratio=20, ratio_floor=5000)
    files = {f"{i}.bmp": encoded(np.full((64, 64), 9, np.uint8), "BMP") for i in range(2)}
    source = tmp_path / "in.zip"
    with zipfile.ZipFile(source, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data, compresslevel=1)
    assert work(source, tmp_path / "out.zip", tmp_path, limits=limits).coloured == 2


def test_a_full_disk_is_a_storage_error(tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    album = list_members(str(make(tmp_path / "in", "zip")))
    with pytest.raises(StorageError, match="no space left"):
        colorize_images(album, cut_album(album)[0], Painter(), Look(), DEFAULT_LIMITS, Path("/dev/full"))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(
    st.sampled_from(["zip", "tar", "tar.gz"]),
    st.lists(st.tuples(st.floats(0, 0.9999), st.integers(0, 255)), max_size=6),
    st.floats(0.3, 1),
)
def test_damaged_archives_come_back_or_are_refused_and_nothing_else_is_written(tmp_path_factory, kind, damage, share):
    base = tmp_path_factory.mktemp("fuzz")
    source = make(
        base / "in", kind, {"a.png": IMAGES["roll 1/a.png"], "n.txt": b"text", "b.bmp": IMAGES["roll 2/c.bmp"]}
    )
    data = bytearray(source.read_bytes())
    for place, value in damage:
        data[int(place * len(data))] = value
    source.write_bytes(data[: int(len(data) * share)])
    out = base / "out"
    try:
        made = work(source, out / "x", base, limits=Limits(image_pixels=10_000, ratio=50, ratio_floor=1 << 20))
    except InputError:
        assert not (out / "x").exists()
    else:
        assert list(out.iterdir()) == [out / "x"]
        assert made.bytes == (out / "x").stat().st_size
    assert {p.name for p in base.iterdir()} <= {"in", "out", "0.segment"}

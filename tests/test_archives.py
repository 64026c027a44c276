import contextlib
import gzip
import io
import lzma
import os
import random
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import tars, zips
from pipeline.archives import album_kind, list_members, read_members
from pipeline.compression import Expander, Inflate, decompressor
from pipeline.errors import InputError
from pipeline.frames import Segment
from pipeline.limits import DEFAULT_LIMITS, Limits
from pipeline.member_names import printable
from pipeline.zip_writer import ZipWriter

FILES = {"a/1.png": b"first" * 100, "notes.txt": b"text", "b.jpg": random.Random(1).randbytes(70_000), "e.png": b""}
TAR_MODES = {"tar": "w", "tar.gz": "w:gz", "tar.bz2": "w:bz2", "tar.xz": "w:xz"}
KINDS = ["zip", *TAR_MODES]


def make_zip(path, files=FILES, method=zipfile.ZIP_DEFLATED, change=None):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            info = zipfile.ZipInfo("x", (1985, 5, 6, 7, 8, 10))
            info.filename, info.compress_type = name, method  # set afterwards, so that nothing is tidied up
            if change:
                change(info)
            archive.writestr(info, data)
    return str(path)


def make_tar(path, files=FILES, mode="w", change=None):
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            if change:
                change(info)
            archive.addfile(info, io.BytesIO(data))
    return str(path)


def make(path, kind, files=FILES):
    return make_zip(path, files) if kind == "zip" else make_tar(path, files, TAR_MODES[kind])


def rewrite(path, change):
    """Change an archive's bytes in place."""
    data = bytearray(Path(path).read_bytes())
    changed = change(data)
    Path(path).write_bytes(data if changed is None else changed)
    return str(path)


def contents(album, limits=DEFAULT_LIMITS):
    return {member.name: data for member, data in read_members(album, limits)}


def left_out(album):
    return {member.name: member.problem for member in album.members if member.left_out}


@pytest.mark.parametrize("kind", KINDS)
def test_members_are_listed_in_order_and_read_back(tmp_path, kind):
    url = make(tmp_path / "named.anyhow", kind)
    album = list_members(url)
    assert album_kind(url) == album.kind == kind
    assert [(m.ordinal, m.name, m.size, m.is_image) for m in album.members] == [
        (0, "a/1.png", 500, True), (1, "notes.txt", 4, False), (2, "b.jpg", 70_000, True), (3, "e.png", 0, True),
    ]  # fmt: skip
    assert album.errors == album.warnings == ()
    assert contents(album) == {name: data for name, data in FILES.items() if name != "notes.txt"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_part_reads_its_own_members_only(tmp_path, kind):
    part = list_members(make(tmp_path / "x", kind)).part(Segment(1, 2, 4))
    assert [member.ordinal for member in part.members] == [2, 3]
    assert contents(part) == {"b.jpg": FILES["b.jpg"], "e.png": b""}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_every_method_of_zip_is_read_and_written(tmp_path, method):
    url = make_zip(tmp_path / "x.zip", FILES, method)
    assert contents(list_members(url))["b.jpg"] == FILES["b.jpg"]
    with zipfile.ZipFile(rewritten(url, lambda writer, f, entry: writer.add(f, entry, b"new " * 1000))) as archive:
        assert archive.testzip() is None
        assert [(i.compress_type, archive.read(i)) for i in archive.infolist()] == [(method, b"new " * 1000)] * 4


def rewritten(url, put, target=None, start=0):
    target = target or io.BytesIO()
    with Path(url).open("rb") as f:
        directory = zips.find_directory(f)
        writer = ZipWriter(target, directory.comment)
        writer._position = start
        for entry in zips.read_directory(f, directory):
            put(writer, f, entry)
        writer.close()
    return target


@pytest.mark.parametrize("left", [0, 1])
def test_a_zip_that_has_lost_members_since_it_was_listed_is_said(tmp_path, left):
    album = list_members(str(make_zip(tmp_path / "a.zip")))
    make_zip(tmp_path / "a.zip", dict(list(FILES.items())[:left]))
    with pytest.raises(InputError, match="changed since it was listed; run the command again"):
        contents(album)


def test_zip64_sizes_are_read(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive, archive.open("b.jpg", "w", force_zip64=True) as f:
        f.write(FILES["b.jpg"])
    assert contents(list_members(str(path))) == {"b.jpg": FILES["b.jpg"]}


def test_zip64_offsets_are_written_and_read(tmp_path):
    url, path = make_zip(tmp_path / "x.zip"), tmp_path / "large.zip"
    with path.open("wb") as f:
        f.seek(5 << 30)  # a hole; members lie beyond four gigabytes
        rewritten(url, lambda writer, source, entry: writer.copy(source, entry), f, 5 << 30)
    with zipfile.ZipFile(path) as archive:
        assert {info.filename: archive.read(info) for info in archive.infolist()} == FILES
        assert archive.infolist()[0].header_offset == 5 << 30
    with path.open("rb+") as f:
        f.write(b"PK\3\4")
    assert contents(list_members(str(path)))["b.jpg"] == FILES["b.jpg"]
    path.unlink()


def test_more_members_than_16_bits_count_and_the_limit_on_them(tmp_path):
    path = tmp_path / "many.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(66_000):
            archive.writestr(zipfile.ZipInfo(f"{i}.png"), b"")
    assert list_members(str(path)).images == 66_000
    with pytest.raises(InputError, match="has more than 500 members"):
        list_members(str(path), Limits(members=500))
    copy = rewritten(path, lambda writer, f, entry: writer.copy(f, entry))
    assert len(zipfile.ZipFile(copy).infolist()) == 66_000


HOSTILE_NAMES = ["../u.png", "a/../../u.png", "/abs.png", "C:\\w.png", "c:w.png", "..\\u.png", "\\\\host\\x.png", ".."]


@pytest.mark.parametrize("kind", KINDS)
def test_names_that_lead_outside_are_left_out(tmp_path, kind):
    album = list_members(make(tmp_path / "x", kind, dict.fromkeys([*HOSTILE_NAMES, "f..png", "a..b/c.png"], b"x")))
    assert set(left_out(album)) == {printable(name) for name in HOSTILE_NAMES}
    assert set(left_out(album).values()) == {"has an absolute name", "has a name that leads outside the archive"}
    assert list(contents(album)) == ["f..png", "a..b/c.png"]


def test_a_second_name_in_the_unicode_path_field_counts(tmp_path):
    name = b"../up.png"
    field = struct.pack("<HHBI", 0x7075, 5 + len(name), 1, zlib.crc32(b"ok.png")) + name
    url = make_zip(tmp_path / "x", {"ok.png": b""}, change=lambda info: setattr(info, "extra", field))
    assert left_out(list_members(url)) == {"ok.png": "has a name that leads outside the archive"}


@pytest.mark.parametrize(
    ("kind", "said"),
    [(tarfile.SYMTYPE, "symbolic link"), (tarfile.LNKTYPE, "hard link"), (tarfile.CHRTYPE, "device"),
     (tarfile.BLKTYPE, "device"), (tarfile.FIFOTYPE, "fifo")],
)  # fmt: skip
def test_links_and_devices_in_tar_are_left_out(tmp_path, kind, said):
    def change(info):
        if info.name == "l.png":
            info.type, info.linkname, info.size = kind, "/etc/passwd", 0

    album = list_members(make_tar(tmp_path / "x", {"l.png": b"", "good.png": b"1"}, change=change))
    assert left_out(album) == {"l.png": f"is a {said}"}
    assert contents(album) == {"good.png": b"1"}


def test_links_in_zip_are_left_out(tmp_path):
    def change(info):
        info.create_system = 3
        info.external_attr = (stat.S_IFLNK | 0o777) << 16 if info.filename == "l.png" else 0o644 << 16

    album = list_members(make_zip(tmp_path / "x", {"l.png": b"/etc/passwd", "good.png": b"1"}, change=change))
    assert left_out(album) == {"l.png": "is a symbolic link"}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_repeated_name_is_left_out_and_a_similar_one_is_said(tmp_path, kind):
    path = tmp_path / "x"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name in ("a.png", "a.png", "A.png"):
                archive.writestr(name, b"")
    else:
        with tarfile.open(path, "w") as archive:
            for name in ("a.png", "a.png", "A.png"):
                archive.addfile(tarfile.TarInfo(name))
    album = list_members(str(path))
    assert [member.left_out for member in album.members] == [False, True, False]
    assert album.members[1].problem == "has the same name as an earlier member"
    assert len(album.warnings) == 1
    assert album.warnings[0].endswith("only: 1")


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_names_that_extract_to_one_file_are_repeated(tmp_path, kind):
    names = ["a/b.png", "./a/b.png", "a//b.png", "a/./b.png", "é.png", "e\u0301.png", "É.png"]
    album = list_members(make(tmp_path / "x", kind, dict.fromkeys(names, b"")))
    assert [member.left_out for member in album.members] == [False, True, True, True, False, False, False]
    assert "accents" in album.warnings[0]
    assert album.warnings[0].endswith("only: 2")


@pytest.mark.parametrize("name", ["pax.zip", "sfx.exe"])
def test_a_zip_with_something_before_it_is_read(tmp_path, name):
    url = rewrite(make_zip(tmp_path / name), lambda data: b"#!/bin/sh\nexit\n" * 50 + data)
    assert album_kind(url) == "zip"
    assert contents(list_members(url))["b.jpg"] == FILES["b.jpg"]
    assert album_kind(rewrite(url, lambda data: data[:5000])) is None


@pytest.mark.parametrize(
    ("comment", "after"),
    [
        (b"of PK\x05\x06 records", b""),
        (b"PK\x05\x06" + bytes(40), b""),
        (b"PK\x05\x06", b""),
        (b"short PK\x05\x06", b"then more"),
        (b"", b"then PK\x05\x06 more"),
    ],
)
def test_a_zips_comment_may_hold_the_signature_of_its_end(tmp_path, comment, after):
    path = make_zip(tmp_path / "a.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = comment
    album = list_members(rewrite(path, lambda data: data + after))
    assert [member.name for member in album.members] == list(FILES)
    assert not album.errors


def test_the_last_part_of_a_split_zip_is_named(tmp_path):
    """It begins with a member's data, so that only its directory tells what it is."""
    parts = make_zip(tmp_path / "a.zip")
    url = rewrite(parts, lambda data: data[100:].replace(b"PK\5\6\0\0\0\0", b"PK\5\6\1\0\0\0"))
    with pytest.raises(InputError, match="^" + re.escape(f"{url}: the zip archive is one part of several; join them")):
        list_members(url)


def test_every_name_that_a_tar_gives_a_member_counts(tmp_path):
    """Its own header's, that of extended headers before it, and the one for sparse files."""

    def pax(records):
        return tarfile.TarInfo._create_pax_generic_header(records, b"x", "utf-8")

    plain = tarfile.TarInfo("ok.png").tobuf(tarfile.USTAR_FORMAT)
    hidden = tarfile.TarInfo("../up.png").tobuf(tarfile.USTAR_FORMAT)
    for header in (
        pax({"path": "ok.png"}) + hidden,
        pax({"path": "../up.png"}) + pax({"comment": "x"}) + plain,
        pax({"GNU.sparse.name": "../up.png"}) + plain,
    ):
        (tmp_path / "x").write_bytes(header + tarfile.TarInfo("good.png").tobuf() + bytes(1024))
        assert [member.left_out for member in list_members(str(tmp_path / "x")).members] == [True, False]


@pytest.mark.parametrize(("kind", "at"), [("tar.gz", -6), ("tar.bz2", -3), ("tar.xz", -30)])
def test_a_wrong_checksum_at_the_end_of_a_compressed_tar_is_said(tmp_path, kind, at):
    def change(data):
        data[at] ^= 1

    album = list_members(rewrite(make(tmp_path / "x", kind), change))
    assert "damaged" in album.errors[0]
    assert album.images == 3


def test_a_password_still_fits_members_that_are_copied(tmp_path):
    """Which byte of an encrypted member it is checked against depends on whether a data descriptor follows."""

    url = make_zip(tmp_path / "x", {"e.png": b"12345"}, zipfile.ZIP_STORED)
    data = bytearray(Path(url).read_bytes())
    for magic, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        struct.pack_into("<H", data, data.index(magic) + flags, zips.ENCRYPTED | zips.DESCRIPTOR)
    Path(url).write_bytes(data)
    out = rewritten(url, lambda writer, f, entry: writer.copy(f, entry)).getvalue()
    assert struct.unpack_from("<H", out, 6)[0] == zips.ENCRYPTED | zips.DESCRIPTOR
    assert out[30 + 5 + 5 :].startswith(b"PK\7\x08" + struct.pack("<III", zlib.crc32(b"12345"), 5, 5) + b"PK\1\2")


def test_encrypted_and_unknown_methods_are_named_but_passed_on(tmp_path):
    def change(data):
        at = data.index(b"PK\1\2")
        struct.pack_into("<H", data, at + 8, 1)
        second = data.index(b"PK\1\2", at + 1)
        struct.pack_into("<H", data, second + 10, 97)

    album = list_members(rewrite(make_zip(tmp_path / "x", {"e.png": b"1", "m.png": b"2", "g.png": b"3"}), change))
    assert [member.problem for member in album.members] == [
        "is encrypted", "has the unsupported compression method 97", None,
    ]  # fmt: skip
    assert left_out(album) == {}
    assert contents(album) == {"g.png": b"3"}


def test_overlapping_members_are_left_out(tmp_path):
    """As in Fifield's bomb: every directory record points to the same data."""

    def change(data):
        first = data.index(b"PK\1\2")
        struct.pack_into("<I", data, data.index(b"PK\1\2", first + 1) + 42, 0)

    album = list_members(rewrite(make_zip(tmp_path / "x", {"a.png": b"1", "b.png": b"1", "c.png": b"1"}), change))
    assert left_out(album) == dict.fromkeys(["a.png", "b.png"], "its data overlaps another's")
    assert contents(album) == {"c.png": b"1"}


@pytest.mark.parametrize(("at", "reason"), [(14, "checksum is wrong"), (22, "bytes long and says")])
def test_wrong_checksums_and_sizes_are_found_in_reading(tmp_path, at, reason):
    def change(data):
        first = data.index(b"PK\1\2")
        struct.pack_into("<I", data, first + at + 2, 450)

    found = contents(list_members(rewrite(make_zip(tmp_path / "x"), change)))
    assert reason in str(found["a/1.png"]) or "expands to more than 450" in str(found["a/1.png"])
    assert found["b.jpg"] == FILES["b.jpg"]


def test_a_member_expands_no_further_than_it_says(tmp_path):
    def change(data):
        first = data.index(b"PK\1\2")
        struct.pack_into("<I", data, first + 24, 10)

    files = {"bomb.png": bytes(50_000_000), "good.png": b"1"}
    found = contents(list_members(rewrite(make_zip(tmp_path / "x", files), change)))
    assert "expands to more than 10 bytes" in str(found["bomb.png"])
    assert found["good.png"] == b"1"


def test_a_local_header_of_another_name_is_found(tmp_path):
    found = contents(list_members(rewrite(make_zip(tmp_path / "x"), lambda data: data.replace(b"b.jpg", b"c.jpg", 1))))
    assert "another name" in str(found["b.jpg"])


def test_damage_in_other_files_of_a_zip_is_named(tmp_path):
    url = make_zip(tmp_path / "x", {"n.txt": b"hello world", "g.png": b"1"}, zipfile.ZIP_STORED)
    found = contents(list_members(rewrite(url, lambda data: data.replace(b"hello", b"hallo"))))
    assert "checksum" in str(found["n.txt"])


SMALL = Limits(ratio=10, ratio_floor=100_000)


def test_bombs_in_zip_are_left_out_or_the_archive_refused(tmp_path):
    album = list_members(make_zip(tmp_path / "x", {"bomb.bmp": bytes(2_000_000), "g.png": b"1"}), SMALL)
    assert "looks like a bomb" in left_out(album)["bomb.bmp"]
    assert album.images == 1
    with pytest.raises(InputError, match="looks like a bomb"):
        list_members(make_zip(tmp_path / "x", {f"{i}.bmp": bytes(90_000) for i in range(9)}), SMALL)


@pytest.mark.parametrize("kind", ["tar.gz", "tar.bz2", "tar.xz"])
def test_bombs_in_compressed_tar_end_the_listing(tmp_path, kind):
    album = list_members(
        make(tmp_path / "x", kind, {"g.png": b"1", "bomb.bmp": bytes(5_000_000), "no.png": b""}), SMALL
    )
    assert "looks like a bomb" in album.errors[0]
    assert left_out(album) == {"bomb.bmp": "is truncated"}
    assert contents(album, SMALL) == {"g.png": b"1"}


@pytest.mark.parametrize("kind", KINDS)
def test_large_images_are_named_but_passed_on(tmp_path, kind):
    album = list_members(make(tmp_path / "x", kind), Limits(image_bytes=1000))
    assert [(m.name, m.left_out) for m in album.members if m.problem] == [("b.jpg", False)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_truncated_archive_gives_what_is_whole(tmp_path, kind):
    files = {f"{i}.png": random.Random(i).randbytes(40_000) for i in range(5)}
    url = rewrite(make(tmp_path / f"x.{kind}", kind, files), lambda data: data[: len(data) // 2])
    album = list_members(url)
    assert "truncated" in album.errors[0]
    found = contents(album)
    assert found == {name: files[name] for name in found}
    if kind != "tar.bz2":  # whose blocks are larger than this archive
        assert list(found) == ["0.png", "1.png"]
        assert [member.name for member in album.members if member.left_out] == ["2.png"]


def test_tar_that_ends_between_members_is_truncated(tmp_path):
    url = rewrite(make_tar(tmp_path / "x"), lambda data: data[: 512 + 512])
    assert list_members(url).errors == ("the archive ends without its end marker: it is truncated",)


@pytest.mark.parametrize("kind", TAR_MODES)
def test_what_comes_after_the_end_of_a_tar_is_said(tmp_path, kind):
    one, two = (make(tmp_path / f"{name}.{kind}", kind, {f"{name}.png": b"x"}) for name in "ab")
    assert list_members(one).warnings == ()
    Path(one).write_bytes(Path(one).read_bytes() + Path(two).read_bytes())
    album = list_members(one)
    assert [member.name for member in album.members] == ["a.png"]
    assert album.warnings == ("what comes after the archive's end, such as another one, is left out",)


@pytest.mark.parametrize("kind", ["tar.gz", "tar.bz2", "tar.xz"])
def test_what_comes_after_compressed_data_is_said(tmp_path, kind):
    url = make(tmp_path / "a", kind, {"a.png": b"x"})
    whole = Path(url).read_bytes()
    Path(url).write_bytes(whole + bytes(600_000))
    assert list_members(url).warnings == ()
    for rest in (b"\r\n", bytes(4) + b"some more of it"):
        Path(url).write_bytes(whole + rest)
        album = list_members(url)
        assert contents(album) == {"a.png": b"x"}
        assert album.warnings == ("what comes after the archive's end, such as another one, is left out",)


def test_a_folder_of_tar_that_has_data_is_passed_over(tmp_path):
    def name_as_folder(info):
        info.name = info.name.replace("notes.txt", "notes/")

    album = list_members(make_tar(tmp_path / "x", change=name_as_folder))
    assert [member.name for member in album.members] == ["a/1.png", "notes/", "b.jpg", "e.png"]
    assert album.errors == ()
    assert contents(album) == {name: FILES[name] for name in ("a/1.png", "b.jpg", "e.png")}


def test_a_damaged_header_in_tar_is_said_and_not_taken_for_the_end(tmp_path):
    def change(data):
        data[data.index(b"b.jpg") + 3] ^= 1

    album = list_members(rewrite(make_tar(tmp_path / "x"), change))
    assert [member.name for member in album.members] == ["a/1.png", "notes.txt"]
    assert "header is damaged" in album.errors[0]


def test_long_names_large_sizes_and_attributes_of_pax_and_gnu_tar_are_read(tmp_path):
    long = "é" * 150 + "/p.png"
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        with tarfile.open(tmp_path / "x", "w", format=form) as archive:
            info = tarfile.TarInfo(long)
            info.size, info.mtime = 3, 0.25 if form == tarfile.PAX_FORMAT else 7
            archive.addfile(info, io.BytesIO(b"abc"))
        album = list_members(str(tmp_path / "x"))
        assert album.members[0].name == printable(long)
        assert list(contents(album).values()) == [b"abc"]


def test_a_header_with_another_size_differs_in_nothing_else():
    for form, records in (
        (tarfile.PAX_FORMAT, {"size": "5", "mtime": "1.5", "comment": "é"}),
        (tarfile.GNU_FORMAT, {}),
    ):
        info = tarfile.TarInfo("x" * 120 + ".png")
        info.size, info.mode, info.uid, info.uname, info.pax_headers = 5, 0o640, 1234, "someone", records
        header = info.tobuf(form)
        entry = next(tars.read_entries(_reader(header + b"12345".ljust(512) + bytes(1024))))
        assert (entry.name.decode(), entry.size) == (info.name, 5)
        assert tars.with_size(entry, 5) == header or records
        with tarfile.open(fileobj=io.BytesIO(tars.with_size(entry, 700) + bytes(1024 + 1024))) as archive:
            after = archive.getmembers()[0]
        assert after.size == 700
        for field in ("name", "mode", "uid", "uname", "mtime"):
            expected = 1.5 if field == "mtime" and records else getattr(info, field)
            assert getattr(after, field) == expected


def _reader(data):
    return Expander(io.BytesIO(gzip.compress(data)).read, lambda: decompressor("gz"), 1 << 30)


def test_hostile_tar_headers_are_refused(tmp_path):
    info = tarfile.TarInfo("x.png")
    good = info.tobuf(tarfile.USTAR_FORMAT)

    def block(change):
        raw = bytearray(good)
        change(raw)
        raw[148:156] = b" " * 8
        raw[148:156] = b"%06o\0 " % sum(raw)
        return bytes(raw)

    def long_name(raw):
        raw[156:157], raw[124:136] = b"L", b"77777777777\0"

    def negative(raw):
        raw[124:136] = b"\xff" * 12

    def renames_all(raw):
        raw[156:157], raw[124:136] = b"g", b"%011o\0" % 15

    for raw, reason in (
        (block(long_name), "extended header of 8589934591 bytes"),
        (block(negative), "negative size"),
        (block(renames_all) + b"15 path=../x.y\n".ljust(512, b"\0") + good, "global header"),
        (block(lambda raw: raw.__setitem__(slice(124, 136), b"xyz".ljust(12))), "not a number"),
    ):
        (tmp_path / "x").write_bytes(raw + bytes(1024))
        assert reason in list_members(str(tmp_path / "x")).errors[0]


def test_compression_errors_and_concatenated_streams():
    stream = gzip.compress(b"one") + gzip.compress(b"two") + bytes(20)
    reader = Expander(io.BytesIO(stream).read, lambda: decompressor("gz"), 100, b"\x1f\x8b\x08")
    assert reader.read(100) == b"onetwo"
    assert reader.position == 6
    for data in (gzip.compress(b"x" * 1000)[:-4], b"\x1f\x8b\x08" + bytes(20)):
        with pytest.raises(InputError, match=r"ends early|damaged"):
            Expander(io.BytesIO(data).read, lambda: decompressor("gz"), 10_000).read(2000)
    with pytest.raises(InputError, match="bomb"):
        Expander(io.BytesIO(gzip.compress(bytes(9000))).read, lambda: decompressor("gz"), 8000).read(9000)
    raw = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = raw.compress(bytes(1_000_000)) + raw.flush()
    assert Expander(io.BytesIO(packed).read, lambda: Inflate(-15), 1 << 20).read(1 << 21) == bytes(1_000_000)


def test_xz_that_asks_for_gigabytes_of_dictionary_is_refused():
    small = lzma.compress(b"x" * 2000, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 20}])
    large = bytearray(small)
    at = small.index(b"\x21\x01") + 2  # the filter's one byte of properties (xz format 5.3.1)
    large[at] = 38  # 2 GiB
    header = slice(12, 12 + (large[12] + 1) * 4 - 4)
    struct.pack_into("<I", large, header.stop, zlib.crc32(large[header]))
    assert Expander(io.BytesIO(small).read, lambda: decompressor("xz"), 10_000).read(5000) == b"x" * 2000
    with pytest.raises(InputError, match=r"[Mm]emory"):
        Expander(io.BytesIO(large).read, lambda: decompressor("xz"), 10_000).read(5000)


def test_names_of_any_bytes_are_shown_on_one_line(tmp_path):
    with tarfile.open(tmp_path / "x", "w", encoding="latin-1", format=tarfile.GNU_FORMAT) as archive:
        for name in ("caf\xe9.png", "two\nlines\x1b[2J.png"):
            archive.addfile(tarfile.TarInfo(name))
    names = [member.name for member in list_members(str(tmp_path / "x")).members]
    assert names == ["caf\\xe9.png", "two\\nlines\\x1b[2J.png"]
    assert len(printable("x" * 5000)) == 200
    japanese = "表紙.png".encode("cp932")
    url = make_zip(tmp_path / "z", {"12345.png": b"1"})
    with Path(rewrite(url, lambda data: data.replace(b"12345.png", japanese.rjust(9, b"_")))).open("rb") as f:
        assert next(zips.read_directory(f, zips.find_directory(f))).name == japanese.rjust(9, b"_")
    assert contents(list_members(url)).popitem()[1] == b"1"


def test_companions_of_macos_and_nested_archives_are_no_images(tmp_path):
    files = {"__MACOSX/._a.jpg": b"", "in.zip": b"", "A.JPG": b"", "b.gif": b"", "d.png/": b"", "noext": b""}
    album = list_members(make_zip(tmp_path / "x", files, zipfile.ZIP_STORED))
    assert [member.name for member in album.members if member.is_image] == ["A.JPG"]
    assert album.warnings == ("pictures of kinds that are not coloured, copied as they are: 1 (.gif)",)


def test_folders_are_listed_by_name_and_special_files_named(tmp_path):
    (tmp_path / "b" / "c").mkdir(parents=True)
    (tmp_path / ".reelcolor").mkdir()
    for name in ("b/c/2.png", "a.tif", "b/1.txt", ".reelcolor/x.png"):
        (tmp_path / name).write_bytes(b"12")
    os.mkfifo(tmp_path / "f.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path)
    album = list_members(str(tmp_path))
    assert album.kind == "folder"
    assert [(m.name, m.is_image) for m in album.members] == [
        ("a.tif", True), ("b/1.txt", False), ("b/c/2.png", True), ("f.png", True), ("gone.png", True),
    ]  # fmt: skip
    assert left_out(album) == {"f.png": "is a fifo", "gone.png": "cannot be read: No such file or directory"}
    assert contents(album) == {"a.tif": b"12", "b/c/2.png": b"12"}
    chosen = list_members(str(tmp_path), files=["b/c/2.png", "../x.png"])
    assert [(m.name, m.left_out) for m in chosen.members] == [("b/c/2.png", False), ("../x.png", True)]


@pytest.mark.parametrize(
    ("magic", "name"),
    [(b"7z\xbc\xaf\x27\x1c", "7-Zip"), (b"Rar!\x1a\x07\0", "RAR"), (b"\x28\xb5\x2f\xfd", "Zstandard")],
)
def test_archives_of_other_kinds_are_named(tmp_path, magic, name):
    (tmp_path / "scans").write_bytes(magic + bytes(600))
    with pytest.raises(InputError, match=f"is packed with {name}, which is not read; pack it anew as zip"):
        album_kind(str(tmp_path / "scans"))


def test_what_is_none_of_these_is_refused(tmp_path):
    for data in (b"", b"RIFF" + bytes(600), gzip.compress(b"no tar" * 200), b"\x1f\x8b\x08broken", bytes(2048)):
        (tmp_path / "x").write_bytes(data)
        assert album_kind(str(tmp_path / "x")) is None
        with pytest.raises(InputError, match="is neither an image nor"):
            list_members(str(tmp_path / "x"))
    with pytest.raises(InputError, match="no such file"):
        list_members(str(tmp_path / "nothing.zip"))


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(
    st.sampled_from(KINDS),
    st.lists(st.tuples(st.floats(0, 0.9999), st.integers(0, 255)), max_size=8),
    st.floats(0.05, 1),
    st.booleans(),
)
def test_damaged_archives_give_members_or_input_errors(tmp_path_factory, kind, damage, share, near_the_end):
    path = tmp_path_factory.getbasetemp() / f"fuzz.{kind}"
    url = make(path, kind, {**FILES, "b.jpg": FILES["b.jpg"][:900]})

    def change(data):
        span = min(len(data), 900)
        for place, value in damage:
            data[-1 - int(place * span) if near_the_end else int(place * span)] = value
        return data[: max(1, int(len(data) * share))]

    with contextlib.suppress(InputError):
        album = list_members(rewrite(url, change), SMALL)
        for member, data in read_members(album, SMALL):
            assert isinstance(data, InputError) or len(data) == member.size

"""Where training pictures come from: folders, archives and colour videos, found and read one picture at a time."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from model.footage import frames_by_shot
from pipeline.archives import album_kind, list_members, read_members
from pipeline.errors import InputError
from pipeline.images import guarded, open_image
from pipeline.limits import DEFAULT_LIMITS
from pipeline.pictures import Picture
from pipeline.profiles import is_srgb, profile_space, to_srgb
from pipeline.rendering import upright
from pipeline.storage import absence, fingerprint, is_folder

_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz")
_VIDEOS = frozenset({
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".m2v", ".vob", ".ts", ".m2ts", ".mts", ".mxf",
    ".wmv", ".asf", ".flv", ".f4v", ".3gp", ".3g2", ".ogv", ".ogm", ".dv", ".gxf", ".y4m", ".nut", ".rm", ".rmvb",
    ".h264", ".264", ".h265", ".hevc", ".mjpeg", ".mjpg", ".ivf",
})  # fmt: skip


@dataclass(frozen=True)
class SourceConfig:
    """Pictures to train on.

    path: an image, an archive (zip, tar, also compressed), a video, a folder of such, to any depth, or a glob.
    weight: how often a picture of this source is drawn, relative to one of a source of weight 1. split: what stays
    together on one side of the held-out split: "picture", every picture by itself, or "folder", all that lie in one
    folder (as the pictures of one dive do); a video always stays together. name, licence: for the report and the model
    package; by default the path's last part, and what a MANIFEST.csv beside the pictures says.
    """

    path: str
    weight: float = 1.0
    split: Literal["picture", "folder"] = "picture"
    name: str = ""
    licence: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.weight < float("inf"):
            raise ValueError(f"expected a weight above 0, got {self.weight}")
        if self.split not in ("picture", "folder"):
            raise ValueError(f"expected a split by picture or folder, got {self.split}")

    @property
    def title(self) -> str:
        """What to call it."""
        return self.name or Path(self.path).name or self.path


@dataclass(frozen=True)
class Found:
    """A picture of a source, not decoded yet.

    name: within its archive or folder. group: what must stay on one side of the split. folder: name of the folder that
    directly holds it, "" at the top. load: (h, w, 3) uint8 sRGB, upright; InputError where it cannot be read. video:
    the path of the video it is from, "" for a photograph.
    """

    name: str
    group: str
    folder: str
    load: Callable[[], NDArray[np.uint8]]
    video: str = ""


@dataclass(frozen=True)
class SourceFile:
    """One file to read: an archive, an image, a video, or the images of a folder; `inside` the source, "" itself."""

    path: str
    inside: str
    kind: Literal["images", "video"]


def source_files(config: SourceConfig) -> list[SourceFile]:
    """What to read, in a fixed order. Raises InputError where there is nothing, or a file is of no known kind."""
    if os.path.lexists(config.path):
        return list(_files(config.path, ""))
    matched = sorted(glob.glob(config.path, recursive=True))  # noqa: PTH207
    if not matched:
        raise InputError(
            f"{config.path}: {absence(Path(config.path))}; give an image, an archive, a video, a folder or a glob"
        )
    return [file for path in matched for file in _files(path, "" if len(matched) == 1 else Path(path).name)]


def _files(path: str, inside: str) -> Iterator[SourceFile]:
    kind = album_kind(path)
    if kind is None and path.lower().endswith(_ARCHIVES):
        raise InputError(f"{path}: is not a zip or tar archive; get it again, or leave it out")
    yield SourceFile(path, inside, "images" if kind else "video")
    if kind == "folder":
        for member in list_members(path).members:
            suffix = PurePosixPath(member.name).suffix.lower()
            if not member.left_out and (suffix in _VIDEOS or member.name.lower().endswith(_ARCHIVES)):
                yield from _files(os.path.join(path, member.name), _joined(inside, member.name))  # noqa: PTH118


def file_identity(file: SourceFile) -> list[Any]:
    """What tells this file from another of its place: changed, it gives another list."""
    if not is_folder(file.path):
        return [file.kind, file.inside, Path(file.path).name, fingerprint(file.path)]
    images = [m.name for m in list_members(file.path).members if m.is_image]
    stats = [(Path(file.path) / name).lstat() for name in images]
    return [file.inside, [[name, s.st_size, s.st_mtime_ns] for name, s in zip(images, stats, strict=True)]]


def pictures_of(file: SourceFile, config: SourceConfig) -> Iterator[Found | InputError]:
    """The pictures of a file in order; InputError in the place of one that cannot be read.

    Raises InputError for an archive that is damaged. A video that cannot be read gives one error in its place, unless
    it is all that the source has: then it is raised.
    """
    if file.kind == "images":
        yield from _album_pictures(file, config)
        return
    group = _joined(file.inside) or Path(file.path).name
    folder = PurePosixPath(group).parent.name
    if config.split == "folder" and folder:
        group = str(PurePosixPath(group).parent)
    try:
        for seconds, rgb in frames_by_shot(file.path):
            yield Found(f"{Path(file.path).name}@{seconds:.2f}s", group, folder, partial(_given, rgb), file.path)
    except InputError as e:
        if not file.inside:
            raise
        yield e


def _album_pictures(file: SourceFile, config: SourceConfig) -> Iterator[Found | InputError]:
    album = list_members(file.path)
    if album.errors:
        raise InputError(f"{file.path}: {album.errors[0]}; get it again, or leave it out")
    for member in album.members:
        if member.is_image and not member.colourable:
            yield InputError(f"{file.path}: {member.name}: {member.problem}")
    for member, data in read_members(album):
        if isinstance(data, InputError):
            yield InputError(f"{file.path}: {member.name}: {data}")
        elif member.is_image:
            place = PurePosixPath(_joined(file.inside, member.name))
            together = str(place.parent) if config.split == "folder" else place.name
            yield Found(member.name, together, place.parent.name, partial(decoded, data))


def decoded(data: bytes) -> NDArray[np.uint8]:
    """An image file's first picture as (h, w, 3) uint8 sRGB, upright; InputError where it cannot be read."""
    image = open_image(data, DEFAULT_LIMITS)
    with guarded("decoded"):
        return np.ascontiguousarray(_srgb(image.read(0)))


def _srgb(picture: Picture) -> NDArray[np.uint8]:
    codes: NDArray[Any] = picture.pixels
    if picture.bit_depth not in (8, 16):
        codes = np.rint(codes * (65535 / ((1 << picture.bit_depth) - 1))).astype(np.uint16)
    if picture.icc and picture.is_rgb and profile_space(picture.icc) == "rgb" and not is_srgb(picture.icc):
        codes = to_srgb(codes, picture.icc, "rgb")
    if codes.dtype == np.uint16:
        codes = np.rint(codes / 257).astype(np.uint8)
    if not picture.is_rgb:
        codes = np.repeat(codes[..., None], 3, axis=-1)
    return np.moveaxis(upright(np.moveaxis(codes, -1, 0), picture.orientation), 0, -1)


def _given(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return rgb


def _joined(*parts: str) -> str:
    return "/".join(part.replace(os.sep, "/") for part in parts if part)

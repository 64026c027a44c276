"""A planned reel or album: all that a worker needs to colour a part of it, and to put the parts together."""

from __future__ import annotations

import dataclasses
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Self

from jobs.inputs import Item
from jobs.records import Digest, plain
from pipeline.frames import Look, Segment, SegmentFile
from pipeline.storage import Place, first_existing

if TYPE_CHECKING:
    from pipeline.containers import Container
    from pipeline.encoders import EncoderSpec
    from pipeline.frames import StreamInfo
    from pipeline.infer import Colorizer
    from pipeline.limits import Limits
    from pipeline.members import Album
    from pipeline.probe import OtherStream

Progress = Callable[[int], None]
_PIXELS_A_BYTE = 5  # of a compressed photograph, roughly
_ALBUM_WINDOW = 4_000_000  # pixels; an album's pictures are decoded some at a time


@dataclass(frozen=True)
class Assembled:
    """What putting a reel together came to.

    `files` as in `records.Done`; `digest` where it is known already; `problems` make the reel count as failed, though
    its output is there.
    """

    frames: int
    files: tuple[str, ...] = (".",)
    warnings: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    digest: Digest | None = None


def first_file(output: str, files: Sequence[str]) -> str:
    """The name below OUTDIR of an output, or of the first of its `files`."""
    return str(PurePosixPath(output, *files[:1]))


@dataclass(frozen=True, kw_only=True)
class Reel(ABC):
    """One input's plan. `name` is the output's place below OUTDIR, `fingerprint` and `stamp` tell a changed source."""

    id: str
    input: str
    item: Item
    output: Place
    name: str
    fingerprint: Mapping[str, Any]
    stamp: str
    segments: tuple[Segment, ...]
    look: Look
    warnings: tuple[str, ...] = ()
    unit: str = field(default="frames", init=False)

    @property
    @abstractmethod
    def frames(self) -> int:
        """Pictures to colour, as far as is known before decoding."""

    @property
    @abstractmethod
    def pixels(self) -> int:
        """Luma samples to colour, as far as is known before decoding."""

    @property
    @abstractmethod
    def frame_pixels(self) -> int:
        """Luma samples of one picture, or as many as take the memory that a worker needs."""

    @property
    def settled(self) -> str:
        """What its content depends on besides input and recipe, as `--hwaccel auto` found it when it was planned."""
        return ""

    @abstractmethod
    def colorize(self, segment: Segment, colorizer: Colorizer, out: Place, progress: Progress) -> SegmentFile:
        """Colour one segment into `out`."""

    @abstractmethod
    def assemble(self, files: Sequence[SegmentFile], provenance: Mapping[str, str], replace: bool) -> Assembled:
        """Put the finished segments together; the output appears whole or not at all.

        Raises FileExistsError where there is one by then that is not to be replaced.
        """

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What the plan says of this kind of input, JSON-ready."""

    @abstractmethod
    def span(self, segment: Segment) -> str:
        """Where the segment lies, in words."""

    def part(self, segment: Segment) -> Self:
        """What the worker of one segment needs to be sent."""
        del segment
        return self

    def targets(self) -> tuple[Place, ...]:
        """Every file that the output consists of."""
        return (self.output,)

    @property
    def first_file(self) -> str:
        """The name below OUTDIR of the output, or of the first of its files: what a run claims."""
        return first_file(self.name, self._files())

    def _files(self) -> tuple[str, ...]:
        """As in `records.Done`."""
        return (".",)

    def existing(self) -> Place | None:
        """A file that is there already under one of the output's names."""
        return first_existing(self.targets())

    def entry(self) -> dict[str, Any]:
        """This reel in plan.json: a function of input and recipe alone."""
        common = {"id": self.id, "input": self.input, "output": self.name, "fingerprint": self.fingerprint}
        listed = {"segments": self.segments, "warnings": self.warnings}
        entry: dict[str, Any] = plain(common | self.facts() | listed)
        return entry


@dataclass(frozen=True, kw_only=True)
class VideoReel(Reel):
    """A video file or a numbered scan."""

    info: StreamInfo
    spec: EncoderSpec
    container: Container
    others: tuple[OtherStream, ...] = ()
    gpu_decoding: bool = False  # gives the same pictures, so that it is not part of what they depend on

    @property
    def settled(self) -> str:  # noqa: D102
        return self.spec.encoder

    @property
    def frames(self) -> int:  # noqa: D102
        return self.info.frames

    @property
    def pixels(self) -> int:  # noqa: D102
        return self.info.frames * self.frame_pixels

    @property
    def frame_pixels(self) -> int:  # noqa: D102
        return self.info.width * self.info.height

    def colorize(self, segment: Segment, colorizer: Colorizer, out: Place, progress: Progress) -> SegmentFile:  # noqa: D102
        from pipeline.reel import colorize_segment

        return colorize_segment(
            self.info.source, self.info, segment, colorizer, self.look, self.spec, out, progress,
            gpu_decoding=self.gpu_decoding,
        )  # fmt: skip

    def assemble(self, files: Sequence[SegmentFile], provenance: Mapping[str, str], replace: bool) -> Assembled:  # noqa: D102
        from pipeline.assemble import assemble

        made = assemble(
            self.info.source, self.info, self.spec, self.container, files, self.output, provenance, replace=replace
        )
        return Assembled(made.frames, warnings=made.warnings, digest=Digest(made.sha256, made.bytes))

    def span(self, segment: Segment) -> str:  # noqa: D102
        info = self.info
        start, end = (
            float(((default if pts is None else pts) - info.start_pts) * info.time_base)
            for pts, default in ((segment.start, info.start_pts), (segment.end, info.end_pts))
        )
        return f"segment {segment.index + 1} of {len(self.segments)} ({start:.2f} s to {end:.2f} s)"

    def facts(self) -> dict[str, Any]:  # noqa: D102
        spec = {f.name: getattr(self.spec, f.name) for f in dataclasses.fields(self.spec) if f.name != "notes"}
        return {
            "kind": "video",
            "stream": self.info,
            "decoder": "nvdec" if self.gpu_decoding else "software",
            "encoder": spec,
            "container": self.container.name,
        }


@dataclass(frozen=True)
class Contents:
    """What an album holds, in numbers; `left_out` names the members whose bytes do not come back."""

    members: int
    images: int
    image_bytes: int
    problems: tuple[str, ...] = ()
    left_out: frozenset[str] = frozenset()


def contents_of(album: Album) -> Contents:
    """The numbers of an album with all its members."""
    colourable = [member.size for member in album.members if member.colourable]
    problems = (*album.errors, *(f"{m.name}: {m.problem}" for m in album.members if m.problem))
    left_out = frozenset(member.name for member in album.members if member.left_out)
    return Contents(len(album.members), len(colourable), sum(colourable), problems, left_out)


@dataclass(frozen=True, kw_only=True)
class AlbumReel(Reel):
    """An archive, a folder of images, or one image.

    The `album` of a folder comes without its members: their names are `item.files`, and where more is needed they are
    listed again. `first` is the ordinal of the first of these.
    """

    album: Album
    limits: Limits
    contents: Contents
    first: int = 0
    unit: str = field(default="images", init=False)

    @property
    def frames(self) -> int:  # noqa: D102
        return self.contents.images

    @property
    def pixels(self) -> int:  # noqa: D102
        return self.contents.image_bytes * _PIXELS_A_BYTE

    @property
    def frame_pixels(self) -> int:  # noqa: D102
        return _ALBUM_WINDOW

    def listed(self) -> Album:
        """The album with its members; raises InputError where the folder is gone."""
        if not self.item.files:
            return self.album
        from pipeline.archives import list_members

        found = list_members(self.item.path, self.limits, self.item.files)
        members = (dataclasses.replace(member, ordinal=self.first + member.ordinal) for member in found.members)
        return dataclasses.replace(found, members=tuple(members))

    def colorize(self, segment: Segment, colorizer: Colorizer, out: Place, progress: Progress) -> SegmentFile:  # noqa: D102
        from pipeline.album import colorize_images

        return colorize_images(self.listed(), segment, colorizer, self.look, self.limits, out, progress)

    def assemble(self, files: Sequence[SegmentFile], _provenance: Mapping[str, str], replace: bool) -> Assembled:  # noqa: D102
        from pipeline.album_bind import assemble_album
        from pipeline.member_names import printable

        made = assemble_album(self.listed(), files, self.output, self.limits, replace=replace)
        lost = {error.name for error in made.errors if error.left_out}
        there = tuple(name for name in self._files() if printable(name) not in lost)
        return Assembled(made.coloured + made.kept, there, made.warnings, tuple(map(str, made.errors)))

    def span(self, segment: Segment) -> str:  # noqa: D102
        return f"segment {segment.index + 1} of {len(self.segments)} ({segment.frames} images)"

    def targets(self) -> tuple[Place, ...]:  # noqa: D102
        return tuple(self.output / name for name in self._files()) if self.album.kind == "folder" else (self.output,)

    def existing(self) -> Place | None:  # noqa: D102
        if self.album.kind != "folder" or not isinstance(self.output, Path):
            return super().existing()
        root = os.fspath(self.output)
        found = next((name for name in self._files() if os.path.lexists(f"{root}/{name}")), None)
        return None if found is None else self.output / found

    def _files(self) -> tuple[str, ...]:
        if self.album.kind != "folder":
            return (".",)
        names = self.item.files or (member.name for member in self.album.members)
        return tuple(name for name in names if name not in self.contents.left_out)

    def part(self, segment: Segment) -> Self:  # noqa: D102
        if not self.item.files:
            return dataclasses.replace(self, album=self.album.part(segment), warnings=())
        start = segment.start or 0
        item = dataclasses.replace(self.item, files=self.item.files[start : segment.end])
        return dataclasses.replace(self, item=item, first=start, warnings=())

    def facts(self) -> dict[str, Any]:  # noqa: D102
        contents = self.contents
        return {
            "kind": self.album.kind,
            "members": contents.members,
            "images": contents.images,
            "problems": list(contents.problems),
        }

"""Inputs and recipe → the reels to make, their segments, and everything that can be known to go wrong beforehand."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, cast

from jobs.apart import Apart, Call, spread
from jobs.failures import Failure, failure
from jobs.fingerprints import fingerprint_of, stamp_of
from jobs.inputs import Item
from jobs.kinds import kind_of
from jobs.ledger import ReelLedger
from jobs.pool import processors
from jobs.recipe import Recipe
from jobs.reels import AlbumReel, Reel, VideoReel, contents_of
from pipeline.errors import InputError, RecipeError
from pipeline.frames import Source
from pipeline.storage import Place, is_local, local_path, place

if TYPE_CHECKING:
    from pipeline.codecs import Codec, EncoderSettings
    from pipeline.gpu import Hwaccel

_FILES_A_READER = 16  # that are worth the second which another process takes to start


@dataclass(frozen=True)
class Refusal:
    """An item that will not be done, and why."""

    reel_id: str
    input: str
    error: str
    output: str | None = None
    failure: Failure | None = None


@dataclass(frozen=True)
class Planner:
    """Plans one item after the other; what they have in common."""

    recipe: Recipe
    weights: str  # hex SHA-256
    outdir: Place
    job: Place | None = None  # the job folder, where earlier runs may have begun reels

    def reel_id(self, item: Item) -> str:
        """Names input, place and settings; the same in every job with this OUTDIR."""
        source = str(local_path(item.path).absolute()) if is_local(item.path) else item.path
        return short_hash(source, str(item.name), self.recipe.digest(), self.weights, *item.files)

    def readers(self, files: int) -> int:
        """Processes to read so many files with; one where a GPU's encoders are tried out, of which there are few."""
        return 1 if self.recipe.hwaccel != "none" else max(1, min(processors(), files // _FILES_A_READER))

    def plan(self, item: Item) -> Reel:
        """Probe the item and settle everything; raises ReelcolorError."""
        if item.kind == "scan":
            return self._scan(item)
        if item.kind == "album" or (not item.certain and self._is_album(item.path)):
            return self._album(item)
        return self._video(item, Source(item.path), self.recipe.fps)

    def _is_album(self, path: str) -> bool:
        from pipeline.archives import album_kind

        return album_kind(path) is not None

    def _scan(self, item: Item) -> Reel:
        from pipeline.probe import scan_source

        fps = self.recipe.fps or Recipe.scan_fps
        reel = self._video(item, scan_source(item.path, fps), fps)
        if self.recipe.fps is None:
            assumed = f"the scan's rate is taken as {fps} frames a second; --fps says otherwise"
            reel = dataclasses.replace(reel, warnings=(assumed, *reel.warnings))
        return reel

    def _video(self, item: Item, source: Source, fps: Fraction | None) -> VideoReel:
        from pipeline.containers import choose_container, preflight
        from pipeline.decode import choose_decoder
        from pipeline.nvenc import choose_encoder
        from pipeline.probe import other_streams, probe
        from pipeline.segments import cut_segments
        from pipeline.temporal import warmup_frames

        fingerprint, stamp = fingerprint_of(item), stamp_of(item)
        info = probe(source, fps)
        source = info.source
        others = other_streams(source)
        hwaccel = cast("Hwaccel", self.recipe.hwaccel)
        spec = choose_encoder(info, encoder_settings(self.recipe), hwaccel, self._begun_with(item))
        gpu_decoding, remarks = choose_decoder(source, info, hwaccel)
        container = choose_container(info, spec, others)
        preflight(source, info, spec, container)
        name = item.name.with_name(_stem(item.name) + container.extension)
        return VideoReel(
            id=self.reel_id(item),
            input=item.path,
            item=item,
            output=self.outdir / name,
            name=str(name),
            fingerprint=fingerprint,
            stamp=stamp,
            segments=cut_segments(source, info, self.recipe.segment_seconds, warmup_frames(info.fps)),
            look=self.recipe.look,
            warnings=(*info.warnings, *spec.notes, *container.notes, *remarks),
            gpu_decoding=gpu_decoding,
            info=info,
            spec=spec,
            container=container,
            others=others,
        )

    def _begun_with(self, item: Item) -> str | None:
        """The encoder of the reel's finished segments, where the recipe leaves it to the machine."""
        if self.job is None or self.recipe.hwaccel != "auto":
            return None
        return ReelLedger(self.job / "reels" / self.reel_id(item)).begun_with()

    def _album(self, item: Item) -> AlbumReel:
        from pipeline.album import cut_album
        from pipeline.archives import list_members

        fingerprint, stamp = fingerprint_of(item), stamp_of(item)
        album = list_members(item.path, self.recipe.limits, item.files or None)
        if not any(member.is_image for member in album.members):
            damage = "; ".join(album.errors)
            raise InputError(f"{item.path}: {damage or 'holds no image that can be coloured; see the list of formats'}")
        return AlbumReel(
            id=self.reel_id(item),
            input=item.path,
            item=item,
            output=self.outdir / item.name,
            name=str(item.name),
            fingerprint=fingerprint,
            stamp=stamp,
            segments=cut_album(album),
            look=self.recipe.look,
            warnings=album.warnings,
            album=dataclasses.replace(album, members=()) if item.files else album,
            limits=self.recipe.limits,
            contents=contents_of(album),
        )


def encoder_settings(recipe: Recipe) -> EncoderSettings:
    """The profile's, or those of another codec, with the recipe's own quality and preset.

    Raises RecipeError where the codec does not have these.
    """
    from pipeline.codecs import NVENC, PROFILES, EncoderSettings, check_settings

    base = PROFILES[recipe.profile]
    if recipe.codec not in (None, base.codec):
        base = EncoderSettings(cast("Codec", recipe.codec))
    crf = base.crf if recipe.crf is None else recipe.crf
    settings = dataclasses.replace(base, crf=crf, preset=recipe.preset or base.preset)
    check_settings(settings)
    if recipe.hwaccel == "cuda" and settings.codec not in NVENC:
        raise RecipeError(f"no GPU encodes {settings.codec}; --hwaccel auto decodes on the GPU and encodes in software")
    return settings


def plan_all(
    planner: Planner, items: Sequence[Item], apart: Apart, heard: Callable[[str, int, int], None]
) -> tuple[list[tuple[Item, Reel]], list[Refusal]]:
    """Plan every item; what cannot be planned is refused, the others are not held up.

    `heard` is told of each path, its number and how many there are, before it is read.
    """

    def calls() -> Iterator[Call]:
        for number, item in enumerate(items, 1):
            heard(item.path, number, len(items))
            yield item.path, planner.plan, item

    found: dict[int, tuple[Item, Reel]] = {}
    refused: dict[int, Refusal] = {}
    files = sum(not item.files for item in items)  # a folder's images are not opened
    with contextlib.ExitStack() as stack:
        more = [stack.enter_context(Apart(apart.debug)) for _ in range(planner.readers(files) - 1)]
        for n, outcome in spread([apart, *more], calls()):
            item = items[n]
            if isinstance(outcome, Exception):  # one file never stops a batch
                why = failure(outcome, item.path)
                refused[n] = Refusal(planner.reel_id(item), item.path, why.message, failure=why)
            else:
                found[n] = item, dataclasses.replace(outcome, item=item)  # not the copy: it may name a million files
    return [found[n] for n in sorted(found)], [refused[n] for n in sorted(refused)]


def settle_names(
    planned: Sequence[tuple[Item, Reel]], taken: Mapping[Place, str], sources: Iterable[str]
) -> tuple[list[Reel], list[Refusal]]:
    """Give every reel outputs of its own; `taken` are outputs of other inputs, `sources` must not be written over.

    Where two would share one name, those whose extension changed keep the source's as well: a.avi becomes a.avi.mkv.
    """
    wanted = _contested(planned, taken)
    owners = dict(taken)
    inputs: set[Place] = set()  # filled once an output is there that might be one of them
    kept: list[Reel] = []
    refused: list[Refusal] = []
    for item, first in planned:
        reel = _keep_extension(item, first) if wanted and wanted.intersection(first.targets()) else first
        inputs = inputs or ({place(s).resolve() for s in sources} if reel.existing() else inputs)
        targets = reel.targets() if wanted or owners or inputs else ()
        rival = next((path for path in targets if path in owners), None)
        source = next((path for path in targets if inputs and path.resolve() in inputs), None)
        if rival is not None:
            error = f"its output {rival} is also that of {owners[rival]}; run them with different -o"
            refused.append(Refusal(reel.id, reel.input, f"{reel.input}: {error}", str(rival)))
        elif source is not None:
            error = f"its output {source} would replace a source; choose another folder with -o"
            refused.append(Refusal(reel.id, reel.input, f"{reel.input}: {error}", str(source)))
        else:
            owners |= {path: reel.input for path in targets if path in wanted}
            kept.append(reel)
    return kept, refused


def _contested(planned: Sequence[tuple[Item, Reel]], taken: Iterable[Place]) -> set[Place]:
    """Outputs that more than one lays claim to, by the name it has or by the one it would give way to.

    Of the others, of which there may be millions, hashes alone are kept.
    """
    seen: set[int] = set()
    found: set[Place] = set()

    def claim(paths: Iterable[Place]) -> None:
        for path in paths:
            key = hash(path)
            if key in seen:
                found.add(path)
            seen.add(key)

    claim(taken)
    for _, reel in planned:
        claim(reel.targets())
    if found:
        yielding = [(item, reel) for item, reel in planned if any(path in found for path in reel.targets())]
        for item, reel in yielding:
            claim(set(_keep_extension(item, reel).targets()).difference(reel.targets()))
    return found


def _keep_extension(item: Item, reel: Reel) -> Reel:
    """The same reel with the source's extension before its own, if that is another."""
    changed = PurePosixPath(reel.name)
    if changed == item.name:
        return reel
    name = item.name.with_name(item.name.name + changed.suffix)
    return dataclasses.replace(reel, name=str(name), output=reel.output.with_name(name.name))


def short_hash(*parts: str) -> str:
    """12 hex digits over all parts."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def _stem(name: PurePosixPath) -> str:
    """The name without its extension; the digits of `reel.2024` are no extension."""
    return name.stem if kind_of(name.name) else name.name

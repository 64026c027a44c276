"""What a file is by its name: a video, an archive, an image."""

from __future__ import annotations

from typing import Literal

from pipeline.member_names import IMAGE_SUFFIXES
from pipeline.scans import IMAGE_SUFFIXES as SCAN_SUFFIXES

_ARCHIVES = (".zip", ".cbz", ".tar", ".cbt", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_VIDEOS = (
    *(".3g2", ".3gp", ".asf", ".av1", ".avi", ".dif", ".divx", ".dv", ".f4v", ".flv", ".gxf", ".ivf", ".m2t", ".m2ts"),
    *(".h264", ".264", ".avc", ".hevc", ".h265", ".265", ".m1v", ".m2v", ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov"),
    *(".mp4", ".mpe", ".mpeg", ".mpg", ".mts", ".mxf", ".nut", ".obu", ".ogm", ".ogv", ".qt", ".rm", ".rmvb", ".ts"),
    *(".vc1", ".vob", ".webm", ".wmv", ".wtv", ".y4m"),
)
_IMAGES = tuple(IMAGE_SUFFIXES)


def kind_of(name: str, as_scan: bool = False) -> Literal["video", "archive", "image"] | None:
    """What a file is by its name; None for what is none of these. A scan may be of more kinds of images."""
    lower = name.lower()
    if lower.endswith(_ARCHIVES):
        return "archive"
    if lower.endswith(SCAN_SUFFIXES if as_scan else _IMAGES):
        return "image"
    return "video" if lower.endswith(_VIDEOS) else None

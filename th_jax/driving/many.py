"""Many videos: the avatars and drivers of a list, each video made once, in shards that never talk to each other."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from th_jax.avatars.file import LoadedAvatar, load_avatar
from th_jax.avatars.output import REPORT_FILE
from th_jax.avatars.requests import check_name, face_of_cell
from th_jax.avatars.shards import Shard, shard_reports
from th_jax.driving.animate import Animation
from th_jax.driving.driver import SUFFIXES
from th_jax.storage.files import file_sha256
from th_jax.storage.json_lines import append_line, json_line, read_lines
from th_jax.storage.strict_json import from_json, parse_json
from th_jax.storage.tables import file_beside, read_table

LIST_COLUMNS = ("avatar", "driver", "out", "face")
"""`face` is optional: the number of the person in a driver that shows several."""

_MAX_LINE_BYTES = 2**16


class VideoRequest(NamedTuple):
    """A video to make."""

    out: str
    """Name of the file below the output folder."""
    avatar: Path
    driver: Path
    face: int | None = None
    """Number of the person in a driver that shows several."""


class VideoOutcome(NamedTuple):
    """The outcome of a video: a line of the report."""

    out: str
    status: Literal["finished", "failed"]
    request: str
    """SHA-256 digest, in hexadecimal, of the avatar, the driver and the options."""
    reason: str = ""
    """Reason of a failure."""
    frames: int = 0
    sha256: str = ""
    """Digest of the video's file, in hexadecimal."""


def read_list(path: Path) -> list[VideoRequest]:
    """Read a CSV file with the columns avatar, driver, out and optionally face.

    Avatars and drivers are relative to the file's folder and may not leave it; they are opened later, video by video.

    Raises:
        ValueError: if the file is malformed, or two videos have the same name; the message gives the line.
        FileNotFoundError: if the file does not exist.
        OSError: if the file cannot be read.
    """
    requests: list[VideoRequest] = []
    lines: dict[str, int] = {}
    for line, cells in read_table(path, called="list", required=LIST_COLUMNS[:3], optional=LIST_COLUMNS[3:]):
        try:
            avatar, driver = (
                file_beside(path, cells[column], called="list", missing=f"the {column} is missing")
                for column in ("avatar", "driver")
            )
            request = VideoRequest(_video_name(cells["out"]), avatar, driver, face_of_cell(cells.get("face", "")))
        except ValueError as error:
            raise ValueError(f"{path}, line {line}: {error}") from error
        if (first := lines.setdefault(request.out.lower(), line)) != line:
            raise ValueError(f"{path}, line {line}: duplicate video {request.out!r}, first named in line {first}")
        requests.append(request)
    if not requests:
        raise ValueError(f"{path} has no entries: add at least one video")
    return requests


def videos_of_shard(requests: Sequence[VideoRequest], shard: Shard) -> tuple[list[VideoRequest], str]:
    """Return the videos of a shard in the order of the list, and one line that describes the shard.

    The split depends on the list and on the sizes of the drivers' files alone, so that processes agree on it.
    """
    names = shard.names({request.out: _weight(request.driver) for request in requests})
    chosen = [request for request in requests if request.out in names]
    return chosen, f"{shard.title}: {len(chosen)} of {len(requests)} videos"


def reported_videos(folder: Path) -> dict[str, VideoOutcome]:
    """Read the last line about each video from all reports of a folder; lines of killed processes are skipped."""
    paths = [folder / REPORT_FILE] if (folder / REPORT_FILE).exists() else []
    paths += [path for _, path in shard_reports(folder)] if folder.exists() else []
    videos = [video for path in paths for video in read_lines(path, _parsed)]
    return {video.out: video for video in sorted(videos, key=lambda video: video.status == "finished")}


def make_videos(
    requests: Sequence[VideoRequest],
    folder: Path,
    *,
    make: Callable[[LoadedAvatar, VideoRequest, Path], Animation],
    options: Mapping[str, Any],
    load: Callable[[Path], LoadedAvatar] = load_avatar,
    report: str = REPORT_FILE,
) -> Iterator[tuple[VideoOutcome, bool]]:
    """Make the videos of a list that are not there yet; videos of the same avatar follow each other.

    Args:
        requests: the videos.
        folder: folder of the videos and the report.
        make: makes a video of an avatar at a path.
        options: what videos depend on besides avatar and driver, as JSON values; a video is made again after they changed.
        load: loads an avatar.
        report: name of the report to which lines are appended.

    Yields:
        The outcome of each video, and whether it was there already.

    Raises:
        OSError: if the report cannot be written.
        ImportError: if the extra `video` is not installed.
    """
    known, loaded = reported_videos(folder), None
    last: tuple[Path, str] | None = None
    order = {avatar: place for place, avatar in enumerate(dict.fromkeys(request.avatar for request in requests))}
    for request in sorted(requests, key=lambda request: order[request.avatar]):
        path, digest = folder / request.out, ""
        try:
            if last is None or last[0] != request.avatar:
                last, loaded = (request.avatar, file_sha256(request.avatar)), None
            digest = _digest(last[1], request, options)
            video = known.get(request.out)
            if video is not None and video.request == digest and _is_whole(path, video):
                yield video, True
                continue
            loaded = loaded or load(request.avatar)
            made = make(loaded, request, path)
            video = VideoOutcome(request.out, "finished", digest, frames=made.frames, sha256=file_sha256(path))
        except (OSError, ValueError) as error:
            video = VideoOutcome(request.out, "failed", digest, reason=_reason(error))
        append_line(folder / report, json_line(video._asdict()))
        yield video, False


def _video_name(written: str) -> str:
    name = check_name(written, of="video")
    if Path(name).suffix.lower() not in SUFFIXES:
        raise ValueError(f"out must end in {', '.join(SUFFIXES)}, but is {name}")
    return name


def _weight(driver: Path) -> int:
    try:
        return max(1, driver.stat().st_size)
    except OSError:
        return 1


def _digest(avatar: str, request: VideoRequest, options: Mapping[str, Any]) -> str:
    content = {"avatar": avatar, "driver": file_sha256(request.driver), "face": request.face, "options": {**options}}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _is_whole(path: Path, video: VideoOutcome) -> bool:
    return video.status == "finished" and path.is_file() and file_sha256(path) == video.sha256


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _parsed(line: bytes) -> VideoOutcome:
    return from_json(VideoOutcome, parse_json(line, max_bytes=_MAX_LINE_BYTES), where="a video")

"""Selects shot candidates from photos and videos: faces are detected directly, on copies, or marked by hand.

Photos include paintings and images of statues.
"""

import enum
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from th_jax.data.landmark_file import MIN_FACE, read_landmark_file
from th_jax.data.people import check_number, people_of, video_samples
from th_jax.faces import (
    Square,
    crop_segment,
    detect_faces,
    face_descriptor,
    face_size,
    most_prominent,
    segment_square,
    segments,
    settled_landmarks,
    track_faces,
)
from th_jax.faces.copies import COPY_SCORE, DOUBTFUL, CopyFace, face_roll, find_on_copies, second_look
from th_jax.faces.people import SAME_PERSON, PersonChooser, people_in
from th_jax.faces.pupils import with_pupils
from th_jax.landmarks.scheme import IBUG_POINTS
from th_jax.media import (
    DEFAULT_LIMITS,
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    Limits,
    MediaError,
    Video,
    open_video,
    read_image,
)


class Verdict(enum.StrEnum):
    """Outcome for an image."""

    USED = "used"
    SPARE = "spare"
    """Usable, but other images show more varied poses."""
    NO_FACE = "no face"
    SEVERAL_FACES = "several faces"
    """Another face has at least half the score and 0.6 of the side of the most prominent one."""
    TOO_SMALL = "too small"
    OTHER_PERSON = "other person"
    """A segment of a video whose face differs from that of the longest segment."""
    UNREADABLE = "unreadable"
    NOT_LOOKED_AT = "not examined"
    """A file in a folder of photos with a suffix that is not read as an image."""


class Source(NamedTuple):
    """An examined image."""

    path: Path
    time: float | None
    """Time within a video in seconds; None for a photo."""
    verdict: Verdict
    detail: str = ""


class Candidate(NamedTuple):
    """A usable image."""

    source: int
    """Index in the list of sources."""
    landmarks: Float[np.ndarray, "P 2"]
    """Landmarks in pixels of the upright image."""
    square: Square | None = None
    """Square in a frame of a video."""
    crop: "Crop | None" = None
    """Crop of a photo; None for a video, and if it is made again, because the crops of others fill `CROP_BYTES`."""


class Crop(NamedTuple):
    """A photo's square, in the size of the shots."""

    frame: UInt8[np.ndarray, "N N 3"]
    landmarks: Float[np.ndarray, "P 2"]
    """Landmarks in [0, 1] of the crop, with the pupils if they were asked for; a pupil is NaN in an eye that shows none."""


class Look(NamedTuple):
    """Outcome for one photo; without a crop it cannot be used."""

    verdict: Verdict
    detail: str
    landmarks: Float[np.ndarray, "P 2"] | None = None
    """Landmarks in pixels of the upright image."""
    crop: Crop | None = None


CROP_BYTES = 2**30
"""Maximum size of all crops of photos that are kept until some are selected."""

_NOTES = (".txt", ".csv", ".json", ".pts", ".md", ".xml", ".xmp", ".aae", ".ini", ".db")
"""Suffixes of files that commonly accompany images; they are skipped silently."""


class _Found(NamedTuple):
    """The face of a photo as it is stored; without landmarks it cannot be used."""

    verdict: Verdict
    detail: str
    landmarks: Float[np.ndarray, "P 2"] | None = None


def look_at_photo(
    photo: str | Path,
    *,
    size: int,
    copies: bool,
    context: float = 1.0,
    limits: Limits = DEFAULT_LIMITS,
    landmarks: str | Path | None = None,
    face: int | None = None,
    pupils: bool = False,
    content: UInt8[np.ndarray, " bytes"] | None = None,
) -> Look:
    """Examine one photo, and crop it if it is usable.

    An image whose face is rotated by more than 45 degrees is turned by quarters until the face is upright.

    Args:
        photo: path of the photo.
        size: side of the crop, in pixels.
        copies: whether to search copies (`th_jax.faces.copies.find_on_copies`) if no face is found, or a doubtful one
            that a second look does not confirm.
        context: scale of the square (`segment_square`).
        limits: limits on the photo.
        landmarks: file of hand-marked landmarks (`read_landmark_file`); no face is detected then.
        face: number of the face, from 1 on (`th_jax.data.people.people_of`); copies are not searched then.
        pupils: whether to find the pupils, too, in the photo's own resolution; hand-marked ones are kept.
        content: the file's bytes, if they have been read already.

    Raises:
        MediaError: if the photo cannot be read.
        ValueError: as `read_landmark_file`, or if there is no face of this number.
        ImportError: if the extra `video` is not installed.
    """
    frame = read_image(photo, limits=Limits(*limits), file=None if content is None else io.BytesIO(content.data))
    if landmarks is not None:
        found = _marked(frame, Path(landmarks))
    else:
        found = _face_of(frame, copies=copies) if face is None else _numbered(frame, face, photo)
    if found.landmarks is None:
        return Look(found.verdict, found.detail)
    height, width = frame.shape[:2]
    turns = round(face_roll(found.landmarks) / 90) % 4
    points = turned_points(found.landmarks, height=height, width=width, quarter_turns=turns)
    turned = f"; the image is rotated by {(0, 90, 180, -90)[turns]}°" if turns else ""
    crop = crop_shot(np.rot90(frame, turns), points, size=size, context=context, pupils=pupils)
    return Look(found.verdict, found.detail + turned, points, crop)


def crop_shot(
    frame: UInt8[np.ndarray, "H W 3"], landmarks: Float[np.ndarray, "P 2"], *, pupils: bool, **crop: Any
) -> Crop:
    """Crop an upright image with the options of `crop_segment`, and find the pupils if wanted and not marked by hand."""
    points = with_pupils(frame, landmarks) if pupils and len(landmarks) == IBUG_POINTS else landmarks
    crops = crop_segment([frame], points[None], **crop)
    return Crop(crops.frames[0], crops.landmarks[0])


def candidates_of_photos(path: Path, *, look: Callable[..., Look], wanted: int) -> tuple[list[Source], list[Candidate]]:
    """Find shot candidates in a photo or a folder of photos.

    Copies are searched only while fewer than `wanted` photos are usable, so that folders of thousands stay fast. `look`
    is `look_at_photo` with its other options, called with a path and `copies`.

    Returns:
        All photos examined and all files of the folder that were skipped; and the usable photos.

    Raises:
        MediaError: if a single photo cannot be read.
        ValueError: if a folder has no images; and as `look`.
        ImportError: if the extra `video` is not installed.
    """
    photos, others = [path], list[Source]()
    if path.is_dir():
        photos, others = _of_folder(path)
        if not photos:
            seen = f"; not read: {_named([source.path for source in others])}" if others else ""
            raise ValueError(
                f"the folder {path} contains no images ({', '.join(IMAGE_SUFFIXES)}); to use a video, give its "
                f"path{seen}"
            )
    sources: list[Source] = []
    candidates: list[Candidate] = []
    room = CROP_BYTES
    for photo in photos:
        try:
            found = look(photo, copies=len(candidates) < wanted)
        except MediaError as error:
            if not path.is_dir():
                raise
            found = Look(Verdict.UNREADABLE, str(error))
        if found.landmarks is not None and found.crop is not None:
            room -= found.crop.frame.nbytes
            candidates.append(Candidate(len(sources), found.landmarks, crop=found.crop if room >= 0 else None))
        sources.append(Source(photo, None, found.verdict, found.detail))
    return sources + others, candidates


def _named(files: Sequence[Path], *, most: int = 10) -> str:
    """List the first file names, and the number of further ones."""
    names = ", ".join(file.name for file in files[:most])
    return names if len(files) <= most else f"{names} and {len(files) - most} more"


def turned_points(
    points: Float[np.ndarray, "*batch 2"], *, height: int, width: int, quarter_turns: int
) -> Float[np.ndarray, "*batch 2"]:
    """Convert pixel coordinates in an image of this size to those after `numpy.rot90(image, quarter_turns)`.

    Quarter turns are counterclockwise.
    """
    for turn in range(quarter_turns % 4):
        extent = width if turn % 2 == 0 else height
        points = np.stack([points[..., 1], extent - points[..., 0]], axis=-1)
    return points


def _of_folder(folder: Path) -> tuple[list[Path], list[Source]]:
    """List a folder's photos, and other files that may have been meant as images."""
    photos: list[Path] = []
    others: list[Source] = []
    for path in sorted(folder.iterdir()):
        suffix = path.suffix.lower()
        if path.name[0] == ".":
            continue
        if suffix in IMAGE_SUFFIXES:
            photos.append(path)
        elif suffix not in _NOTES:
            others.append(Source(path, None, Verdict.NOT_LOOKED_AT, _why_not(path)))
    return photos, others


def _why_not(path: Path) -> str:
    if path.is_dir():
        return "a subfolder: give its path, or move its images up"
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return "a video among photos: to use it, give its path"
    ending = path.suffix or "no ending"
    return f"not read: {ending} is not one of {', '.join(IMAGE_SUFFIXES)}; if it is an image, save it as one of these"


def _marked(frame: UInt8[np.ndarray, "H W 3"], file: Path) -> _Found:
    height, width = frame.shape[:2]
    points = read_landmark_file(file, height=height, width=width)
    return _Found(Verdict.USED, f"landmarks of {file.name}, face {float(face_size(points)):.0f} px", points)


def _face_of(frame: UInt8[np.ndarray, "H W 3"], *, copies: bool) -> _Found:
    faces = detect_faces(frame)
    if not faces:
        on_copy = find_on_copies(frame) if copies else None
        return _Found(Verdict.NO_FACE, "") if on_copy is None else _on_copy(on_copy)
    face, rivals = most_prominent(faces)
    if copies and face.score < DOUBTFUL and second_look(frame, face) < COPY_SCORE and (found := find_on_copies(frame)):
        return _on_copy(found)
    if rivals:
        return _several(rivals)
    if face.box.side < MIN_FACE:
        return _too_small(face.box.side)
    return _Found(
        Verdict.USED, f"score {face.score:.2f}, face {face.box.side:.0f} px", settled_landmarks(frame, face.box)
    )


def _on_copy(found: CopyFace) -> _Found:
    side = float(face_size(found.landmarks))
    if found.rivals:
        return _several(found.rivals)
    if side < MIN_FACE:
        return _too_small(side)
    return _Found(
        Verdict.USED, f"score {found.score:.2f}, face {side:.0f} px, found on a copy: {found.copy}", found.landmarks
    )


def _numbered(frame: UInt8[np.ndarray, "H W 3"], number: int, photo: str | Path) -> _Found:
    people = people_in([frame])
    check_number(number, people=len(people), path=photo)
    landmarks = people[number - 1].landmarks
    side = float(face_size(landmarks))
    if side < MIN_FACE:
        return _too_small(side)
    return _Found(Verdict.USED, f"face {number} of {len(people)}, {side:.0f} px", landmarks)


def _several(rivals: int) -> _Found:
    return _Found(Verdict.SEVERAL_FACES, f"{rivals + 1} faces of similar score and size: crop it to one person")


def _too_small(side: float) -> _Found:
    return _Found(Verdict.TOO_SMALL, f"the face is {side:.0f} px wide, but at least {MIN_FACE:.0f} are required")


SAMPLES_A_SECOND = 5.0

MAX_SAMPLES = 300
"""Number of frames of a video examined per second, and the maximum in total, evenly spaced."""


def candidates_of_video(
    path: Path, *, context: float, limits: Limits, face: int | None = None
) -> tuple[list[Source], list[Candidate]]:
    """Find shot candidates in a video, of the most prominent face or of the numbered one.

    Returns:
        All frames examined, and the usable ones.

    Raises:
        MediaError: if the video cannot be read.
        ValueError: if the context is not positive, or if there is no face of this number.
        ImportError: if the extra `video` is not installed.
    """
    times: list[float] = []

    def frames(video: Video) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        for time, frame in video_samples(video, a_second=SAMPLES_A_SECOND, most=MAX_SAMPLES):
            times.append(time)
            yield frame

    choose = None
    if face is not None:
        people = people_of(path, limits=limits)
        check_number(face, people=len(people), path=path)
        choose = PersonChooser(people, face)
    with open_video(path, limits=limits) as video:
        track = track_faces(frames(video), detect_every=1, choose=choose)
        sources = [Source(path, time, Verdict.NO_FACE) for time in times]
        stretches, (width, height) = segments(track), video.size
        others = _other_people(video, stretches, track.landmarks, times)
    candidates = []
    for number, stretch in enumerate(stretches):
        square = segment_square(track.landmarks[stretch], height=height, width=width, context=context)
        for i in range(stretch.start, stretch.stop):
            side = float(face_size(track.landmarks[i]))
            if np.isnan(side):
                continue
            verdict = Verdict.OTHER_PERSON if number in others else Verdict.USED
            verdict = Verdict.TOO_SMALL if side < MIN_FACE else verdict
            sources[i] = sources[i]._replace(verdict=verdict, detail=f"face {side:.0f} px")
            if verdict is Verdict.USED:
                candidates.append(Candidate(i, track.landmarks[i], square=square))
    return sources, candidates


def _other_people(
    video: Video, stretches: list[slice], landmarks: Float[np.ndarray, "S 68 2"], times: list[float]
) -> set[int]:
    """Return the numbers of the segments that show another person than the longest one."""
    if len(stretches) < 2:
        return set()
    firsts = [stretch.start for stretch in stretches]  # a segment begins with a detected face
    frames = video.frames_at(times[i] for i in firsts)
    people = [face_descriptor(frame, landmarks[i]) for i, (_, frame) in zip(firsts, frames, strict=True)]
    main = people[int(np.argmax([s.stop - s.start for s in stretches]))]
    return {n for n, person in enumerate(people) if np.linalg.norm(person - main) >= SAME_PERSON}

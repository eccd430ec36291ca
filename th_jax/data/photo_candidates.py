"""Photos, paintings and pictures of statues to candidates for shots: faces found plainly, on copies, or marked by hand."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from th_jax.data.landmark_file import read_landmark_file
from th_jax.data.shot_candidates import MIN_FACE, Candidate, Source, Verdict
from th_jax.faces import detect_faces, face_size, most_prominent, segment_square, settled_landmarks
from th_jax.faces.copies import COPY_SCORE, DOUBTFUL, CopyFace, face_roll, find_on_copies, second_look
from th_jax.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES, Limits, MediaError, read_image

_NOTES = (".txt", ".csv", ".json", ".pts", ".md", ".xml", ".xmp", ".aae", ".ini", ".db")
"""Endings of what lies beside pictures and is none, left out without a word."""


class _Found(NamedTuple):
    """What became of one photo; without landmarks it cannot be used."""

    verdict: Verdict
    detail: str
    landmarks: Float[np.ndarray, "P 2"] | None = None


def candidates_of_photos(
    path: Path, *, context: float, limits: Limits, wanted: int, landmarks: Path | None = None
) -> tuple[list[Source], list[Candidate]]:
    """Every photo that was looked at and every file in the folder that was not, and the photos that can be used.

    Copies (`th_jax.faces.copies.find_on_copies`) are searched where no face is found, or a doubtful one that a second
    look does not confirm, and only while fewer than `wanted` photos can be used: a folder of thousands stays quick.
    A face that is more than 45 degrees off makes its picture turn by quarters until it stands up.

    Args:
        path: a photo or a folder of photos.
        context: of `segment_square`.
        limits: of each photo.
        wanted: photos that are enough.
        landmarks: a file of landmarks of a single photo, made by hand (`read_landmark_file`): no face is searched.

    Raises:
        MediaError: if a single photo cannot be read.
        ValueError: for a folder without pictures, for a folder with landmarks, and as `read_landmark_file`.
        ImportError: without the extra `video`.
    """
    if landmarks is not None and path.is_dir():
        raise ValueError(
            f"landmarks made by hand are those of one photo, but {path} is a folder: name the photo itself"
        )
    photos, others = [path], list[Source]()
    if path.is_dir():
        photos, others = _of_folder(path)
        if not photos:
            seen = f"; not looked at: {_named([source.path for source in others])}" if others else ""
            raise ValueError(
                f"the folder {path} holds no picture ({', '.join(IMAGE_SUFFIXES)}); name a video itself{seen}"
            )
    sources: list[Source] = []
    candidates: list[Candidate] = []
    for photo in photos:
        try:
            frame = read_image(photo, limits=limits)
        except MediaError as error:
            if not path.is_dir():
                raise
            sources.append(Source(photo, None, Verdict.UNREADABLE, str(error)))
            continue
        if landmarks is None:
            found = _face_of(frame, copies=len(candidates) < wanted)
        else:
            found = _marked(frame, landmarks)
        detail = found.detail
        if found.landmarks is not None:
            candidate = _standing(frame, found.landmarks, len(sources), context)
            candidates.append(candidate)
            if candidate.quarter_turns:
                detail += f"; the picture is turned by {(0, 90, 180, -90)[candidate.quarter_turns]}°"
        sources.append(Source(photo, None, found.verdict, detail))
    return sources + others, candidates


def _named(files: Sequence[Path], *, most: int = 10) -> str:
    """The names of the first files, and how many there are beyond."""
    names = ", ".join(file.name for file in files[:most])
    return names if len(files) <= most else f"{names} and {len(files) - most} more"


def turned_points(
    points: Float[np.ndarray, "*batch 2"], *, height: int, width: int, quarter_turns: int
) -> Float[np.ndarray, "*batch 2"]:
    """Pixel coordinates of a picture of this size after `numpy.rot90(picture, quarter_turns)`, which goes counterclockwise."""
    for turn in range(quarter_turns % 4):
        extent = width if turn % 2 == 0 else height
        points = np.stack([points[..., 1], extent - points[..., 0]], axis=-1)
    return points


def _of_folder(folder: Path) -> tuple[list[Path], list[Source]]:
    """The photos of a folder, and what else lies there that its owner may have meant as pictures."""
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
        return "a folder in the folder: name it itself, or move its pictures up"
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return "a video among photos: name it itself"
    ending = path.suffix or "no ending"
    return f"not read: {ending} is none of {', '.join(IMAGE_SUFFIXES)}; save it as one of these if it is a picture"


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


def _several(rivals: int) -> _Found:
    return _Found(Verdict.SEVERAL_FACES, f"{rivals + 1} of similar score and size: crop it to one person")


def _too_small(side: float) -> _Found:
    return _Found(Verdict.TOO_SMALL, f"the face is {side:.0f} px wide, {MIN_FACE:.0f} are needed")


def _standing(
    frame: UInt8[np.ndarray, "H W 3"], landmarks: Float[np.ndarray, "P 2"], source: int, context: float
) -> Candidate:
    """The picture turned by quarters until its face stands up, as faces do in training, and the square in it."""
    height, width = frame.shape[:2]
    turns = round(face_roll(landmarks) / 90) % 4
    points = turned_points(landmarks, height=height, width=width, quarter_turns=turns)
    if turns % 2:
        height, width = width, height
    square = segment_square(points[None], height=height, width=width, context=context)
    return Candidate(source, points, square, turns)

"""Frames to faces: detection, 68 landmarks, tracking, and square crops, fixed or following the face. Loads no jax."""

from th_jax.faces.crop import (
    Crops,
    Square,
    crop_frame,
    crop_segment,
    face_size,
    from_crop,
    segment_square,
    to_crop,
    whole_frame_square,
)
from th_jax.faces.detect import (
    NEEDED_IN_FILM,
    Box,
    Face,
    OutsideFrameError,
    detect_faces,
    detect_in_region,
    face_descriptor,
    landmarks_in_box,
    most_prominent,
    predict_landmarks,
)
from th_jax.faces.follow import SquareFollower, following_squares, head_center, in_squares, usable_faces
from th_jax.faces.pose import roll, yaw
from th_jax.faces.track import Track, TrackedFrame, box_around, follow_face, segments, settled_landmarks, track_faces

__all__ = [
    "NEEDED_IN_FILM",
    "Box",
    "Crops",
    "Face",
    "OutsideFrameError",
    "Square",
    "SquareFollower",
    "Track",
    "TrackedFrame",
    "box_around",
    "crop_frame",
    "crop_segment",
    "detect_faces",
    "detect_in_region",
    "face_descriptor",
    "face_size",
    "follow_face",
    "following_squares",
    "from_crop",
    "head_center",
    "in_squares",
    "landmarks_in_box",
    "most_prominent",
    "predict_landmarks",
    "roll",
    "segment_square",
    "segments",
    "settled_landmarks",
    "to_crop",
    "track_faces",
    "usable_faces",
    "whole_frame_square",
    "yaw",
]

"""Renderer of talking heads from CC0 meshes, with true landmarks, for training and tests."""

from data_prep.heads.identity import Identity, draw_identity
from data_prep.heads.motion import HeadState, head_state
from data_prep.heads.people import PersonFrames, Style, render_clip, render_person
from data_prep.heads.render import Rendering, render_head

__all__ = [
    "HeadState",
    "Identity",
    "PersonFrames",
    "Rendering",
    "Style",
    "draw_identity",
    "head_state",
    "render_clip",
    "render_head",
    "render_person",
]

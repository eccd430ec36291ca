"""Renders unlimited talking heads from CC0 meshes, with true landmarks: data to learn from and to test with."""

from data_prep.synthetic_heads.identity import Identity, draw_identity
from data_prep.synthetic_heads.people import PersonFrames, Style, render_clip, render_person
from data_prep.synthetic_heads.render import Rendering, render_head
from data_prep.synthetic_heads.state import HeadState, head_state

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

"""Where the rendered heads that come with the package lie: a small data set to learn from, offline."""

from pathlib import Path

from th_jax.data.video_list import VIDEO_LIST_FILE

HEADS_FOLDER = Path(__file__).resolve().parents[1] / "assets" / "heads" / "shards"

TRAIN_PEOPLE, TRAIN_FRAMES = 192, 16
HELDOUT_PEOPLE, HELDOUT_FRAMES = 24, 64
FRAME_SIZE = 128
"""Side of the stored frames, in pixels."""


def bundled_heads() -> Path:
    """The folder of the bundled data set, with the splits "train" and "heldout"; no person is in both.

    Its records have 70 landmarks: the detected ones know no pupils, the true ones do.

    Raises:
        FileNotFoundError: if the installation lacks it.
    """
    if not (HEADS_FOLDER / VIDEO_LIST_FILE).is_file():
        raise FileNotFoundError(
            f"the bundled heads are missing from {HEADS_FOLDER}: install th_jax again, or render them as "
            f"{HEADS_FOLDER.parent.name}/LICENSE-shards.md says"
        )
    return HEADS_FOLDER


def data_folder(folder: str) -> str:
    """Where a data set is: "bundled" stands for the bundled heads, anything else for itself.

    Raises:
        FileNotFoundError: if the installation lacks the bundled heads.
    """
    return str(bundled_heads()) if folder == "bundled" else folder

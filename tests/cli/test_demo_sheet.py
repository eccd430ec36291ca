"""The demo's contact sheet says what each of its rows shows, and leaves the frames as they are."""

import numpy as np

from th_jax.cli.demo import COLUMNS, captioned, sheet


def test_rows_are_captioned_in_their_first_cell() -> None:
    rows = [np.full((9, 256, 256, 3), gray, np.uint8) for gray in (50, 100, 150, 200)]
    made = sheet(rows, [rows[2][0], rows[3][0]])
    assert made.shape == (4 * 258 - 2, (COLUMNS + 1) * 258 - 2, 3)
    captions = [made[258 * n + 232 : 258 * n + 256, :256] for n in range(4)]
    assert all(caption.min() < 100 and caption.mean() > 200 for caption in captions), "black text on white"
    assert len({caption.tobytes() for caption in captions}) == 4
    for n, gray in enumerate((50, 100, 150, 200)):
        assert (made[258 * n : 258 * n + 256, 258:514] == gray).all()
    for n, gray in ((2, 150), (3, 200)):
        assert (made[258 * n : 258 * n + 230, :256] == gray).all()


def test_a_caption_fits_small_images() -> None:
    image = np.zeros((128, 128, 3), np.uint8)
    made = captioned(image, "landmarks")
    assert (made[:115] == 0).all()
    assert made[115:, 100:].min() == 255, "the text ends before the edge"
    assert (image == 0).all()

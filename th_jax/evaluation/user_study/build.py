"""Builds the page of a user study: a folder for raters without the answers, and the answer key outside of it.

The three images of a triplet are one PNG file, so that only their pixels can distinguish them, but not names, sizes,
times or the order of files.
"""

import hashlib
import json
import secrets
import shutil
from importlib import resources
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from th_jax.evaluation.user_study.answer_key import KEY_FILE, PAGE_FOLDER, StudyKey, key_text
from th_jax.evaluation.user_study.equal_grain import grain_digest, with_grain
from th_jax.evaluation.user_study.frames import CHECK, StudyFrames, read_study_frames
from th_jax.evaluation.user_study.triplets import Triplet, draw_triplets, scatter_tiles
from th_jax.media import read_image
from th_jax.provenance import Kind, Provenance, Signer, write_image
from th_jax.version import __version__

TRIPLETS = 30
CHECKS = 3

PICTURE_FOLDER = "pictures"
PAGE_FILES = ("index.html", "study.css", "study.js")
DATA_FILE = "triplets.js"

QUESTION = "All three pictures show the same person. Two are real, one was made by a computer. Which one is the fake?"

CONSENT = """\
You are asked to look at pictures of faces, three at a time, and to say which of the three was made by a computer.
There are {count} sets. It takes about {minutes} minutes.

What is kept: your choices, the time each one took, and a random number that holds them together. No name, no address, \
nothing about your device. The answers are used to measure how well generated pictures can be told from real ones.

Taking part is voluntary. You may stop at any time by closing the page. Please do not pass the pictures on.
"""

_NOTES = (
    "user study: three pictures of one person side by side, one of them made by a generator network or cut to pieces; "
    "which one is told after the study. All three have a watermark; those of the real ones say nothing"
)
_CONSENT_LIMIT = 10_000


def build_study(
    frames: str | Path,
    out: str | Path,
    *,
    triplets: int = TRIPLETS,
    checks: int = CHECKS,
    seed: int = 0,
    question: str = QUESTION,
    consent: str | None = None,
    signer: Signer | None = None,
) -> StudyKey:
    """Write OUT/page, which raters open or `serve` serves, and OUT/key.json.

    Args:
        frames: folder with study_frames.json (docs/user-study.md).
        out: new folder, created atomically.
        triplets: number of triplets with generated images per rater.
        checks: number of attention checks among them.
        seed: random seed of people, frames, sides and order. File names and the study's number are random each time.
        question: text above each triplet.
        consent: text that raters agree to, with blank lines between paragraphs; `CONSENT` by default.
        signer: signer of the images' manifests; chosen by `load_signer` by default.

    Returns:
        The answer key.

    Raises:
        FileNotFoundError, ValueError: if the frames are not sufficient for the study, or texts or numbers are out of
            range.
        FileExistsError: if `out` exists.
        MediaError: a ValueError, if an image cannot be read.
        ImportError: if the extra `study` is not installed.
        OSError: if a file cannot be written.
    """
    out = Path(out)
    if out.exists():
        raise FileExistsError(
            f"{out} exists: a study is made once, since answers belong to its pictures; name a new folder"
        )
    if consent is None:
        minutes = max(1, round((triplets + checks) * 8 / 60))
        consent = CONSENT.format(count=triplets + checks, minutes=minutes)
    if not consent.strip() or len(consent) > _CONSENT_LIMIT or not question.strip():
        raise ValueError(f"the consent text needs 1 to {_CONSENT_LIMIT} characters, and the question 1 or more")
    source = read_study_frames(frames)
    drawn = draw_triplets(source, triplets=triplets, checks=checks, seed=seed)
    record = Provenance(kind=Kind.COMPOSITE, weights=source.weights, notes=_NOTES)
    key = StudyKey(
        study=secrets.token_hex(16),
        name=source.name,
        size=source.size,
        seed=seed,
        consent=hashlib.sha256(consent.encode()).hexdigest(),
        frames=source.digest,
        created=record.created,
        software=f"th_jax {__version__}",
        triplets={secrets.token_hex(8): triplet for triplet in drawn},
    )
    partial = out.with_name(f".{out.name}.{secrets.token_hex(4)}.partial")
    try:
        _write_page(partial / PAGE_FOLDER, key, source, record, signer, question, consent)
        (partial / KEY_FILE).write_text(key_text(key), encoding="utf-8")
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return key


def triplet_strip(source: StudyFrames, triplet: Triplet, *, seed: int, study: str) -> UInt8[np.ndarray, "S 3*S 3"]:
    """Render the three images side by side, all with the grain of a watermark; an attention check's fake is scrambled.

    Args:
        source: frames of the study.
        triplet: triplet to render.
        seed: random seed of the tiles.
        study: random number of the study, for the grain of images without a watermark.

    Raises:
        ValueError: if an image has another size than the index says.
        MediaError: a ValueError, if an image cannot be read.
    """
    tiles = []
    for side, path in enumerate(triplet.paths, 1):
        frame = read_image(source.folder / path)
        if frame.shape[:2] != (source.size, source.size):
            height, width = frame.shape[:2]
            raise ValueError(f"{path} is {width}x{height} pixels, but the index says {source.size}x{source.size}")
        obvious = triplet.method == CHECK and side == triplet.fake
        shown = scatter_tiles(frame, seed=seed) if obvious else frame
        tiles.append(with_grain(shown, digest=grain_digest(study, path=path)))
    return np.concatenate(tiles, axis=1)


def _write_page(
    page: Path,
    key: StudyKey,
    source: StudyFrames,
    record: Provenance,
    signer: Signer | None,
    question: str,
    consent: str,
) -> None:
    pictures = page / PICTURE_FOLDER
    pictures.mkdir(parents=True)
    for number, (name, triplet) in enumerate(key.triplets.items()):
        # Raters get these records too: they are the same for all images, and contain no digests of the frames.
        strip = triplet_strip(source, triplet, seed=number, study=key.study)
        write_image(pictures / f"{name}.png", strip, provenance=record, signer=signer)
    for file in PAGE_FILES:
        text = resources.files("th_jax.evaluation.user_study").joinpath("page", file).read_text(encoding="utf-8")
        (page / file).write_text(text, encoding="utf-8")
    study = {
        "study": key.study,
        "size": key.size,
        "question": question,
        "consent": key.consent,
        "consentText": [part.strip() for part in consent.split("\n\n") if part.strip()],
        # Sorted by their random names, so that not even the order of drawing is revealed.
        "triplets": sorted(key.triplets),
    }
    # A script, because a page opened from disk may not fetch files.
    (page / DATA_FILE).write_text(f"const STUDY = {json.dumps(study)};\n", encoding="utf-8")

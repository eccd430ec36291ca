"""Episodes of meta-learning: batches of frames, selected by the seed and the global step alone.

The stream of episodes is endless. It visits every video once per epoch, in an order that is reshuffled each epoch. Step
s takes B episodes from position s * B on. The last batch of an epoch is filled up with the first videos of the next, so
that no episode is dropped and every batch is full. Host h of H gets the h-th of H equal parts of each batch.
"""

import sys
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float32, Int, UInt8

from th_jax.data.records import VideoRecords
from th_jax.data.schema import VideoRecord
from th_jax.data.tfrecord import DamagedRecord
from th_jax.landmarks.retarget import face_shape, retarget
from th_jax.landmarks.scheme import IBUG_POINTS, PUPIL_POINTS, mirror_landmarks
from th_jax.types import EpisodeBatch

# Rec. 601 luma: the gray that desaturated colors approach.
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


class UnreadableFrame(ValueError):
    """The bytes of a frame are not a usable image."""


class Augmentation(NamedTuple):
    """Augmentation applied to all frames of an episode alike, so that sources and target keep showing the same person."""

    mirrored: bool
    color_matrix: Float32[np.ndarray, "3 4"] | None
    """Affine map of RGB in 0..255, with the offset in the last column; None keeps the colors."""
    scale: float = 1.0
    """Factor by which the frame is enlarged about its center; below 1, its edge pixels are repeated around it."""
    shift: tuple[float, float] = (0.0, 0.0)
    """Shift to the right and down after scaling, as shares of the side."""

    @property
    def moves(self) -> bool:
        """Whether the augmentation moves anything, apart from mirroring."""
        return self.scale != 1.0 or self.shift != (0.0, 0.0)

    def move(self, points: Float32[np.ndarray, "*batch 2"]) -> Float32[np.ndarray, "*batch 2"]:
        """Scale and shift landmarks in [0, 1] that are already mirrored; the result may lie outside [0, 1]."""
        if not self.moves:
            return points
        return (self.scale * (points - 0.5) + 0.5 + np.array(self.shift)).astype(np.float32)


def decode_frame(jpeg: bytes, *, size: int, augmentation: Augmentation | None = None) -> UInt8[np.ndarray, "H H 3"]:
    """Decode a JPEG frame to RGB, reduce it to `size` by area averaging, and apply the augmentation.

    Raises:
        UnreadableFrame: if the bytes are not an image, or the image is smaller than `size` or not square.
    """
    frame = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB) if jpeg else None
    if frame is None:
        raise UnreadableFrame(f"a frame's {len(jpeg)} bytes are not a JPEG image")
    height, width = frame.shape[:2]
    if height != width or height < size:
        raise UnreadableFrame(f"a frame must be square with at least {size} px, got {width} x {height}")
    if height != size:
        frame = cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA)
    if augmentation is None:
        return np.asarray(frame)
    if augmentation.mirrored:
        frame = cv2.flip(frame, 1)
    if augmentation.moves:
        frame = _moved(frame, augmentation)
    if augmentation.color_matrix is not None:
        frame = cv2.transform(frame, augmentation.color_matrix)
    return np.asarray(frame)


def _moved(frame: UInt8[np.ndarray, "H H 3"], augmentation: Augmentation) -> UInt8[np.ndarray, "H H 3"]:
    size, scale = len(frame), augmentation.scale
    middle = 0.5 * (size - 1)  # OpenCV counts from the center of the first pixel
    matrix = np.array([[scale, 0.0, middle], [0.0, scale, middle]])
    matrix[:, 2] += size * np.array(augmentation.shift) - scale * middle
    moved = cv2.warpAffine(frame, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(moved, np.uint8)


def jitter_matrix(*, brightness: float, contrast: float, saturation: float) -> Float32[np.ndarray, "3 4"]:
    """Compute an affine map of RGB in 0..255 for three factors; a factor of 1 has no effect.

    Contrast scales around middle gray, and saturation around each pixel's luma; brightness multiplies last.
    """
    saturated = saturation * np.eye(3, dtype=np.float32) + (1 - saturation) * _LUMA[None, :]
    matrix = np.empty((3, 4), np.float32)
    matrix[:, :3] = brightness * contrast * saturated
    matrix[:, 3] = brightness * (1 - contrast) * 127.5
    return matrix


DEFAULT_SOURCES = 8
"""K in the paper (section 4)."""

# Separate random streams of one seed.
_FOR_ORDER, _FOR_EPISODE = 0, 1


class Episodes:
    """Batches of episodes, each a pure function of (records, settings, seed, step).

    If the records' policy is "skip", a damaged record is replaced by the next intact one in its epoch's order.
    """

    def __init__(
        self,
        records: VideoRecords,
        *,
        image_size: int,
        batch_size: int,
        seed: int,
        sources: int = DEFAULT_SOURCES,
        process_index: int = 0,
        process_count: int = 1,
        flip: bool = False,
        color_jitter: float = 0.0,
        crop_scale: float = 0.0,
        crop_shift: float = 0.0,
        drop_pupils: float = 0.0,
        other_shape: float = 0.0,
        landmarks: str = "detected",
        short_videos: str = "stop",
    ) -> None:
        """Check all settings against the data set; no records are read yet.

        Args:
            records: opened split of a data set.
            image_size: side of the frames in pixels, at most the stored side.
            batch_size: B, summed over all hosts.
            seed: seed of the order of videos, the choice of frames, and all random settings below.
            sources: K, the number of source frames; the target is one further frame.
            process_index: index of this host.
            process_count: number of hosts; must divide `batch_size`.
            flip: whether to mirror half of the episodes, including landmarks.
            color_jitter: maximum relative change of an episode's brightness, contrast and saturation, in [0, 1).
            crop_scale: maximum relative change of the scale of an episode's frames, in [0, 0.5]; edge pixels are
                repeated around reduced frames.
            crop_shift: maximum shift of an episode's frames in each direction, as a share of their side, in [0, 0.5].
                Landmarks move along and may leave [0, 1].
            drop_pupils: share of episodes whose pupils become unknown, in [0, 1].
            other_shape: share of episodes whose target landmarks show the target's expression and pose on the face
                shape of another video, in [0, 1]; the frame is unchanged. The generator must then take the face shape
                from the embedding, so that another person's landmarks change the avatar's face less.
            landmarks: "detected", or "true" for the exact landmarks of rendered heads.
            short_videos: policy for videos with fewer than K + 1 frames: "stop" raises an error now, and "leave_out"
                gives them no episodes (dense indices do not change).

        Raises:
            ValueError: if a setting is invalid or does not fit the data set; the message says which.
        """
        videos = records.videos
        if not 1 <= image_size <= videos.frame_size:
            raise ValueError(f"image_size must be 1 to {videos.frame_size} px, the stored size, got {image_size}")
        if batch_size < 1 or process_count < 1 or batch_size % process_count:
            raise ValueError(
                f"batch_size ({batch_size}) must be a positive multiple of process_count ({process_count})"
            )
        if not 0 <= process_index < process_count:
            raise ValueError(f"process_index must be 0 to {process_count - 1}, got {process_index}")
        if sources < 1:
            raise ValueError(f"sources must be at least 1 frame per episode, got {sources}")
        if not 0 <= color_jitter < 1:
            raise ValueError(f"color_jitter must be in [0, 1), got {color_jitter}")
        for name, share in (("crop_scale", crop_scale), ("crop_shift", crop_shift)):
            if not 0 <= share <= 0.5:
                raise ValueError(f"{name} must be in [0, 0.5], got {share}")
        for name, share in (("drop_pupils", drop_pupils), ("other_shape", other_shape)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {share}")
        if drop_pupils and videos.points != PUPIL_POINTS:
            raise ValueError(f"drop_pupils requires records with {PUPIL_POINTS} points, got {videos.points}")
        if landmarks not in ("detected", "true"):
            raise ValueError(f'landmarks must be "detected" or "true", got {landmarks!r}')
        if landmarks == "true" and not videos.true_landmarks:
            raise ValueError(f"data set {videos.name!r} has no true landmarks: only rendered heads have them")
        if seed < 0:
            raise ValueError(f"seed must be 0 or more, got {seed}")
        self.records = records
        self.image_size = image_size
        self.batch_size = batch_size
        self.sources = sources
        self._seed = seed
        local = batch_size // process_count
        self._places = range(process_index * local, (process_index + 1) * local)
        self._flip, self._color_jitter, self._drop_pupils = flip, color_jitter, drop_pupils
        self._crop_scale, self._crop_shift = crop_scale, crop_shift
        self._other_shape = other_shape
        self._true_landmarks = landmarks == "true"
        self._numbers = _long_enough(records, sources + 1, short_videos)

    @property
    def episodes_per_epoch(self) -> int:
        """Number of videos with episodes; an epoch has one episode of each."""
        return len(self._numbers)

    def batch(self, step: int) -> EpisodeBatch:
        """Return this host's part of the batch of a global step, with UInt8 frames and landmarks in [0, 1].

        Raises:
            DamagedRecord: if a record is damaged and the policy is "stop", or no record is intact; names shard and
                record.
        """
        count, size, points = len(self._places), self.image_size, self.records.videos.points
        batch = EpisodeBatch(
            source_frames=np.empty((count, self.sources, size, size, 3), np.uint8),
            source_landmarks=np.empty((count, self.sources, points, 2), np.float32),
            target_frame=np.empty((count, size, size, 3), np.uint8),
            target_landmarks=np.empty((count, points, 2), np.float32),
            video_index=np.empty(count, np.int32),
        )
        for slot, place in enumerate(self._places):
            self._fill(batch, slot, step * self.batch_size + place)
        return batch

    def iterate(
        self, *, start_step: int = 0, stop_step: int | None = None, threads: int = 2, workers: int = 0, ahead: int = 2
    ) -> Iterator[EpisodeBatch]:
        """Yield the batches of all steps from `start_step` on, independent of `threads` and `workers`.

        Args:
            start_step: first global step, or the step to resume from.
            stop_step: step before which to end; None for an endless stream.
            threads: number of batches prepared concurrently in each process; 0 prepares each on request.
            workers: number of processes besides this one (spawned: the program needs a `__main__` guard); 0 for none.
            ahead: number of finished batches buffered in each process, at least `threads`.

        Raises:
            DamagedRecord: as `batch`.
            ValueError: if `start_step` is negative.
        """
        import grain  # here, because only training needs it and it takes half a second

        if start_step < 0:
            raise ValueError(f"start_step must be 0 or more, got {start_step}")
        steps = grain.MapDataset.range(start_step, sys.maxsize if stop_step is None else stop_step)
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(threads, ahead) if threads else 0)
        batches = steps.map(self.batch).to_iter_dataset(options)
        if workers:
            processes = grain.multiprocessing.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=1)
            batches = batches.mp_prefetch(processes)
        return iter(batches)

    def _fill(self, batch: EpisodeBatch, slot: int, position: int) -> None:
        """Write the episode at a position of the endless stream to one slot of the batch."""
        videos = len(self._numbers)
        epoch, place = divmod(position, videos)
        order = _epoch_order(self._seed, epoch, videos)
        for skipped in range(videos):
            number = self._numbers[order[(place + skipped) % videos]]
            rng = np.random.default_rng((self._seed, _FOR_EPISODE, position))
            try:
                self._fill_from(self.records.read(number), batch, slot, rng)
            except DamagedRecord as damage:
                self.records.stop_or_count(number, damage)
            except UnreadableFrame as error:
                self.records.stop_or_count(number, self.records.damage(number, str(error)))
            else:
                batch.video_index[slot] = self.records.video_indices[number]
                return
        raise DamagedRecord(f"all {videos} videos of {self.records!r} are damaged: copy the data set again")

    def _fill_from(self, record: VideoRecord, batch: EpisodeBatch, slot: int, rng: np.random.Generator) -> None:
        # All random numbers are drawn whatever the settings, so that a setting does not change the choice of frames.
        target, *sources = rng.permutation(len(record.frames))[: self.sources + 1]
        mirror, drop = (float(chance) for chance in rng.random(2))
        strength = 1 + self._color_jitter * rng.uniform(-1, 1, 3)
        brightness, contrast, saturation = (float(factor) for factor in strength)
        bigger, right, down = (float(share) for share in rng.uniform(-1, 1, 3))
        other, reshape = rng.integers(len(self._numbers)), float(rng.random())
        augmentation = Augmentation(
            mirrored=self._flip and mirror < 0.5,
            color_matrix=jitter_matrix(brightness=brightness, contrast=contrast, saturation=saturation)
            if self._color_jitter
            else None,
            scale=1 + self._crop_scale * bigger,
            shift=(self._crop_shift * right, self._crop_shift * down),
        )
        points = self._points(record)
        drawn = points[target]
        if reshape < self._other_shape:
            drawn = self._on_another_face(drawn, points, self._numbers[other])
        drop_pupils = drop < self._drop_pupils
        points = self._change(points, augmentation, drop_pupils=drop_pupils)
        batch.target_frame[slot] = decode_frame(record.frames[target], size=self.image_size, augmentation=augmentation)
        batch.target_landmarks[slot] = self._change(drawn[None], augmentation, drop_pupils=drop_pupils)[0]
        for k, source in enumerate(sources):
            batch.source_frames[slot, k] = decode_frame(
                record.frames[source], size=self.image_size, augmentation=augmentation
            )
        batch.source_landmarks[slot] = points[sources]

    def _points(self, record: VideoRecord) -> Float32[np.ndarray, "F P 2"]:
        points = record.true_landmarks if self._true_landmarks else record.landmarks
        assert points is not None  # guaranteed for the whole data set by its video list
        return points

    def _on_another_face(
        self, drawn: Float32[np.ndarray, "P 2"], own: Float32[np.ndarray, "F P 2"], number: int
    ) -> Float32[np.ndarray, "P 2"]:
        """Transfer one frame's landmarks to another record's face, with size and place kept; unchanged if either has none."""
        try:
            driver, other = face_shape(own), face_shape(self._points(self.records.read(number)))
        except (DamagedRecord, ValueError):  # reported by the record's own episode
            return drawn
        target = other._replace(size=driver.size, center=driver.center)
        return retarget(drawn[None], driver=driver, target=target)[0]

    @staticmethod
    def _change(
        landmarks: Float32[np.ndarray, "F P 2"], augmentation: Augmentation, *, drop_pupils: bool
    ) -> Float32[np.ndarray, "F P 2"]:
        if augmentation.mirrored:
            landmarks = mirror_landmarks(landmarks)
        if drop_pupils:
            landmarks = landmarks.copy()
            landmarks[:, IBUG_POINTS:] = np.nan
        return augmentation.move(landmarks)


@lru_cache(maxsize=8)  # threads may be in different epochs at the same time
def _epoch_order(seed: int, epoch: int, videos: int) -> Int[np.ndarray, " videos"]:
    # Grain's own shuffle needs no memory, but took 0.6 ms per episode with 64 videos: a fifth of the reader's time.
    return np.random.default_rng((seed, _FOR_ORDER, epoch)).permutation(videos)


def _long_enough(records: VideoRecords, frames: int, short_videos: str) -> list[int]:
    """Return the numbers of the records with at least this many frames."""
    if short_videos not in ("stop", "leave_out"):
        raise ValueError(f'short_videos must be "stop" or "leave_out", got {short_videos!r}')
    numbers = [number for number in range(len(records)) if records.entry(number).frames >= frames]
    short = len(records) - len(numbers)
    if short and short_videos == "stop":
        first = next(entry for entry in map(records.entry, range(len(records))) if entry.frames < frames)
        raise ValueError(
            f"an episode needs {frames} different frames, but {short} of {len(records)} videos have fewer (the "
            f"first is {first.video_id!r} with {first.frames}): reduce sources, or skip these videos with "
            'short_videos="leave_out"'
        )
    if not numbers:
        raise ValueError(f"{records!r} has no video with the {frames} frames that an episode needs")
    return numbers

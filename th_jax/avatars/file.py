"""Avatar files: safetensors with one person's generator, its networks, and its provenance, loadable on any device.

There are three kinds:

- "full" holds the generator's parameters, the person's AdaIN parameters ψ', and the spectral-norm vectors u and v, all
  in float32. Kernels are not divided by their sigmas, so that the avatar renders bit for bit as it did after
  fine-tuning, can be trained further, and can be compared with its meta weights.
- "feed_forward" holds only ψ' and the digest of the meta weights.
- "compact" holds ψ' and quantized differences from the meta weights.

The last two kinds need the meta weights when they are loaded.
"""

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from th_jax.avatars.quantization import decode_difference
from th_jax.landmarks.scheme import check_point_count
from th_jax.models.checks import check_same_tree
from th_jax.models.networks import Networks, group
from th_jax.render import render
from th_jax.storage.tensors import (
    AlteredError,
    TensorFileError,
    leaves_by_name,
    read_described,
    tensors_digest,
    write_described,
)
from th_jax.storage.tensors import read_description as read_file_description
from th_jax.types import AnyArray, Avatar, Shots
from th_jax.version import __version__
from th_jax.weights import MetaModel, PretrainedError, load_bundled_with, load_meta, load_pretrained, networks_of

FORMAT = "th_jax.avatar/1"


class AvatarError(ValueError):
    """An avatar file is missing, damaged, altered, or belongs to other networks or weights; the message says which."""


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray], description: Mapping[str, Any]) -> str:
    """Write a tensor file atomically.

    The description consists of JSON values.

    Returns:
        SHA-256 digest of the tensors and the description, in hexadecimal.

    Raises:
        AvatarError: if the suffix is not .safetensors, the path is a folder, or the description is not JSON.
        OSError: if the file cannot be written; no partial file is left behind.
    """
    if path.suffix != ".safetensors":
        raise AvatarError(f"an avatar's file name must end in .safetensors, got {path}")
    if path.is_dir():
        raise AvatarError(f"{path} is a folder: name a file")
    try:
        text = json.dumps(description, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise AvatarError(f"an avatar's notes must be JSON values: {error}") from error
    return write_described(path, tensors, text, file_format=FORMAT)


def read_tensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any], str]:
    """Read a tensor file and verify its checksum.

    Returns:
        The tensors by name, the description and the digest.

    Raises:
        AvatarError: if the file is missing, truncated, altered, or has another format.
    """
    if not path.is_file():
        raise AvatarError(
            f"{path} is a folder, not an avatar file" if path.is_dir() else f"there is no avatar at {path}"
        )
    try:
        return read_described(path, file_format=FORMAT)
    except AlteredError as error:
        raise AvatarError(f"{error}; restore the file from another copy") from error
    except TensorFileError as error:
        raise AvatarError(str(error)) from error


def read_description(path: Path) -> dict[str, Any]:
    """Read an avatar file's description without its tensors, for going through thousands of files.

    Raises:
        AvatarError: if the file is missing, truncated, or has another format.
    """
    try:
        return read_file_description(path, file_format=FORMAT)
    except TensorFileError as error:
        raise AvatarError(str(error)) from error


def meta_reference(avatar: str | Path, description: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the name and digest of the meta weights that an avatar was made from, or None if it was made without any.

    Raises:
        AvatarError: if the description has no valid entry for the meta weights.
    """
    match description.get("meta", ...):
        case None:
            return None
        case {"name": str(name), "digest": str(digest)} if re.fullmatch(r"[0-9a-f]{64}", digest):
            return name, digest
    raise AvatarError(f"{avatar} does not name the meta weights it needs or was made from: the file was modified")


def named_leaves(avatar: Any) -> dict[str, np.ndarray]:
    """Return an avatar's arrays on the host, by paths such as "generator_params/down_0/conv/kernel"."""
    return {name: np.asarray(leaf) for name, leaf in leaves_by_name(avatar).items()}


def avatar_shapes(networks: Networks) -> Any:
    """Return the shapes and dtypes of these networks' avatars, as an `Avatar` of abstract arrays."""
    generator = networks.shapes_of("generator")
    adain: Any = jax.ShapeDtypeStruct((networks.plan.adain_size,), jnp.float32)
    return Avatar(generator.params, adain, generator.spectral_stats)


def check_avatar(what: str, named: Mapping[str, Any], networks: Networks) -> None:
    """Check that an avatar's named arrays fit its networks.

    `named` has arrays, or their shapes; `what` starts the error message.

    Raises:
        AvatarError: if arrays are missing, unknown or of another shape (the message names the first ones), or not
            finite.
    """
    try:
        check_same_tree(f"{networks}", leaves_by_name(avatar_shapes(networks)), named)
    except ValueError as error:
        raise AvatarError(f"{what} is not a valid avatar: {error}") from error
    for name, leaf in named.items():
        if not np.isfinite(leaf).all():
            raise AvatarError(f"{what} is not a valid avatar: {name} is not finite")


def avatar_of_leaves(what: str, named: Mapping[str, Any], networks: Networks) -> Avatar:
    """Build an avatar from named arrays, on the default device.

    Raises:
        AvatarError: as `check_avatar`.
    """
    check_avatar(what, named, networks)
    shapes = avatar_shapes(networks)
    leaves = [jnp.asarray(named[name], jnp.float32) for name in leaves_by_name(shapes)]
    avatar: Avatar = jax.tree.unflatten(jax.tree.structure(shapes), leaves)
    return avatar


if TYPE_CHECKING:
    import th_jax.provenance

Kind = Literal["full", "feed_forward", "compact"]

_KINDS = ("full", "feed_forward", "compact")

_ADAIN, _LANDMARKS = "adain", "landmarks"

_PARAMS, _STATS = "generator_params/", "spectral_stats/"

_OWN_KEYS = ("version", "networks", "kind", "meta", "provenance")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LoadedAvatar:
    """An avatar that is ready to render: `render(loaded.networks, loaded.avatar, landmarks)`."""

    networks: Networks
    avatar: Avatar
    description: Mapping[str, Any]
    """Kind, version, networks, meta weights, provenance, and notes, as JSON values."""
    digest: str
    """SHA-256 digest of the file's contents, in hexadecimal."""
    landmarks: Float[np.ndarray, "T P 2"] | None
    """Landmarks of the shots in [0, 1], which give the shape of the person's face; None if they were not stored."""

    @property
    def kind(self) -> Kind:
        """Kind of the file: "full", "feed_forward" or "compact"."""
        kind: Kind = self.description["kind"]
        return kind

    @property
    def notes(self) -> dict[str, Any]:
        """Notes that were stored with the avatar."""
        return {name: value for name, value in self.description.items() if name not in _OWN_KEYS}

    def render(self, landmarks: Float[AnyArray, "B P 2"]) -> UInt8[np.ndarray, "B H W 3"]:
        """Render frames for landmarks in [0, 1], without a watermark.

        `th_jax.animate` and `th_jax.provenance` mark the files that they write.
        """
        return np.asarray(render(self.networks, self.avatar, landmarks))

    def save(self, path: str | Path) -> str:
        """Write the avatar as a full file and return its digest.

        Raises:
            AvatarError: if the name does not end in .safetensors.
            OSError: if the file cannot be written; no partial file is left behind.
        """
        tensors = named_leaves(self.avatar)
        if self.landmarks is not None:
            tensors[_LANDMARKS] = self.landmarks
        return write_tensors(Path(path), tensors, {**self.description, "kind": "full"})

    @property
    def made_of(self) -> "th_jax.provenance.Provenance":
        """Provenance record of the avatar itself, as stored in the file.

        Raises:
            AvatarError: if the file has no valid provenance record.
        """
        from th_jax.provenance import Provenance  # imported here because it loads OpenCV

        try:
            return Provenance.from_dict(self.description.get("provenance"))
        except ValueError as error:
            raise AvatarError(f"this avatar has no valid provenance record: {error}") from error

    @property
    def provenance(self) -> "th_jax.provenance.Provenance":
        """Provenance record for frames generated now by this avatar: the avatar's own record with its digest.

        Raises:
            AvatarError: if the file has no valid provenance record.
        """
        from th_jax.provenance import Kind as PixelKind
        from th_jax.provenance import Provenance

        made = self.made_of
        return Provenance(
            kind=PixelKind.GENERATED,
            avatar=self.digest,
            weights=made.weights,
            inputs=made.inputs,
            consent=made.consent,
            notes=made.notes,
            person=made.person,
            ingredients=made.ingredients,
        )


GRAY_TOLERANCE = 4
"""Difference of a pixel's channels, of 255, up to which it counts as gray; compressed gray images have up to 2."""

_COLORED_SHARE = 0.001
"""Share of pixels that may be colored in gray images."""


def networks_for(networks: Networks, shots: Shots) -> Networks:
    """Return the networks of an avatar of these shots: of one that generates gray frames if all shots are gray.

    A generator that learned colors would give a person of gray images some.
    """
    frames = np.asarray(shots.frames)[np.asarray(shots.mask) > 0]
    colored = np.ptp(frames.astype(np.int16), axis=-1) > GRAY_TOLERANCE
    return dataclasses.replace(networks, gray=networks.gray or bool(colored.mean() <= _COLORED_SHARE))


def save_avatar(
    path: str | Path,
    avatar: Avatar,
    *,
    networks: Networks,
    provenance: "th_jax.provenance.Provenance",
    meta: MetaModel | None = None,
    landmarks: Float[AnyArray, "T P 2"] | None = None,
    notes: Mapping[str, Any] | None = None,
    kind: Literal["full", "feed_forward"] = "full",
) -> str:
    """Write one avatar atomically and return its digest.

    Args:
        path: output file, ending in .safetensors.
        avatar: avatar whose values are finite.
        networks: networks of the avatar.
        provenance: `meta.provenance.of(shots)`: the digests of the meta weights, of the images and of the consent
            record.
        meta: meta weights that the avatar was made from; required for "feed_forward".
        landmarks: landmarks of the real shots in [0, 1], NaN where unknown; `th_jax.landmarks.retarget` needs them.
        notes: additional JSON values to store, such as fine-tuning settings.
        kind: "feed_forward" stores only ψ', for an avatar that shares the generator of the meta weights: under 100 KB.

    Raises:
        AvatarError: if the avatar does not fit the networks or is not finite, if a "feed_forward" avatar has its own
            generator, or if the landmarks or notes are invalid.
        OSError: if the file cannot be written; no partial file is left behind.
    """
    tensors = named_leaves(avatar)
    check_avatar("this", tensors, networks)
    if kind == "feed_forward":
        if meta is None:
            raise AvatarError("a feed-forward avatar refers to its meta weights: pass them as `meta`")
        wanted = named_leaves(feed_forward_with(meta, avatar.adain))
        if any(not np.array_equal(tensors[name], wanted.get(name, np.nan)) for name in tensors):
            raise AvatarError(
                "a feed-forward avatar must use the generator of its meta weights, but this one has its own: save it "
                'as "full"'
            )
        tensors = {_ADAIN: tensors[_ADAIN]}
    return write_avatar(
        path, tensors, networks=networks, provenance=provenance, meta=meta, landmarks=landmarks, kind=kind, notes=notes
    )


def load_avatar(path: str | Path, *, meta: MetaModel | str | Path | None = None) -> LoadedAvatar:
    """Load an avatar file onto JAX's default device.

    Args:
        path: file written by `save_avatar` or `save_compact`.
        meta: meta weights for the kinds "feed_forward" and "compact", or a location for `load_meta`; by default the
            bundled weights with the name stored in the file.

    Raises:
        AvatarError: if the file is missing, truncated, altered, of another format or version, or needs other meta
            weights.
    """
    path = Path(path)
    tensors, description, digest = read_tensors(path)
    if description.get("kind") not in _KINDS:
        raise AvatarError(
            f"{path} has the unknown avatar kind {description.get('kind')!r}; expected one of {', '.join(_KINDS)}"
        )
    networks, wanted = _networks(path, description), meta_reference(path, description)
    landmarks = _landmarks(path, tensors.pop(_LANDMARKS, None))
    needed = None if description["kind"] == "full" else _meta_of(path, wanted, meta)
    avatar = _completed(path, tensors, description["kind"], needed, networks)
    return LoadedAvatar(networks=networks, avatar=avatar, description=description, digest=digest, landmarks=landmarks)


def described_avatar(
    avatar: Avatar,
    *,
    networks: Networks,
    provenance: "th_jax.provenance.Provenance",
    meta: MetaModel | None = None,
    landmarks: Float[AnyArray, "T P 2"] | None = None,
    notes: Mapping[str, Any] | None = None,
) -> LoadedAvatar:
    """Make a `LoadedAvatar` from an avatar that has not been written yet; takes the arguments of `save_avatar`.

    Raises:
        AvatarError: as `save_avatar`.
    """
    tensors = named_leaves(avatar)
    check_avatar("this", tensors, networks)
    described = _description(networks, "full", provenance, meta, notes)
    shown = None if landmarks is None else _checked_landmarks(np.asarray(landmarks, np.float32, order="C"))
    digest = tensors_digest(tensors if shown is None else {**tensors, _LANDMARKS: shown})
    return LoadedAvatar(networks=networks, avatar=avatar, description=described, digest=digest, landmarks=shown)


def write_avatar(
    path: str | Path,
    tensors: Mapping[str, np.ndarray],
    *,
    networks: Networks,
    provenance: "th_jax.provenance.Provenance",
    meta: MetaModel | None,
    landmarks: Float[AnyArray, "T P 2"] | None,
    kind: Kind,
    notes: Mapping[str, Any] | None,
) -> str:
    """Write the tensors of an avatar of any kind with their description and checksum; the last step of `save_avatar`.

    Raises:
        AvatarError, OSError: as `save_avatar`.
    """
    description = _description(networks, kind, provenance, meta, notes)
    tensors = dict(tensors)
    if landmarks is not None:
        tensors[_LANDMARKS] = _checked_landmarks(np.asarray(landmarks, np.float32, order="C"))
    return write_tensors(Path(path), tensors, description)


def _description(
    networks: Networks,
    kind: Kind,
    provenance: "th_jax.provenance.Provenance",
    meta: MetaModel | None,
    notes: Mapping[str, Any] | None,
) -> dict[str, Any]:
    notes = dict(notes or {})
    if taken := sorted(set(notes) & set(_OWN_KEYS)):
        raise AvatarError(f"reserved keys in the notes: {', '.join(taken)}; rename them")
    return notes | {
        "version": __version__,
        "networks": dataclasses.asdict(networks),
        "kind": kind,
        "meta": None if meta is None else {"name": str(meta.description["name"]), "digest": meta.digest},
        "provenance": provenance.to_dict(),
    }


def feed_forward_with(meta: MetaModel, adain: AnyArray) -> Avatar:
    """Make an avatar from a person's ψ' and the generator of the meta weights."""
    generator = group(meta.weights.synthesis, "generator")
    return Avatar(generator.params, adain, generator.spectral_stats)


def _networks(path: Path, description: Mapping[str, Any]) -> Networks:
    try:
        return networks_of(path, description)
    except PretrainedError as error:
        raise AvatarError(str(error)) from error


def _meta_of(path: Path, wanted: tuple[str, str] | None, meta: MetaModel | str | Path | None) -> MetaModel:
    """Load the meta weights that an avatar refers to, and reject any others."""
    if wanted is None:
        raise AvatarError(f"{path} does not name the meta weights it needs: the file was modified")
    name, digest = wanted
    asked = f"{path} needs the meta weights {name[:100]!r} (sha256 {digest})"
    try:
        if meta is None:
            meta = load_bundled_with(digest) or load_pretrained(name, only_generate=True)
        elif not isinstance(meta, MetaModel):
            meta = load_meta(meta, only_generate=True)
    except PretrainedError as error:
        raise AvatarError(f"{asked}: {error}") from error
    if meta.digest != digest:
        raise AvatarError(f"{asked}, but got {meta.description['name']!r} (sha256 {meta.digest})")
    return meta


def _completed(
    path: Path, tensors: Mapping[str, np.ndarray], kind: Kind, meta: MetaModel | None, networks: Networks
) -> Avatar:
    """Combine the file's tensors with the meta weights, which two of the three kinds need."""
    named = dict(tensors)
    if meta is not None:
        whole = named_leaves(feed_forward_with(meta, np.zeros(0, np.float32)))
        if kind == "feed_forward":
            named = whole | named
        else:
            changed = {name: leaf for name, leaf in tensors.items() if not name.startswith((_STATS, _ADAIN))}
            base = {name: leaf for name, leaf in whole.items() if name.startswith(_PARAMS)}
            try:
                restored = decode_difference(changed, base)
            except ValueError as error:
                raise AvatarError(f"{path} has invalid parameter differences: {error}") from error
            named = restored | {name: tensors[name] for name in tensors if name not in changed}
    return avatar_of_leaves(f"{path}", named, networks)


def _landmarks(path: Path, stored: np.ndarray | None) -> Float[np.ndarray, "T P 2"] | None:
    if stored is None:
        return None
    if stored.dtype != np.float32 or stored.ndim != 3 or stored.shape[2] != 2 or not len(stored):
        raise AvatarError(
            f"{path} has invalid landmarks: expected float32 [T, P, 2], got {stored.dtype} {list(stored.shape)}"
        )
    try:
        return _checked_landmarks(stored)
    except AvatarError as error:
        raise AvatarError(f"{path} has invalid landmarks: {error}") from error


def _checked_landmarks(landmarks: Float[np.ndarray, "T P 2"]) -> np.ndarray:
    try:
        check_point_count(landmarks.shape[1])
    except ValueError as error:
        raise AvatarError(f"the shots' {error}") from error
    if np.isinf(landmarks).any():
        raise AvatarError("the shots' landmarks must be finite, or NaN for unknown points")
    return landmarks

"""Avatars as files: one person's generator with its networks and where it comes from, opened on any device.

Three kinds. "full" holds the generator's parameters, the person's AdaIN parameters ψ', and u and v, all in float32: kernels
are not divided by their sigmas, so that the avatar renders to the bit what fine-tuning left, can be trained further, and can
be compared with its meta weights. "feed_forward" holds ψ' alone and the digest of the meta weights. "compact" holds ψ' and
what changed against the meta weights, in few bits. The last two need those weights when they are opened.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float

from th_jax.avatar_format import (
    AvatarError,
    avatar_of_leaves,
    check_avatar,
    meta_reference,
    named_leaves,
    read_tensors,
    write_tensors,
)
from th_jax.models.networks import Networks, group
from th_jax.pretrained import MetaModel, PretrainedError, load_meta, load_pretrained
from th_jax.quantization import decode_difference
from th_jax.topology import check_point_count
from th_jax.types import AnyArray, Avatar
from th_jax.version import __version__

if TYPE_CHECKING:
    import th_jax.media

Kind = Literal["full", "feed_forward", "compact"]
_KINDS = ("full", "feed_forward", "compact")
_ADAIN, _LANDMARKS = "adain", "landmarks"
_PARAMS, _STATS = "generator_params/", "spectral_stats/"
_OWN_KEYS = ("version", "networks", "kind", "meta", "provenance")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LoadedAvatar:
    """An avatar, ready to be rendered: `render(loaded.networks, loaded.avatar, landmarks)`."""

    networks: Networks
    avatar: Avatar
    description: Mapping[str, Any]
    """Kind, version, networks, meta weights, provenance, and what its maker noted: JSON values."""
    digest: str
    """SHA-256 of what the file holds, in hexadecimal."""
    landmarks: Float[np.ndarray, "T P 2"] | None
    """Of the shots, in [0, 1]: the shape of the person's face. None if they were not stored."""

    @property
    def kind(self) -> Kind:
        """Of the file: "full", "feed_forward" or "compact"."""
        kind: Kind = self.description["kind"]
        return kind

    @property
    def notes(self) -> dict[str, Any]:
        """What its maker noted."""
        return {name: value for name, value in self.description.items() if name not in _OWN_KEYS}

    @property
    def made_of(self) -> "th_jax.media.Provenance":
        """The record of the avatar itself, as it stands in the file.

        Raises:
            AvatarError: if the file holds no such record.
        """
        from th_jax.media import Provenance  # here: it brings OpenCV

        try:
            return Provenance.from_dict(self.description.get("provenance"))
        except ValueError as error:
            raise AvatarError(f"this avatar does not say what it was made of: {error}") from error

    @property
    def provenance(self) -> "th_jax.media.Provenance":
        """The record for what this avatar generates: its own, now, with the avatar's digest.

        Raises:
            AvatarError: if the file holds no such record.
        """
        from th_jax.media import Kind as PixelKind
        from th_jax.media import Provenance

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


def save_avatar(
    path: str | Path,
    avatar: Avatar,
    *,
    networks: Networks,
    provenance: "th_jax.media.Provenance",
    meta: MetaModel | None = None,
    landmarks: Float[AnyArray, "T P 2"] | None = None,
    notes: Mapping[str, Any] | None = None,
    kind: Literal["full", "feed_forward"] = "full",
) -> str:
    """Write one avatar, whole or not at all, and return its digest.

    Args:
        path: ends in .safetensors.
        avatar: of finite numbers.
        networks: that the avatar belongs to.
        provenance: `meta.provenance.of(shots)`: the digests of the meta weights, of the pictures and of the consent record.
        meta: the meta weights that it was made from; "feed_forward" needs them.
        landmarks: of the real shots, in [0, 1], NaN where unknown: `th_jax.retargeting` needs them.
        notes: JSON values that are worth keeping, such as the settings of fine-tuning.
        kind: "feed_forward" stores ψ' alone, for an avatar whose generator is that of the meta weights: under 100 KB.

    Raises:
        AvatarError: for an avatar of other networks or, as "feed_forward", with a generator of its own; for numbers that are
            not finite; for landmarks that are none; and for notes that are not JSON.
        OSError: if the disk refuses; nothing is left behind.
    """
    tensors = named_leaves(avatar)
    check_avatar("this is", tensors, networks)
    if kind == "feed_forward":
        if meta is None:
            raise AvatarError("a feed-forward avatar refers to its meta weights: give them as meta")
        wanted = named_leaves(feed_forward_with(meta, avatar.adain))
        if any(not np.array_equal(tensors[name], wanted.get(name, np.nan)) for name in tensors):
            raise AvatarError('this avatar has a generator of its own, no feed-forward one: save it as "full"')
        tensors = {_ADAIN: tensors[_ADAIN]}
    return write_avatar(
        path, tensors, networks=networks, provenance=provenance, meta=meta, landmarks=landmarks, kind=kind, notes=notes
    )


def load_avatar(path: str | Path, *, meta: MetaModel | str | Path | None = None) -> LoadedAvatar:
    """An avatar from its file, on JAX's default device.

    Args:
        path: a file that `save_avatar` or `save_compact` wrote.
        meta: for "feed_forward" and "compact" the meta weights, or where `load_meta` finds them; by default the bundled ones
            of the name that the file gives.

    Raises:
        AvatarError: if the file is missing, truncated, altered, of another format or version, or needs other meta weights.
    """
    path = Path(path)
    tensors, description, digest = read_tensors(path)
    if description.get("kind") not in _KINDS:
        raise AvatarError(f"{path} is an avatar of the kind {description.get('kind')!r}; there are {', '.join(_KINDS)}")
    networks, wanted = _networks(path, description), meta_reference(path, description)
    landmarks = _landmarks(path, tensors.pop(_LANDMARKS, None))
    needed = None if description["kind"] == "full" else _meta_of(path, wanted, meta)
    avatar = _completed(path, tensors, description["kind"], needed, networks)
    return LoadedAvatar(networks=networks, avatar=avatar, description=description, digest=digest, landmarks=landmarks)


def write_avatar(
    path: str | Path,
    tensors: Mapping[str, np.ndarray],
    *,
    networks: Networks,
    provenance: "th_jax.media.Provenance",
    meta: MetaModel | None,
    landmarks: Float[AnyArray, "T P 2"] | None,
    kind: Kind,
    notes: Mapping[str, Any] | None,
) -> str:
    """Write the tensors of any kind of avatar with their description and checksum: what `save_avatar` ends with.

    Raises:
        AvatarError, OSError: as `save_avatar`.
    """
    notes = dict(notes or {})
    if taken := sorted(set(notes) & set(_OWN_KEYS)):
        raise AvatarError(f"the notes have their own {', '.join(taken)}: use another name")
    own = {
        "version": __version__,
        "networks": dataclasses.asdict(networks),
        "kind": kind,
        "meta": None if meta is None else {"name": str(meta.description["name"]), "digest": meta.digest},
        "provenance": provenance.to_dict(),
    }
    tensors = dict(tensors)
    if landmarks is not None:
        tensors[_LANDMARKS] = _checked_landmarks(np.asarray(landmarks, np.float32, order="C"))
    return write_tensors(Path(path), tensors, notes | own)


def feed_forward_with(meta: MetaModel, adain: AnyArray) -> Avatar:
    """The avatar of a person's ψ' whose generator is that of the meta weights."""
    generator = group(meta.weights.synthesis, "generator")
    return Avatar(generator.params, adain, generator.spectral_stats)


def _networks(path: Path, description: Mapping[str, Any]) -> Networks:
    try:
        networks = Networks.from_settings(description["networks"])
        networks.shapes()  # settings that are numbers, and still no network's, fail here
        return networks
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise AvatarError(f"{path} needs networks that th_jax {__version__} does not build: {error}") from error


def _meta_of(path: Path, wanted: tuple[str, str] | None, meta: MetaModel | str | Path | None) -> MetaModel:
    """The meta weights that an avatar refers to, and no others."""
    if wanted is None:
        raise AvatarError(f"{path} does not name the meta weights that it needs: it was changed")
    name, digest = wanted
    asked = f"{path} needs the meta weights {name[:100]!r} (sha256 {digest})"
    try:
        if meta is None:
            meta = load_pretrained(name, only_generate=True)
        elif not isinstance(meta, MetaModel):
            meta = load_meta(meta, only_generate=True)
    except PretrainedError as error:
        raise AvatarError(f"{asked}: {error}") from error
    if meta.digest != digest:
        raise AvatarError(f"{asked}, but {meta.description['name']!r} (sha256 {meta.digest}) came")
    return meta


def _completed(
    path: Path, tensors: Mapping[str, np.ndarray], kind: Kind, meta: MetaModel | None, networks: Networks
) -> Avatar:
    """The avatar of what the file holds and, for two of the kinds, the meta weights."""
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
                raise AvatarError(f"{path} does not hold what changed: {error}") from error
            named = restored | {name: tensors[name] for name in tensors if name not in changed}
    return avatar_of_leaves(f"{path} holds", named, networks)


def _landmarks(path: Path, stored: np.ndarray | None) -> Float[np.ndarray, "T P 2"] | None:
    if stored is None:
        return None
    if stored.dtype != np.float32 or stored.ndim != 3 or stored.shape[2] != 2 or not len(stored):
        raise AvatarError(f"{path} holds landmarks that are none: {stored.dtype} of the shape {list(stored.shape)}")
    try:
        return _checked_landmarks(stored)
    except AvatarError as error:
        raise AvatarError(f"{path} cannot be used: {error}") from error


def _checked_landmarks(landmarks: Float[np.ndarray, "T P 2"]) -> np.ndarray:
    try:
        check_point_count(landmarks.shape[1])
    except ValueError as error:
        raise AvatarError(f"the shots' {error}") from error
    if np.isinf(landmarks).any():
        raise AvatarError("the shots' landmarks must be finite, or NaN where a point is unknown")
    return landmarks

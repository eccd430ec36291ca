"""Meta-learned weights: reading and writing released files, reading run folders, and conversion to mean pooling.

A released file contains the averaged E, P and G, and D with its shared vector and bias. Kernels may be rounded to float16; u
and v are then computed for the rounded kernels, by 20 power iterations, and stored in float32, so that each sigma fits its
kernel.
"""

import contextlib
import dataclasses
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from th_jax.models.networks import Networks
from th_jax.models.spectral import normalized_kernel, power_iterate
from th_jax.perceptual.frozen import NETWORKS, PerceptualWeights, load_perceptual
from th_jax.storage.checkpoints import CheckpointError, Checkpoints
from th_jax.storage.download import downloaded, is_web_address, parse_address
from th_jax.storage.files import user_cache_folder
from th_jax.storage.hub_folder import hub_weights
from th_jax.storage.setting_names import RENAMED_WEIGHTS
from th_jax.storage.tensors import (
    MAX_FILE_BYTES,
    AlteredError,
    TensorFileError,
    leaves_by_name,
    read_described,
    tensors_digest,
    write_described,
)
from th_jax.types import AnyArray, MetaWeights, NetworkState
from th_jax.version import __version__

POSITIONS = 16
"""Positions of the last feature map of E and D, which is 4x4 at every image size."""


def with_mean_pooling(networks: Networks, weights: MetaWeights) -> tuple[Networks, MetaWeights]:
    """Convert networks that pool by sum to mean pooling, without changing P·ê.

    ê becomes 16 times smaller, and P loses its spectral norm and becomes 16 times larger. With sums, ê and D's V are so long
    that the first scores are in the hundreds and the hinge is saturated (docs/learning.md). D pools by mean, too, which
    divides its scores by 256; w0 becomes zero. The conversion is meant for weights whose discriminator has not been trained
    yet.

    Args:
        networks: networks that pool by sum.
        weights: weights of these networks.

    Raises:
        ValueError: if the networks already pool by mean.
    """
    if networks.pool == "mean":
        raise ValueError("these networks already use mean pooling")
    synthesis, discriminator = weights
    dense = dict(synthesis.params["projection"]["dense"])
    kernel = dense["kernel"]
    if networks.projection_spectral_norm:
        stats = synthesis.spectral_stats["projection"]["dense"]
        kernel = normalized_kernel(kernel, stats["u"], stats["v"])
    dense["kernel"] = POSITIONS * kernel
    params = {**synthesis.params, "projection": {"dense": dense}}
    spectral_stats = {**synthesis.spectral_stats, "projection": {}}
    judge = {**discriminator.params, "shared": jnp.zeros_like(discriminator.params["shared"])}
    return (
        replace(networks, pool="mean", projection_spectral_norm=False),
        MetaWeights(NetworkState(params, spectral_stats), NetworkState(judge, discriminator.spectral_stats)),
    )


if TYPE_CHECKING:
    import th_jax.provenance

FORMAT = "th_jax.meta/1"

POWER_ITERATIONS = 20
"""Power iterations on averaged or rounded weights before they are used (docs/paper-map.md)."""

_PRETRAINED = Path(__file__).parent / "assets" / "pretrained"

_REQUIRED = ("name", "steps", "data", "licence")

_OWN_KEYS = ("version", "networks", "perceptual", "dtype")

_STATS, _TABLE_ROWS, _TABLE_IDS = "/spectral_stats/", "table/rows", "table/row_ids"

_NAME = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,200}")  # used in messages and provenance records


class PretrainedError(ValueError):
    """Meta-learned weights are missing, damaged, altered or for other networks; the message states which, and the remedy."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class MetaModel:
    """Result of meta-learning, ready for new people: `finetune(meta.weights, meta.perceptual, shots)`."""

    networks: Networks
    weights: MetaWeights
    """Averaged E, P and G; D with w0 and b."""
    perceptual: PerceptualWeights
    """Weights of the frozen networks used in training; empty if loaded with `only_generate`."""
    description: Mapping[str, Any]
    """JSON values such as name, steps, data, licence and config."""
    digest: str
    """SHA-256 of the weights, in hexadecimal."""
    table_rows: Float[np.ndarray, "V N"] | None = None
    """W, if it was released; needed to continue meta-learning, but not for new people."""
    row_ids: tuple[str, ...] = ()
    """The training video of each row: SHA-256 of its ID, in hexadecimal."""

    @property
    def pupils(self) -> bool:
        """Whether training drew pupils and at times left them out (`episodes.drop_pupils`): avatars then follow a gaze."""
        config = self.description.get("config")
        episodes = config.get("episodes") if isinstance(config, Mapping) else None
        share = episodes.get("drop_pupils") if isinstance(episodes, Mapping) else None
        return isinstance(share, float | int) and share > 0

    @property
    def provenance(self) -> "th_jax.provenance.Provenance":
        """The provenance record of images generated with these weights: `meta.provenance.of(shots)`."""
        from th_jax.provenance import (
            Kind,
            Provenance,  # imported here, because it imports OpenCV
        )

        return Provenance(kind=Kind.GENERATED, weights={str(self.description["name"]): self.digest})


def load_pretrained(name: str, *, perceptual: Path | None = None, only_generate: bool = False) -> MetaModel:
    """Load weights that are bundled with the package.

    Args:
        name: name of the weights, "heads" (128 px) or "heads64" (64 px).
        perceptual: folder of converted perceptual weights (`load_perceptual`).
        only_generate: skip the frozen networks, which are needed only for training.

    Raises:
        PretrainedError: if the name is unknown (the message lists the bundled weights), or the weights are damaged.
        WeightsError: if weights of a perceptual network are missing.
    """
    name = RENAMED_WEIGHTS.get(name, name)
    if name not in bundled_names():
        raise PretrainedError(
            f"unknown pretrained weights {name!r}; bundled weights: {', '.join(bundled_names()) or 'none'}; "
            "th_jax.load_meta opens a file or a run folder"
        )
    return load_meta(_PRETRAINED / f"{name}.safetensors", perceptual=perceptual, only_generate=only_generate)


def load_meta(
    path: str | Path, *, perceptual: Path | None = None, step: int | None = None, only_generate: bool = False
) -> MetaModel:
    """Load weights from a released file, or the averaged weights from a run's folder.

    Args:
        path: a file that `save_meta` wrote; a hub folder, or a model's folder in a hub's local cache
            (`th_jax.storage.hub_folder`); a run's workdir (which may be an address such as gs://...); the name of bundled
            weights, if none of these exists; or https://HOST/FILE#sha256=HEX, which is downloaded into the user's cache if
            it is not there yet. Nothing else is ever downloaded.
        perceptual: folder of converted perceptual weights (`load_perceptual`).
        step: step of a run's checkpoints, by default the newest.
        only_generate: skip the frozen networks, which are needed only for training, not for driving an avatar.

    Raises:
        PretrainedError: if the weights are missing, truncated, altered, or do not match the networks they state.
        DownloadError, HubFolderError: if an address or a hub folder cannot be used.
        WeightsError: if weights of a perceptual network are missing.
    """
    file = _download(str(path)) if is_web_address(str(path)) else hub_weights(Path(path))
    path = path if file is None else file
    if str(path).endswith(".safetensors") or Path(path).is_file():
        if step is not None:
            raise PretrainedError(f"{path} is a single file: only a run folder has steps to choose from")
        meta = _load_file(Path(path))
    elif (name := RENAMED_WEIGHTS.get(str(path), str(path))) in bundled_names() and not Path(path).exists():
        meta = _load_file(_PRETRAINED / f"{name}.safetensors")
    else:
        meta = _load_run(path, step)
    if only_generate:
        return meta
    names = meta.description.get("perceptual")
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) and name in NETWORKS for name in names):
        raise PretrainedError(
            f"{path} must list perceptual networks out of {', '.join(NETWORKS)}, got {str(names)[:80]!r}"
        )
    return dataclasses.replace(meta, perceptual=load_perceptual(names, folder=perceptual))


def load_bundled_with(digest: str) -> MetaModel | None:
    """Load the bundled weights with a digest, whatever their name, without frozen networks; None if there are none."""
    for file in sorted(_PRETRAINED.glob("*.safetensors")):
        with contextlib.suppress(TensorFileError):  # a damaged file has its own message when it is asked for
            if read_described(file, file_format=FORMAT)[2] == digest:
                return load_meta(file, only_generate=True)
    return None


def save_meta(
    path: str | Path,
    *,
    networks: Networks,
    weights: MetaWeights,
    perceptual: Sequence[str],
    description: Mapping[str, Any],
    table_rows: Float[AnyArray, "V N"] | None = None,
    row_ids: Sequence[str] | None = None,
    dtype: Literal["float16", "float32"] = "float16",
) -> str:
    """Write one released file atomically, and return its digest.

    Args:
        path: path of the file, ending in .safetensors.
        networks: networks that the weights belong to, with spectral norm.
        weights: averaged E, P and G, and D.
        perceptual: names of the frozen networks of the content loss.
        description: JSON values: name, steps, data, licence, and other useful entries such as the config.
        table_rows: W without its padding, to continue meta-learning.
        row_ids: SHA-256 of the ID of each row's training video (`VideoEntry.row_key`).
        dtype: type of kernels, biases and rows.

    Raises:
        PretrainedError: if the weights belong to other networks, numbers are not finite in `dtype`, rows have no IDs, or the
            description is not JSON or does not have a name, steps, data and licence.
        OSError: if the file cannot be written; no partial file remains.
    """
    path = Path(path)
    text = released_description(path, networks=networks, perceptual=perceptual, description=description, dtype=dtype)
    _check_shapes("these weights", leaves_by_name(weights), networks)
    rounded = MetaWeights(*(_rounded(state, dtype) for state in weights))
    tensors = {
        name: np.asarray(leaf, np.float32 if _STATS in name else dtype)
        for name, leaf in leaves_by_name(rounded).items()
    }
    if table_rows is not None or row_ids is not None:
        tensors |= _table_tensors(table_rows, row_ids, networks.plan.embedding, dtype)
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise PretrainedError(f"{name} is not finite in {tensor.dtype.name}; nothing was written")
    return write_described(path, tensors, text, file_format=FORMAT)


def released_description(
    path: str | Path,
    *,
    networks: Networks,
    perceptual: Sequence[str],
    description: Mapping[str, Any],
    dtype: str = "float16",
) -> str:
    """Return the description that `save_meta` stores, as JSON; call it before computing what is to be saved.

    Raises:
        PretrainedError: as `save_meta`, for all but the weights themselves.
    """
    if Path(path).suffix != ".safetensors":
        raise PretrainedError(f"the file name of released weights must end in .safetensors, got {path}")
    if missing := [key for key in _REQUIRED if description.get(key) in (None, "")]:
        raise PretrainedError(f"the description of released weights is incomplete: {', '.join(missing)} missing")
    if not _NAME.fullmatch(str(description["name"])):
        raise PretrainedError(f"a name must be up to 200 printable characters, got {str(description['name'])[:100]!a}")
    if taken := sorted(set(description) & set(_OWN_KEYS)):
        raise PretrainedError(f"reserved keys in the description: {', '.join(taken)}; rename them")
    if unknown := [name for name in perceptual if name not in NETWORKS]:
        raise PretrainedError(f"unknown perceptual network {unknown[0]!r}; expected one of {', '.join(NETWORKS)}")
    own = {
        "version": __version__, "networks": dataclasses.asdict(networks), "perceptual": list(perceptual), "dtype": dtype
    }  # fmt: skip
    try:
        return json.dumps(dict(description) | own, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise PretrainedError(f"the description must be JSON values: {error}") from error


def bundled_names() -> list[str]:
    """List the names of the bundled weights."""
    return sorted(path.stem for path in _PRETRAINED.glob("*.safetensors"))


def _download(address: str) -> Path:
    cache = user_cache_folder()
    if cache is None:
        raise PretrainedError(f"there is no cache folder to download {address} to: download it, and give its path")
    return downloaded(parse_address(address), cache / "weights", suffix=".safetensors", most=MAX_FILE_BYTES)


def _load_file(path: Path) -> MetaModel:
    if not path.is_file():
        raise PretrainedError(f"there are no released weights at {path}")
    try:
        tensors, description, digest = read_described(path, file_format=FORMAT)
    except AlteredError as error:
        raise PretrainedError(f"{error}; download it again") from error
    except TensorFileError as error:
        raise PretrainedError(str(error)) from error
    if missing := [key for key in ("name", "perceptual") if key not in description]:
        raise PretrainedError(
            f"{path} is not a file of released weights: {' and '.join(missing)} missing in its description"
        )
    if not _NAME.fullmatch(str(description["name"])):
        raise PretrainedError(
            f"{path} has the invalid name {str(description['name'])[:100]!a}: expected up to 200 printable characters"
        )
    networks = networks_of(path, description)
    rows, ids = tensors.pop(_TABLE_ROWS, None), tensors.pop(_TABLE_IDS, None)
    weights = _weights(f"the weights in {path}", tensors, networks)
    _check_table(path, rows, ids, networks.plan.embedding)
    return MetaModel(
        networks=networks,
        weights=weights,
        perceptual={},
        description=description,
        digest=digest,
        table_rows=None if rows is None else rows.astype(np.float32),
        row_ids=() if ids is None else tuple(bytes(row).hex() for row in ids),
    )


def _load_run(workdir: str | Path, step: int | None) -> MetaModel:
    try:
        with Checkpoints(f"{os.fspath(workdir)}/checkpoints", read_only=True) as checkpoints:
            leaves, record = checkpoints.read(["averaged/", "weights/discriminator/"], step=step)
    except CheckpointError as error:
        bundled = f"; bundled weights: {', '.join(bundled_names()) or 'none'}" if "/" not in str(workdir) else ""
        message = f"{workdir} is neither a file of released weights nor a readable run folder: {error}{bundled}"
        raise PretrainedError(message) from error
    config = record.get("config")
    if not isinstance(config, dict) or not {"networks", "perceptual"} <= set(config):
        raise PretrainedError(f"{workdir} was saved without the config sections networks and perceptual")
    networks = networks_of(workdir, config)
    named = {re.sub("^averaged/", "synthesis/", name.removeprefix("weights/")): leaf for name, leaf in leaves.items()}
    averaged, discriminator = _weights(f"the weights of the checkpoint in {workdir}", named, networks)
    with jax.default_matmul_precision("highest"):  # whatever the caller's precision: each sigma must fit its kernel
        settled = power_iterate(averaged.params, averaged.spectral_stats, iterations=POWER_ITERATIONS)
    weights = MetaWeights(NetworkState(averaged.params, settled), discriminator)
    about = {"name": Path(str(workdir)).name, "steps": record["step"], "config": config, "version": record["version"]}
    return MetaModel(
        networks=networks,
        weights=weights,
        perceptual={},
        description=about | {key: config[key] for key in ("networks", "perceptual")},
        # Digest of the stored leaves, because computed u and v differ between devices.
        digest=tensors_digest({name: np.asarray(leaf) for name, leaf in named.items()}),
    )


def _rounded(state: NetworkState, dtype: str) -> NetworkState:
    with np.errstate(over="ignore"):  # overflows are reported by name later
        params = jax.tree.map(lambda x: jnp.asarray(np.asarray(x).astype(dtype), jnp.float32), state.params)
    with jax.default_matmul_precision("highest"):  # whatever the caller's precision: each sigma must fit its kernel
        return NetworkState(params, power_iterate(params, state.spectral_stats, iterations=POWER_ITERATIONS))


def _table_tensors(rows: Any, ids: Sequence[str] | None, width: int, dtype: str) -> dict[str, np.ndarray]:
    if rows is None or ids is None or len(rows) != len(ids) or rows.shape[1] != width:
        found = "no rows" if rows is None else f"rows of {list(rows.shape)}"
        raise PretrainedError(
            f"a table needs one ID per row and rows of {width} numbers, got {found} and {len(ids or ())} IDs"
        )
    if not all(re.fullmatch(r"[0-9a-f]{64}", row_id) for row_id in ids):
        raise PretrainedError("a row's ID must be the SHA-256 of its video ID, in hexadecimal")
    digests = np.frombuffer(bytes.fromhex("".join(ids)), np.uint8).reshape(len(ids), 32)
    with np.errstate(over="ignore"):
        return {_TABLE_ROWS: np.asarray(rows).astype(dtype), _TABLE_IDS: digests}


def _check_table(path: Path, rows: np.ndarray | None, ids: np.ndarray | None, width: int) -> None:
    """Reject an invalid table: an ID that is not 32 bytes could stand for any number of IDs."""
    if rows is None and ids is None:
        return
    whole = rows is not None and rows.dtype.kind == "f" and rows.ndim == 2 and rows.shape[1] == width
    if not whole or ids is None or ids.dtype != np.uint8 or rows is None or ids.shape != (len(rows), 32):
        raise PretrainedError(
            f"{path} has an invalid video table: expected rows of {width} numbers and IDs of 32 bytes"
        )


def networks_of(path: str | Path, description: Mapping[str, Any]) -> Networks:
    """Build the networks that a file's description names.

    Raises:
        PretrainedError: if this version does not support them.
    """
    try:
        networks = Networks.from_settings(description["networks"])
        networks.shapes_of("generator")  # settings of the right types but invalid values fail here
        return networks
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise PretrainedError(f"{path} needs networks that th_jax {__version__} does not support: {error}") from error


def _weights(what: str, tensors: Mapping[str, np.ndarray], networks: Networks) -> MetaWeights:
    _check_shapes(what, tensors, networks)
    shapes = networks.shapes()
    leaves = [np.asarray(tensors[name], np.float32) for name in leaves_by_name(shapes)]  # JAX would compile each cast
    return jax.tree.unflatten(jax.tree.structure(shapes), jax.device_put(leaves))


def _check_shapes(what: str, found: Mapping[str, Any], networks: Networks) -> None:
    wanted = leaves_by_name(networks.shapes())
    for name in [*wanted, *found]:
        want, have = (list(tree[name].shape) if name in tree else "missing" for tree in (wanted, found))
        if want != have:
            raise PretrainedError(f"{what} do not fit {networks}: {name[:100]!r} must be {want}, but is {have}")

"""The four networks built from one config section: `Networks(**config.networks)` (paper, section 3; docs/paper-map.md).

`th-jax summary` prints their layers, parameters and arithmetic at paper size.
"""

import functools
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array
from jaxtyping import Float, PRNGKeyArray

from th_jax.images import box_downsample, unit_to_network_range, without_color
from th_jax.landmarks.draw import Pupils, draw_landmarks
from th_jax.landmarks.scheme import LINE_WIDTH
from th_jax.models import init as starts
from th_jax.models.architecture import AdainProjection, Discriminator, Embedder, Generator, neutral_adain
from th_jax.models.checks import check_picture, check_vector, construct
from th_jax.models.sizes import Plan, plan
from th_jax.models.spectral import SPECTRAL_STATS, fold_spectral_norm
from th_jax.storage.tensors import leaf_name
from th_jax.types import MetaWeights, NetworkState, Params

SYNTHESIS = ("embedder", "projection", "generator")
"""Parameter groups that are trained as one player; the other player is the discriminator."""

_CHOICES = {
    "pool": ("sum", "mean"),
    "pool_order": ("sum_relu", "relu_sum"),
    "compute_dtype": ("float32", "bfloat16"),
    "pupils": get_args(Pupils),
}


@dataclass(frozen=True)
class Networks:
    """E, P, G and D for one image size. Hashable: equal instances share their compiled programs.

    Attributes:
        image_size: side of the square frames in pixels: 256, 128 or 64, and 32 or 16 for tests.
        base_width: channels of the first level; 64 in the paper, where the embedding has 8 x 64 = 512 numbers.
        pool, pool_order: last step of E and D: "sum" or "mean", and "sum_relu" (the paper) or "relu_sum".
        compute_dtype: "float32" or "bfloat16" for convolutions; parameters, statistics of norms, softmax, pooling and scores
            are always float32.
        projection_spectral_norm: whether P has spectral norm (the paper: yes).
        spectral_norm: False only for inference with `folded` weights.
        embedder_size: side in pixels of the images that E sees; 0 means `image_size`. With a smaller value, blocks of pixels
            are averaged first, so that weights grown from smaller frames keep their embeddings (`th_jax.models.grow`).
        landmark_width: width of the drawn landmark lines in 256ths of the side, but at least one pixel.
        max_width: width of the embedding; 0 for 8 x base_width. With 16 x base_width, the networks are those for half the
            image size at twice the base width, with an outer block at each end, so that their weights can grow
            (`th_jax.models.grow`).
        pupils: drawing of pupils, "soft" or "area" (`th_jax.landmarks.draw`).
        gray: whether generated frames are gray, for an avatar of a person whose shots are.
    """

    image_size: int = 256
    base_width: int = 64
    pool: str = "sum"
    pool_order: str = "sum_relu"
    compute_dtype: str = "float32"
    projection_spectral_norm: bool = True
    spectral_norm: bool = True
    embedder_size: int = 0
    landmark_width: float = LINE_WIDTH
    max_width: int = 0
    pupils: Pupils = "soft"
    gray: bool = False

    def __post_init__(self) -> None:
        """Check that networks can be built from the settings."""
        core = self.plan
        if self.embedder_size:
            plan(image_size=self.embedder_size, base_width=core.encoder[0])
            if self.embedder_size > self.image_size:
                raise ValueError(
                    f"embedder_size must be at most image_size ({self.image_size}), got {self.embedder_size}"
                )
        if not 0 < self.landmark_width <= 256:
            raise ValueError(f"landmark_width must be above 0 and at most 256, got {self.landmark_width}")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> "Networks":
        """Build networks from a config section.

        Raises:
            ValueError: if a key is unknown (the message suggests the nearest known one) or a value is invalid.
        """
        return construct(cls, settings, what="the networks")

    @property
    def plan(self) -> Plan:
        """Channels and attention resolutions of each network."""
        return plan(image_size=self.image_size, base_width=self.base_width, max_width=self.max_width)

    @property
    def embedder_side(self) -> int:
        """Side in pixels of the images that E sees."""
        return self.embedder_size or self.image_size

    @property
    def embedder(self) -> Embedder:
        """E as a Flax module."""
        common = self._common
        if self.embedder_side < self.image_size:  # it has no outer block
            common |= {"image_size": self.embedder_side, "base_width": self.plan.encoder[0], "max_width": 0}
        return Embedder(pool=self.pool, pool_order=self.pool_order, **common, dtype=self._dtype)

    @property
    def projection(self) -> AdainProjection:
        """P as a Flax module; always float32."""
        return AdainProjection(
            self.image_size,
            self.base_width,
            self.max_width,
            spectral_norm=self.spectral_norm and self.projection_spectral_norm,
        )

    @property
    def generator(self) -> Generator:
        """G as a Flax module."""
        return Generator(**self._common, dtype=self._dtype)

    @property
    def discriminator(self) -> Discriminator:
        """D as a Flax module."""
        return Discriminator(pool=self.pool, pool_order=self.pool_order, **self._common, dtype=self._dtype)

    def embed(
        self, embedder: NetworkState, frame: Float[Array, "B H W 3"], landmark_image: Float[Array, "B H W 3"]
    ) -> Float[Array, "B N"]:
        """Compute E(x, y), one embedding per frame; both images in [-1, 1].

        Raises:
            ValueError: if an image has the wrong size or range.
            TypeError: if an image is not floating point.
        """
        check_picture("frame", frame, size=self.image_size)
        check_picture("landmark_image", landmark_image, size=self.image_size)
        seen = (box_downsample(image, size=self.embedder_side) for image in (frame, landmark_image))
        return _apply(self.embedder, embedder, *seen)

    def project(self, projection: NetworkState, embedding: Float[Array, "B N"]) -> Float[Array, "B A"]:
        """Compute ψ̂ = P·ê, the AdaIN parameters of a person.

        Raises:
            ValueError: if the embeddings have the wrong width.
        """
        check_vector("embedding", embedding, width=self.plan.embedding)
        return _apply(self.projection, projection, embedding)

    def generate(
        self, generator: NetworkState, landmark_image: Float[Array, "B H W 3"], adain: Float[Array, "B A"]
    ) -> Float[Array, "B H W 3"]:
        """Compute G(y, ψ'), a frame in [-1, 1].

        Raises:
            ValueError: if the landmark image has the wrong size or range, or the number of AdaIN parameters is wrong.
            TypeError: if the landmark image is not floating point.
        """
        check_picture("landmark_image", landmark_image, size=self.image_size)
        check_vector("adain", adain, width=self.plan.adain_size)
        frames = _apply(self.generator, generator, landmark_image, adain)
        return without_color(frames) if self.gray else frames

    def discriminate(
        self,
        discriminator: NetworkState,
        frame: Float[Array, "B H W 3"],
        landmark_image: Float[Array, "B H W 3"],
        identity: Float[Array, "B N"],
    ) -> tuple[Float[Array, " B"], tuple[Float[Array, "B _ _ _"], ...]]:
        """Compute D(x, y, W_i): one score per frame, and the activations after each residual block.

        Raises:
            ValueError: if an image has the wrong size or range, or the identities have the wrong width.
            TypeError: if an image is not floating point.
        """
        check_picture("frame", frame, size=self.image_size)
        check_picture("landmark_image", landmark_image, size=self.image_size)
        check_vector("identity", identity, width=self.plan.embedding)
        return _apply(self.discriminator, discriminator, frame, landmark_image, identity)

    def landmark_image(self, points: Float[Array, "*batch P 2"]) -> Float[Array, "*batch H W 3"]:
        """Draw the landmark image y of points in [0, 1], at this image size, in the networks' range [-1, 1]."""
        drawn = draw_landmarks(
            points, size=self.image_size, line_width=self.landmark_width, pupils=self.pupils
        )  # fmt: skip
        return unit_to_network_range(drawn)

    def shapes_of(self, network: str) -> NetworkState:
        """Return the shapes and dtypes of one network's weights, such as "generator"; traced once for equal networks."""
        return _shapes_of(self, network)

    def shapes(self) -> MetaWeights:
        """Return the shapes and dtypes of all weights without allocating them."""
        states = {name: self.shapes_of(name) for name in ("embedder", "projection", "generator")}
        synthesis = NetworkState(
            {name: state.params for name, state in states.items()},
            {name: state.spectral_stats for name, state in states.items()},
        )
        return MetaWeights(synthesis, self.shapes_of("discriminator"))

    def init(self, key: PRNGKeyArray) -> MetaWeights:
        """Create fresh weights of all four networks (docs/paper-map.md); the same for the same key.

        Weights are drawn on the host (`th_jax.models.init` explains why), each leaf from the key and its own name, so that
        adding a network changes no other.
        """
        seed = np.asarray(jax.random.key_data(key), np.uint32).ravel().tolist()
        leaves, tree = jax.tree_util.tree_flatten_with_path(self.shapes())
        drawn = [self._draw(seed, *leaf) for leaf in leaves]
        weights: MetaWeights = jax.tree.unflatten(tree, drawn)
        settled = (NetworkState(params, _settle(params, stats)) for params, stats in weights)
        return jax.tree.map(jnp.asarray, MetaWeights(*settled))

    def folded(self, weights: MetaWeights) -> tuple["Networks", MetaWeights]:
        """Return networks without spectral norm and weights divided by their sigmas: the same functions, for inference."""
        plain = replace(self, spectral_norm=False)
        return plain, MetaWeights(*(NetworkState(fold_spectral_norm(state), {}) for state in weights))

    @property
    def _common(self) -> dict[str, Any]:
        names = ("image_size", "base_width", "max_width", "spectral_norm")
        return {name: getattr(self, name) for name in names}

    @property
    def _dtype(self) -> Any:
        return jnp.dtype(self.compute_dtype)

    def _draw(self, seed: list[int], path: tuple[Any, ...], shape: jax.ShapeDtypeStruct) -> np.ndarray:
        names = leaf_name(path).split("/")
        if names[-3:] == ["projection", "dense", "bias"]:
            return np.asarray(neutral_adain(self.plan.adain_widths))
        rng = np.random.Generator(np.random.SFC64([*seed, zlib.crc32("/".join(names).encode())]))
        return starts.draw(names[-1], shape.shape, rng)


def group(state: NetworkState, name: str) -> NetworkState:
    """Return one network of a group: `group(weights.synthesis, "generator")`."""
    return NetworkState(state.params[name], state.spectral_stats.get(name, {}))


def _settle(params: Params, stats: Params) -> Params:
    """Fit u and v to their kernels; one power iteration is exact if all singular values are equal."""
    if set(stats) == {"u", "v"}:
        kernel = params["kernel"]
        matrix = kernel.reshape(-1, kernel.shape[-1])
        v = matrix @ stats["u"]
        v /= np.linalg.norm(v)
        u = v @ matrix
        return {"u": u / np.linalg.norm(u), "v": v}
    return {name: _settle(params[name], below) for name, below in stats.items()}


@functools.lru_cache(maxsize=64)
def _shapes_of(networks: Networks, name: str) -> NetworkState:
    def floats(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((1, *shape), jnp.float32)

    plan_, picture = networks.plan, floats(networks.image_size, networks.image_size, 3)
    seen = floats(networks.embedder_side, networks.embedder_side, 3)
    arguments = {
        "embedder": (seen, seen),
        "projection": (floats(plan_.embedding),),
        "generator": (picture, floats(plan_.adain_size)),
        "discriminator": (picture, picture, floats(plan_.embedding)),
    }
    variables = jax.eval_shape(getattr(networks, name).init, jax.random.key(0), *arguments[name])
    return NetworkState(variables["params"], variables.get(SPECTRAL_STATS, {}))


@functools.partial(jax.jit, static_argnums=0)  # so that all programs of a process share one trace of each network
def _apply(module: nn.Module, state: NetworkState, *arguments: Array) -> Any:
    return module.apply({"params": state.params, SPECTRAL_STATS: state.spectral_stats}, *arguments)

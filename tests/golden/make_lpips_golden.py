"""Makes lpips.npz: `python -m tests.golden.make_lpips_golden` (LPIPS written out in PyTorch on seeded weights and images).

The published form (Zhang et al. 2018, version 0.1 with VGG16) in float64, with few channels and random weights. Inputs are not
stored: the tests make them here too, which needs numpy alone. Needs the extra "oracle".
"""

import numpy as np

from tests.golden.seeded import GOLDEN, seeded_array, seeded_image

FILE = GOLDEN / "lpips.npz"
SEED = 8233
CHANNELS = (4, 6, 8, 10, 12)
CONVOLUTIONS = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
"""Places of each slice's convolutions in the plain sequence of VGG16, by which the authors name them."""
IMAGES = 3, 40, 36, 3


def pyramids() -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """Two pyramids [B, H, W, C] with a position of zeros, and weights of 0 and above; float64."""
    shapes = [(3, 8, 7, 5), (3, 4, 3, 9)]
    a = [seeded_array(f"pyramid/a/{i}", shape, seed=SEED).astype(np.float64) for i, shape in enumerate(shapes)]
    b = [seeded_array(f"pyramid/b/{i}", shape, seed=SEED).astype(np.float64) for i, shape in enumerate(shapes)]
    a[0][1, 2, 3] = 0.0
    weights = [
        np.abs(seeded_array(f"pyramid/w/{i}", s[-1:], seed=SEED)).astype(np.float64) for i, s in enumerate(shapes)
    ]
    return a, b, weights


def state() -> dict[str, np.ndarray]:
    """Tensors under the names of the authors' package, with few channels; float32."""
    tensors: dict[str, np.ndarray] = {}
    incoming = 3
    for block, (places, channels) in enumerate(zip(CONVOLUTIONS, CHANNELS, strict=True)):
        for place in places:
            name = f"net.slice{block + 1}.{place}"
            scale = (2 / (9 * incoming)) ** 0.5
            tensors[f"{name}.weight"] = seeded_array(name, (channels, incoming, 3, 3), seed=SEED, scale=scale)
            tensors[f"{name}.bias"] = seeded_array(f"{name}.bias", (channels,), seed=SEED, scale=0.1)
            incoming = channels
        name = f"lin{block}.model.1.weight"
        tensors[name] = np.abs(seeded_array(name, (1, channels, 1, 1), seed=SEED))
    return tensors


def images() -> tuple[np.ndarray, np.ndarray]:
    """RGB pairs of which each differs more than the one before it; uint8, sides that do not divide by 16."""
    a = 127.5 * (1 + seeded_image("pictures/a", IMAGES, seed=SEED).astype(np.float64))
    b = 127.5 * (1 + seeded_image("pictures/b", IMAGES, seed=SEED).astype(np.float64))
    share = np.array([0.05, 0.3, 1.0])[:, None, None, None]
    return np.rint(a).astype(np.uint8), np.rint((1 - share) * a + share * b).astype(np.uint8)


def main() -> None:
    """Compute and write both arrays."""
    import torch
    from torch.nn import functional

    def distance(features_a: list, features_b: list, weights: list) -> torch.Tensor:
        total = torch.zeros(len(features_a[0]), dtype=torch.float64)
        for x, y, w in zip(features_a, features_b, weights, strict=True):
            x, y = (z / (torch.linalg.vector_norm(z, dim=1, keepdim=True) + 1e-10) for z in (x, y))
            total = total + functional.conv2d((x - y) ** 2, w.reshape(1, -1, 1, 1)).mean((1, 2, 3))
        return total

    def channels_first(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array.astype(np.float64).transpose(0, 3, 1, 2)))

    a, b, weights = pyramids()
    sides = ([channels_first(layer) for layer in side] for side in (a, b))
    arrays = {"pyramid": distance(*sides, [torch.from_numpy(w) for w in weights]).numpy()}

    tensors = {name: torch.from_numpy(tensor.astype(np.float64)) for name, tensor in state().items()}
    shift = torch.tensor([-0.030, -0.088, -0.188], dtype=torch.float64)[None, :, None, None]
    scale = torch.tensor([0.458, 0.448, 0.450], dtype=torch.float64)[None, :, None, None]

    def features(frames: np.ndarray) -> list[torch.Tensor]:
        h = (channels_first(frames) / 127.5 - 1 - shift) / scale
        taken = []
        for block, places in enumerate(CONVOLUTIONS):
            h = functional.max_pool2d(h, 2) if block else h
            for place in places:
                name = f"net.slice{block + 1}.{place}"
                h = torch.relu(functional.conv2d(h, tensors[f"{name}.weight"], tensors[f"{name}.bias"], padding=1))
            taken.append(h)
        return taken

    linear = [tensors[f"lin{block}.model.1.weight"] for block in range(len(CHANNELS))]
    arrays["network"] = distance(*(features(side) for side in images()), linear).numpy()
    for name, array in arrays.items():
        print(name, array)
    np.savez_compressed(FILE, **arrays)


if __name__ == "__main__":
    main()

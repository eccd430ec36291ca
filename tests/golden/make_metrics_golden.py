"""Makes metrics.npz: `python -m tests.golden.make_metrics_golden` (scikit-image, SciPy and PyTorch on seeded inputs).

SSIM and PSNR are scikit-image's, the Fréchet distance is written with SciPy's matrix root, multi-scale SSIM and the kernel
distance are written out in PyTorch. Inputs are not stored: the tests make them here too, which needs numpy alone. Needs the
extra "oracle".
"""

import numpy as np

from tests.golden.seeded import GOLDEN, seeded_array, seeded_image

FILE = GOLDEN / "metrics.npz"
SEED = 8233
RANGES = {"unit": 1.0, "byte": 255.0}
FEATURES = {"many_samples": (60, 80, 16), "few_samples": (12, 20, 32), "one_side_few": (10, 90, 24)}
"""Rows of the two sets and the width of their features."""


def image_pairs(name: str, shape: tuple[int, ...], *, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Images in [0, scale], float64: each pair differs more than the one before it, the last has little contrast."""
    a = 0.5 + 0.5 * seeded_image(f"{name}/a", shape, seed=SEED).astype(np.float64)
    b = 0.5 + 0.5 * seeded_image(f"{name}/b", shape, seed=SEED).astype(np.float64)
    share = np.linspace(0.02, 0.9, shape[0])[:, None, None, None]
    a[-1] = 0.7 + 0.01 * a[-1]
    return a * scale, ((1 - share) * a + share * b) * scale


def feature_pair(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Two sets of features with other means and covariances, float64."""
    rows_a, rows_b, width = FEATURES[name]
    mixing = seeded_array(f"{name}/mixing", (width, width), seed=SEED, scale=width**-0.5).astype(np.float64)
    a = seeded_array(f"{name}/a", (rows_a, width), seed=SEED).astype(np.float64)
    b = seeded_array(f"{name}/b", (rows_b, width), seed=SEED, offset=0.3).astype(np.float64)
    return a, b @ mixing


def main() -> None:
    """Compute and write all arrays."""
    import torch
    from scipy.linalg import sqrtm
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity
    from torch.nn import functional

    torch.set_default_dtype(torch.float64)
    arrays: dict[str, np.ndarray] = {}
    for name, data_range in RANGES.items():
        a, b = image_pairs(name, (5, 28, 36, 3), scale=data_range)
        settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "channel_axis": -1}
        arrays[f"ssim/{name}"] = np.array(
            [structural_similarity(x, y, data_range=data_range, **settings) for x, y in zip(a, b, strict=True)]
        )
        arrays[f"psnr/{name}"] = np.array(
            [peak_signal_noise_ratio(x, y, data_range=data_range) for x, y in zip(a, b, strict=True)]
        )

    def multi_scale(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        offsets = torch.arange(-5.0, 6.0)
        window = torch.exp(-(offsets[:, None] ** 2 + offsets[None, :] ** 2) / (2 * 1.5**2))
        window = (window / window.sum()).expand(x.shape[1], 1, 11, 11)

        def filtered(images: torch.Tensor) -> torch.Tensor:
            return functional.conv2d(images, window, groups=x.shape[1])

        weights = [0.0448, 0.2856, 0.3001, 0.2363, 0.1333]
        result = torch.ones(x.shape[:2])
        for scale, weight in enumerate(weights):
            mx, my = filtered(x), filtered(y)
            cs = (2 * (filtered(x * y) - mx * my) + 0.03**2) / (
                filtered(x**2) - mx**2 + filtered(y**2) - my**2 + 0.03**2
            )
            if scale == len(weights) - 1:
                cs = cs * (2 * mx * my + 0.01**2) / (mx**2 + my**2 + 0.01**2)
            result = result * functional.relu(cs.mean((2, 3))) ** weight
            x, y = functional.avg_pool2d(x, 2), functional.avg_pool2d(y, 2)
        return result.mean(1)

    a, b = image_pairs("ms_ssim", (3, 176, 188, 3), scale=1.0)
    channels_first = (torch.from_numpy(images.transpose(0, 3, 1, 2)) for images in (a, b))
    arrays["ms_ssim"] = multi_scale(*channels_first).numpy()

    for name in FEATURES:
        a, b = feature_pair(name)
        covariance_a, covariance_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
        root = np.trace(sqrtm(covariance_a @ covariance_b)).real
        mean_distance = np.sum((a.mean(0) - b.mean(0)) ** 2)
        arrays[f"frechet/{name}"] = np.asarray(
            mean_distance + np.trace(covariance_a) + np.trace(covariance_b) - 2 * root
        )
        x, y = torch.from_numpy(a), torch.from_numpy(b)
        kernel = [[(p @ q / p.numel() + 1) ** 3 for q in (*x, *y)] for p in (*x, *y)]
        n, m = len(x), len(y)
        within_x = sum(kernel[i][j] for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
        within_y = sum(kernel[n + i][n + j] for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
        across = sum(kernel[i][n + j] for i in range(n) for j in range(m)) / (n * m)
        arrays[f"mmd/{name}"] = (within_x + within_y - 2 * across).numpy()

    for name, array in arrays.items():
        print(name, array)
    np.savez_compressed(FILE, **arrays)


if __name__ == "__main__":
    main()

"""How the leaves of a tree are called: by their paths, such as "weights/synthesis/params/embedder/down_0/conv_1/kernel"."""

from typing import Any

import jax


def leaf_name(path: tuple[Any, ...]) -> str:
    """The name of a leaf by its path, as `jax.tree_util.tree_map_with_path` gives it; "" for a tree that is one leaf."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def leaves_by_name(tree: Any) -> dict[str, Any]:
    """The leaves of a tree, of arrays or of shapes, by their names and in the tree's order."""
    return {leaf_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}

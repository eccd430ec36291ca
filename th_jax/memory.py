"""Tells a lack of memory, on the host or on a device, from other errors of a computation."""

import jax


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory did not suffice; XLA has no exception of its own for that."""
    return isinstance(error, MemoryError) or (
        isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)
    )

"""The commands of `th-jax`, one module each; `main` is the entry point."""

"""Files, tensors, checkpoints and run folders, written atomically and verified by checksums when read."""

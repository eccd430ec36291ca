"""Meta-training: optimisers, the video table, the step. So far the table alone."""

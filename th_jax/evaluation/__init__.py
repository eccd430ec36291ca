"""How good generated frames are: metrics of arrays, and what held-out people say of a run."""

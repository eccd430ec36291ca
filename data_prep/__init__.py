"""Preparation of data and weights, run from a checkout: records, rendered heads, converted networks."""

import os

# TensorFlow only writes files here. It reads these when it is loaded; without them its log comes before any summary.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

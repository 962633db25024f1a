"""What batches are made of: arrays by the names that models and objectives read, and what stands where nothing is."""

import numpy as np

Batch = dict[str, np.ndarray]
NO_TARGET = -100
"""Stands in targets where nothing is to be learned; torch's own value for it."""
PADDING = -1
"""The segment of padding, which nothing looks at."""

"""Data-Juicer: shape, aspect ratio, file size and duplicates by perceptual hash, in one process."""

import os
import sys

from data_juicer.core.data import NestedDataset
from data_juicer.ops import load_ops
from marks import serve

OPERATORS = [
    {"image_shape_filter": {"min_width": 1, "min_height": 1, "num_proc": 1}},
    {"image_aspect_ratio_filter": {"min_ratio": 0.01, "max_ratio": 100, "num_proc": 1}},
    {"image_size_filter": {"min_size": "1kb", "max_size": "100mb", "num_proc": 1}},
    {"image_deduplicator": {"method": "phash", "num_proc": 1}},
]


def run(folder):
    """All four operators on a folder of pictures."""
    names = sorted(os.listdir(folder))
    rows = [{"text": "<__dj__image>", "images": [os.path.join(folder, name)]} for name in names]
    NestedDataset.from_list(rows).process(load_ops(OPERATORS))


serve(run, sys.argv[1:])

"""What the worker processes of this machine have in common: loaded once, in the process that they are forked from.

Loading it takes as long as scoring sixty small photographs. It starts no thread, which would not survive the fork, but
that of Arrow's allocator, which provides for it.
"""

import os
from contextlib import suppress

os.environ["OMP_NUM_THREADS"] = "1"  # before the libraries that read it are loaded

import cv2  # noqa: E402, F401
import pandas  # noqa: E402, F401 - `pyarrow.array` would import it

import curation.scorers.scoring  # noqa: E402
import curation.shards.rows  # noqa: E402, F401
from curation.scorers.language import language  # noqa: E402

with suppress(Exception):  # where the model cannot be loaded, the scorer that asks it says so
    language("a")  # loads the model, which the scorer `text` asks about every caption

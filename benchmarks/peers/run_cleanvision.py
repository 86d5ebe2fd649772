"""CleanVision: all of its issue types, in one process."""

import sys

from cleanvision import Imagelab
from marks import serve


def run(folder):
    """Find every issue in a folder of pictures."""
    Imagelab(data_path=folder).find_issues(n_jobs=1)


serve(run, sys.argv[1:])

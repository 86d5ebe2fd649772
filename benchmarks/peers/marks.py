"""Marks between which the benchmark measures CPU time; every script here processes the folders of its command line."""

import sys


def mark():
    """Announce a mark, and wait until the process tree has been measured."""
    print("\nmark", flush=True)
    sys.stdin.readline()


def serve(run, folders):
    """Call `run(folder)` for each folder, with a mark before the first and after each."""
    mark()
    for folder in folders:
        run(folder)
        mark()

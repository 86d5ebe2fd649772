"""Marks between which the benchmark counts CPU: every script here treats each folder of its command line in turn."""

import sys


def mark():
    """Say where we are, and wait until the whole process tree has been counted."""
    print("\nmark", flush=True)
    sys.stdin.readline()


def serve(run, folders):
    """`run(folder)` for each folder, with a mark before the first and after each."""
    mark()
    for folder in folders:
        run(folder)
        mark()

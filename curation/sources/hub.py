"""Data sets of the Hugging Face hub by their id: `datasets` says which files they have, and these are read in place."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl

from curation.sources.asking import asked, reason
from curation.sources.files import HUB, File, state
from flywheel.core.errors import UsageError

_OPTIONS = ("config", "split", "revision")
_COMMIT = re.compile(r"(?<=^hf://datasets/)([^@]+)@[^/]+/")  # before the path in a repository


def find_hub(address: str) -> Iterator[File]:
    """The files of `datasets:OWNER/NAME?config=…&split=…&revision=…`, all splits by default; a folder works as well.

    Only the parts of the address that are given are asked for. Errors: `UsageError`.
    """
    name, options = parsed_id(address)
    files = _data_files(name, options)
    splits = [options["split"]] if "split" in options else sorted(files)
    if missing := [s for s in splits if s not in files]:
        raise UsageError(f"{address} has no split {missing[0]!r}: choose {', '.join(sorted(files))}")
    for split in splits:
        for place in files[split]:
            yield replace(state(str(place)), name=_below(str(place), split))


def parsed_id(address: str) -> tuple[str, dict[str, str]]:
    """(id or folder, options) of an address. Errors: `UsageError` for an unknown option."""
    name, _, query = address.removeprefix(HUB).partition("?")
    options = dict(parse_qsl(query))
    if unknown := sorted(set(options) - set(_OPTIONS)):
        raise UsageError(f"{address}: {unknown[0]!r} is not an option: give {', '.join(_OPTIONS)}")
    if not name.strip("/"):
        raise UsageError(f"{address} names no data set: give {HUB}OWNER/NAME")
    return name, options


def _data_files(name: str, options: dict[str, str]) -> dict[str, Any]:
    """Split → addresses of its files."""
    try:
        from datasets import load_dataset_builder
    except ImportError as error:
        raise UsageError(f"{HUB}{name} needs the package datasets: install it, or name its files as hf://…") from error
    try:
        builder = asked(lambda: load_dataset_builder(name, options.get("config"), revision=options.get("revision")))
    except (OSError, ValueError, UsageError) as error:
        raise UsageError(f"{HUB}{name} cannot be opened: {reason(error)}") from error
    return dict(builder.config.data_files or {})


def _below(uri: str, split: str) -> str:
    """A name that keeps files of several splits apart, and a split's files together with their side-cars."""
    return f"{split}/{_COMMIT.sub('', uri).rpartition('//')[2].lstrip('/')}"

"""A folder that kills the process which reads a file called `crash`, as a defect in a library does."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from curation.sources import BadInput, Input
from curation.sources.folder import Folder


@dataclass(frozen=True)
class Killing(Folder):
    def read(self, inputs: Sequence[Input]) -> Iterator[bytes | BadInput]:
        for item in inputs:
            if item.uri.endswith("crash.png"):
                os.kill(os.getpid(), signal.SIGKILL)
            yield from super().read([item])

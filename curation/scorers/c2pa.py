"""Read Content Credentials (C2PA): whether a picture's author forbids training, and whether a model drew it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import import_module, metadata
from io import BytesIO
from typing import Any

import pyarrow as pa
from PIL import Image

from curation.scorers import Unavailable
from flywheel.core.schema import column
from flywheel.core.scorer import Item, per_item

_LABEL = b"c2pa"  # every embedded manifest store has this label
_MINING = ("c2pa.training-mining", "cawg.training-mining")
_USES = ("ai_generative_training", "ai_training", "data_mining")  # what training a generator is
_ALLOWED = {"allowed": 1.0, "constrained": 0.5, "notAllowed": 0.0}
_BY_MODEL = ("trainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia")  # IPTC digital source types
_OFFLINE = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}}
_NOTHING: Mapping[str, Any] = {"training": None, "by_model": None, "state": None, "issuer": None}


class C2pa:
    """What the manifests inside a picture say. Of several, as an edited picture has, the strictest counts.

    A manifest that fails its validation counts as well: a picture that was saved again is still its author's. Manifests
    that are kept elsewhere are not fetched. Source: C2PA 2.1, and the training and data mining assertion of CAWG 1.1.
    """

    name = "c2pa"
    fields = (
        column("training", pa.float64(), "generative training, training or data mining: 1 allowed, 0.5 constrained, 0 "
                                         "not allowed; the strictest; null: nothing is said"),
        column("by_model", pa.float64(), "1: a model drew it or a part of it, 0: something else did; null: nothing is "
                                         "said"),
        column("state", pa.string(), "of the newest manifest: Trusted, Valid, Invalid; null without one"),
        column("issuer", pa.string(), "of the certificate that signed the newest manifest; null without one"),
    )  # fmt: skip

    def __init__(self) -> None:
        try:
            self.version = f"1-{metadata.version('c2pa-python')}"
        except metadata.PackageNotFoundError as error:
            raise Unavailable("c2pa has no library: install the extra `c2pa`, which contains it") from error

    def score(self, items: Sequence[Item]) -> list[dict[str, Any] | Exception]:
        """One row per item; `BadImage` where the header cannot be read. A manifest that cannot be read says nothing."""
        return per_item(items, _one)


def _one(item: Item) -> dict[str, Any]:
    kind = Image.MIME.get(item.header.format or "", "")
    if _LABEL not in item.image:
        return dict(_NOTHING)
    library = import_module("c2pa")
    try:
        with library.Reader(kind, BytesIO(item.image), context=_offline()) as reader:
            store, state = json.loads(reader.json()), reader.get_validation_state()
    except library.C2paError:
        return dict(_NOTHING)
    manifests = store["manifests"]
    newest = manifests[store["active_manifest"]]
    return {
        "training": min(_uses(manifests), default=None),
        "by_model": max(_by_model(manifests), default=None),
        "state": state,
        "issuer": newest.get("signature_info", {}).get("issuer"),
    }


@cache
def _offline() -> Any:
    """Settings of a reader that asks no other machine, whatever a picture names."""
    library = import_module("c2pa")
    return library.Context(library.Settings.from_dict(_OFFLINE))


def _uses(manifests: Mapping[str, Any]) -> Iterator[float]:
    """What each statement about training says."""
    for data in _assertions(manifests, _MINING):
        for name, entry in data.get("entries", {}).items():
            if name.partition(".")[2] in _USES:
                yield _ALLOWED.get(entry.get("use"), 0.0)


def _by_model(manifests: Mapping[str, Any]) -> Iterator[float]:
    """Whether each statement of where a picture comes from names a model."""
    for data in _assertions(manifests, "c2pa.actions"):
        for action in data.get("actions", ()):
            if kind := action.get("digitalSourceType"):
                yield float(kind.rpartition("/")[2] in _BY_MODEL)


def _assertions(manifests: Mapping[str, Any], label: str | tuple[str, ...]) -> Iterator[Mapping[str, Any]]:
    """Data of the assertions with this label, whatever their version and number."""
    for manifest in manifests.values():
        yield from (a["data"] for a in manifest.get("assertions", ()) if a["label"].startswith(label))

"""Croissant 1.0 metadata of an export: what is in its files, as JSON-LD that data catalogues and loaders read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from curation.export.exported import Exported
from curation.export.formats import FORMATS, Format, PartFile
from curation.export.rows import FIELDS, UNKNOWN

# The context of the specification, mlcommons.org/croissant/1.0: without it no reader knows the terms.
_CROISSANT = (
    "citeAs column conformsTo data dataType examples extract field fileProperty fileObject fileSet format includes"
    " equivalentProperty isLiveDataset jsonPath key md5 parentField path recordSet references regex repeated replace"
    " samplingRate separator source subField transform"
)
_KINDS = {"string": "sc:Text", "large_string": "sc:Text", "int32": "sc:Integer"}


def metadata(exported: Exported, files: Sequence[PartFile]) -> dict[str, Any]:
    """JSON-LD of a finished export. files: those that hold samples, in the order of the parts."""
    wanted, form = exported.request, FORMATS[exported.request.format]
    known = [text for text in exported.licences if text != UNKNOWN]
    return {
        "@context": _context(),
        "@type": "sc:Dataset",
        "name": f"{wanted.stage}-{wanted.bucket}-{wanted.snapshot}",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "description": f"{exported.rows} pictures with captions ({wanted.captions}) of stage {wanted.stage} at"
        f" {wanted.bucket} pixels, snapshot {wanted.snapshot}, as {wanted.format}.",
        "license": known or [UNKNOWN],
        "url": "README.md",
        "version": "1.0.0",
        "isLiveDataset": False,
        "distribution": [*(_file(f, form.media) for f in files), *_sets(form)],
        "recordSet": [_records(wanted.format)] if wanted.format in _PICTURES else [],
    }


def _context() -> dict[str, Any]:
    terms: dict[str, Any] = {term: f"cr:{term}" for term in _CROISSANT.split()}
    terms |= {"data": {"@id": "cr:data", "@type": "@json"}, "examples": {"@id": "cr:examples", "@type": "@json"}}
    terms |= {"dataType": {"@id": "cr:dataType", "@type": "@vocab"}, "conformsTo": "dct:conformsTo"}
    terms["rai"] = "http://mlcommons.org/croissant/RAI/"
    prefixes = {
        "cr": "http://mlcommons.org/croissant/",
        "dct": "http://purl.org/dc/terms/",
        "sc": "https://schema.org/",
    }
    return {"@language": "en", "@vocab": "https://schema.org/", **prefixes, **terms}


def _file(file: PartFile, media: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": file.path,
        "name": file.path,
        "contentUrl": file.path,
        "contentSize": f"{file.bytes} B",
        "encodingFormat": media,
        "sha256": file.sha256,
    }


# Format → where the picture is in a row; tars and MDS shards are listed with their hashes only.
_PICTURES: dict[str, dict[str, Any]] = {
    "hf": {"extract": {"column": "image"}, "transform": {"jsonPath": "bytes"}},
    "parquet": {"extract": {"column": "image"}},
    "imagefolder": {"extract": {"column": "file_name"}},
}


def _sets(form: Format) -> list[dict[str, Any]]:
    """All its files as one set, of which the records are read."""
    return [
        {
            "@type": "cr:FileSet",
            "@id": "files",
            "name": "files",
            "encodingFormat": form.media,
            "includes": form.glob,
        }
    ]


def _records(form: str) -> dict[str, Any]:
    """The samples of all files."""
    kind = "sc:Text" if form == "imagefolder" else "sc:ImageObject"
    fields = [_field("image", kind, "the picture, or its file name", _PICTURES[form])]
    for column in FIELDS:
        if not pa.types.is_list(column.type):
            about = column.metadata[b"doc"].decode()
            fields.append(_field(column.name, _KINDS[str(column.type)], about, {"extract": {"column": column.name}}))
    return {"@type": "cr:RecordSet", "@id": "samples", "name": "samples", "field": fields}


def _field(name: str, kind: str, about: str, source: dict[str, Any]) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": f"samples/{name}",
        "name": f"samples/{name}",
        "description": about,
        "dataType": kind,
        "source": {"fileSet": {"@id": "files"}, **source},
    }

"""Which types of Arrow columns hold texts, and which hold pictures."""

from __future__ import annotations

import pyarrow as pa

from curation.sources.columns import IMAGE_NAMES, TEXT_NAMES, first
from curation.sources.rights import columns_of

TEXT_FIELDS = frozenset(("caption", "captions", *TEXT_NAMES))  # of a struct


def has_pictures(schema: pa.Schema) -> bool:
    """Whether a column holds pictures by its name or its form; other bytes may be hashes."""
    kinds = {f.name: f.type.value_type if is_list(f.type) else f.type for f in schema}
    pictures = {name for name, kind in kinds.items() if is_image(kind)}
    return first(IMAGE_NAMES, pictures) is not None or any(pa.types.is_struct(kinds[n]) for n in pictures)


def any_picture(schema: pa.Schema) -> bool:
    """Whether a column may hold pictures, or is the one that `Parquet` would read them from."""
    return any(is_image(f.type.value_type if is_list(f.type) else f.type) for f in schema)


def is_image(kind: pa.DataType) -> bool:
    """Bytes, or a struct with `bytes`."""
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and is_image(kind.field("bytes").type)
    return is_image(kind.value_type) if pa.types.is_dictionary(kind) else is_bytes(kind)


def is_bytes(kind: pa.DataType) -> bool:
    """Bytes of any length."""
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


def is_list(kind: pa.DataType) -> bool:
    """A list of any form."""
    views = pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind)
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind) or views


def is_text(kind: pa.DataType) -> bool:
    """Text by its logical type: encoded or viewed, a list of texts, a struct that holds a caption."""
    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    if is_list(kind):
        return is_text(kind.value_type) and not is_list(kind.value_type)
    if pa.types.is_struct(kind):
        return any(f.name.lower() in TEXT_FIELDS and is_text(f.type) for f in kind)
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def is_word(kind: pa.DataType) -> bool:
    """Text or yes and no, one per row."""
    return pa.types.is_boolean(kind) or (is_text(kind) and not is_list(kind) and not pa.types.is_struct(kind))


def states_rights(kind: pa.DataType) -> bool:
    """A struct with a field that states rights."""
    return pa.types.is_struct(kind) and bool(columns_of([f.name for f in kind]))

"""Types of columns."""

from __future__ import annotations

import pyarrow as pa
import pytest

from curation.sources.column_types import any_picture, has_pictures, is_image, is_text, is_word, states_rights

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@pytest.mark.parametrize("form", [pa.list_, pa.large_list, pa.list_view, lambda kind: pa.dictionary(pa.int32(), kind)])
def test_texts_and_pictures_in_any_form(form: object) -> None:
    assert is_text(form(pa.large_string())) and not is_text(form(pa.int64()))  # type: ignore[operator]
    assert is_text(pa.string_view()) and is_text(pa.struct([("Caption", form(pa.string()))]))  # type: ignore[operator]
    assert is_image(IMAGE) and is_image(pa.binary_view()) and not is_image(pa.struct([("path", pa.string())]))


def test_what_may_hold_pictures() -> None:
    hashes, named = pa.schema([("md5", pa.binary())]), pa.schema([("image", pa.large_binary())])
    assert (has_pictures(hashes), any_picture(hashes)) == (False, True)
    assert has_pictures(named) and has_pictures(pa.schema([("photo", IMAGE)]))
    assert not any_picture(pa.schema([("image", pa.string())]))


def test_words_and_rights() -> None:
    assert is_word(pa.bool_()) and is_word(pa.string()) and not is_word(pa.list_(pa.string()))
    assert states_rights(pa.struct([("Licence", pa.string())])) and not states_rights(pa.struct([("x", pa.string())]))

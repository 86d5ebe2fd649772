"""PaddleOCR is imported without what it does not need, and reads all the same."""

from __future__ import annotations

import subprocess
import sys

import pytest

from curation.scorers.ocr_import import without

READ = """
import sys
from PIL import Image, ImageDraw, ImageFont
from curation.scorers.ocr import read_text

picture = Image.new("RGB", (480, 160), "white")
ImageDraw.Draw(picture).text((30, 30), "OPEN", "black", font=ImageFont.load_default(90))
assert read_text(picture).text == "OPEN"
heavy = {"torch", "transformers", "peft", "modelscope", "sklearn", "skimage", "matplotlib"} & set(sys.modules)
assert not heavy, heavy
import matplotlib.pyplot
import sklearn.preprocessing

assert sklearn.preprocessing.StandardScaler().fit_transform([[0.0], [2.0]]).ravel().tolist() == [-1.0, 1.0]
"""


def test_text_is_read_without_what_is_not_needed_and_the_rest_can_be_imported_afterwards():
    out = subprocess.run([sys.executable, "-c", READ], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr


def test_only_what_is_not_imported_yet_is_left_out():
    import json

    with without(("json", "no_such_package")):
        from no_such_package.any.module import Thing

        assert json.loads("1") == 1

        class Derived(Thing):
            pass

        assert Derived(1, option=2).any.thing() is not None
    with pytest.raises(ModuleNotFoundError):
        import no_such_package  # noqa: F401

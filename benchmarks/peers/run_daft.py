"""Daft: width, height, aspect ratio and perceptual hash, in one process."""

import sys

import daft
from daft.functions import decode_image, image_hash, image_height, image_width
from marks import serve


def run(folder):
    """Compute the columns for a folder of pictures."""
    files = daft.from_glob_path(f"{folder}/*.jpg")
    decoded = files.with_column("image", decode_image(files["path"].download()))
    width, height = image_width(decoded["image"]), image_height(decoded["image"])
    columns = decoded.select(width.alias("width"), height.alias("height"), image_hash(decoded["image"]).alias("hash"))
    columns.with_column("aspect", columns["width"] / columns["height"]).collect()


serve(run, sys.argv[1:])

"""The bare engine behind a scorer, on the pictures of a folder: `ocr`, or `clip` with the options of our scorer."""

import json
import sys
from pathlib import Path

import numpy as np
from marks import serve
from PIL import Image


def ocr(turns):
    """PaddleOCR, configured and fed with pictures of the same size as by our scorer."""
    from curation.scorers.ocr import _engine, enlarged

    engine = _engine()

    def run(folder):
        for path in sorted(Path(folder).iterdir()):
            engine.predict(np.ascontiguousarray(np.asarray(enlarged(Image.open(path).convert("RGB")))[:, :, ::-1]))

    return run


def clip(model, pretrained):
    """open_clip on the image and text of each picture, sixteen at a time."""
    from flywheel.core.torchvision_shim import declare_operators

    declare_operators()
    import open_clip
    import torch

    torch.set_num_threads(1)
    network, _, preprocess = open_clip.create_model_and_transforms(model, pretrained=pretrained)
    network.eval()
    tokenize = open_clip.get_tokenizer(model)

    def run(folder):
        paths = sorted(Path(folder).iterdir())
        with torch.inference_mode():
            for start in range(0, len(paths), 16):
                part = paths[start : start + 16]
                network.encode_image(torch.stack([preprocess(Image.open(p).convert("RGB")) for p in part]))
                network.encode_text(tokenize([""] * len(part)))

    return run


name, options = sys.argv[1], json.loads(sys.argv[2])
serve({"ocr": ocr, "clip": clip}[name](**options), sys.argv[3:])

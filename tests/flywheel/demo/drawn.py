"""Drawn cards, and small soft copies of pictures."""

from __future__ import annotations

import io
import random

import cv2
import numpy as np
from PIL import Image

from flywheel.demo.cards import Single, draw_single
from flywheel.demo.meaning import POSITIONS, SHAPES
from flywheel.demo.palette import BACKGROUNDS, INKS


def singles(count, seed=0):
    rng = random.Random(seed)
    for i in range(count):
        card = Single(SHAPES[i % 4], rng.choice(list(INKS)), rng.choice(POSITIONS), rng.choice(list(BACKGROUNDS)))
        yield card, draw_single(card, random.Random(i))


def blurred(image, side=64, sigma=1.0, noise=0.0, seed=0):
    """A small, soft, noisy copy: what a tiny model would make of the card."""
    small = np.asarray(Image.open(io.BytesIO(image)).convert("RGB").resize((side, side), Image.Resampling.BOX))
    soft = cv2.GaussianBlur(small.astype(np.float32), (0, 0), sigma)
    return np.clip(soft + np.random.default_rng(seed).normal(0, noise, soft.shape), 0, 255).astype(np.uint8)

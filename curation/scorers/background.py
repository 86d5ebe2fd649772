"""Estimate the colour of a plain background from the border of a picture."""

from __future__ import annotations

import numpy as np

BORDER = 5  # pixels: width of the ring the background is estimated from
MAX_BORDER_SPREAD = 9.0  # ΔE: a border that varies more is not a plain background
MIN_CONTRAST = 22.0  # ΔE from the background: fainter marks are blur or noise


def to_lab(rgb: np.ndarray) -> np.ndarray:
    """CIE Lab float32 of sRGB uint8 [..., 3]; L in [0, 100]."""
    import cv2

    return cv2.cvtColor(np.ascontiguousarray(rgb, dtype=np.float32) / 255, cv2.COLOR_RGB2Lab)


def background_of(lab: np.ndarray) -> np.ndarray | None:
    """Lab colour [3] of a plain background; None if the border has several colours. lab: [H, W, 3]."""
    h, w = lab.shape[:2]
    ring = np.ones((h, w), bool)
    ring[BORDER : h - BORDER, BORDER : w - BORDER] = False
    border = lab[ring]
    ground = np.median(border, axis=0)
    spread = np.median(np.linalg.norm(border - ground, axis=1))
    return ground if spread <= MAX_BORDER_SPREAD else None

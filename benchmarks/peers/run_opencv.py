"""Bare OpenCV in twenty lines, without any checks: `decode` only, or also nine `statistics`."""

import sys
from pathlib import Path

import cv2
import numpy as np
from marks import serve


def statistics(image):
    """Lightness, contrast, saturation, sharpness, entropy, gray, texture, hash and thumbnail, the simple way."""
    gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    mean, deviation = cv2.meanStdDev(gray)
    saturation = cv2.mean(cv2.cvtColor(image, cv2.COLOR_BGR2HSV))[1]
    sharpness = cv2.meanStdDev(cv2.Laplacian(gray, cv2.CV_16S))[1]
    counts = cv2.calcHist([image], [0, 1, 2], None, [16] * 3, [0, 256] * 3).ravel()
    share = counts[counts > 0] / counts.sum()
    entropy = -(share * np.log2(share)).sum()
    texture = cv2.meanStdDev(cv2.absdiff(gray[1:], gray[:-1]))
    low = cv2.dct(cv2.resize(gray, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32))[:8, :8]
    thumbnail = cv2.resize(image, (8, 8), interpolation=cv2.INTER_AREA)
    spread = cv2.absdiff(image[..., 0], image[..., 2]).max()
    return mean, deviation, saturation, sharpness, entropy, texture, low > np.median(low), thumbnail, spread


def run(folder):
    """Process every picture of a folder."""
    for path in Path(folder).iterdir():
        image = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
        if sys.argv[1] == "statistics":
            statistics(image)


cv2.setNumThreads(1)
serve(run, sys.argv[2:])

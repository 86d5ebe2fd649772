"""Pictures of every kind that the decode must read: format, mode, depth, alpha, profile, orientation, damage.

Each is made from one small scene, so that its true pixels are known where no independent reader exists.
"""

from __future__ import annotations

from benchmarks.odd import colors, damage, modes, png, tiff, turned
from benchmarks.odd.scene import Case

__all__ = ["Case", "cases"]


def cases() -> list[Case]:
    """Every file, in a fixed order."""
    parts = (
        *(png.depths, modes.modes, colors.profiles, png.color_chunks, colors.gray_profiles, colors.cmyk),
        *(turned.orientations, turned.elsewhere, tiff.tiffs, modes.frames, modes.bitmaps, modes.newer),
        *(damage.damaged, damage.odd_metadata),
    )
    return [case for part in parts for case in part()]

"""A folder of pictures that were drawn anywhere: `<prompt_id>.png`, or a folder of them per seed.

`DIR/<prompt_id>.png` and `DIR/0/<prompt_id>.png` both hold seed 0; `DIR/3/` or `DIR/seed-3/` holds seed 3;
`DIR/enhanced-0/` holds pictures of the enhanced prompts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flywheel.core.errors import UsageError
from flywheel.signals.drawing import picture_name
from flywheel.signals.judged_pictures import ENDINGS, find
from flywheel.signals.suite import Prompt

_SEED = re.compile(r"(?:seed-)?(\d{1,9})")
_ENHANCED = re.compile(r"enhanced-(\d{1,9})")


@dataclass(frozen=True)
class Drawn:
    """The folders of pictures in `root`, by seed; those of the enhanced prompts; names of other folders in it."""

    root: Path
    seeds: Mapping[int, Path]
    enhanced: Mapping[int, Path]
    others: tuple[str, ...] = ()

    @classmethod
    def of(cls, root: Path) -> Drawn:
        """Errors: `UsageError` if `root` is not a folder, has no picture, or has two folders of one seed."""
        if not root.is_dir():
            raise UsageError(f"{root} is not a folder: pass a folder of pictures named <prompt_id>.png")
        seeds: dict[int, Path] = {0: root} if _has_pictures(root) else {}
        enhanced: dict[int, Path] = {}
        others = []
        for folder in sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")):
            plain, better = _SEED.fullmatch(folder.name), _ENHANCED.fullmatch(folder.name)
            found, match = (seeds, plain) if plain else (enhanced, better)
            if match is None:
                others.append(folder.name)
            elif int(match[1]) in found:
                raise UsageError(f"{found[int(match[1])]} and {folder} both hold seed {match[1]}: keep one of them")
            else:
                found[int(match[1])] = folder
        if not any(map(_has_pictures, seeds.values())):
            raise UsageError(
                f"{root} has no pictures: name them <prompt_id>.png, in the folder itself or in one folder per seed, "
                f"such as {root / '0'}"
            )
        return cls(root, dict(sorted(seeds.items())), dict(sorted(enhanced.items())), tuple(others))

    def pictures(self, prompt: Prompt) -> dict[int, Path]:
        """{seed: picture} of a prompt, ascending."""
        return {seed: p for seed, folder in self.seeds.items() if (p := find(prompt, folder))}

    def rewritten(self, prompt: Prompt) -> dict[int, Path]:
        """{seed: picture} of its enhanced prompt, ascending."""
        return {seed: p for seed, folder in self.enhanced.items() if (p := find(prompt, folder))}

    def unknown(self, suite: Iterable[Prompt]) -> list[str]:
        """Names of pictures that belong to no prompt of the suite."""
        stems = {picture_name(p.prompt_id).removesuffix(".png") for p in suite}
        folders = [*self.seeds.values(), *self.enhanced.values()]
        return sorted({p.name for f in folders for p in f.iterdir() if p.suffix in ENDINGS and p.stem not in stems})


def seed_ranges(seeds: Sequence[int]) -> str:
    """`1–3, 5` of 1, 2, 3 and 5."""
    parts: list[list[int]] = []
    for seed in sorted(set(seeds)):
        if parts and parts[-1][-1] == seed - 1:
            parts[-1].append(seed)
        else:
            parts.append([seed])
    return ", ".join(str(p[0]) if len(p) == 1 else f"{p[0]}–{p[-1]}" for p in parts)


def _has_pictures(folder: Path) -> bool:
    return any(p.suffix in ENDINGS for p in folder.iterdir() if p.is_file())

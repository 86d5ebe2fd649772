"""Sound rows pass the stage where they enter, and the first filter of each quality column at any resolution."""

from __future__ import annotations

from pathlib import Path

from curation.decide.sound import quality_filters, sound_rows
from curation.policy.reader import load_policy
from curation.sources.ingest import ingest
from flywheel.core.workspace import Workspace
from tests.curation.corpus import encoded, texture, write_folder
from tests.curation.one_stage import policy, scored

RULES = """
[S1.filters.resolution]
score = "header.short_edge"
min = 100

[S1.filters.caption]
score = "text.token_length"
min = 1

[S2]
resolutions = [64, 512]
enters = []

[S2.filters.compression]
score = "header.jpeg_quality"
min = 70
bucket = 512

[S3]
resolutions = [64, 512]
enters = []

[S3.filters.compression]
score = "header.jpeg_quality"
min = 95
"""


def test_defects_of_quality_are_not_sound_at_any_resolution(tmp_path: Path):
    files = {
        "sound.png": encoded(texture(1, 200, 200)),
        "fine.jpg": encoded(texture(2, 200, 200), "JPEG", quality=80),
        "pressed.jpg": encoded(texture(3, 200, 200), "JPEG", quality=20),
        "small.png": encoded(texture(4, 60, 60)),
        "mute.png": encoded(texture(5, 200, 200)),
        "twin.png": encoded(texture(1, 200, 200)),
    }
    captions = {n: f"picture {n}" for n in files if n != "mute.png"}
    workspace, rules = Workspace(tmp_path / "w"), policy(tmp_path, RULES)
    ingest(workspace, write_folder(tmp_path / "source", files, captions))
    rows = sound_rows(scored(workspace, rules), rules).to_pylist()
    assert len(rows) == 2 and {r["task"] for r in rows} == {"t2i"}  # equal pictures are one sample


def test_later_filters_of_a_column_are_stricter_and_not_asked():
    found = {f.score: f.min for f in quality_filters(load_policy("qwen-image-2"))}
    assert found["pixels.sharpness"] == 80.0 and found["header.jpeg_quality"] == 70

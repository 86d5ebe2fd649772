"""The smallest world in which a round has every step: a source that grows, its suite, an enhancer, and a preset.

After round 1, each round collects and reviews data, trains two arms, reinforces, trains the enhancer, distils, and
evaluates four arms, because a person sends cases to every track.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from PIL import Image, ImageOps

from benchmarks.tiny_enhancer import write_tiny_enhancer
from flywheel.cases.answers import answer
from flywheel.cases.events import load_cases
from flywheel.core.workspace import Workspace
from flywheel.demo.suite import write_suite
from flywheel.demo.world import write_world
from flywheel.signals.feedback import Feedback, record

# Of the quick demo: every planted defect, and a few of each kind of sound picture.
PICTURES = {"card": 12, "word": 2, "photo": 2, "keep": 3, "recolour": 2}
PROMPTS = ("single-01", "count-01", "word-01", "mascot-01")
TRACKS = {"count": "rl", "typography": "prompt_enhancement", "identity": "pretraining", "editing": "pretraining"}
NEW = 6  # pictures that arrive for a round
PRESET = """# Rounds with every step, as small as they can be.
policy = "demo"

[training]
recipe = {{ base = "tiny", batch = {{ 64 = 4 }}, resolution = {{ 64 = 64 }}, checkpoint_every = 1, validate_every = 2 }}
base_steps = 3
round_steps = 2

[evaluation]
suite = {suite}
side = 64
steps = 2
cfg = 2.0
pictures = 1

[attribution]
seeds = 1

[plan]
remedy_share = 0.5
max_targets = 2
min_cases = 1
samples = 8

[review]
auto_approve = true

[rewards]
updates = 2
prompts = 8

[rewards.recipe]
base = "rl-tiny"
prompts = 1
group = 2
sampling_steps = 3
window = [0, 1]
lora_rank = 2
held_out = 1
checkpoint_every = 1
inner_steps = 1

[enhancer]
backend = {enhancer}
examples = 4
sft_steps = 1
grpo_steps = 1
batch = 2
lora = 0

[distil]
recipe = {{ base = "dmd-tiny", side = 64, batch = 2, fake_updates = 1, sigmas = [1.0, 0.5], checkpoint_every = 1 }}
updates = 2
prompts = 4
"""


class SmallWorld:
    """A folder with `source`, `suite`, `enhancer` and `preset.toml`; `round` is the round that its data is for."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.source, self.preset = folder, folder / "source", folder / "preset.toml"
        self.round = 1
        every = write_world(folder / "every", seed=0, size="quick")
        listed = json.loads(every.planted.read_text())["defects"]
        rows = [json.loads(line) for line in every.captions.read_text().splitlines()]
        names = {d["file"] for d in listed}
        for kind, count in PICTURES.items():
            names |= {f"{kind}-{n:04d}.png" for n in range(count)}
        names |= {r for row in rows if row["file"] in names for r in row.get("references", ())}
        self.source.mkdir(parents=True)
        for name in sorted(names):
            shutil.copy(every.folder / name, self.source)
        self.cards = sorted(every.folder.glob("card-*.png"))
        self._say([row for row in rows if row["file"] in names])
        suite = write_suite(folder / "suite", size="quick")
        wanted = [line for line in suite.read_text().splitlines() if json.loads(line)["prompt_id"] in PROMPTS]
        suite.write_text("\n".join(wanted) + "\n")
        enhancer = write_tiny_enhancer(folder / "enhancer", [r["caption"] for r in rows], brief=True)
        self.preset.write_text(PRESET.format(suite=json.dumps(str(suite)), enhancer=json.dumps(str(enhancer))))

    def _say(self, rows: list[dict[str, object]]) -> None:
        with open(self.source / "captions.jsonl", "a") as f:
            f.writelines(json.dumps(row) + "\n" for row in rows)

    def grow(self, workspace: Workspace) -> None:
        """Let images arrive for the next round, a user complain, and a person send the open cases to the tracks.

        The complaint becomes a case that the round experiments on. Equal calls write equal files.
        """
        self.round += 1
        rows: list[dict[str, object]] = []
        for n in range(NEW):
            name = f"new-{self.round:03d}-{n:02d}.png"
            border = 20 + self.round, 20 + n, 20, 20
            card = Image.open(self.cards[n % len(self.cards)]).convert("RGB")
            ImageOps.expand(card, border, "white").save(self.source / name)
            os.utime(self.source / name, (1e9, 1e9))
            rows.append({"file": name, "caption": f"a small shape, number {self.round} {n}"})
        self._say(rows)
        event = {"event_id": f"round-{self.round}", "prompt": f'a card that says "NO {self.round}"', "thumbs": "down"}
        record(workspace, [Feedback(**event, reason="the text is wrong")], key=f"complaint/{self.round}")
        for case in sorted(load_cases(workspace).values(), key=lambda c: c.case_id):
            track = TRACKS.get(case.capability, "human")
            if case.is_open and case.track != track:
                answer(workspace, case.case_id, track=track, by="Ada", why="a benchmark")

    def reset(self) -> None:
        """Restore the source as it was before anything arrived."""
        for path in self.source.glob("new-*.png"):
            path.unlink()
        captions = self.source / "captions.jsonl"
        lines = [line for line in captions.read_text().splitlines() if not json.loads(line)["file"].startswith("new-")]
        captions.write_text("\n".join(lines) + "\n")
        self.round = 1

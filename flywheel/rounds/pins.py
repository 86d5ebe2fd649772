"""The inputs that a round pins, so that they can be identified exactly later."""

from __future__ import annotations

from dataclasses import asdict
from functools import cache
from importlib import metadata
from pathlib import Path

from flywheel.core.files import digest, file_digest, read_json
from flywheel.core.records import Pins
from flywheel.core.workspace import Workspace
from flywheel.generators import describe, open_generator
from flywheel.presets import Preset

_PACKAGES = ("flywheel", "curation", "training")


@cache
def code_version() -> str:
    """Released version, and a digest of all source and TOML files of the packages that take part in a round."""
    root = Path(__file__).resolve().parents[2]
    files = [p for name in _PACKAGES for p in sorted((root / name).rglob("*")) if p.suffix in (".py", ".toml")]
    content = digest([(str(p.relative_to(root)), file_digest(p)) for p in files])
    return f"{metadata.version('image-flywheel')}+{content[:12]}"


def _weights(folder: Path) -> str:
    """SHA-256 of a checkpoint's weights, or the fingerprint of another generator."""
    description = describe(folder)
    if description["kind"] == "checkpoint":
        return file_digest(folder / "ema.safetensors")
    return open_generator(description).fingerprint


def pins(workspace: Workspace, snapshot: str, incumbent: str | None, preset: Preset, seed: int) -> Pins:
    """The inputs of a round, each with its digest."""
    record = read_json(workspace.snapshot(snapshot))
    suites = tuple(
        {"path": str(p.relative_to(workspace.root)), "sha256": file_digest(p), "prompts": p.read_bytes().count(b"\n")}
        for p in sorted(workspace.suite.parent.glob("*.jsonl"))
    )
    return Pins(
        snapshot=snapshot,
        policy={"name": record["policy"], "sha256": record["policy_sha256"]},
        incumbent=incumbent,
        checkpoint=_weights(workspace.path(incumbent)) if incumbent else None,
        code=code_version(),
        preset={"name": preset.name, "sha256": digest(asdict(preset))},
        suites=suites,
        seed=seed,
    )

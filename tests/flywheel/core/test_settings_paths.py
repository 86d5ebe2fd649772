"""Paths in a preset or policy are those of its own folder, wherever a command is started and wherever it is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from curation.policy.reader import load_policy
from flywheel.core.config import read_toml
from flywheel.core.errors import UsageError
from flywheel.presets import PATHS, load_preset

TEXT = """
policy = "rules/mine.toml"
[evaluation]
suite = 'suites/own.jsonl'   # beside it
[training]
start = "models/first"
recipe = { base = "tiny", autoencoder = "models/vae", condition = "qwen3-vl:models/qwen" }
[enhancer]
backend = "Qwen/Qwen3-0.6B"
[distil.recipe]
base = "dmd-tiny"
teachers = ["models/first", "org/other"]
"""


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """The folder of a preset, with an accent, a quote and a space in its name."""
    folder = tmp_path / 'l\'été "là"'
    for name in ("models/first", "models/vae", "models/qwen"):
        (folder / name).mkdir(parents=True)
    (folder / "mine.toml").write_text(TEXT, "utf-8")
    return folder


def test_they_are_found_from_any_folder(house: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []
    for folder, name in (
        (house, "mine.toml"),
        (tmp_path, f"{house.name}/mine.toml"),
        (Path("/"), str(house / "mine.toml")),
    ):
        monkeypatch.chdir(folder)
        loaded.append(load_preset(name))
    (preset, *others) = loaded
    assert all(p.policy == preset.policy and p.training == preset.training for p in others)
    assert preset.policy == str(house / "rules/mine.toml") and preset.evaluation.suite == str(
        house / "suites/own.jsonl"
    )
    recipe = preset.training.recipe
    assert (preset.training.start, recipe["autoencoder"]) == (str(house / "models/first"), str(house / "models/vae"))
    assert recipe["condition"] == f"qwen3-vl:{house / 'models/qwen'}"
    assert preset.enhancer.backend == "Qwen/Qwen3-0.6B"  # nothing of that name is here: a tag of the hub
    assert preset.distil.recipe["teachers"] == [str(house / "models/first"), "org/other"]


def test_a_copy_that_is_kept_elsewhere_means_the_same(house: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.toml"
    copy.write_text(PATHS.text(TEXT, read_toml(house / "mine.toml"), house), "utf-8")
    kept, own = load_preset(str(copy)), load_preset(str(house / "mine.toml"))
    assert "# beside it" in copy.read_text("utf-8")
    assert (kept.policy, kept.evaluation, kept.training, kept.distil) == (
        own.policy,
        own.evaluation,
        own.training,
        own.distil,
    )


def test_a_path_that_cannot_be_rewritten_is_one_sentence(tmp_path: Path) -> None:
    text = '[evaluation]\nsuite = """\nown.jsonl"""\n'
    with pytest.raises(UsageError, match=r"evaluation\.suite names a file: write its path on one line"):
        PATHS.text(text, {"evaluation": {"suite": "own.jsonl"}}, tmp_path)


def test_those_of_a_policy_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "words.json").write_text("{}")
    (tmp_path / "rules" / "base.toml").write_text('base = "demo"\n[scorers.text]\ntokenizer = "words.json"\n')
    (tmp_path / "mine.toml").write_text('base = "rules/base.toml"\n[scorers.clip]\nmodel = "ViT-B-32"\n')
    monkeypatch.chdir("/")
    policy = load_policy(str(tmp_path / "mine.toml"))
    assert policy.scorers["text"]["tokenizer"] == str(tmp_path / "rules" / "words.json")
    assert policy.scorers["clip"]["model"] == "ViT-B-32"

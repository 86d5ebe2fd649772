"""A data phase that a command trains: generators that are not ours, repaired over two rounds; killed and resumed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flywheel.core.errors import UsageError
from flywheel.core.workspace import Workspace
from flywheel.generators import describe
from flywheel.presets import Trainer
from flywheel.rounds import external
from flywheel.rounds.promotion import incumbent
from tests.flywheel.rounds import color_world
from tests.own_package import install

FINETUNE = Path(__file__).resolve().parents[3] / "docs" / "examples" / "finetune.py"
PAINTER = {"kind": "painter", "colors": ["red"]}


def painter(script: Path, **changes: object) -> Trainer:
    command = f"{sys.executable} '{script}' {{data}} {{incumbent}} {{output}}"
    return Trainer(**{"command": command, "data": "images", **changes})


def test_a_generator_of_ones_own_is_repaired_over_two_rounds_by_a_script(tmp_path: Path, monkeypatch):
    """The example of the documentation: green and blue are missing; each round's remedies are mostly of one of them."""
    script = install(tmp_path, monkeypatch)
    made = color_world.workspace(tmp_path / "w")
    settings = color_world.preset(PAINTER, trainer=painter(script))
    first = color_world.go(made, settings, 1)
    assert first.failure_rate == {"shade": 1.0, "tint": 1.0, "tone": 0.0}
    assert color_world.tracks(made) == {"tint": "pretraining", "shade": "pretraining"}
    second = color_world.go(made, settings, 2)
    assert second.verdict == "PROMOTE" and len(second.targets) == 1, second.reason
    assert second.control_failure_rate == first.failure_rate  # without the remedies nothing is learned
    third = color_world.go(made, settings, 3)
    assert third.verdict == "PROMOTE" and set(third.failure_rate.values()) == {0.0}, third.reason
    assert color_world.tracks(made) == {} and incumbent(made).round == 3
    assert describe(made.path(incumbent(made).checkpoint))["colors"] == ["blue", "green", "red"]
    log = (made.round(2).checkpoint("candidate") / "train.log").read_text()
    assert log.startswith("learned") and not (made.round(2).checkpoint("candidate") / ".data").exists()
    planned = color_world.remedies(made, 2)
    assert planned["pretraining data"]["updates"] and not planned["None distil"]["updates"]


def test_a_pipeline_is_repaired_over_two_rounds_by_a_training_script(red_pipeline: Path, tmp_path: Path, monkeypatch):
    install(tmp_path, monkeypatch)
    made = color_world.workspace(tmp_path / "w")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    started = tmp_path / "finetune.py"  # as it is, beside whichever torchvision is here
    started.write_text(
        "import runpy\nfrom flywheel.core.torchvision_shim import declare_operators\ndeclare_operators()\n"
        f"runpy.run_path({str(FINETUNE)!r}, run_name='__main__')\n"
    )
    command = (
        f"{sys.executable} '{started}' --data {{data}} --model {{incumbent}} --output {{output}} --steps {{steps}} "
        "--seed {seed} --learning-rate 1e-2"
    )
    table = {"kind": "diffusers", "model": str(red_pipeline)}
    trainer = Trainer(command=command, data="images", control=False)
    settings = color_world.preset(table, trainer=trainer)
    training = color_world.replace(settings.training, round_steps=300)
    mix = color_world.replace(settings.plan, remedy_share=0.35)  # so small a model forgets what it is not shown
    settings = color_world.replace(settings, training=training, plan=mix)
    first = color_world.go(made, settings, 1)
    assert first.failure_rate == {"shade": 1.0, "tint": 1.0, "tone": 0.0}
    results = [color_world.go(made, settings, n) for n in (2, 3)]
    assert results[0].verdict == "PROMOTE" and results[0].failure_rate[results[0].targets[0]] < 0.5, results[0].reason
    last = describe(made.path(incumbent(made).checkpoint))
    assert last["kind"] == "diffusers" and incumbent(made).round > 1
    assert sum(results[1].failure_rate.values()) < sum(first.failure_rate.values()) / 2
    assert results[0].failure_rate["tone"] <= 0.5  # most of what it could do is kept


def test_a_killed_command_is_started_again_with_the_same_folders(tmp_path: Path, monkeypatch):
    script = install(tmp_path, monkeypatch)
    (tmp_path / "slow.py").write_text(
        "import runpy, sys, time, pathlib\n"
        "state = pathlib.Path(sys.argv[3]) / 'state'\n"
        "if not state.exists():\n"
        "    state.write_text('half')\n"
        "    time.sleep(600)\n"
        f"runpy.run_path({str(script)!r}, run_name='__main__')\n"
    )
    made = color_world.workspace(tmp_path / "w")
    trainer = painter(tmp_path / "slow.py", control=False)
    color_world.go(made, color_world.preset(PAINTER, trainer=trainer), 1)
    code = (
        "from flywheel.presets import Trainer\n"
        "from flywheel.core.workspace import Workspace\n"
        "from tests.flywheel.rounds import color_world\n"
        "from curation.scorers import SCORERS\n"
        "SCORERS['mean_color'] = 'my_plugins:MeanColor'\n"
        f"trainer = Trainer(command={trainer.command!r}, data='images', control=False)\n"
        f"color_world.go(Workspace({str(made.root)!r}), color_world.preset({PAINTER!r}, trainer=trainer), 2)\n"
    )
    root = str(Path(__file__).resolve().parents[3])
    path = os.pathsep.join([root, str(tmp_path)])
    killed = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path})
    state = made.round(2).checkpoint("candidate") / "work" / "state"
    for _ in range(2400):
        if state.exists():
            break
        assert killed.poll() is None
        time.sleep(0.05)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not (made.round(2).checkpoint("candidate") / "final").exists()
    done = color_world.go(made, color_world.preset(PAINTER, trainer=trainer), 2)
    assert done.verdict == "PROMOTE" and (made.path(done.checkpoint) / "state").read_text() == "half"


def test_what_a_command_does_wrong_is_said(tmp_path: Path, monkeypatch):
    script = install(tmp_path, monkeypatch)
    made = color_world.workspace(tmp_path / "w")
    color_world.go(made, color_world.preset(PAINTER, trainer=painter(script)), 1)
    for command, said in (
        ("python -c 'print(5); raise SystemExit(7)' {output}", r"ended with status 7 \(5\): see .*train.log"),
        ("python -c 'pass' {output}", "left no generator"),
        ("no-such-command {output}", "cannot be started"),
    ):
        trainer = Trainer(command=command.replace("python", sys.executable), data="images")
        made.round(2).plan.unlink(missing_ok=True)
        with pytest.raises(UsageError, match=said):
            color_world.go(made, color_world.preset(PAINTER, trainer=trainer), 2)
    for wrong, said in (
        ("train {ouput}", "{ouput} is unknown"),
        ("train", "has no {output}"),
        ("python 'open {output}", "close its quotes"),
    ):
        with pytest.raises(UsageError, match=said):
            Trainer(command=wrong)


def test_lora_weights_alone_go_on_top_of_the_incumbent(red_pipeline: Path, tmp_path: Path):
    from tests.flywheel.plans import round_plan

    made = Workspace(tmp_path / "w")
    start = made.round(1).checkpoint("candidate") / "given"
    shutil.copytree(red_pipeline, start)
    plan = color_world.replace(round_plan(2), incumbent=made.relative(start))
    work, final = (made.round(2).checkpoint("candidate") / name for name in ("work", "final"))
    work.mkdir(parents=True)
    (work / "pytorch_lora_weights.safetensors").write_bytes(b"-")
    context = type("Run", (), {"workspace": made})()
    external._left(context, plan, work, final)
    work.rename(final)
    table = json.loads((final / "generator.json").read_text())
    assert table == {
        "kind": "diffusers",
        "model": "../../round-0001-candidate/given",
        "lora": "pytorch_lora_weights.safetensors",
    }
    assert Path(describe(final)["model"]).resolve() == start.resolve()

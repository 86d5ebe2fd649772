"""What no run could use is one sentence with line and key, before anything is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from flywheel.core.errors import UsageError
from flywheel.rounds.settings import require_usable

ENDPOINT = 'kind = "endpoint"\nurl = "http://localhost:1/v1"\nmodel = "m"\n'
PIPELINE = 'kind = "diffusers"\nmodel = "owner/name"\n'
JUDGE = 'url = "http://localhost:1/v1"\nmodel = "m"\n'
REMOTE = 'backend = "http://localhost:1/v1"\nmodel = "m"\n'


@pytest.mark.parametrize(
    ("table", "lines", "last", "told"),
    [
        ("generator", ENDPOINT, "timeout = -1", "timeout is -1: give a number above 0"),
        ("generator", ENDPOINT, "attempts = 0", "attempts is 0: give a whole number from 1 to 1000"),
        ("generator", ENDPOINT, 'concurrency = "4"', "concurrency is '4': give a whole number"),
        ("generator", ENDPOINT, "per_minute = 1e-300", "per_minute is 1e-300: give 0.1 or more, or 0"),
        ("generator", ENDPOINT, "price = -1", "price is -1: give a number of 0 or more"),
        ("generator", ENDPOINT, "names = 5", "names is 5: give a table"),
        ("generator", ENDPOINT, "tiemout = 5", "unexpected keyword argument 'tiemout'"),
        ("generator", PIPELINE, "batch = 0", "batch is 0: give a whole number from 1 to 1000"),
        ("generator", PIPELINE, "lora_scale = 1e9", "lora_scale is 1000000000.0: give a number from -100 to 100"),
        ("generator", PIPELINE, "device = 5", "device is 5: give a text"),
        ("generator", PIPELINE, 'device = "gpu"', "device is 'gpu': give cpu, cuda, cuda:1 and so on, mps or xpu"),
        ("generator", PIPELINE, 'device = "cuda:"', "device is 'cuda:': give cpu"),
        ("generator", PIPELINE, 'dtype = "nothing"', "dtype is 'nothing': give float32, float16 or bfloat16"),
        ("generator", 'kind = "recorded"\n', 'folder = "/no/where"', "folder is /no/where, which is not there"),
        ("generator", 'kind = "recorded"\n', "folder = 5", "folder is 5: give a path"),
        ("evaluation.judge", JUDGE, "longest_wait = -1", "longest_wait is -1: give a number from 0 to 3600"),
        ("evaluation.judge", JUDGE, "workers = 3", "unexpected keyword argument 'workers'"),
        ("evaluation.judge", "", 'kind = "nobody"', "no package declares a judge of kind 'nobody'"),
        ("evaluation.scorers.clop", "", "x = 1", "unknown scorer 'clop'"),
        ("enhancer", REMOTE, 'key_variable = "NO_SUCH_KEY"', "set the environment variable NO_SUCH_KEY"),
        ("training", "", 'start = "/no/where"', "start names /no/where, which is not there"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_line(tmp_path: Path, table: str, lines: str, last: str, told: str):
    preset = tmp_path / "mine.toml"
    preset.write_text(f"[{table}]\n{lines}{last}\n")
    with pytest.raises(UsageError) as error:
        require_usable(str(preset))
    line = 1 if "environment" in told or "clop" in told else 2 + lines.count("\n")
    assert str(error.value).startswith(f"preset {preset}, line {line}: {table}: ") and told in str(error.value)


def test_what_can_be_used_is_opened_without_asking_anybody(tmp_path: Path):
    (tmp_path / "mine.toml").write_text(f"[generator]\n{ENDPOINT}[evaluation.judge]\n{JUDGE}[enhancer]\n{REMOTE}")
    require_usable(str(tmp_path / "mine.toml"))
    require_usable("quick")


def test_pictures_drawn_elsewhere_need_no_suite_of_their_own(tmp_path: Path):
    (tmp_path / "mine.toml").write_text('[generator]\nkind = "recorded"\nfolder = "drawn"\n')
    (tmp_path / "drawn").mkdir()
    require_usable(str(tmp_path / "mine.toml"))

"""What is wrong with the installation is told from what is wrong with a row, and said in one sentence."""

import json
import re
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import cv2
import pytest

from flywheel.cli import main as cli
from flywheel.core import environment
from flywheel.core.cluster import run_all
from flywheel.core.environment import environment_error
from flywheel.core.errors import UsageError
from flywheel.core.image import BadImage
from flywheel.core.scorer import Item, per_item

ROOT = Path(__file__).resolve().parents[3]


def caught(code: str, **names: object) -> Exception:
    with pytest.raises(Exception) as info:
        exec(code, {"__name__": "somewhere.inside", **names})
    return info.value


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import diffusers_", "the package diffusers_ does not work here (No module named 'diffusers_')"),
        ("from PIL import nothing", "the package PIL does not work here"),
        ("raise ImportError('libGL.so.1: cannot open')", "the package somewhere does not work here (libGL.so.1"),
        ("import ctypes; ctypes.CDLL('libnone.so.1')", "the package libnone.so.1 does not work here"),
        ("cv2.no_such_module", "the package cv2 does not work here (module 'cv2' has no attribute"),
        ("from flywheel import nothing", None),
        ("import json; json.nothing", None),
        ("open('/no/such/file')", None),
        ("{}['key']", None),
    ],
)
def test_what_is_the_environments(code: str, said: str | None):
    found = environment_error(caught(code, cv2=cv2))
    assert (found is None) if said is None else str(found).startswith(said) and "flywheel doctor" in str(found)


@pytest.mark.parametrize(("module", "extra"), environment.EXTRAS.items())
def test_a_missing_extra_is_named(
    module: str, extra: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def verb() -> None:
        try:
            raise ModuleNotFoundError(f"No module named '{module}'", name=module)
        except ImportError as error:
            raise ImportError("install it") from error  # as fsspec says it

    monkeypatch.setattr(cli, "app", verb)
    monkeypatch.setattr("sys.argv", ["flywheel"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    sentence = f"this needs the extra `{extra}`, which installs {module}: pip install 'image-flywheel[{extra}]'"
    assert ended.value.code == 2 and capsys.readouterr().err.strip() == f"error: {sentence}"


def test_a_row_pays_for_its_own_faults_only():
    def bad(item: Item) -> dict:
        raise BadImage("truncated")

    def broken(item: Item) -> dict:
        raise ImportError("libGL.so.1", name="cv2")

    assert [str(e) for e in per_item([Item(b"")], bad)] == ["truncated"]
    with pytest.raises(UsageError, match="cv2"):
        per_item([Item(b"")], broken)


def load_nothing() -> None:
    import no_such_package  # noqa: F401


def test_a_worker_says_it_too(ray_session: None):
    with pytest.raises(UsageError, match=r"^the package no_such_package does not work here"):
        list(run_all(load_nothing, [()]))


def test_every_extra_is_one_of_setup_cfg():
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    assert set(environment.EXTRAS.values()) <= set(config["options.extras_require"])


def test_the_hashed_versions_are_those_of_the_constraints():
    def name(text: str) -> str:
        return re.sub(r"[-_.]+", "-", text.lower())

    pins = dict(line.strip().split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if line)
    pins = {name(k): v for k, v in pins.items()}
    hashed: dict[str, str] = {}
    for path in (ROOT / "requirements").glob("*.txt"):
        for package, version in re.findall(r"^([\w.-]+)(?:\[[\w,-]+\])?==([^ ]+)", path.read_text(), re.M):
            assert package not in hashed, f"{package} is in two files"
            hashed[package] = version
    assert {k: v for k, v in hashed.items() if pins.get(name(k), v) != v} == {}
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    wanted = [config["options"]["install_requires"], *config["options.extras_require"].values()]
    direct = {name(re.match(r"[\w.-]+", line)[0]) for t in wanted for line in t.split("\n") if line.strip()}
    assert direct - {name(k) for k in hashed} - {"torch", "torchvision", "image-flywheel"} == set()


def test_the_bill_of_materials_lists_every_pin_with_its_hashes():
    command = [sys.executable, str(ROOT / "requirements" / "sbom.py")]
    texts = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2)]
    bill = json.loads(texts[0])
    pins = re.findall(r"^([\w.-]+)(?:\[.*\])?==", (ROOT / "constraints.txt").read_text(), re.M)
    assert texts[0] == texts[1] and bill["bomFormat"] == "CycloneDX" and len(bill["components"]) == len(pins)
    unhashed = {c["name"] for c in bill["components"] if "externalReferences" not in c}
    assert unhashed <= {"torch", "torchvision"}  # whose build is the user's choice

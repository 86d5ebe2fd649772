"""The files of docs/deploy say what this version has: commands with their options, versions, paths, and no root."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "docs" / "deploy"
CHART = DEPLOY / "chart"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()


def compose() -> dict[str, Any]:
    services: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    return services


def pods() -> Iterator[dict[str, Any]]:
    for item in yaml.safe_load_all((DEPLOY / "kuberay.yaml").read_text()):
        spec = item["spec"]
        if item["kind"] == "RayCluster":
            yield from (group["template"]["spec"] for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]))
        elif item["kind"] == "Deployment":
            assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]
            yield spec["template"]["spec"]


def test_every_command_has_its_options() -> None:
    from typer.main import get_command

    from flywheel.cli.main import app

    commands = [s["command"] for name, s in compose().items() if name != "s3" and "command" in s]
    commands += [c["args"] for pod in pods() for c in pod["containers"] if "args" in c]
    assert len(commands) == 4
    for words in commands:
        command = get_command(app).commands[words[0]]
        known = {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
        assert {w for w in words if w.startswith("--")} <= known, words


def test_what_is_copied_is_there_and_what_is_ignored_is_not_needed() -> None:
    copied = [
        source for line in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.M) for source in shlex.split(line)
    ]
    assert copied and all((ROOT / source).exists() for source in copied)
    kept = re.findall(r"^!(.+)$", (DEPLOY / "Dockerfile.dockerignore").read_text(), re.M)
    assert sorted(kept) == sorted(copied)
    listed = re.findall(r"-r (requirements/\S+)", DOCKERFILE)
    assert listed and all((ROOT / name).exists() for name in listed)


def test_nothing_runs_as_root_and_everything_is_one_image() -> None:
    assert re.findall(r"^USER (.+)$", DOCKERFILE, re.M) == ["10001"] and "--uid 10001" in DOCKERFILE
    for pod in pods():
        assert pod["securityContext"] == {"runAsNonRoot": True, "runAsUser": 10001, "fsGroup": 10001}
        assert {c["image"] for c in pod["containers"]} == {"REGISTRY/flywheel:TAG"}
        names = {v["name"] for v in pod["volumes"]}
        assert {m["name"] for c in pod["containers"] for m in c["volumeMounts"]} <= names
    assert {s["image"] for n, s in compose().items() if n != "s3"} == {"${FLYWHEEL_IMAGE:-flywheel}"}
    for service in compose().values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
        assert set(service.get("depends_on", ())) <= compose().keys()


def test_rays_pods_have_probes_that_the_image_can_run() -> None:
    (cluster,) = (x for x in yaml.safe_load_all((DEPLOY / "kuberay.yaml").read_text()) if x["kind"] == "RayCluster")
    for group in (cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]):
        (container,) = group["template"]["spec"]["containers"]
        for probe in ("livenessProbe", "readinessProbe"):  # else the operator sets ones that need wget
            assert container[probe]["exec"]["command"] == ["ray", "health-check"]


def test_the_chart_has_this_version_and_allows_what_it_sets() -> None:
    from jsonschema import Draft7Validator

    (version,) = re.findall(r"^version = (\S+)$", (ROOT / "setup.cfg").read_text(), re.M)
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == version
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = Draft7Validator(json.loads((CHART / "values.schema.json").read_text()))
    schema.validate(values)
    for part, key, wrong in (("schedules", "curate", "nightly"), ("ray", "nodes", 4), ("storage", "size", "much")):
        assert not schema.is_valid(values | {part: values[part] | {key: wrong}})


def test_what_the_chart_reads_is_what_its_values_have() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    text = "".join(p.read_text() for p in (CHART / "templates").iterdir())
    named = {m.split(".")[0] for m in re.findall(r"\.Values\.([\w.]+)", text)}
    assert named == values.keys()
    for path in re.findall(r"\.Values\.([\w.]+)", text):
        here = values
        for key in path.split("."):
            here = here[key]


@pytest.mark.skipif(shutil.which("helm") is None, reason="helm is not installed")
def test_helm_makes_the_manifests_of_the_chart() -> None:
    subprocess.run(["helm", "lint", "--strict", CHART], check=True, capture_output=True)
    made = subprocess.run(["helm", "template", "flywheel", CHART], check=True, capture_output=True, text=True).stdout

    def by_name(text: str) -> dict[tuple[str, str], Any]:
        return {(x["kind"], x["metadata"]["name"]): x for x in yaml.safe_load_all(text) if x}

    assert by_name(made) == by_name((DEPLOY / "kuberay.yaml").read_text())


def test_ray_has_one_version() -> None:
    (pinned,) = re.findall(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M)
    for page in (DEPLOY / "kuberay.yaml", ROOT / "docs" / "kuberay.md"):
        assert re.findall(r"rayVersion: (\S+)", page.read_text()) == [pinned]
    assert yaml.safe_load((CHART / "values.yaml").read_text())["ray"]["version"] == pinned

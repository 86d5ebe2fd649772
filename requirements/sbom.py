"""Print the bill of materials: each pinned package with its licence and the hashes of its files (CycloneDX 1.5 JSON).

python requirements/sbom.py > sbom.cdx.json

Versions come from constraints.txt, hashes from the other files of this folder, licences from what is installed here.
The same files give the same bytes.
"""

from __future__ import annotations

import json
import re
import sys
import uuid
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
_PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?==([^\s;\\]+)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned() -> dict[str, str]:
    """Package → version."""
    lines = (HERE.parent / "constraints.txt").read_text().splitlines()
    return {_normal(m[1]): m[2] for line in lines if (m := _PIN.match(line))}


def hashes() -> dict[str, list[str]]:
    """Package → SHA-256 of each file that the install may take."""
    found: dict[str, list[str]] = {}
    for path in sorted(HERE.glob("*.txt")):
        for block in re.split(r"^(?=\S)", path.read_text(), flags=re.M):
            if match := _PIN.match(block):
                found.setdefault(_normal(match[1]), []).extend(_HASH.findall(block))
    return found


def licence(name: str) -> list[dict[str, Any]]:
    """The licence that an installed package states; empty if it is not installed or states none."""
    try:
        stated = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return []
    if expression := stated.get("License-Expression"):
        return [{"expression": expression}]
    classifiers = [c.rpartition(" :: ")[2] for c in stated.get_all("Classifier") or () if c.startswith("License ::")]
    return [{"license": {"name": c}} for c in classifiers]


def bill() -> dict[str, Any]:
    """The whole document."""
    known = hashes()
    components = []
    for name, version in sorted(pinned().items()):
        component: dict[str, Any] = {"type": "library", "name": name, "version": version}
        component["purl"] = component["bom-ref"] = f"pkg:pypi/{name}@{version}"
        if files := sorted(set(known.get(name, ()))):
            place = {"type": "distribution", "url": f"pkg:pypi/{name}@{version}"}
            place["hashes"] = [{"alg": "SHA-256", "content": sha256} for sha256 in files]
            component["externalReferences"] = [place]
        if licences := licence(name):
            component["licenses"] = licences
        components.append(component)
    body = {"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1, "components": components}
    number = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(body, sort_keys=True))
    return {**body, "serialNumber": f"urn:uuid:{number}"}


if __name__ == "__main__":
    json.dump(bill(), sys.stdout, indent=1, sort_keys=True)
    sys.stdout.write("\n")

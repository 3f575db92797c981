"""The bill of materials of a lock: CycloneDX 1.6, as JSON, on standard output.

    python deploy/sbom.py requirements.lock

It needs Python alone, and gives the same for the same lock. Each component has the hashes that the lock holds it to.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import tomllib
import uuid
from importlib import metadata
from pathlib import Path
from typing import Any

_PIN = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;]+)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def bill(lock: Path) -> dict[str, Any]:
    """The bill of a lock that stands beside its pyproject.toml."""
    text, project = lock.read_text(), tomllib.loads((lock.parent / "pyproject.toml").read_text())["project"]
    entries = text.replace("\\\n", " ").splitlines()
    components = [_component(line) for line in entries if _PIN.match(line)]
    digest = hashlib.sha256(text.encode()).digest()
    root = {"type": "application", "bom-ref": "recollect", "name": project["name"], "version": _version(lock)}
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.UUID(bytes=digest[:16], version=4)}",
        "version": 1,
        "metadata": {"component": {**root, "licenses": [{"license": {"id": project["license"]}}]}},
        "components": sorted(components, key=lambda one: one["purl"]),
        "dependencies": [{"ref": "recollect", "dependsOn": sorted({one["bom-ref"] for one in components})}],
    }


def _version(lock: Path) -> str:
    """Recollect's own, which `settings.py` has."""
    found = re.search(r'^VERSION = "(.*)"$', (lock.parent / "settings.py").read_text(), re.MULTILINE)
    return found[1] if found else "0"


def _component(line: str) -> dict[str, Any]:
    match = _PIN.match(line)
    assert match is not None  # noqa: S101 - it was looked at
    name, version = re.sub(r"[-_.]+", "-", match[1]).lower(), match[2]
    purl = f"pkg:pypi/{name}@{version}"
    found: dict[str, Any] = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
    # CycloneDX has a hash of a component, and here are those of all the files that it may come as.
    references = [{"alg": "SHA-256", "content": one} for one in _HASH.findall(line)]
    found["externalReferences"] = [{"type": "distribution", "url": purl, "hashes": references}]
    license_ = _license(name)
    return {**found, "licenses": [{"expression": license_}]} if license_ else found


def _license(name: str) -> str | None:
    """What the installed package says of its licence, as an expression of SPDX's."""
    try:
        return dict(metadata.metadata(name).items()).get("License-Expression")  # type: ignore[attr-defined]  # it has
    except metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    json.dump(bill(Path(sys.argv[1])), sys.stdout, indent=1)
    print()

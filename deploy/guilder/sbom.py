"""A software bill of materials in CycloneDX 1.5: what is installed, or in a bundle.

From metadata alone; nothing is loaded and no network is asked. It says what is there,
not whether it is safe.
"""

import email
import hashlib
import uuid
import zipfile
from collections.abc import Iterable, Mapping
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any, Final

from packaging.utils import canonicalize_name

Bill = dict[str, Any]
FORMAT: Final = "1.5"


def of_installed() -> Bill:
    """Everything that is installed beside Guilder."""
    found = {
        canonicalize_name(each.name): _component(each.metadata)
        for each in distributions()
        if each.name
    }
    return _bill(found[name] for name in sorted(found))


def of_wheels(wheels: Iterable[Path]) -> Bill:
    """What some wheels hold, with the SHA-256 of each."""
    parts = []
    for path in sorted(wheels):
        with zipfile.ZipFile(path) as archive:
            name = next(
                n for n in archive.namelist() if n.endswith(".dist-info/METADATA")
            )
            text = archive.read(name).decode("utf-8", "replace")
        component = _component(email.message_from_string(text))
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        component["hashes"] = [{"alg": "SHA-256", "content": digest}]
        parts.append(component)
    return _bill(parts)


def _bill(components: Iterable[Bill]) -> Bill:
    kept = list(components)
    refs = "\n".join(str(each["bom-ref"]) for each in kept)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": FORMAT,
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, refs)}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "name": "guilder",
                "version": version("guilder"),
                "bom-ref": "guilder",
            }
        },
        "components": kept,
    }


def _component(metadata: Any) -> Bill:
    fields: Mapping[str, str] = metadata
    name, number = canonicalize_name(str(fields["Name"])), str(fields["Version"])
    purl = f"pkg:pypi/{name}@{number.replace('+', '%2B')}"
    found: Bill = {
        "type": "library",
        "name": name,
        "version": number,
        "purl": purl,
        "bom-ref": purl,
    }
    licence = fields.get("License-Expression") or fields.get("License") or ""
    classifiers = metadata.get_all("Classifier") or []
    named = [c.rpartition(" :: ")[2] for c in classifiers if c.startswith("License ::")]
    if fields.get("License-Expression"):
        found["licenses"] = [{"expression": licence}]
    elif named or 0 < len(licence) < 60:
        found["licenses"] = [{"license": {"name": (named or [licence])[0]}}]
    return found

"""What is in the program: a bill of materials (CycloneDX 1.5), and the licences of it.

Both are made from the lock file and cargo's metadata alone, so that the same commit gives the same text.
"""

import hashlib
import json
import re
import subprocess
import uuid
from pathlib import Path

PROGRAM = "tokfence"
LICENCE_FILES = re.compile(r"^(licen[cs]e|copying|notice|unlicense|copyright)", re.IGNORECASE)


def of(root):
    """The packages that the program is built from, by name and version; those of tests and of `bench` are not."""
    host = re.search(r"^host: (.+)$", _output(root, "rustc", "-vV"), re.MULTILINE)[1]
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", host]
    metadata = json.loads(_output(root, *command))
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    first = next(id for id, package in packages.items() if package["name"] == PROGRAM and not package["source"])
    needs, left = {}, [first]
    while left:
        id = left.pop()
        if id in needs:
            continue
        is_needed = lambda dependency: any(kind["kind"] != "dev" for kind in dependency["dep_kinds"])
        needs[id] = [dependency["pkg"] for dependency in nodes[id]["deps"] if is_needed(dependency)]
        left += needs[id]
    checksums = _checksums(root)
    found = [_package(packages[id], [packages[other] for other in needs[id]], checksums) for id in needs]
    return sorted(found + _bundled(packages, needs), key=lambda package: (package["name"], package["version"]))


def _output(root, *command):
    return subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout


def _checksums(root):
    lock = (root / "Cargo.lock").read_text()
    entry = r'name = "(.+?)"\nversion = "(.+?)"\nsource = ".+?"\nchecksum = "(.+?)"'
    return {(name, version): checksum for name, version, checksum in re.findall(entry, lock)}


def _package(package, needs, checksums):
    return {
        "name": package["name"],
        "version": package["version"],
        "licence": (package["license"] or "").replace("/", " OR "),
        "is_ours": not package["source"],
        "checksum": checksums.get((package["name"], package["version"])),
        "folder": Path(package["manifest_path"]).parent,
        "purl": _purl(package),
        "needs": sorted(_purl(other) for other in needs),
    }


def _purl(package):
    return f"pkg:cargo/{package['name']}@{package['version']}"


def _bundled(packages, needs):
    """Code in C that comes inside a crate under a version of its own."""
    folder = next(Path(packages[id]["manifest_path"]).parent for id in needs if packages[id]["name"] == "libsqlite3-sys")
    version = re.search(r'#define SQLITE_VERSION\s+"(.+?)"', (folder / "sqlite3" / "sqlite3.h").read_text())[1]
    sqlite = {"name": "sqlite", "version": version, "licence": "blessing", "is_ours": False, "checksum": None}
    return [sqlite | {"folder": None, "purl": f"pkg:generic/sqlite@{version}", "needs": []}]


def bill(found, commit, epoch):
    """The bill of materials, as JSON."""
    component = lambda package: {
        "type": "library",
        "bom-ref": package["purl"],
        "name": package["name"],
        "version": package["version"],
        "purl": package["purl"],
        **({"licenses": [{"expression": package["licence"]}]} if package["licence"] else {}),
        **({"hashes": [{"alg": "SHA-256", "content": package["checksum"]}]} if package["checksum"] else {}),
    }
    program = next(package for package in found if package["name"] == PROGRAM)
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'{PROGRAM}/{commit}')}",
        "version": 1,
        "metadata": {
            "timestamp": _instant(epoch),
            "component": {**component(program), "type": "application"},
            "properties": [{"name": "commit", "value": commit}],
        },
        "components": [component(package) for package in found if package is not program],
        "dependencies": [{"ref": package["purl"], "dependsOn": package["needs"]} for package in found],
    }
    return json.dumps(document, indent=1) + "\n"


def _instant(epoch):
    from datetime import datetime, timezone

    return datetime.fromtimestamp(epoch, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def licences(found):
    """A table of what is in the program, and each text of a licence once."""
    others = [package for package in found if not package["is_ours"]]
    rows = [f"| {package['name']} | {package['version']} | {package['licence']} |" for package in others]
    texts = {}
    for package in others:
        for path in sorted(package["folder"].iterdir()) if package["folder"] else []:
            if path.is_file() and LICENCE_FILES.match(path.name):
                text = path.read_text(errors="replace").strip()
                of_text = texts.setdefault(hashlib.sha256(text.encode()).hexdigest(), (text, []))
                of_text[1].append(f"{package['name']} {package['version']}")
    parts = ["# What others wrote\n", "| Name | Version | Licence |", "|---|---|---|", *rows, ""]
    for text, users in sorted(texts.values(), key=lambda entry: entry[1]):
        parts += [f"## {', '.join(dict.fromkeys(users))}\n", "```text", text, "```", ""]
    return "\n".join(parts)

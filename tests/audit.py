"""`make audit`: known holes in the pinned packages, by pip-audit; said as skipped where its source cannot be reached."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FILES = ("requirements.txt", "requirements-dev.txt")
WITHIN_S = 60
"""More than a reachable source takes for both; a run without a network must not wait for it for long."""


def main() -> int:
    """Audit both files of pins; 1 when a package has a hole that is known."""
    return max(audited(name) for name in FILES)


def audited(name: str, *, program: tuple[str, ...] = (sys.executable, "-m", "pip_audit")) -> int:
    """Audit one file, and say what came of it."""
    options = (
        "--requirement",
        name,
        "--disable-pip",
        "--no-deps",
        "--progress-spinner",
        "off",
        "--format",
        "json",
        "--timeout",
        "15",
    )
    try:
        done = subprocess.run(
            [*program, *options], cwd=ROOT, capture_output=True, text=True, timeout=WITHIN_S, check=False
        )
        holes = found(json.loads(done.stdout))
    except (subprocess.TimeoutExpired, json.JSONDecodeError, KeyError, TypeError):
        sys.stdout.write(f"audit of {name}: skipped, as the list of known holes cannot be reached\n")
        return 0
    for hole in holes:
        sys.stdout.write(f"audit of {name}: {hole}\n")
    sys.stdout.write(f"audit of {name}: {len(holes)} known holes\n")
    return 1 if holes else 0


def found(said: dict[str, Any]) -> list[str]:
    """Each hole as package, version, its name, and where it is mended."""
    return [
        f"{package['name']} {package['version']}: {hole['id']}, mended in {', '.join(hole['fix_versions']) or 'no release yet'}"
        for package in said["dependencies"]
        for hole in package.get("vulns", ())
    ]


if __name__ == "__main__":
    sys.exit(main())

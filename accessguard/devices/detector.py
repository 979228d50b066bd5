"""The slow recogniser, a program of its own: a question a line in, an answer a line out, until its input ends.

It takes 15 ms a string, 60 to 250 MB, and the interpreter for itself while it thinks; no worker could answer anybody
meanwhile. It holds no secret, opens nothing, and gives way to whatever else wants the processor.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Final

import msgspec
from device_detector import DeviceDetector

from accessguard.devices.refinement import Asked, Sighting, restored

GIVES_WAY: Final = 10
"""Its niceness: the check of somebody who waits is more urgent than the name of a telephone."""


def sighting(asked: Asked) -> Sighting:
    """What device-detector says of one string and its hints."""
    seen = DeviceDetector(restored(asked), headers=dict(asked.hints), check_cache=False).parse()
    told = seen.all_details
    return Sighting(
        bot=str((told.get("bot") or {}).get("name") or ""),
        kind=str(seen.device_type()),
        model=seen.device_model() or "",
        client=seen.client_type(),
    )


def answers(lines: Iterable[bytes]) -> Iterable[bytes]:
    """Each question answered, in order; null for one that the library stumbles over."""
    for line in lines:
        asked = msgspec.json.decode(line, type=Asked)
        try:
            told: Sighting | None = sighting(asked)
        except Exception:  # noqa: BLE001 - whatever a library does on a hostile string, the next one is asked
            told = None
        yield msgspec.json.encode(told) + b"\n"


def main() -> None:
    """Answer until the worker that asks is gone."""
    os.nice(GIVES_WAY)
    for answer in answers(sys.stdin.buffer):
        sys.stdout.buffer.write(answer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()

"""A recogniser that answers every question alike, line by line, as the real one would."""

from __future__ import annotations

import sys

for _ in sys.stdin:
    sys.stdout.write('{"kind": "tv"}\n')
    sys.stdout.flush()

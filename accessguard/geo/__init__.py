"""Places of addresses, from files in MaxMind's format: mapped into memory, taken anew when they change.

A file is replaced by renaming a new one over it, as `geoipupdate` does: the old
one stays mapped until nobody looks at it any more.
"""

from accessguard.geo.lookup import Geo
from accessguard.geo.model import UNKNOWN, About, FileState, Where

__all__ = ["UNKNOWN", "About", "FileState", "Geo", "Where"]

"""A real PostgreSQL and a real Valkey as child processes, for development and tests."""

from accessguard.embedded.process import Child, EmbeddedError
from accessguard.embedded.stores import Embedded

__all__ = ["Child", "Embedded", "EmbeddedError"]

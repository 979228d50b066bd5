"""A believable day at a school, sent to a running service through its HTTP API alone."""

from accessguard.demo.client import DemoError
from accessguard.demo.day import Tokens, run

__all__ = ["DemoError", "Tokens", "run"]

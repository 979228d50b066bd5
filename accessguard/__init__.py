"""AccessGuard says for every request of a learning platform whether this session, on this device, may go on."""

__version__ = "0.1.0"

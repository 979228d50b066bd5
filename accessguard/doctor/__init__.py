"""`accessguard doctor`: looks at everything that the service needs, and says what to do."""

from accessguard.doctor.rounds import run

__all__ = ["run"]

"""What a platform imports: an asynchronous and a blocking client, and middleware for ASGI, WSGI and aiohttp."""

from accessguard.client.asking import AccessGuard
from accessguard.client.blocking import BlockingAccessGuard
from accessguard.client.model import (
    Activity,
    Check,
    ClientError,
    Decision,
    Login,
    LoginAnswer,
    OnUnknown,
    Reason,
    Settings,
    Told,
    Verdict,
)

__all__ = [
    "AccessGuard",
    "Activity",
    "BlockingAccessGuard",
    "Check",
    "ClientError",
    "Decision",
    "Login",
    "LoginAnswer",
    "OnUnknown",
    "Reason",
    "Settings",
    "Told",
    "Verdict",
]

"""A small course platform on Django, in one file; its logins are those of `django.contrib.auth`.

`uvicorn examples.django_app:asynchronous`, or any WSGI server with `examples.django_app:application`.
"""

import os

import django
from django.conf import settings
from django.contrib.auth import authenticate, logout
from django.contrib.auth import login as log_in
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path

from accessguard.client import OnUnknown, Settings
from accessguard.client.front import Front
from accessguard.client.naming import activity

settings.configure(
    SECRET_KEY=os.environ.get("DJANGO_SECRET_KEY", "an example, which nobody must use as it is"),
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"],
    MIDDLEWARE=[
        "accessguard.client.django.GuardMiddleware",  # the one line
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ],
    DATABASES={
        "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ.get("DJANGO_DATABASE", "example.sqlite")}
    },
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    ACCESSGUARD=Settings(
        address=os.environ["ACCESSGUARD_ADDRESS"],
        token=os.environ["ACCESSGUARD_TOKEN"],
        on_unknown=OnUnknown(os.environ.get("ACCESSGUARD_ON_UNKNOWN", "allow")),
    ),
    ACCESSGUARD_FRONT=Front(login_url="/login", secure=False),
)
django.setup()


def home(request: HttpRequest) -> HttpResponse:
    """Open to everybody."""
    return HttpResponse("welcome")


def enter(request: HttpRequest) -> HttpResponse:
    """Django's own check of the password; its signals tell the rest."""
    user = authenticate(request, username=request.GET.get("member"), password=request.GET.get("password"))
    if user is None:
        return HttpResponse("wrong password", status=401)
    log_in(request, user)
    return HttpResponse("logged in")


def leave(request: HttpRequest) -> HttpResponse:
    """End both sessions."""
    logout(request)
    return HttpResponse("bye")


@activity("course_open", resource="course:{course}", product="{course}")
def course(request: HttpRequest, course: str) -> HttpResponse:
    """For members; opening it is an activity."""
    return HttpResponse(f"course {course}")


urlpatterns = [
    path("", home),
    path("login", enter),
    path("logout", leave),
    path("courses/<str:course>", course),
]

application = get_wsgi_application()
asynchronous = get_asgi_application()

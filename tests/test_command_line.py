"""The command line as a person meets it: in a process of its own, by its words and exit codes."""

import asyncio
import os
import shlex
import signal
import socket
import stat
import subprocess
import sys
import tomllib
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import jwt
import psutil
import pytest

from accessguard import __version__
from tests.data import lay_out

SECRET = "of-the-tests-0123456789-abcdefghi"


def environment(**values: str) -> dict[str, str]:
    """Return an environment without any ACCESSGUARD variable but `values`, lower case for short."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith("ACCESSGUARD_")}
    return bare | {f"ACCESSGUARD_{name.upper()}": value for name, value in values.items()}


def accessguard(*words: str, folder: Path, **values: str) -> subprocess.CompletedProcess[str]:
    """Run the command in `folder` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "accessguard", *words],
        cwd=folder,
        env=environment(**values) | {"PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def claims(token: str, secret: str) -> dict[str, Any]:
    """Return what a token claims, once its signature and audience are verified."""
    return jwt.decode(token.strip(), secret, algorithms=["HS256"], audience="accessguard")


def test_it_tells_its_version(tmp_path):
    """`--version` is what a bug report begins with."""
    answer = accessguard("--version", folder=tmp_path)

    assert answer.stdout.strip() == f"accessguard, version {__version__}"


def test_a_token_carries_what_the_contract_asks_for(tmp_path):
    """Issuer, audience, end, subject, role and tenant are all there, and an id to tell two tokens apart."""
    words = ("token", "--tenant", "school", "--role", "supervisor", "--subject", "kim", "--ttl-days", "2")

    first, second = (accessguard(*words, folder=tmp_path, token_secrets=f"{SECRET},old{SECRET}") for _ in range(2))

    told = claims(first.stdout, SECRET)
    assert told | {"iss": "accessguard", "sub": "kim", "role": "supervisor", "tenant": "school"} == told
    assert told["exp"] - told["iat"] == 2 * 86_400
    assert told["jti"] != claims(second.stdout, SECRET)["jti"]


@pytest.mark.parametrize(
    ("words", "values", "sentence"),
    [
        pytest.param(
            ("token", "--tenant", "t", "--role", "root"), {}, "ACCESSGUARD_TOKEN_SECRETS", id="token, no secret"
        ),
        pytest.param(("token", "--tenant", "t", "--role", "king"), {}, "'king'", id="token, unknown role"),
        pytest.param(("serve",), {}, "ACCESSGUARD_DATABASE_URL", id="serve, nothing set"),
        pytest.param(("serve",), {"token_secrets": "weak"}, "weak", id="serve, weak secret"),
        pytest.param(("migrate",), {}, "ACCESSGUARD_DATABASE_URL", id="migrate, no database"),
        pytest.param(("dev",), {"config": "none.toml"}, "none.toml", id="dev, no such configuration"),
        pytest.param(("dev",), {"data_folder": "/proc/none"}, "/proc/none", id="dev, unwritable folder"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_sentence(tmp_path, words, values, sentence):
    """No trace, exit code not 0, and nothing written."""
    answer = accessguard(*words, folder=tmp_path, **values)

    assert answer.returncode != 0
    assert sentence in answer.stderr
    assert "Traceback" not in answer.stderr
    assert not answer.stdout
    assert not list(tmp_path.iterdir())


def paste(line: str) -> int:
    """Send the request that a curl line describes, and return the status of its answer."""
    curl, silent, url, *options = shlex.split(line)
    assert (curl, silent) == ("curl", "-sS")
    given = list(zip(options[::2], options[1::2], strict=True))
    headers = dict(value.split(": ", 1) for option, value in given if option == "-H")
    body = next((value.encode() for option, value in given if option == "-d"), None)
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data=body, headers=headers), timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Give a folder in which `accessguard dev` ran until Ctrl-C: its words, what its lines answered, its processes."""
    folder = tmp_path_factory.mktemp("home")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "accessguard", "dev", "--port", str(port)]
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment(admin_port="0") | {"PYTHONPATH": str(Path(__file__).parents[1])},
        stdout=subprocess.PIPE,
        text=True,
    ) as service:
        assert service.stdout is not None
        lines: list[str] = []
        while not lines or "Ctrl-C" not in lines[-1]:
            lines.append(service.stdout.readline())
            assert lines[-1], "the service ended before it was ready"
        children = psutil.Process(service.pid).children(recursive=True)
        answers = {line.split()[2]: paste(line) for line in lines if line.startswith("curl")}
        service.send_signal(signal.SIGINT)
        service.wait(30)
    return folder, lines, children, answers, service.returncode


def test_dev_prints_a_token_for_each_role_that_its_secret_verifies(home):
    """What is printed can be used as it stands."""
    folder, lines, *_ = home
    secret = tomllib.loads((folder / ".accessguard" / "secrets.toml").read_text())["ACCESSGUARD_TOKEN_SECRETS"]

    tokens = dict(line.split() for line in lines if len(line.split()) == 2 and line.split()[1].startswith("eyJ"))

    assert {role: claims(token, secret)["role"] for role, token in tokens.items()} == {role: role for role in tokens}
    assert set(tokens) == {"platform", "attendant", "supervisor", "administrator", "root"}


def test_every_line_to_paste_is_answered(home):
    """The health, the login, the check and the list of members all work as they are printed."""
    *_, answers, _ = home

    assert len(answers) == 4
    assert set(answers.values()) <= {200, 201}


def test_dev_stops_on_ctrl_c_and_leaves_no_process(home):
    """Both stores and all their processes end with the service, which ends well."""
    *_, children, _, code = home

    assert code == 0
    assert children
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]


def test_the_secrets_of_dev_are_for_its_owner_alone(home):
    """Nobody else on the machine can read what signs every token."""
    folder, *_ = home

    assert stat.S_IMODE((folder / ".accessguard" / "secrets.toml").stat().st_mode) == 0o600


def test_a_token_made_beside_dev_is_signed_with_its_secret(home):
    """`accessguard token` works in the same folder with nothing set."""
    folder, *_ = home
    secret = tomllib.loads((folder / ".accessguard" / "secrets.toml").read_text())["ACCESSGUARD_TOKEN_SECRETS"]

    answer = accessguard("token", "--tenant", "demo", "--role", "platform", folder=folder)

    assert claims(answer.stdout, secret)["role"] == "platform"


async def test_dev_says_that_its_port_is_taken(tmp_path):
    """A port in use is one sentence and an exit code, and the stores are stopped again."""
    await lay_out(tmp_path / ".accessguard")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        answer = await asyncio.to_thread(accessguard, "dev", "--port", str(port), folder=tmp_path, admin_port="0")

    assert answer.returncode != 0
    assert str(port) in answer.stderr
    assert "Traceback" not in answer.stderr
    assert not (tmp_path / ".accessguard" / "runtime").exists()


def test_the_contract_is_printed_as_openapi(tmp_path):
    """`openapi` needs no store and no secret."""
    answer = accessguard("openapi", folder=tmp_path)

    assert '"openapi":"3.1' in answer.stdout.replace(" ", "")

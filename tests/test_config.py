"""The configuration: what is read, what wins, and what is refused in which words."""

import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from accessguard.config import VARIABLES, Config, ConfigError, Provision, complete, load

SECRET = "of-the-tests-0123456789-abcdefghi"
FILE = Path(__file__).parents[1] / "config" / "accessguard.toml"
SERVABLE = {
    "ACCESSGUARD_DATABASE_URL": "postgresql://db/accessguard",
    "ACCESSGUARD_REDIS_URL": "redis://cache",
    "ACCESSGUARD_TOKEN_SECRETS": SECRET,
    "ACCESSGUARD_DEVICE_KEYS": f"d1:{SECRET}",
    "ACCESSGUARD_SESSION_KEYS": f"s1:{SECRET}",
    "ACCESSGUARD_IDENTIFIER_KEY": SECRET,
}


@pytest.fixture
def written(tmp_path):
    """Write a configuration file, and give the environment that names it."""

    def write(text: str) -> dict[str, str]:
        path = tmp_path / "accessguard.toml"
        path.write_text(text)
        return {"ACCESSGUARD_CONFIG": str(path)}

    return write


def test_the_file_that_comes_with_it_says_the_defaults():
    """What the manual shows is what holds when nothing is configured."""
    assert load({"ACCESSGUARD_CONFIG": str(FILE)}) == Config()


def test_the_file_that_comes_with_it_names_every_key_and_variable():
    """A key or a variable that exists is in the manual, if only in a comment."""
    manual = FILE.read_text()
    keys = {
        name
        for section in msgspec.structs.asdict(Config()).values()
        for name in getattr(section, "__struct_fields__", ())
    }
    secret = {"secrets", "device", "session", "webhook", "identifier"}
    secret |= {"secrets_file", "device_file", "session_file", "webhook_file"}

    assert not [key for key in keys - secret if not re.search(rf"^(# )?{key} = ", manual, re.MULTILINE)]
    assert not [name for name in VARIABLES if f"ACCESSGUARD_{name}" not in manual]


def test_every_key_of_the_file_is_read(written):
    """Values go where they are named, each in its own type."""
    config = load(
        written(
            """
            data_folder = "data"
            [server]
            host = "::1"
            port = 0
            unix_socket = "ag.sock"
            trusted_networks = ["10.0.0.0/8", "2001:db8::1"]
            [tokens]
            algorithms = ["ES256", "EdDSA"]
            jwks_file = "jwks.json"
            issuers = ["https://login.example"]
            [tenants]
            provision = "explicit"
            """
        )
    )

    assert (config.data_folder, config.server.host, config.server.port) == ("data", "::1", 0)
    assert config.server.trusted_networks == ("10.0.0.0/8", "2001:db8::1")
    assert config.tokens.algorithms == ("ES256", "EdDSA")
    assert config.tenants.provision is Provision.EXPLICIT


def test_the_environment_wins_over_the_file(written):
    """The same image runs everywhere; what differs is set outside."""
    environ = written('[server]\nhost = "10.0.0.1"\nport = 1') | {"ACCESSGUARD_PORT": "2"}

    server = load(environ).server

    assert (server.host, server.port) == ("10.0.0.1", 2)


def test_a_fallback_gives_way_to_the_environment_and_its_files(tmp_path):
    """Generated secrets hold only where nobody set any."""
    (tmp_path / "key").write_text("f" * 40 + "\n")
    fallback = dict.fromkeys(("ACCESSGUARD_TOKEN_SECRETS", "ACCESSGUARD_IDENTIFIER_KEY"), "g" * 40)
    environ = {"ACCESSGUARD_TOKEN_SECRETS": "e" * 40, "ACCESSGUARD_IDENTIFIER_KEY_FILE": str(tmp_path / "key")}

    config = load(environ, fallback=fallback)

    assert config.tokens.secrets == ("e" * 40,)
    assert config.keys.identifier == "f" * 40


def test_keys_are_read_in_order():
    """The first key signs, so that the order is part of the meaning."""
    keys = load({"ACCESSGUARD_DEVICE_KEYS": f"new:{SECRET}, old:{SECRET}:x"}).keys.device

    assert [(key.id, key.secret) for key in keys] == [("new", SECRET), ("old", f"{SECRET}:x")]


def test_a_complete_configuration_is_one_that_can_serve():
    """With both stores and every secret there is nothing left to ask."""
    config = load(SERVABLE)

    assert complete(config) is config


@pytest.mark.parametrize(
    "name", [pytest.param(name, id=name.removeprefix("ACCESSGUARD_").lower()) for name in SERVABLE]
)
def test_a_service_without_a_store_or_a_secret_is_told_what_to_set(name):
    """Each thing that is missing is named by its variable."""
    config = load({other: value for other, value in SERVABLE.items() if other != name})

    with pytest.raises(ConfigError, match=f"^Set {name} first"):
        complete(config)


@pytest.mark.parametrize(
    "name", [pytest.param(name, id=name.removeprefix("ACCESSGUARD_").lower()) for name in SERVABLE if "URL" not in name]
)
def test_a_weak_secret_is_refused_and_not_repeated(name):
    """31 bytes are too few; the sentence names the variable, never the value."""
    weak = "w" * 31

    with pytest.raises(ConfigError) as refused:
        load({name: f"id:{weak}" if "KEYS" in name else weak})

    assert weak not in str(refused.value)
    assert "32" in str(refused.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        pytest.param("sever = 1", "has no key `sever`", id="unknown table"),
        pytest.param("[server]\nprot = 1", "has no key `server.prot`", id="unknown key"),
        pytest.param('[server]\nport = "80"', "`server.port` .* wrong", id="wrong type"),
        pytest.param("[server]\nport = 70000", "`server.port` .* wrong", id="out of range"),
        pytest.param('[tokens]\nalgorithms = ["none"]', "`tokens.algorithms", id="algorithm none"),
        pytest.param('[server]\ntrusted_networks = ["10.0.0.0/33"]', "`10.0.0.0/33`", id="no network"),
        pytest.param(
            '[server]\ntrusted_networks = ["10.0.0.1/8"]', "the network is 10.0.0.0/8", id="bits behind a prefix"
        ),
        pytest.param("[server", "is not TOML", id="no TOML"),
        pytest.param(f'[tokens]\nsecrets = ["{SECRET}"]', "holds secrets", id="secrets in the file"),
        pytest.param(f'[keys]\nidentifier = "{SECRET}"', "holds secrets", id="keys in the file"),
    ],
)
def test_a_wrong_file_is_refused_in_one_sentence(written, text, sentence):
    """The sentence says which key, and what is wrong with it."""
    with pytest.raises(ConfigError, match=sentence) as refused:
        load(written(text))

    assert "\n" not in str(refused.value)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        pytest.param({"ACCESSGUARD_PORT": "http"}, "ACCESSGUARD_PORT is a number", id="port is a word"),
        pytest.param({"ACCESSGUARD_CONFIG": "/no/such"}, "Cannot read the configuration /no/such", id="no file"),
        pytest.param({"ACCESSGUARD_REDIS_URL_FILE": "/no/such"}, "Cannot read /no/such", id="no value file"),
        pytest.param({"ACCESSGUARD_HOST": "a", "ACCESSGUARD_HOST_FILE": "b"}, "not both", id="value and file"),
        pytest.param({"ACCESSGUARD_DEVICE_KEYS": SECRET}, "id:secret", id="key without id"),
        pytest.param({"ACCESSGUARD_SESSION_KEYS": f"a b:{SECRET}"}, "keys.session", id="id with a space"),
        pytest.param({"ACCESSGUARD_DEVICE_KEYS": f"a:{SECRET},a:{SECRET}"}, "two keys of one id", id="ids collide"),
    ],
)
def test_a_wrong_environment_is_refused_in_one_sentence(environ, sentence):
    """The sentence names the variable, and never shows a secret."""
    with pytest.raises(ConfigError, match=sentence) as refused:
        load(environ)

    assert SECRET not in str(refused.value)


def test_secrets_are_not_shown_when_the_configuration_is_printed():
    """A configuration that ends up in a log or a trace gives nothing away."""
    shown = repr(load(SERVABLE))

    assert SECRET not in shown
    assert "postgresql://" not in shown


def test_the_manual_is_toml():
    """The file that comes with it can be read by any TOML parser."""
    assert set(tomllib.loads(FILE.read_text())) == set(Config.__struct_fields__) - {"keys"}


@pytest.mark.parametrize(
    ("url", "taken"),
    [
        ("https://guard.example", True),
        ("https://school.example:8443/guard/", True),
        ("http://127.0.0.1:8080", True),
        ("http://guard.example", False),
        ("https://guard.example?t=", False),
        ("https://a@guard.example", False),
        ("guard.example", False),
    ],
)
def test_browsers_are_sent_over_tls_or_nowhere(url, taken):
    """Or to this machine, to try it."""
    if taken:
        assert load({"ACCESSGUARD_PUBLIC_URL": url}).server.public_url == url
        return
    with pytest.raises(ConfigError, match="public_url"):
        load({"ACCESSGUARD_PUBLIC_URL": url})

# SPDX-License-Identifier: Apache-2.0
"""Addresses, and what of the configuration reaches the store behind them."""

import sys

import pytest
from oslo_config import cfg

from freezer_osbrick import errors, named_repositories, opts
from freezer_osbrick.store import address, local, retry, throttle


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("s3://Bucket.1/", "s3://Bucket.1"),
        ("s3://bucket/a/b/", "s3://bucket/a/b"),
        (
            "s3://bucket?endpoint=https://s3.example.org:8080&region=north",
            "s3://bucket?endpoint=https://s3.example.org:8080&region=north",
        ),
        ("swift://my%20container/x", "swift://my%20container/x"),
        ("swift://container?region=north", "swift://container?region=north"),
        ("sftp://backup@host:2200/srv//backups/", "sftp://backup@host:2200/srv/backups"),
        ("sftp://backup@host/srv/backups", "sftp://backup@host/srv/backups"),
        ("sftp://host:2222/srv", "sftp://host:2222/srv"),
        ("sftp://a%40b@[::1]:2222/srv", "sftp://a%40b@[::1]:2222/srv"),
        ("ftp://host/../x", "ftp://host/x"),
        ("ftps://user@HOST:990/my%20backups", "ftps://user@host:990/my%20backups"),
    ],
)
def test_addresses(given, url):
    assert address.normalise(given) in (url, url.replace("my%20container", "my container"))
    assert address.parse(address.normalise(given)) == address.parse(given)


@pytest.mark.parametrize(
    "given",
    ["s3://", "s3:///bucket", "s3://bucket:80/x", "s3://user@bucket/x", "s3://bucket/x#y"]
    + ["s3://bucket?secret_key=x", "s3://bucket?endpoint=", "swift://c?endpoint=http://x"]
    + ["sftp:///srv", "sftp://host:port/srv", "sftp://host/srv?x=1", "ftp://", "ftps://host/x#y"]
    + ["sftp://host/a%00b", "ssh://host/x", "S3//x"],
)
def test_addresses_that_are_none(given):
    with pytest.raises(errors.BadRequest):
        address.parse(given)


@pytest.mark.parametrize(
    "given", ["sftp://u:Secret1@host/x", "ftp://u:Secret1@h:x/", "u:Secret1@h"]
)
def test_a_password_in_an_address_is_refused_and_not_repeated(given):
    with pytest.raises(errors.BadRequest) as caught:
        address.parse(given)
    assert "Secret1" not in str(caught.value)


@pytest.fixture
def made(monkeypatch):
    """What the stores' classes are called with."""
    calls = []

    class Module:
        def __getattr__(self, name):
            def make(*args, **settings):
                calls.append((name, args, settings))
                return local.LocalStore("/nowhere")

            return make

    monkeypatch.setattr(address, "_module", lambda name, location: Module())
    for variable in ("ST_AUTH", "ST_USER", "ST_KEY", "FREEZER_OSBRICK_PASSWORD"):
        monkeypatch.delenv(variable, raising=False)
    return calls


def configured(tmp_path, text):
    path = tmp_path / "conf"
    path.write_text(text)
    conf = cfg.ConfigOpts()
    opts.register(conf)
    conf([], default_config_files=[str(path)])
    return conf


VAULT = """
[repository:vault]
url = s3://bucket/prefix
endpoint = https://s3.example.org
access_key = AK
secret_key = SK
addressing = path
patience = 7
upload_limit = 10M
"""


@pytest.mark.parametrize("given", ["vault", "s3://bucket/prefix", "s3://bucket/prefix/"])
def test_settings_of_a_repository_reach_its_store(tmp_path, made, given):
    settings = named_repositories.settings_of(configured(tmp_path, VAULT), given)
    store = address.open_store(settings["url"], create=True, settings=settings)
    [(name, args, arguments)] = made
    assert (name, args) == ("S3Store", ("bucket", "prefix"))
    assert arguments == {
        "endpoint": "https://s3.example.org",
        "access_key": "AK",
        "secret_key": "SK",
        "addressing": "path",
        "conditional_put": "auto",
        "create": True,
    }
    assert isinstance(store, retry.RetryingStore) and store.patience == 7
    assert isinstance(store.inner, throttle.ThrottledStore)


def test_what_stands_in_the_address_counts(made):
    settings = {"endpoint": "https://other", "region": "south"}
    address.open_store("s3://b?endpoint=http://here&region=north", settings=settings)
    assert made[0][2] == {"endpoint": "http://here", "region": "north", "create": False}


def test_another_address_gets_nothing_of_it(tmp_path):
    settings = named_repositories.settings_of(configured(tmp_path, VAULT), "s3://bucket/other")
    assert settings["access_key"] is None and settings["patience"] == 300


def test_an_address_with_two_names(tmp_path):
    """Two identities for one repository: the name says which."""
    conf = configured(tmp_path, VAULT + VAULT.replace("vault", "pruner").replace("AK", "PK"))
    with pytest.raises(errors.ConfigurationError, match="pruner and vault"):
        named_repositories.settings_of(conf, "s3://bucket/prefix")
    assert named_repositories.settings_of(conf, "pruner")["access_key"] == "PK"


def test_values_that_make_no_sense(tmp_path):
    conf = configured(tmp_path, VAULT.replace("path", "sideways"))
    with pytest.raises(errors.ConfigurationError, match="repository:vault.*sideways"):
        named_repositories.settings_of(conf, "vault")
    with pytest.raises(errors.BadRequest, match="no bandwidth"):
        address.open_store("/srv/backups", settings={"download_limit": "fast"})


def test_secrets_are_masked_where_options_are_logged(tmp_path, caplog):
    import logging

    conf = configured(tmp_path, VAULT.replace("SK", "TopSecret") + "password = TopSecret\n")
    named_repositories.settings_of(conf, "vault")
    with caplog.at_level(logging.DEBUG):
        conf.log_opt_values(logging.getLogger("test"), logging.DEBUG)
    assert "secret_key" in caplog.text and "TopSecret" not in caplog.text


def test_a_repository_that_no_file_names():
    conf = cfg.ConfigOpts()
    opts.register(conf)
    conf([], default_config_files=[])
    named_repositories.configure(conf, "ftp://h/x", {"password": "P"})
    settings = named_repositories.settings_of(conf, "ftp://h/x")
    assert settings["url"] == "ftp://h/x" and settings["password"] == "P"


def test_settings_of_a_run_count_more_than_those_of_a_file(tmp_path):
    conf = configured(tmp_path, VAULT)
    named_repositories.configure(conf, "s3://bucket/prefix", {"access_key": "of the run"})
    settings = named_repositories.settings_of(conf, "s3://bucket/prefix")
    assert settings["access_key"] == "of the run"
    assert settings["secret_key"] == "SK" and settings["patience"] == 7


def test_passwords_come_from_the_configuration_a_file_or_the_environment(
    tmp_path, made, monkeypatch
):
    (tmp_path / "password").write_text("from file\nrest\n")
    monkeypatch.setenv("FREEZER_OSBRICK_PASSWORD", "from environment")
    in_file = {"password_file": str(tmp_path / "password"), "user": "configured"}
    address.open_store("ftp://user@host/x", settings={"password": "P"} | in_file)
    address.open_store("ftps://host/x", settings=in_file)
    address.open_store("sftp://user@host/x", settings={})
    assert [arguments["password"] for _, _, arguments in made] == [
        "P",
        "from file",
        "from environment",
    ]
    assert [arguments["user"] for _, _, arguments in made] == ["user", "configured", "user"]
    assert [arguments.get("encrypted") for _, _, arguments in made] == [False, True, None]


@pytest.mark.parametrize("content", [None, "", "\nsecond line"])
def test_a_password_file_that_holds_none(tmp_path, made, content):
    path = tmp_path / "password"
    if content is not None:
        path.write_text(content)
    with pytest.raises(errors.ConfigurationError, match="password"):
        address.open_store("ftp://u@h/x", settings={"password_file": str(path)})


def test_swift_asks_for_a_session_only_where_it_needs_one(made, monkeypatch):
    address.open_store("swift://c/x", session=lambda: "session", settings={"region": "north"})
    assert made[0][2] == {"region": "north", "session": "session", "create": False}
    monkeypatch.setenv("ST_AUTH", "http://here/auth")
    monkeypatch.setenv("ST_USER", "account:user")
    monkeypatch.setenv("ST_KEY", "K")

    def fail():
        raise AssertionError

    address.open_store("swift://c/x", session=fail)
    assert made[1][2] == {
        "auth_url": "http://here/auth",
        "user": "account:user",
        "key": "K",
        "create": False,
    }


@pytest.mark.parametrize(
    ("url", "package", "extra"),
    [("s3://b", "boto3", "s3"), ("swift://c", "swiftclient", "swift")]
    + [("sftp://h/x", "paramiko", "ssh")],
)
def test_a_library_that_is_not_there_is_named(monkeypatch, url, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"freezer_osbrick.store.{url.partition(':')[0]}", False)
    with pytest.raises(errors.ConfigurationError, match=rf"{package}.*\[{extra}\]"):
        address.open_store(url, session=lambda: None)


def test_a_store_that_is_away_when_it_is_opened_is_tried_again(made, monkeypatch):
    tries = []

    def away(*_):
        tries.append(1)
        if len(tries) < 3:
            raise errors.StoreUnavailable("Not now.")
        return local.LocalStore("/nowhere")

    monkeypatch.setattr(address, "_s3", away)
    address.open_store("s3://b", settings={"patience": 60.0})
    assert len(tries) == 3

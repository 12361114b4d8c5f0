# SPDX-License-Identifier: Apache-2.0
"""What real servers refuse, in the words that a person gets."""

import logging
import os
import socket
import subprocess
import threading

import pytest
import swiftclient

from freezer_osbrick import errors
from freezer_osbrick.store import address
from freezer_osbrick.store.retry import RetryingStore
from tests.functional.stores import openssh
from tests.functional.stores.conftest import new_name

SECRETS = ("admin-secret", "writer-secret", "backup-secret", "reader-secret", "wrong-secret")


@pytest.fixture(autouse=True)
def _no_secret_is_logged(caplog):
    for name in ("botocore", "urllib3.connectionpool", "swiftclient", "paramiko"):
        logging.getLogger(name).setLevel(logging.NOTSET)
    with caplog.at_level(logging.DEBUG):
        yield
    for secret in SECRETS:
        assert secret not in caplog.text


def test_a_bucket_that_is_not_there(swift_server):
    with pytest.raises(errors.StoreError, match="^There is no bucket absent at http://127"):
        swift_server.s3("absent")


def test_a_container_that_is_not_there(swift_server):
    with pytest.raises(errors.StoreError, match="^There is no container absent.$"):
        swift_server.swift("absent")


def test_a_folder_that_is_not_there(ssh_server, ftp_server):
    for made in (ssh_server.sftp, ftp_server.ftp):
        with pytest.raises(errors.StoreError, match="^There is no folder .*absent at .*ftp://"):
            made("absent")


def test_a_container_that_goes_away(swift_server):
    name = new_name()
    store = swift_server.swift(name, create=True)
    same = swift_server.s3(name)
    login = swift_server.login()
    swift = swiftclient.Connection(login["auth_url"], login["user"], login["key"])
    swift.delete_container(name)
    for ask in (lambda: list(store.list("")), store.now):
        with pytest.raises(errors.StoreError, match="There is no container"):
            ask()
    for ask in (lambda: list(same.list("")), same.now, lambda: same.get("config")):
        with pytest.raises(errors.StoreError, match="There is no bucket"):
            ask()


def test_wrong_passwords(swift_server, ssh_server, ftp_server, tmp_path):
    name = new_name()
    swift_server.s3(name, create=True)
    openssh.make_key(tmp_path / "other")
    for login in (
        lambda: swift_server.swift(name, key="wrong-secret"),
        lambda: swift_server.s3(name, secret_key="wrong-secret").get("config"),
        lambda: ssh_server.sftp(name, ssh_key_file=str(tmp_path / "other")),
        lambda: ssh_server.sftp(name, ssh_key_file=None, password="wrong-secret"),
        lambda: ftp_server.ftp(name, password="wrong-secret"),
        lambda: ftp_server.ftp(name, "ftps", password="wrong-secret"),
        lambda: ftp_server.ftp(name, user=None, password=None),
    ):
        with pytest.raises(errors.StoreAccessDenied):
            login()


def test_somebody_else_may_neither_read_nor_write(swift_server):
    name = new_name()
    swift_server.swift(name, create=True).put("config", [b"x"])
    account = f"{swift_server.url}/v1/AUTH_test"
    for store in (
        swift_server.swift(name, user="stranger", storage_url=account),
        swift_server.s3(name, user="stranger"),
    ):
        for ask in (
            lambda store=store: store.get("config"),
            lambda store=store: store.put("packs/00/x", [b"x"]),
            lambda store=store: store.delete("config"),
            lambda store=store: list(store.list("")),
        ):
            with pytest.raises(errors.StoreAccessDenied):
                ask()
        assert not store.capabilities.conditional_put


def test_a_reader_of_a_server_for_files(ftp_server):
    name = new_name()
    ftp_server.ftp(name, create=True).put("config", [b"x"])
    for kind in ("ftp", "ftps", "old"):
        store = ftp_server.ftp(name, kind, user="reader")
        assert store.get("config") == b"x"
        assert [info.name for info in store.list("")] == ["config"]
        for ask in (
            lambda store=store: store.put("packs/00/x", [b"x"]),
            lambda store=store: store.put("config", [b"y"], replace=True),
            lambda store=store: store.delete("config"),
        ):
            with pytest.raises(errors.StoreAccessDenied):
                ask()


def test_a_folder_that_may_not_be_read_is_not_empty(ssh_server, ftp_server):
    """Else all backups would seem gone, and all packs unused."""
    name = new_name()
    store = ssh_server.sftp(name, create=True)
    store.put("manifests/00", [b"x"])
    folder = ssh_server.folder / "files" / name / "manifests"
    folder.chmod(0)
    with pytest.raises(errors.StoreAccessDenied):
        list(store.list(""))
    folder.chmod(0o700)
    if os.geteuid() == 0:
        return  # pyftpdlib runs as we do, whom nothing is forbidden
    ftp = ftp_server.ftp(name, create=True)
    ftp.put("manifests/00", [b"x"])
    (ftp_server.folder / "files" / name / "manifests").chmod(0)
    with pytest.raises(errors.StoreAccessDenied):
        list(ftp.list(""))


def test_a_quota(swift_server):
    name = new_name()
    store = swift_server.swift(name, create=True)
    login = swift_server.login()
    swift = swiftclient.Connection(login["auth_url"], login["user"], login["key"])
    swift.post_container(name, {"X-Container-Meta-Quota-Bytes": "100000"})
    for each in (store, swift_server.s3(name)):
        with pytest.raises(errors.StoreFull, match="No room is left to store packs/00/large"):
            each.put("packs/00/large", [bytes(200_000)])
    assert list(store.list("")) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_full_disk_behind_sftp(ssh_server):
    name = new_name()
    folder = ssh_server.folder / "files" / name
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m,mode=777", "tmpfs", str(folder)],
        capture_output=True,
    )
    if mounted.returncode:
        pytest.skip("tmpfs cannot be mounted here")
    try:
        with ssh_server.sftp(name) as store:
            store.put("packs/00/small", [b"s" * 1000])
            with pytest.raises(errors.StoreFull, match="packs/00/large"):
                store.put("packs/00/large", (bytes(1 << 20) for _ in range(10)))
            assert [info.name for info in store.list("")] == ["packs/00/small"]
            assert os.listdir(folder / "packs" / "00") == ["small"]
            store.put("packs/00/other", [b"o" * (2 << 20)])
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_the_key_of_an_unknown_server(ssh_server, tmp_path):
    hosts = tmp_path / "new" / "known_hosts"
    with pytest.raises(errors.StoreAccessDenied, match="ssh-ed25519 SHA256:.*ssh-keyscan"):
        ssh_server.sftp(new_name(), known_hosts=str(hosts), create=True)
    assert not hosts.exists()
    ssh_server.sftp("same", known_hosts=str(hosts), accept_new_host=True, create=True)
    ssh_server.sftp("same", known_hosts=str(hosts))
    line = (ssh_server.folder / "known_hosts").read_text()
    assert hosts.read_text().split() == line.split()


def test_another_key_than_the_known_one(ssh_server, tmp_path):
    openssh.make_key(tmp_path / "k")
    other = (tmp_path / "k.pub").read_text().split()
    hosts = tmp_path / "known_hosts"
    hosts.write_text(f"[127.0.0.1]:{ssh_server.port} {other[0]} {other[1]}\n")
    for accept in (False, True):
        with pytest.raises(errors.StoreAccessDenied, match="Somebody may be in between"):
            ssh_server.sftp("x", known_hosts=str(hosts), accept_new_host=accept)


def test_a_certificate_of_nobody_known(ftp_server):
    with pytest.raises(errors.StoreError, match="No safe connection.*certificate"):
        ftp_server.ftp("x", "ftps", ca_file=None)


def test_keys_and_certificates_that_are_none(ssh_server, ftp_server, tmp_path):
    (tmp_path / "none").write_text("no key")
    with pytest.raises(errors.OsbrickError, match="none"):
        ssh_server.sftp("x", ssh_key_file=str(tmp_path / "none"))
    with pytest.raises(errors.ConfigurationError, match="absent"):
        ssh_server.sftp("x", ssh_key_file=str(tmp_path / "absent"))
    with pytest.raises(errors.ConfigurationError, match="none"):
        ftp_server.ftp("x", "ftps", ca_file=str(tmp_path / "none"))


def test_nobody_listens(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        port = taken.getsockname()[1]
        settings = {"patience": 0.1, "access_key": "a", "secret_key": "b", "password": "p"}
        login = {"auth_url": f"http://127.0.0.1:{port}/auth/v1.0", "user": "u"}
        for url in (
            f"s3://bucket?endpoint=http://127.0.0.1:{port}",
            "swift://container",
            f"sftp://u@127.0.0.1:{port}/x",
            f"ftp://u@127.0.0.1:{port}/x",
            f"ftps://u@127.0.0.1:{port}/x",
        ):
            with pytest.raises(errors.StoreUnavailable, match="cannot be reached"):
                address.open_store(url, settings=settings | login)


@pytest.mark.parametrize("kind", ["sftp", "ftp", "ftps", "swift", "s3"])
def test_connections_that_break(kind, swift_server, ssh_server, ftp_server):
    """Every connection that is open breaks between two calls: the next call goes over a new one."""
    name = new_name()
    store = {
        "sftp": lambda: ssh_server.sftp(name, create=True),
        "ftp": lambda: ftp_server.ftp(name, create=True),
        "ftps": lambda: ftp_server.ftp(name, "ftps", create=True),
        "swift": lambda: swift_server.swift(name, create=True),
        "s3": lambda: swift_server.s3(name, create=True),
    }[kind]()
    retried = RetryingStore(store, sleep=lambda seconds: None)
    retried.put("packs/00/x", [b"x" * 100_000])
    for connection in sockets_of_this_process():
        connection.shutdown(socket.SHUT_RDWR)
        connection.detach()  # the descriptor stays its owner's
    assert retried.get("packs/00/x", 99_999) == b"x"
    for connection in sockets_of_this_process():
        connection.shutdown(socket.SHUT_RDWR)
        connection.detach()
    retried.put("packs/00/y", [b"y"])
    assert [info.name for info in retried.list("")] == ["packs/00/x", "packs/00/y"]


def sockets_of_this_process():
    """Sockets over the descriptors of open TCP connections."""
    found = []
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        try:
            if not os.readlink(f"/proc/self/fd/{descriptor}").startswith("socket:"):
                continue
            candidate = socket.socket(fileno=descriptor)
        except OSError:
            continue
        try:
            tcp = candidate.family == socket.AF_INET and candidate.getpeername()
        except OSError:
            tcp = False
        found.append(candidate) if tcp else candidate.detach()
    return found


def test_sweep(ssh_server, ftp_server, swift_server):
    name = new_name()
    for store, folder in (
        (ssh_server.sftp(name, create=True), ssh_server.folder / "files" / name),
        (ftp_server.ftp(name, create=True), ftp_server.folder / "files" / name),
        (ftp_server.ftp(name + "-old", "old", create=True),)
        + (ftp_server.folder / "files" / (name + "-old"),),
    ):
        store.put("packs/00/x", [b"x"])
        for left in (".put-0123", "packs/00/.put-4567"):
            (folder / left).write_bytes(b"half")
        assert store.sweep() == ()
        assert sorted(os.path.basename(path) for path in store.sweep(older_than=-5)) == [
            ".put-0123",
            ".put-4567",
        ]
        assert sorted(path.name for path in folder.rglob("*") if path.is_file()) == ["x"]
    assert list(swift_server.swift(new_name(), create=True).sweep()) == []


def test_two_s3_stores_of_one_bucket_and_their_probe(swift_server):
    name = new_name()
    one = swift_server.s3(name, "one", create=True)
    other = swift_server.s3(name, "other")
    one.put("config", [b"1"])
    other.put("config", [b"2"])
    assert one.get("config") == b"1" and [i.name for i in other.list("")] == ["config"]
    assert not one.capabilities.conditional_put, "Swift looks before the put and not at its end"
    for known in ("yes", "no"):
        store = swift_server.s3(name, "one", conditional_put=known)
        with pytest.raises(errors.ObjectExists):
            store.put("config", [b"3"])
    assert one.get("config") == b"1"


def test_many_pages(swift_server, monkeypatch):
    name = new_name()
    store = swift_server.swift(name, "p", create=True)
    names = [f"packs/{number:03}" for number in range(25)]
    for each in names:
        store.put(each, [b""])
    monkeypatch.setattr("freezer_osbrick.store.swift._PAGE", 10)
    assert [info.name for info in store.list("packs/")] == names
    assert [info.name for info in store.list_after("packs/", names[12])] == names[13:]


def test_a_token_that_expired(swift_server):
    store = swift_server.swift(new_name(), create=True)
    with store._connections.lent() as connection:
        connection.token = "AUTH_tk00000000000000000000000000000000"
    store.put("config", [b"x"])
    assert store.get("config") == b"x"


def test_threads_have_connections_of_their_own(ssh_server):
    store = ssh_server.sftp(new_name(), create=True)
    barrier = threading.Barrier(4)
    used = set()

    def use():
        with store._connections.lent() as connection:
            used.add(id(connection))
            barrier.wait()

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(used) == 4
    store.close()

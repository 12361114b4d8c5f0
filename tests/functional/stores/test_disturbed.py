# SPDX-License-Identifier: Apache-2.0
"""Real servers behind a way that is closed for a minute, narrow, or cut in the middle of an answer:
backups and restores come through all the same."""

import dataclasses
import threading
import time

import pytest

from freezer_osbrick import errors
from freezer_osbrick.repository import repository
from freezer_osbrick.repository.leases import Lease
from freezer_osbrick.repository.manifest import Manifest
from freezer_osbrick.store.retry import RetryingStore
from tests.functional.stores.conftest import new_name
from tests.functional.stores.proxy import Proxy
from tests.unit.fakes import MemoryDevice
from tests.unit.pipeline import flow

KINDS = ("swift", "s3", "sftp", "ftp", "ftps")
AWAY = 60.0  # seconds


@pytest.fixture
def behind_a_proxy(request):
    """Makes of a kind a store, and the proxy that it is reached through."""
    proxies = []

    def proxied(server_name, port_of):
        server = request.getfixturevalue(server_name)
        proxies.append(Proxy(port_of(server)))
        return server, proxies[-1]

    def make(kind):
        name = new_name()
        if kind == "swift":
            server, proxy = proxied("swift_server", lambda server: server.port)
            moved = dataclasses.replace(server, port=proxy.port)
            storage_url = f"{moved.url}/v1/AUTH_test"
            return moved.swift(name, create=True, storage_url=storage_url), proxy
        if kind == "s3":
            server, proxy = proxied("s3_server", lambda server: int(server.url.rsplit(":")[-1]))
            moved = dataclasses.replace(server, url=f"http://127.0.0.1:{proxy.port}")
            return moved.s3(name, create=True), proxy
        if kind == "sftp":
            server, proxy = proxied("ssh_server", lambda server: server.port)
            known = server.folder / f"known-{name}"
            hosts = (server.folder / "known_hosts").read_text()
            known.write_text(hosts.replace(f":{server.port} ", f":{proxy.port} "))
            moved = dataclasses.replace(server, port=proxy.port)
            return moved.sftp(name, create=True, known_hosts=str(known)), proxy
        server, proxy = proxied("ftp_server", lambda server: server.ports[kind])
        moved = dataclasses.replace(server, ports={kind: proxy.port})
        return moved.ftp(name, kind, create=True), proxy

    yield make
    for proxy in proxies:
        proxy.stop()


def back_up(store, source, parent=None):
    repo = repository.open_repository(store)
    with Lease(repo, "backup") as lease:
        manifest, _ = flow.backup(repo, source, parent=parent)
        lease.confirm()
    return manifest


def restores(store, manifest, content):
    repo = repository.open_repository(store)
    target = MemoryDevice(bytes(len(content)))
    flow.restore(repo, Manifest(repo, manifest.backup_id), target)
    return target.content == content


def test_a_store_that_is_away_for_a_minute(behind_a_proxy):
    """It goes away while the volume is read, and comes back: nobody notices but the log."""
    failures = []

    def work(kind, store, proxy):
        try:
            patient = RetryingStore(store)
            flow.new_repository(patient)
            content = flow.mixed(40 * flow.CHUNK)
            source = MemoryDevice(content)
            first = back_up(patient, source)
            # The second one, and then its restore, find the way closed.
            source.content[:: flow.CHUNK] = bytes(len(source.content[:: flow.CHUNK]))
            proxy.close_the_way()
            began = time.monotonic()
            threading.Timer(AWAY, proxy.open_the_way).start()
            second = back_up(patient, source, first)
            assert time.monotonic() - began >= AWAY
            proxy.close_the_way()
            threading.Timer(1.0, proxy.open_the_way).start()
            assert restores(patient, second, source.content)
            assert restores(patient, first, content)
        except BaseException as error:
            failures.append((kind, error))

    threads = [
        threading.Thread(target=work, args=(kind, *behind_a_proxy(kind)), name=kind)
        for kind in KINDS
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_that_stays_away(kind, behind_a_proxy):
    """One clear sentence, and what was stored before is whole."""
    store, proxy = behind_a_proxy(kind)
    flow.new_repository(store)
    source = MemoryDevice(flow.mixed(10 * flow.CHUNK))
    first = back_up(store, source)
    proxy.close_the_way()
    with pytest.raises(errors.StoreUnavailable, match=r"^[^\n]+\.\)?$"):
        back_up(RetryingStore(store, patience=0.5), source, first)
    proxy.open_the_way()
    patient = RetryingStore(store)
    assert restores(patient, first, source.content)
    assert [info.name for info in patient.list("manifests/")] == [
        f"manifests/{first.backup_id.hex()}"
    ]


@pytest.mark.parametrize("kind", ["swift", "s3", "sftp"])
def test_a_slow_way(kind, behind_a_proxy):
    store, proxy = behind_a_proxy(kind)
    patient = RetryingStore(store)
    flow.new_repository(patient)
    proxy.rate = 200_000
    source = MemoryDevice(flow.mixed(20 * flow.CHUNK))
    assert restores(patient, back_up(patient, source), source.content)


@pytest.mark.parametrize("kind", ["swift", "s3", "sftp"])
def test_answers_that_are_cut(kind, behind_a_proxy):
    """A short read is no data, and no damage."""
    store, proxy = behind_a_proxy(kind)
    patient = RetryingStore(store)
    flow.new_repository(patient)
    source = MemoryDevice(flow.mixed(40 * flow.CHUNK))
    manifest = back_up(patient, source)
    proxy.cuts = 5
    assert restores(patient, manifest, source.content)
    assert proxy.cuts == 0

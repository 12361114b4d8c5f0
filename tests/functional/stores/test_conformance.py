# SPDX-License-Identifier: Apache-2.0
"""The conformance suite of all stores, on real servers and through the wrappers."""

import pytest

from freezer_osbrick.store.retry import RetryingStore
from freezer_osbrick.store.subfolder import SubfolderStore
from freezer_osbrick.store.throttle import Bucket, ThrottledStore
from tests.functional.stores.conftest import new_name
from tests.unit.store import test_conformance as suite
from tests.unit.store.flaky import FlakyStore

# All tests of the suite become tests of this module.
globals().update({name: test for name, test in vars(suite).items() if name.startswith("test_")})

STORES = {
    "swift": lambda server: server("swift_server").swift(new_name(), "a/prefix", create=True),
    "s3": lambda server: server("swift_server").s3(new_name(), "a/prefix", create=True),
    "s3 with conditional puts": lambda server: server("s3_server").s3(
        new_name(), "a/prefix", create=True
    ),
    "subfolder": lambda server: SubfolderStore(
        server("swift_server").s3(new_name(), create=True), "a-folder"
    ),
    "sftp": lambda server: server("ssh_server").sftp(new_name(), create=True),
    "ftp": lambda server: server("ftp_server").ftp(new_name(), create=True),
    "ftps": lambda server: server("ftp_server").ftp(new_name(), "ftps", create=True),
    "ftp without MLSD": lambda server: server("ftp_server").ftp(new_name(), "old", create=True),
    "wrapped": lambda server: RetryingStore(
        FlakyStore(
            ThrottledStore(
                server("swift_server").swift(new_name(), create=True),
                upload=Bucket(1 << 30),
                download=Bucket(1 << 30),
            )
        ),
        sleep=lambda seconds: None,
    ),
}


@pytest.fixture(params=STORES)
def store(request):
    with STORES[request.param](request.getfixturevalue) as made:
        yield made


@pytest.fixture
def clock_step():
    """Dates in HTTP are whole seconds, and some servers round them up."""
    return 2.0

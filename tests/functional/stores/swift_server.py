# SPDX-License-Identifier: Apache-2.0
"""Swift in one process: proxy, account, container and object server, with the S3 API.

The real services on one device with one replica. Only memcached is replaced, by a dict: there is
one process. Runs in an environment of its own, and ends with its standard input.

Usage: swift_server.py FOLDER, of a file system with user attributes. Says ``{"port": N}``.
"""

import eventlet

eventlet.monkey_patch()

import json  # noqa: E402
import logging  # noqa: E402
import os  # noqa: E402
import pathlib  # noqa: E402
import sys  # noqa: E402

from eventlet import wsgi  # noqa: E402
from swift.common import storage_policy, utils  # noqa: E402
from swift.common.ring import RingBuilder  # noqa: E402
from swift.common.wsgi import ConfigString, loadapp  # noqa: E402

KINDS = ("account", "container", "object")

SWIFT_CONF = """\
[swift-hash]
swift_hash_path_prefix = freezer
swift_hash_path_suffix = osbrick

[storage-policy:0]
name = only
default = yes
"""

# "writer" belongs to the project, but has only what a container's access list gives.
PROXY = """\
[DEFAULT]
swift_dir = {etc}
log_level = WARNING

[pipeline:main]
pipeline = catch_errors gatekeeper cache listing_formats s3api tempauth copy container_quotas \
slo versioned_writes symlink proxy-server

[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true

[filter:tempauth]
use = egg:swift#tempauth
user_test_admin = admin-secret .admin
user_test_writer = writer-secret
user_test_stranger = stranger-secret
storage_url_scheme = http

[filter:cache]
paste.filter_factory = swift_server:cache_factory

[filter:s3api]
use = egg:swift#s3api
location = test-region

[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:container_quotas]
use = egg:swift#container_quotas
[filter:symlink]
use = egg:swift#symlink
[filter:copy]
use = egg:swift#copy
[filter:slo]
use = egg:swift#slo
[filter:versioned_writes]
use = egg:swift#versioned_writes
allow_object_versioning = true
"""

BACKEND = """\
[DEFAULT]
swift_dir = {etc}
devices = {devices}
mount_check = false
fallocate_reserve = 0
disable_fallocate = true
log_level = WARNING

[pipeline:main]
pipeline = {kind}-server

[app:{kind}-server]
use = egg:swift#{kind}
"""


class Cache:
    """Memcached's part in Swift, for one process."""

    def __init__(self):
        self.values = {}

    def get(self, key, *, raise_on_error=False):
        return self.values.get(key)

    def set(self, key, value, **_):
        # As memcached does: what comes back is a copy.
        self.values[key] = json.loads(json.dumps(value))

    def incr(self, key, delta=1, **_):
        self.values[key] = self.values.get(key, 0) + delta
        return self.values[key]

    def decr(self, key, delta=1, **_):
        return self.incr(key, -delta)

    def delete(self, key, **_):
        self.values.pop(key, None)


def cache_factory(_global_conf, **_local_conf):
    def filter_of(app):
        cache = Cache()

        def with_cache(environ, start_response):
            environ["swift.cache"] = cache
            return app(environ, start_response)

        return with_cache

    return filter_of


def make_ring(kind, port, etc):
    builder = RingBuilder(part_power=4, replicas=1, min_part_hours=1)
    builder.add_dev(
        {"id": 0, "region": 1, "zone": 1, "weight": 1, "ip": "127.0.0.1", "port": port}
        | {"device": "disk", "replication_ip": "127.0.0.1", "replication_port": port}
    )
    builder.rebalance()
    builder.get_ring().save(str(etc / f"{kind}.ring.gz"))


def main():
    sys.modules["swift_server"] = sys.modules["__main__"]  # where paste looks for our filter
    folder = pathlib.Path(sys.argv[1])
    etc, devices = folder / "etc", folder / "devices"
    etc.mkdir(parents=True)
    (devices / "disk").mkdir(parents=True)
    (etc / "swift.conf").write_text(SWIFT_CONF)
    sockets = {kind: eventlet.listen(("127.0.0.1", 0)) for kind in (*KINDS, "proxy")}
    for kind in KINDS:
        make_ring(kind, sockets[kind].getsockname()[1], etc)
    utils.set_swift_dir(str(etc))
    storage_policy.reload_storage_policies()
    pool = eventlet.GreenPool(2000)
    quiet = logging.getLogger("requests")
    quiet.addHandler(logging.NullHandler())
    quiet.propagate = False
    for kind, listening in sockets.items():
        text = PROXY if kind == "proxy" else BACKEND
        conf = ConfigString(text.format(etc=etc, devices=devices, kind=kind))
        app = loadapp(conf, global_conf={"log_name": kind})
        pool.spawn(wsgi.server, listening, app, quiet, custom_pool=pool, log_output=False)
    print(json.dumps({"port": sockets["proxy"].getsockname()[1]}), flush=True)
    eventlet.tpool.execute(sys.stdin.read)
    os._exit(0)


if __name__ == "__main__":
    main()

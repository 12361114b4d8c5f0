# SPDX-License-Identifier: Apache-2.0
"""Identities that can add to a repository and take nothing away, by the policies that we ship."""

import fnmatch
import json
import os
import pathlib
import shutil
import subprocess
import sys
import threading
import urllib.parse

import pytest
import swiftclient

from freezer_osbrick import errors
from freezer_osbrick.operations.removal import carry_out
from freezer_osbrick.repository import catalogue, repository
from freezer_osbrick.repository.leases import Lease
from freezer_osbrick.repository.manifest import Manifest
from freezer_osbrick.repository.retention import Rules
from freezer_osbrick.store.local import LocalStore
from tests.functional.stores import environment as store_servers
from tests.functional.stores.conftest import POLICY, new_name
from tests.unit.fakes import MemoryDevice
from tests.unit.pipeline import flow
from tests.unit.store.test_local import in_child, opened_to_all

POLICIES = POLICY.parent
CONTENT = flow.mixed(40 * flow.CHUNK)


def back_up_and_restore(store):
    """Twice, with a lease as operations take it; the second builds on the first."""
    repo = flow.new_repository(store)
    with Lease(repo, "backup"):
        first, _ = flow.backup(repo, MemoryDevice(CONTENT))
        changed = bytearray(CONTENT)
        changed[100_000:100_010] = b"0123456789"
        second, _ = flow.backup(repo, MemoryDevice(changed), parent=first)
    again = repository.open_repository(store)
    for manifest, content in ((first, CONTENT), (second, changed)):
        target = MemoryDevice(bytes(len(CONTENT)))
        flow.restore(again, Manifest(again, manifest.backup_id), target)
        assert target.content == content
    return first


def assert_nothing_can_be_taken_away(store):
    [manifest] = [info.name for info in list(store.list("manifests/"))[:1]]
    pack = next(store.list("packs/")).name
    for name in (manifest, pack, "config"):
        with pytest.raises(errors.StoreAccessDenied, match=name):
            store.delete(name)
        with pytest.raises((errors.StoreAccessDenied, errors.ObjectExists)):
            store.put(name, [b"other"])
        with pytest.raises(errors.StoreAccessDenied, match=name):
            store.put(name, [b"other"], replace=True)


# -- S3 -------------------------------------------------------------------------------------------

ACTIONS = {
    "PutObject": "s3:PutObject",
    "GetObject": "s3:GetObject",
    "HeadObject": "s3:GetObject",
    "ListObjectsV2": "s3:ListBucket",
    "HeadBucket": "s3:ListBucket",
    "DeleteObject": "s3:DeleteObject",
}


class Guard:
    """Refuses, on the way to the server, the requests that a policy does not allow.

    :ivar asked: the actions that were asked for.
    """

    class Refused:
        status_code = 403
        headers = {}

    def __init__(self, allows):
        """:param allows: called with an action, a resource and the request's context."""
        self.allows = allows
        self.asked = set()

    def __call__(self, model, params, **_):
        action = ACTIONS[model.name]
        self.asked.add(action)
        path = urllib.parse.unquote(urllib.parse.urlsplit(params["url"]).path).strip("/")
        condition = params["headers"].get("If-None-Match")
        context = {"s3:if-none-match": condition} if condition else {}
        if self.allows(action, f"arn:aws:s3:::{path}", context):
            return None
        error = {"Code": "AccessDenied", "Message": "Access Denied"}
        return self.Refused, {"Error": error, "ResponseMetadata": {"HTTPStatusCode": 403}}


def own_evaluation(bucket):
    """As Amazon describes it: what is not allowed, or is denied, is refused."""
    statements = json.loads(POLICY.read_text().replace("BUCKET", bucket))["Statement"]

    def holds(condition, context):
        assert condition.keys() <= {"Null"}
        wanted = condition.get("Null", {})
        return all((key not in context) == (value == "true") for key, value in wanted.items())

    def allows(action, resource, context):
        effects = {
            statement["Effect"]
            for statement in statements
            if action in statement["Action"]
            and any(fnmatch.fnmatch(resource, one) for one in statement["Resource"])
            and holds(statement.get("Condition", {}), context)
        }
        return effects == {"Allow"}

    return allows


class Simulator:
    """The evaluation of another project, which knows which actions and conditions there are."""

    PACKAGE = "@cloud-copilot/iam-simulate@0.1.173"

    def __init__(self, bucket):
        if not shutil.which("npm") or not shutil.which("node"):
            pytest.skip("the simulator of policies needs node and npm")
        folder = store_servers.folder() / "policy-simulator"
        folder.mkdir(parents=True, exist_ok=True)
        with store_servers.locked(folder):
            if not (folder / "node_modules").exists():
                options = ["--prefix", str(folder), "--no-audit", "--no-fund", "--ignore-scripts"]
                store_servers.run(
                    ["npm", "install", *options, self.PACKAGE], "the simulator of policies"
                )
        script = pathlib.Path(__file__).with_name("policy_simulator.mjs")
        self._process = subprocess.Popen(
            ["node", str(script), str(POLICY), bucket],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._lock = threading.Lock()

    def __call__(self, action, resource, context):
        question = {"action": action, "resource": resource, "context": context}
        with self._lock:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
            answer = json.loads(self._process.stdout.readline())
        assert answer in ("Allowed", "ExplicitlyDenied", "ImplicitlyDenied"), answer
        return answer == "Allowed"

    def close(self):
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


@pytest.fixture(params=["our evaluation", "simulator"])
def evaluation(request):
    """Makes of a bucket's name what evaluates the policy for it."""
    if request.param != "simulator":
        yield own_evaluation
        return
    running = []

    def start(bucket):
        running.append(Simulator(bucket))
        return running[-1]

    yield start
    for simulator in running:
        simulator.close()


@pytest.mark.parametrize("prefix", ["", "deep/er"])
@pytest.mark.parametrize("kind", ["swift_server", "s3_server"])
def test_the_policy_of_s3(request, kind, prefix, evaluation):
    server = request.getfixturevalue(kind)
    bucket = new_name()
    server.s3(bucket, create=True)
    store = server.s3(bucket, prefix)
    guard = Guard(evaluation(bucket))
    store._client.meta.events.register("before-call.s3", guard)
    back_up_and_restore(store)
    assert {"s3:PutObject", "s3:GetObject", "s3:ListBucket"} <= guard.asked
    assert_nothing_can_be_taken_away(store)
    assert_pruning_is_refused(store)


def test_a_server_that_knows_the_policy(s3_server):
    """The server itself decides, by the policy as it is shipped. It knows no conditions, and so
    takes the denial of puts without one for a denial of all puts: the owner stores the backups."""
    owner = s3_server.s3(s3_server.bucket, create=True)
    made = back_up_and_restore(owner)
    agent = s3_server.s3(s3_server.bucket, user="agent")
    repo = repository.open_repository(agent)
    target = MemoryDevice(bytes(len(CONTENT)))
    with Lease(repo, "restore", needed=False):
        flow.restore(repo, Manifest(repo, made.backup_id), target)
    assert target.content == CONTENT
    assert_nothing_can_be_taken_away(agent)
    assert_pruning_is_refused(agent)
    s3_server.s3("another-bucket", create=True)
    with pytest.raises(errors.StoreError):
        s3_server.s3("another-bucket", user="agent").get("config")


def assert_pruning_is_refused(store):
    """In one clear sentence, and nothing is gone."""
    repo = repository.open_repository(store)
    before = catalogue.backups(repo)
    everything = [info.name for info in store.list("")]
    with pytest.raises(
        errors.StoreAccessDenied, match="^0 of 1 backups were removed: .*not delete"
    ):
        carry_out(repo, Rules(last=1), lambda backup: True)
    assert catalogue.backups(repo) == before
    assert [info.name for info in store.list("")] == everything


# -- Swift ----------------------------------------------------------------------------------------


def test_the_policy_of_swift(swift_server):
    """Swift itself enforces it: the backup identity hides at most, and the owner brings it back."""
    container = new_name()
    login = swift_server.login()
    environment = {
        **os.environ,
        "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}",
        "ST_AUTH": login["auth_url"],
        "ST_USER": login["user"],
        "ST_KEY": login["key"],
    }
    command = [str(POLICIES / "swift-append-only.sh"), container, "test:writer"]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    account = f"{swift_server.url}/v1/AUTH_test"
    store = swift_server.swift(container, user="writer", storage_url=account)
    back_up_and_restore(store)

    owner = swiftclient.Connection(**owner_login(login))
    writer = swiftclient.Connection(
        **owner_login(swift_server.login("writer")), os_options={"object_storage_url": account}
    )
    name = next(store.list("packs/")).name
    original = store.get(name)
    store.put(name, [b"garbage"], replace=True)
    store.delete(name)
    versions = versions_of(owner, container, name)
    [kept] = [v for v in versions if v["bytes"] == len(original)]
    for version in versions:
        with pytest.raises(swiftclient.ClientException) as refused:
            writer.delete_object(
                container, name, query_string=f"version-id={version['version_id']}"
            )
        assert refused.value.http_status == 403
    for headers in ({"X-Versions-Enabled": "false"}, {"X-Container-Write": "test:writer,.r:*"}):
        with pytest.raises(swiftclient.ClientException) as refused:
            writer.post_container(container, headers)
        assert refused.value.http_status == 403
    for version in versions:
        if version is not kept:
            owner.delete_object(container, name, query_string=version_of(version))
    owner.put_object(container, name, b"", query_string=version_of(kept))
    assert store.get(name) == original


def version_of(entry):
    return f"version-id={entry['version_id']}"


def owner_login(login):
    return {"authurl": login["auth_url"], "user": login["user"], "key": login["key"], "retries": 0}


def versions_of(connection, container, name):
    _, listed = connection.get_container(container, query_string="versions", prefix=name)
    return [entry for entry in listed if entry["version_id"] != "null"]


# -- local ----------------------------------------------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0, reason="attributes of files need root")
def test_the_policy_of_a_local_folder(tmp_path):
    folder = tmp_path / "store"
    folder.mkdir()
    os.chown(folder, 65534, 65534)
    probe = tmp_path / "probe"
    probe.touch()
    if (
        not shutil.which("chattr")
        or subprocess.run(["chattr", "+i", str(probe)], capture_output=True).returncode
    ):
        pytest.skip("this file system has no immutable files")
    subprocess.run(["chattr", "-i", str(probe)], check=True)
    script = str(POLICIES / "local-append-only.sh")

    def as_writer(task):
        with opened_to_all(str(tmp_path)):
            assert in_child(lambda: task(LocalStore(str(folder))), user=65534) == 0

    try:
        as_writer(back_up_and_restore)
        (folder / ".put-0123").touch()
        subprocess.run([script, str(folder)], check=True)
        as_writer(assert_nothing_can_be_taken_away)
        as_writer(lambda store: store.put("packs/00/new", [b"added"]))
        (folder / ".put-0123").unlink()  # what is unfinished can be swept
    finally:
        subprocess.run([script, "--undo", str(folder)], check=True)
    as_writer(lambda store: store.delete("packs/00/new"))

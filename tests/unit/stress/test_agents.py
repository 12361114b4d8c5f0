# SPDX-License-Identifier: Apache-2.0
"""Any history of several agents at one repository, against a model: a dict of contents.

They back up, restore, verify, check, repair, prune, remove and collect garbage at the same time,
are killed at any call to the store, and find clocks that jump by a year and listings that lag
behind. A bounded number of histories is tried; with ``FREEZER_OSBRICK_STRESS=600`` in the
environment new ones are tried for 600 seconds:

    FREEZER_OSBRICK_STRESS=600 python -m pytest -s tests/unit/stress
"""

import functools
import os
import random
import time

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)
from oslo_config import cfg

from freezer_osbrick import errors, opts
from freezer_osbrick.operations.check import check
from freezer_osbrick.operations.context import Context
from freezer_osbrick.operations.prune import PruneRequest, prune
from freezer_osbrick.operations.repair import repair
from freezer_osbrick.operations.verify import VerifyRequest, verify
from freezer_osbrick.pipeline.progress import Progress
from freezer_osbrick.pipeline.restore import RestoreReader
from freezer_osbrick.repository import catalogue, collection, keys, leases, packs, repository
from freezer_osbrick.repository import format as form
from freezer_osbrick.repository.manifest import Manifest
from tests.unit.care.conftest import volume_backup
from tests.unit.fakes import MemoryDevice
from tests.unit.stress.agents import Agent, Died, SharedStore

BLOCK, CHUNK_BLOCKS = 4096, 2
CHUNK = BLOCK * CHUNK_BLOCKS
HOUR, DAY, YEAR = 3600.0, 86400.0, 365 * 86400.0
SECRET = b"a secret"
LAG = 3000.0  # seconds
MOST_AGENTS = 3
VOLUMES = ("v0", "v1")

EXAMPLES = 25
STRESS = float(os.environ.get("FREEZER_OSBRICK_STRESS", "0"))

volumes = st.sampled_from(VOLUMES)
slots = st.integers(0, MOST_AGENTS - 1)


class Agents(RuleBasedStateMachine):
    """Two volumes, one repository, at most three agents at a time."""

    tried = 0

    @initialize(sealed=st.booleans(), lags=st.booleans(), seed=st.integers(0, 1 << 30))
    def begin(self, sealed, lags, seed):
        type(self).tried += 1
        self.random = random.Random(seed)
        self.store = SharedStore(LAG if lags else 0.0)
        self.secret = SECRET if sealed else None
        repository.create(
            self.store, secret=self.secret, block_size=BLOCK, chunk_blocks=CHUNK_BLOCKS
        )
        self.store.elapsed += LAG
        self.skew = 0.0  # of the agents' clocks against the store's
        self.volumes = {name: bytearray(self.random.randbytes(CHUNK * 6 + 99)) for name in VOLUMES}
        self.contents = {}  # of every backup whose manifest was ever put, by its id
        self.doubtful = set()  # put by who may have been taken for dead, and not taken back yet
        self.agents = []

    # -- time ---------------------------------------------------------------------------------

    @rule(hours=st.sampled_from([0, 1, 13, 25]))
    def all_sleep(self, hours):
        """Time passes, and nobody renews a lease."""
        self._pass(hours * HOUR or 60.0)
        for agent in self.agents:
            agent.lost_touch |= self.store.elapsed - agent.renewed > leases.TRUSTED_FOR

    @rule(hours=st.sampled_from([5, 25, 50]))
    def time_passes(self, hours):
        """Whoever is at work renews the lease."""
        for _ in range(0, hours, 5):
            self._pass(5 * HOUR)
            for agent in self.agents:
                if not agent.renew(self.store):
                    agent.lost_touch |= self.store.elapsed - agent.renewed > leases.TRUSTED_FOR

    def _pass(self, seconds):
        self.store.clock += seconds
        self.store.elapsed += seconds

    @rule(years=st.sampled_from([-1, 1]))
    def the_clock_of_the_store_jumps(self, years):
        self.store.clock += years * YEAR
        for agent in self.agents:
            agent.lost_touch = True

    @rule(years=st.sampled_from([-1, 0, 1]))
    def the_clocks_of_hosts_jump(self, years):
        self.skew = years * YEAR

    # -- volumes ------------------------------------------------------------------------------

    @rule(volume=volumes, place=st.integers(0, CHUNK * 6), length=st.sampled_from([9, CHUNK * 3]))
    def write(self, volume, place, length):
        content = self.volumes[volume]
        length = min(length, len(content) - place)
        content[place : place + length] = self.random.randbytes(length)

    @rule(volume=volumes)
    def discard(self, volume):
        content = self.volumes[volume]
        content[CHUNK : 4 * CHUNK] = bytes(3 * CHUNK)

    # -- agents -------------------------------------------------------------------------------

    @rule(volume=volumes, incremental=st.booleans())
    def begin_a_backup(self, volume, incremental):
        content = bytes(self.volumes[volume])
        now = int(self.store.clock + self.skew)

        def task(agent):
            agent.content = content
            repo = self._open(agent)
            device = MemoryDevice(content, writable=False)
            one, record, _ = volume_backup(
                _context(repo), repo, volume, device, incremental=incremental
            )
            backup_id = os.urandom(16)
            one.store(backup_id, record, now)
            return backup_id.hex()

        self._start("backup", task)

    @rule(choice=st.integers(0, 99), compare=st.booleans())
    def begin_a_restore(self, choice, compare):
        backup_id = self._chosen(choice)
        if not backup_id:
            return
        content = self.contents[backup_id]
        noise = self.random.randbytes(len(content))

        def task(agent):
            repo = self._open(agent)
            device = MemoryDevice(noise)
            with leases.Lease(repo, "restore", needed=False):
                manifest = Manifest(repo, bytes.fromhex(backup_id))
                reader = RestoreReader(
                    repo, manifest, device, compare=compare, threads=2, progress=Progress("v")
                )
                try:
                    reader.run()
                except errors.DamagedRanges as error:
                    for start, length in error.ranges:
                        device.content[start : start + length] = content[start : start + length]
                    assert device.content == content, "what is not named is not right"
                    raise
            assert device.content == content, "wrong data"

        self._start(f"restore {backup_id}", task)

    @rule(share=st.sampled_from([1.0, 0.2]))
    def begin_to_verify(self, share):
        self._care("verify", lambda context: verify(context, "", VerifyRequest(share=share)))

    @rule()
    def begin_to_check(self):
        self._care("check", lambda context: check(context, ""))

    @rule()
    def begin_to_repair(self):
        self._care("repair", lambda context: repair(context, ""))

    @rule(last=st.integers(1, 2), daily=st.integers(0, 2))
    def begin_to_prune(self, last, daily):
        request = PruneRequest(keep_last=last, keep_daily=daily)
        self._care("prune", lambda context: prune(context, "", request))

    @rule(choice=st.integers(0, 99))
    def begin_to_remove(self, choice):
        backup_id = self._chosen(choice)
        if not backup_id:
            return

        def task(agent):
            repo = self._open(agent)
            catalogue.remove(repo, catalogue.find(repo, backup_id))

        self._start("remove", task)

    @rule(rewrite_below=st.sampled_from([0.0, 0.7]))
    def begin_to_collect(self, rewrite_below):
        def task(agent):
            return collection.collect(self._open(agent), rewrite_below=rewrite_below)

        self._start("collect", task)

    @rule(choice=st.integers(0, 99), hours=st.sampled_from([1, 25]))
    def tidy_up(self, choice, hours):
        """Somebody removes a backup and collects garbage, undisturbed, while the others go on."""
        repo = repository.open_repository(self.store, secret=self.secret)
        ids = sorted(self._ids())
        if ids:  # whether listings show it yet or not
            backup_id = ids[choice % len(ids)]
            catalogue.remove(repo, catalogue.Backup(backup_id, 0, 0, {}))
        for _ in range(2):
            collection.collect(repo)
            self.time_passes(hours)
        collection.collect(repo)

    @rule(volume=volumes, calls=st.integers(1, 60))
    def begin_an_incremental_backup(self, volume, calls):
        """That builds on another one, and is in the middle of it."""
        self.write(volume, 0, 9)
        self.begin_a_backup(volume, False)
        self.finish(len(self.agents) - 1)
        self.write(volume, CHUNK * 2, 9)
        self.begin_a_backup(volume, True)
        self.advance(len(self.agents) - 1, calls)

    @rule(slot=slots, calls=st.integers(1, 40))
    def advance(self, slot, calls):
        agent = self._agent(slot)
        if agent:
            agent.advance(calls)
            if agent.ended:
                self._judge(agent)

    @rule(slot=slots)
    def finish(self, slot):
        agent = self._agent(slot)
        if agent:
            agent.finish()
            self._judge(agent)

    @rule(slot=slots)
    def kill(self, slot):
        agent = self._agent(slot)
        if agent:
            agent.kill()
            self._judge(agent)

    # -- what must hold ---------------------------------------------------------------------------

    @rule()
    def everything_listed_restores(self):
        if not self.agents:
            self._prove_all()

    def teardown(self):
        if not hasattr(self, "agents"):
            return
        for agent in list(self.agents):
            agent.finish()
            self._judge(agent)
        self._prove_all()
        self._calm_down()

    def _prove_all(self):
        repo = repository.open_repository(self.store, secret=self.secret)
        for backup_id in self._ids():
            if backup_id not in self.doubtful:
                self._prove(repo, backup_id)

    def _prove(self, repo, backup_id):
        content = self.contents[backup_id]
        device = MemoryDevice(self.random.randbytes(len(content)))
        manifest = Manifest(repo, bytes.fromhex(backup_id))
        RestoreReader(repo, manifest, device, compare=False, progress=Progress("v")).run()
        assert device.content == content, f"wrong data in {backup_id}"

    def _calm_down(self):
        """When all are gone and the clocks are right: a check finds nothing wrong, some collections
        leave only what is needed, and a new backup goes well."""
        self.store.elapsed += 2 * LAG
        self.store.clock += 2 * LAG
        repo = repository.open_repository(self.store, secret=self.secret)
        for backup_id in self.doubtful & self._ids():
            catalogue.remove(repo, catalogue.find(repo, backup_id))
            self.store.elapsed += LAG
        problems = [p for p in check(_context(repo), "").problems if p.backup]
        assert problems == []
        for _ in range(5):
            collection.collect(repo)
            self.store.elapsed += 25 * HOUR
            self.store.clock += 25 * HOUR
        kept = [Manifest(repo, bytes.fromhex(backup_id)) for backup_id in self._ids()]
        needed = {form.pack_name(pack) for manifest in kept for pack in manifest.packs}
        prefixes = (form.PACKS, form.LEASES, form.DOOMED)
        left = {name for name in self.store.objects if name.startswith(prefixes)}
        assert left == needed
        self._prove_all()

    # -- how ----------------------------------------------------------------------------------

    def _agent(self, slot):
        return self.agents[slot % len(self.agents)] if self.agents else None

    def _ids(self):
        names = [name for name in self.store.objects if name.startswith(form.MANIFESTS)]
        return {name.removeprefix(form.MANIFESTS) for name in names}

    def _chosen(self, choice):
        ids = list(self.contents)  # removed ones, too
        return ids[choice % len(ids)] if ids else None

    def _open(self, agent):
        return repository.open_repository(agent.gate, secret=self.secret)

    def _care(self, what, verb):
        self._start(what, lambda agent: verb(_context(self._open(agent))))

    def _start(self, what, task):
        # No rule is chosen by what the agents do: their threads are not the same each time.
        if len(self.agents) == MOST_AGENTS:
            self.finish(0)
        clock = self.store.clock + self.skew
        self.agents.append(Agent(what, self.store, clock, task, self._watch))

    def _watch(self, agent, verb, name):
        """Look at what an agent does to backups."""
        if not name.startswith(form.MANIFESTS) or verb not in ("put", "delete"):
            return
        backup_id = name.removeprefix(form.MANIFESTS)
        if verb == "put":
            self.contents.setdefault(backup_id, getattr(agent, "content", None))
            agent.last_put = backup_id
            if agent.lost_touch:
                self.doubtful.add(backup_id)
        else:
            assert agent.what in ("prune", "remove", "backup"), f"{agent.what} removed a backup"

    def _judge(self, agent):
        """An agent has ended: well, or in a way that it may."""
        self.agents.remove(agent)
        error = agent.error
        if error is None:
            self.doubtful.discard(getattr(agent, "last_put", None))
            return
        if isinstance(error, Died):
            return
        if isinstance(error, errors.LeaseLost):
            assert agent.lost_touch, "nobody can have taken it for dead"
            if "could not be taken back" not in str(error):
                self.doubtful.discard(getattr(agent, "last_put", None))
            return
        if isinstance(error, errors.BackupMissing):
            return  # removed meanwhile
        if isinstance(error, errors.Damaged) and self._may_meet_damage(agent):
            return
        raise error

    def _may_meet_damage(self, agent):
        """Whether it may find something missing: who was taken for dead, who looks at what was
        removed, and who looks at what cannot be trusted yet."""
        gone = agent.what.startswith("restore") and agent.what.split()[1] not in self._ids()
        return agent.lost_touch or gone or self.doubtful


def _context(repo):
    """What the verbs take; every URL leads to this repository."""
    conf = cfg.ConfigOpts()
    opts.register(conf)
    conf([], project="freezer-osbrick", default_config_files=[], default_config_dirs=[])
    made = Context(conf)
    made.open_repository = lambda url, create=False, **options: repo
    return made


def _enter(lease):
    """Tell the agent of its lease."""
    agent = getattr(Agent.current, "agent", None)
    if agent:
        agent.lease = lease
    return _ENTER(lease)


_ENTER = leases.Lease.__enter__


class _HostTime:
    """In place of the module ``time``: the clock of the host that the agent runs on."""

    @staticmethod
    def time():
        agent = getattr(Agent.current, "agent", None)
        return agent.clock if agent else 1_800_000_000.0


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Many packs, segments and windows in a small volume; keys that cost nothing."""
    small = functools.partial(packs.PackWriter, target_size=20_000)
    for module in ("pipeline.backup.PackWriter", "repository.rewriting.PackWriter"):
        monkeypatch.setattr(f"freezer_osbrick.{module}", small)
    monkeypatch.setattr("freezer_osbrick.pipeline.backup.time", _HostTime)
    monkeypatch.setattr(leases.Lease, "__enter__", _enter)
    monkeypatch.setattr("freezer_osbrick.repository.manifest.SEGMENT_CHUNKS", 4)
    monkeypatch.setattr("freezer_osbrick.repository.maps.WINDOW", 2)
    monkeypatch.setattr(keys, "_SCRYPT", {"n": 2, "r": 1, "p": 1})


def _settings(examples):
    return settings(
        max_examples=examples,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )


@pytest.mark.skipif(bool(STRESS), reason="the long run tries more")
def test_several_agents():
    run_state_machine_as_test(Agents, settings=_settings(EXAMPLES))


@pytest.mark.skipif(not STRESS, reason="FREEZER_OSBRICK_STRESS says for how many seconds")
def test_several_agents_for_long():
    ends = time.monotonic() + STRESS
    Agents.tried = 0
    while time.monotonic() < ends:
        run_state_machine_as_test(Agents, settings=settings(_settings(50), database=None))
    print(f"{Agents.tried} histories in {STRESS:.0f} seconds: nothing found")

# SPDX-License-Identifier: Apache-2.0
"""freezer-scheduler's own class, hooked."""

from __future__ import annotations

import configparser
import json
import subprocess
import sys
from typing import Any

import pytest

from tests.unit.agent.conftest import ROOT, clean_environment

pytest.importorskip("freezer")

SCRIPT = """
import freezer_osbrick.agent.boot
import io, json, sys, types

from freezer.scheduler import scheduler_job
results = []
for case in json.load(sys.stdin):
    stream = io.StringIO()
    try:
        scheduler_job.Job.save_action_to_file(case, stream)
        results.append(stream.getvalue())
    except ValueError as exc:
        results.append(f"ValueError: {exc}")
print(json.dumps(results))
"""

CAPABILITIES = """
import freezer_osbrick.agent.boot
import json, sys, types
from freezer.scheduler import scheduler_job
capabilities = types.SimpleNamespace(
    supported_actions=["backup"], supported_modes=["cinder"], supported_storages=["local"],
    supported_engines=sys.argv[1].split(","))
scheduler_job.CONF = types.SimpleNamespace(capabilities=capabilities)
job = object.__new__(scheduler_job.Job)
job.job_doc = {"job_actions": [{"freezer_action": {"engine_name": sys.argv[2]}}]}
before = json.dumps(job.job_doc)
print(job.check_capabilities())
assert json.dumps(job.job_doc) == before
"""

ABORT = """
import freezer_osbrick.agent.boot
import sys, types
from freezer.scheduler import scheduler_job
job = object.__new__(scheduler_job.Job)
actions = [{"freezer_action": {"engine_name": sys.argv[1]}}]
job.job_doc = {"job_id": "1", "job_schedule": {}, "job_actions": actions}
job.scheduler = types.SimpleNamespace(update_job_metadata=lambda *args: None)
told = []
for agent in ("first", "first", "first", "second", "second"):
    if not told or told[-1] != agent:
        process = types.SimpleNamespace(terminate=lambda agent=agent: told.append(agent))
    job.process = process
    scheduler_job.RunningState.abort(job, {})
print(",".join(told))
"""


def python(script: str, *argv: str, given: str = "", tmp_path: Any) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, *argv],
        input=given,
        capture_output=True,
        text=True,
        env=clean_environment(tmp_path),
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_job_is_written_as_the_agent_reads_it(tmp_path: Any) -> None:
    awkward = {
        "backup_name": "50 % of %(x)s and 100%%",
        "list": ["a", "b % c"],
        "nested": {"key": [1, None, True]},
        "truth": True,
        "nothing": None,
        "number": 7,
    }
    ours = [{"engine_name": "osbrick", **awkward}, {"engine": "cinder-osbrick", **awkward}]
    others = [{"engine_name": "tar", "backup_name": "50 %"}, {"engine_name": "tar", "x": ["a"]}]
    output = python(SCRIPT, given=json.dumps([*ours, *others]), tmp_path=tmp_path)
    first, second, stock_percent, stock_list = json.loads(output)
    for text in (first, second):
        parser = configparser.ConfigParser()
        parser.read_string(text)
        read = dict(parser["action"])
        assert read["backup_name"] == awkward["backup_name"]
        assert json.loads(read["list"]) == awkward["list"]
        assert json.loads(read["nested"]) == awkward["nested"]
        assert (read["truth"], read["number"]) == ("True", "7")
        assert "nothing" not in read
    # Other engines' jobs are written as ever.
    assert stock_percent.startswith("ValueError: ")
    assert "x = ['a']" in stock_list


@pytest.mark.parametrize(
    ("supported", "asked", "may_run"),
    [
        ("tar,osbrick", "cinder-osbrick", "True"),
        ("tar,osbrick", "osbrick", "True"),
        ("tar", "cinder-osbrick", "False"),
        ("tar,osbrick", "nova", "False"),
    ],
)
def test_who_may_run_osbrick_may_run_it_by_its_other_name(
    supported: str, asked: str, may_run: str, tmp_path: Any
) -> None:
    assert python(CAPABILITIES, supported, asked, tmp_path=tmp_path).strip() == may_run


ANSWERS = """
import freezer_osbrick.agent.boot
import json, sys, types
from freezer.scheduler import scheduler_job
records = json.load(sys.stdin)
class Backups:
    def list(self, limit, offset):
        if not records:
            raise OSError("no answer")
        return records[offset:offset + min(limit, 2)]
given = []
scheduler = types.SimpleNamespace(
    process_agent_result=lambda told, user_credentials: given.append(told),
    _get_client_for_user_credentials=lambda credentials: types.SimpleNamespace(backups=Backups()))
job = object.__new__(scheduler_job.Job)
job.scheduler = scheduler
job.job_doc = {"job_id": "j"}
job.process_agent_output(sys.argv[1])
print(json.dumps(given))
"""


def answered(told: Any, records: list[Any], tmp_path: Any) -> Any:
    """What the scheduler is given of an agent's answer, while freezer-api has these records."""
    output = json.dumps(told)
    return json.loads(python(ANSWERS, output, given=json.dumps(records), tmp_path=tmp_path))


def record(record_id: str, *backup_ids: str) -> dict[str, Any]:
    volumes = [{"backup_id": backup_id} for backup_id in backup_ids]
    return {"backup_id": record_id, "backup_metadata": {"osbrick": {"volumes": volumes}}}


def test_records_of_removed_backups_go_with_them(tmp_path: Any) -> None:
    told = {"curr_backup_level": 0, "removed_backups": [{"backup_id": "a"}, {"backup_id": "b"}]}
    foreign = {"backup_id": "tar", "backup_metadata": {"backup_name": "a"}}
    records = [
        *(record("gone", "a"), record("both gone", "a", "b"), record("one left", "a", "c")),
        *(record("stays", "c"), foreign, record("nothing was stored"), record("late", "b")),
    ]
    (given,) = answered(told, records, tmp_path)
    assert given == {
        "curr_backup_level": 0,
        "job_id": "j",
        "deleted_freezer_backup_ids": ["gone", "both gone", "late"],
    }


def test_an_api_that_does_not_answer_loses_no_record(tmp_path: Any) -> None:
    told = {"action": "backup", "removed_backups": [{"backup_id": "a"}]}
    assert answered(told, [], tmp_path) == [{"action": "backup", "job_id": "j"}]


def test_answers_without_removals_are_left_alone(tmp_path: Any) -> None:
    told = {"action": "backup", "osbrick": {"volumes": [{"backup_id": "a"}]}}
    assert answered(told, [record("stays", "a")], tmp_path) == [{**told, "job_id": "j"}]


@pytest.mark.parametrize(("engine", "told"), [("osbrick", "first,second"), ("tar", "")])
def test_an_agent_is_told_once_to_end(engine: str, told: str, tmp_path: Any) -> None:
    """Freezer aborts at each poll; an agent that is told three times leaves what it has set up."""
    assert python(ABORT, engine, tmp_path=tmp_path).strip() == told

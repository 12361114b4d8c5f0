# SPDX-License-Identifier: Apache-2.0
"""A project's user at freezer-api, with nothing but freezerclient."""

from __future__ import annotations

from typing import Any

from freezerclient import client as freezerclient

from tests.freezer import rig


class Person:
    """Makes jobs, starts them, and looks at what came of them."""

    def __init__(self, environment: dict[str, str], address: str) -> None:
        self.api = freezerclient.Client(
            version="2",
            endpoint=address,
            auth_url=environment["OS_AUTH_URL"],
            username=environment["OS_USERNAME"],
            password=environment["OS_PASSWORD"],
            project_name=environment["OS_PROJECT_NAME"],
            user_domain_name="Default",
            project_domain_name="Default",
        )

    def client_id(self, *, central: bool = False) -> str:
        """The scheduler that registered itself, once it has.

        :param central: the one of all projects.
        """
        found = rig.wait_for(lambda: self._clients(central))
        return str(found[0]["client_id"])

    def _clients(self, central: bool) -> list[dict[str, Any]]:
        listed = [entry["client"] for entry in self.api.clients.list()]
        return [client for client in listed if bool(client.get("is_central")) is central]

    def add_job(self, *actions: dict[str, Any], **fields: Any) -> str:
        """Store a job of these freezer actions; its id. It is not started by that."""
        document = {
            "client_id": self.client_id(),
            "description": "test",
            "job_schedule": {},
            "job_actions": [
                {"freezer_action": action, "max_retries": 0, "max_retries_interval": 1}
                for action in actions
            ],
            **fields,
        }
        return str(self.api.jobs.create(document))

    def run(self, *actions: dict[str, Any]) -> str:
        """Let the scheduler do these actions; the result of the job."""
        job_id = self.add_job(*actions)
        self.api.jobs.start_job(job_id)
        return self.result(job_id)

    def result(self, job_id: str) -> str:
        """``success`` or ``fail``, once the job has ended."""
        return str(rig.wait_for(lambda: self.schedule(job_id).get("result")))

    def schedule(self, job_id: str) -> dict[str, Any]:
        """What the scheduler says of the job."""
        return dict(self.api.jobs.get(job_id)["job_schedule"])

    def records(self, backup_name: str) -> list[dict[str, Any]]:
        """The records of backups of that name, oldest first."""
        found = [
            record
            for record in self.api.backups.list(limit=500)
            if record["backup_metadata"]["backup_name"] == backup_name
        ]
        return sorted(found, key=lambda record: record["backup_metadata"]["time_stamp"])

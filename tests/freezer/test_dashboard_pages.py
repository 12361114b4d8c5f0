# SPDX-License-Identifier: Apache-2.0
"""The pages in Horizon where there is little room, much to say, nothing to show, or a failure."""

from __future__ import annotations

import time
from typing import Any

import pytest

from devstack.embedded.embedded_cloud.client import EmbeddedCloud
from tests.freezer.browser import Person as Window
from tests.freezer.client import Person
from tests.freezer.conftest import PICTURES, window_of
from tests.functional.backup_host import BackupHost

SMALL = (1024, 768)
LONG_NAME = "a_name_without_any_blank_" * 10
REASON = "Volume 11111111-2222-3333-4444-555555555555 went to the state 'error': no space. " * 4


def volume_entry(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "volume_id": f"{number:08}-2222-3333-4444-555555555555",
        "volume_name": f"volume {number}",
        "volume_type": "file",
        "size_gib": 1,
        "bytes_read": 1 << 30,
        "bytes_reused": 0,
        "bytes_stored": number << 20,
        "seconds": 1.5,
        "state": "success",
        "reason": None,
        "backup_id": f"{number:032}",
        "content": "blocks",
        "time_stamp": 1_700_000_000,
        **fields,
    }


def new_record(person: Person, name: str, *volumes: dict[str, Any], **fields: Any) -> str:
    """A record in freezer-api as the agent makes it; its id."""
    metadata = {
        "action": "backup",
        "backup_name": name,
        "backup_media": "cinderbrick",
        "container": "/srv/backups",
        "curr_backup_level": 0,
        "encrypted": False,
        "engine_name": "osbrick",
        "hostname": "web1",
        "level": 0,
        "mode": "cinder",
        "storage": "local",
        "time_stamp": int(time.time()),
        "osbrick": {"volumes": list(volumes)},
        **fields,
    }
    return str(person.api.backups.create(metadata))


# What a form says for itself, below an element: not the names of volumes, types, zones and hosts.
# Help is the title of an icon.
SAID = (
    "label:not([for^=id_osbrick_volumes_], [for^=id_osbrick_groups_])",
    "select:not([name$=volume_type], [name$=availability_zone], [name=client]) option",
    *(".help-icon", "p"),
)


def said_below(selector: str) -> str:
    return ", ".join(f"{selector} {part}" for part in SAID)


# What a browser in German is told, by page.
TOLD = {
    "actions/create/": said_below("#freezer_osbrick_step"),
    "backups/{record}": "#osbrick_volumes th, .detail dt, .detail h4, .detail p",
    "backups/restore/{record}": said_below("#freezer_osbrick_restore"),
}


@pytest.mark.parametrize("page", TOLD)
def test_all_that_is_said_can_be_translated(
    horizon: str, cloud: EmbeddedCloud, person: Person, page: str
) -> None:
    """The test's Horizon has a catalogue that puts all that we say between stars."""
    record = new_record(person, "translated", volume_entry(1))
    with window_of(horizon, cloud, locale="de-DE") as window:
        window.open(page.format(record=record))
        said = window.page.eval_on_selector_all(
            TOLD[page],
            "found => found.map(one => (one.dataset.originalTitle || one.title"
            " || one.textContent).trim()).filter(text => text)",
        )
        window.see(f"40 translated {page.partition('/')[0]}")
    assert said
    assert [text for text in said if not text.startswith("*")] == []


@pytest.mark.parametrize("size", [(1400, 1000), SMALL, (800, 600)])
def test_long_names_fit(
    horizon: str,
    cloud: EmbeddedCloud,
    host: BackupHost,
    person: Person,
    size: tuple[int, int],
) -> None:
    host.bench.volume(1, name=LONG_NAME)
    volumes = [
        volume_entry(1, volume_name=LONG_NAME),
        volume_entry(2, state="error", reason=REASON, backup_id=None, bytes_stored=None),
        volume_entry(
            3, content="files", file_systems=["ext4 on partition 1", "xfs on partition 2"]
        ),
    ]
    fields = {"container": f"/srv/{LONG_NAME}", "hostname": LONG_NAME[:100]}
    record = new_record(person, LONG_NAME, *volumes, **fields)
    where = f"{size[0]}"
    with window_of(horizon, cloud, size=size) as window:
        window.open("backups")
        window.see(f"30 backups {where}")
        window.open(f"backups/{record}")
        window.see(f"31 backup {where}")
        assert window.overflow() == []
        window.page.click(".detail-actions a:has-text('Restore')")
        window.page.wait_for_selector(".modal.in #freezer_osbrick_restore")
        window.see(f"32 restore {where}")
        assert window.overflow() == []
        window.open("actions")
        window.create()
        window.page.select_option("#id_engine_name", "osbrick")
        window.tab("OS-Brick")
        window.see(f"33 action {where}")
        assert window.overflow() == []
        window.tab("Action")
        window.page.select_option("#id_action", "restore")
        window.tab("OS-Brick")
        window.page.click("#box_osbrick_remove_old_vol label")
        window.see(f"34 restore action {where}")
        assert window.overflow() == []
        assert window.faults == []


def test_a_project_without_volumes(horizon: str, cloud: EmbeddedCloud) -> None:
    with window_of(horizon, cloud, "other") as window:
        for panel in ("backups", "actions", "jobs", "clients"):
            window.open(panel)
            window.see(f"35 empty {panel}")
        window.open("actions")
        window.create()
        window.page.select_option("#id_engine_name", "osbrick")
        window.tab("OS-Brick")
        window.see("36 no volumes")
        assert "There are none." in window.text("#box_osbrick_volumes")
        assert window.overflow() == []
        assert window.faults == []


def test_what_cannot_be_restored_is_not_offered(window: Window, person: Person) -> None:
    """Of a run of which some failed; and a record that is gone is said to be."""
    failed = volume_entry(2, state="error", reason="No space.", backup_id=None)
    record = new_record(person, "partial", volume_entry(1), failed)
    window.open(f"backups/{record}")
    window.see("37 partial")
    assert {"Error", "No space."} <= set(
        window.page.eval_on_selector_all(
            "#osbrick_volumes td", "found => found.map(one => one.innerText.trim())"
        )
    )
    window.page.click(".detail-actions a:has-text('Restore')")
    window.page.wait_for_selector(".modal.in #freezer_osbrick_restore")
    assert window.page.locator("#box_osbrick_volumes input").count() == 1
    person.api.backups.delete(record)
    window.open(f"backups/{record}")
    window.see("38 gone")
    assert "There is no such backup." in window.text("body")


# -- what freezer-web-ui gets wrong ---------------------------------------------------------------


def test_a_restore_of_files_shows_the_clients(
    window: Window, person: Person, scheduler: object
) -> None:
    record = new_record(
        person, "files", engine_name="tar", mode="fs", backup_media="fs", osbrick=None
    )
    client = person.client_id()
    window.open(f"backups/restore/{record}")
    window.see("39 restore of files")
    listed = window.page.eval_on_selector_all(
        "#available_clients input[name=client]", "found => found.map(one => one.value)"
    )
    assert client in listed


def test_the_client_that_is_chosen_gets_the_job(
    window: Window, person: Person, scheduler: object
) -> None:
    """Where there are several, stock's search for one finds the first of them."""
    first = person.client_id()
    other = first.replace(first.partition("_")[2], "second-host")
    person.api.clients.create({"client_id": other, "hostname": "second-host"})
    record = new_record(person, "several", volume_entry(1))
    try:
        window.open(f"backups/restore/{record}")
        window.page.select_option("#id_client", other)
        with window.page.expect_navigation():
            window.page.click("form input[type=submit], form .btn-primary")
        (job,) = [
            job
            for job in person.api.jobs.list(limit=500, client_id=other)
            if job["description"].startswith("Restore several")
        ]
        person.api.jobs.delete(job["job_id"])
    finally:
        person.api.clients.delete(other)


def test_a_date_is_that_of_the_person(
    window: Window, person: Person, host: BackupHost, cloud: EmbeddedCloud
) -> None:
    """Forms send a date without a zone, which the agent would take for UTC; and Horizon's threads
    have the zone of whoever they served last, here somebody without one."""
    page = window.page
    page.context.add_cookies(
        [{"name": "django_timezone", "value": "Asia/Tokyo", "url": window.address}]
    )
    window.open("actions")
    window.create()
    page.select_option("#id_engine_name", "osbrick")
    page.select_option("#id_storage", "local")
    page.select_option("#id_action", "restore")
    page.fill("#id_backup_name", "of a date")
    page.fill("#id_container", str(host.repository))
    page.fill("#id_restore_from_date", "2026-01-02T09:30")
    window.tab("OS-Brick")
    page.fill("#id_osbrick_volume_ids", "11111111-2222-3333-4444-555555555555")
    other = Window(page.context.browser.new_context().new_page(), window.address, PICTURES)
    other.log_in(cloud.env("other"))
    for _ in range(4):
        other.open("actions")
    window.submit()
    window.see("41 of a date")
    stored = [one["freezer_action"] for one in person.api.actions.list(limit=500)]
    dates = {action["backup_name"]: action.get("restore_from_date") for action in stored}
    assert dates["of a date"] == "2026-01-02T00:30:00Z", stored

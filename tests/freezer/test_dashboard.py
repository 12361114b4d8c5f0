# SPDX-License-Identifier: Apache-2.0
"""A person who only has a browser: Horizon with freezer-web-ui and our plug-in, in Chromium.

Pictures of all pages are kept in ``.venv/freezer-services/pictures``.
"""

from __future__ import annotations

import re

import pytest

from tests.freezer import browser, rig
from tests.freezer.client import Person
from tests.functional.backup_host import MIB, BackupHost, data_of

pytestmark = pytest.mark.usefixtures("scheduler")


@pytest.fixture(scope="module")
def volumes(host: BackupHost) -> dict[str, str]:
    """Two volumes with different content, by name."""
    made = {name: host.bench.volume(1, name=name).id for name in ("database", "web files")}
    for seed, volume_id in enumerate(made.values()):
        host.write(volume_id, 10 * MIB, data_of(seed, 8 * MIB))
    return made


def test_from_the_login_to_a_restored_volume(
    window: browser.Person, host: BackupHost, person: Person, volumes: dict[str, str]
) -> None:
    page = window.page
    # An action: what is backed up, and where to.
    window.open("actions")
    window.create()
    page.select_option("#id_engine_name", "osbrick")
    page.select_option("#id_storage", "local")
    page.fill("#id_backup_name", "shop")
    page.fill("#id_container", str(host.repository))
    window.see("01 action")
    assert window.overflow() == []
    window.tab("OS-Brick")
    for name in volumes:
        page.check(f"#box_osbrick_volumes label:has-text('{name}')")
    page.fill("#id_osbrick_max_level", "6")
    window.see("02 volumes")
    assert window.overflow() == []
    window.submit()
    window.see("03 actions")
    assert "shop" in window.text("table")
    # A job of this action, for the one client.
    window.open("jobs")
    window.create()
    page.fill("#id_description", "The shop")
    window.see("04 job")
    window.tab("Clients")
    page.click("#available_selected_clients a[href='#add_remove']")
    window.see("05 clients")
    window.tab("Actions")
    drag(window, "#actions_available li:has-text('shop')", "#actions_selected")
    window.see("06 actions of the job")
    window.submit()
    assert "The shop" in window.text("table")
    press(window, "table tr:has-text('The shop')", "Start Job")
    window.see("07 started")
    wait_for_success(window, "The shop")
    window.see("08 job succeeded")
    # The backup, with a table of its volumes.
    window.open("backups")
    window.see("09 backups")
    page.click("table a:has-text('shop')")
    page.wait_for_selector("#osbrick_volumes")
    window.see("10 backup")
    assert window.overflow() == []
    rows = page.eval_on_selector_all(
        "#osbrick_volumes tbody tr",
        "rows => rows.map(row => [...row.cells].map(cell => cell.innerText))",
    )
    assert {row[0]: row[1] for row in rows} == volumes
    for row in rows:
        assert [row[3], row[4], row[10]] == ["Blocks", "1.0\xa0GB", "Success"]
        assert row[7] == "8.0\xa0MB"
    assert page.locator("#osbrick_chart rect").count() == 1
    # Restore one of the two.
    page.click(".detail-actions a:has-text('Restore')")
    page.wait_for_selector(".modal.in #freezer_osbrick_restore")
    page.uncheck("#box_osbrick_volumes label:has-text('web files')")
    page.fill("#id_osbrick_new_name", "database again")
    window.see("11 restore")
    assert window.overflow() == []
    window.submit()
    window.see("12 restore started")
    wait_for_success(window, "Restore shop")
    window.see("13 restored")
    (restored,) = volumes_named(host, "database again")
    assert host.digest(restored) == host.digest(volumes["database"])
    assert window.faults == []
    assert host.leftovers() == {}


def drag(window: browser.Person, what: str, where: str) -> None:
    """As a hand does it: jQuery looks at the movements between."""
    mouse, start = window.page.mouse, window.page.locator(what).bounding_box()
    end = window.page.locator(where).bounding_box()
    mouse.move(start["x"] + 20, start["y"] + 10)
    mouse.down()
    mouse.move(start["x"] + 40, start["y"] + 15, steps=5)
    mouse.move(end["x"] + end["width"] / 2, end["y"] + end["height"] / 2, steps=20)
    mouse.up()


def press(window: browser.Person, row: str, button: str) -> None:
    """Press a button of a table's row, behind the arrow or not."""
    found = window.page.locator(f"{row} button:has-text('{button}')").first
    if not found.is_visible():
        window.page.click(f"{row} .dropdown-toggle")
    with window.page.expect_navigation():
        found.click()
    window.page.wait_for_load_state("networkidle")


def wait_for_success(window: browser.Person, job: str) -> None:
    """Look at the jobs' page until the job has ended, as a person does."""

    def looked() -> re.Match[str] | None:
        window.open("jobs")
        row = window.text(f"table tr:has-text('{job}')")
        return re.search(r"success|fail|aborted", row)

    assert rig.wait_for(looked)[0] == "success"


def volumes_named(host: BackupHost, name: str) -> list[str]:
    listed = host.bench.embedded.cinder("GET", "/volumes")["volumes"]
    found = [volume["id"] for volume in listed if volume["name"] == name]
    for volume_id in found:
        host.bench.users_own(volume_id)
    return found


# -- what is shown, and what is asked --------------------------------------------------------------


def test_a_form_shows_what_counts(window: browser.Person, volumes: dict[str, str]) -> None:
    page = window.page
    window.open("actions")
    window.create()
    # Another engine: Freezer's own form.
    page.select_option("#id_engine_name", "tar")
    assert not page.is_visible(".modal .nav a:has-text('OS-Brick')")
    assert {"mode", "path_to_backup"} <= window.visible_fields()
    page.select_option("#id_engine_name", "osbrick")
    assert window.visible_fields() == {
        *("backup_name", "action", "storage", "engine_name", "container")
    }
    page.select_option("#id_storage", "s3")
    window.tab("OS-Brick")
    backup = window.visible_fields()
    assert {"osbrick_endpoint", "osbrick_access_key", "osbrick_incremental"} <= backup
    assert not {"osbrick_target", "osbrick_consent", "osbrick_groups"} & backup
    assert "osbrick_fallback_to_blocks" not in backup
    page.select_option("#id_osbrick_content", "files")
    assert "osbrick_fallback_to_blocks" in window.visible_fields()
    page.select_option("#id_osbrick_scope", "all_tenant_volumes")
    assert not {"osbrick_volumes", "osbrick_volume_ids"} & window.visible_fields()
    assert not page.query_selector("#id_osbrick_scope option[value=all_tenants]")
    window.tab("Action")
    page.select_option("#id_action", "restore")
    window.tab("OS-Brick")
    restore = window.visible_fields()
    assert {"osbrick_target", "osbrick_remove_old_vol"} <= restore
    assert not {"osbrick_incremental", "osbrick_consent"} & restore
    page.select_option("#id_osbrick_target", "in_place")
    assert "osbrick_consent" in window.visible_fields()
    window.see("20 restore action")
    assert window.overflow() == []
    window.tab("Action")
    page.select_option("#id_action", "admin")
    assert {"backup_name", "container", "storage", "remove_older_than"} <= window.visible_fields()
    window.see("21 removal")
    assert window.faults == []


def test_what_is_missing_or_dangerous_is_asked_for(
    window: browser.Person, host: BackupHost, volumes: dict[str, str]
) -> None:
    page = window.page
    window.open("actions")
    window.create()
    page.select_option("#id_engine_name", "osbrick")
    page.select_option("#id_storage", "local")
    page.fill("#id_backup_name", "refused")
    page.fill("#id_container", "backups")
    told = " ".join(window.refused())
    assert "whole path of a folder" in told
    assert "Choose at least one" in told
    window.see("22 refused")
    page.fill("#id_container", str(host.repository))
    page.select_option("#id_action", "restore")
    window.tab("OS-Brick")
    page.check("#box_osbrick_volumes label:has-text('database')")
    page.select_option("#id_osbrick_target", "in_place")
    assert "Confirm that data may be lost" in " ".join(window.refused())
    window.see("23 consent")


def test_an_action_can_be_changed(
    window: browser.Person, host: BackupHost, person: Person, volumes: dict[str, str]
) -> None:
    action = {
        "action": "backup",
        "mode": "cinder",
        "engine_name": "osbrick",
        "storage": "local",
        "container": str(host.repository),
        "backup_name": "changed",
        "single_volume_id": [volumes["database"], "11111111-2222-3333-4444-555555555555"],
        "incremental": True,
        "max_level": 4,
    }
    action_id = person.api.actions.create({"freezer_action": action})
    page = window.page
    window.open("actions")
    page.click(f"table tr[data-object-id='{action_id}'] a:has-text('Edit')")
    page.wait_for_selector(".modal.in form")
    window.tab("OS-Brick")
    assert page.input_value("#id_osbrick_max_level") == "4"
    assert page.is_checked("#box_osbrick_volumes label:has-text('11111111')")
    page.uncheck("#box_osbrick_volumes label:has-text('11111111')")
    page.check("#box_osbrick_volumes label:has-text('web files')")
    window.submit()
    stored = person.api.actions.get(action_id)["freezer_action"]
    assert set(stored["single_volume_id"]) == set(volumes.values())
    assert stored["max_level"] == 4
    assert "compression" not in stored or stored["compression"] == "zstd"

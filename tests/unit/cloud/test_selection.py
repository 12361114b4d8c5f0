# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from freezer_osbrick import errors
from freezer_osbrick.cloud import selection
from freezer_osbrick.cloud.selection import Filters, Selection
from freezer_osbrick.cloud.tags import MARK
from tests.unit.cloud.fake_cinder import FakeCloud, Resource

MINE, THEIRS = "p1", "p2"
TENANT = "os-vol-tenant-attr:tenant_id"


class Cloud(FakeCloud):
    def made(self, size=1, project=MINE, **fields):
        volume = self.cinder.volumes.create(size, **{"name": "data", **fields})
        setattr(volume, TENANT, project)
        return volume.id


@pytest.fixture
def cloud():
    return Cloud()


def chosen(cloud, **fields):
    return {record.id for record in selection.choose(cloud, Selection(**fields)).volumes}


def test_named_ones_and_what_is_missing(cloud):
    first, second, _ = cloud.made(), cloud.made(), cloud.made()
    temporary = cloud.made(metadata=MARK)
    choice = selection.choose(cloud, Selection(volume_ids=(second, "nowhere", first, temporary)))
    assert [record.id for record in choice.volumes] == [second, first]
    assert [volume_id for volume_id, _ in choice.missing] == ["nowhere", temporary]
    assert "could not be found" in choice.missing[0][1]
    assert "is a temporary one" in choice.missing[1][1]


def test_a_members_projects_volumes(cloud):
    ids = {cloud.made(), cloud.made()}
    cloud.made(metadata=MARK)
    cloud.made(project=THEIRS)  # a cloud that shows too much
    assert chosen(cloud, all_tenant_volumes=True) == ids
    assert chosen(cloud, project_id=MINE) == ids


def test_an_administrators_choices(cloud):
    cloud.is_admin = True
    mine, theirs = cloud.made(), cloud.made(project=THEIRS)
    assert chosen(cloud, all_tenants=True) == {mine, theirs}
    assert chosen(cloud, all_tenant_volumes=True, project_id=THEIRS) == {theirs}
    assert chosen(cloud, all_tenant_volumes=True) == {mine}


@pytest.mark.parametrize(
    "fields, sentence",
    [
        ({"all_tenants": True}, "The volumes of all projects need an administrator's credentials"),
        ({"project_id": THEIRS}, "The project p2 is not yours"),
        ({"all_tenant_volumes": True, "project_id": THEIRS}, "The project p2 is not yours"),
    ],
)
def test_what_a_member_may_not(cloud, fields, sentence):
    with pytest.raises(errors.CloudAccessDenied, match=sentence):
        selection.choose(cloud, Selection(**fields))


@pytest.mark.parametrize(
    "fields, sentence",
    [
        ({}, "No volume is chosen"),
        ({"volume_ids": ("v",), "all_tenant_volumes": True}, "choose different volumes"),
        ({"consistency_groups": ("g",), "all_tenants": True}, "choose different volumes"),
        ({"volume_ids": ("v",), "project_id": "p"}, "does not go with --single-volume-id"),
        ({"all_tenants": True, "filters": Filters(min_size=3, max_size=2)}, "No volume has"),
    ],
)
def test_what_makes_no_sense(cloud, fields, sentence):
    with pytest.raises(errors.BadRequest, match=sentence):
        selection.choose(cloud, Selection(**fields))


FILTERS = {
    "name": (Filters(name="db-*"), {"name": "db-1"}, {"name": "web-1"}, "does not match 'db-*'."),
    "property": (
        Filters(metadata={"tier": "gold"}),
        {"metadata": {"tier": "gold", "a": "b"}},
        {"metadata": {"tier": "tin"}},
        "Its property tier is 'tin', not 'gold'.",
    ),
    "no property": (
        Filters(metadata={"tier": "gold"}),
        {"metadata": {"tier": "gold"}},
        {},
        "It has no property tier=gold.",
    ),
    "type": (
        Filters(volume_type="fast"),
        {"volume_type": "fast"},
        {"volume_type": "slow"},
        "Its type is slow, not fast.",
    ),
    "zone": (
        Filters(availability_zone="a"),
        {"availability_zone": "a"},
        {"availability_zone": "b"},
        "Its availability zone is b, not a.",
    ),
    "too small": (Filters(min_size=2), {"size": 2}, {"size": 1}, "It has 1 GiB, fewer than 2."),
    "too large": (Filters(max_size=2), {"size": 2}, {"size": 3}, "It has 3 GiB, more than 2."),
}


@pytest.mark.parametrize("kind", FILTERS)
def test_filters_say_what_they_leave_out(cloud, kind):
    filters, fitting, unfitting, reason = FILTERS[kind]
    fits, does_not = cloud.made(**fitting), cloud.made(**unfitting)
    choice = selection.choose(cloud, Selection(all_tenant_volumes=True, filters=filters))
    assert [record.id for record in choice.volumes] == [fits]
    ((record, told),) = choice.excluded
    assert record.id == does_not
    assert told.endswith(reason)


@pytest.mark.parametrize("status", ["creating", "error", "deleting"])
def test_what_holds_nothing_is_left_out(cloud, status):
    cloud.cinder.volumes.after_create.append(status)
    cloud.made()
    choice = selection.choose(cloud, Selection(all_tenant_volumes=True))
    assert [told for _, told in choice.excluded] == [f"Its state is '{status}'."]


class TestGroups:
    def test_generic_ones(self, cloud):
        cloud.cinder.groups.all["g"] = Resource(id="g", name="database", group_type="t")
        members = {cloud.made(group_id="g"), cloud.made(group_id="g", size=5)}
        cloud.made(), cloud.made(group_id="other")
        choice = selection.choose(cloud, Selection(consistency_groups=("g", "g")))
        assert {record.id for record in choice.volumes} == members
        ((group, ids),) = choice.groups
        assert (group.id, group.legacy, group.consistent, set(ids)) == ("g", False, None, members)

    def test_only_chosen_members_are_waited_for(self, cloud):
        cloud.cinder.groups.all["g"] = Resource(id="g", name="database", group_type="t")
        small, _large = cloud.made(group_id="g"), cloud.made(group_id="g", size=5)
        choice = selection.choose(
            cloud, Selection(consistency_groups=("g",), filters=Filters(max_size=1))
        )
        assert choice.groups[0][1] == [small]

    @pytest.mark.parametrize(
        "specs, consistent",
        [
            (None, None),
            ({}, False),
            ({"consistent_group_snapshot_enabled": "<is> True"}, True),
            ({"consistent_group_snapshot_enabled": "<is> False"}, False),
        ],
    )
    def test_whether_its_snapshots_are_of_one_instant(self, cloud, specs, consistent):
        cloud.cinder.group_specs = specs
        cloud.cinder.groups.all["g"] = Resource(id="g", name="database", group_type="t")
        cloud.made(group_id="g")
        choice = selection.choose(cloud, Selection(consistency_groups=("g",)))
        assert choice.groups[0][0].consistent is consistent

    def test_consistency_groups(self, cloud):
        cloud.cinder.groups.refused.add("g")
        cloud.cinder.consistencygroups.all["g"] = Resource(id="g", name="old")
        cloud.made(group_id="g")
        choice = selection.choose(cloud, Selection(consistency_groups=("g",)))
        assert (choice.groups[0][0].legacy, choice.groups[0][0].consistent) == (True, True)

    def test_one_that_is_not_there(self, cloud):
        with pytest.raises(errors.ResourceMissing, match="group g could not be found"):
            selection.choose(cloud, Selection(consistency_groups=("g",)))

    def test_an_empty_one(self, cloud):
        cloud.cinder.groups.all["g"] = Resource(id="g", name="database", group_type="t")
        with pytest.raises(errors.BadRequest, match="The group g has no volumes"):
            selection.choose(cloud, Selection(consistency_groups=("g",)))

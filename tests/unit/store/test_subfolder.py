# SPDX-License-Identifier: Apache-2.0
"""A folder of a store as a store of its own."""

from __future__ import annotations

import pytest

from freezer_osbrick import errors
from freezer_osbrick.store.local import LocalStore
from freezer_osbrick.store.subfolder import SubfolderStore


@pytest.fixture
def whole(tmp_path):
    store = LocalStore(str(tmp_path))
    store.put("config", [b"outside"])
    store.put("parts/outside", [b"outside"])
    return store


def names(store, prefix=""):
    return [info.name for info in store.list(prefix)]


def test_names_are_its_own(whole):
    part = SubfolderStore(whole, "part")
    part.put("config", [b"inside"])
    part.put("packs/00", [b"0123456789"])
    assert names(part) == ["config", "packs/00"]
    assert names(part, "packs/") == ["packs/00"]
    assert [info.name for info in part.list_after("", "config")] == ["packs/00"]
    assert part.get("config") == b"inside"
    assert part.get("packs/00", 2, 3) == b"234"
    assert part.stat("packs/00").name == "packs/00"
    assert names(whole) == ["config", "part/config", "part/packs/00", "parts/outside"]


def test_what_lies_outside_is_not_there(whole):
    part = SubfolderStore(whole, "part")
    with pytest.raises(errors.ObjectMissing):
        part.get("config")
    part.delete("config")
    part.put("config", [b"inside"])
    with pytest.raises(errors.ObjectExists):
        part.put("config", [b"again"])
    part.clear()
    assert names(part) == []
    assert names(whole) == ["config", "parts/outside"]


def test_a_folder_that_is_no_name(whole):
    with pytest.raises(errors.StoreError, match="no valid object name"):
        SubfolderStore(whole, "../elsewhere")

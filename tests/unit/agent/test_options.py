# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("oslo_config")
from oslo_config import cfg  # noqa: E402

from freezer_osbrick.agent import options, scheduler  # noqa: E402

WORDS = st.lists(st.text(st.characters(exclude_characters=",[(", exclude_categories=("Z", "C"))))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text()))
def test_lists_are_read_from_json_source_and_lists(words: list[str]) -> None:
    for written in (words, tuple(words), json.dumps(words), repr(words), repr(tuple(words))):
        assert options.parse_list(written) == words


@settings(max_examples=50, deadline=None)
@given(WORDS)
def test_lists_are_read_from_words_between_commas(words: list[str]) -> None:
    words = [word for word in words if word]
    assert options.parse_list(" , ".join(words)) == words


@pytest.mark.parametrize("text", ["[", "[1", "(1", "[a]", "(1)", "[__import__('os')]", "[" * 9999])
def test_what_begins_like_a_list_and_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no list"):
        options.parse_list(text)


def test_an_object_is_no_list_of_words() -> None:
    for value in ({"id": "v1"}, '{"id": "v1"}', " {'id': 'v1'}"):
        with pytest.raises(ValueError, match="is no list"):
            options.Words()(value)
    assert options.Words()(["v1", "v2", "v1"]) == "v1,v2"


def test_with_choices_leaves_the_original_alone() -> None:
    narrow = cfg.StrOpt("engine", choices=["tar"])
    wide = options.with_choices(narrow, ("osbrick",))
    assert wide.type("osbrick") == "osbrick"
    with pytest.raises(ValueError):
        narrow.type("osbrick")


@pytest.mark.parametrize(
    ("value", "written"),
    [("50%", "50%%"), (["a%"], '["a%%"]'), ({"a": None}, '{"a": null}'), (True, "True"), (0, "0")],
)
def test_settings_are_written_for_a_configparser(value: object, written: str) -> None:
    assert scheduler.written(value) == written

"""Ids and file names: one spelling, one folder, and never a path elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from support.model_names import BAD_IDS, GOOD_IDS

from nitrolib.errors import InvalidRequest
from nitrolib.models import check_id
from nitrolib.models.ids import check_file_name, id_from_name, is_direct

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("given", GOOD_IDS)
def test_an_id_that_is_a_name_everywhere_is_taken_as_it_is(given: str) -> None:
    assert check_id(given) == given


@pytest.mark.parametrize("given", [*BAD_IDS, None, 7, b"a", ["a"]], ids=lambda v: ascii(v)[:20])
def test_an_id_that_could_lead_elsewhere_is_refused(given: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_id(given)
    assert caught.value.field == "id"
    assert caught.value.allowed
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 300


@pytest.mark.parametrize("name", ["a/b.gguf", "../a.gguf", "a\\b.gguf", "/a.gguf", "", "nul.gguf"])
def test_a_file_name_has_no_folder_in_it(name: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_file_name(name)
    assert caught.value.field == "filename"
    assert check_file_name("zephyr 7b.Q4_K_M.gguf") == "zephyr 7b.Q4_K_M.gguf"


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("zephyr-7b-beta.Q4_K_M.gguf", "zephyr-7b-beta.Q4_K_M"),
        ("A.GGUF", "A"),
        ("big-00001-of-00003.gguf", "big"),
        ("a:b?.gguf", "a-b-"),
        (" .x.gguf", "x"),
        ("a/b\\c.gguf", "a-b-c"),
    ],
)
def test_an_id_is_made_of_a_files_name(name: str, made: str) -> None:
    assert id_from_name(name) == made


@pytest.mark.parametrize("name", ["", ".gguf", "...", "con.gguf"])
def test_no_id_is_made_of_nothing(name: str) -> None:
    with pytest.raises(InvalidRequest):
        id_from_name(name)


def test_a_folder_behind_a_link_is_not_where_its_name_says(tmp_path: Path) -> None:
    root, other = tmp_path / "root", tmp_path / "other"
    (root / "a").mkdir(parents=True)
    (other / "x").mkdir(parents=True)
    try:
        (root / "out").symlink_to(other)
        (root / "in").symlink_to(root / "a")
    except OSError:
        pytest.skip("this system makes no links")
    assert is_direct(root / "a", root)
    assert is_direct(root / "new", root)
    for name in ("out", "out/x", "in"):
        assert not is_direct(root / name, root), name
    assert not is_direct(other, root)
    (tmp_path / "link").symlink_to(root)
    assert is_direct(tmp_path / "link" / "a", tmp_path / "link")  # the root itself may be one

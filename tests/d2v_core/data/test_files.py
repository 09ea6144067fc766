"""Publishing: whole or not at all."""

import pytest

from d2v_core.data.files import publish, publish_folder


def test_a_failed_write_leaves_the_old_file_and_no_trace(tmp_path):
    path = tmp_path / "file"
    with publish(path) as temporary:
        temporary.write_text("old")

    def interrupted():
        with publish(path) as temporary:
            temporary.write_text("half of the n")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_folder_replaces_the_old_one_as_a_whole(tmp_path):
    for content in ("a", "b"):
        with publish_folder(tmp_path / "folder") as folder:
            (folder / content).write_text(content)
    assert [entry.name for entry in (tmp_path / "folder").iterdir()] == ["b"]

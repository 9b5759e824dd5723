"""Files are whole or not there."""

import pathlib

import pytest

from keras_sip.files import (
    DamagedFileError,
    OutputError,
    new_folder,
    verify_checksums,
    write_atomically,
    write_checksums,
)


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "numbers"
    write_atomically(path, b"old")

    def full_disk(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OutputError, match=r"Expected to be able to write .*numbers(.|\n)*No space left"):
        write_atomically(path, b"ne", b"w")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_folder_appears_when_it_is_filled(tmp_path):
    with new_folder(tmp_path / "deep" / "model") as folder:
        (folder / "part").write_text("1")
        assert not (tmp_path / "deep" / "model").exists()
    assert (tmp_path / "deep" / "model" / "part").read_text() == "1"
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "deep" / "other"):
        raise ZeroDivisionError
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["model"]


@pytest.mark.parametrize("damage", ["changed", "missing", "not listed"])
def test_checksums_name_what_is_not_as_it_was(tmp_path, damage):
    (tmp_path / "sub").mkdir()
    for name in ("a", "sub/b"):
        (tmp_path / name).write_text(name)
    write_checksums(tmp_path)
    verify_checksums(tmp_path)
    path = tmp_path / "sub" / "b"
    {"changed": lambda: path.write_text("c"), "missing": path.unlink, "not listed": (tmp_path / "c").touch}[damage]()
    name = "c" if damage == "not listed" else "sub/b"
    with pytest.raises(DamagedFileError, match=f"{damage}: '{name}'"):
        verify_checksums(tmp_path)


@pytest.mark.skipif(not pathlib.Path("/proc/self").exists(), reason="needs a file system that nobody can write to")
def test_a_read_only_place_is_named():
    with (
        pytest.raises(OutputError, match="Expected to be able to write /proc/keras_sip"),
        new_folder("/proc/keras_sip"),
    ):
        pass

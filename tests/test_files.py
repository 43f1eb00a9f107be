"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from tal1_hvd.data.files import (
    atomic_file,
    atomic_folder,
    require_absent,
    require_plain,
    require_stored,
    require_vacant,
    sha256,
    sync,
)
from tal1_hvd.errors import InputError
from tests.helpers import names, refused


@pytest.fixture
def umask():
    """Set an unusual umask, and the old one again afterwards."""
    old = os.umask(0o027)
    yield 0o027
    os.umask(old)


class Crash(BaseException):
    """Something that no `except Exception` catches, as a Ctrl-C is."""


@pytest.mark.parametrize(
    ("content", "digest"),
    [
        (b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (b"a" * 1_000_000, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"),
    ],
    ids=["empty", "abc", "a million"],
)
def test_sha256_of_the_standard_examples(tmp_path, content, digest):
    (tmp_path / "x").write_bytes(content)
    assert sha256(tmp_path / "x") == digest


def test_sha256_reads_beyond_its_first_block(tmp_path):
    digests = set()
    for last in b"ab":
        (tmp_path / "x").write_bytes(bytes(1 << 20) + bytes([last]))
        digests.add(sha256(tmp_path / "x"))
    assert len(digests) == 2


def test_sync_takes_files_and_folders(tmp_path):
    (tmp_path / "x").write_text("x")
    sync(tmp_path / "x")
    sync(tmp_path)


@pytest.mark.parametrize(("mode", "old", "new"), [("w", "old", "new\n"), ("wb", b"old", b"n\0w")])
@pytest.mark.parametrize("exists", [False, True])
def test_file_appears_when_it_is_complete(tmp_path, mode, old, new, exists):
    path = tmp_path / "x"
    if exists:
        path.write_bytes(b"old")
    with atomic_file(path, mode) as handle:
        handle.write(new)
        handle.flush()
        assert path.exists() == exists
        assert not exists or path.read_bytes() == b"old"
    assert path.read_bytes() == (new if mode == "wb" else new.encode())
    assert names(tmp_path) == ["x"]


@pytest.mark.parametrize("error", [ValueError, InputError, OSError, KeyboardInterrupt, Crash])
@pytest.mark.parametrize("exists", [False, True])
def test_exception_leaves_the_old_file(tmp_path, error, exists):
    path = tmp_path / "x"
    if exists:
        path.write_text("old")
    with pytest.raises(error, match="mine"), atomic_file(path) as handle:
        handle.write("half")
        raise error("mine")
    assert names(tmp_path) == ["x"] * exists
    assert not exists or path.read_text() == "old"


def test_file_and_folder_follow_the_umask(tmp_path, umask):
    with atomic_file(tmp_path / "x") as handle:
        handle.write("x")
    with atomic_folder(tmp_path / "y"):
        pass
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "y").stat().st_mode & 0o777 == 0o750
    assert os.umask(umask) == umask, "asking for the umask must not change it"


@pytest.mark.parametrize(
    ("name", "reason"),
    [("missing/x", "No such file"), ("file/x", "Not a directory")],
)
def test_file_where_none_can_be(tmp_path, name, reason):
    (tmp_path / "file").write_text("old")
    with refused(tmp_path / name, "cannot be written", reason), atomic_file(tmp_path / name):
        pytest.fail("there is nowhere to write to")
    assert names(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "old"


def test_file_in_the_place_of_a_folder(tmp_path):
    (tmp_path / "x").mkdir()
    with refused(tmp_path / "x", "cannot be written"), atomic_file(tmp_path / "x") as handle:
        handle.write("new")
    assert names(tmp_path) == ["x"]


@pytest.mark.parametrize("exists", [False, True], ids=["new", "in place of an empty folder"])
def test_folder_appears_when_it_is_complete(tmp_path, exists):
    path = tmp_path / "x"
    if exists:
        path.mkdir()
    with atomic_folder(path) as folder:
        assert folder.parent == tmp_path, "a rename works within one file system only"
        (folder / "a").write_text("a")
        (folder / "sub").mkdir()
        (folder / "sub" / "b").write_text("b")
        assert path.exists() == exists
        assert not exists or names(path) == []
    assert names(tmp_path) == ["x"]
    assert names(path) == ["a", "sub"]
    assert (path / "sub" / "b").read_text() == "b"


def test_folder_makes_its_parents(tmp_path):
    with atomic_folder(tmp_path / "a" / "b" / "c") as folder:
        (folder / "x").write_text("x")
    assert names(tmp_path / "a" / "b") == ["c"]
    assert names(tmp_path / "a" / "b" / "c") == ["x"]


@pytest.mark.parametrize("error", [ValueError, InputError, OSError, KeyboardInterrupt, Crash])
@pytest.mark.parametrize("exists", [False, True])
def test_exception_leaves_nothing_of_the_folder(tmp_path, error, exists):
    path = tmp_path / "x"
    if exists:
        path.mkdir()
    with pytest.raises(error, match="mine"), atomic_folder(path) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "half").write_text("half")
        raise error("mine")
    assert names(tmp_path) == ["x"] * exists
    assert not exists or names(path) == []


def occupy(path, kind):
    """Put something under a name that a new folder may not take."""
    if kind == "file":
        path.write_text("old")
    elif kind == "full folder":
        path.mkdir()
        (path / "old").write_text("old")
    elif kind == "dangling link":
        path.symlink_to("nowhere")


def test_exception_leaves_no_parents(tmp_path):
    with pytest.raises(Crash), atomic_folder(tmp_path / "a" / "b" / "c"):
        raise Crash
    assert not list(tmp_path.iterdir())


def test_parents_that_cannot_be_made_leave_none(tmp_path):
    with (
        pytest.raises(InputError, match="File name too long"),
        atomic_folder(tmp_path / "a" / ("x" * 300) / "b"),
    ):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["file", "full folder", "dangling link"])
def test_folder_that_exists_is_not_touched(tmp_path, kind):
    occupy(tmp_path / "x", kind)
    before = (tmp_path / "x").lstat()
    with refused(tmp_path / "x", "exists already", "another name"), atomic_folder(tmp_path / "x"):
        pytest.fail("the name is taken")
    assert names(tmp_path) == ["x"]
    after = (tmp_path / "x").lstat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize("kind", ["file", "full folder"])
def test_folder_whose_name_is_taken_meanwhile(tmp_path, kind):
    with refused(tmp_path / "x", "cannot be written"), atomic_folder(tmp_path / "x") as folder:
        (folder / "new").write_text("new")
        occupy(tmp_path / "x", kind)
    assert names(tmp_path) == ["x"]
    old = tmp_path / "x" if kind == "file" else tmp_path / "x" / "old"
    assert old.read_text() == "old"


@pytest.mark.parametrize("name", ["file/x", "file/sub/x"])
def test_folder_under_a_file(tmp_path, name):
    (tmp_path / "file").write_text("old")
    with refused(tmp_path / name, "cannot be written"), atomic_folder(tmp_path / name):
        pytest.fail("there is nowhere to write to")
    assert names(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "old"


@pytest.mark.parametrize("kind", ["file", "full folder", "dangling link", "empty folder", "none"])
@pytest.mark.parametrize("require", [require_vacant, require_absent])
def test_what_counts_as_free(tmp_path, kind, require):
    path = tmp_path / "x"
    occupy(path, kind)
    if kind == "empty folder":
        path.mkdir()
    free = kind == "none" or (kind == "empty folder" and require is require_vacant)
    if free:
        require(path)
    else:
        with refused(path, "exists already", "choose another name or remove it"):
            require(path)


def test_no_folder_for_a_file(tmp_path):
    with refused(tmp_path / "a" / "x", "there is no folder", tmp_path / "a"):
        require_absent(tmp_path / "a" / "x")


def test_folder_in_the_place_of_an_empty_one_keeps_its_mode(tmp_path):
    (tmp_path / "x").mkdir(mode=0o700)
    with atomic_folder(tmp_path / "x"):
        pass
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o700


def test_folder_behind_a_link(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "x").symlink_to("far")
    with atomic_folder(tmp_path / "x") as folder:
        (folder / "new").write_text("new")
    assert (tmp_path / "x").is_symlink()
    assert names(tmp_path / "far") == ["new"]
    assert names(tmp_path) == ["far", "x"]


def test_mount_point_is_refused_at_the_door(tmp_path, monkeypatch):
    """As a container's volume is; making one needs more rights than tests have."""
    monkeypatch.setattr(Path, "is_mount", lambda path: path == tmp_path / "x")
    (tmp_path / "x").mkdir()
    with refused(tmp_path / "x", "mount point", "folder in it"):
        require_vacant(tmp_path / "x")


def test_working_folder_is_refused_at_the_door(tmp_path, monkeypatch):
    """It would be another one than the shell stands in."""
    monkeypatch.chdir(tmp_path)
    with refused(".", "the working folder cannot be replaced", "folder in it"):
        require_vacant(Path())


def test_parts_of_a_zip_file_that_share_their_bytes(tmp_path):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("part", bytes(1000))
        archive.filelist *= 3
    with (
        zipfile.ZipFile(tmp_path / "all.zip") as archive,
        pytest.raises(ValueError, match=r"its parts take 3,000 bytes, the file 1,0"),
    ):
        require_stored(archive)


@pytest.fixture
def foreign(tmp_path):
    """Make a folder with a file in a folder."""
    (tmp_path / "foreign" / "inner").mkdir(parents=True)
    (tmp_path / "foreign" / "inner" / "file").write_text("text")
    return tmp_path / "foreign"


def test_folder_of_files_is_plain(foreign):
    require_plain(foreign)


@pytest.mark.parametrize("target", ["inner", "inner/file", "nowhere"])
def test_link_in_a_folder(foreign, target):
    (foreign / "inner" / "link").symlink_to(foreign / target)
    require_plain(foreign, links=True)
    with refused(f"{foreign}/inner/link: a symbolic link, through which nothing is written"):
        require_plain(foreign)


@pytest.mark.parametrize("links", [True, False])
def test_pipe_in_a_folder(foreign, links):
    os.mkfifo(foreign / "inner" / "pipe")
    with refused(f"{foreign}/inner/pipe: neither a file nor a folder"):
        require_plain(foreign, links)


def test_link_to_a_device(foreign):
    (foreign / "link").symlink_to("/dev/zero")
    with refused(f"{foreign}/link: neither a file nor a folder"):
        require_plain(foreign, links=True)

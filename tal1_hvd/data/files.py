"""Files and folders that appear whole or not at all, and belong to one process at a time."""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import io
import os
import shutil
import stat
import tempfile
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, TextIO

from filelock import FileLock, Timeout

from tal1_hvd.errors import InputError

# The gzip program's own; Python's, 9, takes five times as long over DNA and gains a hundredth.
_GZIP_LEVEL = 6
# What NumPy and zipfile stumble over in damaged files; NumPy reads headers as Python's own source.
DAMAGED = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
# What a write meets where there is no room; anything else is not the output's fault.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sync(path: Path) -> None:
    """Make a file's bytes, or a folder's entries, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_file(path: Path, mode: str = "w") -> Iterator[IO]:
    """Write a file that stands under its name only once it is complete.

    Parameters
    ----------
    path : Path
        Replaced if it exists.
    mode : {"w", "wb"}

    Yields
    ------
    IO
        An open file in the same folder; renamed to `path` when the block ends well, removed
        otherwise.

    Raises
    ------
    InputError
        The folder cannot be written to, or has no room.
    """
    try:
        handle = tempfile.NamedTemporaryFile(  # noqa: SIM115 (closed below, before the rename)
            mode,
            dir=path.parent,
            prefix=f".{path.name}.",
            suffix=".tmp",
            delete=False,
            encoding=None if "b" in mode else "utf-8",
        )
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from None
    temporary = Path(handle.name)
    try:
        with _no_room_as_input_error(path), handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        temporary.chmod(0o666 & ~_umask())
        try:
            temporary.replace(path)
        except OSError as error:
            raise InputError(f"{path}: cannot be written: {error.strerror or error}") from None
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_text(path: Path) -> Iterator[TextIO]:
    """Write a UTF-8 file as `atomic_file` does; gzip where its name ends in ``.gz``.

    Parameters
    ----------
    path : Path

    Yields
    ------
    TextIO
        Equal text gives equal bytes: gzip's time stamp is left out.
    """
    with atomic_file(path, "wb") as raw, contextlib.ExitStack() as stack:
        binary = raw
        if path.suffix == ".gz":
            binary = stack.enter_context(
                gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=_GZIP_LEVEL, mtime=0)
            )
        text = io.TextIOWrapper(binary, encoding="utf-8")
        yield text
        text.flush()
        text.detach()


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Fill a folder that stands under its name only once it is complete.

    Parameters
    ----------
    path : Path
        Must not exist, or be an empty folder.

    Yields
    ------
    Path
        A temporary folder beside `path`; renamed to it when the block ends well, removed otherwise.

    Raises
    ------
    InputError
        `path` exists and is not an empty folder, or cannot be made, or there is no room.
    """
    require_vacant(path)
    named, path = path, path.resolve()
    mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o777 & ~_umask()
    missing = missing_parents(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"))
    except OSError as error:
        remove_empty(missing)
        raise InputError(f"{named}: cannot be written: {error.strerror or error}") from None
    try:
        with _no_room_as_input_error(named):
            yield temporary
            for child in temporary.rglob("*"):
                sync(child)
        temporary.chmod(mode)
        try:
            temporary.rename(path)
        except OSError as error:
            raise InputError(f"{named}: cannot be written: {error.strerror or error}") from None
        sync(path.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        remove_empty(missing)
        raise


def missing_parents(path: Path) -> tuple[Path, ...]:
    """Return the folders around `path` that are not there yet, innermost first."""
    try:
        return tuple(parent for parent in path.parents if not parent.exists())
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from None


def remove_empty(folders: Sequence[Path]) -> None:
    """Remove those folders that are there and empty; inner ones come before outer ones."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


@contextmanager
def _no_room_as_input_error(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None


def is_vacant(path: Path) -> bool:
    """Say whether `path` does not exist or is an empty folder.

    Raises
    ------
    InputError
        That cannot be told.
    """
    try:
        if path.is_dir():
            return not any(path.iterdir())
        return not (path.exists() or path.is_symlink())
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from None


def require_vacant(path: Path) -> None:
    """Raise InputError if `path` exists and is anything but an empty folder."""
    if not is_vacant(path):
        raise InputError(f"{path}: exists already; choose another name or remove it")
    for kind, found in (
        ("a mount point", path.resolve().is_mount()),
        ("the working folder", path.resolve() == Path.cwd()),
    ):
        if found:
            raise InputError(f"{path}: {kind} cannot be replaced; name a folder in it")


def require_absent(path: Path) -> None:
    """Raise InputError if something already stands under `path`, or its folder is not there."""
    try:
        taken = path.exists() or path.is_symlink()
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from None
    if taken:
        raise InputError(f"{path}: exists already; choose another name or remove it")
    if not path.parent.is_dir():
        raise InputError(f"{path}: cannot be written: there is no folder {path.parent}")


def exists(path: Path) -> bool:
    """Say whether something stands under `path`; InputError where that cannot be told."""
    try:
        return path.exists()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None


def require_stored(archive: zipfile.ZipFile) -> None:
    """Raise ValueError if what a zip file holds takes more room than the file itself.

    Ours are not compressed; one that is can be a thousand times as large in memory, whatever size
    it says.
    """
    parts = archive.infolist()
    for part in parts:
        if part.compress_type != zipfile.ZIP_STORED or part.compress_size != part.file_size:
            raise ValueError(f"{part.filename} in it is compressed")
    size = sum(part.file_size for part in parts)
    if size > archive.start_dir:
        raise ValueError(f"its parts take {size:,} bytes, the file {archive.start_dir:,}")


def require_plain(folder: Path, links: bool = False) -> None:
    """Raise InputError if a folder holds what one from elsewhere must not.

    Devices and pipes never end, and what is written through a symbolic link is written elsewhere.

    Parameters
    ----------
    folder : Path
    links : bool
        Let symbolic links be, as nothing is written.
    """
    for parent, folders, names in os.walk(folder):
        for path in (Path(parent, name) for name in (*folders, *names)):
            try:
                mode = path.stat(follow_symlinks=links).st_mode
            except FileNotFoundError:
                # Gone meanwhile, or a link that leads nowhere.
                continue
            except OSError as error:
                raise InputError(f"{path}: cannot be read: {error.strerror}") from None
            if stat.S_ISLNK(mode):
                raise InputError(
                    f"{path}: a symbolic link, through which nothing is written; put what it "
                    "leads to in its place, or remove it"
                )
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise InputError(f"{path}: neither a file nor a folder; remove it")


def lock_folder(folder: Path, taken: str) -> AbstractContextManager[object]:
    """Take a folder for this process alone, until the block or the process ends.

    Parameters
    ----------
    folder : Path
        It gets a file ``.lock``.
    taken : str
        What is said where another process has it.

    Raises
    ------
    InputError
        Another process has it, or it cannot be written.
    """
    try:
        return FileLock(folder / ".lock", timeout=0).acquire()
    except Timeout:
        raise InputError(f"{folder}: {taken}") from None
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error.strerror or error}") from None


def _umask() -> int:
    # There is no way to read it without setting it.
    mask = os.umask(0)
    os.umask(mask)
    return mask

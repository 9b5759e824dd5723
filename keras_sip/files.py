"""Files that are either whole or not there: atomic writes, new folders in one rename, and checksums."""

import contextlib
import hashlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

from keras_sip.errors import three_part

CHECKSUMS = "SHA256SUMS"
# Of the checksums, where they are signed.
SIGNATURE = "SHA256SUMS.sig"


class OutputError(OSError):
    """A file or folder cannot be written. What was there before is as it was."""


class DamagedFileError(ValueError):
    """A file is truncated, changed or of another kind than its name says."""


def write_atomically(path: str | os.PathLike, *chunks: bytes) -> None:
    """Write chunks of bytes so that the file is, at every moment, whole or as it was before.

    Raises:
        OutputError: The folder is read-only, full, or gone.
    """
    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.name}.part")
    with writing(path):
        try:
            with temporary.open("wb") as file:
                for chunk in chunks:
                    file.write(chunk)
                file.flush()
                # A rename can reach the disk before the data does.
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            # Ctrl-C too.
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def new_folder(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """A temporary folder to fill; it gets the name `path` when the block ends, and vanishes if the block fails.

    Raises:
        FileExistsError: There is something at `path`.
        OutputError: The folder cannot be made.
    """
    path = pathlib.Path(path)
    if path.exists():
        raise FileExistsError(
            three_part("a folder that does not exist yet", f"path={str(path)!r}, which exists", "Choose another name.")
        )
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = pathlib.Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        # mkdtemp makes folders that nobody else can read.
        temporary.chmod(0o755)
    try:
        yield temporary
        with writing(path):
            os.rename(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def writing(path: str | os.PathLike) -> Iterator[None]:
    """Errors of the file system inside, told in three parts."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(
            three_part(
                f"to be able to write {path}",
                f"{error.strerror or error} (error {error.errno})",
                "Make the folder writable, free space on its disk, or choose another one. Nothing there was changed.",
            )
        ) from None


def write_checksums(folder: pathlib.Path) -> None:
    """`SHA256SUMS` of all files in the folder, as `sha256sum --check` reads it."""
    lines = [f"{_sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in _files(folder)]
    write_atomically(folder / CHECKSUMS, "".join(lines).encode())


def verify_checksums(folder: str | os.PathLike) -> None:
    """Every file in the folder is there and unchanged since `write_checksums`.

    Raises:
        DamagedFileError: With the files that are missing, changed or new.
    """
    folder = pathlib.Path(folder)
    remedy = "Copy or install the folder again."
    try:
        lines = (folder / CHECKSUMS).read_text(encoding="utf-8").splitlines()
        expected = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    except (OSError, UnicodeDecodeError) as error:
        raise DamagedFileError(
            three_part(f"{folder / CHECKSUMS} with the checksums of its folder", str(error), remedy)
        ) from None
    found = {path.relative_to(folder).as_posix(): _sha256(path) for path in _files(folder)}
    if not expected or found != expected:
        missing = sorted(expected.keys() - found.keys())
        unknown = sorted(found.keys() - expected.keys())
        changed = sorted(name for name in expected.keys() & found.keys() if expected[name] != found[name])
        parts = (("missing", missing), ("changed", changed), ("not listed", unknown))
        received = "; ".join(f"{what}: {', '.join(map(repr, names))}" for what, names in parts if names)
        raise DamagedFileError(
            three_part(f"the files of {folder} as {CHECKSUMS} lists them", received or "an empty list", remedy)
        )


def _files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in (CHECKSUMS, SIGNATURE))


def _sha256(path):
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

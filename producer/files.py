"""Which files an INPUT names, and their bytes, with a SHA-256 taken on the way.

What the bytes mean is the business of ``producer.formats``.
"""

from __future__ import annotations

import glob
import gzip
import hashlib
import io
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO

from flavor.errors import InputError

_BLOCK_BYTES = 1 << 20
_GLOB_CHARACTERS = frozenset("*?[")
_GZIP_MAGIC = b"\x1f\x8b"


def find_files(input_path: str, *, is_known: Callable[[Path], bool]) -> list[Path]:
    """List the files that a path, a folder or a glob names, sorted by path.

    Folders are searched to the bottom. Hidden files are skipped there, and so is what other tools
    leave beside data (``_SUCCESS``, ``_metadata``: an underscore and no suffix that ``is_known``).

    Raises:
        InputError: nothing there.
    """
    path = Path(input_path)
    if path.is_dir():
        files = _files_under(path, is_known)
        if not files:
            raise InputError(f"{input_path}: the folder holds no files")
        return files
    if path.exists():
        return [path]
    if not _GLOB_CHARACTERS.isdisjoint(input_path):
        files = list(_files_matching(input_path, is_known))
        if not files:
            raise InputError(f"{input_path}: no file matches")
        return files
    raise InputError(f"{input_path}: no such file or folder")


def _files_matching(pattern: str, is_known: Callable[[Path], bool]) -> Iterator[Path]:
    for match in sorted(glob.glob(pattern, recursive=True)):  # noqa: PTH207 - Path.glob refuses absolute ones
        path = Path(match)
        if not path.is_dir():
            yield path
        elif "**" not in pattern:  # "**" lists what is below its folders by itself
            yield from _files_under(path, is_known)


def _files_under(folder: Path, is_known: Callable[[Path], bool]) -> list[Path]:
    found: list[Path] = []
    for parent, folders, names in os.walk(folder, onerror=_raise_unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found.extend(Path(parent, name) for name in names if not name.startswith("."))
    return sorted(p for p in found if not p.name.startswith("_") or is_known(p))


def _raise_unreadable(error: OSError) -> None:
    raise InputError(f"{error.filename}: {error.strerror}")


def printable(path: Path) -> str:
    """A path as text that any file can hold: names need not be UTF-8, records must."""
    return os.fsencode(path).decode("utf-8", "replace")


class HashingInput:
    """Opens an input's files in order; takes the SHA-256 of all their bytes as they are read."""

    def __init__(self) -> None:
        self.input_bytes = 0
        self._sha256 = hashlib.sha256()

    @property
    def input_sha256(self) -> str:
        """Of the bytes read so far, as they are on disk (compressed ones are not unpacked)."""
        return self._sha256.hexdigest()

    def update(self, block: memoryview) -> None:
        """Count bytes that were read."""
        self.input_bytes += len(block)
        self._sha256.update(block)

    @contextmanager
    def open_file(self, path: Path) -> Iterator[io.BufferedReader]:
        """Open a file; on leaving without an error, the bytes that nobody wanted are hashed too."""
        try:
            raw = path.open("rb", buffering=0)
        except OSError as error:
            raise InputError(f"{printable(path)}: {error.strerror}") from error
        with raw, self.open_stream(raw) as stream:
            yield stream
            drain(stream)

    def open_stream(self, stream: BinaryIO | io.RawIOBase | IO[bytes]) -> io.BufferedReader:
        """Wrap a stream, such as stdin; closing the wrapper leaves the stream open."""
        return io.BufferedReader(_HashedStream(stream, self), _BLOCK_BYTES)


class _HashedStream(io.RawIOBase):
    """Reads another stream and shows every byte to a ``HashingInput``."""

    def __init__(self, stream: BinaryIO | io.RawIOBase | IO[bytes], hashing: HashingInput) -> None:
        self._stream = stream
        self._hashing = hashing

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        block = self._stream.read(len(buffer)) or b""
        buffer[: len(block)] = block
        self._hashing.update(memoryview(block))
        return len(block)


def drain(stream: BinaryIO | io.BufferedIOBase) -> None:
    """Read a stream to its end and forget it."""
    while stream.read(_BLOCK_BYTES):
        pass


def is_gzip(stream: io.BufferedReader) -> bool:
    """Whether the stream starts as gzip does; nothing is consumed."""
    return stream.peek(2).startswith(_GZIP_MAGIC)


def gunzip(stream: io.BufferedReader) -> io.BufferedReader:
    """Unpack a stream; its errors are those that ``reading`` translates."""
    return io.BufferedReader(gzip.GzipFile(fileobj=stream), _BLOCK_BYTES)


@contextmanager
def seekable(stream: BinaryIO | io.BufferedIOBase) -> Iterator[IO[bytes]]:
    """Copy a stream into a nameless file, for formats that cannot be read from front to back."""
    with tempfile.TemporaryFile() as file:
        shutil.copyfileobj(stream, file, _BLOCK_BYTES)
        file.seek(0)
        yield file


@contextmanager
def reading(source: str) -> Iterator[None]:
    """Turn what a broken disk, archive or encoding raises into one line that names the file."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{source}: broken gzip: {error}; pack the file again") from error
    except OSError as error:
        raise InputError(f"{source}: cannot be read: {error.strerror or error}") from error


def listed(names: Collection[str], *, most: int = 20) -> str:
    """Names for an error text, bounded: a hostile header has a million of them."""
    shown = [name if len(name) <= 60 else name[:59] + "…" for name in list(names)[:most]]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(ascii(n)[1:-1] if not n.isprintable() else n for n in shown) + more

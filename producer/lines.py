"""Lines of text out of bytes: bounded in length, and UTF-8 or an error that says where not."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from functools import partial

from flavor.errors import InputError
from worker.inputs import MAX_ROW_BYTES


def read_lines(stream: io.BufferedReader, source: str) -> Iterator[bytes]:
    """Yield lines with their ends. A byte order mark is dropped."""
    if stream.peek(len(codecs.BOM_UTF8)).startswith(codecs.BOM_UTF8):
        stream.read(len(codecs.BOM_UTF8))
    # Bounded, as a file without line ends may be bigger than the memory.
    lines = iter(partial(stream.readline, MAX_ROW_BYTES + 1), b"")
    for number, line in enumerate(lines, start=1):
        if len(line) > MAX_ROW_BYTES:
            raise InputError(
                f"{source}:{number}: the line is longer than {MAX_ROW_BYTES >> 20} MiB, the most a "
                "row may hold; is this the format that the file's name says?"
            )
        yield line


def read_texts(stream: io.BufferedReader, source: str) -> Iterator[str]:
    """Yield lines as text, with their ends."""
    for number, line in enumerate(read_lines(stream, source), start=1):
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise utf8_error(error, f"{source}:{number}", line=line) from error
        yield text


def utf8_error(error: UnicodeDecodeError, place: str, *, line: bytes) -> InputError:
    """Say where a line is not UTF-8 and what to do about it."""
    is_utf16 = line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    encoding = "UTF-16" if is_utf16 else "WINDOWS-1252"
    byte = error.object[error.start]
    return InputError(
        f"{place}: byte {error.start + 1} (0x{byte:02x}) is not UTF-8; convert the file first, for "
        f"instance with: iconv -f {encoding} -t UTF-8"
    )

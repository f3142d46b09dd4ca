"""Damaged files and noisy libraries: ITK reads some damaged files without a word and fills in stray memory."""

import gzip
import os
import re
import struct
import sys
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from ..errors import InputError
from ..folders import require_utf8

_CHUNK_BYTES = 1 << 20
_BEST_COMPRESSION = 1032  # of deflate, https://zlib.net/zlib_tech.html
_HARMLESS_BYTES = 1 << 26  # so many need no look at the file: some formats compress better than deflate
_DETACHED = re.compile(rb"^(?:data ?file:|ElementDataFile *=(?! *LOCAL\b))([^\n\0]+)", re.MULTILINE | re.IGNORECASE)
_DEFLATED_META_IMAGE = re.compile(rb"^CompressedData *= *T", re.MULTILINE | re.IGNORECASE)
_META_IMAGE_VOXELS = re.compile(rb"^ElementDataFile *= *LOCAL *\r?\n", re.MULTILINE | re.IGNORECASE)
_BAD_STREAM = (EOFError, gzip.BadGzipFile, zlib.error)

# What the C libraries say on the terminal while ITK reports success.
_SIGNS_OF_DAMAGE = ("premature end", "bad huffman", "can not read", "read error", "not read completely")

# The descriptors belong to the whole process: two threads that turn them aside at once would restore them wrongly.
_ONE_AT_A_TIME = threading.RLock()
_STANDARD_OUTPUT, _STANDARD_ERROR = 1, 2


@contextmanager
def quiet() -> Iterator[list[str]]:
    """Keep ITK's messages off standard output and standard error; the list holds those lines after the block.

    ITK's own warnings can be switched off, but libtiff, libjpeg, MetaIO and HDF5 write to the descriptors themselves,
    and some damage ("Premature end of JPEG file") is reported nowhere else.
    """
    lines: list[str] = []
    with _ONE_AT_A_TIME, _without_itk_warnings(), TemporaryFile() as sink:
        try:
            with _redirected(_STANDARD_OUTPUT, sink.fileno()), _redirected(_STANDARD_ERROR, sink.fileno()):
                yield lines
        finally:
            sink.seek(0)
            lines += sink.read().decode(errors="replace").splitlines()


@contextmanager
def _without_itk_warnings() -> Iterator[None]:
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)


@contextmanager
def _redirected(descriptor: int, sink: int) -> Iterator[None]:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # a process without a console has none
            stream.flush()
    try:
        saved = os.dup(descriptor)
    except OSError:  # nor the descriptor, and nothing to keep quiet
        yield
        return
    os.dup2(sink, descriptor)
    try:
        yield
    finally:
        os.dup2(saved, descriptor)
        os.close(saved)


def check_readable(path: Path) -> None:
    """Make sure that the path is a file that can be opened and is not empty.

    Raises:
        InputError: it is not; the message names the file without its folders.
    """
    if not path.is_file():
        problem = "is not a file" if path.exists() else "does not exist"
        raise InputError(f"{path.name} {problem}; check the path")
    require_utf8(path, InputError)
    try:
        with path.open("rb") as file:
            is_empty = not file.read(1)
    except OSError as error:
        raise InputError(f"{path.name} cannot be opened: {error.strerror}") from error
    if is_empty:
        raise InputError(f"{path.name} is empty; fetch it again")


def damaged(path: Path) -> InputError:
    """The error for a file that is cut off or damaged."""
    return InputError(f"{path.name} is cut off or damaged and cannot be read; fetch it again")


def is_compressed(path: Path) -> bool:
    """Recognise a gzip file by its first two bytes."""
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


@contextmanager
def _decompressed(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for reading, decompressed if it is a gzip file.

    Raises:
        InputError: in the block, the compressed stream is cut off, or its checksum is wrong.
    """
    try:
        with gzip.open(path) if is_compressed(path) else path.open("rb") as stream:
            yield stream
    except _BAD_STREAM as error:
        raise damaged(path) from error


def first_bytes(path: Path, count: int) -> bytes:
    """Return at most ``count`` bytes from the start of a file, decompressed if it is a gzip file.

    Raises:
        InputError: the compressed stream is cut off or damaged there.
    """
    with _decompressed(path) as stream:
        return stream.read(count)


def stored_bytes(path: Path) -> int:
    """Count the bytes of the file, decompressed if it is a gzip file, which is read to its end for that.

    Raises:
        InputError: the compressed stream is cut off, or its checksum is wrong.
    """
    if not is_compressed(path):
        return path.stat().st_size
    with _decompressed(path) as stream:
        return sum(len(chunk) for chunk in iter(lambda: stream.read(_CHUNK_BYTES), b""))


def check_plausible(path: Path, needed_bytes: int) -> None:
    """Make sure that a file can hold so many decompressed bytes, before memory is taken for them.

    Raises:
        InputError: it cannot; it is cut off, or its header is wrong.
    """
    if needed_bytes > path.stat().st_size * (_BEST_COMPRESSION if is_compressed(path) else 1):
        raise damaged(path)


def check_sizes(path: Path, sizes: Sequence[int], voxel_bytes: int) -> None:
    """Make sure that a file, or the one beside it that its header names, can hold an image of these sizes.

    ITK takes memory for any of them. A compressed MetaImage is read to its end, which ITK looks for without end.

    Raises:
        InputError: there is no voxel, or the file is too short for them; it is cut off, or its header is wrong.
    """
    if min(sizes) < 1:
        raise InputError(f"{path.name} holds no voxels: its header gives an axis of length 0")
    head, needed_bytes = first_bytes(path, 1 << 16), prod(sizes) * voxel_bytes
    named = _DETACHED.search(head)
    file = path.parent / named[1].decode(errors="replace").strip() if named else path
    if not file.is_file():
        return
    if needed_bytes > max(_HARMLESS_BYTES, file.stat().st_size * _BEST_COMPRESSION):
        raise damaged(path)
    if _DEFLATED_META_IMAGE.search(head):
        local = _META_IMAGE_VOXELS.search(head)
        if _inflated_bytes(file, 0 if named or not local else local.end()) < needed_bytes:
            raise damaged(path)


def _inflated_bytes(path: Path, start: int) -> int:
    inflate = zlib.decompressobj(zlib.MAX_WBITS | 32)  # zlib's format or gzip's
    with path.open("rb") as stream:
        stream.seek(start)
        try:
            return sum(len(inflate.decompress(chunk)) for chunk in iter(lambda: stream.read(_CHUNK_BYTES >> 4), b""))
        except zlib.error:
            return 0


def check_stored_voxels(
    path: Path,
    offset: int,
    voxels: NDArray[np.generic],
    needed_bytes: int,
    float_type: np.dtype[np.floating] | None = None,
) -> None:
    """Make sure that the NIfTI file that these voxels were read from is whole, and that ITK has changed none of them.

    ITK reads values that are not finite as 0.

    Args:
        path: the file, compressed or not.
        offset: where the voxels begin, in decompressed bytes.
        voxels: the values as read, in the file's order.
        needed_bytes: the least number of decompressed bytes.
        float_type: the type in the file where it is a real one.

    Raises:
        InputError: the file is cut off or damaged, or some values are not finite.
    """
    if _has_checksum_of(path, offset, voxels):
        return
    if stored_bytes(path) < needed_bytes:
        raise damaged(path)
    if float_type is not None and not np.all(voxels) and not _is_finite(path, offset, needed_bytes, float_type):
        raise InputError(f"{path.name} has values that are not a number or infinite; replace them first")


def _is_finite(path: Path, start: int, stop: int, float_type: np.dtype[np.floating]) -> bool:
    with _decompressed(path) as stream:
        stream.seek(start)
        for position in range(start, stop, _CHUNK_BYTES):
            values = np.frombuffer(stream.read(min(_CHUNK_BYTES, stop - position)), float_type)
            if not np.isfinite(values).all():
                return False
    return True


def _has_checksum_of(path: Path, offset: int, voxels: NDArray[np.generic]) -> bool:
    """True for a gzip file with the size and checksum of its own first bytes followed by these voxels.

    It is proven whole then without decompressing it once more (0.2 s instead of 2 s for 157 MB). Otherwise nothing is
    proven: the values may have been rescaled, or their bytes swapped.
    """
    if not is_compressed(path):
        return False
    with path.open("rb") as file:
        file.seek(-8, os.SEEK_END)
        checksum, size = struct.unpack("<2I", file.read())
    if size != (offset + voxels.nbytes) % 2**32:
        return False
    return zlib.crc32(np.ascontiguousarray(voxels), zlib.crc32(first_bytes(path, offset))) == checksum


def check_complete(path: Path, reader: str, voxel_bytes: int, complaints: list[str]) -> None:
    """Make sure that the image file that ITK has read was whole.

    Args:
        path: the file.
        reader: ITK's name of the format, for example ``"GiplImageIO"``.
        voxel_bytes: the size of all voxels in memory.
        complaints: what the libraries wrote to the terminal during the reading.

    Raises:
        InputError: the file is shorter than its header promises, or a library said that it is damaged.
    """
    has_complaint = any(sign in line.lower() for line in complaints for sign in _SIGNS_OF_DAMAGE)
    needed_bytes = _least_bytes(path, reader, voxel_bytes)
    if has_complaint or (needed_bytes and stored_bytes(path) < needed_bytes):
        raise damaged(path)


# Fields of TIFF 6.0 by their numbers, and what holds where they are missing: bits, kind of number, colour, samples of a
# pixel, planes, compression, orientation, width of a tile.
_TIFF_FIELDS = {258: 1, 339: 1, 262: 1, 277: 1, 284: 1, 259: 1, 274: 1, 322: 0}
_EXTRA_PAGE = 254  # has bit 0 for a smaller copy of another page, bit 2 for its transparency
_WHITE_IS_ZERO, _PALETTE, _CMYK, _YCBCR = 0, 3, 5, 6  # colours; 1 is grey and 2 RGB
_SIGNED, _REAL = 2, 3  # kinds of numbers
_PLAIN_COMPRESSIONS = (1, 5, 7, 8, 32773, 32946)


def stores_white_as_zero(path: Path, reader: str) -> bool:
    """True for a TIFF file whose values have to be turned over, which ITK does not do.

    Raises:
        InputError: ITK would read other values than the file means. It leaves out the scale of a MetaImage; of TIFF
            it rounds tiles, planes and rare compressions to 8 bits, and takes small real numbers for whole ones.
    """
    if reader == "MetaImageIO":
        header = first_bytes(path, 1 << 16).partition(b"ElementDataFile")[0]
        for name, value in re.findall(rb"ElementToIntensityFunction(Slope|Offset) *= *(\S+)", header):
            if not re.fullmatch(rb"1(\.0*)?" if name == b"Slope" else rb"-?0(\.0*)?", value):
                raise InputError(f"{path.name}: its header scales the values, which is not supported; save it again")
    if reader != "TIFFImageIO":
        return False
    try:
        kinds = {
            tuple(page.get(tag, usual) for tag, usual in _TIFF_FIELDS.items())
            for page in _tiff_pages(path)
            if not page.get(_EXTRA_PAGE, 0) & 5
        }
    except struct.error as error:
        raise damaged(path) from error
    if len(kinds) > 1:
        raise InputError(f"{path.name}: its pages differ in kind; save those of one kind in a file of their own")
    bits, kind, colour, samples, planes, compression, orientation, tile = kinds.pop() if kinds else (0,) * 8
    is_strip = not tile and (planes == 1 or samples == 1) and compression in _PLAIN_COMPRESSIONS
    if is_strip and colour <= _PALETTE and bits in (8, 16, 32) and samples in (1, 3, 4) and orientation in (1, 4):
        is_exact = kind != _REAL or (bits == 32 and colour != _WHITE_IS_ZERO)
    else:  # ITK asks libtiff for 8 bits, which takes transparency into the colours
        is_exact = bits <= 8 and kind not in (_SIGNED, _REAL) and (samples in (1, 3) or colour == _CMYK)
        is_exact, colour = is_exact and colour <= _YCBCR, 1
    if not bits or not is_exact:
        raise InputError(
            f"{path.name}: TIFF of this kind cannot be read exactly; save it as grey or RGB of 8 or 16 bits, in strips"
        )
    return colour == _WHITE_IS_ZERO


def _tiff_pages(path: Path) -> Iterator[Mapping[int, int]]:
    """Yield the first value of each field of each page of a TIFF file, classic or big, by the fields' numbers."""
    with path.open("rb") as file:
        order = "<" if file.read(2) == b"II" else ">"

        def read(form: str) -> tuple[Any, ...]:
            return struct.unpack(order + form, file.read(struct.calcsize(order + form)))

        is_big = read("H") == (43,)
        word, count = ("Q", "Q") if is_big else ("I", "H")
        file.seek(8 if is_big else 4)
        (offset,), passed = read(word), set[int]()
        while offset and offset not in passed:
            passed.add(offset)
            file.seek(offset)
            fields = [read(f"HH{word}{struct.calcsize(word)}s") for _ in range(read(count)[0])]
            (offset,) = read(word)
            page = {}
            for tag, kind, length, content in fields:
                if tag not in _TIFF_FIELDS and tag != _EXTRA_PAGE:
                    continue
                form = "I" if kind == 4 else "H"
                if struct.calcsize(form) * length > len(content):
                    file.seek(*struct.unpack(order + word, content))
                    content = file.read(4)
                (page[tag],) = struct.unpack_from(order + form, content)
            yield page


def _least_bytes(path: Path, reader: str, voxel_bytes: int) -> int:
    """Return the smallest whole size of a file in the formats that ITK does not check itself; 0 for all others."""
    head = first_bytes(path, 1024)
    if reader == "BMPImageIO":
        size, offset, width, height, bits, packing = struct.unpack_from("<2xI4xI4xii2xHI", head)
        return size if packing else max(size, offset + (abs(width) * bits + 31) // 32 * 4 * abs(height))
    if reader == "GiplImageIO":
        return 256 + voxel_bytes
    if reader == "MRCImageIO":
        return 1024 + voxel_bytes
    # A VTK file's header ends with the line that names the array; numbers written as text are checked by ITK.
    array = re.search(rb"BINARY.*?(LOOKUP_TABLE|VECTORS|COLOR_SCALARS|TENSORS)[^\n]*\n", head, re.DOTALL)
    return array.end() + voxel_bytes if reader == "VTKImageIO" and array else 0

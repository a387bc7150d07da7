"""One file for what is trained: a zip of JSON and arrays with a version and checksums, and no code.

    manifest.json          format, its version, decigrad's version, SHA-256 of every other member
    structure.json         nodes and values, see `decigrad.encoding`
    arrays/float64.npy     all arrays of one type, end to end

Members are stored, not compressed, and dated 1980, so equal contents are equal bytes and a file holds no more
than its size. A file that is not, byte for byte, what decigrad would write is refused.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from decigrad.encoding import DTYPES, Reader, Writer
from decigrad.errors import ModelError
from decigrad.files import replacing

VERSION = 1
"""Of the format. It grows when a reader of the last one could no longer read what is written."""

LARGEST = 1 << 32
"""Bytes of a file that is read at all."""

_MANIFEST, _STRUCTURE = "manifest.json", "structure.json"
_NAMES = {_MANIFEST, _STRUCTURE, *(f"arrays/{dtype}.npy" for dtype in DTYPES)}


def chosen(given: Sequence[str], mine: Mapping[str, Any]) -> dict[str, Any]:
    """The parts that are named in `given`.

    Raises:
        ModelError: a name that is not one of `mine`.
    """
    names = (given,) if isinstance(given, str) else tuple(given)
    if wrong := [name for name in names if name not in mine]:
        raise ModelError(f"given= names parts among {sorted(mine)}, not {wrong}")
    return {name: mine[name] for name in names}


def save(path: Path, kind: str, content: Any, given: Mapping[str, Any]) -> None:
    """Write an object as a file of a kind; the file is replaced as a whole.

    Args:
        path: where to.
        kind: what it is: "policy".
        content: what to write, see `decigrad.encoding`.
        given: objects of the user's that `load` will be given again, by name.

    Raises:
        ModelError: a part that cannot be written as data.
    """
    writer = Writer(given)
    root = writer.add(content)
    described = [[a.dtype.name, list(a.shape)] for a in writer.arrays]
    members = {_STRUCTURE: _json({"arrays": described, "nodes": writer.nodes, "root": root})}
    for dtype in DTYPES:
        if found := [a.reshape(-1) for a in writer.arrays if a.dtype.name == dtype]:
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.concatenate(found), version=(1, 0), allow_pickle=False)
            members[f"arrays/{dtype}.npy"] = buffer.getvalue()
    manifest = {
        "format": f"decigrad {kind}",
        "version": VERSION,
        "decigrad": version("decigrad"),
        "given": sorted(given),
        "members": {name: _digest(data) for name, data in members.items()},
    }
    with replacing(path) as beside:
        beside.write_bytes(_packed({_MANIFEST: _json(manifest), **members}))


def load(path: Path, kind: str, given: Mapping[str, Any]) -> Any:
    """The object in a file.

    Raises:
        ModelError: not a file of this kind, damaged, of a newer format, or a part is not given.
        OSError: the file cannot be read.
    """
    size = path.stat().st_size
    if size > LARGEST:
        raise ModelError(f"{path} has {size} bytes, more than the {LARGEST} that are read")
    data = path.read_bytes()
    members, manifest = _unpacked(path, kind, data)
    lacking = [name for name in manifest["given"] if name not in given]
    if lacking or (spare := [name for name in given if name not in manifest["given"]]):
        if lacking:
            raise ModelError(f"{path} was saved without its {lacking[0]}: pass load(path, {lacking[0]}=...)")
        raise ModelError(f"{path} holds its own {spare[0]}: leave {spare[0]}= out")
    try:
        structure = json.loads(members[_STRUCTURE])
        arrays = _arrays(structure["arrays"], members)
        return Reader(arrays, given).read(structure["nodes"], structure["root"])
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error


def _unpacked(path: Path, kind: str, data: bytes) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The members of a file and its manifest, checked."""
    members = {}
    name = "the directory"
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for info in archive.infolist():
                name = info.filename
                if name not in _NAMES or name in members:
                    raise ModelError(f"{path} is not a {kind}: it has a member {name!r:.80}")
                if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
                    raise ModelError(f"{path} is not a {kind} as decigrad writes it: {name} is compressed")
                try:
                    members[name] = archive.read(info)
                except zipfile.BadZipFile:
                    raise ModelError(f"{path} is damaged: {name} has changed since it was written") from None
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError, EOFError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{path} is not a {kind}, or is damaged ({name}): {error}") from None
    manifest = _manifest(path, kind, members.get(_MANIFEST))
    for name in {*manifest["members"], *members} - {_MANIFEST}:
        if name not in members or name not in manifest["members"]:
            raise ModelError(
                f"{path} is damaged: {name} is {'missing' if name not in members else 'unlisted'}"
            )
        if _digest(members[name]) != manifest["members"][name]:
            raise ModelError(f"{path} is damaged: {name} has changed since it was written")
    if _packed(members) != data:
        raise ModelError(f"{path} is damaged: bytes outside its members have changed since it was written")
    return members, manifest


def _manifest(path: Path, kind: str, data: bytes | None) -> dict[str, Any]:
    try:
        manifest = json.loads(data or b"")
        form, number, written, members = (manifest[n] for n in ("format", "version", "decigrad", "members"))
    except (ValueError, LookupError, TypeError, RecursionError):
        raise ModelError(f"{path} is not a {kind}: it has no readable {_MANIFEST}") from None
    if form != f"decigrad {kind}":
        raise ModelError(f"{path} is not a {kind}: its format is {form!r:.80}")
    if not isinstance(number, int) or not 0 < number <= VERSION:
        raise ModelError(
            f"{path} was written by decigrad {written} in version {number} of the format; this decigrad "
            f"({version('decigrad')}) reads up to version {VERSION}: upgrade decigrad"
        )
    given = manifest.get("given")
    if (
        not isinstance(members, dict)
        or not isinstance(given, list)
        or not all(isinstance(n, str) for n in given)
    ):
        raise ModelError(f"{path} is not a {kind}: its {_MANIFEST} is incomplete")
    return dict(manifest)


def _arrays(described: list[Any], members: Mapping[str, bytes]) -> list[np.ndarray]:
    """The arrays by number, read-only."""
    pools, used, found = {}, dict.fromkeys(DTYPES, 0), []
    for dtype, shape in described:
        if dtype not in used or not all(type(s) is int and s >= 0 for s in shape):
            raise ModelError(f"no array of type {dtype!r} and shape {shape}")
        if dtype not in pools:
            pools[dtype] = _pool(f"arrays/{dtype}.npy", dtype, members)
        start, used[dtype] = used[dtype], used[dtype] + math.prod(shape)
        found.append(pools[dtype][start : used[dtype]].reshape(shape))
    return found


def _pool(name: str, dtype: str, members: Mapping[str, bytes]) -> np.ndarray:
    """The numbers of one type, as they lie in the file."""
    if name not in members:
        raise ModelError(f"{name} is missing")
    buffer = io.BytesIO(members[name])
    np.lib.format.read_magic(buffer)
    shape, _, found = np.lib.format.read_array_header_1_0(buffer)
    rest = len(members[name]) - buffer.tell()
    if found.name != dtype or shape != (rest // found.itemsize,) or rest % found.itemsize:
        raise ModelError(f"{name} holds {found} {shape} in {rest} bytes")
    return np.frombuffer(members[name], found, offset=buffer.tell())


def _json(value: Any) -> bytes:
    return json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _packed(members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(members, key=lambda n: (n != _MANIFEST, n)):
            info = zipfile.ZipInfo(name)
            info.create_system, info.external_attr = 3, 0o644 << 16
            archive.writestr(info, members[name])
    return buffer.getvalue()

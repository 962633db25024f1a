"""Files that are whole or absent: atomic writes, folders renamed into place, manifests of sha256."""

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wenlu.base.errors import UserError

MANIFEST = "manifest.json"
_REASONS = {
    errno.ENOSPC: "the disk is full: free some space, or write elsewhere with --out",
    errno.EDQUOT: "the disk quota is used up: free some space, or write elsewhere with --out",
    errno.EFBIG: "the file would exceed what the file system or a limit (ulimit -f) allows: write elsewhere with --out",
    errno.EROFS: "the file system is read-only: write elsewhere with --out",
    errno.EACCES: "permission denied: write elsewhere with --out, or change the folder's permissions",
    errno.EPERM: "not permitted: write elsewhere with --out, or change the folder's permissions",
    errno.ENOTDIR: "a part of the path is a file, not a folder: write elsewhere with --out",
}


@contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """Turn what the operating system refuses (full disk, no permission) into a `UserError` that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in _REASONS:
            raise
        raise UserError(f"cannot write {path}: {_REASONS[error.errno]}") from error


def make_folder(path: Path, *, new: bool = False) -> None:
    """A folder with its parents; `new`: it must not be there. UserError where its place takes none, such as /proc."""
    try:
        with writing(path):
            path.mkdir(parents=True, exist_ok=not new)
    except FileNotFoundError:
        raise UserError(f"cannot write {path}: nothing can be made in {path.parent}; choose another place") from None


def cache_folder() -> Path:
    """Where what was measured, compiled or counted on this machine is kept: $XDG_CACHE_HOME/wenlu or ~/.cache/wenlu."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wenlu"


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def atomic_write(path: Path | str, data: bytes | str) -> None:
    """Write `data` so that `path` holds either what it held before or all of `data`, whatever happens meanwhile."""
    path = Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(data.encode() if isinstance(data, str) else data)


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """A temporary path beside `path` to write to; on success it is flushed and renamed over `path`, else removed."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)
        _flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path | str, *, replace: bool = False) -> Iterator[Path]:
    """A temporary folder beside `path`; on success it gets a manifest, is flushed and renamed to `path`, else removed.

    A process killed meanwhile leaves a hidden `.NAME.*.tmp`, which the next writer of the same `path` removes.
    """
    path = Path(path)
    if path.exists() and not replace:
        raise UserError(f"{path} exists already: choose another --out, or remove it first")
    with writing(path):
        make_folder(path.parent)
        sweep(path.parent, re.escape(path.name))
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
        make_folder(temporary, new=True)
        try:
            yield temporary
            write_manifest(temporary)
            if path.exists():
                shutil.rmtree(path)
            os.replace(temporary, path)
            _flush(path.parent)
        finally:
            if temporary.exists():
                shutil.rmtree(temporary, ignore_errors=True)


def sweep(folder: Path, name: str = ".+") -> None:
    """Remove the temporary files and folders that killed writers of `folder/name` (an expression) left behind."""
    left_over = re.compile(rf"\.{name}\.[0-9a-f]{{8}}\.tmp")
    for path in [p for p in folder.glob(".*.tmp") if left_over.fullmatch(p.name)]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def lock_file(path: Path, refusal: str) -> int:
    """Hold `path` for this process until it ends or closes the descriptor; a `UserError` where another one does."""
    with writing(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise UserError(refusal) from None
    return descriptor


def sha256_file(path: Path | str) -> str:
    """Hex sha256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(folder: Path) -> None:
    """Flush every file below `folder`, then write `manifest.json`: relative path → size in bytes and sha256."""
    entries = {}
    for file in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST):
        _flush(file)
        entries[file.relative_to(folder).as_posix()] = {"bytes": file.stat().st_size, "sha256": sha256_file(file)}
    body = {"files": entries}
    body["sha256"] = hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()
    (folder / MANIFEST).write_text(json.dumps(body, indent=1))
    _flush(folder / MANIFEST)
    _flush(folder)


def verify_folder(folder: Path | str, *, contents: bool = True) -> list[str]:
    """What is wrong with a folder written by `whole_folder`; an empty list means that it is whole.

    With `contents=False` only names and sizes are compared, not the bytes.
    """
    folder = Path(folder)
    try:
        body = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        entries = body["files"]
        if hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest() != body["sha256"]:
            return [f"{MANIFEST} was changed"]
    except FileNotFoundError:
        return [f"{MANIFEST} is missing"]
    except (ValueError, KeyError, TypeError):
        return [f"{MANIFEST} is damaged"]
    problems = []
    for name, entry in entries.items():
        file = folder / name
        if not file.is_file():
            problems.append(f"{name} is missing")
        elif file.stat().st_size != entry["bytes"]:
            problems.append(f"{name} has {file.stat().st_size} bytes instead of {entry['bytes']}")
        elif contents and sha256_file(file) != entry["sha256"]:
            problems.append(f"{name} was changed (its sha256 differs)")
    return problems

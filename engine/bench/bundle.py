"""One campaign stage as one zip file: its result, its log, and the trace folders that it wrote.

    result.json         name, status, sentence, seconds, settings, figures
    log.txt             what the stage printed
    figures.json ...    tables of the stage
    <trace>/meta.json   and the other files of a trace folder

A bundle is written whole, again and again while its stage runs, and unpacked into folders that every reader of traces
takes. No torch here: unpacking works where the planner does.
"""

import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.core.trace import TRACE_FILES
from roofline.errors import InputError, TraceError

RESULT_FILE = "result.json"
MAX_BYTES = 16 << 20  # a file that can be carried off any machine and kept beside code


def pack(folder: Path, bundle: Path, result: Mapping[str, Any]) -> int:
    """Put all files of `folder` and `result` into `bundle`, in place of an older one; returns its bytes.

    Hidden names are left out: they are files in the making.
    """
    fresh = bundle.with_name(f".{bundle.name}.new-{os.getpid()}")
    try:
        with zipfile.ZipFile(fresh, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(RESULT_FILE, json.dumps(result, indent=1, allow_nan=False) + "\n")
            for path in sorted(folder.rglob("*")):
                name = path.relative_to(folder)
                if path.is_file() and not any(part.startswith(".") for part in name.parts):
                    archive.write(path, name.as_posix())
        size = fresh.stat().st_size
        fresh.replace(bundle)
    finally:
        fresh.unlink(missing_ok=True)
    return size


def read_result(bundle: Path) -> dict[str, Any] | None:
    """What a bundle says of its stage; None where there is no bundle, or what is there is none."""
    try:
        with zipfile.ZipFile(bundle) as archive:
            result = json.loads(archive.read(RESULT_FILE))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        return None
    return result if isinstance(result, dict) else None


def unpack(bundle: Path, out: Path) -> list[Path]:
    """Extract a bundle's trace folders into `out`, a folder for each; returns them.

    Raises `TraceError` for a file that is no bundle, and `InputError` where a folder is there already.
    """
    try:
        with zipfile.ZipFile(bundle) as archive:
            files = _trace_files(archive.namelist())
            folders = sorted({out / name.split("/")[0] for name in files})
            for folder in folders:
                if folder.exists():
                    raise InputError(f"{folder} is there already; choose another --out, or remove it.")
            for name in files:
                target = out / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.read(name))
    except (zipfile.BadZipFile, FileNotFoundError, IsADirectoryError):
        raise TraceError(f"{bundle} is no bundle of a campaign (a .zip file); give one that it wrote.") from None
    return folders


def bundles_in(path: Path) -> list[Path]:
    """The bundles of a campaign's folder, or the one bundle that `path` is; TraceError where there are none."""
    found = sorted(path.glob("*.zip")) if path.is_dir() else [path]
    if not found or not all(bundle.is_file() for bundle in found):
        raise TraceError(f"{path} holds no bundle (.zip) of a campaign; give its --out folder, or one of its files.")
    return found


def _trace_files(names: list[str]) -> list[str]:
    """Members that belong to trace folders: `<trace>/<file of a trace>`, and nothing that could leave the folder."""
    split = [(name, name.split("/")) for name in names]
    inside = [name for name, parts in split if len(parts) == 2 and parts[0] not in ("", ".", "..")]
    return [name for name in inside if name.split("/")[1] in TRACE_FILES and "\\" not in name]

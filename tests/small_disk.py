"""A disk of a few megabytes that can really be full, for one process and without privileges."""

import ctypes
import os
import shutil
from pathlib import Path

NEW_MOUNTS, NEW_USER = 0x20000, 0x10000000


def mount(folder: Path, size: int) -> bool:
    """Mount an empty file system of ``size`` bytes at ``folder``, seen by this process alone; tell whether it may."""
    libc, user, group = ctypes.CDLL(None), os.getuid(), os.getgid()
    folder.mkdir(parents=True, exist_ok=True)
    if libc.unshare(NEW_USER | NEW_MOUNTS):
        return False
    for name, content in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
        Path("/proc/self", name).write_text(content)
    return libc.mount(b"tmpfs", bytes(folder), b"tmpfs", 0, f"size={size}".encode()) == 0


def fill(folder: Path, left: int) -> Path:
    """Write a file into ``folder`` that leaves ``left`` bytes of its disk, rounded to pages."""
    filler = folder / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(folder).free - left))
    return filler

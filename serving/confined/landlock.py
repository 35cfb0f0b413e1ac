"""Writing to a few folders and nowhere else, by Linux's Landlock (5.13 and later) through ctypes: no package, no privilege."""

import ctypes
import os
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["write_only_below"]

_CREATE, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every processor
_ASK_VERSION, _PATH_BENEATH = 1, 1
_NEW_PRIVILEGES_OFF = 38  # prctl: PR_SET_NO_NEW_PRIVS
# linux/landlock.h: write a file, remove a folder or file, make a device, folder, file, socket, pipe, block device or link
_WRITES = sum(1 << bit for bit in (1, *range(4, 13)))
_MOVE_BETWEEN, _TRUNCATE = 1 << 13, 1 << 14  # from the second and the third version of the interface
_OF_A_FILE = (1 << 1) | _TRUNCATE
_TCP_BIND_AND_CONNECT = 3  # from the fourth
_NO_ABSTRACT_SOCKETS = 1  # from the sixth


def write_only_below(folders: Sequence[Path], files: Sequence[Path] = ()) -> None:
    """The calling thread, and whatever it starts, writes, makes and removes below these folders and in these files alone.

    Where the kernel can, also: no TCP, no abstract sockets of others. For good. OSError where the kernel has no Landlock or
    refuses.
    """
    if sys.platform != "linux":
        raise OSError("Landlock is Linux's")
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(_CREATE, None, 0, _ASK_VERSION)
    if version < 1:
        raise OSError(ctypes.get_errno(), "no Landlock")
    handled = _WRITES | (_MOVE_BETWEEN if version >= 2 else 0) | (_TRUNCATE if version >= 3 else 0)
    attributes = struct.pack("=Q", handled)
    if version >= 4:
        attributes += struct.pack("=Q", _TCP_BIND_AND_CONNECT)
    if version >= 6:
        attributes += struct.pack("=Q", _NO_ABSTRACT_SOCKETS)
    ruleset = _checked(libc.syscall(_CREATE, attributes, len(attributes), 0), "landlock_create_ruleset")
    try:
        for path in (*folders, *files):
            allowed = handled & (_OF_A_FILE if path in files else ~0)
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
            try:
                rule = struct.pack("=Qi", allowed, place)
                _checked(libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0), "landlock_add_rule")
            finally:
                os.close(place)
        _checked(libc.prctl(_NEW_PRIVILEGES_OFF, 1, 0, 0, 0), "prctl")
        _checked(libc.syscall(_RESTRICT_SELF, ruleset, 0), "landlock_restrict_self")
    finally:
        os.close(ruleset)


def _checked(result: int, call: str) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), call)
    return int(result)

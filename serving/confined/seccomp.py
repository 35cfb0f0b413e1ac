"""A filter before the kernel's calls: what a process may never ask for again, nor any thread or program it starts.

Linux on x86-64 and arm64, by the `seccomp` call through ctypes: no package, no privilege. A filter is classic BPF, a list of
(code, jump if true, jump if false, value) over the call's number and arguments (linux/seccomp.h, linux/filter.h).
"""

import ctypes
import errno
import os
import platform
import struct
import sys

__all__ = ["deny_network_and_others", "deny_new_processes", "filters_calls"]

_NEW_PRIVILEGES_OFF = 38  # prctl: PR_SET_NO_NEW_PRIVS
_SECCOMP = {"x86_64": 317, "aarch64": 277}
_SET_MODE_FILTER, _ALL_THREADS = 1, 1
_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # linux/audit.h
_FIRST_X32_CALL = 0x40000000  # x86-64's second table of the same calls

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000

# name: number on x86-64, number on arm64
_Calls = dict[str, tuple[int | None, int | None]]
_NETWORK: _Calls = {
    "socket": (41, 198), "connect": (42, 203), "accept": (43, 202), "bind": (49, 200),
    "listen": (50, 201), "accept4": (288, 242),
    "io_uring_setup": (425, 425),  # its queue does all of these past any filter
}  # fmt: skip
_OTHER_PROCESSES: _Calls = {
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240), "pidfd_send_signal": (424, 424), "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
}  # fmt: skip
_KERNEL: _Calls = {
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "unshare": (272, 97),
    "setns": (308, 268), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430), "keyctl": (250, 219),
    "add_key": (248, 217), "request_key": (249, 218), "bpf": (321, 280), "userfaultfd": (323, 282),
    "perf_event_open": (298, 241), "init_module": (175, 105), "finit_module": (313, 273), "kexec_load": (246, 104),
}  # fmt: skip
_SIGNALS: _Calls = {"kill": (62, 129), "tgkill": (234, 131)}  # the first argument of these says to whom
_LIMITS = (302, 261)  # prlimit64, and of this one of whom
_PROGRAMS: _Calls = {"execve": (59, 221), "execveat": (322, 281), "fork": (57, None), "vfork": (58, None)}
_CLONE, _CLONE3, _CLONE_THREAD = (56, 220), (435, 435), 0x00010000

_Step = tuple[int, int, int, int]


def filters_calls() -> bool:
    """Whether this system has such filters: Linux on a processor whose numbers are known here."""
    return sys.platform == "linux" and sys.byteorder == "little" and platform.machine() in _SECCOMP


def deny_network_and_others(*, may_signal: bool) -> None:
    """No socket of any family, no other process's memory, signals or limits, no mounts and namespaces. For good.

    may_signal: whether it may signal others, as who starts programs and ends them must. Sockets of files are denied too: a
    network namespace does not hold them, and Ray's, PostgreSQL's and Docker's doors are such. OSError where refused.
    """
    steps = [step for calls in (_NETWORK, _OTHER_PROCESSES, _KERNEL) for call in calls.values() for step in _deny(call)]
    steps += _deny_unless_first_is(_LIMITS, (0, os.getpid()))  # 0 is this process, here
    for call in () if may_signal else _SIGNALS.values():
        steps += _deny_unless_first_is(call, (os.getpid(), os.getpid()))  # 0 would be its group, and the server in it
    _install(steps)


def deny_new_processes() -> None:
    """Threads yes, processes and programs no: for who has loaded all that it needs. OSError where refused."""
    steps = [step for call in _PROGRAMS.values() for step in _deny(call)]
    steps += _deny(_CLONE3, errno.ENOSYS)  # its flags lie behind a pointer; the C library then takes clone
    steps += [
        (_EQUAL, 0, 4, _number(_CLONE) or 0),
        (_LOAD, 0, 0, _FIRST_ARGUMENT_AT),
        (_ANY_BIT, 1, 0, _CLONE_THREAD),
        (_RETURN, 0, 0, _ERRNO | errno.EACCES),
        (_LOAD, 0, 0, _NUMBER_AT),
    ]
    _install(steps)


def _number(call: tuple[int | None, int | None]) -> int | None:
    return call[0] if platform.machine() == "x86_64" else call[1]


def _deny(call: tuple[int | None, int | None], error: int = errno.EACCES) -> list[_Step]:
    number = _number(call)
    return [] if number is None else [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERRNO | error)]


def _deny_unless_first_is(call: tuple[int | None, int | None], allowed: tuple[int, int]) -> list[_Step]:
    """Denied unless the first argument is one of the two."""
    return [
        (_EQUAL, 0, 5, _number(call) or 0),
        (_LOAD, 0, 0, _FIRST_ARGUMENT_AT),
        (_EQUAL, 2, 0, allowed[0]),
        (_EQUAL, 1, 0, allowed[1]),
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
        (_LOAD, 0, 0, _NUMBER_AT),
    ]


def _install(denials: list[_Step]) -> None:
    """The denials as a filter of all threads: what is not denied is allowed, calls of another processor's table end it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_NEW_PRIVILEGES_OFF, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    steps: list[_Step] = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_EQUAL, 1, 0, _ARCHITECTURE[platform.machine()]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_AT_LEAST, 0, 1, _FIRST_X32_CALL),
        (_RETURN, 0, 0, _KILL),
        *denials,
        (_RETURN, 0, 0, _ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    program = ctypes.create_string_buffer(struct.pack("@HP", len(steps), ctypes.addressof(code)))
    if libc.syscall(_SECCOMP[platform.machine()], _SET_MODE_FILTER, _ALL_THREADS, program):
        raise OSError(ctypes.get_errno(), "seccomp")

"""What a process that reads strangers' files is held in, and which of it holds here.

A decoder is a million lines of C that eat what anybody sends: it is held as if it were already somebody else's. Everything is
by the C library through ctypes and needs no privilege. `confine` comes first, before a library starts a thread, for the kernel
gives a namespace to a process of one thread alone; `seal` once all that is needed is loaded.
"""

import ctypes
import os
import resource
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from data_shards.worker_pool import killed_with_parent
from serving.confined.landlock import write_only_below
from serving.confined.seccomp import deny_network_and_others, deny_new_processes, filters_calls

__all__ = ["Bounds", "Confinement", "bound_cpu", "confine", "seal"]

Network = Literal["namespace and filter", "namespace", "filter", "open"]

_NEW_PRIVILEGES_OFF = 38  # prctl: PR_SET_NO_NEW_PRIVS
_NEW_MOUNTS, _NEW_USERS, _NEW_NETWORK = 0x00020000, 0x10000000, 0x40000000  # linux/sched.h
_PRIVATE_ALL = (1 << 18) | (1 << 14)  # mount: MS_PRIVATE | MS_REC
_NO_DEVICES_NO_PROGRAMS = 2 | 4 | 8  # mount: MS_NOSUID | MS_NODEV | MS_NOEXEC
_CAPABILITIES_3 = 0x20080522  # linux/capability.h
_CAPSET = {"x86_64": 126, "aarch64": 91}
_DIES_FIRST = "1000"


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """memory_bytes: of addresses; file_bytes: of any file that it writes; scratch_bytes: of all in its scratch folder, where
    the kernel gives it one of its own; runs_programs: whether it starts programs, such as OpenFace's."""

    memory_bytes: int
    file_bytes: int = 128 << 20
    scratch_bytes: int = 160 << 20
    open_files: int = 256
    runs_programs: bool = False


@dataclass(frozen=True)
class Confinement:
    """What holds a process here. scratch_in_memory: its scratch folder is bounded, seen by nobody else, and gone with it;
    sealed: it starts no process."""

    network: Network = "open"
    own_users: bool = False
    scratch_in_memory: bool = False
    writes_only_scratch: bool = False
    no_new_privileges: bool = False
    no_capabilities: bool = False
    dies_first: bool = False
    limits: tuple[str, ...] = ()
    sealed: bool = False

    def sentence(self) -> str:
        """For a line of a log: what holds, and what does not."""
        parts = {
            "own user namespace": self.own_users,
            "bounded scratch folder in memory": self.scratch_in_memory,
            "writes to its scratch folder alone": self.writes_only_scratch,
            "no new privileges": self.no_new_privileges,
            "no capabilities": self.no_capabilities,
            "first to die when memory is out": self.dies_first,
            "no new process once it is loaded": self.sealed,
        }
        held = [name for name, holds in parts.items() if holds] + [f"limits on {', '.join(self.limits)}"]
        lacking = [name for name, holds in parts.items() if not holds]
        network = f"no network (by {self.network})" if self.network != "open" else "THE NETWORK IS OPEN to it"
        return f"decoding is held in: {network}; {', '.join(held)}" + (f"; not here: {', '.join(lacking)}" if lacking else "")


def confine(bounds: Bounds, scratch: Path | None) -> Confinement:
    """Hold this process, for good, and say in what. To be called before any thread is started: threads that are there keep
    their network but for the filter. Nothing is raised: what the kernel refuses is named as not holding.

    scratch: an empty folder of this process alone, to which TMPDIR is set; None where it is to write nothing anywhere.
    """
    killed_with_parent()()
    if scratch is not None:
        os.environ["TMPDIR"] = str(scratch)
    os.environ["HF_HUB_OFFLINE"] = "1"  # what would ask the hub says at once that it cannot
    dies_first = _dies_first()
    namespace, own_users, in_memory = _unshared(scratch, bounds.scratch_bytes)
    limits = _limited(bounds)
    no_capabilities = _without_capabilities()
    no_new_privileges = sys.platform == "linux" and ctypes.CDLL(None).prctl(_NEW_PRIVILEGES_OFF, 1, 0, 0, 0) == 0
    writes_only_scratch = _succeeds(write_only_below, [scratch] if scratch else [], [Path(os.devnull)])
    filtered = filters_calls() and _succeeds(_deny_calls, bounds)
    networks: dict[tuple[bool, bool], Network] = {
        (True, True): "namespace and filter",
        (True, False): "namespace",
        (False, True): "filter",
    }
    return Confinement(
        network=networks.get((namespace, filtered), "open"),
        own_users=own_users,
        scratch_in_memory=in_memory,
        writes_only_scratch=writes_only_scratch,
        no_new_privileges=no_new_privileges,
        no_capabilities=no_capabilities,
        dies_first=dies_first,
        limits=limits,
    )


def seal(bounds: Bounds) -> bool:
    """No process and no program from here on, but threads; whether that holds. With runs_programs it does not."""
    return not bounds.runs_programs and filters_calls() and _succeeds(deny_new_processes)


def bound_cpu(seconds: float) -> None:
    """SIGXCPU, which ends the process, after so many more seconds of all cores: a backstop to whoever waits with a clock."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    until_s = int(used.ru_utime + used.ru_stime + seconds * (os.cpu_count() or 1)) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (until_s, resource.RLIM_INFINITY))


def _succeeds(act: object, *arguments: object) -> bool:
    try:
        act(*arguments)  # type: ignore[operator]
    except OSError:
        return False
    return True


def _deny_calls(bounds: Bounds) -> None:
    deny_network_and_others(may_signal=bounds.runs_programs)


def _dies_first() -> bool:
    return sys.platform == "linux" and _succeeds(Path("/proc/self/oom_score_adj").write_text, _DIES_FIRST)


def _limited(bounds: Bounds) -> tuple[str, ...]:
    """The names of the limits that were taken; neither can be raised again without a privilege."""
    wanted = {
        "memory": (resource.RLIMIT_AS, bounds.memory_bytes),
        "core files": (resource.RLIMIT_CORE, 0),
        "file size": (resource.RLIMIT_FSIZE, bounds.file_bytes),
        "open files": (resource.RLIMIT_NOFILE, bounds.open_files),
    }
    return tuple(name for name, (kind, value) in wanted.items() if _limit(kind, value))


def _limit(kind: int, value: int) -> bool:
    """macOS refuses a bound on addresses."""
    try:
        resource.setrlimit(kind, (value, value))
    except (OSError, ValueError):
        return False
    return True


def _unshared(scratch: Path | None, scratch_bytes: int) -> tuple[bool, bool, bool]:
    """(whether the network is an empty one of its own, and the users, whether scratch is a bounded one in memory)."""
    if sys.platform != "linux":
        return False, False, False
    user, group = os.getuid(), os.getgid()
    libc = ctypes.CDLL(None, use_errno=True)
    own_users = libc.unshare(_NEW_USERS | _NEW_NETWORK | _NEW_MOUNTS) == 0
    if own_users:
        _succeeds(Path("/proc/self/setgroups").write_text, "deny")
        _succeeds(Path("/proc/self/uid_map").write_text, f"{user} {user} 1")
        _succeeds(Path("/proc/self/gid_map").write_text, f"{group} {group} 1")
    # a container may refuse user namespaces and still be root
    namespace = own_users or libc.unshare(_NEW_NETWORK | _NEW_MOUNTS) == 0
    in_memory = (
        scratch is not None
        and namespace
        and libc.mount(b"none", b"/", None, _PRIVATE_ALL, None) == 0
        and libc.mount(
            b"tmpfs", os.fsencode(scratch), b"tmpfs", _NO_DEVICES_NO_PROGRAMS, f"size={scratch_bytes},mode=700".encode()
        )
        == 0
    )
    return namespace, own_users, in_memory


def _without_capabilities() -> bool:
    """Those of its own namespace, and root's where there is none: with them it could mount, or raise its limits again."""
    import platform

    if sys.platform != "linux" or platform.machine() not in _CAPSET:
        return False
    header = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITIES_3, 0))
    return bool(ctypes.CDLL(None).syscall(_CAPSET[platform.machine()], header, ctypes.create_string_buffer(24)) == 0)

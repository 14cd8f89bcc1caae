"""What the machine allows this process: open files, memory, room on the disk; and how much of each is used.

Sources: getrlimit(2), proc_pid_status(5), statvfs(3); control groups as the kernel's Documentation/admin-guide has them
(cgroup-v2, and the memory controller of v1).
"""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tradeback.errors import ConfigError, DataFolderError

KIB = 1024
V1_UNLIMITED = 1 << 62  # a group of v1 without a limit has the largest number of whole pages
GROUPS = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")
OWN_STATUS = Path("/proc/self/status")
OWN_DESCRIPTORS = "/proc/self/fd"


class Use(NamedTuple):
    """How much is used of what there is, in descriptors or bytes, and what sets the limit. A limit of 0 is none."""

    used: int
    limit: int
    by: str

    @property
    def share(self) -> float:
        return self.used / self.limit if self.limit else 0.0


def allow_descriptors(wanted: int, least: int, what: str) -> int:
    """Raise this process's soft limit of open files to `wanted`, as far as the hard one goes. Returns what holds now.

    Raises ConfigError where not even `least` are allowed; `what` needs them.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if most > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    if soft < least:
        raise ConfigError(
            f"{what} needs {least} open files, and the hard limit is {hard}: raise it "
            "(LimitNOFILE= of a systemd unit, --ulimit nofile= of a container, ulimit -Hn)"
        )
    return soft


def descriptors() -> Use:
    """The open files of this process."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Since Linux 6.2 the folder's size is their number; before it is 0, and they are counted.
    try:
        used = os.stat(OWN_DESCRIPTORS).st_size or len(os.listdir(OWN_DESCRIPTORS))
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
        used = soft  # none is left to look with
    return Use(used, 0 if soft == resource.RLIM_INFINITY else soft, "the limit of open files")


def memory(ceiling: int, status: Path = OWN_STATUS, own: Path = OWN_GROUPS, groups: Path = GROUPS) -> Use:
    """What is used of the ceiling that is nearest: the configured one (0: none), that of the address space, or of a
    control group, which counts for all of its processes. Pages of files do not count: the kernel takes them back."""
    told = _numbers(status.read_text(), KIB)
    uses = [Use(told.get("RssAnon", 0), ceiling, "RESOURCES_MEMORY")]
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        uses.append(Use(told.get("VmSize", 0), soft, "the limit of the address space (ulimit -v)"))
    uses += _of_groups(own, groups)
    return max(uses, key=lambda use: (use.share, use.limit))


def disk_free(folder: Path) -> int:
    """Bytes that may still be written to the disk of a folder. Raises DataFolderError where it cannot be asked."""
    try:
        status = os.statvfs(folder)
    except OSError as error:
        raise DataFolderError(
            f"the free room of {folder} cannot be asked: {error.strerror}; see to the disk, or choose another data "
            "folder with DATA_DIR"
        ) from error
    return status.f_bavail * status.f_frsize


def _of_groups(own: Path, groups: Path) -> Iterator[Use]:
    """The memory of each group that this process is in and that has a limit."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return  # a system without control groups
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top = groups / controllers if controllers else groups
        folder = top / path.lstrip("/")
        # In a container the path may be that of the machine, which is not seen there: its own group is on top.
        folder = folder if folder.is_dir() else top
        while folder.is_relative_to(groups):
            use = _of_group(folder, v1=bool(controllers))
            if use is not None:
                yield use
            if folder == top:
                break
            folder = folder.parent


def _of_group(folder: Path, *, v1: bool) -> Use | None:
    """Memory of one control group; None where it has no limit."""
    limit_file, used_file = (
        ("memory.limit_in_bytes", "memory.usage_in_bytes") if v1 else ("memory.max", "memory.current")
    )
    try:
        limit = (folder / limit_file).read_text().strip()
        if limit == "max" or int(limit) >= V1_UNLIMITED:
            return None
        used = int((folder / used_file).read_text())
        told = _numbers((folder / "memory.stat").read_text(), 1)
    except OSError:
        return None  # the root of all groups has no such files
    whole = "total_" if v1 else ""
    files = sum(told.get(f"{whole}{kind}_file", 0) for kind in ("active", "inactive"))
    return Use(max(used - files, 0), int(limit), f"{limit_file} of {folder}")


def _numbers(text: str, unit: int) -> dict[str, int]:
    """Names and numbers of lines such as `VmSize:  12 kB` or `anon 12`."""
    lines = (line.replace(":", " ").split() for line in text.splitlines())
    return {words[0]: int(words[1]) * unit for words in lines if len(words) > 1 and words[1].isdecimal()}

"""What a process may take: real limits, in processes of their own, and control groups as the kernel shows them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tradeback.ceilings import Use, descriptors, disk_free, memory
from tradeback.errors import DataFolderError

MIB = 1 << 20
STATUS = "Name:\tpython\nVmSize:\t  204800 kB\nVmRSS:\t   61440 kB\nRssAnon:\t   51200 kB\n"


def limited(limits: str, code: str) -> str:
    """What Python prints that runs under these limits of prlimit(1)."""
    done = subprocess.run(
        ["prlimit", *limits.split(), sys.executable, "-c", code], capture_output=True, text=True, timeout=300
    )
    return done.stdout + done.stderr


ALLOW = "from tradeback.ceilings import *; print(allow_descriptors({}), descriptors().limit)"


@pytest.mark.parametrize(
    ("limits", "asked", "said"),
    [
        ("--nofile=100:500", "300, 200, 'x'", "300 300"),
        ("--nofile=100:250", "300, 200, 'x'", "250 250"),
        ("--nofile=400:500", "300, 200, 'x'", "400 400"),
    ],
)
def test_the_soft_limit_is_raised_as_far_as_it_may(limits: str, asked: str, said: str) -> None:
    assert limited(limits, ALLOW.format(asked)).strip() == said


def test_a_hard_limit_that_does_not_do_is_a_sentence() -> None:
    said = limited("--nofile=100:150", ALLOW.format("300, 200, 'the thing'"))
    assert (
        "ConfigError: the thing needs 200 open files, and the hard limit is 150: raise it (LimitNOFILE="
        in said
    )


def test_open_files_are_counted() -> None:
    before = descriptors().used
    opened = [os.open("/dev/null", os.O_RDONLY) for _ in range(50)]
    try:
        assert descriptors().used == before + 50
    finally:
        for descriptor in opened:
            os.close(descriptor)


def test_where_none_is_left_to_count_them_with_all_are_open() -> None:
    """Before Linux 6.2 they are counted by listing a folder, which takes one; here another folder stands for it, whose
    size is not told either."""
    script = """
import os, resource
from tradeback import ceilings
ceilings.OWN_DESCRIPTORS = "/proc/self/task"
assert ceilings.descriptors().used == 1
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
try:
    while True:
        os.open("/dev/null", os.O_RDONLY)
except OSError:
    use = ceilings.descriptors()
assert (use.used, use.limit) == (64, 64), use
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_address_space_is_a_ceiling() -> None:
    said = limited(
        f"--as={512 * MIB}", "from tradeback.ceilings import memory; print(*memory(0)[:2], memory(0).by)"
    )
    used, limit, by = said.strip().split(" ", 2)
    assert int(limit) == 512 * MIB
    assert 0 < int(used) <= 512 * MIB
    assert by == "the limit of the address space (ulimit -v)"


def test_what_python_takes_counts_against_the_ceiling() -> None:
    before = memory(1 << 40)
    taken = bytearray(os.urandom(32 * MIB))
    assert memory(1 << 40).used >= before.used + 31 * MIB, len(taken)


def group(folder: Path, v1: bool, limit: str, used: int, files: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if v1 else ("memory.max", "memory.current")
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    whole = "total_" if v1 else ""
    (folder / "memory.stat").write_text(f"anon 1\n{whole}inactive_file {files - 5}\n{whole}active_file 5\n")


@pytest.mark.parametrize("v1", [False, True], ids=["v2", "v1"])
@pytest.mark.parametrize("seen", [True, False], ids=["own path", "in a container"])
def test_the_nearest_group_is_the_ceiling(tmp_path: Path, v1: bool, seen: bool) -> None:
    """Its pages of files do not count, and of groups above each other the one that is nearest to its limit does."""
    (tmp_path / "status").write_text(STATUS)
    other = "3:cpu,cpuacct:/a/b\n" if v1 else ""
    (tmp_path / "own").write_text(f"{other}4:memory:/a/b\n" if v1 else "0::/a/b\n")
    groups = tmp_path / "groups"
    top = groups / "memory" if v1 else groups
    top.mkdir(parents=True)
    nearest = top / "a" if seen else top
    if seen:
        group(top / "a" / "b", v1, str(400 * MIB), 100 * MIB, 20 * MIB)
    group(nearest, v1, str(100 * MIB), 95 * MIB, 10 * MIB)

    def now(ceiling: int = 0) -> Use:
        return memory(ceiling, tmp_path / "status", tmp_path / "own", groups)

    assert now()[:2] == (85 * MIB, 100 * MIB)
    assert str(nearest) in now().by
    # The configured ceiling counts this process alone.
    assert now(55 * MIB) == Use(50 * MIB, 55 * MIB, "RESOURCES_MEMORY")
    group(nearest, v1, "9223372036854771712" if v1 else "max", 95 * MIB, 10 * MIB)
    assert now()[:2] == ((80 * MIB, 400 * MIB) if seen else (50 * MIB, 0))


def test_without_groups_there_is_no_ceiling(tmp_path: Path) -> None:
    (tmp_path / "status").write_text(STATUS)
    (tmp_path / "own").write_text("0::/\n")
    assert memory(0, tmp_path / "status", tmp_path / "own", tmp_path).limit == 0
    assert memory(0, tmp_path / "status", tmp_path / "none", tmp_path).share == 0.0


def test_a_disk_that_cannot_be_asked_is_a_sentence(tmp_path: Path) -> None:
    assert disk_free(tmp_path) > 0
    with pytest.raises(DataFolderError, match=r"nowhere cannot be asked: .*DATA_DIR"):
        disk_free(tmp_path / "nowhere")

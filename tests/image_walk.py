"""Walks the Dockerfile where no container engine is: every RUN and COPY, in a Debian of its own; then runs the image.

`python tests/image_walk.py [FOLDER]`, as root on a Debian with mmdebstrap; it takes some minutes. Not a test of the
suite. The bases are made by mmdebstrap from Debian's packages (`minbase`), which is what the official image is made of
too, but for some files that it leaves out, and a line that has apt try again. Stages are folders; RUN is a chroot with
namespaces of its own, and COPY a copy. What a container engine does beyond that (layers, registries, networks, cgroups)
is not tried.

The last stage then runs as a container would: as its user, as process 1, on a root that cannot be written, with
nothing but /data and /tmp to write to.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT))

from tests.dockerfile import Stage, context, environment, stages  # noqa: E402

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
RELEASES = {"12": "bookworm"}
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
# How this machine reaches its package registries is none of the image's business, but here it must.
OF_THIS_MACHINE = ("/etc/resolv.conf", "/etc/hosts", "/etc/pip.conf", "/etc/npmrc")
FOR_REGISTRIES = {
    "PIP_CERT": "/etc/walk.crt",
    "NODE_EXTRA_CA_CERTS": "/etc/walk.crt",
    "npm_config_cafile": "/etc/walk.crt",
    "PIP_RETRIES": "8",
}
APT_RETRIES = 'Acquire::Retries "5"'
MAX_MIB = 400  # of the content of the last stage
DEADLINE = 600.0  # seconds, a safety net


def main(folder: Path) -> None:
    built: dict[str, Path] = {}
    every = stages(CHECKOUT / "Dockerfile")
    for stage in every:
        built[stage.name] = walk(stage, folder, built)
    last, root = every[-1], built[every[-1].name]
    measure(root)
    run(last, root, folder)


def base(name: str, folder: Path) -> Path:
    """The root of `debian:12...`, made once."""
    known = re.fullmatch(r"debian:(\d+)\.\d+-slim", name)
    if known is None:
        raise SystemExit(f"{name}: only debian:N.N-slim can be had here")
    root = folder / "base"
    if not root.exists():
        say(f"FROM {name}: mmdebstrap")
        sources = sorted(str(path) for path in Path("/etc/apt/sources.list.d").glob("debian*.sources"))
        command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--aptopt={APT_RETRIES}"]
        subprocess.run(
            [*command, RELEASES[known[1]], str(root), *(sources or ["/etc/apt/sources.list"])], check=True
        )
        # The official image keeps no documentation.
        for place in (
            "usr/share/doc",
            "usr/share/man",
            "usr/share/locale",
            "var/lib/apt/lists",
            "var/cache/apt",
        ):
            shutil.rmtree(root / place, ignore_errors=True)
    return root


def walk(stage: Stage, folder: Path, built: dict[str, Path]) -> Path:
    """The stage's root, after all its steps."""
    root = folder / stage.name
    shutil.rmtree(root, ignore_errors=True)
    subprocess.run(["cp", "-a", str(base(stage.base, folder)), str(root)], check=True)
    variables, place = {"PATH": PATH}, "/"
    for name, text in stage.instructions:
        say(f"{stage.name}: {name} {text}")
        if name == "WORKDIR":
            place = text
            (root / place.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif name == "ENV":
            variables |= environment(text, variables)
        elif name == "COPY":
            copy(text, root, place, built)
        elif name == "RUN":
            with borrowed(root):
                subprocess.run(
                    chroot(root, place, variables | FOR_REGISTRIES, ["/bin/sh", "-c", text]), check=True
                )
    return root


def copy(text: str, root: Path, place: str, built: dict[str, Path]) -> None:
    """COPY of named files into a folder, or of one folder as another; from a stage, or from what is sent to build."""
    words = text.split()
    source_stage = words.pop(0).removeprefix("--from=") if words[0].startswith("--from=") else None
    *sources, target = words
    to = root / os.path.join(place, target).lstrip("/")
    for source in sources:
        if source_stage is not None:
            to.parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(["cp", "-a", str(built[source_stage] / source.lstrip("/")), str(to)], check=True)
            continue
        files = [path for path in context(CHECKOUT) if path == source or path.startswith(f"{source}/")]
        if not files:
            raise SystemExit(f"COPY {source}: .dockerignore leaves nothing of it")
        for path in files:
            inner = path.removeprefix(source).lstrip("/") or (Path(path).name if target.endswith("/") else "")
            (to / inner).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(CHECKOUT / path, to / inner)


@contextlib.contextmanager
def borrowed(root: Path):  # type: ignore[no-untyped-def]
    """This machine's ways to the registries, within the root for the time of a RUN."""
    kept: dict[Path, bytes | None] = {}
    for name in OF_THIS_MACHINE:
        if Path(name).exists():
            inside = root / name.lstrip("/")
            kept[inside] = inside.read_bytes() if inside.exists() else None
            inside.write_bytes(Path(name).read_bytes())
    kept[root / "etc/walk.crt"] = None
    shutil.copy(CERTIFICATES, root / "etc/walk.crt")
    try:
        yield
    finally:
        for inside, content in kept.items():
            if content is None:
                inside.unlink()
            else:
                inside.write_bytes(content)


def chroot(
    root: Path,
    place: str,
    variables: dict[str, str],
    command: Sequence[str],
    *,
    user: str = "0:0",
    prepare: str = "",
) -> list[str]:
    """The command with processes and mounts of its own; it is process 1. `prepare` is done as root before it."""
    inside = ["chroot", f"--userspec={user}", str(root), "env", "-i", "-C", place]
    inside += [f"{name}={value}" for name, value in variables.items()]
    script = f'mount -t proc proc "$0/proc" && {prepare or "true"} && exec "$@"'
    return [
        "unshare",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "sh",
        "-c",
        script,
        str(root),
        *inside,
        *command,
    ]


def measure(root: Path) -> None:
    """The content of the last stage, and that nothing is in it that only building needs."""
    sizes = {}
    for place in ("", "opt/tradeback", "usr"):
        told = subprocess.run(
            ["du", "-sm", "--apparent-size", str(root / place)], capture_output=True, text=True, check=True
        )
        sizes[place or "all"] = int(told.stdout.split()[0])
    say(f"size in MiB: {sizes}")
    too_much = [
        name
        for name in ("gcc", "cc", "make", "pip", "pip3", "node", "npm", "git", "curl")
        if any((root / place / name).exists() for place in ("usr/bin", "usr/local/bin", "opt/tradeback/bin"))
    ]
    if too_much or sizes["all"] > MAX_MIB:
        raise SystemExit(
            f"the last stage has {too_much}, and {sizes['all']} MiB, where {MAX_MIB} are allowed"
        )


def run(stage: Stage, root: Path, folder: Path) -> None:
    """`tradeback --version`, then the CMD until the HEALTHCHECK is content, then the STOPSIGNAL."""
    variables = {"PATH": PATH}
    place = "/"
    for name, text in stage.instructions:
        if name == "ENV":
            variables |= environment(text, variables)
        elif name == "WORKDIR":
            place = text
    user = stage.last("USER")
    data = folder / "data"
    shutil.rmtree(data, ignore_errors=True)
    # As a named volume is made: with the owner and the mode that the folder has in the image.
    subprocess.run(["cp", "-a", str(root / "data"), str(data)], check=True)
    prepare = (
        f'mount --bind "$0" "$0" && mount --bind {data} "$0/data" && mount -o remount,bind,ro "$0"'
        ' && mount -t tmpfs tmpfs "$0/tmp" && mount -t proc proc "$0/proc"'
    )

    def contained(command: Sequence[str], **more: str) -> list[str]:
        return chroot(root, place, variables | more, command, user=user, prepare=prepare)

    entry = stage.exec_form("ENTRYPOINT")
    for command in (["id"], [*entry, "--version"], [*entry, "config", "check"]):
        said = subprocess.run(contained(command), capture_output=True, text=True, check=True).stdout
        say(f"{' '.join(command)}: {said.strip()}")
    ports = {"SERVER_PORT": "18080", "WS_PORT": "18081", "TRADEBACK_EXCHANGE": "sim"}
    command = contained([*entry, *stage.exec_form("CMD")], **ports)
    check = contained(stage.exec_form("HEALTHCHECK"), **ports)
    process = subprocess.Popen(command)
    try:
        began = time.monotonic()
        while (asked := subprocess.run(check, capture_output=True, text=True, check=False)).returncode:
            if process.poll() is not None or time.monotonic() - began > DEADLINE:
                raise SystemExit(f"it never was healthy: {asked.stderr}")
            time.sleep(0.5)
        say(f"healthy after {time.monotonic() - began:.1f} s: {asked.stdout.split()}")
        (first,) = map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())
        status = Path(f"/proc/{first}/status").read_text()
        told = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        say(f"process {told['NSpid'].split()[-1]} in the container runs as {told['Uid'].split()[0]}")
        began = time.monotonic()
        os.kill(first, getattr(signal, stage.last("STOPSIGNAL")))
        code = process.wait(DEADLINE)
        say(f"ended with {code} after {time.monotonic() - began:.1f} s")
        if code:
            raise SystemExit("it should end with 0")
    finally:
        process.kill()
    written = [path.name for path in sorted(data.iterdir())]
    say(f"in the volume, of user {data.stat().st_uid}: {json.dumps(written)}")


def say(text: str) -> None:
    print(f"==> {text}", flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
        main(Path(sys.argv[1]).resolve())
    else:
        with tempfile.TemporaryDirectory() as own:
            main(Path(own))

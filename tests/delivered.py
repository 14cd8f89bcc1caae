"""Builds the source distribution, and from it the wheel, and says what is missing in them.

`python tests/delivered.py FOLDER`, with the build requirements installed. Not a test of the suite: it compiles
everything once more.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
WEB = "tradeback/web/"


def main(folder: Path) -> None:
    script = f"from setuptools.build_meta import build_sdist; build_sdist({str(folder)!r})"
    subprocess.run([sys.executable, "-c", script], cwd=CHECKOUT, stdout=subprocess.DEVNULL, check=True)
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
        archive.extractall(folder, filter="data")
    sources = product(".py", ".pyx", ".pxd", ".pyi", ".h", ".js", ".css", ".html", ".json", ".svg")
    page = built_page()
    complain("the source distribution", (sources | page) - names)
    complain(
        "the source distribution, which should not have", {name for name in names if "node_modules" in name}
    )

    pip = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
    ]
    subprocess.run([*pip, folder, folder / sdist.name.removesuffix(".tar.gz")], check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    compiled = {name.split(".")[0] for name in names if name.endswith(".so")}
    extensions = {name.removesuffix(".pyx") for name in product(".pyx")}
    wanted = product(".py", ".pxd", ".pyi", ".typed") | page
    wanted = {name for name in wanted if not name.startswith(WEB) or name in page}
    complain("the wheel", wanted - names | extensions - compiled)
    foreign = {name for name in names if name.startswith(("tests", "bench"))}
    foreign |= {name for name in names if name.startswith(WEB) and name not in page}
    complain("the wheel, which should not have", foreign)
    print(f"{sdist.name} and {wheel.name} are complete: {len(names)} files, {len(compiled)} extensions")


def product(*suffixes: str) -> set[str]:
    """Tracked files of the package."""
    listing = subprocess.run(
        ["git", "ls-files", "tradeback"], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    return {name for name in listing.stdout.splitlines() if Path(name).suffix in suffixes}


def built_page() -> set[str]:
    """Files of the page as `make build` left it."""
    built = CHECKOUT / WEB / "dist"
    files = {path.relative_to(CHECKOUT).as_posix() for path in built.rglob("*") if path.is_file()}
    complain("the checkout, which `make build` has not brought the page,", set() if files else {str(built)})
    return files


def complain(where: str, names: set[str]) -> None:
    if names:
        sys.exit(f"{where}: {', '.join(sorted(names))}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Compiled extensions and their switches; everything else stands in pyproject.toml.

TRADEBACK_COMPILE=0   no extensions at all: `make build` installs so, and compiles in place afterwards
TRADEBACK_DEV=1       annotated HTML beside each .pyx, line tracing
TRADEBACK_SANITIZE=1  AddressSanitizer and UndefinedBehaviorSanitizer, for `make sanitize`
"""

import os
from importlib.metadata import version
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

DEV = os.environ.get("TRADEBACK_DEV") == "1"
SANITIZE = os.environ.get("TRADEBACK_SANITIZE") == "1"

compile_args = ["-O2", "-g0", "-fno-math-errno", "-Wall", "-Wno-unused-function"]
link_args: list[str] = []
# listener.pyx compares it with the picows that is installed when it runs.
macros: list[tuple[str, str | None]] = [("PICOWS_VERSION", f'"{version("picows")}"')]
if SANITIZE:
    flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"]
    compile_args = ["-O1", "-g", *flags]
    link_args = flags
if DEV:
    macros.append(("CYTHON_TRACE", "1"))

# An editable install would compile everything once more, in a folder of its own, only to throw it away.
COMPILE = os.environ.get("TRADEBACK_COMPILE") != "0"

extensions = [
    Extension(
        ".".join(path.with_suffix("").parts),
        [str(path)],
        extra_compile_args=compile_args,
        extra_link_args=link_args,
        define_macros=macros,
        # Headers written by hand live beside the .pyx files that use them.
        include_dirs=["tradeback/_fast"],
        depends=[str(header) for header in Path("tradeback/_fast").glob("*.h")],
    )
    for path in sorted(Path("tradeback/_fast").glob("*.pyx"))
    if COMPILE
]

setup(
    options={"build_ext": {"parallel": os.cpu_count()}},
    ext_modules=cythonize(
        extensions,
        nthreads=2,
        annotate=DEV,
        compiler_directives={
            "language_level": 3,
            "boundscheck": False,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": False,
            "embedsignature": True,
            "linetrace": DEV,
        },
    ),
)

#!/usr/bin/env bash
# Builds InfluxDB's server for the tests, as there is no package of it: a Go program with a part in Rust.
# Ten minutes on two cores, once: it is kept outside the checkout, in ~/.cache/tradeback.
# It needs Go 1.23 or newer, Rust with rustup, gcc, clang and pkg-config (apt-get install -y clang pkg-config).
set -euo pipefail
VERSION=2.7.12
folder="${XDG_CACHE_HOME:-$HOME/.cache}/tradeback"
program="$folder/influxd-$VERSION"
mkdir -p "$folder"
# Two at once: the second finds what the first has built.
exec 9> "$folder/influxd.lock"
flock 9
[ -x "$program" ] && exit 0
for tool in go cargo gcc clang pkg-config; do
  command -v "$tool" >/dev/null || { echo "InfluxDB cannot be built: $tool is missing" >&2; exit 1; }
done

work=$(mktemp -d "$folder/build.XXXXXX")
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
cd "$work"
export CGO_ENABLED=1 GOTOOLCHAIN=local

# InfluxData's pkg-config builds Flux's part in Rust, and calls the real one for all else.
GOBIN="$work/bin" go install github.com/influxdata/pkg-config@v0.2.14
# Flux makes warnings errors, and newer compilers know more of them.
printf '#!/bin/sh\nexec "$@" --cap-lints warn\n' > rustc-wrapper
chmod +x rustc-wrapper
export PKG_CONFIG="$work/bin/pkg-config" RUSTUP_TOOLCHAIN=stable RUSTC_WRAPPER="$work/rustc-wrapper"

# `go install ...@version` refuses a module that replaces others: a module of our own asks for it as a tool.
mkdir module
cd module
go mod init influxdb-of-the-tests
go get -tool "github.com/influxdata/influxdb/v2/cmd/influxd@v$VERSION"
# Without the tag `assets`: no user interface.
go build -p 2 -tags sqlite_foreign_keys,sqlite_json -o "$program.part" github.com/influxdata/influxdb/v2/cmd/influxd
mv "$program.part" "$program"

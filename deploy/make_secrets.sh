#!/bin/sh
# Makes each secret of docker-compose.yml that is not there yet, into deploy/secrets; what is there stays.
# The files can be read by all, for a container's user is nobody's here; their folder by its owner alone.
set -eu
cd "$(dirname "$0")"
umask 077
mkdir -p secrets
chmod 0700 secrets
for name in mysql_root_password mysql_password influx_password influx_token redis_password session_secret; do
  if [ -s "secrets/$name" ]; then
    echo "$name is there"
  else
    # 256 bits, in signs that no configuration file takes for its own.
    od -An -N32 -tx1 /dev/urandom | tr -d ' \n' > "secrets/$name.new"
    mv "secrets/$name.new" "secrets/$name"
    echo "$name made"
  fi
  chmod 0444 "secrets/$name"
done

#!/bin/bash
# A machine of its own for a test: files, network, name and processes, all gone when this ends. It types each line of
# $1/commands as root in $1/there, with $1/bin before other programs. `unshare` starts it as process 1.
set -euo pipefail
folder=$1
mount -t tmpfs tmpfs "$folder/layers"
for name in etc opt var; do
  mkdir -p "$folder/layers/$name/upper" "$folder/layers/$name/work"
  mount -t overlay overlay -o "lowerdir=/$name,upperdir=$folder/layers/$name/upper,workdir=$folder/layers/$name/work" "/$name"
done
mount -t tmpfs tmpfs /run
hostname localhost
ip link set lo up
# Caddy may listen on 443 by a capability that systemd gives it.
echo 0 > /proc/sys/net/ipv4/ip_unprivileged_port_start

mkdir -p /etc/tradeback /etc/ssl/private
cp "$folder/environment" /etc/tradeback/environment
cp "$folder/localhost.pem" /etc/ssl/tradeback.pem
cp "$folder/localhost.pem" /etc/ssl/private/tradeback.key
"$TRADEBACK_HERE" sim --port 9443 > "$folder/sim.log" 2>&1 &
cd "$folder/there"
export PATH="$folder/bin:/usr/sbin:/usr/bin:/sbin:/bin" HOME="$folder/home"
while IFS= read -r command; do
  echo "\$ $command"
  bash -euo pipefail -c "$command" < /dev/null || {
    code=$?
    tail -n 30 /run/units/*.log "$folder/sim.log"
    exit "$code"
  }
done < "$folder/commands"

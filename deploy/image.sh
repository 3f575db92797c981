#!/usr/bin/env bash
# Builds the image and runs it for real: it has to answer a chat as the user 10001. `make image` is this script.
#
# By buildah (Debian: apt install buildah), without a daemon, with chroot isolation: it takes root, and no other privilege.
#
#   IMAGE_BASE=stand-in   over a Debian made by debootstrap, with its Python, in the place of the Dockerfile's FROM: for
#                         a machine that reaches no registry of images
#   IMAGE_BASE=FOLDER     over the system in that folder, made so before
#   IMAGE_TAG             the image's name (recollect)
#
# pip runs as it is set up on this machine: its settings, and the local folders that they name, are mounted.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
tag=${IMAGE_TAG:-recollect}
from=$(sed -n 's/^FROM \([^ ]*\)$/\1/p' Dockerfile | tail -n 1)
work=$(mktemp -d)
export BUILDAH_ISOLATION=chroot STORAGE_DRIVER=vfs
container=
server=

end() {
  [ -z "$server" ] || kill -- "-$server" 2>/dev/null || true
  [ -z "$container" ] || buildah rm "$container" >/dev/null || true
  rm -rf "$work"
}
trap end EXIT

command -v buildah >/dev/null || { echo "make image: buildah is missing (Debian: apt install buildah)" >&2; exit 1; }

# The base. What the stand-in lacks of the real one is the Python of its tag: it has Debian's.
make_base() {
  local folder=$1
  if [ "$folder" = stand-in ]; then
    folder=$work/base
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$folder" >/dev/null
  fi
  ln -sf python3 "$folder/usr/bin/python"
  rm -rf "$folder"/var/cache/apt/* "$folder"/var/lib/apt/lists/*
  # As images of Debian have it: what apt makes of its lists is not kept.
  echo 'Dir::Cache::pkgcache ""; Dir::Cache::srcpkgcache "";' >"$folder/etc/apt/apt.conf.d/docker-clean"
  local base
  base=$(buildah from scratch)
  buildah add --quiet "$base" "$folder" / >/dev/null
  buildah commit --quiet "$base" "$from" >/dev/null
  buildah rm "$base" >/dev/null
  echo "The base is a stand-in: $("$folder/usr/bin/python3" --version 2>/dev/null || echo Python) of a Debian, not $from"
}
[ -z "${IMAGE_BASE:-}" ] || make_base "$IMAGE_BASE"

# What pip is told on this machine, and where that leads.
mounts=()
python=$(command -v python3)
told=$("$python" -m pip config list 2>/dev/null || true)
files=$("$python" -m pip config debug 2>/dev/null | sed -n 's/^ *\(.*\), exists: True$/\1/p' || true)
for path in $files $(tr " ,'\"=" '\n' <<<"$told" | sed -n 's#^\(file://\)\{0,1\}\(/.*\)$#\2#p' | sort -u); do
  path=${path%/simple} # the pages of a local index lead to files beside them
  [ ! -e "$path" ] || mounts+=(--volume "$path:$path:ro")
done
for name in ${!PIP_@}; do mounts+=(--env "$name=${!name}" --unsetenv "$name"); done

began=$(date +%s)
buildah build --quiet --layers=false --pull=false --tag "$tag" "${mounts[@]}" . >"$work/id" 2>"$work/log" \
  || { tail -n 40 "$work/log" >&2; exit 1; }
built=$(($(date +%s) - began))

# It runs, and answers.
container=$(buildah from "$tag")
in_it() { buildah run --user 10001:10001 "$container" -- "$@"; }
port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
set -m
buildah run --user 10001:10001 --env "RECOLLECT_PORT=$port" --env RECOLLECT_HOST=127.0.0.1 "$container" -- \
  python server.py >"$work/server" 2>&1 &
server=$!
set +m
for _ in $(seq 120); do
  curl -fs "http://127.0.0.1:$port/healthz" >/dev/null && break
  kill -0 "$server" 2>/dev/null || { cat "$work/server" >&2; exit 1; }
  sleep 0.5
done
key=$(in_it python admin.py keys create --user alice 2>/dev/null | tail -n 1)
answer=$(curl -fsS "http://127.0.0.1:$port/chat/invoke" -H "Authorization: Bearer $key" -H "Content-Type: application/json" \
  -d '{"input": {"input": "Say hello."}, "config": {"configurable": {"session_id": "image"}}}')
who=$(in_it python -c 'import os; print(os.getuid())')
[ "$who" = 10001 ]
size() { du -sm --apparent-size "$1" | cut -f1; }
root=$(buildah mount "$container")
echo "Built in $built s; it answered as the user $who: ${answer:0:120}"
echo "In all $(size "$root") MB: $(size "$root/venv") MB of libraries, $(size "$root/app") MB of Recollect; the rest is the base"
buildah umount "$container" >/dev/null

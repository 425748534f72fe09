#!/usr/bin/env bash
# On a worker: installs Python and the pinned packages, and mounts the bucket. Called by ../setup.sh.
#
#   setup.sh BUCKET MOUNT
set -euo pipefail
bucket=$1 mount=$2
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."

if [ ! -e .venv/installed ]; then
  # The image's own Python may be 3.10. uv provides 3.11, and installs much faster than pip.
  python3 -m pip install --quiet --user 'uv>=0.5,<1'
  python3 -m uv venv --quiet --python 3.11 --clear .venv
  python3 -m uv pip install --quiet --python .venv/bin/python \
    --constraint launch/tpu/constraints.txt --editable '.[tpu]'
  touch .venv/installed
fi

if ! mountpoint -q "$mount"; then
  if ! command -v gcsfuse >/dev/null; then
    key=/usr/share/keyrings/cloud.google.asc
    curl -fsSL https://packages.cloud.google.com/apt/doc/apt-key.gpg | sudo tee "$key" >/dev/null
    echo "deb [signed-by=$key] https://packages.cloud.google.com/apt gcsfuse-$(lsb_release -cs) main" |
      sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null
    sudo apt-get -qq update
    sudo apt-get -qq install --yes gcsfuse
  fi
  sudo mkdir -p "$mount"
  sudo chown "$(id -u):$(id -g)" "$mount"
  # No cached metadata: every host must see at once what another host has written.
  gcsfuse --implicit-dirs --metadata-cache-ttl-secs=0 --rename-dir-limit=100000 \
    "${bucket#gs://}" "$mount" >/dev/null
fi
echo "$(hostname): $(.venv/bin/python --version), $(basename "$PWD"), $bucket on $mount"

#!/usr/bin/env bash
# Installs the pinned environment on every worker, and mounts the bucket there.
#
#   bash launch/tpu/setup.sh [--dry-run]
#
# Installs the commit that is checked out here (or RFXRAY_COMMIT), without uncommitted changes, with
# the versions of constraints.txt. It may be run again: a worker that has everything does nothing.
source "$(dirname "$0")/gcloud.sh"

only_dry_run "$@"

commit=$(git -C "$root" rev-parse --verify --quiet "${RFXRAY_COMMIT:-HEAD}^{commit}") ||
  fail 78 "there is no commit $(quoted "${RFXRAY_COMMIT:-HEAD}") in $root; set RFXRAY_COMMIT to one that exists"
git -C "$root" diff --quiet HEAD || say "uncommitted changes are not installed" >&2

# Only tracked files leave this machine.
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
bundle=$scratch/rfxray-$commit.tar.gz
if [ -n "$dry_run" ]; then
  quoted git -C "$root" archive --format=tar.gz --output="$bundle" "$commit"
else
  git -C "$root" archive --format=tar.gz --output="$bundle" "$commit"
fi
retry "$TRIES" compute tpus tpu-vm scp "$bundle" "$NAME:" "${place[@]}" --worker=all ||
  fail 75 "could not copy the code to every worker of $NAME; see the message of gcloud above"

# on_host/ does not exist on a worker before this archive is unpacked.
unpack="mkdir -p rfxray/$commit && tar -xzf rfxray-$commit.tar.gz -C rfxray/$commit"
unpack+=" && ln -sfn $commit rfxray/current && $(quoted bash rfxray/current/launch/tpu/on_host/setup.sh "$BUCKET" "$MOUNT")"
retry "$TRIES" compute tpus tpu-vm ssh "$NAME" "${place[@]}" --worker=all --command="$unpack" ||
  fail 75 "the installation failed on a worker of $NAME; see its message above"
[ -n "$dry_run" ] || say "commit $commit is installed on every worker of $NAME"

#!/usr/bin/env bash
# Installs the pinned environment on every worker, and mounts the bucket there.
#
#   bash launch/tpu/setup.sh [--dry-run]
#
# What is installed is the commit that is checked out here (or RFXRAY_COMMIT), without changes that are not
# committed, with the versions of constraints.txt. Run it again at will: a worker that has it all
# does nothing.
source "$(dirname "$0")/gcloud.sh"

for word in "$@"; do
  case $word in
    --dry-run) dry_run=yes ;;
    *) usage "$word" ;;
  esac
done

commit=$(git -C "$root" rev-parse --verify --quiet "${RFXRAY_COMMIT:-HEAD}^{commit}") ||
  fail 78 "no commit $(quoted "${RFXRAY_COMMIT:-HEAD}") in $root"
git -C "$root" diff --quiet HEAD || say "changes that are not committed stay here" >&2

# A tracked file is all that leaves this machine.
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
bundle=$scratch/rfxray-$commit.tar.gz
if [ -n "$dry_run" ]; then
  quoted git -C "$root" archive --format=tar.gz --output="$bundle" "$commit"
else
  git -C "$root" archive --format=tar.gz --output="$bundle" "$commit"
fi
retry "$TRIES" compute tpus tpu-vm scp "$bundle" "$NAME:" "${place[@]}" --worker=all ||
  fail 75 "the code did not reach every worker of $NAME"

# Before the first unpacking there is no on_host/ to call.
unpack="mkdir -p rfxray/$commit && tar -xzf rfxray-$commit.tar.gz -C rfxray/$commit"
unpack+=" && ln -sfn $commit rfxray/current && $(quoted bash rfxray/current/launch/tpu/on_host/setup.sh "$BUCKET" "$MOUNT")"
retry "$TRIES" compute tpus tpu-vm ssh "$NAME" "${place[@]}" --worker=all --command="$unpack" ||
  fail 75 "the installation failed on a worker of $NAME; its message stands above"
[ -n "$dry_run" ] || say "commit $commit is installed on every worker of $NAME"

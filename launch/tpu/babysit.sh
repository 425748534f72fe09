#!/usr/bin/env bash
# Runs a training until it has finished: creates the slice, installs, starts, and resumes after every
# interruption.
#
#   bash launch/tpu/babysit.sh [--delete] [--dry-run] -- --config radit:size=xl,space=pixel …
#
# The flags after -- are those of rfxray.train, as for run.sh. The babysitter reads two things only: the
# reports of the hosts in the bucket, and the state of the slice (the loop is in
# rfxray/runtime/babysit.py). It may end at any time: started again, it watches the run that it finds.
# --delete deletes the slice when the run has ended.
#
# | what it sees | what it does |
# |---|---|
# | 0 on every host, of an attempt that it started or found running | ends with 0 |
# | 65, 70 or 78 on a host | ends with that code: a person must act |
# | 75, or no report for STALE seconds, and the slice is ready | resumes the run; ends with 75 after FUTILE attempts without a step forward |
# | the slice was preempted, or does not exist | deletes what is left, creates it, installs, resumes |
# | an attempt cannot be started | checks the slice again; ends with 75 if it is ready and more than FUTILE attempts in a row failed |
# | gcloud fails | makes the call TRIES times, then ends with 75 |
#
# A run that has finished is started once more, because `steps` may have been raised; if not, the
# trainer ends at once.
source "$(dirname "$0")/gcloud.sh"

delete=
while [ $# -gt 0 ]; do
  case $1 in
    --dry-run) dry_run=yes ;;
    --delete) delete=yes ;;
    --) break ;;
    *) usage "$1" ;;
  esac
  shift
done
[ $# -gt 1 ] || usage
shift

# Fix the commit now: a later checkout here must not change what the next attempt runs.
RFXRAY_COMMIT=$(git -C "$root" rev-parse --verify --quiet "${RFXRAY_COMMIT:-HEAD}^{commit}") ||
  fail 78 "there is no such commit in $root; set RFXRAY_COMMIT to one that exists"
export RFXRAY_COMMIT

if [ -n "$dry_run" ]; then
  part() { bash "$tpu/$1.sh" --dry-run "${@:2}"; }
  say "reads the state with"
  part logs --status
  part slice
  say "if the slice was preempted"
  part delete --now
  say "if there is no slice"
  part create
  say "to start and to resume"
  part setup
  part run -- "$@"
  exit
fi

python=$root/.venv/bin/python
[ -x "$python" ] || python=${PYTHON:-python3}
command -v "$python" >/dev/null || fail 78 "there is no $python; install Python, or set PYTHON to an interpreter"
cd "$root"
exec "$python" -S -m rfxray.runtime.babysit --name "$NAME" --run "$BUCKET/$RUN" --poll "$POLL" \
  --stale "$STALE" --grace "$GRACE" --futile "$FUTILE" ${delete:+--delete} -- "$@"

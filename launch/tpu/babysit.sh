#!/usr/bin/env bash
# Brings a run to its end: creates the slice, installs, starts, and resumes after every interruption.
#
#   bash launch/tpu/babysit.sh [--delete] [--dry-run] -- --config radit:size=xl,space=pixel …
#
# After -- stand the flags of rfxray.train, as for run.sh. It looks at two things only: the reports of
# the hosts in the bucket, and the state of the slice (the loop is rfxray/runtime/babysit.py). Its own
# end is harmless: started again, it continues with the run that it finds. --delete deletes the slice
# when the run has ended.
#
# | what it sees | what it does |
# |---|---|
# | 0 on every host, of an attempt that it started or found going | ends with 0 |
# | 65, 70 or 78 on a host | ends with that code: a person has to look |
# | 75, or silence, and the slice is ready | resumes the run; ends with 75 after FUTILE attempts without a step forward |
# | the slice was preempted, or is not there | deletes what is left, creates it, installs, resumes |
# | an attempt cannot be started | looks at the slice again; ends with 75 if it is ready and more than FUTILE in a row failed so |
# | gcloud fails | tries again TRIES times, ends with 75 |
#
# A run that has finished is started once more, which costs its trainer no step: `steps` may be more.
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

# What runs must not change with what is checked out here while it runs.
RFXRAY_COMMIT=$(git -C "$root" rev-parse --verify --quiet "${RFXRAY_COMMIT:-HEAD}^{commit}") ||
  fail 78 "no commit to run in $root"
export RFXRAY_COMMIT

if [ -n "$dry_run" ]; then
  part() { bash "$tpu/$1.sh" --dry-run "${@:2}"; }
  say "looks at"
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
command -v "$python" >/dev/null || fail 78 "no $python; install Python, or set PYTHON to one"
cd "$root"
exec "$python" -S -m rfxray.runtime.babysit --name "$NAME" --run "$BUCKET/$RUN" --poll "$POLL" \
  --stale "$STALE" --grace "$GRACE" --futile "$FUTILE" ${delete:+--delete} -- "$@"

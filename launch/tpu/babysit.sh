#!/usr/bin/env bash
# Brings a run to its end: creates the slice, installs, starts, and resumes after every interruption.
#
#   bash launch/tpu/babysit.sh [--delete] [--dry-run] -- --config configs/radit_xl.py:space=pixel …
#
# After -- stand the flags of rfxray.train, as for run.sh. It looks at two things alone: the reports of
# the hosts in the bucket, and the state of the slice. Its own end is harmless: started again, it
# goes on with the run that it finds. --delete deletes the slice when the run has ended.
#
# | what it sees | what it does |
# |---|---|
# | 0 on every host, of an attempt that it started or found going | ends with 0 |
# | 65, 70 or 78 on a host | ends with that code: a person has to look |
# | 75, or silence, and the slice is there | resumes the run; ends with 75 after FUTILE attempts without a step forward |
# | the slice was preempted, or is not there | deletes what is left, creates it, installs, resumes |
# | an attempt cannot be started | looks at the slice again; ends with 75 where it is there and more than FUTILE in a row failed so |
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
python=$root/.venv/bin/python
[ -x "$python" ] || python=${PYTHON:-python3}
flags=()
[ -z "$dry_run" ] || flags=(--dry-run)
described=(compute tpus tpu-vm describe "$NAME" "${place[@]}" '--format=value(state)')
requested=(compute tpus queued-resources describe "$NAME" "${place[@]}" '--format=value(state.state)')
reported=(storage cat "$BUCKET/$RUN/status/host-*.json")

part() { bash "$tpu/$1.sh" ${flags[@]+"${flags[@]}"} "${@:2}"; }
end() {
  local code=$1
  shift
  [ -z "$delete" ] || part delete --now || say "the slice was not deleted; it costs" >&2
  say "$*; $([ "$code" = 0 ] && echo "the run is in" || echo "exit code $code; see docs/operations.md and") $BUCKET/$RUN"
  exit "$code"
}

if [ -n "$dry_run" ]; then
  say "looks at"
  call "${reported[@]}"
  ! queued || call "${requested[@]}"
  call "${described[@]}"
  say "where the slice was preempted"
  part delete --now
  say "where it is not there"
  part create
  say "to start and to resume"
  part setup
  part run -- "$@"
  exit
fi

# slice: ready, coming (wait for it), gone (its remains have to be deleted) or absent
slice() {
  local state
  if queued; then
    state=$(answer='NOT_FOUND|was not found' retry "$TRIES" "${requested[@]}") || return 1
    case $state in
      ACTIVE) ;;
      '') echo absent && return ;;
      SUSPENDING | SUSPENDED | FAILED) echo gone && return ;;
      *) echo coming && return ;;
    esac
  fi
  state=$(answer='NOT_FOUND|was not found' retry "$TRIES" "${described[@]}") || return 1
  case $state in
    READY) echo ready ;;
    '') queued && echo gone || echo absent ;;
    PREEMPTED | TERMINATED | STOPPED) echo gone ;;
    *) echo coming ;;
  esac
}

# judge ATTEMPT: sets word, code, seen (the last step), attempt and why from the reports
judge() {
  local reports
  reports=$(answer='matched no objects' retry "$TRIES" "${reported[@]}") ||
    end 75 "the reports could not be read $TRIES times"
  read -r word code seen attempt why < <(
    cd "$root" && "$python" -S -m rfxray.runtime.status --attempt "$1" --stale "$STALE" --grace "$GRACE" <<<"$reports"
  ) || fail 78 "$python cannot run rfxray.runtime.status"
}

ours='' began=0 furthest=-1 stuck=0 failed=0 starts=0 new=''
while :; do
  if [ -n "$new" ]; then
    word=none # whatever was reported, it ran on a slice that is gone, or did not start
  else
    judge "$ours"
  fi
  if [ -n "$ours" ]; then
    [ "$word" != stop ] || end "$code" "stopped at step $seen: $why"
    [ "$word" != finished ] || end 0 "finished at step $seen"
  elif [ "$word" = running ]; then
    ours=$attempt # started before this babysitter
    began=$SECONDS
    say "goes on with attempt $ours"
  fi
  if [ "$seen" -gt "$furthest" ]; then
    furthest=$seen stuck=0
  fi

  state=$(slice) || end 75 "the state of $NAME could not be read $TRIES times"
  case $state in
    gone | absent)
      say "$NAME is $state; the last step known is $furthest"
      if [ "$state" = gone ]; then
        part delete --now || end 75 "$NAME could not be deleted"
      fi
      part create || end 75 "$NAME could not be created"
      new=yes failed=0
      continue
      ;;
    coming)
      say "waits for $NAME"
      sleep "$POLL"
      continue
      ;;
  esac

  # The slice is ready. Reports of an attempt that has just been started may be yet to come.
  if [ "$word" = running ] || { [ "$word" = none ] && [ -z "$new" ] && [ -n "$ours" ] && [ $((SECONDS - began)) -lt "$STALE" ]; }; then
    sleep "$POLL"
    continue
  fi
  if [ -n "$ours" ] && [ -z "$new" ]; then
    stuck=$((stuck + 1))
    say "attempt $ours: ${why:-no report}; the last step is $seen"
    [ "$stuck" -le "$FUTILE" ] ||
      end 75 "$FUTILE attempts in a row came no further than step $furthest; see logs.sh"
  fi
  [ "$failed" -le "$FUTILE" ] ||
    end 75 "$NAME is ready, and $failed attempts in a row could not be started; see above"
  starts=$((starts + 1))
  ours=$(date -u +%Y%m%dT%H%M%SZ).$(printf '%04d' "$starts")
  if part setup && RFXRAY_ATTEMPT=$ours part run -- "$@"; then
    began=$SECONDS new='' failed=0
  else
    # Preempted meanwhile, as the next look will tell, or a fault of its own.
    failed=$((failed + 1)) new=yes
    say "attempt $ours could not be started; looks at $NAME again"
    sleep "$POLL"
  fi
done

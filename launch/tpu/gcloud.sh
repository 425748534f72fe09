# shellcheck shell=bash disable=SC2034  # variables are used by the scripts that source this file
# How the scripts of this folder call gcloud: checked settings, --dry-run, retries. Sourced by them.
#
# No value reaches a shell unquoted: every word is an array element here, and what is sent to the
# hosts passes through `quoted`.
set -euo pipefail
tpu=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$tpu/../.." && pwd)
script=${0##*/}

say() { echo "$script: $*"; }

# fail CODE WORDS…: prints one line to stderr and exits with the code
fail() {
  local code=$1
  shift
  echo "$script: error: $*" >&2
  exit "$code"
}

# quoted WORDS…: prints one line that a shell parses into the same words
quoted() {
  local line
  line=$(printf '%q ' "$@")
  printf '%s\n' "${line% }"
}

# usage WORD: prints the comment at the top of the script; exits with 0 for --help, else with 78
usage() {
  sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
  [ "${1-}" = --help ] || fail 78 "unknown or missing argument: $(quoted "${1-}"); the lines above say which are allowed"
  exit 0
}

# shellcheck source=../forward.sh
source "$tpu/../forward.sh"
# shellcheck source=env.sh
source "$tpu/env.sh"

# settle NAME PATTERN EXAMPLE: refuses a setting that does not match
settle() {
  local value=${!1} pattern="^($2)\$"
  [[ $value =~ $pattern ]] && [[ $value != *$'\n'* ]] ||
    fail 78 "$1 must be like $3 (got $1=$(quoted "$value")); set it in launch/tpu/env.sh"
}
settle PROJECT '[a-z][a-z0-9.:-]{4,61}[a-z0-9]' my-project
settle ZONE '[a-z]+-[a-z]+[0-9]+-[a-z]' us-central2-b
settle NAME '[a-z]([a-z0-9-]{0,60}[a-z0-9])?' rfxray
settle TYPE '[a-z0-9]+-[0-9]+' v5p-128
settle VERSION '[a-z0-9][a-z0-9._-]*' tpu-ubuntu2204-base
settle KIND 'on-demand|spot|queued|queued-spot' 'on-demand, spot, queued or queued-spot'
settle BUCKET 'gs://[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]' gs://my-bucket
settle MOUNT '(/[A-Za-z0-9][A-Za-z0-9._-]*)+' /mnt/rfxray
settle RUN '[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*' runs/xl
for count in TRIES PAUSE CREATE_TRIES POLL STALE GRACE FUTILE; do
  settle "$count" '0|[1-9][0-9]{0,5}' 'a whole number'
done

export CLOUDSDK_CORE_DISABLE_PROMPTS=1
place=(--zone="$ZONE" --project="$PROJECT")
workdir=$MOUNT/$RUN
dry_run=

# only_dry_run WORDS…: reads the flags of a script that has no other than --dry-run
only_dry_run() {
  local word
  for word in "$@"; do
    case $word in
      --dry-run) dry_run=yes ;;
      *) usage "$word" ;;
    esac
  done
}

# call WORDS…: runs gcloud with these words; with --dry-run prints the command instead
call() {
  if [ -n "$dry_run" ]; then
    quoted gcloud "$@"
  else
    forward gcloud "$@" </dev/null
  fi
}

# retry TIMES WORDS…: `call`, repeated after growing pauses while it fails; returns its last exit code.
# A failure with a message that matches `answer` counts as success: there is nothing, or it is done.
answer=
retry() {
  local times=$1 pause=$PAUSE try=1 code message
  shift
  while :; do
    code=0
    if [ -n "$answer" ]; then
      message=$(mktemp)
      call "$@" 2>"$message" || code=$?
      if [ "$code" -ne 0 ] && grep -Eq "$answer" "$message"; then
        code=0
      else
        cat "$message" >&2
      fi
      rm -f "$message"
    else
      call "$@" || code=$?
    fi
    [ "$code" -ne 0 ] || return 0
    if [ "$try" -ge "$times" ]; then
      say "gcloud ${*:1:4} failed $try times, the last time with exit code $code; see its message above" >&2
      return "$code"
    fi
    say "gcloud ${*:1:4} failed with exit code $code; try $((try + 1)) of $times in $pause s" >&2
    forward sleep "$pause"
    try=$((try + 1))
    pause=$((pause * 2 > 600 ? 600 : pause * 2))
  done
}

# on_hosts WHICH SCRIPT WORDS…: runs a script of on_host/ with these words on one worker or on all
on_hosts() {
  local which=$1 name=$2
  shift 2
  retry "$TRIES" compute tpus tpu-vm ssh "$NAME" "${place[@]}" --worker="$which" \
    --command="$(quoted bash "rfxray/current/launch/tpu/on_host/$name.sh" "$@")"
}

queued() { [[ $KIND == queued* ]]; }

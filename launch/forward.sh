# shellcheck shell=bash
# forward COMMAND…: runs a command, and passes requests to stop on to it. Sourced by the other scripts.
#
# Bash acts on a signal only after the command that it waits for, or dies of it and leaves the command
# behind. Here TERM, INT and HUP (unless ignored, as under nohup) reach the command as TERM; it saves
# and ends, and the script ends after it, with 75. Otherwise the code is that of the command.
forward() {
  local child='' code=0 asked='' before
  trap 'asked+=x; [ -z "$child" ] || kill -TERM "$child" 2>/dev/null || true' TERM INT HUP
  # A job in the background ignores INT and reads nothing; this one does neither.
  (trap - INT && exec "$@") <&0 &
  child=$!
  [ -z "$asked" ] || kill -TERM "$child" 2>/dev/null || true
  while :; do
    before=$asked
    wait "$child" && code=0 || code=$?
    [ "$asked" != "$before" ] || break # else a signal ended the wait, not the command
  done
  trap - TERM INT HUP
  [ -n "$asked" ] || return "$code"
  echo "${0##*/}: stopped as asked to; run the same command again to continue" >&2
  exit 75
}

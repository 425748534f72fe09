# shellcheck shell=bash
# Which slice, which run, where: the settings of every script in this folder. Edit the defaults, or
# set the variables for one command: `ZONE=us-east5-a bash launch/tpu/create.sh`. Nothing secret
# belongs here: gcloud keeps your credentials, the hosts use the slice's service account.

: "${PROJECT:=}"                       # of Google Cloud
: "${ZONE:=us-central2-b}"             # where the slice is
: "${NAME:=rfxray}"                    # of the slice
: "${TYPE:=v4-32}"                     # v4-32, v5litepod-64, v5p-128, v6e-256, …
: "${VERSION:=tpu-ubuntu2204-base}"    # of the runtime: v2-alpha-tpuv5, v2-alpha-tpuv6e, …
: "${KIND:=spot}"                      # on-demand, spot, queued, queued-spot
: "${BUCKET:=}"                        # gs://… in the zone's region, for checkpoints and data
: "${MOUNT:=/mnt/rfxray}"              # where every host mounts the bucket
: "${RUN:=runs/xl}"                    # the run's folder in the bucket

# How patient the scripts are.
: "${TRIES:=6}"                        # times that a failing gcloud call is made
: "${PAUSE:=10}"                       # seconds before the second, doubled each time up to 600
: "${CREATE_TRIES:=100}"               # times for creating a slice: about 16 hours without capacity
: "${POLL:=60}"                        # seconds between two looks of the babysitter
: "${STALE:=600}"                      # seconds after which a silent host counts as lost
: "${GRACE:=300}"                      # seconds for the other hosts once the first has ended
: "${FUTILE:=3}"                       # attempts in a row without a step forward before it gives up

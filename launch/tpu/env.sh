# shellcheck shell=bash disable=SC2034  # variables are used by the scripts that source this file
# Settings of every script in this folder: the slice, the bucket, the run. Edit the defaults, or set
# one for a single command: `RFXRAY_ZONE=us-east5-a bash launch/tpu/create.sh`. Write no secret here:
# gcloud keeps your credentials, and the hosts use the service account of the slice.

PROJECT=${RFXRAY_PROJECT:-}                    # Google Cloud project
ZONE=${RFXRAY_ZONE:-us-central2-b}             # zone of the slice
NAME=${RFXRAY_NAME:-rfxray}                    # name of the slice
TYPE=${RFXRAY_TYPE:-v4-32}                     # accelerator: v4-32, v5litepod-64, v5p-128, v6e-256, …
VERSION=${RFXRAY_VERSION:-tpu-ubuntu2204-base} # runtime version: v2-alpha-tpuv5, v2-alpha-tpuv6e, …
KIND=${RFXRAY_KIND:-spot}                      # on-demand, spot, queued, queued-spot
BUCKET=${RFXRAY_BUCKET:-}                      # gs://… in the zone's region, for checkpoints and data
MOUNT=${RFXRAY_MOUNT:-/mnt/rfxray}             # where each host mounts the bucket
RUN=${RFXRAY_RUN:-runs/xl}                     # folder of the run in the bucket

# Retries and intervals.
TRIES=${RFXRAY_TRIES:-6}                       # calls of gcloud before a failure counts
PAUSE=${RFXRAY_PAUSE:-10}                      # seconds before the second call, doubled up to 600
CREATE_TRIES=${RFXRAY_CREATE_TRIES:-100}       # calls that ask for a slice: about 16 hours
POLL=${RFXRAY_POLL:-60}                        # seconds between two checks of the babysitter
STALE=${RFXRAY_STALE:-180}                     # seconds without a report (one a minute) until a host is lost
GRACE=${RFXRAY_GRACE:-300}                     # seconds for the other hosts after the first ended
FUTILE=${RFXRAY_FUTILE:-3}                     # attempts without a step forward until it ends

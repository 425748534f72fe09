# shellcheck shell=bash disable=SC2034  # what is not used here is used by the scripts
# Which slice, which run, where: the settings of every script in this folder. Edit the defaults, or
# set them for one command: `RFXRAY_ZONE=us-east5-a bash launch/tpu/create.sh`. Nothing secret
# belongs here: gcloud keeps your credentials, the hosts use the slice's service account.

PROJECT=${RFXRAY_PROJECT:-}                    # of Google Cloud
ZONE=${RFXRAY_ZONE:-us-central2-b}             # where the slice is
NAME=${RFXRAY_NAME:-rfxray}                    # of the slice
TYPE=${RFXRAY_TYPE:-v4-32}                     # v4-32, v5litepod-64, v5p-128, v6e-256, …
VERSION=${RFXRAY_VERSION:-tpu-ubuntu2204-base} # of the runtime: v2-alpha-tpuv5, v2-alpha-tpuv6e, …
KIND=${RFXRAY_KIND:-spot}                      # on-demand, spot, queued, queued-spot
BUCKET=${RFXRAY_BUCKET:-}                      # gs://… in the zone's region, for checkpoints and data
MOUNT=${RFXRAY_MOUNT:-/mnt/rfxray}             # where every host mounts the bucket
RUN=${RFXRAY_RUN:-runs/xl}                     # the run's folder in the bucket

# How patient the scripts are.
TRIES=${RFXRAY_TRIES:-6}                       # times that a failing gcloud call is made
PAUSE=${RFXRAY_PAUSE:-10}                      # seconds before the second, doubled each time up to 600
CREATE_TRIES=${RFXRAY_CREATE_TRIES:-100}       # times that a slice is asked for: about 16 hours
POLL=${RFXRAY_POLL:-60}                        # seconds between two looks of the babysitter
STALE=${RFXRAY_STALE:-600}                     # seconds after which a silent host counts as lost
GRACE=${RFXRAY_GRACE:-300}                     # seconds for the other hosts once the first has ended
FUTILE=${RFXRAY_FUTILE:-3}                     # attempts without a step forward before it ends

#!/usr/bin/env bash
# Trains, stops, kills and resumes a run in two processes that Open MPI starts on this machine. Debian's package
# openmpi-bin has `mpirun`. Call it in an environment with eqxcnn: `bash tests/launchers/mpirun.sh`.
set -uo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/check.sh"

# Open MPI ends all processes when one has ended; by then, all have saved.
options=(-np 2 --oversubscribe)
[[ $EUID -eq 0 ]] && options+=(--allow-run-as-root)

launch() { mpirun "${options[@]}" python -m eqxcnn.train "$@" & }
signal_one() { pkill --signal "$1" --newest --full "^python -m eqxcnn.train"; }

check_all

#!/usr/bin/env bash
# Trains, stops, kills and resumes a run in two processes that Slurm starts, then requeues a batch job. Call it in an
# environment with eqxcnn, on a machine with `srun` and a running slurmd: `bash tests/launchers/slurm.sh`.
set -uo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/check.sh"

launch() { srun --ntasks 2 python -m eqxcnn.train "$@" & }
# `slurmstepd` starts the processes, so the name of the command does not appear in another one.
signal_one() { pkill --signal "$1" --newest --full "python -m eqxcnn.train"; }

check_all

echo "== a batch job that is requeued"
work=$(mktemp -d)
script=$(realpath "$(dirname "${BASH_SOURCE[0]}")/train.sbatch")
cd "$work" || exit 1
job=$(sbatch --parsable --ntasks 2 "$script" --model mlp --epochs 40 --batch-size 32 --checkpoint-seconds 0)
folder=$work/runs stopped=$job
ln -s "$job" runs/stopped 2>/dev/null || { mkdir -p runs && ln -s "$job" runs/stopped; }
wait_for_step 20
scontrol requeue "$job"
# Slurm waits two minutes before it starts a requeued job again.
for _ in $(seq 900); do
    [[ -e runs/$job/model/config.json ]] && break
    sleep 1
done
cat "slurm-$job.out"
grep -q '"from_step": [1-9]' "runs/$job/metrics.jsonl" && echo "the requeued job has resumed"

#!/usr/bin/env bash
# All measurements on a GPU, in less than ten minutes: airbench94 with five seeds (accuracy and time), then training
# steps (images/s, fraction of the chip's peak, memory).
#
#     benchmarks/gpu.sh [CIFAR-10] [FOLDER]
#
# CIFAR-10: a folder or Hub id, by default `cifar10`. FOLDER: for the results, by default benchmarks/results.
# Needs JAX for the GPU and, for the comparison, PyTorch; PYTHON names the interpreter, by default python3. The last
# line says whether all parts have succeeded; every results file that exists is complete.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
data=${1:-cifar10}
out=${2:-benchmarks/results}
python=${PYTHON:-python3}
failed=()

run() {
    local name=$1 seconds=$2
    shift 2
    echo "== $name (at most $seconds s)"
    timeout --kill-after 10 "$seconds" "$@" || failed+=("$name")
}

machine=$("$python" -c 'import jax; print(jax.devices()[0].platform, jax.devices()[0].device_kind)') || exit 1
if [[ ${EQXCNN_GPU_REHEARSAL:-} != 1 && $machine == cpu* ]]; then
    echo "error: JAX has found no GPU on this machine (only $machine): install JAX for your GPU" >&2
    exit 1
fi
echo "$machine"
# A rehearsal on a CPU: the same parts at the smallest size.
small=() epochs=()
if [[ ${EQXCNN_GPU_REHEARSAL:-} == 1 ]]; then
    small=(--only resnet18_256 --batch 2 --image-size 32 --rounds 2 --seconds .01)
    epochs=(--seeds 1 --recipes mlp --data digits)
fi
mkdir -p "$out"
peers=()
"$python" -c 'import torch, torchvision' 2>/dev/null && peers=(torch)
# Accuracy first, in case the time runs out: it matters more than another ratio.
run "airbench94, five seeds" 270 "$python" -m benchmarks.time_to_accuracy --recipes airbench94 --data "$data" \
    --accuracies .94 --seconds 60 --seeds 5 --out "$out/time_to_accuracy_gpu.json" "${epochs[@]}"
run "training steps" 300 "$python" -m benchmarks.throughput --suite gpu --rounds 3 --peers "${peers[@]}" \
    --out "$out/throughput_gpu.json" "${small[@]}"
if [[ ${#failed[@]} -gt 0 ]]; then
    printf 'error: failed or ran out of time: %s\n' "${failed[@]}" >&2
    exit 1
fi
echo "all parts have succeeded: commit the results in $out, which name the machine"

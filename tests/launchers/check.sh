# Sourced by the scripts beside it: stops and kills a run that a launcher has started, and compares its result with that
# of a run that was never stopped. They call `launch ARGUMENTS...`, which trains in two processes, in the background
# with its process id in $!, and `signal_one NAME`, which sends a signal to one of the two.

folder=$(mktemp -d)
settings=(--model mlp --epochs 30 --batch-size 32 --checkpoint-seconds 0 --runs "$folder")

# Waits until the run has a checkpoint of at least this step.
wait_for_step() {
    for _ in $(seq 600); do
        latest=$(ls "$folder/stopped/checkpoints" 2>/dev/null | grep -E '^[0-9]+$' | sort -n | tail -n 1)
        [[ ${latest:-0} -ge $1 ]] && return
        sleep 0.2
    done
    echo "no checkpoint of step $1" >&2
    exit 1
}

check_all() {
    echo "== a run that is never stopped"
    launch "${settings[@]}" --name whole
    wait $!

    echo "== SIGTERM to one process: all save the same step"
    launch "${settings[@]}" --name stopped
    job=$!
    wait_for_step 20
    signal_one TERM
    wait $job && exit 1
    echo "exit code of the launcher: $?"
    ls "$folder/stopped/checkpoints"

    echo "== SIGKILL of one process: the other says so"
    launch --resume "$folder/stopped"
    job=$!
    wait_for_step $((latest + 50))
    started=$SECONDS
    signal_one KILL
    wait $job && exit 1
    echo "exit code of the launcher: $?, $((SECONDS - started)) s later"

    echo "== resumed to the end"
    launch --resume "$folder/stopped"
    wait $!
    cmp "$folder"/{whole,stopped}/model/model.safetensors
    echo "the same bytes as the run that was never stopped"
    rm -r "$folder"
}

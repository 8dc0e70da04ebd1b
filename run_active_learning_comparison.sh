#!/usr/bin/env bash
# Active learning compared: a run for each strategy and seed, a GPU each, then plots and a table.
#
#   ./run_active_learning_comparison.sh                  random on GPU 0, uncertainty on GPU 1
#   ./run_active_learning_comparison.sh --strategies "random uncertainty entropy" --seeds "42 43 44"
#
# What is done is not done again, and what was interrupted goes on: run the same command.
# For a cluster, docs/active_learning_guide.md has a template.
set -euo pipefail

# Without data: simulated micrographs, 12 minutes on 2 cores. "full" trains on all: the target.
simulation=(--micrographs-train 120 --micrographs-val 24 --micrographs-test 24 --size 512
    --pixel-size 4 --snr 0.06 0.2 --proteins 6)
simulated_seg_size=128
simulated_strategies="random full uncertainty"

# Refuses strategies that are not known, now and not after hours; prints the numbers of the GPUs
check='
import sys
import torch
from picking.active_learning.strategies import strategy
from picking.errors import run_script

def main():
    for name in {*sys.argv[1:]} - {"full"}:
        strategy(name)
    print(*range(torch.cuda.device_count()))

run_script(main)'

usage() {
    cat <<'TEXT'
usage: ./run_active_learning_comparison.sh [options] [-- flags for train_active_learning_fixed.py]

  --strategies "A B ..."  default: random uncertainty (simulated: and full, which sets the target)
  --seeds "M N ..."       a run for each strategy and seed; default: 42
  --data-dir DIR          segmentation store with train/ and val/; default:
                          data/cryotransformer_preprocessed if it is there, else simulated data
  --data-root DIR         data set in CryoTransformer's layout to make a store from: in --data-dir,
                          by default data/<data root's name>_seg...
  --seg-size PX           side of the images in that store (default: 768)
  --seg-tiles N           N x N images of each micrograph
  --seg-ignore-margin     leave the margin that nobody annotated out of loss and metrics
  --category NAME         of a COCO JSON with several: which are the particles
  --allow-partial         go on where more than a tenth of the annotation cannot be used
  --config YAML           default: configs/active_learning.yaml
                          (simulated: configs/active_learning_quickstart.yaml)
  --output-dir DIR        default: experiments/active_learning_fixed
                          (simulated: experiments/active_learning_quickstart)
  --gpus "0 1 ..."        one run at a time on each; default: all there are; none: the CPU;
                          "cpu cpu": two runs at a time on the CPU (simulated data without a GPU)
  --num-workers N         processes that make the data (default: the processors, at most 8) and,
                          in each training, read (default: 0, the fastest unless the disk is slow)
PYTHON=/path/to/python uses an environment of yours instead of .venv.
TORCH_INDEX=URL takes torch and torchvision for .venv from that package index, of CPU builds, say.
TEXT
}

source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

begin() {  # SLOT STRATEGY SEED: start a run on the slot's device
    local command=("${train[@]}" --strategy "$2" --seed "$3" --device "${devices[$1]}")
    names[$1]="$2 seed $3"
    echo "== ${names[$1]}: begun on ${devices[$1]}"
    if ((${#devices[@]} == 1)); then
        consoles[$1]=above
        "${command[@]}" &
    else
        consoles[$1]=$output_dir/console_$2_seed$3.log
        "${command[@]}" >"${consoles[$1]}" 2>&1 &
    fi
    pids[$1]=$!
}

end() {  # SLOT: take the status of the run that ended there
    local status=0 name=${names[$1]}
    wait "${pids[$1]}" || status=$?
    unset "pids[$1]"
    if ((status == 0)); then
        echo "== $name: done"
        return
    fi
    echo "== $name: failed (exit $status), see ${consoles[$1]}" >&2
    [[ -z $failed ]] && failed_status=$status || failed_status=1
    failed+="${failed:+; }$name (exit $status), see ${consoles[$1]}"
}

strategies="" seeds=42 data_dir="" data_root="" seg_size="" seg_tiles="" ignore_margin="" config=""
output_dir="" gpus=all num_workers="" category="" allow_partial=""
while [[ $# -gt 0 ]]; do
    case $1 in
        -h | --help) usage; exit 0 ;;
        --) shift; break ;;
        --seg-ignore-margin) ignore_margin=yes; shift ;;
        --allow-partial) allow_partial=yes; shift ;;
        --strategies | --seeds | --data-dir | --data-root | --seg-size | --seg-tiles | --config | \
            --output-dir | --gpus | --num-workers | --category)
            take_option "$@"
            shift 2
            ;;
        *) fail "unknown option '$1': see --help (flags for training go behind --)" ;;
    esac
done
check_options seg_size seg_tiles num_workers
[[ $strategies =~ ^(\ *[a-z][a-z0-9_\ ]*)?$ ]] ||
    fail "--strategies is '$strategies': give names, separated by spaces"
[[ $seeds =~ ^\ *[0-9][0-9\ ]*$ ]] || fail "--seeds is '$seeds': give whole numbers and spaces"
[[ $gpus =~ ^(all|none|(\ *(cpu|[0-9]+)(\ +|$))*)$ ]] ||
    fail "--gpus is '$gpus': give numbers, separated by spaces, or none, or 'cpu cpu'"
[[ -n $data_root || -z $seg_size$seg_tiles$ignore_margin ]] || fail "--seg-... need --data-root"
[[ -n $data_root || -z $category$allow_partial ]] ||
    fail "--category and --allow-partial need --data-root"
[[ -n $data_root || -z $data_dir || -d $data_dir/train ]] ||
    fail "--data-dir $data_dir has no train/: check the path, or make the store from a --data-root"

cd "$(dirname "${BASH_SOURCE[0]}")"
use_environment requirements.txt
stop_on_signals
makers=${num_workers:-$(($(nproc) < 8 ? $(nproc) : 8))}  # processes that make the data

# 1. What is to be run
simulated=""
if [[ -z $data_root$data_dir && -f data/cryotransformer_preprocessed/metadata.json ]]; then
    data_dir=data/cryotransformer_preprocessed
elif [[ -z $data_root$data_dir ]]; then
    simulated=yes
    data_root=data/simulated_active
    data_dir=data/simulated_active_seg
    seg_size=$simulated_seg_size
    ignore_margin=yes
    config=${config:-configs/active_learning_quickstart.yaml}
    output_dir=${output_dir:-experiments/active_learning_quickstart}
    strategies=${strategies:-$simulated_strategies}
elif [[ -z $data_dir ]]; then
    data_dir=data/$(basename "$data_root")_seg${seg_size:+_$seg_size}${seg_tiles:+_tiles$seg_tiles}
    data_dir+=${ignore_margin:+_margin}
fi
output_dir=${output_dir:-experiments/active_learning_fixed}
strategies=${strategies:-random uncertainty}

runs=()
for seed in $seeds; do
    for strategy in $strategies; do runs+=("$strategy $seed"); done
done
all_gpus=$("$PYTHON" -c "$check" $strategies)

# 2. Data
if [[ -n $simulated ]]; then
    echo "== No data given: simulated micrographs in $data_root"
    call "$PYTHON" -m picking.simulation --output "$data_root" "${simulation[@]}" \
        --num-workers "$makers"
fi
if [[ -n $data_root ]]; then
    echo "== Images and masks in $data_dir"
    preprocess=(--tasks segmentation --data-root "$data_root" --seg-output-dir "$data_dir"
        --num-workers "$makers")
    [[ -z $seg_size ]] || preprocess+=(--seg-size "$seg_size")
    [[ -z $seg_tiles ]] || preprocess+=(--seg-tiles "$seg_tiles")
    [[ -z $ignore_margin ]] || preprocess+=(--seg-ignore-margin)
    [[ -z $category ]] || preprocess+=(--category "$category")
    [[ -z $allow_partial ]] || preprocess+=(--allow-partial)
    call "$PYTHON" preprocess_coco_full_dataset.py "${preprocess[@]}"
fi

# 3. Training: a run at a time on each device, the next one as soon as one is free
train=("$PYTHON" train_active_learning_fixed.py --config "${config:-configs/active_learning.yaml}"
    --train-data-dir "$data_dir/train" --val-data-dir "$data_dir/val" --output-dir "$output_dir"
    --num-workers "${num_workers:-0}" --resume "$@")
if [[ $gpus == all ]]; then
    gpus=$all_gpus
    # The simulated images are too small to keep two processors busy with one run
    [[ -z $simulated || -n $gpus || $(nproc) -lt 2 ]] || gpus="cpu cpu"
fi
devices=()
for gpu in ${gpus/none/}; do
    [[ $gpu == cpu ]] && devices+=(cpu) || devices+=("cuda:$gpu")
done
((${#devices[@]})) || devices=(cpu)
devices=("${devices[@]:0:${#runs[@]}}")
mkdir -p "$output_dir"
if ((${#devices[@]} > 1)); then
    printf '== %s runs at a time: tail -f %q/*/training.log\n' "${#devices[@]}" "$output_dir"
    if [[ ${devices[*]} == *cpu*cpu* ]]; then  # else each run takes all processors
        threads=$(($(nproc) / ${#devices[@]}))
        export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((threads > 1 ? threads : 1))}
    fi
elif ((${#runs[@]} > 1)); then
    [[ ${devices[0]} == cpu ]] && there="No GPU" || there="One GPU"
    echo "== $there: one run after another on ${devices[0]/cpu/the CPU}"
fi
next=0 failed="" failed_status=0 names=() consoles=() pids=()
while ((next < ${#runs[@]} || ${#pids[@]} > 0)); do
    for slot in "${!devices[@]}"; do
        [[ -z ${pids[slot]:-} ]] || kill -0 "${pids[slot]}" 2>/dev/null || end "$slot"
        if [[ -z ${pids[slot]:-} ]] && ((next < ${#runs[@]})); then
            begin "$slot" ${runs[next]}
            next=$((next + 1))
        fi
    done
    call sleep 0.2  # bash 4.2 cannot wait for the one that ends first
done

# 4. Analysis of what is complete
echo "== Comparison of the runs in $output_dir"
status=0
call "$PYTHON" analyze_active_learning_results.py --experiments-dir "$output_dir" || status=$?
[[ -z $simulated ]] ||
    echo "These metrics are of simulated micrographs: for real ones give --data-dir or --data-root."
[[ -z $failed ]] || echo "error: these runs failed: $failed" >&2
[[ -z $failed ]] || status=$failed_status
exit "$status"

#!/usr/bin/env bash
# Active learning compared: a run for each strategy and seed, a GPU each, then plots and a table.
#
#   ./run_active_learning_comparison.sh                  random on GPU 0, uncertainty on GPU 1
#   ./run_active_learning_comparison.sh --strategies "random uncertainty entropy" --seeds "42 43 44"
#   ./run_active_learning_comparison.sh --slurm submit --slurm-options "--partition=gpu"
#
# What is done is not done again, and what was interrupted goes on: run the same command.
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
  --seg-ignore-margin     leave out of loss and figures the margin in which nobody annotated
  --config YAML           default: configs/active_learning.yaml
                          (simulated: configs/active_learning_quickstart.yaml)
  --output-dir DIR        default: experiments/active_learning_fixed
                          (simulated: experiments/active_learning_quickstart)
  --gpus "0 1 ..."        one run at a time on each; default: all there are; none: the CPU;
                          "cpu cpu": two runs at a time on the CPU (simulated data without a GPU)
  --num-workers N         processes that make the data (default: the processors, at most 8) and,
                          in each training, read (default: 0, the fastest unless the disk is slow)
  --slurm [print|submit]  print (default) or submit a Slurm script that runs the same commands
  --slurm-options "..."   of each of its jobs, e.g. "--partition=gpu --time=12:00:00"
PYTHON=/path/to/python uses an environment of yours instead of .venv.
TEXT
}

fail() {
    echo "error: $1" >&2
    exit 2
}

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

quoted() {  # COMMAND...: as bash reads it
    printf '%q ' "$@"
}

slurm_script() {
    local i device=cuda gpu=--gres=gpu:1 data='""' words options=""
    read -r -d '' -a words <<<"$slurm_options" || true  # it ends at no delimiter
    ((${#words[@]} == 0)) || options=$(quoted "${words[@]}")
    [[ $gpus == all || $gpus == *[0-9]* ]] || device=cpu gpu=""
    cat <<TEXT
#!/usr/bin/env bash
# Active learning on Slurm, written by run_active_learning_comparison.sh. "bash FILE" submits this
# file: a job that makes the data if they are to be made, an array job with a task for each run, and
# behind them the analysis. A run that Slurm preempts is requeued and goes on where it was;
# after a time limit or a failure submit again: what is done is not done again.
#SBATCH --job-name=active_learning --requeue --open-mode=append --signal=B:TERM@120
set -euo pipefail
script=\$(realpath -- "\$0")
submit() {  # STEP OPTIONS...: print the job's number
    sbatch --parsable "\${@:2}" $options "\$script" "\$1" | cut -d ";" -f 1
}
cd $(quoted "$PWD")
# exec: Slurm's SIGTERM reaches Python itself
case \${SLURM_ARRAY_TASK_ID:-\${1:-submit}} in
TEXT
    if [[ -n $data_root ]]; then
        data="\$(submit data --cpus-per-task=$n_makers)"
        echo "data)"
        [[ -z $simulated ]] || echo "    $(quoted "${simulate[@]}")"
        echo "    exec $(quoted "${preprocess[@]}") ;;"
    fi
    for i in "${!runs[@]}"; do
        echo "$i) exec $(quoted "${train[@]}" --strategy "${runs[i]% *}" --seed "${runs[i]#* }" \
            --device "$device") ;;"
    done
    cat <<TEXT
analysis) exec $(quoted "${analyse[@]}") ;;
submit)
    mkdir -p $(quoted "$output_dir") && cd $(quoted "$output_dir")
    data=$data
    runs=\$(submit runs --array=0-$((${#runs[@]} - 1)) --cpus-per-task=$((${num_workers:-0} + 2)) \\
        $gpu \${data:+--dependency=afterok:\$data --kill-on-invalid-dep=yes})
    analysis=\$(submit analysis --dependency=afterany:\$runs)
    echo "Submitted jobs: \${data:+data \$data, }runs \$runs, analysis \$analysis"
    echo "What they print: \$PWD/slurm-*.out" ;;
esac
TEXT
}

strategies="" seeds=42 data_dir="" data_root="" seg_size="" seg_tiles="" ignore_margin="" config=""
output_dir="" gpus=all num_workers="" slurm="" slurm_options=""
while [[ $# -gt 0 ]]; do
    case $1 in
        -h | --help) usage; exit 0 ;;
        --) shift; break ;;
        --seg-ignore-margin) ignore_margin=yes; shift ;;
        --slurm)
            slurm=print
            [[ ${2:-} != print && ${2:-} != submit ]] || { slurm=$2; shift; }
            shift
            ;;
        --strategies | --seeds | --data-dir | --data-root | --seg-size | --seg-tiles | --config | \
            --output-dir | --gpus | --num-workers | --slurm-options)
            [[ $# -ge 2 && (-n $2 || $1 == --gpus) ]] || fail "$1 needs a value"
            name=${1#--} value=$2
            case $1 in  # relative paths are the caller's, not this script's
                --data-dir | --data-root | --config | --output-dir) value=$(realpath -m -- "$2") ;;
            esac
            printf -v "${name//-/_}" %s "$value"  # --data-dir sets data_dir, and so on
            shift 2
            ;;
        *) fail "unknown option '$1': see --help (flags for training go behind --)" ;;
    esac
done
for name in seg_size seg_tiles num_workers; do
    [[ ${!name} =~ ^[0-9]*$ ]] || fail "--${name//_/-} is '${!name}': give a whole number"
done
[[ $strategies =~ ^(\ *[a-z][a-z0-9_\ ]*)?$ ]] ||
    fail "--strategies is '$strategies': give names, separated by spaces"
[[ $seeds =~ ^\ *[0-9][0-9\ ]*$ ]] || fail "--seeds is '$seeds': give whole numbers and spaces"
[[ $gpus =~ ^(all|none|(\ *(cpu|[0-9]+)(\ +|$))*)$ ]] ||
    fail "--gpus is '$gpus': give numbers, separated by spaces, or none, or 'cpu cpu'"
[[ -n $data_root || -z $seg_size$seg_tiles$ignore_margin ]] || fail "--seg-... need --data-root"
[[ -n $data_root || -z $data_dir || -d $data_dir/train ]] ||
    fail "--data-dir $data_dir has no train/: check the path, or make the store from a --data-root"
[[ -z $config || -f $config ]] || fail "--config $config is not there: check the path"
[[ $slurm != submit ]] || command -v sbatch >/dev/null ||
    fail "--slurm submit finds no sbatch: run it on the cluster, or use --slurm print"
[[ $slurm != print ]] || exec 3>&1 >&2  # standard output is for the script alone

cd "$(dirname "${BASH_SOURCE[0]}")"
source ./environment.sh
use_environment
stop_on_signals
n_makers=$(nproc)
((n_makers <= 8)) || n_makers=8
n_makers=${num_workers:-$n_makers}

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

simulate=("$PYTHON" -m picking.simulation --output "$data_root" "${simulation[@]}"
    --num-workers "$n_makers")
preprocess=("$PYTHON" preprocess_coco_full_dataset.py --tasks segmentation --data-root "$data_root"
    --seg-output-dir "$data_dir" --num-workers "$n_makers")
[[ -z $seg_size ]] || preprocess+=(--seg-size "$seg_size")
[[ -z $seg_tiles ]] || preprocess+=(--seg-tiles "$seg_tiles")
[[ -z $ignore_margin ]] || preprocess+=(--seg-ignore-margin)
train=("$PYTHON" train_active_learning_fixed.py --config "${config:-configs/active_learning.yaml}"
    --train-data-dir "$data_dir/train" --val-data-dir "$data_dir/val" --output-dir "$output_dir"
    --num-workers "${num_workers:-0}" --resume "$@")
analyse=("$PYTHON" analyze_active_learning_results.py --experiments-dir "$output_dir")
runs=()
for seed in $seeds; do
    for strategy in $strategies; do runs+=("$strategy $seed"); done
done
all_gpus=$("$PYTHON" -c "$check" $strategies)

if [[ -n $slurm ]]; then
    if [[ $slurm == print ]]; then
        slurm_script >&3
    else
        mkdir -p "$output_dir"
        slurm_script >"$output_dir/slurm.sh"
        bash "$output_dir/slurm.sh"
    fi
    exit
fi

# 2. Data
if [[ -n $simulated ]]; then
    echo "== No data given: simulated micrographs in $data_root"
    call "${simulate[@]}"
fi
if [[ -n $data_root ]]; then
    echo "== Images and masks in $data_dir"
    call "${preprocess[@]}"
fi

# 3. Training: a run at a time on each device, the next one as soon as one is free
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
call "${analyse[@]}" || status=$?
[[ -z $simulated ]] ||
    echo "These figures are of simulated micrographs: for real ones give --data-dir or --data-root."
[[ -z $failed ]] || echo "error: these runs failed: $failed" >&2
[[ -z $failed ]] || status=$failed_status
exit "$status"

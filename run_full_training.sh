#!/usr/bin/env bash
# Annotated micrographs in, a trained and tested PU + FixMatch classifier out.
#
#   ./run_full_training.sh                                    simulated micrographs, 5 min on 2 cores
#   ./run_full_training.sh --data-root /data/train_val_test_data --device cuda:0 --num-workers 8
#
# What is done is not done again, and what was interrupted goes on: run the same command.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: ./run_full_training.sh [options] [-- flags for train_pu_fixed_full.py]

  --data-root DIR         data set in CryoTransformer's layout; none: simulated micrographs
  --config YAML           default: configs/pu_full_fixed.yaml (simulated: configs/pu_quickstart.yaml)
  --exp-name NAME         experiments/NAME; default: the config's name
  --data-dir DIR          patch store; default: data/<data root's name>_pu...
  --device NAME           cpu, cuda:0, ... or auto (default)
  --num-workers N         processes that cut (default: the processors, at most 8) and, in
                          training, read (default: 0, the fastest unless the disk is slow)
  --max-images-train N    only N training micrographs
  --neg-rule far|disjoint where negatives may lie
  --category NAME         of a COCO JSON with several: which are the particles
  --allow-partial         go on where more than a tenth of the annotation cannot be used
PYTHON=/path/to/python uses an environment of yours instead of .venv.
TORCH_INDEX=URL takes torch and torchvision for .venv from that package index, of CPU builds, say.
TEXT
}

source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
data_root="" config="" exp_name="" data_dir="" device=auto num_workers="" max_images_train="" neg_rule=far
category="" allow_partial=""
while [[ $# -gt 0 ]]; do
    case $1 in
        -h | --help) usage; exit 0 ;;
        --) shift; break ;;
        --allow-partial) allow_partial=yes; shift ;;
        --data-root | --config | --exp-name | --data-dir | --device | --num-workers | \
            --max-images-train | --neg-rule | --category)
            take_option "$@"
            shift 2
            ;;
        *) fail "unknown option '$1': see --help (flags for training go behind --)" ;;
    esac
done
[[ $neg_rule == far || $neg_rule == disjoint ]] || fail "--neg-rule is '$neg_rule': far or disjoint"
check_options num_workers max_images_train

cd "$(dirname "${BASH_SOURCE[0]}")"
use_environment requirements.txt
stop_on_signals
makers=${num_workers:-$(($(nproc) < 8 ? $(nproc) : 8))}  # processes that make the data

# 1. Data
simulated=""
if [[ -z $data_root ]]; then
    simulated=yes
    data_root=data/simulated
    config=${config:-configs/pu_quickstart.yaml}
    echo "== No --data-root: simulated micrographs in $data_root"
    call "$PYTHON" -m picking.simulation --output "$data_root" \
        --num-workers "$makers"
fi
config=${config:-configs/pu_full_fixed.yaml}
exp_name=${exp_name:-$(basename "$config" .yaml)}
if [[ -z $data_dir ]]; then
    data_dir=data/$(basename "$data_root")_pu
    [[ $neg_rule == far ]] || data_dir+=_$neg_rule
    [[ -z $max_images_train ]] || data_dir+=_$max_images_train
fi

# 2. Patches and priors
echo "== Patches in $data_dir"
preprocess=(--data-root "$data_root" --output-dir "$data_dir" --neg-rule "$neg_rule"
    --num-workers "$makers")
[[ -z $max_images_train ]] || preprocess+=(--max-images-train "$max_images_train")
[[ -z $category ]] || preprocess+=(--category "$category")
[[ -z $allow_partial ]] || preprocess+=(--allow-partial)
call "$PYTHON" preprocess_coco_full_dataset.py "${preprocess[@]}"

# 3. Training, then evaluation on validation and test
echo "== Training in experiments/$exp_name"
call "$PYTHON" train_pu_fixed_full.py --config "$config" --exp-name "$exp_name" \
    --data-dir "$data_dir" --device "$device" --num-workers "${num_workers:-0}" --use-data-prior \
    --resume "$@"
[[ -z $simulated ]] || echo "These metrics are of simulated micrographs: for real ones give --data-root."

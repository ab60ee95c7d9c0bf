#!/bin/sh
# Record the sweeps of docs/steering.md into build/steering and write the page: make steering.
# A sweep that was stopped goes on; finished ones are not recorded again.
set -eu
cd "$(dirname "$0")/.."
mkdir -p build/steering
cd build/steering
bin=../../.venv/bin

sweep() { # NAME FOLDER ARGUMENTS...
  name=$1 folder=$2
  shift 2
  if [ -d "runs/$name" ]; then
    $bin/vla-trace sweep --resume "$name"
  else
    $bin/vla-trace sweep --name "$name" --out "$folder" --replan 5 --capture light --workers 1 "$@"
  fi
}

# Which layer: on scenes 200 to 215, which no other sweep uses.
sweep search search --seed 200 --episodes 16 --steer fast,slow --layer all --alpha 4,8 \
  --controls none
# Doses, and at the largest one twenty random clusters.
for concept in fast slow; do
  sweep "$concept" "$concept" --episodes 30 --steer "$concept" --layer 0 --alpha 0,2,4,6,8,10 \
    --controls none
  sweep "$concept-controls" "$concept" --episodes 30 --steer "$concept" --layer 0 --alpha 10 \
    --controls full
done
sweep sizes sizes --episodes 20 --steer fast,slow --layer 0 --size 5,10,20,40 --alpha 8 \
  --controls none
sweep ablation ablation --episodes 20 --ablate vlm,expert
sweep prompts prompts --episodes 20 --prompts all
sweep patch patch --episodes 20 --patch push_cube_to_zone

cd ../..
.venv/bin/python -P scripts/steering_card.py

#!/bin/bash
# An image larger than memory, or a folder of images, by an array of jobs of SLURM and a last one that finishes:
#
#   bash slurm_array.sh 16 slide.ome.zarr -o out/
#
# 16 is the number of parts; what follows goes to `biounet segment`. Start the same line again after whatever went wrong:
# what is done is not done again. What your cluster asks for, such as a partition, is in SBATCH_PARTITION, SBATCH_ACCOUNT
# and the other variables that sbatch reads, or below.
set -euo pipefail
parts=$1
shift
ask=(--cpus-per-task=4 --mem=16G --time=02:00:00 --signal=B:USR1@120)

case "${BIOUNET_JOB:-submit}" in
  submit)
    array=$(sbatch --parsable --job-name=biounet --array="1-$parts" "${ask[@]}" --export=ALL,BIOUNET_JOB=part "$0" "$parts" "$@")
    # afterany: a part that was killed is done by the last job
    sbatch --parsable --job-name=biounet-finish --dependency="afterany:${array%%;*}" "${ask[@]}" \
      --export=ALL,BIOUNET_JOB=finish "$0" "$parts" "$@"
    ;;
  part) exec biounet segment "$@" --quiet --shard "$SLURM_ARRAY_TASK_ID/$parts" ;;
  finish) exec biounet segment "$@" --quiet ;;
esac

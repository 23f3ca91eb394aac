"""Commands of Slurm that run jobs on this machine, so that its code runs without a cluster."""

import os
import stat
from pathlib import Path

SBATCH = """#!/bin/bash
# The last argument is the script. A job runs in a process group of its own; the group is its mark.
here={here}; echo "$@" >> $here/calls
if [ -e $here/refuse ]; then echo "sbatch: error: invalid partition specified: gpuu" >&2; exit 1; fi
number=$(( $(cat $here/last 2>/dev/null || echo 100) + 1 )); echo $number > $here/last
script="${{@: -1}}"
SLURM_JOB_ID=$number SLURM_JOBID=$number SLURM_LOCALID=0 SLURM_PROCID=0 SLURM_NODEID=0 \\
SLURM_NTASKS=1 SLURM_JOB_NUM_NODES=1 SLURM_JOB_NODELIST=here \\
    setsid bash "$script" >/dev/null 2>&1 </dev/null &
echo $! > $here/job$number
echo "Submitted batch job $number"
"""
SRUN = """#!/bin/bash
while [ "${{1#-}}" != "$1" ]; do
    case "$1" in --output|--error|--jobid) shift;; esac
    shift
done
exec "$@"
"""
SQUEUE = """#!/bin/bash
for job in {here}/job*; do
    kill -0 -- -$(cat $job) 2>/dev/null && basename $job | tr -d job
done
exit 0
"""
SCANCEL = """#!/bin/bash
kill -TERM -- -$(cat {here}/job$1); sleep 0.5; kill -KILL -- -$(cat {here}/job$1) 2>/dev/null
exit 0
"""


def install(folder: Path, monkeypatch) -> Path:
    """Put the commands first on the path, and return the folder of their notes."""
    for name, text in (("sbatch", SBATCH), ("srun", SRUN), ("squeue", SQUEUE),
                       ("scancel", SCANCEL)):  # fmt: skip
        path = folder / name
        path.write_text(text.format(here=folder))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder

"""Jobs of SLURM: the array that needs no scheduler of its own, and the settings of the jobs that Dask asks for."""

import os
import subprocess

import pytest

from biounet.core import SettingsError
from biounet.large_images import dask_cluster
from biounet.large_images.attempts import ClusterError
from biounet.large_images.dask_cluster import parse_cluster
from biounet.large_images.worker_check import CheckedCall, WorkerNeeds, check_this_worker
from support import ROOT

SCRIPT = ROOT / "pipelines" / "slurm_array.sh"
SBATCH = """#!/bin/bash
echo "$@" >> "$LOG.sbatch"
parts=0
while [[ $1 == --* ]]; do
  case $1 in
    --array=1-*) parts=${1#--array=1-} ;;
    --export=ALL,*) export "${1#--export=ALL,}" ;;
  esac
  shift
done
if ((parts)); then
  for ((task = parts; task > 0; task--)); do SLURM_ARRAY_TASK_ID=$task bash "$@"; done
  echo "17;cluster"
else
  bash "$@"
  echo 18
fi
"""
BIOUNET = """#!/bin/bash
printf '%s|' "$@" >> "$LOG.biounet"
echo >> "$LOG.biounet"
"""
GOOD = 'workers = 8\nmemory = "16GB"\nwalltime = "02:00:00"\n'


def program(path, text):
    path.write_text(text)
    path.chmod(0o755)


def test_an_array_of_jobs_does_each_part_and_the_last_job_finishes(tmp_path):
    program(tmp_path / "sbatch", SBATCH)
    program(tmp_path / "biounet", BIOUNET)
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "LOG": str(tmp_path / "log")}
    command = ["bash", str(SCRIPT), "3", "a slide.ome.zarr", "-o", "out/"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "18\n"
    lines = (tmp_path / "log.biounet").read_text().splitlines()
    common = "segment|a slide.ome.zarr|-o|out/|--quiet|"
    assert lines == [*(f"{common}--shard|{part}/3|" for part in (3, 2, 1)), common]
    array, last = (tmp_path / "log.sbatch").read_text().splitlines()
    assert "--array=1-3 " in array
    assert "--dependency=afterany:17 " in last


def test_the_guide_shows_the_script_that_is_tested():
    assert SCRIPT.read_text() in (ROOT / "docs" / "howto" / "clusters.md").read_text()


@pytest.fixture
def slurm(tmp_path):
    pytest.importorskip("dask_jobqueue")

    def parse(text):
        file = tmp_path / "slurm.toml"
        file.write_text(text)
        return parse_cluster(str(file))

    return parse


def test_the_job_of_a_worker_is_shown_without_a_cluster(slurm, tmp_path):
    cluster = slurm(
        GOOD + 'gpu = true\nqueue = "gpus"\ndirectives = ["--constraint=a100"]\nprologue = ["module load x"]\n'
    )
    script = cluster.job_script()
    for line in ("-p gpus", "--mem=15G", "-t 02:00:00", "--gres=gpu:1", "--constraint=a100", "--cpus-per-task=1"):
        assert f"#SBATCH {line}\n" in script
    assert "\nmodule load x\n" in script
    assert "\nexport NUMBA_NUM_THREADS=1\n" in script
    assert " --nthreads 1 " in script
    assert " --lifetime 6900s --lifetime-stagger 240s" in script
    checked = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True, check=False)
    assert checked.returncode == 0
    assert cluster.workers == 8
    assert "SBATCH -p" not in slurm(GOOD).job_script()
    assert "-n 1\n" not in slurm(GOOD + 'skip_directives = ["-n 1"]\n').job_script()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + 'memroy = "1GB"\n', r"slurm.toml: unknown setting 'memroy' \(hint: did you mean 'memory'\?\)$"),
        (GOOD.replace("8", "0"), r"slurm.toml: workers = 0: "),
        (GOOD.replace("16GB", "much"), r"memory = 'much': expected a size such as '16GB'$"),
        (GOOD.replace("02:00:00", "2h"), r"walltime = '2h': expected hours:minutes:seconds"),
        (GOOD + "gpu = true\nworkers_per_job = 2\n", "gpu: each worker has a job of its own"),
        ("workers = 8\n", "slurm.toml: memory"),
        ("workers = \n", "slurm.toml: not a TOML file"),
    ],
)
def test_what_is_wrong_in_the_file_is_said(slurm, text, message):
    with pytest.raises(SettingsError, match=message) as raised:
        slurm(text)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ["", "locally", "local:", "local:x", "tcp://host", "slurm", "local:0", "http://h:1"])
def test_a_cluster_that_there_is_not(text):
    with pytest.raises(SettingsError, match=r"cluster.*hint:.*local:4"):
        parse_cluster(text)


def test_a_file_that_is_not_there(tmp_path):
    pytest.importorskip("dask_jobqueue")
    with pytest.raises(SettingsError, match=r"slurm.toml: no such file"):
        parse_cluster(str(tmp_path / "slurm.toml"))


def test_without_dask_the_hint_says_what_to_install(monkeypatch):
    monkeypatch.setattr("biounet.core.arguments.find_spec", lambda package: None)
    with pytest.raises(SettingsError, match=r"needs distributed.*pip install 'biounet\[cluster\]'"):
        parse_cluster("local:2")


def test_a_worker_of_another_version_is_named():
    mine = WorkerNeeds.of_this_process()
    assert CheckedCall(abs, mine)(-3) == 3
    for name, version in mine.versions:
        other = WorkerNeeds(tuple((key, "0.0" if key == name else value) for key, value in mine.versions))
        with pytest.raises(ClusterError, match=rf"has {name} {version.replace('+', '.')}, and this process 0.0"):
            check_this_worker(other)


def test_a_folder_that_a_worker_does_not_see_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("biounet.large_images.worker_check._SEEN_WITHIN", 0.0)
    with pytest.raises(ClusterError, match=r"does not see this folder .*disk that all its machines see"):
        check_this_worker(WorkerNeeds.of_this_process(tmp_path / "not-there" / "file"))


def versions(python="3.11.7.final.0", distributed="2026.8.0"):
    return {"packages": {"python": python, "dask": "1", "distributed": distributed, "cloudpickle": "3"}}


@pytest.mark.parametrize(
    ("there", "message"),
    [
        (
            {"scheduler": versions(distributed="2024.1")},
            r"^the scheduler at tcp://h:1 has distributed 2024.1, and this",
        ),
        ({"workers": {"tcp://w:2": versions(python="3.12.1")}}, r"^the worker at tcp://w:2 has Python 3.12, and this"),
    ],
)
def test_a_scheduler_or_worker_of_another_version_is_named(there, message):
    class Client:
        def get_versions(self):
            return {"scheduler": versions(), "workers": {"tcp://w:1": versions()}, "client": versions()} | there

    with pytest.raises(ClusterError, match=message):
        dask_cluster._check_versions(Client(), "tcp://h:1")

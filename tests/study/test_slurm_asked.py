"""What Slurm is asked, word by word, and what is refused before; played by commands that say what the test wants."""

import os
import re
import shlex
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from litsexp.spec.errors import LitsexpError
from litsexp.study.executors import executor_of, slurm, slurm_folder
from litsexp.study.jobs import Outcome
from litsexp.study.places import Places

from .slurm_played import RUN, Slurm, ends, job_of, outcomes


def test_a_job_is_sent_by_a_list_of_words_and_its_folder_goes_when_it_has_ended(
    fake: Slurm, places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLURM_JOB_ID", "99")  # the driver's own
    monkeypatch.setenv("SLURM_CONF", "/etc/mine.conf")
    environment = tmp_path / "environment"
    fake.says("sbatch", f"env > {environment}; {ends(places, Outcome('finished', 0.5))}; echo '7;cluster'")
    assert outcomes(places, [job_of(tmp_path)], options=["partition=gpu", "gres=gpu:1", "exclusive"]) == [
        Outcome("finished", 0.5)
    ]
    folder = places.root / "slurm" / RUN
    given = f"--partition=gpu --gres=gpu:1 --exclusive --no-requeue --ntasks=1 --cpus-per-task=3 --output={folder}/log"
    assert fake.calls("sbatch") == [
        f"sbatch --parsable --job-name=litsexp-{RUN} {given} --chdir={tmp_path} {folder}/job.sh"
    ]
    assert not folder.exists()
    names = [line.partition("=")[0] for line in environment.read_text().splitlines()]
    assert "SLURM_CONF" in names and "SLURM_JOB_ID" not in names


def test_the_script_is_read_by_a_shell_as_it_was_meant() -> None:
    folder = Path("/a b/it's $HOME `x`")
    *_, last = slurm_folder.script([folder]).strip().splitlines()
    module = "litsexp.study.executors.slurm_job"
    assert shlex.split(last) == ["exec", sys.executable, "-P", "-m", module, str(folder)]


def test_a_job_imports_from_the_folders_that_its_driver_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    says, script = tmp_path / "python", tmp_path / "job.sh"
    says.write_text('#!/bin/sh\necho "$PYTHONPATH"\n')
    says.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(says))
    monkeypatch.setattr(slurm_folder, "checkout", lambda: Path("/our checkout"))
    script.write_text(slurm_folder.script([tmp_path]))
    others = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    for given, found in (({}, "/our checkout"), ({"PYTHONPATH": "/my arms:/b"}, "/our checkout:/my arms:/b")):
        done = subprocess.run(["sh", script], env=others | given, capture_output=True, text=True, check=True)
        assert done.stdout == f"{found}\n"


def test_a_task_of_an_array_finds_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    says = tmp_path / "python"
    says.write_text('#!/bin/sh\nfor word; do folder=$word; done; echo "$folder"\n')
    says.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(says))
    folders = [tmp_path / "it's $HOME", tmp_path / "`x`;", *(tmp_path / f"{number}" for number in range(10))]
    script = tmp_path / "job.sh"
    script.write_text(slurm_folder.script(folders))

    def run(index: str) -> tuple[int, str]:
        environ = {**os.environ, "SLURM_ARRAY_TASK_ID": index}
        done = subprocess.run(["sh", script], env=environ, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout

    assert [run(str(index)) for index in range(12)] == [(0, f"{folder}\n") for folder in folders]
    assert run("12")[0] == 1


def test_jobs_that_are_ready_together_go_as_one_array_if_asked(fake: Slurm, places: Places, tmp_path: Path) -> None:
    runs, seen = [f"run{number}" for number in range(4)], tmp_path / "seen"
    here = places.root / "slurm"
    look = f"cat {here}/*/name >> {seen}; ls {here}/.l*/*/job.json >> {seen}"
    ending = "; ".join(f"[ ! -e {here / run} ] || {ends(places, Outcome('finished'), run)}" for run in runs)
    fake.says("sbatch", f"{look}\n{ending}\necho '7;cluster'")
    jobs = [job_of(tmp_path, run_id=run) for run in runs]
    found = executor_of("slurm", 3, 1, ["array", "partition=gpu"], places)(jobs, lambda *_: True)
    assert [job.run_id for job, _ in found] == runs
    together, alone = fake.calls("sbatch")
    name = re.search(r"--job-name=(litsexp-array-[0-9a-f]{32}) ", together)[1]
    assert f"--output={here}/.{name}/%a/log " in together
    assert together.endswith(f" --array=0-2 {here}/run0/job.sh") and " --partition=gpu " in together
    assert "--job-name=litsexp-run3 " in alone and "--array" not in alone
    assert seen.read_text().splitlines()[:6] == [
        *(f"{name} {index}" for index in range(3)),  # before sbatch was asked
        *(f"{here}/.{name}/{index}/job.json" for index in range(3)),
    ]
    assert list(here.iterdir()) == []


def test_a_task_is_known_by_its_number_and_cancelled_alone(fake: Slurm, places: Places, tmp_path: Path) -> None:
    """One has died; Ctrl-C ends the other two, and no job of anybody else's."""
    gone, here = tmp_path / "gone", places.root / "slurm"
    fake.says(
        "sbatch",
        f"name=$(sed -n 's/ 0$//p' {here}/run0/name); echo \"echo '7_0|$name|RUNNING|None'\" > {tmp_path}/q\n"
        f"echo \"echo '7_2|$name|PENDING|Resources'\" >> {tmp_path}/q; echo 7",
    )
    fake.says("squeue", f"echo '9_0|litsexp-array-x|RUNNING|None'; [ -e {gone} ] || . {tmp_path}/q")
    fake.says("scontrol", "echo 'JobId=8 ArrayJobId=7 ArrayTaskId=1 JobState=FAILED Reason=x ExitCode=0:9 NodeList=n'")
    fake.says("scancel", f"touch {gone}")
    jobs = [job_of(tmp_path, run_id=f"run{number}") for number in range(3)]
    with closing(executor_of("slurm", 3, 1, ["array"], places)(jobs, lambda *_: True)) as ended:
        job, outcome = next(ended)
        assert job.run_id == "run1"
        assert outcome.reason.startswith("Slurm job 7_1 ended as FAILED (Reason=x, ExitCode=0:9) on node n")
        assert slurm.left_over(places.root) != [] and not (here / "run1").exists()
    assert all(" --array " in call for call in fake.calls("squeue"))  # else what waits is one row
    assert set(fake.calls("scontrol")) == {"scontrol --oneliner show job 7_1"}
    assert fake.calls("scancel") == ["scancel --quiet 7_0 7_2"]
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("option", ["array=5", "array=0-3%2", "array=", "arr"])
def test_an_array_is_litsexps_own_to_make(fake: Slurm, places: Places, option: str) -> None:
    with pytest.raises(LitsexpError, match=r"which litsexp sets itself; expected array, without a value$"):
        executor_of("slurm", 1, 1, [option], places)


@pytest.mark.parametrize(
    "option", ["job-name=x", "jo=x", "output", "requeue", "wrap=ls", "chdir=/", "array=1-3", "outp=a"]
)
def test_options_that_litsexp_sets_are_refused_also_by_their_beginnings(
    fake: Slurm, places: Places, option: str
) -> None:
    with pytest.raises(LitsexpError, match=rf"--executor-option {option}: found .*which litsexp sets itself"):
        executor_of("slurm", 1, 1, [option], places)


def test_other_options_are_refused_in_one_line(fake: Slurm, places: Places) -> None:
    for option in ("p=gpu", "--partition=gpu", "=x", "", "a b=c"):
        with pytest.raises(LitsexpError, match="expected KEY=VALUE with a long option of sbatch"):
            executor_of("slurm", 1, 1, [option], places)
    with pytest.raises(LitsexpError, match=r"cpus-per-task.*--threads sets it"):
        executor_of("slurm", 1, 1, ["cpus-per-task=3"], places)
    with pytest.raises(LitsexpError, match="partition=gpu: processes has none; expected --executor slurm"):
        executor_of("processes", 2, 1, ["partition=gpu"], places)
    with pytest.raises(LitsexpError, match="executor slurm: a rehearsal runs on this machine"):
        executor_of("slurm", 2, 1)


def test_without_slurm_it_is_said_before_anything_is_written(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(LitsexpError, match=r"sbatch, squeue, .* not found on the PATH"):
        executor_of("slurm", 1, 1, (), places)
    assert not places.root.exists()


@pytest.mark.parametrize(
    ("uri", "nodes", "refusal"),
    [
        ("http://head:5000", "a01 a02", ""),
        ("sqlite:////x/mlflow.db", "localhost localhost", ""),
        ("http://127.0.0.1:5000", "localhost", ""),
        ("sqlite:////x/mlflow.db", "localhost a02", "found SQLite, for one host alone, and the node a02"),
        ("http://127.0.0.1:5000", "a01", "found 127.0.0.1, which is another host on every node, and the node a01"),
        ("http://localhost:5000", "a01", "found localhost, which is another"),
        ("postgresql://me:secret@db/mlflow", "localhost", "found postgresql, with --executor slurm"),
    ],
)
def test_a_tracking_uri_that_nodes_cannot_share_is_refused(
    fake: Slurm, places: Places, uri: str, nodes: str, refusal: str
) -> None:
    fake.says("sinfo", f"echo {nodes}")
    asked = replace(places, tracking_uri=uri)
    if not refusal:
        assert executor_of("slurm", 1, 1, (), asked)
        return
    with pytest.raises(LitsexpError, match=f"--tracking-uri: {refusal}.*start `mlflow server`") as caught:
        executor_of("slurm", 1, 1, (), asked)
    assert "secret" not in str(caught.value)


def test_only_the_nodes_of_the_partition_count(fake: Slurm, places: Places) -> None:
    fake.says("sinfo", 'case "$*" in *--partition=mine*) echo localhost;; *) echo far;; esac')
    assert executor_of("slurm", 1, 1, ["partition=mine"], places)
    assert executor_of("slurm", 1, 1, ["partition=other", "partition=mine"], places)  # as sbatch: the last one counts


def test_a_folder_that_cannot_be_written_is_one_line(fake: Slurm, places: Places, tmp_path: Path) -> None:
    places.root.write_text("a file")
    with pytest.raises(LitsexpError, match=r"mlruns/slurm/.*: cannot be written \(Not a directory\)"):
        outcomes(places, [job_of(tmp_path)])
    assert fake.calls("sbatch") == []


def test_rows_of_a_script_are_refused_before_anything_is_sent(fake: Slurm, places: Places, tmp_path: Path) -> None:
    with pytest.raises(LitsexpError, match="put them into a module and import it"):
        outcomes(places, [job_of(tmp_path, modules=("__main__",))])
    assert fake.calls("sbatch") == []

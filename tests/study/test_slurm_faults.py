"""What Slurm refuses, forgets or does not answer, played by commands that say what the test wants."""

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from litsexp.data.splits import Split
from litsexp.data.store import Store
from litsexp.spec.design import cells
from litsexp.spec.errors import LitsexpError
from litsexp.spec.study import StudyConfig
from litsexp.study.executors import executor_of, slurm, slurm_commands, slurm_folder, slurm_job
from litsexp.study.executors.elsewhere import with_stores
from litsexp.study.executors.slurm_commands import COMMANDS
from litsexp.study.jobs import Job, Outcome, outcome_from_json, outcome_to_json
from litsexp.study.places import Places

RUN = "0123456789abcdef"


class Slurm:
    """Commands of Slurm on the PATH, each a line of shell; what they were asked is written down."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.folder.mkdir()
        self.asked = self.folder / "asked"
        self.asked.touch()
        for name, body in dict.fromkeys(COMMANDS, ":").items():
            self.says(name, body)
        self.says("sbatch", "echo 7")
        self.says("sinfo", "echo localhost")

    def says(self, name: str, body: str) -> None:
        command = self.folder / name
        command.write_text(f'#!/bin/sh\necho "{name} $*" >> {shlex.quote(str(self.asked))}\n{body}\n')
        command.chmod(0o755)

    def lists(self, *rows: str) -> None:
        """``squeue`` shows these: number|name|state|reason."""
        self.says("squeue", "\n".join(f"echo '{row}'" for row in rows) or ":")

    def calls(self, name: str) -> list[str]:
        return [line for line in self.asked.read_text().splitlines() if line.split()[0] == name]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Slurm:
    made = Slurm(tmp_path / "commands")
    monkeypatch.setenv("PATH", f"{made.folder}:{os.environ['PATH']}")
    for module, name in [(slurm, "POLL_S"), (slurm, "GONE_S"), (slurm_commands, "RETRY_S")]:
        monkeypatch.setattr(module, name, 0.02)
    monkeypatch.setattr(slurm_commands, "END_S", 1.5)
    return made


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places.below(tmp_path / "mlruns")


def job_of(folder: Path, **changes: Any) -> Job:
    cell = cells(StudyConfig(question="?"))[0]
    asked = Job(cell, "key", RUN, f"sqlite:///{folder}/none.db", Split((0,), (1,), (2,)), folder, (), folder)
    return replace(asked, **changes)


def outcomes(
    places: Places, jobs: Iterable[Job], on_epoch: Callable[..., bool] = lambda *_: True, options: Any = ()
) -> list[Outcome]:
    return [outcome for _, outcome in executor_of("slurm", 2, 3, options, places)(jobs, on_epoch)]


def ends(places: Places, outcome: Outcome, run_id: str = RUN) -> str:
    """Shell: the job ends, and so."""
    file = places.root / "slurm" / run_id / "outcome.json"
    return f"{{ echo {shlex.quote(outcome_to_json(outcome))} > {file}.part; mv {file}.part {file}; }}"


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
    name = re.search(r"--job-name=(litsexp-array-[0-9a-f]{32}) ", together)[1]  # type: ignore[index]
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


def test_an_array_that_arrived_though_sbatch_heard_no_answer_is_not_sent_again(
    fake: Slurm, places: Places, tmp_path: Path
) -> None:
    here = places.root / "slurm"
    row = f"echo \"echo '8_1|$(sed 's/ 1$//' {here}/run1/name)|RUNNING|None'\" > {tmp_path}/queue"
    fake.says("sbatch", f"{row}; {ends(places, Outcome('finished'), 'run1')}; echo 'Socket timed out' >&2; exit 1")
    fake.says("squeue", f". {tmp_path}/queue")
    fake.says("scontrol", "echo 'Job 8_0 not found'; exit 1")
    found = executor_of("slurm", 2, 1, ["array"], places)(
        [job_of(tmp_path, run_id=f"run{number}") for number in range(2)], lambda *_: True
    )
    reasons = {job.run_id: outcome.reason for job, outcome in found}
    gone = "Slurm job 8_0 ended as no longer known (Job 8_0 not found); cancelled before it began?"
    assert reasons == {"run1": "", "run0": gone}
    assert len(fake.calls("sbatch")) == 1


def test_of_a_killed_drivers_array_each_run_ends_its_own_task(fake: Slurm, places: Places, tmp_path: Path) -> None:
    here, gone = places.root / "slurm", tmp_path / "gone"
    for index in range(2):
        slurm_folder.write(here / f"run{index}", "{}", slurm_commands.Name("litsexp-array-a", index))
    assert sorted(slurm.left_over(places.root)) == ["run0", "run1"]
    other = "echo '7_0|litsexp-array-a|RUNNING|None'; echo '9_1|litsexp-array-b|RUNNING|None'"
    fake.says("squeue", f"{other}; [ -e {gone} ] || echo '7_1|litsexp-array-a|PENDING|Priority'")
    fake.says("scancel", f"touch {gone}")
    slurm.end_left(["run1"], places.root)
    assert fake.calls("scancel") == ["scancel --quiet 7_1"]
    assert slurm.left_over(places.root) == ["run0"]
    assert (here / ".litsexp-array-a" / "0" / "job.json").exists()
    fake.lists()
    slurm.end_left(["run0"], places.root)
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


def test_what_sbatch_refuses_ends_in_its_own_words_and_leaves_nothing(
    fake: Slurm, places: Places, tmp_path: Path
) -> None:
    fake.says("sbatch", "echo 'sbatch: error: invalid partition specified: gpux' >&2; exit 1")
    with pytest.raises(LitsexpError, match="sbatch refuses a job: sbatch: error: invalid partition specified: gpux"):
        outcomes(places, [job_of(tmp_path)])
    assert len(fake.calls("sbatch")) == 1
    assert not (places.root / "slurm" / RUN).exists()


def test_an_array_that_is_too_long_for_slurm_leaves_nothing(fake: Slurm, places: Places, tmp_path: Path) -> None:
    fake.says(
        "sbatch", "echo 'sbatch: error: Batch job submission failed: Invalid job array specification' >&2; exit 1"
    )
    jobs = [job_of(tmp_path, run_id=f"run{number}") for number in range(2)]
    with pytest.raises(LitsexpError, match=r"Invalid job array specification; try fewer --workers, or without array$"):
        outcomes(places, jobs, options=["array"])
    assert list((places.root / "slurm").iterdir()) == []


def test_a_job_that_arrived_though_sbatch_heard_no_answer_is_not_sent_again(
    fake: Slurm, places: Places, tmp_path: Path
) -> None:
    fake.says("sbatch", f"{ends(places, Outcome('finished'))}; echo 'Socket timed out' >&2; exit 1")
    fake.lists(f"8|litsexp-{RUN}|RUNNING|None")
    assert [outcome.status for outcome in outcomes(places, [job_of(tmp_path)])] == ["finished"]
    assert len(fake.calls("sbatch")) == 1


def test_a_controller_that_is_away_is_waited_for(
    fake: Slurm, places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flag = tmp_path / "tried"
    away = f"[ -e {flag} ] || {{ touch {flag}; echo 'Unable to contact slurm controller' >&2; exit 1; }}"
    fake.says("sbatch", f"{away}\n{ends(places, Outcome('finished'))}; echo 7")
    assert [outcome.status for outcome in outcomes(places, [job_of(tmp_path)])] == ["finished"]
    assert len(fake.calls("sbatch")) == 2
    flag.unlink()
    fake.says("squeue", "echo 'Unable to contact slurm controller' >&2; exit 1")
    monkeypatch.setattr(slurm_commands, "AWAY_S", 0.1)
    with pytest.raises(LitsexpError, match=r"no answer for .* s: Unable to contact slurm controller; is slurmctld up"):
        outcomes(places, [job_of(tmp_path, run_id="other")])


def test_a_squeue_that_fails_buries_nobody(fake: Slurm, places: Places, tmp_path: Path) -> None:
    """The queue answers nothing for a while; the job ends well meanwhile."""
    count = tmp_path / "count"
    ending = ends(places, Outcome("finished", 0.25))
    fake.says("squeue", f"echo x >> {count}; [ $(wc -l < {count}) -lt 8 ] || {ending}; exit 1")
    assert [outcome.value for outcome in outcomes(places, [job_of(tmp_path)])] == [0.25]
    assert len(fake.calls("squeue")) >= 8
    assert fake.calls("scontrol") == []


@pytest.mark.parametrize(
    ("shown", "advice"),
    [
        ("JobState=TIMEOUT Reason=TimeLimit ExitCode=0:15 NodeList=a07", "--executor-option time="),
        ("JobState=OUT_OF_MEMORY Reason=OutOfMemory ExitCode=0:125 NodeList=a07", "--executor-option mem="),
        ("JobState=NODE_FAIL Reason=NodeDown ExitCode=1:0 NodeList=a07", ""),
        ("JobState=FAILED Reason=NonZeroExitCode ExitCode=0:9 NodeList=a07", "out of memory?"),
    ],
)
def test_a_job_that_is_gone_is_dead_and_slurm_says_why(
    fake: Slurm, places: Places, tmp_path: Path, shown: str, advice: str
) -> None:
    log = places.root / "slurm" / RUN / "log"
    fake.says("sbatch", f"printf 'one\\nthe last [line]\\n\\n' > {log}; echo 7")
    fake.says("scontrol", f"echo 'JobId=7 JobName=x {shown} Command=/x y=z'")
    (outcome,) = outcomes(places, [job_of(tmp_path)])
    state, reason, code, _ = (part.partition("=")[2] for part in shown.split())
    assert outcome.reason.startswith(f"Slurm job 7 ended as {state} (Reason={reason}, ExitCode={code}) on node a07")
    assert advice in outcome.reason
    assert outcome.reason.endswith('; it said last "the last [line]"')
    assert outcome.detail.startswith("one\n")
    assert outcome.died and outcome.status == "failed"
    assert not log.parent.exists()


def test_one_that_slurm_has_forgotten_is_dead_too(fake: Slurm, places: Places, tmp_path: Path) -> None:
    fake.says("scontrol", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    (outcome,) = outcomes(places, [job_of(tmp_path)])
    assert outcome.reason == ("Slurm job 7 ended as no longer known (slurm_load_jobs error: Invalid job id specified)")


def test_the_outcome_of_one_that_ended_well_may_be_late(fake: Slurm, places: Places, tmp_path: Path) -> None:
    count, ending = tmp_path / "count", ends(places, Outcome("finished"))
    done = "echo 'JobState=COMPLETED Reason=None ExitCode=0:0 NodeList=n'"
    fake.says("scontrol", f"echo x >> {count}; [ $(wc -l < {count}) -lt 4 ] || {ending}; {done}")
    assert [outcome.status for outcome in outcomes(places, [job_of(tmp_path)])] == ["finished"]


def test_an_outcome_that_cannot_be_read_is_none(fake: Slurm, places: Places, tmp_path: Path) -> None:
    fake.says("sbatch", f"echo '{{\"status\": 1}}' > {places.root / 'slurm' / RUN / 'outcome.json'}; echo 7")
    (outcome,) = outcomes(places, [job_of(tmp_path)])
    assert outcome.died and outcome.reason.startswith("Slurm job 7 left an outcome.json that cannot be read (Valid")


def test_epochs_are_heard_whole_and_a_run_that_is_given_up_is_told(fake: Slurm, places: Places, tmp_path: Path) -> None:
    folder, count = places.root / "slurm" / RUN, tmp_path / "count"
    undefined = '[1, {"valid/score": NaN}]'
    fake.says("sbatch", f"printf '%s' '[0, {{\"valid/score\": 0.5}}]\n[1, {{\"val' > {folder}/epochs.jsonl; echo 7")
    ending = f"printf '%s\\n' 'id/score\": NaN}}]' >> {folder}/epochs.jsonl; {ends(places, Outcome('pruned', 0.5))}"
    late = f"[ $(wc -l < {count}) -lt 4 ] || [ -e {folder}/outcome.json ]"
    wait = f"echo x >> {count}; {late} || {{ {ending}; }}"
    fake.says("squeue", f"{wait}\necho '7|litsexp-{RUN}|RUNNING|None'")
    heard: list[str] = []
    told: list[bool] = []

    def on_epoch(job: Job, epoch: int, metrics: dict[str, float]) -> bool:
        heard.append(json.dumps([epoch, metrics]))
        told.append((folder / "stop").exists())
        return epoch != 0

    (outcome,) = outcomes(places, [job_of(tmp_path)], on_epoch)
    assert heard == ['[0, {"valid/score": 0.5}]', undefined]
    assert told == [False, True]
    assert outcome == Outcome("pruned", 0.5)


def test_what_still_runs_is_cancelled_when_the_driver_stops_listening(
    fake: Slurm, places: Places, tmp_path: Path
) -> None:
    gone = tmp_path / "gone"
    fake.says("squeue", f"[ -e {gone} ] || echo '7|litsexp-{RUN}|PENDING|Resources'")
    fake.says("scancel", f"touch {gone}")

    def interrupted() -> Any:
        yield job_of(tmp_path)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        outcomes(places, interrupted())
    assert fake.calls("scancel") == ["scancel --quiet 7"]
    assert not (places.root / "slurm" / RUN).exists()


def test_a_queue_that_does_not_move_is_told_once(
    fake: Slurm, places: Places, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    count, ending = tmp_path / "count", ends(places, Outcome("finished"))
    row = f"echo '7|litsexp-{RUN}|PENDING|PartitionTimeLimit'"
    fake.says("squeue", f"{row}; echo x >> {count}; [ $(wc -l < {count}) -lt 5 ] || {ending}")
    outcomes(places, [job_of(tmp_path)])
    assert [record.message for record in caplog.records] == ["Slurm job 7 waits: PartitionTimeLimit"]


def test_jobs_of_a_killed_driver_are_ended_or_nothing_goes_on(fake: Slurm, places: Places, tmp_path: Path) -> None:
    assert slurm.left_over(places.root) == []
    slurm.end_left([], places.root)
    assert fake.asked.read_text() == ""
    folder = places.root / "slurm" / RUN
    folder.mkdir(parents=True)
    assert slurm.left_over(places.root) == [RUN]
    fake.says("squeue", "echo 'Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(
        LitsexpError, match="1 jobs of a killed driver, and Slurm does not say that they have ended: Un"
    ):
        slurm.end_left([RUN], places.root)
    fake.lists(f"7|litsexp-{RUN}|RUNNING|None")  # it does not end
    with pytest.raises(LitsexpError, match="still end after"):
        slurm.end_left([RUN], places.root)
    assert folder.exists()
    gone = tmp_path / "gone"
    fake.says("squeue", f"echo '3|litsexp-other|RUNNING|None'; [ -e {gone} ] || echo '7|litsexp-{RUN}|RUNNING|None'")
    fake.says("scancel", f"touch {gone}")
    fake.asked.write_text("")
    slurm.end_left([RUN], places.root)
    assert fake.calls("scancel") == ["scancel --quiet 7"]
    assert not folder.exists()


def test_a_folder_that_cannot_be_written_is_one_line(fake: Slurm, places: Places, tmp_path: Path) -> None:
    places.root.write_text("a file")
    with pytest.raises(LitsexpError, match=r"mlruns/slurm/.*: cannot be written \(Not a directory\)"):
        outcomes(places, [job_of(tmp_path)])
    assert fake.calls("sbatch") == []


def test_rows_of_a_script_are_refused_before_anything_is_sent(fake: Slurm, places: Places, tmp_path: Path) -> None:
    with pytest.raises(LitsexpError, match="put them into a module and import it"):
        outcomes(places, [job_of(tmp_path, modules=("__main__",))])
    assert fake.calls("sbatch") == []


def write(folder: Path, job: Job, litsexp: str) -> Path:
    from litsexp.study.jobs import job_to_json

    folder.mkdir()
    (folder / "job.json").write_text(
        json.dumps({"litsexp": litsexp, "threads": 1, "job": json.loads(job_to_json(job))})
    )
    return folder


def test_a_worker_of_another_version_fails_and_names_both(tmp_path: Path) -> None:
    slurm_job.main(write(tmp_path / "job", job_of(tmp_path), "9.9"))
    outcome = outcome_from_json((tmp_path / "job" / "outcome.json").read_text())
    assert outcome.status == "failed" and not outcome.died
    assert f"found litsexp {version('litsexp')} at" in outcome.reason and "the driver's, 9.9" in outcome.reason


def test_a_second_worker_of_a_job_ends_at_once(tmp_path: Path) -> None:
    folder = write(tmp_path / "job", job_of(tmp_path), "9.9")
    slurm_job.main(folder)
    (folder / "outcome.json").unlink()
    with pytest.raises(SystemExit, match="another worker has this job"):
        slurm_job.main(folder)
    assert not (folder / "outcome.json").exists()
    with pytest.raises(SystemExit, match="expected a folder that every node sees"):
        slurm_job.main(tmp_path / "elsewhere")


def test_a_worker_trains_and_says_where(
    job: Callable[..., Job], tracking: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"JOB_ID": "9", "ARRAY_JOB_ID": "7", "ARRAY_TASK_ID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    asked = job()
    folder = write(tmp_path / "job", asked, version("litsexp"))
    slurm_job.main(folder)
    outcome = outcome_from_json((folder / "outcome.json").read_text())
    assert outcome.status == "finished", outcome
    epochs = [json.loads(line) for line in (folder / "epochs.jsonl").read_text().splitlines()]
    assert [number for number, _ in epochs] == [0, 1]
    assert max(metrics["valid/score"] for _, metrics in epochs) == outcome.value
    run = tracking.client.get_run(asked.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["host"] and run.data.tags["version.torch"]
    assert run.data.tags["slurm_job"] == "7_0"


def test_a_worker_stops_when_it_is_told(job: Callable[..., Job], tmp_path: Path) -> None:
    folder = write(tmp_path / "job", job(), version("litsexp"))
    (folder / "stop").touch()
    slurm_job.main(folder)
    assert outcome_from_json((folder / "outcome.json").read_text()).status == "pruned"
    assert len((folder / "epochs.jsonl").read_text().splitlines()) == 1


def test_a_worker_whose_run_was_given_up_trains_nothing(job: Callable[..., Job], tracking: Any, tmp_path: Path) -> None:
    asked = job()
    tracking.end(asked.run_id, "KILLED", "the driver was interrupted")
    folder = write(tmp_path / "job", asked, version("litsexp"))
    slurm_job.main(folder)
    assert "is KILLED; expected RUNNING" in outcome_from_json((folder / "outcome.json").read_text()).reason
    assert not (folder / "epochs.jsonl").exists()


@pytest.mark.parametrize(("ahead_s", "words"), [(3600, "60 min ahead of"), (-3600, "60 min behind")])
def test_a_worker_whose_clock_is_far_off_trains_nothing(
    job: Callable[..., Job], answering: Callable[..., str], tmp_path: Path, ahead_s: float, words: str
) -> None:
    asked = replace(job(), tracking_uri=answering({"/version": (200, "3.17.0", ahead_s)}))
    folder = write(tmp_path / "job", asked, version("litsexp"))
    slurm_job.main(folder)
    outcome = outcome_from_json((folder / "outcome.json").read_text())
    assert outcome.status == "failed"
    assert f"found its clock {words} that of host {socket.gethostname()}; expected them within 10 min" in outcome.reason
    assert not (folder / "epochs.jsonl").exists()


def test_a_worker_checks_its_stores_before_it_trains(
    job: Callable[..., Job], phantom_store: Store, external_store: Store, tmp_path: Path
) -> None:
    mine = replace(job(), fingerprint=phantom_store.fingerprint)
    assert with_stores(mine) == mine
    found = f"found the store {phantom_store.fingerprint} on host .*; expected the driver's, 123"
    with pytest.raises(LitsexpError, match=found):
        with_stores(replace(mine, fingerprint="123", scorings=()))
    with pytest.raises(LitsexpError, match=found):
        with_stores(replace(mine, scorings=(replace(mine.scorings[0], fingerprint="123"),)))
    with pytest.raises(LitsexpError, match=r"gone: not found on host .*every node sees"):
        with_stores(replace(mine, store=tmp_path / "gone"))
    with_stores(replace(mine, store=tmp_path / "gone", trained=True))  # it is only scored
    start_s = time.monotonic()
    with_stores(mine)
    assert time.monotonic() - start_s < 5

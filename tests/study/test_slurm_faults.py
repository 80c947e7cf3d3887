"""What Slurm refuses, forgets or does not answer, played by commands that say what the test wants."""

import json
from pathlib import Path
from typing import Any

import pytest

from litsexp.spec.errors import LitsexpError
from litsexp.study.executors import executor_of, slurm, slurm_commands, slurm_folder
from litsexp.study.jobs import Job, Outcome
from litsexp.study.places import Places

from .slurm_played import RUN, Slurm, ends, job_of, outcomes


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

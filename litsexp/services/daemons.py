"""A server that outlives the command that started it: found again by a pid file, and never mistaken for another."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from litsexp.interrupts import unbroken
from litsexp.spec.errors import LitsexpError

HOST = "127.0.0.1"
START_S = 120.0  # until a server that does not answer counts as one that does not start
STOP_S = 30.0  # until one that was asked to end is killed
TICK_S = 0.1


@dataclass(frozen=True)
class Daemon:
    """One server of a folder."""

    name: str  # for people
    folder: Path  # all of its files are below
    key: str  # its files' stem
    mark: str  # what the command of its first process holds, and no other folder's
    kin: str  # what the commands of its other processes hold
    polite: signal.Signals  # how it is asked to end
    whole: bool = True  # whether all of its processes are asked, or the first one, which ends the others

    @property
    def log(self) -> Path:
        """What it prints."""
        return self.folder / f"{self.key}.log"

    @property
    def pid_file(self) -> Path:
        """The number of its first process, which is its group's."""
        return self.folder / f"{self.key}.pid"

    def pid(self) -> int | None:
        """Its process group, if any of it runs; a stale file, and a stranger with the same number, are None."""
        try:
            number = int(self.pid_file.read_text())
        except (OSError, ValueError):
            return None
        members = group(number)
        first = members.get(number)
        ours = self.mark in first if first is not None else any(self.kin in command for command in members.values())
        return number if ours else None

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start it in a session of its own: no Ctrl-C of this terminal reaches it. LitsexpError: it cannot be run."""
        try:
            self._begin(command, environment)
        except OSError as error:
            raise LitsexpError(f"{self.name} cannot be started ({error}); see that this user may run it") from None

    def _begin(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        with self.log.open("ab") as log, unbroken():
            process = subprocess.Popen(  # noqa: S603  # no shell; our own words
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(environment),
                cwd=self.folder,
                start_new_session=True,
                umask=0o077,  # what it writes is ours alone
            )
            self.pid_file.write_text(f"{process.pid}\n")

    def wait_until(self, answers: Callable[[], bool]) -> None:
        """LitsexpError with the last line of its log, where it ends before it answers, or never answers."""
        end_s = time.monotonic() + START_S
        while time.monotonic() < end_s:
            if answers():
                return
            if self.pid() is None:
                break
            time.sleep(TICK_S)
        raise LitsexpError(f"{self.name} does not start ({self._last_words()}); see {self.log}")

    def stop(self) -> bool:
        """End it and all of its processes; whether it ran. The pid file is gone then."""
        number = self.pid()
        if number is not None:
            for one, patience_s in ((self.polite, STOP_S), (signal.SIGKILL, STOP_S)):
                with suppress(ProcessLookupError):
                    (os.killpg if self.whole or one == signal.SIGKILL else os.kill)(number, one)
                if _ended(number, patience_s):
                    break
        self.pid_file.unlink(missing_ok=True)
        return number is not None

    def _last_words(self) -> str:
        with suppress(OSError):
            lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
            if lines:
                return lines[-1][:300]
        return "it says nothing"


def group(number: int) -> dict[int, str]:
    """The processes of a group that have not ended: pid -> command."""
    found = _of_proc() if Path("/proc/self/stat").is_file() else _of_ps()
    return {pid: command for pid, of, state, command in found if of == number and not state.startswith("Z")}


def _ended(number: int, patience_s: float) -> bool:
    end_s = time.monotonic() + patience_s
    while group(number):
        if time.monotonic() > end_s:
            return False
        time.sleep(TICK_S)
    return True


def _of_proc() -> list[tuple[int, int, str, str]]:
    """Every process: pid, group, state, command."""
    found = []
    for place in Path("/proc").iterdir():
        if place.name.isdecimal():
            with suppress(OSError, ValueError, IndexError):
                state, _, of = (place / "stat").read_text().rpartition(")")[2].split()[:3]
                command = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found.append((int(place.name), int(of), state, command))
    return found


def _of_ps() -> list[tuple[int, int, str, str]]:
    listed = subprocess.run(
        ["/bin/ps", "-A", "-ww", "-o", "pid=,pgid=,stat=,command="], capture_output=True, text=True, check=True
    ).stdout
    rows = [line.split(None, 3) for line in listed.splitlines()]
    return [(int(pid), int(of), state, rest[0] if rest else "") for pid, of, state, *rest in rows]

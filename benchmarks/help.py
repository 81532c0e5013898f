"""How long `dfxrm ... --help` takes over starting Python itself: each subcommand, the fastest of ten, alternating."""

import subprocess
import sys
import time

ROUNDS = 10
COMMANDS = [
    "",
    "configs",
    "demo",
    "demo annealing",
    "domains",
    "dry-run mosaicity",
    "handoff",
    "maps",
    "nye",
    "recover",
    "run align",
    "run mosaicity",
    "series",
    "shell",
]


def seconds(arguments: list[str]) -> float:
    """Return the wall time of a Python process."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, *arguments], capture_output=True, timeout=60, check=True)
    return time.perf_counter() - begin


def main() -> None:
    bare: list[float] = []
    found: dict[str, list[float]] = {command: [] for command in COMMANDS}
    for _ in range(ROUNDS):
        bare.append(seconds(["-c", "pass"]))
        for command, times in found.items():
            times.append(seconds(["-c", "from dfxrm_control.cli import main; main()", *command.split(), "--help"]))
    print(f"bare Python {min(bare):.3f} s")
    for command, times in found.items():
        over = min(times) - min(bare)
        print(f"dfxrm {command} --help: {over:.3f} s over bare Python (wanted: at most 0.3 s)")


if __name__ == "__main__":
    main()

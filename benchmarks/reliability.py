"""Long campaigns of what can go wrong, at random: kills, damaged files, command lines.

    python benchmarks/reliability.py
    python benchmarks/reliability.py --share 0.02 --output some.csv  # a short try

It fails at the first thing that is not as it should be. The counts go to
results/reliability.csv, and from there into the table of docs/reliability.md.
"""

import argparse
import contextlib
import csv
import io
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import faulty  # noqa: F401  registers Faulty-v0
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

SCRIPTS = ["reinforce", "vpg_baseline", "actor_critic", "ppo_kl", "ppo_clip"]
WHOLE = SCRIPTS[:2]  # these have no --rollout-steps
RESULTS = ROOT / "benchmarks" / "results" / "reliability.csv"
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- reliability: begin -->\n", "<!-- reliability: end -->"


def flags(script, run, steps, env="Faulty-v0", **env_kwargs):
    argv = f"--num-envs 3 --checkpoint-every 1 --eval-episodes 1 --env {env} "
    argv += f"--total-steps {steps} --hidden-sizes 8 --run-dir {run}"
    rollout = [] if script in WHOLE else ["--rollout-steps", "20"]
    return [*argv.split(), *rollout, "--env-kwargs", json.dumps(env_kwargs)]


def start(script, argv):
    """A script's process in a group of its own, as a terminal starts it."""
    command = [sys.executable, str(ROOT / f"{script}.py"), *argv]
    path = str(ROOT / "tests")
    env = {**os.environ, "PYTHONPATH": path, "PYTHONWARNINGS": "ignore"}
    options = {"env": env, "start_new_session": True, "text": True}
    options["preexec_fn"] = hear_ctrl_c
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, **options)


def hear_ctrl_c():
    """Also where this program was started in the background of a shell script."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def end_at_random(process, run, after, rng, number):
    """A signal a moment after a checkpoint of more than `after` steps; what it says."""
    deadline = time.monotonic() + 120
    try:
        while not (run / "checkpoint.pt").exists() or load(run)["steps"] <= after:
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 0.5))
        os.killpg(process.pid, number)
        return process.communicate(timeout=30)
    finally:
        process.kill()


def load(run):
    return torch.load(run / "checkpoint.pt", weights_only=True)


def kills(script, n, rng, folder):
    """SIGKILL: the checkpoint loads, and at most an iteration of the log is lost."""
    run = folder / "killed"
    argv = flags(script, run, 1e7, "faulty:Faulty-v0", fault="slow=0.002")
    steps = 0
    for _ in range(n):
        end_at_random(start(script, argv), run, steps, rng, signal.SIGKILL)
        steps = load(run)["steps"]
        events = EventAccumulator(str(run), {"scalars": 0}).Reload()
        logged = [event.step for event in events.Scalars("train/kl")]
        assert steps in logged and sum(step > steps for step in logged) <= 1
        argv = ["--resume", str(run)]
        yield "the run goes on from its last iteration"


def interrupts(script, n, rng, folder):
    """Ctrl-C: the process saves, says how to go on, and dies of it, without a trace."""
    for k in range(n):
        mode, run = ["sync", "async"][k % 2], folder / f"interrupted{k}"
        argv = flags(script, run, 1e7, "faulty:Faulty-v0", fault="slow=0.005")
        process = start(script, [*argv, "--vectorization", mode])
        out, err = end_at_random(process, run, 0, rng, signal.SIGINT)
        assert process.returncode == -signal.SIGINT and "Traceback" not in err, err
        assert "--resume" in out and load(run)["steps"] > 0
        yield f"saved, and ended ({mode})"


def damaged_files(script, n, rng, folder):
    """One bit flipped, or the end cut off: nothing but UsageError may come of it."""
    module = import_module(script)
    with contextlib.redirect_stderr(io.StringIO()):  # the progress bar
        module.train(module.parse_args(flags(script, folder / "saved", 200)))
    contents = (folder / "saved" / "checkpoint.pt").read_bytes()
    path, expected = folder / "damaged.pt", repr(load(folder / "saved"))
    for k in range(n):
        damaged, place = bytearray(contents), rng.randrange(len(contents))
        damaged[place] ^= 1 << rng.randrange(8)
        path.write_bytes(contents[:place] if k % 4 == 0 else damaged)
        what = "cut off" if k % 4 == 0 else "a bit flipped"
        try:
            same = repr(module.load_checkpoint(path)) == expected
            assert k % 4 > 0
            yield f"{what}: loads " + ("as it was" if same else "with another number")
        except module.UsageError as error:
            assert str(path) in str(error)
            yield f"{what}: refused"


NONSENSE = ["", "x", "-1", "nan", "1e999", "0x1", "1,5", "None", "é", "[1]", "{"]
FAULTS = ["none", "reward=1e30", "reward=1e-300", "observation=1e30", "constant"]
FAULTS += ["one_step", "no_rewards", "reward=nan", "observation=inf"]
VALUES = {
    "--gamma": "0 1 0.5 1.1",
    "--learning-rate": "0 1e-3 1 1e10 -1",
    "--max-grad-norm": "0 0.5 inf -0.5",
    "--entropy-coefficient": "0 0.01 10",
    "--initial-variance": "1e-6 1 1e6 0",
    "--num-envs": "1 2 5 0 1e1",
    "--max-episode-steps": "1 7 2.5",
    "--seed": "0 1e6 1.0 -0",
    "--rollout-steps": "2 30 1",
    "--epochs": "1 2 0",
    "--minibatch-size": "1 64 1e6",
    "--critic-epochs": "1 3 0",
    "--n-steps": "1 3 inf 0",
    "--gae-lambda": "0 1 1.01",
    "--advantage": "gae n-step both",
    "--weight": "trajectory both",
    "--optimizer": "sgd adam rmsprop",
    "--clip-epsilon": "0 0.2 inf",
    "--beta": "0 1 1e6",
    "--target-kl": "0 0.01 100",
    "--no-normalize-rewards": "",
    "--no-normalize-observations": "",
    "--no-anneal-learning-rate": "",
}


def command_lines(script, n, rng, folder):
    """Some flags with good or bad values: it runs, or one line says why it does not."""
    module = import_module(script)
    names = {"--" + name.replace("_", "-") for name in vars(module.parse_args([]))}
    own = [flag for flag in VALUES if flag.replace("--no-", "--") in names]
    for k in range(n):
        argv = flags(script, folder / f"line{k}", 150, fault=rng.choice(FAULTS), at=60)
        for flag in rng.sample(own, 3):
            values = VALUES[flag].split()
            argv.append(flag)
            if values:
                argv.append(rng.choice(values if rng.random() < 0.9 else NONSENSE))
        errors = io.StringIO()
        try:
            with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(errors):
                module.main(argv)
            yield "runs"
        except SystemExit as exit:
            lines = errors.getvalue().strip().splitlines()
            assert exit.code == 2 and len(lines[-1]) > 20, (argv, lines)
            yield "refused in one line"
        except FloatingPointError:
            yield "stopped: a number is not finite"
        if (folder / f"line{k}" / "checkpoint.pt").exists():
            tensors = load(folder / f"line{k}")["policy"].values()
            assert all(tensor.isfinite().all() for tensor in tensors), argv


CAMPAIGNS = {kills: 10, interrupts: 10, damaged_files: 200, command_lines: 100}


def table(path):
    """The counts of all scripts together, as Markdown."""
    counts = Counter()
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            counts[row["campaign"], row["outcome"]] += int(row["count"])
    lines = ["| what was tried | what came of it | how often |", "| --- | --- | --- |"]
    for (campaign, outcome), count in counts.items():
        lines.append(f"| {campaign} | {outcome} | {count} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--share", type=float, default=1.0, help="of all tries")
    parser.add_argument("--output", type=Path, default=RESULTS, help="a CSV file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows = [("campaign", "script", "outcome", "count")]
    for campaign, n in CAMPAIGNS.items():
        for script in SCRIPTS:
            with tempfile.TemporaryDirectory() as folder:
                n_tries = max(2, round(args.share * n))
                rng = random.Random(f"{campaign.__name__} {script}")
                found = Counter(campaign(script, n_tries, rng, Path(folder)))
            print(campaign.__name__, script, dict(found), flush=True)
            name = campaign.__name__.replace("_", " ")
            rows += [(name, script, *item) for item in sorted(found.items())]
    with open(args.output, "w", newline="") as file:
        csv.writer(file).writerows(rows)
    if args.output == RESULTS:
        before, rest = PAGE.read_text().split(BEGIN)
        page = before + BEGIN + table(RESULTS) + END + rest.split(END)[1]
        PAGE.write_text(page)


if __name__ == "__main__":
    main()

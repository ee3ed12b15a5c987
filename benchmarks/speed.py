"""Measures speed: against Stable-Baselines3, against the bare environment, and inside.

    pip install stable-baselines3 "gymnasium[mujoco]"
    python benchmarks/speed.py                    everything, about two hours
    python benchmarks/speed.py --only same_work   one part: see PARTS

Two things that are compared take turns, each time in a process of its own with one
torch thread; what counts is the median of the ratios of the pairs. Run it on a machine
that does nothing else. Each part writes its rows to benchmarks/results/speed_PART.csv;
benchmarks/report.py makes README's tables of them.
"""

import argparse
import csv
import importlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
SCRIPTS = ["reinforce", "vpg_baseline", "actor_critic", "ppo_kl", "ppo_clip"]
# as the peer does: no normalisation, no entropy bonus, no checkpoint before the end
AS_THEY = (
    "--no-normalize-observations --no-normalize-rewards --entropy-coefficient 0 "
    "--checkpoint-every 9999999"
)
# Gymnasium's reset rows are no data, so a rollout of ours has a few rows less. With a
# smaller --minibatch-size there are as many minibatches, and gradient steps, as theirs.
SAME_WORK = {  # name: (script, our flags, environment, steps, peer, its arguments)
    "PPO-Clip, CartPole-v1, 4 × 128, 4 epochs × 4 minibatches": (
        "ppo_clip",
        "--num-envs 4 --rollout-steps 128 --epochs 4 --minibatch-size 112 "
        "--learning-rate 3e-4",
        "CartPole-v1",
        50_000,
        "PPO",
        {"n_envs": 4, "n_steps": 128, "n_epochs": 4, "batch_size": 128},
    ),
    "PPO-Clip, HalfCheetah-v5, 1 × 2048, 10 epochs × 32 minibatches": (
        "ppo_clip",
        "--num-envs 1 --rollout-steps 2048 --epochs 10 --minibatch-size 63 "
        "--learning-rate 3e-4",
        "HalfCheetah-v5",
        20_480,
        "PPO",
        {"n_envs": 1, "n_steps": 2048, "n_epochs": 10, "batch_size": 64},
    ),
    "Actor-critic, CartPole-v1, 4 × 5, against A2C": (
        "actor_critic",
        "--num-envs 4 --rollout-steps 5 --critic-epochs 1",
        "CartPole-v1",
        100_000,
        "A2C",
        {"n_envs": 4, "n_steps": 5},
    ),
    "PPO-Clip, HalfCheetah-v5, each with its defaults": (
        "ppo_clip",
        "",
        "HalfCheetah-v5",
        40_960,
        "PPO",
        {"n_envs": 1},
    ),
}
WHOLE_RUN = {
    "PPO-Clip, HalfCheetah-v5, each with its defaults, a million steps": (
        "ppo_clip",
        "",
        "HalfCheetah-v5",
        1_000_000,
        "PPO",
        {"n_envs": 1},
    )
}
CLEANRL = {  # the settings of CleanRL's PPO, in Stable-Baselines3's words
    "n_envs": 4,
    "n_steps": 128,
    "n_epochs": 4,
    "batch_size": 128,
    "learning_rate": 2.5e-4,
    "ent_coef": 0.01,
}


# Each of these runs in a process of its own and returns what it measured.


def clock_starts_with_the_run(script):
    """A list that gets the time when everything is made, before the first step."""
    began, open_log = [], script.open_log

    def opened(*inputs):
        result = open_log(*inputs)
        began.append(time.perf_counter())
        return result

    script.open_log = opened
    return began


def count_steps(script):
    """A list that gets the steps taken so far; the last may exceed the budget."""
    taken, log = [], script.log

    def logged(writer, bar, state, *rest):
        taken.append(state["steps"])
        log(writer, bar, state, *rest)

    script.log = logged
    return taken


def ours(script, flags, env, steps):
    """One training of a script: steps, seconds of it, peak memory."""
    script = importlib.import_module(script)
    with tempfile.TemporaryDirectory() as folder:
        given = [
            "--env",
            env,
            "--total-steps",
            str(steps),
            "--run-dir",
            f"{folder}/run",
        ]
        args = script.parse_args([*flags.split(), *given])
        begin = clock_starts_with_the_run(script)
        taken = count_steps(script)
        script.train(args)
        seconds = time.perf_counter() - begin[0]
    return {"steps": taken[-1], "seconds": seconds, "megabytes": peak_megabytes()}


def peer(algorithm, env, steps, settings, seed=0, threshold=None):
    """One training of Stable-Baselines3: the same, and the time to the threshold."""
    import gymnasium as gym
    import stable_baselines3 as sb3
    import torch
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env

    torch.set_num_threads(1)
    settings = dict(settings)
    envs = make_vec_env(lambda: gym.make(env), settings.pop("n_envs"), seed=seed)
    model = getattr(sb3, algorithm)(
        "MlpPolicy", envs, seed=seed, device="cpu", **settings
    )
    reached = {}

    class Watch(BaseCallback):
        ended = False  # an episode, with the step before: the buffer has it by now

        def _on_step(self):
            ended, self.ended = self.ended, self.locals["dones"].any()
            if not ended or len(model.ep_info_buffer) < 100:
                return True  # the mean is what it was, and to look costs time
            mean = statistics.mean(episode["r"] for episode in model.ep_info_buffer)
            if mean >= threshold:
                reached["steps"] = self.num_timesteps
                return False
            return True

    begin = time.perf_counter()
    model.learn(steps, callback=Watch() if threshold else None)
    seconds = time.perf_counter() - begin
    measured = {"steps": model.num_timesteps, "seconds": seconds}
    return measured | {"megabytes": peak_megabytes(), "reached": bool(reached)}


def ours_to_threshold(script, env, steps, seed, threshold):
    """Seconds of a run until the mean over 100 episodes reaches the threshold."""
    script = importlib.import_module(script)
    stop, log = [], script.log

    def watch(writer, bar, state, history, *rest):
        log(writer, bar, state, history, *rest)
        if len(history) >= 100 and statistics.mean(history[-100:]) >= threshold:
            stop.append(state["steps"])

    script.log = watch
    with tempfile.TemporaryDirectory() as folder:
        given = ["--env", env, "--total-steps", str(steps), "--seed", str(seed)]
        args = script.parse_args([*given, "--run-dir", f"{folder}/run"])
        begin = clock_starts_with_the_run(script)
        script.train(args, stop)
        seconds = time.perf_counter() - begin[0]
    return {"steps": (stop or [steps])[0], "seconds": seconds, "reached": bool(stop)}


def bare(env, num_envs, steps):
    """The environment alone, with random actions."""
    import gymnasium as gym

    envs = gym.make_vec(env, num_envs)
    envs.reset(seed=0)
    envs.action_space.seed(0)
    actions = [envs.action_space.sample() for _ in range(100)]
    begin = time.perf_counter()
    for step in range(steps // num_envs):
        envs.step(actions[step % 100])
    return {"steps": steps, "seconds": time.perf_counter() - begin}


def where_time_goes(script, env, steps):
    """Seconds of the parts of one training."""
    script = importlib.import_module(script)
    spent = {}

    def timed(name, function):
        def call(*inputs, **named):
            begin = time.perf_counter()
            try:
                return function(*inputs, **named)
            finally:
                spent[name] = spent.get(name, 0) + time.perf_counter() - begin

        return call

    make_envs = script.make_envs

    def make_timed_envs(*inputs, **named):
        envs = make_envs(*inputs, **named)
        envs.step = timed("environment", envs.step)
        return envs

    script.make_envs = make_timed_envs
    sampler = script.Policy.sampler
    script.Policy.sampler = lambda policy: timed(
        "acting", timed("acting", sampler)(policy)
    )
    for name in "rewards_to_go", "n_step_returns", "generalized_advantages":
        if hasattr(script, name):
            setattr(
                script, name, timed("returns and advantages", getattr(script, name))
            )
    script.update = timed("update", script.update)
    script.log = timed("log", script.log)
    with tempfile.TemporaryDirectory() as folder:
        given = [
            "--env",
            env,
            "--total-steps",
            str(steps),
            "--run-dir",
            f"{folder}/run",
        ]
        args = script.parse_args(given)
        begin = clock_starts_with_the_run(script)
        taken = count_steps(script)
        script.train(args)
        total = time.perf_counter() - begin[0]
    spent["update"] -= spent["returns and advantages"]
    spent["everything else"] = total - sum(spent.values())
    return {"steps": taken[-1], "seconds": total, "spent": spent}


def memory_over_time(script, env, steps, marks):
    """Peak memory after so many steps, and the speed since the mark before.

    Speed is per second of processor time: waiting for other processes doesn't count,
    though what they do to the caches does.
    """
    script = importlib.import_module(script)
    log, rows, marks = script.log, [], list(marks)
    before = [0, time.process_time()]

    def watch(writer, bar, state, *rest):
        log(writer, bar, state, *rest)
        while marks and state["steps"] >= marks[0]:
            now = [state["steps"], time.process_time()]
            speed = (now[0] - before[0]) / (now[1] - before[1])
            rows.append([marks.pop(0), round(peak_megabytes()), round(speed)])
            before[:] = now

    script.log = watch
    ours(script.__name__, "", env, steps)
    return rows


def gradient_step(env, rows):
    """Microseconds of a gradient step of PPO-Clip on so many rows, and of parts of it.

    networks: what no PPO can do without, both networks forward and backward, and Adam.
    compiled: the whole, with torch.compile on all that leads to the loss.
    """
    os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"  # as on a first run
    import torch

    script = importlib.import_module("ppo_clip")
    torch.set_num_threads(1)
    torch.distributions.Distribution.set_default_validate_args(False)
    args = script.parse_args(["--env", env, "--run-dir", "unused"])
    envs = script.make_envs(args, 1)
    policy = script.Policy(envs, args.hidden_sizes, args.initial_variance)
    value_function = script.ValueFunction(envs, args.hidden_sizes)
    parameters = [*policy.parameters(), *value_function.parameters()]
    optimizer = script.Adam(parameters, 1e-5, eps=1e-5, fused=True)
    obs = torch.randn(rows, envs.single_observation_space.shape[0])
    distribution = policy.distribution(obs)
    actions = distribution.sample()
    old_log_probs = distribution.log_prob(actions).detach()
    advantages, targets = torch.randn(2, rows)

    def loss():  # as in update()
        ratio = (policy.distribution(obs).log_prob(actions) - old_log_probs).exp()
        objective = script.clipped_surrogate(ratio, advantages, args.clip_epsilon)
        value_loss = (value_function(obs) - targets).square().mean()
        return value_loss - objective.mean()

    def networks():
        optimizer.zero_grad()
        (policy.network(obs).sum() + value_function(obs).sum()).backward()
        optimizer.step()

    compiled_loss = torch.compile(loss)
    begin = time.perf_counter()
    compiled_loss().backward()
    compilation = time.perf_counter() - begin
    both = args, optimizer, policy, value_function
    kinds = {
        "step": lambda: script.gradient_step(*both[:2], loss(), *both[2:]),
        "compiled": lambda: script.gradient_step(*both[:2], compiled_loss(), *both[2:]),
        "networks": networks,
    }
    seconds = {name: [] for name in kinds}
    for _ in range(11):  # in turn; the first time is a warm-up
        for name, step in kinds.items():
            begin = time.perf_counter()
            for _ in range(100):
                step()
            seconds[name].append((time.perf_counter() - begin) / 100)
    medians = {name: statistics.median(times[1:]) for name, times in seconds.items()}
    return {name: 1e6 * value for name, value in medians.items()} | {
        "compilation": compilation
    }


def start_up(script):
    """Everything up to the first step of the environment."""
    script = importlib.import_module(script)

    def first_step(*inputs):
        raise SystemExit

    for name in "collect_rollout", "collect_trajectories":
        if hasattr(script, name):
            setattr(script, name, first_step)
    with tempfile.TemporaryDirectory() as folder:
        script.main(["--run-dir", f"{folder}/run"])


def peak_megabytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# The parts


def measure(function, *inputs, **named):
    """What the function returns, from a process of its own."""
    call = json.dumps([function.__name__, inputs, named])
    process = subprocess.run(
        [sys.executable, "-W", "ignore", __file__, "--call", call],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    if process.returncode:
        raise RuntimeError(process.stderr[-2000:])
    return json.loads(process.stdout.splitlines()[-1])


def spread(values, digits=2):
    """Median, least and greatest."""
    return [round(f(values), digits) for f in (statistics.median, min, max)]


def same_work(pairs, work=SAME_WORK):
    """Steps per second against Stable-Baselines3's."""
    rows = []
    for name, (script, flags, env, steps, algorithm, settings) in work.items():
        flags = f"{flags} {AS_THEY}" if flags else flags
        ratios, speeds, memory = [], [], []
        for _ in range(pairs):
            mine = measure(ours, script, flags, env, steps)
            theirs = measure(peer, algorithm, env, steps, settings)
            both = [run["steps"] / run["seconds"] for run in (mine, theirs)]
            speeds.append(both)
            memory.append([mine["megabytes"], theirs["megabytes"]])
            ratios.append(both[0] / both[1])
        ours_, theirs_ = (round(statistics.median(x)) for x in zip(*speeds))
        peaks = [round(statistics.median(x)) for x in zip(*memory)]
        rows.append([name, *spread(ratios), pairs, ours_, theirs_, *peaks])
        print(rows[-1])
    header = "what ratio lowest highest pairs steps_per_second peer megabytes peer_mb"
    return header.split(), rows


def whole_run(pairs):
    """The same over a run of a million steps, about ten minutes a pair."""
    return same_work(pairs, WHOLE_RUN)


def to_475(pairs):
    """Seconds to a mean return of 475 over 100 episodes of CartPole-v1."""
    rows, runs = [], []
    peers = {"its defaults": {"n_envs": 1}, "CleanRL's settings": CLEANRL}
    for seed in range(pairs):
        mine = measure(ours_to_threshold, "ppo_clip", "CartPole-v1", 100_000, seed, 475)
        theirs = {
            name: measure(peer, "PPO", "CartPole-v1", 500_000, settings, seed, 475)
            for name, settings in peers.items()
        }
        runs.append((mine, theirs))
        print(seed, mine, theirs)
    for name in peers:
        ratios = [theirs[name]["seconds"] / mine["seconds"] for mine, theirs in runs]
        reached = sum(theirs[name]["reached"] for _, theirs in runs)
        mine = statistics.median(run["steps"] for run, _ in runs)
        peer_steps = statistics.median(theirs[name]["steps"] for _, theirs in runs)
        what = f"time to 475 on CartPole-v1, Stable-Baselines3's PPO with {name}"
        ours_reached = sum(run["reached"] for run, _ in runs)
        seconds = statistics.median(run["seconds"] for run, _ in runs)
        peer_seconds = statistics.median(theirs[name]["seconds"] for _, theirs in runs)
        steps = mine, peer_steps, ours_reached, reached
        times = round(seconds, 2), round(peer_seconds, 2)
        rows.append([what, *spread(ratios, 1), pairs, *steps, *times])
    header = "what ratio lowest highest seeds steps peer_steps reached peer_reached"
    return [*header.split(), "seconds", "peer_seconds"], rows


def limit(pairs):
    """How fast the same work could be: the bare environment and the networks alone."""
    rows = []
    for name, (script, flags, env, steps, algorithm, settings) in SAME_WORK.items():
        if algorithm != "PPO" or not flags:
            continue
        ratios, limits, costs = [], [], []
        for _ in range(pairs):
            mine = measure(ours, script, f"{flags} {AS_THEY}", env, steps)
            theirs = measure(peer, algorithm, env, steps, settings)
            alone = measure(bare, env, settings["n_envs"], steps)
            cost = measure(gradient_step, env, settings["batch_size"])
            updates = steps * settings["n_epochs"] / settings["batch_size"]
            least = alone["seconds"] + updates * cost["networks"] / 1e6
            a_step = theirs["seconds"] / theirs["steps"]
            ratios.append(a_step * mine["steps"] / mine["seconds"])
            limits.append(a_step * steps / least)
            costs.append(cost)
        medians = [round(statistics.median(c[k] for c in costs), 1) for k in costs[0]]
        rows.append([name, *spread(ratios), *spread(limits), pairs, *medians])
        print(rows[-1])
    header = "what ratio lowest highest limit limit_lowest limit_highest pairs"
    names = "step_us compiled_us networks_us compilation_seconds"
    return [*header.split(), *names.split()], rows


def against_bare(pairs):
    """Each script's speed as a share of the bare environment's, and where time goes."""
    rows = []
    for env in "CartPole-v1", "HalfCheetah-v5":
        for script in SCRIPTS:
            steps, shares, parts = 40_000, [], []
            for _ in range(pairs):
                mine = measure(where_time_goes, script, env, steps)
                alone = measure(bare, env, 8, steps)
                speeds = [run["steps"] / run["seconds"] for run in (mine, alone)]
                shares.append(speeds[0] / speeds[1])
                parts.append({k: v / mine["seconds"] for k, v in mine["spent"].items()})
            inside = [
                round(statistics.median(p[k] for p in parts), 3) for k in parts[0]
            ]
            rows.append([env, script, *spread(shares, 3), pairs, *inside])
            print(rows[-1])
    names = [name.replace(" ", "_") for name in parts[0]]
    return ["env", "script", "share", "lowest", "highest", "pairs", *names], rows


def start(pairs):
    """Process start to the first step, against importing torch and gymnasium."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ratios = {script: [] for script in SCRIPTS}
    call = [sys.executable, "-W", "ignore", __file__, "--call"]
    imports = [sys.executable, "-c", "import torch, gymnasium"]
    for _ in range(pairs):
        for script in SCRIPTS:
            seconds = []
            for command in [*call, json.dumps(["start_up", [script], {}])], imports:
                begin = time.perf_counter()
                subprocess.run(
                    command, capture_output=True, env=environment, check=True
                )
                seconds.append(time.perf_counter() - begin)
            ratios[script].append(seconds[0] / seconds[1])
    rows = [[script, *spread(values), pairs] for script, values in ratios.items()]
    print(rows)
    return ["script", "ratio", "lowest", "highest", "pairs"], rows


def memory(pairs):
    """Peak memory and speed over 5 million steps of CartPole-v1."""
    marks = [500_000, 1_000_000, 2_000_000, 3_000_000, 4_000_000, 5_000_000]
    rows = measure(memory_over_time, "ppo_clip", "CartPole-v1", marks[-1] + 4096, marks)
    print(rows)
    return ["steps", "peak_megabytes", "steps_per_processor_second"], rows


def scaling(pairs):
    """Steps per second over copies, hidden units and rows in a minibatch."""
    rows = []
    for env in "CartPole-v1", "Pendulum-v1":
        modes = ["auto", "sync", "async"] if env == "CartPole-v1" else ["sync", "async"]
        for mode in modes:
            for copies in 1, 2, 4, 8, 16, 32, 64, 128, 256:
                if mode == "async" and copies > 32:
                    continue  # a process each
                steps = max(20_000, 2 * 256 * copies)  # two rollouts
                flags = f"--num-envs {copies} --vectorization {mode}"
                run = measure(ours, "ppo_clip", flags, env, steps)
                rows.append(
                    [env, f"copies, {mode}", copies, run["steps"] / run["seconds"]]
                )
    for units in 16, 32, 64, 128, 256, 512:
        run = measure(ours, "ppo_clip", f"--hidden-sizes {units} {units}", env, 20_000)
        rows.append([env, "hidden units", units, run["steps"] / run["seconds"]])
    for size in 32, 64, 128, 256, 512, 1024:
        run = measure(ours, "ppo_clip", f"--minibatch-size {size}", env, 20_000)
        rows.append([env, "minibatch", size, run["steps"] / run["seconds"]])
    rows = [[*row[:3], round(row[3])] for row in rows]
    return ["env", "axis", "value", "steps_per_second"], rows


PARTS = [same_work, whole_run, limit, to_475, against_bare, start, memory, scaling]
CALLS = [
    ours,
    peer,
    ours_to_threshold,
    bare,
    where_time_goes,
    memory_over_time,
    gradient_step,
    start_up,
]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [part.__name__ for part in PARTS]
    parser.add_argument("--only", nargs="*", choices=names, default=names)
    parser.add_argument("--pairs", type=int, default=5, help="of each comparison")
    parser.add_argument("--call", type=json.loads, help="one measurement, for itself")
    args = parser.parse_args()
    if args.call:
        name, inputs, named = args.call
        (function,) = (function for function in CALLS if function.__name__ == name)
        print(json.dumps(function(*inputs, **named)))
        return
    RESULTS.mkdir(exist_ok=True)
    for part in PARTS:
        if part.__name__ in args.only:
            header, rows = part(args.pairs)
            path = RESULTS / f"speed_{part.__name__}.csv"
            with open(path, "w", newline="") as file:
                csv.writer(file).writerows([header, *rows])


if __name__ == "__main__":
    main()

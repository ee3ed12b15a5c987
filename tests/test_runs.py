"""Whole runs: equal seeds, TensorBoard, checkpoints, resuming, evaluation, signals.

The first half calls train() and evaluate(); the second half runs the scripts as a user
does, each as a process of its own.
"""

import importlib.util
import json
import math
import os
import shlex
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.wrappers.vector import NormalizeReward
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import actor_critic
import ppo_clip
import ppo_kl
import reinforce
import vpg_baseline

ROOT = Path(reinforce.__file__).parent
SCRIPTS = [reinforce, vpg_baseline, actor_critic, ppo_kl, ppo_clip]
ENVIRONMENTS = ["CartPole-v1", "Pendulum-v1"]  # discrete and continuous actions

EVERYWHERE = {
    "rollout/episode_return",
    "rollout/episode_length",
    "train/policy_loss",
    "train/entropy",
    "train/kl",
    "train/learning_rate",
    "time/steps_per_second",
}
WITH_VALUES = EVERYWHERE | {"train/value_loss", "train/explained_variance"}
SCALARS = {
    reinforce: EVERYWHERE,
    vpg_baseline: WITH_VALUES,
    actor_critic: WITH_VALUES,
    ppo_kl: WITH_VALUES | {"train/beta"},
    ppo_clip: WITH_VALUES | {"train/clip_fraction"},
}

every_script = pytest.mark.parametrize("script", SCRIPTS, ids=lambda s: s.__name__)
every_env = pytest.mark.parametrize("env", ENVIRONMENTS)


def flags(script, env, run_dir):
    """A run of a few iterations, each of two copies of the environment."""
    result = ["--env", env, "--run-dir", str(run_dir), "--num-envs", "2"]
    result += ["--max-episode-steps", "40", "--total-steps", "500"]
    if script in (actor_critic, ppo_kl, ppo_clip):
        result += ["--rollout-steps", "50"]
    if script in (ppo_kl, ppo_clip):
        result += ["--epochs", "3", "--minibatch-size", "32"]
    return result


def arguments(script, env, run_dir, *more):
    return script.parse_args([*flags(script, env, run_dir), *more])


def events(run_dir):
    """What TensorBoard reads from a run's folder."""
    accumulator = EventAccumulator(str(run_dir), size_guidance={"scalars": 0})
    return accumulator.Reload()


def curves(run_dir):
    """{name: [(step, value), ...]} of all the scalars of a run but its speed."""
    accumulator = events(run_dir)
    names = set(accumulator.Tags()["scalars"]) - {"time/steps_per_second"}
    return {
        name: [(e.step, e.value) for e in accumulator.Scalars(name)] for name in names
    }


def checkpoint(run_dir):
    return torch.load(Path(run_dir, "checkpoint.pt"), weights_only=True)


def optimizer_of(script):
    """Its name among a checkpoint's parts."""
    return "adam" if script in (reinforce, vpg_baseline) else "optimizer"


def assert_equal(one, other):
    """Bit for bit, through nested dictionaries and lists, with tensors in them."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for left, right in zip(one, other):
            assert_equal(left, right)
    elif isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype and torch.equal(one, other)
    else:
        assert one == other


class StopAfter:
    """For train()'s stop, which it looks at before each iteration: n may begin."""

    def __init__(self, n):
        self.left = n

    def __bool__(self):
        self.left -= 1
        return self.left < 0


# The same seed, the same numbers


@every_env
@every_script
def test_a_seed_decides_every_parameter_and_every_logged_number(script, env, tmp_path):
    """Seed 0 is a seed like any other."""
    for name, seed in ("first", "0"), ("again", "0"), ("other", "1"):
        script.train(arguments(script, env, tmp_path / name, "--seed", seed))
    first, again, other = (tmp_path / name for name in ("first", "again", "other"))
    assert_equal(checkpoint(first)["parts"], checkpoint(again)["parts"])
    assert_equal(checkpoint(first)["statistics"], checkpoint(again)["statistics"])
    assert curves(first) == curves(again)
    assert len(curves(first)["train/kl"]) >= 3
    one, two = (checkpoint(run)["parts"]["policy"] for run in (first, other))
    assert not torch.equal(one["network.0.weight"], two["network.0.weight"])
    assert curves(first)["train/entropy"] != curves(other)["train/entropy"]


@every_env
@every_script
def test_each_run_each_iteration_and_each_copy_begins_in_a_state_of_its_own(
    script, env, tmp_path, monkeypatch
):
    """Not only the networks' first weights depend on the seed."""
    rollouts, update = [], script.update

    def watched_update(*given):
        rollouts.extend(part for part in given if isinstance(part, script.Rollout))
        return update(*given)

    monkeypatch.setattr(script, "update", watched_update)
    for seed in "3", "4":
        more = ["--seed", seed, "--no-normalize-observations"]
        script.train(arguments(script, env, tmp_path / seed, *more))
    states = {tuple(state) for rollout in rollouts for state in rollout.obs[0]}
    assert len(states) == 2 * len(rollouts) >= 12
    assert len({rollout.actions.tobytes() for rollout in rollouts}) == len(rollouts)


# Evaluation


def played_by_hand(policy, args, seed):
    """The return of one episode, by the plainest loop there is.

    The checkpoint's statistics normalise the observation; the most probable action is
    stretched from [-1, 1] to Pendulum's [-2, 2] and clipped.
    """
    mean, var, _ = checkpoint(args.run_dir)["statistics"]["observation"]
    env = gym.make(args.env, max_episode_steps=args.max_episode_steps)
    obs, _ = env.reset(seed=seed)
    total, done = 0.0, False
    while not done:
        obs = (obs - mean.numpy()) / np.sqrt(var.numpy() + 1e-8)
        obs = torch.tensor(np.clip(obs, -10, 10), dtype=torch.float32)
        with torch.no_grad():
            action = policy.distribution(obs[None]).mode[0].numpy()
        if args.env == "Pendulum-v1":
            action = np.clip(2 * action, -2, 2)
        obs, reward, terminated, truncated, _ = env.step(action)
        total, done = total + float(reward), terminated or truncated
    env.close()
    return total


@every_env
@every_script
def test_the_saved_policy_plays_as_the_trained_one_does(script, env, tmp_path):
    """evaluate() gives what the policy in memory gets, episode by episode."""
    args = arguments(script, env, tmp_path, "--vectorization", "sync", "--seed", "5")
    policy, _ = script.train(args)
    returns = script.evaluate(args, tmp_path / "checkpoint.pt")
    expected = [played_by_hand(policy, args, args.seed + i) for i in range(10)]
    np.testing.assert_allclose(sorted(returns), sorted(expected), rtol=1e-4)
    again = script.evaluate(args, tmp_path / "checkpoint.pt")
    np.testing.assert_array_equal(returns, again)


def test_sampled_evaluation_differs_from_greedy_evaluation(tmp_path):
    args = arguments(ppo_clip, "Pendulum-v1", tmp_path)
    ppo_clip.train(args)
    greedy = ppo_clip.evaluate(args, tmp_path / "checkpoint.pt")
    sampled = ppo_clip.evaluate(args, tmp_path / "checkpoint.pt", greedy=False)
    assert len(sampled) == 10 and set(sampled) != set(greedy)
    again = ppo_clip.evaluate(args, tmp_path / "checkpoint.pt", greedy=False)
    np.testing.assert_array_equal(sampled, again)


# Adam


@pytest.mark.parametrize("fused", [True, False])
@every_script
def test_Adam_steps_as_PyTorchs_does_bit_for_bit(script, fused):
    """Also with the state of another one, and where a gradient is missing."""
    torch.manual_seed(0)
    first = [torch.nn.Parameter(torch.randn(3, 5)), torch.nn.Parameter(torch.randn(7))]
    second = [torch.nn.Parameter(parameter.detach().clone()) for parameter in first]
    options = {"lr": 0.1, "eps": 1e-5, "fused": fused}
    ours, theirs = script.Adam(first, **options), torch.optim.Adam(second, **options)
    for step in range(6):
        if step == 3:
            saved, theirs_saved = ours.state_dict(), theirs.state_dict()
            assert_equal(saved, theirs_saved)
            ours, theirs = script.Adam(first, lr=1.0), torch.optim.Adam(second, lr=1.0)
            ours.load_state_dict(saved)
            theirs.load_state_dict(theirs_saved)
        ours.zero_grad()
        theirs.zero_grad()
        for one, other in list(zip(first, second))[: 1 + step % 2]:
            one.grad = torch.randn(one.shape)
            other.grad = one.grad.clone()
        before = [parameter.detach().clone() for parameter in first]
        ours.step()
        theirs.step()
        moved = [not torch.equal(x, y) for x, y in zip(first, before)]
        assert moved == [True, bool(step % 2)]
        assert all(torch.equal(one, other) for one, other in zip(first, second))
        assert all(parameter.requires_grad for parameter in first)


@every_script
def test_a_run_does_not_load_PyTorchs_compiler(script, tmp_path):
    """Which would take as long as all else that a script imports."""
    run = [*flags(script, "CartPole-v1", tmp_path), "--checkpoint-every", "1"]
    program = f"""if True:
        import sys, {script.__name__} as script
        script.main({run})
        script.main(["--resume", {str(tmp_path / "checkpoint.pt")!r},
                     "--total-steps", "700"])
        assert "torch._dynamo" not in sys.modules
        """
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


# Resuming


@every_env
@every_script
def test_resuming_starts_from_all_that_the_checkpoint_holds(script, env, tmp_path):
    """A resumed run that is stopped at once saves the same checkpoint again.

    Step count, iteration, β, parameters, Adam's moments, statistics: all of it. Only
    partial trajectories begin with a reset, which shows one more observation per copy.
    """
    script.train(arguments(script, env, tmp_path), StopAfter(3))
    before = checkpoint(tmp_path)
    assert before["state"]["iteration"] == 3 and before["state"]["steps"] > 60
    assert before["parts"][optimizer_of(script)]["state"][0]["step"] >= 3
    resume = ["--resume", str(tmp_path / "checkpoint.pt")]
    script.train(script.parse_args(resume), StopAfter(0))
    after = checkpoint(tmp_path)
    if "collect_rollout" in vars(script):
        count = before["statistics"].pop("observation")[2]
        assert after["statistics"].pop("observation")[2] == pytest.approx(count + 2)
    assert_equal(before, after)


@pytest.mark.parametrize("flag", ["--resume", "--evaluate", "--watch"])
def test_a_checkpoint_brings_the_flags_of_its_run_along(flag, tmp_path):
    """All kinds of them; a flag that is given again is the one that counts."""
    more = ["--env-kwargs", '{"is_slippery": false, "map_name": "8x8"}', "--seed", "7"]
    more += ["--hidden-sizes", "4", "6", "--no-normalize-rewards", "--gamma", "0.9"]
    given = flags(ppo_clip, "FrozenLake-v1", tmp_path)
    args = ppo_clip.parse_args([*given, *more])
    ppo_clip.train(args, StopAfter(1))
    path = str(tmp_path / "checkpoint.pt")
    restored = ppo_clip.parse_args([flag, path, "--gamma", "0.8"])
    expected = vars(args) | {flag.strip("-"): path, "gamma": 0.8}
    assert vars(restored) == expected
    assert restored.env_kwargs == {"is_slippery": False, "map_name": "8x8"}


def test_adams_moments_beta_and_the_curves_go_on_after_resuming(tmp_path):
    """β changes every iteration here, so the first β after resuming tells."""
    more = ["--target-kl", "1000"]  # never reached: β is halved each time
    ppo_kl.train(arguments(ppo_kl, "CartPole-v1", tmp_path, *more), StopAfter(3))
    state = checkpoint(tmp_path)["state"]
    assert state["beta"] == 1 / 8
    time.sleep(1.1)  # TensorBoard orders the two event files by the second
    ppo_kl.train(ppo_kl.parse_args(["--resume", str(tmp_path / "checkpoint.pt")]))
    betas = [value for _, value in curves(tmp_path)["train/beta"]]
    assert betas == [0.5**k for k in range(len(betas))] and len(betas) > 4
    steps = [step for step, _ in curves(tmp_path)["train/beta"]]
    assert steps == sorted(set(steps)) and state["steps"] in steps
    final = checkpoint(tmp_path)["state"]
    assert final["iteration"] == len(betas) and final["steps"] == steps[-1] >= 500


CLEARS = "reset" in vars(NormalizeReward)  # its running return, when envs are reset


@every_env
@pytest.mark.parametrize("script", [reinforce, vpg_baseline], ids=lambda s: s.__name__)
def test_a_run_of_whole_trajectories_resumes_bit_for_bit(script, env, tmp_path):
    """Each of its iterations starts anew from a seed that the iteration determines.

    Gymnasium before 1.3 carries NormalizeReward's running return over a reset, so there
    the rewards must go in as they are.
    """
    more = [] if CLEARS else ["--no-normalize-rewards"]
    script.train(arguments(script, env, tmp_path / "whole", *more))
    script.train(arguments(script, env, tmp_path / "parts", *more), StopAfter(3))
    assert checkpoint(tmp_path / "parts")["state"]["steps"] < 500
    resume = ["--resume", str(tmp_path / "parts" / "checkpoint.pt")]
    script.train(script.parse_args(resume))
    whole, parts = checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "parts")
    for name in "state", "parts", "statistics":
        assert_equal(whole[name], parts[name])


def test_a_run_that_lost_its_last_iterations_leaves_no_double_steps(
    tmp_path, monkeypatch
):
    """The log is ahead of the checkpoint when the power fails; resuming mends it."""
    more = ["--checkpoint-every", "125", "--no-normalize-rewards"]
    reinforce.train(arguments(reinforce, "CartPole-v1", tmp_path / "whole", *more))
    log, saved, lost = reinforce.log, [], []

    def log_until_the_power_fails(writer, bar, state, *rest):
        log(writer, bar, state, *rest)
        before = (saved + lost or [0])[-1]
        lost.append(state["steps"])
        if saved and len(lost) == 2:  # before this one can be saved
            raise KeyboardInterrupt
        if state["steps"] // 125 > before // 125:  # a multiple is passed: saved now
            saved.extend(lost)
            lost.clear()

    with monkeypatch.context() as patch:
        patch.setattr(reinforce, "log", log_until_the_power_fails)
        with pytest.raises(KeyboardInterrupt):
            reinforce.train(
                arguments(reinforce, "CartPole-v1", tmp_path / "parts", *more)
            )
    steps = [step for step, _ in curves(tmp_path / "parts")["train/kl"]]
    assert steps == saved + lost and len(lost) == 2
    assert checkpoint(tmp_path / "parts")["state"]["steps"] == saved[-1]
    time.sleep(1.1)  # TensorBoard orders the two event files by the second
    resume = ["--resume", str(tmp_path / "parts" / "checkpoint.pt")]
    reinforce.train(reinforce.parse_args(resume))
    whole, parts = curves(tmp_path / "whole"), curves(tmp_path / "parts")
    assert parts == whole


def test_resuming_a_finished_run_is_an_error_that_names_total_steps(tmp_path, capsys):
    ppo_clip.train(arguments(ppo_clip, "CartPole-v1", tmp_path))
    args = ppo_clip.parse_args(["--resume", str(tmp_path / "checkpoint.pt")])
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        ppo_clip.train(args)
    assert stopped.value.code == 2
    assert "raise --total-steps" in capsys.readouterr().err


def test_a_finished_run_goes_on_with_more_total_steps_in_another_folder(tmp_path):
    ppo_clip.train(arguments(ppo_clip, "CartPole-v1", tmp_path / "old"))
    old = checkpoint(tmp_path / "old")
    resume = ["--resume", str(tmp_path / "old" / "checkpoint.pt")]
    more = ["--total-steps", "800", "--run-dir", str(tmp_path / "new")]
    ppo_clip.train(ppo_clip.parse_args([*resume, *more]))
    new = checkpoint(tmp_path / "new")["state"]
    assert new["steps"] >= 800 and new["iteration"] > old["state"]["iteration"]
    assert_equal(old, checkpoint(tmp_path / "old"))


# The learning rate


@every_script
def test_the_learning_rate_falls_in_a_line_and_is_never_negative(script, tmp_path):
    """α (1 - steps / total steps), with the steps before the iteration."""
    script.train(arguments(script, "CartPole-v1", tmp_path, "--learning-rate", "0.002"))
    points = curves(tmp_path)["train/learning_rate"]
    before = [0] + [step for step, _ in points[:-1]]
    expected = [0.002 * (1 - steps / 500) for steps in before]
    np.testing.assert_allclose([value for _, value in points], expected, rtol=1e-6)
    assert all(value > 0 for _, value in points) and len(points) >= 4
    # and it is the optimiser's, not only the log's
    (group,) = checkpoint(tmp_path)["parts"][optimizer_of(script)]["param_groups"]
    assert group["lr"] == pytest.approx(expected[-1])


def test_the_learning_rate_stays_where_it_is_without_annealing(tmp_path):
    more = ["--learning-rate", "0.002", "--no-anneal-learning-rate"]
    ppo_clip.train(arguments(ppo_clip, "CartPole-v1", tmp_path, *more))
    rates = {value for _, value in curves(tmp_path)["train/learning_rate"]}
    assert rates == {np.float32(0.002)}


# The scripts as processes


def run(script, *given, cwd):
    """A script's process, run to its end."""
    command = [sys.executable, ROOT / f"{script.__name__}.py", *given]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """{(script, env): (its run folder, its process)} of a training run of each.

    Two at a time: the processes do the work, the threads only wait.
    """
    folder = tmp_path_factory.mktemp("processes")

    def train(script, env):
        run_dir = folder / f"{script.__name__}-{env}"
        return run_dir, run(script, *flags(script, env, run_dir), cwd=folder)

    pairs = [(script, env) for script in SCRIPTS for env in ENVIRONMENTS]
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(pairs, pool.map(train, *zip(*pairs))))


@every_env
@every_script
def test_a_process_ends_with_the_evaluation_and_the_next_commands(
    script, env, finished
):
    run_dir, process = finished[script, env]
    assert process.returncode == 0, process.stderr
    assert "Traceback" not in process.stderr and "Warning" not in process.stderr
    evaluation, log, watch = process.stdout.splitlines()
    name, _, rest = evaluation.partition(": return ")
    mean, _, rest = rest.partition(" ± ")
    std, _, rest = rest.partition(" over ")
    assert name == env and rest == "10 episodes"
    assert math.isfinite(float(mean)) and float(std) >= 0
    assert log.split() == ["log:", "tensorboard", "--logdir", str(run_dir)]
    saved = str(run_dir / "checkpoint.pt")
    expected = ["watch:", "python", f"{script.__name__}.py", "--watch", saved]
    assert watch.split() == expected
    assert os.path.getsize(saved) > 1000
    assert len(list(run_dir.glob("events.out.tfevents.*"))) == 1
    assert len(list(run_dir.iterdir())) == 2  # nothing half-written stays


@every_env
@every_script
def test_tensorboard_shows_the_scalars_that_belong_to_the_script(script, env, finished):
    run_dir, _ = finished[script, env]
    accumulator = events(run_dir)
    assert set(accumulator.Tags()["scalars"]) == SCALARS[script]
    for name in SCALARS[script]:
        points = accumulator.Scalars(name)
        assert all(math.isfinite(point.value) for point in points)
        steps = [point.step for point in points]
        assert steps == sorted(set(steps)) and steps[0] > 0
    state = checkpoint(run_dir)["state"]
    points = accumulator.Scalars("train/kl")
    assert len(points) == state["iteration"] and points[-1].step == state["steps"]
    assert all(p.value > 0 for p in accumulator.Scalars("time/steps_per_second"))
    assert all(p.value >= 0 for p in accumulator.Scalars("train/kl"))
    lengths = [p.value for p in accumulator.Scalars("rollout/episode_length")]
    assert all(0 < length <= 40 for length in lengths)
    returns = [p.value for p in accumulator.Scalars("rollout/episode_return")]
    if env == "CartPole-v1":
        assert returns == lengths  # a point for each step
    else:
        assert all(-17 * 40 < total < 0 for total in returns)  # a cost up to 16.3


def test_a_curve_has_a_thousand_points_at_most_and_one_at_the_end(tmp_path):
    """As many as TensorBoard shows, evenly over a run of 1,500 iterations or more."""
    more = ["--num-envs", "1", "--rollout-steps", "2", "--total-steps", "3000"]
    actor_critic.train(arguments(actor_critic, "CartPole-v1", tmp_path, *more))
    state = checkpoint(tmp_path)["state"]
    assert state["iteration"] >= 1500
    for points in curves(tmp_path).values():
        steps = [step for step, _ in points]
        assert 900 <= len(steps) <= 1000 and steps[-1] == state["steps"]
        assert max(np.diff(steps)) <= 3 + 2  # a thousandth of the run, and an iteration


@every_script
def test_tensorboard_shows_the_arguments_and_the_versions_as_text(script, finished):
    run_dir, _ = finished[script, "Pendulum-v1"]
    (text,) = events(run_dir).Tensors("arguments/text_summary")
    shown = json.loads(text.tensor_proto.string_val[0])
    assert shown.pop("torch") == torch.__version__
    assert shown.pop("gymnasium") == gym.__version__
    given = script.parse_args(flags(script, "Pendulum-v1", run_dir))
    assert shown == vars(given)


@every_env
@every_script
def test_evaluating_the_checkpoint_repeats_the_evaluation_after_training(
    script, env, finished, capsys
):
    run_dir, process = finished[script, env]
    script.main(["--evaluate", str(run_dir / "checkpoint.pt")])
    assert capsys.readouterr().out == process.stdout
    assert len(list(run_dir.iterdir())) == 2  # evaluation writes nothing


def test_evaluating_the_checkpoint_in_a_process_does_so_too(finished):
    run_dir, process = finished[ppo_clip, "CartPole-v1"]
    evaluation = run(ppo_clip, "--evaluate", run_dir / "checkpoint.pt", cwd=ROOT)
    assert evaluation.returncode == 0 and evaluation.stderr == ""
    assert evaluation.stdout == process.stdout


def test_a_process_and_a_call_of_train_give_the_same_numbers(finished, tmp_path):
    run_dir, _ = finished[ppo_clip, "CartPole-v1"]
    ppo_clip.train(arguments(ppo_clip, "CartPole-v1", tmp_path))
    assert_equal(checkpoint(run_dir)["parts"], checkpoint(tmp_path)["parts"])
    assert curves(run_dir) == curves(tmp_path)


def test_run_folders_are_named_after_environment_script_seed_and_time(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    args = reinforce.parse_args(["--seed", "7", "--max-episode-steps", "9"])
    *parents, last = Path(args.run_dir).parts
    assert parents == ["runs", "CartPole-v1", "reinforce"]
    assert last.startswith("7-") and last[2:6] == time.strftime("%Y")
    reinforce.train(args, StopAfter(1))
    assert Path(tmp_path, args.run_dir, "checkpoint.pt").exists()


needs_video = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("moviepy", "pygame")),
    reason="recording needs moviepy and pygame",
)


@needs_video
def test_video_writes_a_film_of_each_evaluation_episode(tmp_path, monkeypatch):
    """Frames are drawn in memory, so no display is needed."""
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.delenv("DISPLAY", raising=False)
    ppo_clip.train(arguments(ppo_clip, "CartPole-v1", tmp_path / "run"))
    saved = ["--evaluate", str(tmp_path / "run" / "checkpoint.pt")]
    video = ["--video", str(tmp_path / "film"), "--eval-episodes", "2"]
    process = run(ppo_clip, *saved, *video, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert "over 2 episodes" in process.stdout
    films = [path for path in (tmp_path / "film").iterdir() if path.suffix == ".mp4"]
    assert len(films) == 2 and all(path.stat().st_size > 1000 for path in films)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_run_and_resuming_goes_on_from_there(number, tmp_path):
    """Exit code 130 or 143, as a shell would report; and the command to go on."""
    run_dir = tmp_path / "run"
    given = flags(ppo_clip, "CartPole-v1", run_dir)
    # seconds of training, and every iteration is longer than a thousandth of it
    given += ["--total-steps", "80_000", "--checkpoint-every", "1"]
    process = subprocess.Popen(
        [sys.executable, "ppo_clip.py", *given],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 60
        while not (run_dir / "checkpoint.pt").exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + number
    assert "Traceback" not in stderr
    (line,) = stdout.splitlines()
    stopped = checkpoint(run_dir)["state"]
    logged = curves(run_dir)["train/kl"]
    assert len(logged) == stopped["iteration"] and logged[-1][0] == stopped["steps"]

    python, *command = shlex.split(line.partition("to go on: ")[2])
    assert python == "python" and command[1] == "--resume"
    more = ["--total-steps", str(stopped["steps"] + 150)]
    resumed = subprocess.run(
        [sys.executable, *command, *more], cwd=ROOT, capture_output=True, timeout=120
    )
    assert resumed.returncode == 0, resumed.stderr
    assert stopped["steps"] + 150 <= checkpoint(run_dir)["state"]["steps"]
    steps = [step for step, _ in curves(run_dir)["train/kl"]]
    assert steps == sorted(set(steps))
    assert [step for step, _ in logged] == steps[: len(logged)]
    assert len(steps) == checkpoint(run_dir)["state"]["iteration"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@every_env
@every_script
def test_a_run_on_a_CUDA_device_goes_on_and_is_evaluated_there(script, env, tmp_path):
    policy, _ = script.train(arguments(script, env, tmp_path, "--device", "cuda"))
    assert next(policy.parameters()).is_cuda
    path = tmp_path / "checkpoint.pt"
    resume = script.parse_args(["--resume", str(path), "--total-steps", "800"])
    script.train(resume)
    assert checkpoint(tmp_path)["state"]["steps"] >= 800
    on_cuda, on_cpu = (
        script.evaluate(script.parse_args(["--evaluate", str(path), *more]), path)
        for more in ([], ["--device", "cpu"])
    )
    assert np.median(on_cuda) == pytest.approx(np.median(on_cpu), rel=0.2)


@pytest.fixture
def handlers():
    """What happens at a signal is after the test as it was before."""
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@every_script
def test_the_first_signal_asks_the_run_to_stop_and_the_second_ends_it(
    script, tmp_path, monkeypatch, handlers
):
    seen = []

    def train(args, stop):
        assert stop == []
        os.kill(os.getpid(), signal.SIGTERM)
        seen.append((list(stop), signal.getsignal(signal.SIGTERM)))

    monkeypatch.setattr(script, "train", train)
    with pytest.raises(SystemExit) as stopped:
        script.main(flags(script, "CartPole-v1", tmp_path))
    assert stopped.value.code == 128 + signal.SIGTERM
    assert seen == [([signal.SIGTERM], signal.SIG_DFL)]


@pytest.mark.parametrize("trained", [True, False])
@every_script
def test_a_signal_ends_an_evaluation_at_once(
    script, trained, tmp_path, monkeypatch, handlers
):
    """As the system does it, without a traceback: there is nothing to save."""
    seen = []

    def evaluate(args, checkpoint):
        seen.extend(map(signal.getsignal, (signal.SIGINT, signal.SIGTERM)))
        return np.zeros(1)

    args = arguments(script, "CartPole-v1", tmp_path)
    script.train(args, StopAfter(1))
    monkeypatch.setattr(script, "evaluate", evaluate)
    monkeypatch.setattr(script, "train", lambda *inputs: None)
    path = str(tmp_path / "checkpoint.pt")
    script.main(["--resume" if trained else "--watch", path])
    assert seen == [signal.SIG_DFL, signal.SIG_DFL]


def test_TQDM_DISABLE_does_not_stop_a_run(tmp_path):
    """It would stop the bar's counting, which the log needs, so it is overridden."""
    command = [sys.executable, "ppo_clip.py", *flags(ppo_clip, "CartPole-v1", tmp_path)]
    env = os.environ | {"TQDM_DISABLE": "1"}
    result = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    steps = [step for step, _ in curves(tmp_path)["train/kl"]]
    assert steps[-1] == checkpoint(tmp_path)["state"]["steps"] >= 500


@pytest.mark.skipif(sys.platform != "linux", reason="counts them in /proc")
def test_numpy_starts_no_threads_of_its_own():
    """The small products of acting would wait for them; torch is told in train()."""
    code = "import os, ppo_clip; print(len(os.listdir('/proc/self/task')))"
    env = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    command = [sys.executable, "-W", "ignore", "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, env=env, cwd=ROOT)
    assert run.stdout == "1\n"

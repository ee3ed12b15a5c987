"""What a run leaves behind: history, log, checkpoint; and what is made of them later.

Most is read off one training run of each script on the counting environment, whose
returns 1 + 2 + ... + n have another median than mean.
"""

import importlib.util
import io
import itertools
import math
import runpy
import sys
from collections import deque
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import torch
from support import (
    COPIES,
    ROOT,
    SCRIPTS,
    WITH_V,
    assert_equal,
    checkpoint,
    every_script,
    scalars,
    short_args,
    short_flags,
    train_and_watch,
    train_n_iterations,
    watch,
)
from tqdm import tqdm

import ppo_clip
import ppo_kl
import reinforce

SCALARS = {
    "rollout/episode_return": SCRIPTS,
    "rollout/episode_length": SCRIPTS,
    "train/policy_loss": SCRIPTS,
    "train/value_loss": WITH_V,
    "train/entropy": SCRIPTS,
    "train/kl": SCRIPTS,
    "train/explained_variance": WITH_V,
    "train/clip_fraction": [ppo_clip],
    "train/beta": [ppo_kl],
    "train/learning_rate": SCRIPTS,
    "time/steps_per_second": SCRIPTS,
}
GLOBAL_SETTINGS = "set_num_threads", "set_default_dtype", "use_deterministic_algorithms"


@pytest.fixture(scope="module", params=SCRIPTS, ids=lambda s: s.__name__)
def run(request, tmp_path_factory):
    """A training run of 1,200 steps, and the calls of the script's functions in it."""
    script = request.param
    COPIES.clear()
    folder = tmp_path_factory.mktemp(script.__name__) / "run"
    changes = {"env": "Counting-v0", "num_envs": 8, "rollout_steps": 20}
    changes |= {"total_steps": 1200, "checkpoint_every": 290, "beta": 16.0}
    args = short_args(script, folder, target_kl=5e-5, **changes)
    last_logged, save = [], script.save_checkpoint

    def look_at_log_and_save(*given, **more):
        last_logged.append(scalars(folder)["train/kl"][-1][0])
        save(*given, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(script, "save_checkpoint", look_at_log_and_save)
        names = "update", "log", "save_checkpoint", "open_log"
        calls = {name: watch(patch, script, name) for name in names}
        calls |= {name: watch(patch, torch, name) for name in GLOBAL_SETTINGS}
        policy, history = script.train(args)
    rollouts = [given[-1 - (script is ppo_kl)] for given, _ in calls["update"]]
    steps = np.cumsum([rollout.num_steps for rollout in rollouts]).tolist()
    assert 5 < len(steps) < 100 and steps[-1] >= 1200 > steps[-2]
    found = dict(script=script, args=args, calls=calls, policy=policy, history=history)
    found |= dict(rollouts=rollouts, steps=steps, copies=list(COPIES), folder=folder)
    found |= dict(saved=checkpoint(folder), scalars=scalars(folder))
    return SimpleNamespace(**found, last_logged=last_logged)


def test_history_holds_step_and_raw_return_of_every_episode(run):
    expected = [
        (steps, episode_return)
        for steps, rollout in zip(run.steps, run.rollouts)
        for episode_return, _ in rollout.episodes
    ]
    assert run.history == expected and len(expected) > 100
    possible = {n * (n + 1) / 2 for n in range(1, 10)}
    assert {total for _, total in run.history} == possible


def test_every_iteration_is_logged_to_the_last_with_every_scalar_of_the_script(run):
    names = {name for name, scripts in SCALARS.items() if run.script in scripts}
    assert set(run.scalars) == names
    for name, points in run.scalars.items():
        assert [step for step, _ in points] == run.steps, name
        assert all(math.isfinite(value) for _, value in points)
    for k, (_, metrics) in enumerate(run.calls["update"]):
        for name in metrics.keys() & {"train/kl", "train/value_loss", "train/entropy"}:
            assert run.scalars[name][k][1] == pytest.approx(metrics[name])
    if run.script is ppo_kl:
        betas = [beta for _, beta in run.scalars["train/beta"]] + [run.saved["beta"]]
        kls = [kl for _, kl in run.scalars["train/kl"]]
        following = [ppo_kl.adapt_beta(*pair, 5e-5) for pair in zip(betas, kls)]
        assert betas == pytest.approx([16.0, *following])
        assert {0.5, 2.0} <= {after / beta for beta, after in zip(betas, following)}


def test_the_logged_return_and_length_are_means_of_the_last_hundred_episodes(run):
    """Over the whole run and not the last iteration; not a median; raw."""
    points = zip(*(run.scalars[f"rollout/episode_{x}"] for x in ("return", "length")))
    episodes = []
    for rollout, ((_, mean_return), (_, mean_length)) in zip(run.rollouts, points):
        episodes += rollout.episodes
        means = np.mean(episodes[-100:], axis=0)
        assert [mean_return, mean_length] == pytest.approx(means)
    assert abs(means[0] - np.mean(episodes, axis=0)[0]) > 0.05


def test_the_learning_rate_of_every_adam_falls_in_a_line(run):
    """α (1 - steps / total steps), with the steps before the iteration; never 0."""
    rate = run.args.learning_rate
    expected = [rate * (1 - steps / 1200) for steps in [0, *run.steps[:-1]]]
    found = [value for _, value in run.scalars["train/learning_rate"]]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    for name in ["optimizer"] + ["critic_optimizer"] * (run.script is not reinforce):
        (group,) = run.saved[name]["param_groups"]  # and not the log's alone
        assert group["lr"] == pytest.approx(expected[-1])
        assert (group["eps"], tuple(group["betas"])) == (1e-5, (0.9, 0.999))
        assert group["weight_decay"] == 0 and not group["amsgrad"]


def test_a_checkpoint_is_saved_when_enough_steps_are_new_and_at_the_end(run):
    expected, last = [], 0
    for steps in run.steps:
        if steps - last >= 290 or steps >= 1200:
            expected.append(steps)
            last = steps
    assert [given[3] for given, _ in run.calls["save_checkpoint"]] == expected
    assert run.last_logged == expected  # what is saved is in the log already
    assert 1 < len(expected) < len(run.steps)


def test_the_checkpoint_holds_what_the_run_has_learnt(run):
    networks = ["policy"] if run.script is reinforce else ["policy", "value_function"]
    optimizers = ["optimizer", "critic_optimizer"][: len(networks)]
    expected = {"algorithm", "args", "steps", "observation", "return"}
    expected |= {*networks, *optimizers} | ({"beta"} if run.script is ppo_kl else set())
    assert set(run.saved) == expected
    assert run.saved["steps"] == run.steps[-1]
    assert_equal(run.saved["policy"], run.policy.state_dict())
    given = run.calls["update"][-1][0]  # the networks that the last update left
    for name, network in zip(networks, given[1:]):
        assert_equal(run.saved[name], network.state_dict())
    files = sorted(path.name[:10] for path in run.folder.iterdir())
    assert files == ["checkpoint", "events.out"]  # nothing half-written stays


def test_everything_is_closed_at_the_end_and_no_setting_of_torch_has_changed(run):
    assert len(run.copies) == 8 and all(env.closed for env in run.copies)
    ((_, (writer, bar)),) = run.calls["open_log"]
    assert writer.all_writers is None and bar.disable and bar.n == 1200
    assert not any(run.calls[name] for name in GLOBAL_SETTINGS)


def test_the_arguments_are_shown_as_text(tmp_path, monkeypatch):
    texts = watch(monkeypatch, ppo_clip.SummaryWriter, "add_text")
    args = short_args(ppo_clip, tmp_path)
    writer, _ = ppo_clip.open_log(args, 0)
    writer.close()
    (((_, name, text), _),) = texts
    assert name == "arguments"
    for flag, value in vars(args).items():
        assert f"| {flag} | {value} |" in text.splitlines()


def logged(metrics, episodes=(), steps=1, bar=None):
    """The points that one call of log() writes."""
    points, bar = [], bar or tqdm(total=100_000, file=io.StringIO())
    writer = SimpleNamespace(
        add_scalar=lambda *point: points.append(point), flush=lambda: None
    )
    ppo_clip.log(writer, bar, metrics, deque(episodes, maxlen=100), steps)
    return points


def test_log_shows_progress_and_remarks_once_that_no_episode_has_ended(capsys):
    bar = tqdm(total=25_000, file=sys.stdout)
    for steps in 19_999, 20_001, 24_000, 26_000:
        assert logged({"train/kl": 0.5}, [], steps, bar) == [("train/kl", 0.5, steps)]
        assert bar.n == min(steps, 25_000)
    assert capsys.readouterr().out.count("--max-episode-steps") == 1
    bar = tqdm(total=500, file=sys.stdout)
    for steps in 400, 510:  # a short run says so at its end
        assert "--max-episode-steps" not in capsys.readouterr().out
        logged({}, [], steps, bar)
    assert "--max-episode-steps" in capsys.readouterr().out
    logged({}, [(12.34, 5)], 25_000, bar)
    assert "return 12.3" in str(bar)


# The same seed, the same numbers


def test_seeds_that_are_near_each_other_seed_everything_differently():
    """Copy i of an environment gets the returned seed + i."""
    found = {}
    for numbers in [*((seed,) for seed in range(50)), (0, 500), (0, 500, 1), (500,)]:
        seed = ppo_clip.set_seed(*numbers)
        drawn = ppo_clip.random.random(), np.random.random(), torch.rand(1).item()
        assert ppo_clip.set_seed(*numbers) == seed
        again = ppo_clip.random.random(), np.random.random(), torch.rand(1).item()
        assert again == drawn
        found[seed] = drawn
    assert min(np.diff(sorted(found))) > 1000
    assert all(len(set(column)) == len(found) for column in zip(*found.values()))


@every_script
def test_a_seed_decides_every_parameter_and_every_logged_number(script, tmp_path):
    """Seed 0 is a seed like any other; each copy and run starts in its own state."""
    runs, first_states = [], []
    changes = {"total_steps": 200, "normalize_observations": False}
    changes["anneal_learning_rate"] = False
    for k, seed in enumerate([0, 0, 1]):
        args = short_args(script, tmp_path / str(k), seed=seed, **changes)
        torch.manual_seed(k)  # whatever was drawn before
        rollouts, (_, history) = train_and_watch(script, args)
        curves = scalars(args.run_dir)
        del curves["time/steps_per_second"]
        rates = {rate for _, rate in curves["train/learning_rate"]}
        assert rates == {np.float32(args.learning_rate)}
        saved = checkpoint(args.run_dir)
        del saved["args"]
        runs.append((saved, curves, history))
        if k:
            first_states += map(tuple, rollouts[0].obs[0])
            assert len({r.actions.tobytes() for r in rollouts}) == len(rollouts)
    assert_equal(runs[0], runs[1])
    one, two = (saved["policy"]["network.0.weight"] for saved, *_ in runs[1:])
    assert not torch.equal(one, two)
    assert len(set(first_states)) == 4


# Resuming


@every_script
def test_resuming_starts_from_the_whole_checkpoint(script, tmp_path, monkeypatch):
    """Parameters, Adam's moments, β, statistics, steps; but with a seed of its own."""
    args = short_args(script, tmp_path, env="Counting-v0")
    policy, _ = train_n_iterations(script, args, 3)
    before, seeds, restored = checkpoint(tmp_path), [], {}
    assert_equal(before["policy"], policy.state_dict())
    assert before["optimizer"]["state"][0]["step"] >= 3 and before["steps"] < 500

    def load(path, envs, parts, load=script.load_checkpoint):
        found = load(path, envs, parts)
        restored.update(parts)
        assert set(envs.statistics) == {"observation", "return"}
        for name, rms in envs.statistics.items():
            for saved, value in zip(before[name], (rms.mean, rms.var, rms.count)):
                np.testing.assert_array_equal(saved, value)
        return found

    def update(args, *given):
        for name, part in restored.items():
            state = part.state_dict()
            if "optimizer" in name:  # whose learning rate has fallen since
                state["param_groups"] = before[name]["param_groups"]
            assert_equal(state, before[name])
            assert any(part is one for one in given), name
        if script is ppo_kl and restored:
            assert given[-1] == before["beta"] != args.beta
        seeds.extend([torch.initial_seed(), COPIES[-1].np_random_seed])
        raise KeyboardInterrupt

    monkeypatch.setattr(script, "update", update)
    script.train(short_args(script, tmp_path / "first", env="Counting-v0"))
    resumed = script.parse_args(["--resume", str(tmp_path / "checkpoint.pt")])
    monkeypatch.setattr(script, "load_checkpoint", load)
    script.train(resumed)
    assert len(restored) == (2 if script is reinforce else 4)
    assert len(set(seeds)) == 4  # of PyTorch and of the environments, both runs


@every_script
def test_after_resuming_the_curves_go_on(script, tmp_path, monkeypatch):
    """The log of the first part is ahead of its checkpoint: that is overwritten."""
    args = short_args(script, tmp_path, checkpoint_every=1)
    with pytest.raises(ZeroDivisionError):
        train_n_iterations(script, args, 3, ZeroDivisionError)
    start = checkpoint(tmp_path)["steps"]
    assert 0 < start < scalars(tmp_path)["train/kl"][-1][0]
    for path in tmp_path.glob("events*"):  # TensorBoard orders files by their second
        path.rename(path.with_name(path.name.replace("tfevents.1", "tfevents.0")))
    resumed = script.parse_args(["--resume", str(tmp_path)])
    clock = SimpleNamespace(perf_counter=itertools.count(100).__next__)
    monkeypatch.setattr(script, "time", clock)  # a second later at each call
    _, history = script.train(resumed)
    curves = scalars(tmp_path)
    steps = [step for step, _ in curves["train/kl"]]
    assert steps == sorted(set(steps)) and start in steps
    assert steps[-1] == checkpoint(tmp_path)["steps"] >= 500
    assert history and all(start < step <= steps[-1] for step, _ in history)
    rates = [value for _, value in curves["train/learning_rate"]]
    expected = [args.learning_rate * (1 - step / 500) for step in [0, *steps[:-1]]]
    np.testing.assert_allclose(rates, expected, rtol=1e-6)
    speeds = [value for step, value in curves["time/steps_per_second"] if step > start]
    new = [step - start for step in steps if step > start]
    np.testing.assert_allclose(speeds, new / np.arange(1, len(new) + 1), rtol=1e-6)


def test_a_checkpoint_brings_the_flags_of_its_run_along(tmp_path):
    """All kinds of them; a flag that is given again is the one that counts.

    What belongs to one command is not saved: it would come back with the next one.
    """
    flags = ["--env-kwargs", '{"is_slippery": false, "map_name": "8x8"}', "--seed", "7"]
    flags += ["--hidden-sizes", "4", "6", "--no-normalize-rewards", "--gamma", "0.9"]
    flags += ["--video", "films", "--env", "FrozenLake-v1"]
    args = ppo_clip.parse_args([*short_flags(ppo_clip, tmp_path), *flags])
    train_n_iterations(ppo_clip, args, 1)
    first_layer = checkpoint(tmp_path)["policy"]["network.0.weight"]
    assert first_layer.shape == (4, 8 * 8)  # the environment had its arguments, too
    commands = {"resume", "evaluate", "watch", "video", "run_dir"}
    assert set(checkpoint(tmp_path)["args"]) == set(vars(args)) - commands
    for command in "resume", "evaluate", "watch":
        for path in str(tmp_path), str(tmp_path / "checkpoint.pt"):
            given = [f"--{command}", path, "--gamma", "0.8"]
            expected = vars(args) | {"video": None, "gamma": 0.8, command: path}
            assert vars(ppo_clip.parse_args(given)) == expected
            elsewhere = ppo_clip.parse_args([*given, "--run-dir", "new"])
            assert vars(elsewhere) == expected | {"run_dir": "new"}


# Evaluation


def played_by_hand(policy, args, seed, episodes):
    """The returns of episodes, one after the other, by the plainest loop there is.

    The checkpoint's statistics normalise the observation; the most probable action is
    stretched from [-1, 1] to Pendulum's [-2, 2] and clipped.
    """
    mean, var, _ = checkpoint(args.run_dir)["observation"]
    env = gym.make(args.env, max_episode_steps=args.max_episode_steps)
    returns = []
    for episode in range(episodes):
        obs, _ = env.reset(seed=None if episode else seed)
        total, done = 0.0, False
        while not done:
            obs = (obs - np.array(mean)) / np.sqrt(np.array(var) + 1e-8)
            obs = torch.tensor(np.clip(obs, -10, 10), dtype=torch.float32)
            with torch.no_grad():
                action = policy.distribution(obs[None]).mode[0].numpy()
            if args.env == "Pendulum-v1":
                action = np.clip(2 * action, -2, 2)
            obs, reward, terminated, truncated, _ = env.step(action)
            total, done = total + float(reward), terminated or truncated
        returns.append(total)
    return returns


@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
def test_the_saved_policy_plays_as_the_trained_one_does(env, tmp_path):
    """evaluate() gives what the policy in memory gets, in episodes not trained on."""
    args = short_args(ppo_clip, tmp_path, env=env, eval_episodes=4)
    policy, _ = ppo_clip.train(args)
    returns = ppo_clip.evaluate(args, tmp_path / "checkpoint.pt")
    seed = ppo_clip.set_seed(args.seed, checkpoint(tmp_path)["steps"], 1)
    assert seed != ppo_clip.set_seed(args.seed)
    expected = played_by_hand(policy, args, seed, 4)
    np.testing.assert_allclose(returns, expected, rtol=1e-4)
    np.testing.assert_array_equal(returns, ppo_clip.evaluate(args, tmp_path))


def test_an_evaluation_that_does_not_end_is_an_error_naming_the_flag(tmp_path):
    """The limit is for each episode, not for all together."""
    args = short_args(ppo_clip, tmp_path, env="Endless-v0")
    train_n_iterations(ppo_clip, args, 1)
    args.eval_episodes = 5
    assert len(ppo_clip.evaluate(args, tmp_path, longest_episode=41)) == 5
    args.max_episode_steps = None
    with pytest.raises(ppo_clip.UsageError, match="--max-episode-steps"):
        ppo_clip.evaluate(args, tmp_path, longest_episode=41)


def test_an_evaluation_is_shown_in_a_window_or_filmed_as_a_whole(tmp_path, monkeypatch):
    """Gymnasium's default schedule would film the first two, and then one at times."""
    train_n_iterations(ppo_clip, short_args(ppo_clip, tmp_path), 1)
    asked = []

    def make_envs(args, **options):
        asked.append(options)
        raise ZeroDivisionError

    monkeypatch.setattr(gym.wrappers, "RecordVideo", lambda *given: given)
    monkeypatch.setattr(ppo_clip, "make_envs", make_envs)
    for flags in "--evaluate", "--watch", "--video films --evaluate":
        args = ppo_clip.parse_args([*flags.split(), str(tmp_path)])
        with pytest.raises(ZeroDivisionError):
            ppo_clip.evaluate(args, tmp_path)
    (record,) = asked[2].pop("wrappers")
    env, folder, films = record("the environment")
    assert (env, folder) == ("the environment", "films")
    assert all(films(episode) for episode in range(10))
    modes = [options.pop("render_mode", None) for options in asked]
    assert modes == [None, "human", "rgb_array"]
    assert asked == [{"num_envs": 1, "training": False}] * 3


needs_video = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("moviepy", "pygame")),
    reason="recording needs moviepy and pygame",
)


@needs_video
def test_three_episodes_are_three_films(tmp_path, monkeypatch):
    """Frames are drawn in memory, so no display is needed."""
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.delenv("DISPLAY", raising=False)
    changes = {"eval_episodes": 3, "max_episode_steps": 9, "video": str(tmp_path / "f")}
    args = short_args(ppo_clip, tmp_path / "run", **changes)
    train_n_iterations(ppo_clip, args, 1)
    ppo_clip.evaluate(args, args.run_dir)
    films = list((tmp_path / "f").glob("*.mp4"))
    assert len(films) == 3 and all(path.stat().st_size > 1000 for path in films)


# Scripts as they are run


def test_the_last_line_is_mean_and_std(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ppo_clip, "evaluate", lambda *_: np.array([1.0, 2.0, 9.0]))
    ppo_clip.main([*short_flags(ppo_clip, tmp_path), "--video", "films"])
    *_, result, video = capsys.readouterr().out.splitlines()
    assert result == "CartPole-v1: return 4.0 ± 3.6 over 3 episodes"
    assert video == "video:  films"


def test_a_script_uses_one_thread_of_torch(monkeypatch):
    calls = watch(monkeypatch, torch, "set_num_threads")
    monkeypatch.setattr(sys, "argv", ["ppo_clip.py", "--help"])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_path(str(ROOT / "ppo_clip.py"), run_name="__main__")
    assert calls == [((1,), None)]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
@every_script
def test_a_run_on_a_CUDA_device_goes_on_and_is_evaluated_there(script, env, tmp_path):
    policy, _ = script.train(short_args(script, tmp_path, device="cuda", env=env))
    assert next(policy.parameters()).is_cuda
    resume = script.parse_args(["--resume", str(tmp_path), "--total-steps", "800"])
    script.train(resume)
    assert checkpoint(tmp_path)["steps"] >= 800
    args = script.parse_args(["--evaluate", str(tmp_path)])
    assert args.device == "cuda" and len(script.evaluate(args, tmp_path)) == 10

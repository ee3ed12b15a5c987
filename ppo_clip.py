"""PPO-Clip: many steps on one batch, with no gain from moving the policy too far.

Objective: with the ratio r_t(θ) = π_θ(a_t|s_t) / π_θk(a_t|s_t), maximise over θ
    L^CLIP_θk(θ) = E_{τ~π_k}[ Σ_t min(r_t(θ) Â_t, clip(r_t(θ), 1-ε, 1+ε) Â_t) ]
Gradient: E_{τ~π_k}[ Σ_t r_t(θ) Â_t ∇ log π_θ(a_t|s_t) ], without the steps whose ratio
    has left [1-ε, 1+ε] in the direction that Â_t favours. At θ = θ_k it is the policy
    gradient. The code takes a mean over all steps, not Σ_t.

    Input: initial policy parameters θ_0, clipping threshold ε
    for k = 0, 1, 2, ... do
        (1) collect a set of partial trajectories D_k with policy π_k = π(θ_k)
        (2) estimate the advantages Â_t, here with GAE
        (3) θ_{k+1} = argmax_θ L^CLIP_θk(θ), by K epochs of minibatch
            steps (Adam); the same steps fit the critic V(s) to R̂_t = Â_t + V(s_t)

    π_θ(a|s), V(s)     policy.distribution(obs), value_function(obs)
    r_t(θ), Â_t, R̂_t   ratio, advantages, returns
    ε                  --clip-epsilon
    K, γ, λ            --epochs, --gamma, --gae-lambda

New compared with ppo_kl.py: the minimum with the clipped ratio replaces the penalty, so
β, δ and step (4) are gone (Schulman et al. 2017, section 3).

    python ppo_clip.py
    python ppo_clip.py --env HalfCheetah-v5 --total-steps 1e6
"""

import argparse
import json
import math
import os
import random
import shlex
import signal
import sys
import time
from collections import deque
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from gymnasium.wrappers import vector as wrappers
from torch import nn
from torch.distributions import Categorical, Independent, Normal, kl_divergence
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from common import explained_variance, generalized_advantages, normalize

ALGORITHM = "ppo_clip"
Adam = partial(torch.optim.Adam, eps=1e-5, fused=True)  # eps of the PPO authors' code

# ------------------------------------------------------------------------- networks


def mlp(sizes, last_gain):
    """Linear layers with tanh between them; orthogonal weights, zero biases."""
    layers = []
    for inputs, outputs in zip(sizes[:-1], sizes[1:]):
        linear = nn.Linear(inputs, outputs, dtype=torch.float32)
        nn.init.orthogonal_(linear.weight, gain=math.sqrt(2))
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.Tanh()]
    nn.init.orthogonal_(linear.weight, gain=last_gain)
    return nn.Sequential(*layers[:-1])  # no tanh after the last layer


class Policy(nn.Module):
    """π_θ(a|s): categorical for Discrete actions, Gaussian for Box actions."""

    def __init__(self, envs, hidden_sizes, initial_variance):
        super().__init__()
        obs_size = envs.single_observation_space.shape[0]
        space = envs.single_action_space
        self.discrete = isinstance(space, Discrete)
        outputs = int(space.n) if self.discrete else math.prod(space.shape)
        # A small gain: at first the outputs are near 0, and no action is preferred.
        self.network = mlp([obs_size, *hidden_sizes, outputs], last_gain=0.01)
        if not self.discrete:
            # σ is the same for all s. At first Σσ² over actions is initial_variance.
            log_std = math.log(initial_variance / outputs) / 2
            self.log_std = nn.Parameter(torch.full(space.shape, log_std).float())

    def distribution(self, obs):
        """π_θ(·|s) for each row of obs, a tensor (B, observation)."""
        output = self.network(obs)
        if self.discrete:
            return Categorical(logits=output, validate_args=False)
        mean = output.reshape(-1, *self.log_std.shape)
        normal = Normal(mean, self.log_std.exp(), validate_args=False)
        return Independent(normal, self.log_std.ndim, validate_args=False)


class ValueFunction(nn.Module):
    """V(s), by a network of its own."""

    def __init__(self, envs, hidden_sizes):
        super().__init__()
        obs_size = envs.single_observation_space.shape[0]
        self.network = mlp([obs_size, *hidden_sizes, 1], last_gain=1.0)

    def forward(self, obs):
        """V(s) of shape (B,) for obs, a tensor (B, observation)."""
        return self.network(obs).squeeze(-1)


# ------------------------------------------------------------------------- algorithm


class Rollout(NamedTuple):
    """T steps in each of N environments, as NumPy arrays."""

    obs: np.ndarray  # (T + 1, N, observation): s_0 ... s_T
    actions: np.ndarray  # (T, N, ...)
    rewards: np.ndarray  # (T, N)
    terminated: np.ndarray  # (T, N): s_{t+1} is terminal, so V(s_{t+1}) = 0
    done: np.ndarray  # (T, N): terminated, or truncated by the time limit
    valid: np.ndarray  # (T, N): False for steps to leave out of learning
    episodes: list  # (undiscounted return, length) of each episode that ended
    num_steps: int  # environment steps taken, without resets


def collect_rollout(args, envs, policy, obs, done):
    """(1) T more steps in each of N environments, from obs (N, observation), done (N,).

    The step after an episode's end is only a reset: valid masks it. So obs[t + 1] is
    the state that action t led to, even at a time limit, and V(obs[t + 1]) bootstraps.
    """
    check_finite({"an observation": obs}, "see env.reset()")
    steps, observations, episodes, num_steps = [], [obs], [], 0
    for _ in range(args.rollout_steps):
        with torch.no_grad():
            action = policy.distribution(to_tensor(obs, args)).sample().cpu().numpy()
        valid = ~done
        num_steps += int(valid.sum())
        obs, reward, terminated, truncated, info = envs.step(action)
        check_finite({"an observation": obs, "a reward": reward}, "see env.step()")
        done = terminated | truncated
        steps.append((action, reward, terminated, done, valid))
        observations.append(obs)
        for i in np.flatnonzero(done & valid):
            episodes.append((info[STATS]["r"][i], info[STATS]["l"][i]))
    columns = [np.stack(column) for column in zip(*steps)]
    return Rollout(np.stack(observations), *columns, episodes, num_steps)


def gradient_step(args, optimizer, loss, network):
    """One optimiser step on the loss, with the norm of the gradient clipped."""
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(network.parameters(), args.max_grad_norm)
    optimizer.step()


def clipped_surrogate(ratio, advantage, epsilon):
    """min(r Â, clip(r, 1-ε, 1+ε) Â), element by element."""
    clipped_ratio = ratio.clamp(1 - epsilon, 1 + epsilon)
    return torch.min(ratio * advantage, clipped_ratio * advantage)


def update(args, policy, value_function, optimizer, critic_optimizer, rollout):
    """Learn from the B valid steps of a rollout; return the metrics."""
    # (2) returns and advantages, with the critic from before step (3)
    valid = rollout.valid
    with torch.no_grad():
        all_obs = to_tensor(rollout.obs, args).flatten(0, 1)  # a row for each state
        values = value_function(all_obs).cpu().numpy().reshape(rollout.obs.shape[:2])
    data = {
        "rewards": rollout.rewards,
        "values": values,
        "terminated": rollout.terminated,
        "done": rollout.done,
        "gamma": args.gamma,
    }
    advantages = generalized_advantages(**data, lam=args.gae_lambda)
    returns = advantages + values[:-1]
    variance_explained = explained_variance(values[:-1][valid], returns[valid])
    if args.normalize_advantages:
        advantages = normalize(advantages, valid)

    # from (T, N, ...) arrays to tensors of the B valid steps
    obs = to_tensor(rollout.obs[:-1][valid], args)
    actions = torch.as_tensor(rollout.actions[valid], device=args.device)
    advantages = to_tensor(advantages[valid], args)
    returns = to_tensor(returns[valid], args)
    with torch.no_grad():
        old_distribution = policy.distribution(obs)
        old_log_probs = old_distribution.log_prob(actions)

    # (3) K epochs over the batch, each in minibatches of nearly equal size
    num_minibatches = max(1, len(obs) // args.minibatch_size)
    for _ in range(args.epochs):
        for rows in torch.randperm(len(obs)).tensor_split(num_minibatches):
            distribution = policy.distribution(obs[rows])
            ratio = (distribution.log_prob(actions[rows]) - old_log_probs[rows]).exp()
            gains = clipped_surrogate(ratio, advantages[rows], args.clip_epsilon)
            objective = gains.mean()
            bonus = args.entropy_coefficient * distribution.entropy().mean()
            gradient_step(args, optimizer, -objective - bonus, policy)
            value_loss = (value_function(obs[rows]) - returns[rows]).square().mean()
            gradient_step(args, critic_optimizer, value_loss, value_function)

    with torch.no_grad():  # metrics of the whole batch after the update
        distribution = policy.distribution(obs)
        ratio = (distribution.log_prob(actions) - old_log_probs).exp()
        gains = clipped_surrogate(ratio, advantages, args.clip_epsilon)
        objective = gains.mean()
        clipped = (ratio - 1).abs() > args.clip_epsilon
        return {
            "train/policy_loss": -objective.item(),
            "train/value_loss": (value_function(obs) - returns).square().mean().item(),
            "train/entropy": distribution.entropy().mean().item(),
            "train/kl": kl_divergence(old_distribution, distribution).mean().item(),
            "train/clip_fraction": clipped.float().mean().item(),
            "train/explained_variance": variance_explained,
        }


def train(args):
    """Train until args.total_steps or Ctrl-C, and save the result in args.run_dir.

    Returns the policy and the history: (environment steps, return) of each episode.
    """
    seed = set_seed(args.seed)
    envs = make_envs(args, args.num_envs)
    policy = Policy(envs, args.hidden_sizes, args.initial_variance).to(args.device)
    value_function = ValueFunction(envs, args.hidden_sizes).to(args.device)
    optimizer = Adam(policy.parameters(), args.learning_rate)
    critic_optimizer = Adam(value_function.parameters(), args.learning_rate)
    parts = {"policy": policy, "value_function": value_function}
    parts |= {"optimizer": optimizer, "critic_optimizer": critic_optimizer}
    start = 0
    if args.resume:
        checkpoint = load_checkpoint(args.resume, envs, parts)
        start = checkpoint["steps"]
        seed = set_seed(args.seed, start)
    steps, saved, history, last_episodes = start, start, [], deque(maxlen=100)
    writer, bar = open_log(args, start)
    begin = time.perf_counter()
    try:
        obs, _ = envs.reset(seed=seed)
        done = np.zeros(args.num_envs, dtype=bool)
        while steps < args.total_steps:
            learning_rate = args.learning_rate
            if args.anneal_learning_rate:  # linearly to 0
                learning_rate *= 1 - steps / args.total_steps
            optimizer.param_groups[0]["lr"] = learning_rate
            critic_optimizer.param_groups[0]["lr"] = learning_rate
            rollout = collect_rollout(args, envs, policy, obs, done)
            obs, done = rollout.obs[-1], rollout.done[-1]
            metrics = update(
                args, policy, value_function, optimizer, critic_optimizer, rollout
            )
            steps += rollout.num_steps
            history += [(steps, episode[0]) for episode in rollout.episodes]
            last_episodes += rollout.episodes
            metrics["train/learning_rate"] = learning_rate
            elapsed = time.perf_counter() - begin
            metrics["time/steps_per_second"] = (steps - start) / elapsed
            log(writer, bar, metrics, last_episodes, steps)
            if steps - saved >= args.checkpoint_every or steps >= args.total_steps:
                save_checkpoint(args, envs, parts, steps)
                saved = steps
    except KeyboardInterrupt:  # what is saved may hold a part of an update
        if steps > saved:
            save_checkpoint(args, envs, parts, steps)
    finally:
        bar.close()
        writer.close()
        envs.close(**envs.close_options)  # Ctrl-C may leave a step half done
    return policy, history


# ------------------------------------ environments, log, checkpoints, evaluation, flags

STATS = "episode_statistics"  # key in info; environments may use "episode" themselves
COMMANDS = ["resume", "evaluate", "watch", "video", "run_dir"]  # not saved


class UsageError(Exception):
    """The request cannot be carried out; main prints the reason in one line."""


def to_tensor(array, args):
    """array as float32 on args.device."""
    return torch.as_tensor(array, dtype=torch.float32, device=args.device)


def check_finite(named_values, hint):
    """Raise FloatingPointError if a value is NaN or infinite."""
    for name, value in named_values.items():
        if not np.isfinite(value).all():
            raise FloatingPointError(f"{name} is not finite: {hint}")


def set_seed(*numbers):
    """Seed Python, NumPy and PyTorch; return a hash to seed the environments with."""
    seed = int(np.random.SeedSequence(numbers).generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    return seed


class OwnProcess(gym.Wrapper):
    """An environment in a process that it seeds itself; Ctrl-C is left to train."""

    def reset(self, *, seed=None, options=None):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if seed is not None:
            set_seed(seed)
        return super().reset(seed=seed, options=options)


def make_envs(args, num_envs, training=True, **kwargs):
    """num_envs copies of args.env, with flat observations and raw returns in info."""
    mode = args.vectorization if training else "sync"
    if mode == "async":
        kwargs["wrappers"] = [OwnProcess]
    if args.max_episode_steps:
        kwargs["max_episode_steps"] = args.max_episode_steps
    try:
        mode = None if mode == "auto" else mode
        envs = gym.make_vec(args.env, num_envs, mode, **args.env_kwargs, **kwargs)
    except (gym.error.Error, ModuleNotFoundError) as error:
        raise UsageError(f"cannot make {args.env}: {error!r}") from error
    if envs.metadata.get("autoreset_mode") != gym.vector.AutoresetMode.NEXT_STEP:
        raise UsageError(f"{args.env} must have the autoreset mode NEXT_STEP")
    actions, observations = envs.single_action_space, envs.single_observation_space
    if not (isinstance(actions, Discrete) or actions.dtype in (np.float32, np.float64)):
        raise UsageError(f"{actions} needs an ActionWrapper to Discrete or float Box")
    try:
        if not isinstance(observations, Box) or len(observations.shape) != 1:
            envs = wrappers.FlattenObservation(envs)  # Discrete becomes one-hot
        if not isinstance(envs.single_observation_space, Box):
            raise NotImplementedError
    except NotImplementedError:
        raise UsageError(f"{observations} needs an ObservationWrapper to Box") from None
    envs = wrappers.RecordEpisodeStatistics(envs, stats_key=STATS)
    statistics = {}
    if args.normalize_observations and not isinstance(observations, Discrete):
        envs = wrappers.NormalizeObservation(envs)
        envs.update_running_mean = training
        statistics["observation"] = envs.obs_rms
        envs = wrappers.TransformObservation(envs, lambda obs: obs.clip(-10, 10))
    if args.normalize_rewards and training:
        envs = wrappers.NormalizeReward(envs, args.gamma)
        statistics["return"] = envs.return_rms
        envs = wrappers.TransformReward(envs, lambda reward: reward.clip(-10, 10))
    if isinstance(actions, Discrete):
        envs = wrappers.TransformAction(envs, lambda a: a + actions.start)
    else:
        low, high = actions.low, actions.high
        bounded = (low > -1e6) & (high < 1e6)  # bounds beyond 1e6 count as none
        bottom, top = np.where(bounded, low, -1), np.where(bounded, high, 1)
        middle, half = (top + bottom) / 2, (top - bottom) / 2
        envs = wrappers.TransformAction(envs, lambda a: a.clip(low, high))
        envs = wrappers.TransformAction(envs, lambda a: middle + half * a)  # acts first
    envs.statistics = statistics
    envs.close_options = {"timeout": 5} if args.vectorization == "async" else {}
    return envs


def open_log(args, start):
    """A TensorBoard writer and a progress bar that begin at step start."""
    if start >= args.total_steps:
        raise UsageError(f"{args.resume} has {start} steps: raise --total-steps")
    try:
        os.makedirs(args.run_dir, exist_ok=True)
        if os.listdir(args.run_dir) and not args.resume:
            raise UsageError(f"{args.run_dir} is not empty: choose another --run-dir")
        writer = SummaryWriter(args.run_dir, purge_step=start + 1)
    except OSError as error:
        raise UsageError(f"cannot use the folder of the run: {error}") from error
    rows = [f"| {name} | {value} |" for name, value in vars(args).items()]
    writer.add_text("arguments", "\n".join(["| flag | value |", "| - | - |", *rows]))
    return writer, tqdm(total=args.total_steps, initial=start, unit="step")


def log(writer, bar, metrics, last_episodes, steps):
    """Write one iteration's metrics; returns are means of the last 100 episodes."""
    if last_episodes:
        mean_return, mean_length = np.mean(last_episodes, axis=0)
        metrics["rollout/episode_return"] = mean_return
        metrics["rollout/episode_length"] = mean_length
        bar.set_postfix_str(f"return {mean_return:.1f}", refresh=False)
    elif bar.n < min(20_000, bar.total) <= steps:
        bar.write("no episode has ended yet: is --max-episode-steps missing?")
    bar.update(min(steps, bar.total) - bar.n)
    check_finite(metrics, "is --learning-rate too large?")
    for name, value in metrics.items():
        writer.add_scalar(name, value, steps)
    writer.flush()


def save_checkpoint(args, envs, parts, steps, **more):
    """Save what evaluation and resuming need, and replace the previous checkpoint."""
    flags = {name: x for name, x in vars(args).items() if name not in COMMANDS}
    checkpoint = {"algorithm": ALGORITHM, "args": flags, "steps": steps, **more}
    checkpoint |= {name: part.state_dict() for name, part in parts.items()}
    for name, rms in envs.statistics.items():
        checkpoint[name] = [rms.mean.tolist(), rms.var.tolist(), float(rms.count)]
    path = Path(args.run_dir, "checkpoint.pt")
    torch.save(checkpoint, path.with_suffix(".tmp"))
    os.replace(path.with_suffix(".tmp"), path)


def load_checkpoint(path, envs=None, parts=None):
    """Read a checkpoint, and load it into parts and the statistics of envs."""
    path = Path(path, "checkpoint.pt") if os.path.isdir(path) else path
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        if checkpoint["algorithm"] != ALGORITHM:
            raise ValueError(f"it is a checkpoint of {checkpoint['algorithm']}")
        for name, part in (parts or {}).items():
            part.load_state_dict(checkpoint[name])
        for name, rms in (envs.statistics if envs else {}).items():
            rms.mean, rms.var, rms.count = (np.array(x) for x in checkpoint[name])
    except Exception as error:
        raise UsageError(f"cannot load {path}: {error!r}") from error
    return checkpoint


def evaluate(args, checkpoint, longest_episode=100_000):
    """Raw returns of args.eval_episodes episodes, with the most probable actions."""
    kwargs = {"render_mode": "human"} if args.watch else {}
    if args.video:
        film = gym.wrappers.RecordVideo
        film_all = [lambda env: film(env, args.video, lambda episode: True)]
        kwargs = {"render_mode": "rgb_array", "wrappers": film_all}
    envs = make_envs(args, num_envs=1, training=False, **kwargs)
    policy = Policy(envs, args.hidden_sizes, args.initial_variance).to(args.device)
    trained_steps = load_checkpoint(checkpoint, envs, {"policy": policy})["steps"]
    obs, _ = envs.reset(seed=set_seed(args.seed, trained_steps, 1))  # not training's
    returns = []
    with tqdm(desc="evaluation", unit="step", leave=False) as bar:
        while len(returns) < args.eval_episodes:
            with torch.no_grad():
                action = policy.distribution(to_tensor(obs, args)).mode
            obs, _, terminated, truncated, info = envs.step(action.cpu().numpy())
            bar.update()
            if terminated[0] or truncated[0]:
                returns.append(info[STATS]["r"][0])
            if bar.n > longest_episode * (len(returns) + 1):
                raise UsageError("an episode does not end: set --max-episode-steps")
    envs.close()
    return np.array(returns)


def number(kind, low, high=math.inf):
    """An argparse type: an int or a float from low to high; 1e6 is an int, too."""

    def convert(text):
        value = float(text)
        if not low <= value <= high or (kind is int and value % 1 > 0):
            raise argparse.ArgumentTypeError(f"need {kind.__name__}, {low} to {high:g}")
        return value if math.isinf(value) else kind(value)

    convert.__name__ = kind.__name__  # for argparse's message
    return convert


def JSON(text):
    """An argparse type, named for argparse's message: a JSON object, as a dict."""
    return dict(json.loads(text))


def parse_args(argv=None):
    """The flags; given a checkpoint, the flags of its run are the defaults."""
    formatter = argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser(description=ALGORITHM, formatter_class=formatter)
    flag = parser.add_argument
    count, weight, fraction = number(int, 1, 1e9), number(float, 0), number(float, 0, 1)
    switch = argparse.BooleanOptionalAction  # --name and --no-name
    flag("--clip-epsilon", type=weight, default=0.2, help="clipping threshold")
    flag("--epochs", type=count, default=5, help="passes over each batch")
    flag("--minibatch-size", type=count, default=256, help="steps in a minibatch")
    flag("--gae-lambda", type=fraction, default=0.95, help="0 is TD, 1 sums to the end")
    flag("--rollout-steps", type=number(int, 2), default=256, help="steps in each copy")
    flag("--normalize-advantages", action=switch, default=True, help="to mean 0, std 1")
    flag("--gamma", type=fraction, default=0.99, help="discount factor")
    flag("--learning-rate", type=weight, default=2.5e-3, help="initial step size")
    flag("--anneal-learning-rate", action=switch, default=True, help="linearly to 0")
    flag("--max-grad-norm", type=weight, default=0.5, help="bound on gradient norms")
    flag("--entropy-coefficient", type=weight, default=0.0, help="weight of entropy")
    flag("--hidden-sizes", type=count, nargs="*", default=[64, 64], help="layer sizes")
    flag("--initial-variance", type=number(float, 1e-6), default=1.5, help="of actions")
    flag("--normalize-observations", action=switch, default=True, help="mean 0, std 1")
    flag("--normalize-rewards", action=switch, default=True, help="by their scale only")
    flag("--env", default="CartPole-v1", help="Gymnasium id, or module:id")
    flag("--env-kwargs", type=JSON, default={}, help="environment's arguments, as JSON")
    flag("--max-episode-steps", type=count, help="time limit in place of its own")
    flag("--num-envs", type=count, default=8, help="number of parallel environments")
    modes = ["auto", "sync", "async"]
    flag("--vectorization", choices=modes, default="auto", help="how copies are run")
    flag("--seed", type=number(int, 0, 1e9), default=0, help="random seed of the run")
    flag("--total-steps", type=count, default=100_000, help="environment steps in all")
    flag("--device", choices=["cpu", "cuda"], default="cpu", help="where networks run")
    flag("--run-dir", help="folder for log and checkpoint; otherwise a new one in runs")
    flag("--checkpoint-every", type=count, default=20_000, help="steps between saves")
    flag("--eval-episodes", type=count, default=10, help="episodes to evaluate")
    flag("--video", metavar="FOLDER", help="record the evaluation in this folder")
    flag = parser.add_mutually_exclusive_group().add_argument
    flag("--resume", metavar="CHECKPOINT", help="continue a training run")
    flag("--evaluate", metavar="CHECKPOINT", help="evaluate a policy without training")
    flag("--watch", metavar="CHECKPOINT", help="evaluate a policy in a window")
    args = parser.parse_args(argv)
    path = args.resume or args.evaluate or args.watch
    if path:
        folder = path if os.path.isdir(path) else os.path.dirname(path)
        parser.set_defaults(**load_checkpoint(path)["args"], run_dir=folder or ".")
        args = parser.parse_args(argv)
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("argument --device: PyTorch finds no CUDA device; use cpu")
    if args.total_steps < args.num_envs * args.rollout_steps:
        parser.error(f"--total-steps: at least {args.num_envs * args.rollout_steps}")
    if not args.run_dir:  # a new one, legal on Windows too
        name = f"seed{args.seed}-{datetime.now():%Y%m%d-%H%M%S-%f}"
        args.run_dir = str(Path("runs", args.env.replace(":", "-"), ALGORITHM, name))
    return args


def main(argv=None):
    """Train, then evaluate; or only evaluate a checkpoint."""
    sys.path.append(os.getcwd())  # where --env module:id may find its module
    try:
        args = parse_args(argv)
        checkpoint = args.evaluate or args.watch
        if not checkpoint:
            train(args)
            checkpoint, steps = os.path.join(args.run_dir, "checkpoint.pt"), 0
            print(f"log:    tensorboard --logdir {shlex.quote(args.run_dir)}")
            if os.path.exists(checkpoint):
                steps = load_checkpoint(checkpoint)["steps"]
                command = "watch" if steps >= args.total_steps else "resume"
                script, path = shlex.quote(sys.argv[0]), shlex.quote(checkpoint)
                print(f"{command + ':':7} python {script} --{command} {path}")
            if steps < args.total_steps:  # end by SIGINT, so that a shell loop ends
                print("interrupted" if steps else "interrupted too early", flush=True)
                if not hasattr(sys, "ps1"):  # an interactive Python goes on
                    signal.signal(signal.SIGINT, signal.SIG_DFL)
                signal.raise_signal(signal.SIGINT)
        returns = evaluate(args, checkpoint)
        mean, std = returns.mean(), returns.std()
        print(f"{args.env}: return {mean:.1f} ± {std:.1f} over {len(returns)} episodes")
        if args.video:
            print(f"video:  {args.video}")
    except (UsageError, gym.error.Error) as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    torch.set_num_threads(1)  # more threads only slow down networks this small
    main()

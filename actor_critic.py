"""Actor-critic: a learned value function stands in for the part of the return not seen.

Objective: maximise J(θ) = E_{τ~π_θ}[ Σ_t γ^t r_t ].
Gradient: ĝ = mean over the batch of ∇ log π_θ(a_t|s_t) Â_t, Â_t = R̂_t - V(s_t), where
    the target R̂_t is any blend of TD and Monte Carlo:
    R̂_t^(1) = r_t + γ V(s_{t+1}),   R̂_t^(2) = r_t + γ r_{t+1} + γ² V(s_{t+2}),   ...,
    R̂_t^(∞) = r_t + γ r_{t+1} + γ² r_{t+2} + ...,   or all of them, weighted by λ (GAE)

    Input: initial policy parameters θ_0, initial critic V
    for k = 0, 1, 2, ... do
        (1) collect a set of partial trajectories D_k with policy π_k = π(θ_k)
        (2) estimate Â_t and R̂_t = Â_t + V(s_t), n-step or λ-weighted
        (3) re-fit the critic: --critic-epochs steps down the mean of (V(s_t) - R̂_t)²
        (4) update the policy with ĝ, plugged into the same Adam
    end for

    π_θ(a|s), π_k   policy.distribution(obs), old_distribution
    V(s), Â_t, R̂_t  value_function(obs), advantages, targets
    n, λ            --n-steps, --gae-lambda
    α, γ            --learning-rate, --gamma

New against vpg_baseline.py: targets bootstrap with V, so trajectories may be partial:
less variance for some bias, and an update every few steps. The baseline has become a
critic, which estimates what has not been seen (Mnih et al. 2016; Schulman et al. 2016).
By default a small entropy bonus keeps π exploring (the former's section 4), and a
tighter bound on gradients makes small, noisy batches count alike. ĝ is a mean over
steps: partial trajectories have no m. γ^t is left out, as before.

    python actor_critic.py
    python actor_critic.py --env Pendulum-v1 --total-steps 300_000 --n-steps 5
"""

import argparse
import io
import json
import math
import os
import signal
import sys
import threading
import time
import zipfile
from collections import namedtuple
from contextlib import suppress
from functools import partial
from inspect import unwrap
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # NumPy: threads wait more than they help

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import vector as wrappers
from torch import nn
from torch.distributions import Categorical, Independent, Normal, kl_divergence
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from common import explained_variance, generalized_advantages, n_step_returns, normalize

SCRIPT = Path(__file__).name
Rollout = namedtuple(
    "Rollout", "obs actions rewards terminated done valid episodes steps"
)


def mlp(sizes, last_gain):
    """Linear layers with tanh between them; orthogonal weights, zero biases."""
    layers = []
    for fan_in, fan_out in zip(sizes[:-1], sizes[1:]):
        layers += [nn.Linear(fan_in, fan_out), nn.Tanh()]
        nn.init.orthogonal_(layers[-2].weight, math.sqrt(2))
        nn.init.zeros_(layers[-2].bias)
    nn.init.orthogonal_(layers[-2].weight, last_gain)
    return nn.Sequential(*layers[:-1])


class Policy(nn.Module):
    """π_θ(a|s): categorical for Discrete actions, Gaussian for Box actions."""

    def __init__(self, envs, hidden_sizes, initial_variance):
        super().__init__()
        space = envs.single_action_space
        self.discrete = isinstance(space, Discrete)
        inputs = envs.single_observation_space.shape[0]
        outputs = int(space.n) if self.discrete else math.prod(space.shape)
        # a small last layer: the first policy hardly prefers any action
        self.network = mlp([inputs, *hidden_sizes, outputs], last_gain=0.01)
        if not self.discrete:
            # σ is the same for all s. What is set at first is Σσ² = E|a - mean|²: with
            # more of it a robot falls, with less no far goal is found.
            log_std = torch.full(space.shape, math.log(initial_variance / outputs) / 2)
            self.log_std = nn.Parameter(log_std)

    def distribution(self, obs):
        """π_θ(·|s), one event per row of obs (B, observation); sampler() must agree."""
        output = self.network(obs)
        if self.discrete:
            return Categorical(logits=output)
        mean = output.reshape(-1, *self.log_std.shape)
        return Independent(Normal(mean, self.log_std.exp()), self.log_std.ndim)

    def sampler(self):
        """A function of an array obs (N, observation): a ~ π_θ(·|s), until θ changes.

        It draws as distribution(obs).sample() does, but in NumPy: for a few rows at a
        time PyTorch takes several times as long. PyTorch's generator seeds NumPy's.
        """
        layers = list(self.network)  # Linear, Tanh, ..., Linear: sample() knows these
        assert len(layers) % 2 and all(isinstance(x, nn.Tanh) for x in layers[1::2])
        weights = [layer.weight.detach().cpu().numpy().T for layer in layers[::2]]
        biases = [layer.bias.detach().cpu().numpy() for layer in layers[::2]]
        std = None if self.discrete else self.log_std.detach().exp().cpu().numpy()
        rng = np.random.default_rng(torch.randint(2**62, ()).item())

        def sample(obs):
            x = obs.astype(np.float32)
            for weight, bias in zip(weights[:-1], biases[:-1]):
                x = np.tanh(x @ weight + bias)
            output = x @ weights[-1] + biases[-1]
            if self.discrete:  # Gumbel-max trick: it draws from the logits' softmax
                return (output + rng.gumbel(size=output.shape)).argmax(-1)
            mean = output.reshape(-1, *std.shape)
            return mean + std * rng.standard_normal(mean.shape, np.float32)

        return sample


class ValueFunction(nn.Module):
    """V(s), by a network of its own."""

    def __init__(self, envs, hidden_sizes):
        super().__init__()
        inputs = envs.single_observation_space.shape[0]
        self.network = mlp([inputs, *hidden_sizes, 1], last_gain=1.0)

    def forward(self, obs):
        """V(s) of shape (...) for obs (..., observation)."""
        return self.network(obs).squeeze(-1)


def collect_rollout(args, envs, policy, obs, done):
    """(1) T steps in each of N copies, going on from obs (N, observation), done (N,).

    Fields are (T, N, ...), obs is (T + 1, N, ...); flags at t are the outcome of action
    t. obs[t + 1] is what action t led to, an episode's last observation too: V(obs[1:])
    is every bootstrap value. valid masks the row after an episode's end, its reset.
    episodes holds the (raw return, length) of those that ended.
    """
    sample, rows, episodes = policy.sampler(), [], []
    for _ in range(args.rollout_steps):
        action = sample(obs)
        next_obs, reward, terminated, truncated, info = envs.step(action)
        rows.append((obs, action, reward, terminated, truncated))
        obs = next_obs
        if "episode" in info:  # in some copies it ended with this step
            ended, episode = info["_episode"], info["episode"]
            episodes += zip(episode["r"][ended].tolist(), episode["l"][ended].tolist())
    all_obs, actions, rewards, terminated, truncated = map(np.stack, zip(*rows))
    all_obs = np.concatenate([all_obs, obs[None]])
    all_done = np.concatenate([done[None], terminated | truncated])
    done, valid = all_done[1:], ~all_done[:-1]
    fields = all_obs, actions, rewards, terminated, done, valid
    return Rollout(*fields, episodes, steps=int(valid.sum()))


def update(args, policy, value_function, optimizer, rollout):
    """Learn from the rollout's B valid rows; returns the scalars to log."""
    valid = rollout.valid
    obs = to_tensor(rollout.obs[:-1][valid], args)  # (B, observation)
    actions = torch.as_tensor(rollout.actions[valid], device=args.device)  # (B, ...)
    with torch.no_grad():  # constants in the gradient
        values = value_function(to_tensor(rollout.obs, args))  # (T + 1, N)
    values = values.cpu().numpy()

    # (2) returns and advantages: the values are those from before the fit in (3)
    data = rollout.rewards, values, rollout.terminated, rollout.done
    advantages = generalized_advantages(*data, args.gamma, args.gae_lambda)
    if args.n_steps is not None:
        advantages = n_step_returns(*data, args.gamma, args.n_steps) - values[:-1]
    returns = advantages + values[:-1]  # R̂_t
    targets = returns[valid]
    fit = explained_variance(values[:-1][valid], targets)
    if args.normalize_advantages:
        advantages = normalize(advantages, valid)
    advantages = advantages[valid]
    advantages, targets = to_tensor(advantages, args), to_tensor(targets, args)  # (B,)

    # (3) re-fit the critic: what it gets wrong is the bias of the next Â
    for _ in range(args.critic_epochs):
        value_loss = (value_function(obs) - targets).square().mean()
        gradient_step(args, optimizer, value_loss, value_function)

    # (4) one step of the policy
    old_distribution = policy.distribution(obs)  # of the θ that collected
    objective = (old_distribution.log_prob(actions) * advantages).mean()
    if args.entropy_coefficient:
        objective += args.entropy_coefficient * old_distribution.entropy().mean()
    gradient_step(args, optimizer, -objective, policy)  # optimisers minimise

    with torch.no_grad():  # what the update has made of the whole batch
        distribution = policy.distribution(obs)
        kl = kl_divergence(old_distribution, distribution).mean()
        objective = (distribution.log_prob(actions) * advantages).mean()
        value_loss = (value_function(obs) - targets).square().mean()
    return {
        "train/policy_loss": -objective.item(),
        "train/value_loss": value_loss.item(),
        "train/entropy": distribution.entropy().mean().item(),
        "train/kl": kl.item(),
        "train/explained_variance": fit,
    }


def gradient_step(args, optimizer, loss, *networks):
    """One step down the gradient of loss; each network's gradient norm is bounded."""
    optimizer.zero_grad()
    loss.backward()
    for network in networks:
        nn.utils.clip_grad_norm_(network.parameters(), args.max_grad_norm)
    optimizer.step()


class Adam(torch.optim.Adam):
    """PyTorch's Adam, undecorated: to load torch.compile for it would take a second."""

    add_param_group = unwrap(torch.optim.Adam.add_param_group)
    zero_grad = unwrap(torch.optim.Adam.zero_grad)
    step = torch.no_grad()(unwrap(torch.optim.Adam.step))
    state_dict = unwrap(torch.optim.Adam.state_dict)
    load_state_dict = unwrap(torch.optim.Adam.load_state_dict)


def train(args, stop=()):
    """The training loop, until args.total_steps or until something is put into stop.

    Returns the trained policy and the raw returns of the training episodes, in order.
    """
    torch.set_num_threads(1)  # small networks are slower on more
    torch.manual_seed(args.seed)
    torch.distributions.Distribution.set_default_validate_args(False)  # log() checks
    envs = make_envs(args, args.num_envs)
    policy = Policy(envs, args.hidden_sizes, args.initial_variance).to(args.device)
    value_function = ValueFunction(envs, args.hidden_sizes).to(args.device)
    parameters = [*policy.parameters(), *value_function.parameters()]
    optimizer = Adam(parameters, args.learning_rate, eps=1e-5, fused=True)
    parts = {"policy": policy, "value_function": value_function, "optimizer": optimizer}
    state = {"iteration": 0, "steps": 0, "episodes": []}
    if args.resume:
        state |= load_checkpoint(args.resume, envs, parts)["state"]
    history = []
    writer, bar = open_log(args, state)
    try:
        obs, _ = envs.reset(seed=iteration_seed(args, state))
        done = np.zeros(args.num_envs, dtype=bool)
        while state["steps"] < args.total_steps and not stop:
            seed = iteration_seed(args, state)
            torch.default_generator.manual_seed(seed)  # a resumed run's is the same
            state["iteration"] += 1
            learning_rate = args.learning_rate
            if args.anneal_learning_rate:
                learning_rate *= 1 - state["steps"] / args.total_steps
            optimizer.param_groups[0]["lr"] = learning_rate
            rollout = collect_rollout(args, envs, policy, obs, done)
            obs, done = rollout.obs[-1], rollout.done[-1]
            scalars = update(args, policy, value_function, optimizer, rollout)
            state["steps"] += rollout.steps
            scalars["train/learning_rate"] = learning_rate
            log(writer, bar, state, history, rollout.episodes, scalars)
            if state["steps"] % args.checkpoint_every < rollout.steps:  # one is due
                writer.flush()
                save_checkpoint(args, envs, parts, state)
        writer.flush()
        save_checkpoint(args, envs, parts, state)
    except (FloatingPointError, OSError, gym.error.Error) as error:
        bar.close()
        where = f"in iteration {state['iteration']}; {args.run_dir} stays as it was"
        fail(f"stopped {where}: {error}")
    finally:
        bar.close()
        envs.close()
        with suppress(OSError):  # of a full disk, which has been reported
            writer.close()
    return policy, history


class CheckedEnvs(gym.vector.VectorWrapper):
    """Ends the run with a message where an environment fails, or gives NaN or ±inf."""

    def reset(self, **kwargs):
        return self.checked(self.env.reset, **kwargs)

    def step(self, actions):
        return self.checked(self.env.step, actions)

    def checked(self, call, *args, **kwargs):
        try:
            obs, *rest = call(*args, **kwargs)
        except Exception as error:  # its own words say best what is wrong
            # close() of an async environment would wait for an answer from the dead
            for process in getattr(self.unwrapped, "processes", ()):
                process.terminate()
                self.unwrapped.closed = True
            died = isinstance(error, (EOFError, ConnectionError))
            what = "a process of it died" if died else "it failed"
            raise gym.error.Error(f"the environment: {what}: {error!r}") from error
        # rest: info after reset(), and reward, terminated, truncated, info after step()
        for name, array in zip(("observation", "reward"), (obs, *rest[:-1])):
            if not np.isfinite(array).all():
                what = f"the environment's {name} is not finite: see its step()"
                raise FloatingPointError(what)
        return obs, *rest


def make_envs(args, num_envs, training=True, **kwargs):
    """num_envs copies of args.env with flat observations, and raw returns in info.

    envs.statistics holds those of the normalisation; they move only while training.
    """
    mode = "sync" if "render_mode" in kwargs else args.vectorization
    mode = None if mode == "auto" else mode  # None: Gymnasium chooses
    if args.max_episode_steps:
        kwargs["max_episode_steps"] = args.max_episode_steps
    try:
        envs = gym.make_vec(args.env, num_envs, mode, **args.env_kwargs, **kwargs)
        space, actions = envs.single_observation_space, envs.single_action_space
        floats = isinstance(actions, Box) and actions.dtype.kind == "f"
        if not (floats or isinstance(actions, Discrete)):
            raise TypeError(f"its actions are {actions}, not Discrete or a float Box")
        if envs.metadata.get("autoreset_mode") != AutoresetMode.NEXT_STEP:
            raise TypeError("its autoreset mode is not NEXT_STEP")
        if not isinstance(space, Box) or len(space.shape) != 1:
            envs = wrappers.FlattenObservation(envs)  # Discrete becomes one-hot
        if not isinstance(envs.single_observation_space, Box):
            raise TypeError(f"its observations are {space}, of no fixed length")
        envs = wrappers.RecordEpisodeStatistics(CheckedEnvs(envs))
    except Exception as error:  # the environment's own words say best what is wrong
        fail(f"cannot make {args.env}: {error}")
    statistics = {}
    if args.normalize_observations and not isinstance(space, Discrete):
        envs = wrappers.NormalizeObservation(envs)
        envs.update_running_mean = training
        statistics["observation"] = envs.obs_rms
        envs = wrappers.TransformObservation(envs, lambda obs: obs.clip(-10, 10))
    if args.normalize_rewards and training:
        envs = wrappers.NormalizeReward(envs, args.gamma)
        statistics["return"] = envs.return_rms
        envs = wrappers.TransformReward(envs, lambda reward: reward.clip(-10, 10))
    # The environment gets Box actions stretched from [-1, 1] to its bounds, if it has
    # any, and clipped. The rollout keeps what was sampled: log π belongs to that.
    if isinstance(actions, Discrete):
        envs = wrappers.TransformAction(envs, lambda a: a + actions.start)
    else:  # the last wrapper comes first
        low, high = actions.low, actions.high
        envs = wrappers.TransformAction(envs, lambda a: a.clip(low, high))
        if actions.is_bounded():
            middle, half = (high + low) / 2, (high - low) / 2
            envs = wrappers.TransformAction(envs, lambda a: middle + half * a)
    envs.statistics = statistics
    return envs


def to_tensor(array, args):
    """array as float32 on args.device."""
    return torch.as_tensor(array, dtype=torch.float32, device=args.device)


def iteration_seed(args, state):
    """A seed of its own for each iteration: actions, minibatches, a reset before it."""
    seeds = np.random.SeedSequence([args.seed, state["iteration"]])
    return int(seeds.generate_state(1)[0])


def open_log(args, state):
    """A TensorBoard writer and a progress bar; on resuming, they go on at state."""
    own = args.resume and Path(args.resume).parent == Path(args.run_dir)
    if not own and Path(args.run_dir).exists() and os.listdir(args.run_dir):
        fail(f"{args.run_dir} is not empty: --resume it, or choose another --run-dir")
    if state["steps"] >= args.total_steps:
        fail(f"{args.resume} has {state['steps']} steps: raise --total-steps")
    writer = SummaryWriter(args.run_dir, purge_step=state["steps"] + 1)
    versions = {"torch": torch.__version__, "gymnasium": gym.__version__}
    text = json.dumps(vars(args) | versions, indent=4)
    writer.add_text("arguments", "    " + text.replace("\n", "\n    "))
    count = {"total": args.total_steps, "initial": state["steps"], "unit": "step"}
    return writer, tqdm(**count, disable=False)  # even by TQDM_DISABLE: log() needs it


def log(writer, bar, state, history, episodes, scalars):
    """One iteration's scalars, checked, to TensorBoard and the progress bar.

    Returns and lengths are means over the last 100 episodes, as is usual.
    """
    history += [episode_return for episode_return, _ in episodes]
    state["episodes"] = (state["episodes"] + episodes)[-100:]
    if state["episodes"]:
        mean_return, mean_length = np.mean(state["episodes"], axis=0)
        scalars["rollout/episode_return"] = mean_return
        scalars["rollout/episode_length"] = mean_length
        text = f"return {mean_return:.1f}, KL {scalars['train/kl']:.4f}"
        bar.set_postfix_str(text, refresh=False)  # the bar knows when it is time
    before = bar.n
    bar.update(min(state["steps"], bar.total) - bar.n)
    elapsed = bar.format_dict["elapsed"]
    scalars["time/steps_per_second"] = (bar.n - bar.initial) / elapsed
    # TensorBoard shows 1,000 points of a curve: to write many more only takes time. In
    # a run of millions of steps there may be one for each 1,000 steps.
    spacing = min(max(1, bar.total // 1000), 1000)
    due = bar.n // spacing > before // spacing or bar.n == bar.total
    for name, value in scalars.items():
        if not math.isfinite(value):
            raise FloatingPointError(f"{name} is {value}. Try a lower --learning-rate")
        if due:
            writer.add_scalar(name, value, state["steps"])


def save_checkpoint(args, envs, parts, state):
    """All that resuming needs, in a new file that then takes the old one's place."""
    checkpoint = {
        "script": SCRIPT,
        "args": vars(args) | dict.fromkeys(["resume", "evaluate", "watch", "video"]),
        "state": state,
        "parts": {name: part.state_dict() for name, part in parts.items()},
        "statistics": {
            name: [
                torch.as_tensor(np.asarray(x)) for x in (rms.mean, rms.var, rms.count)
            ]
            for name, rms in envs.statistics.items()
        },
    }
    path, buffer = Path(args.run_dir, "checkpoint.pt"), io.BytesIO()
    torch.save(checkpoint, buffer)
    with open(path.with_suffix(".tmp"), "wb") as file:
        file.write(buffer.getbuffer())
        file.flush()
        os.fsync(file.fileno())
    os.replace(path.with_suffix(".tmp"), path)


def load_checkpoint(path, envs=None, parts=None):
    """A checkpoint's contents, put into envs and parts; code in the file never runs."""
    try:
        with zipfile.ZipFile(path) as file:  # which torch.load doesn't check for damage
            if file.testzip():
                raise ValueError("it is damaged")
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        missing = {"script", "args", "state", "parts", "statistics"} - set(checkpoint)
        if missing:
            raise ValueError(f"it has no {', '.join(sorted(missing))}")
        if checkpoint["script"] != SCRIPT:
            raise ValueError(f"{checkpoint['script']} wrote it")
        for name, part in (parts or {}).items():
            part.load_state_dict(checkpoint["parts"][name])
        for name, rms in (envs.statistics if envs else {}).items():
            mean, var, count = checkpoint["statistics"][name]
            rms.mean, rms.var, rms.count = mean.numpy(), var.numpy(), count.item()
    except KeyError as error:
        fail(f"cannot load {path}: it has no {error}: give the flags of its run")
    except Exception as error:
        fail(f"cannot load {path}: {error}")
    return checkpoint


def evaluate(args, checkpoint, greedy=True):
    """Raw returns of args.eval_episodes whole episodes of a checkpoint's policy.

    Every copy plays equally many: to take the first that end would favour short ones.
    """
    kwargs = {"render_mode": "human"} if args.watch else {}
    if args.video:
        record = partial(gym.wrappers.RecordVideo, video_folder=args.video)
        kwargs["wrappers"] = [partial(record, episode_trigger=lambda episode: True)]
        kwargs["render_mode"] = "rgb_array"
    num_envs = 1 if kwargs else args.eval_episodes
    envs = make_envs(args, num_envs, training=False, **kwargs)
    policy = Policy(envs, args.hidden_sizes, args.initial_variance).to(args.device)
    load_checkpoint(checkpoint, envs, {"policy": policy})
    torch.manual_seed(args.seed)  # of sampled actions
    remaining = np.full(envs.num_envs, args.eval_episodes // envs.num_envs)
    returns, waited = [], 0
    obs, _ = envs.reset(seed=args.seed)
    while remaining.any():
        with torch.inference_mode():
            distribution = policy.distribution(to_tensor(obs, args))
            action = distribution.mode if greedy else distribution.sample()
        obs, _, terminated, truncated, info = envs.step(action.cpu().numpy())
        ended = (terminated | truncated) & (remaining > 0)
        remaining -= ended
        waited = 0 if ended.any() else waited + 1
        if ended.any():
            returns += info["episode"]["r"][ended].tolist()
        elif waited == 100_000:
            fail(f"no episode ends in {waited} steps: bound it by --max-episode-steps")
    envs.close()
    return np.array(returns)


def number(kind, low, high=math.inf):
    """An argparse type: a number of this kind from low to high."""

    def convert(text):
        if low <= kind(text) <= high:  # never so for NaN
            return kind(text)
        raise argparse.ArgumentTypeError(f"{text} is not between {low} and {high}")

    convert.__name__ = kind.__name__  # argparse's messages show it
    return convert


def saved_flags(path):
    """The flags of a checkpoint's run, as they would stand on its command line."""
    flags = []
    for name, value in load_checkpoint(path)["args"].items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            flags.append(flag if value else flag.replace("--", "--no-", 1))
        elif isinstance(value, list):
            flags += [flag, *map(str, value)]
        elif value is not None:
            text = json.dumps(value) if isinstance(value, dict) else value
            flags.append(f"{flag}={text}")
    return flags


def parse_args(argv=None):
    """The flags, checked; given a checkpoint, its run's flags are the defaults."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.error = fail
    count, weight, fraction = number(int, 1), number(float, 0), number(float, 0, 1)
    size, variance = number(int, 1, 2**14), number(float, 1e-6, 1e6)

    def flag(name, default, kind, text, **options):
        switch = {"action": argparse.BooleanOptionalAction}
        options |= switch if kind is bool else {"type": kind}
        text = f"{text} (default: %(default)s)"
        parser.add_argument(name, default=default, help=text, **options)

    flag("--env", "CartPole-v1", str, "Gymnasium id, or module:Id-v0")
    flag("--env-kwargs", {}, json.loads, "its keyword arguments, as JSON")
    flag("--max-episode-steps", None, count, "horizon; None: the environment's own")
    flag("--seed", 0, number(int, 0, 2**32 - 1), "of everything random")
    flag("--total-steps", 200_000, count, "environment steps to train for")
    flag("--num-envs", 8, size, "N, copies of the environment")
    modes = ["auto", "sync", "async"]
    flag("--vectorization", "auto", str, "auto: native, else sync", choices=modes)
    flag("--device", "cpu", str, "of the networks", choices=["cpu", "cuda"])
    flag("--run-dir", None, str, "None: runs/<env>/<script>/<seed and time>")
    flag("--eval-episodes", 10, size, "whole episodes with greedy actions")
    flag("--checkpoint-every", 20_000, count, "steps from one checkpoint to the next")
    flag("--resume", None, str, "go on training", metavar="CHECKPOINT")
    flag("--evaluate", None, str, "only evaluate", metavar="CHECKPOINT")
    flag("--watch", None, str, "only evaluate, in a window", metavar="CHECKPOINT")
    flag("--video", None, str, "record the evaluation", metavar="DIR")
    flag("--gamma", 0.99, fraction, "γ, discount")
    flag("--learning-rate", 2.5e-3, weight, "α, step size")
    flag("--anneal-learning-rate", True, bool, "α falls linearly to 0")
    flag("--hidden-sizes", [64, 64], size, "units of each network's layers", nargs="*")
    flag("--initial-variance", 1.5, variance, "Σσ² of the first Gaussian policy")
    flag("--max-grad-norm", 0.1, weight, "bound on the norm of each network's gradient")
    flag("--entropy-coefficient", 0.01, weight, "weight of π's entropy bonus")
    flag("--normalize-observations", True, bool, "by running mean and std, to ±10")
    flag("--normalize-rewards", True, bool, "by the running std of returns, to ±10")
    flag("--normalize-advantages", True, bool, "Â to mean 0 and std 1, per batch")
    flag("--rollout-steps", 32, number(int, 2), "T, steps of each copy in D_k")
    flag("--critic-epochs", 10, count, "passes over D_k to re-fit V")
    flag("--n-steps", None, count, "n of R̂^(n); None: λ-weighted")
    flag("--gae-lambda", 0.98, fraction, "λ: 0 is TD, 1 is Monte Carlo")
    args = parser.parse_args(argv)
    checkpoints = [path for path in (args.resume, args.evaluate, args.watch) if path]
    if len(checkpoints) > 1:
        fail("arguments --resume, --evaluate and --watch: give only one of them")
    if checkpoints:
        folder = f"--run-dir={Path(checkpoints[0]).parent}"  # wherever it is by now
        args = parser.parse_args([*saved_flags(checkpoints[0]), folder, *argv])
    elif not args.run_dir:
        run = f"{args.seed}-{time.strftime('%Y%m%d-%H%M%S')}"
        args.run_dir = str(Path("runs", args.env, Path(SCRIPT).stem, run))
    if not isinstance(args.env_kwargs, dict):
        fail("argument --env-kwargs: not a JSON object")
    if args.device == "cuda" and not torch.cuda.is_available():
        fail("argument --device: torch finds no CUDA device")
    if args.total_steps < args.num_envs * args.rollout_steps:
        fail("argument --total-steps: less than a batch, --num-envs × --rollout-steps")
    return args


def fail(message):
    """One line that says what to mend, and exit code 2."""
    print(f"{SCRIPT}: {' '.join(str(message).split())}", file=sys.stderr)
    raise SystemExit(2)


def main(argv=None):
    """Train, then evaluate; or only evaluate a checkpoint."""
    args = parse_args(argv)
    checkpoint = args.evaluate or args.watch
    stop = []  # fills at Ctrl-C or SIGTERM: the run ends with this iteration, saved
    threading.excepthook = lambda failure: None  # TensorBoard's, which is raised here

    def catch(number, frame):
        stop.append(number)
        signal.signal(number, signal.SIG_DFL)  # a second one ends it at once

    try:
        if not checkpoint:
            for number in signal.SIGINT, signal.SIGTERM:
                signal.signal(number, catch)
            train(args, stop)
            checkpoint = f"{args.run_dir}/checkpoint.pt"
        for number in signal.SIGINT, signal.SIGTERM:  # evaluating, nothing can be lost
            signal.signal(number, signal.SIG_DFL)
        if stop:
            print(f"stopped; to go on: python {SCRIPT} --resume {checkpoint}")
            raise SystemExit(128 + stop[0])
        returns = evaluate(args, checkpoint)
    except (OSError, FloatingPointError, gym.error.Error) as error:
        fail(error)
    mean, std, episodes = returns.mean(), returns.std(), len(returns)
    print(f"{args.env}: return {mean:.1f} ± {std:.1f} over {episodes} episodes")
    print(f"log:   tensorboard --logdir {args.run_dir}")
    print(f"watch: python {SCRIPT} --watch {checkpoint}")


if __name__ == "__main__":
    main()

"""What the scripts learn from: every step once, and nothing that is not a step.

The counting environment says in its observation which episode and which step it is in,
and keeps a diary of the steps that it took. Whatever the rollouts hold is compared with
the diaries. The scripts share this code word for word (test_shared_text.py), so where
one of them is tested it stands for all.
"""

from functools import partial
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

import actor_critic
import ppo_clip
import ppo_kl
import reinforce
import vpg_baseline

COPIES = []  # the environments made since the last test began
RAW = ["--no-normalize-observations", "--no-normalize-rewards"]


class CountingEnv(gym.Env):
    """Episodes of random length; the observation is (episode, step), both from 0 on.

    About half of the episodes end by terminated, the others by truncated. The diary
    holds one line for each step: (reset with a seed, episode, step, action, reward,
    terminated, truncated, observation that it led to).
    """

    def __init__(self, longest):
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = spaces.Discrete(2)
        self.longest = longest
        self.seeded_resets, self.episode, self.diary = -1, -1, []
        COPIES.append(self)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seeded_resets += seed is not None
        self.episode, self.number = self.episode + 1, 0
        self.length = self.np_random.integers(1, self.longest, endpoint=True)
        self.ends_by_terminated = self.np_random.random() < 0.5
        return np.array([self.episode, 0], np.float32), {}

    def step(self, action):
        line = self.seeded_resets, self.episode, self.number, int(action)
        reward = 1.0 + self.number
        self.number += 1
        done = self.number == self.length
        terminated = bool(done and self.ends_by_terminated)
        truncated = bool(done and not self.ends_by_terminated)
        result = (self.episode, self.number)
        self.diary.append((*line, reward, terminated, truncated, result))
        return np.array(result, np.float32), reward, terminated, truncated, {}


class SpaceEnv(gym.Env):
    """Spaces of any kind; it notes the actions that come in and what it shows."""

    def __init__(self, observation_space, action_space, length):
        self.observation_space, self.action_space = observation_space, action_space
        self.length, self.received, self.shown = length, [], []
        COPIES.append(self)

    def show(self):
        self.shown.append(self.observation_space.sample())
        return self.shown[-1]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.number = 0
        return self.show(), {}

    def step(self, action):
        assert self.action_space.contains(np.asarray(action, self.action_space.dtype))
        self.received.append(action)
        self.number += 1
        return self.show(), 1.0, self.number == self.length, False, {}


gym.register("Counting-v0", CountingEnv, kwargs={"longest": 9})
gym.register("Endless-v0", CountingEnv, kwargs={"longest": 10**9})


def register_space_env(observation_space, action_space, length=5):
    """Space-v0 is from now on an environment with these spaces."""
    gym.registry.pop("Space-v0", None)
    entry_point = partial(SpaceEnv, observation_space, action_space, length)
    gym.register("Space-v0", entry_point, disable_env_checker=True)


@pytest.fixture(autouse=True)
def no_copies_yet():
    COPIES.clear()


def arguments(script, tmp_path, *flags):
    """The arguments of a run on Counting-v0, unless the flags name another one."""
    run_dir = ["--run-dir", str(tmp_path / "run")]
    return script.parse_args(["--env", "Counting-v0", *run_dir, *flags])


def watched_run(script, args):
    """Train; each iteration's rollout as update() got it, and the environments."""
    rollouts, update = [], script.update

    def watched_update(*given):
        rollouts.extend(part for part in given if isinstance(part, script.Rollout))
        return update(*given)

    COPIES.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(script, "update", watched_update)
        script.train(args)
    return rollouts, list(COPIES)


def lines(rollout, copy):
    """The valid rows of one copy in the form of a diary, without its first number."""
    result = []
    for t in np.flatnonzero(rollout.valid[:, copy]):
        terminated, done = rollout.terminated[t, copy], rollout.done[t, copy]
        episode, number = rollout.obs[t, copy]
        action, reward = rollout.actions[t, copy], rollout.rewards[t, copy]
        led_to = tuple(rollout.obs[t + 1, copy])
        flags = bool(terminated), bool(done and not terminated)
        result.append((episode, number, action, reward, *flags, led_to))
    return result


def returns_and_lengths(diary):
    """(return, length) of each episode in a diary that has ended."""
    result, so_far = [], []
    for *_, reward, terminated, truncated, _ in diary:
        so_far.append(reward)
        if terminated or truncated:
            result.append((sum(so_far), len(so_far)))
            so_far = []
    return result


# Partial trajectories: actor_critic.py, ppo_kl.py, ppo_clip.py


@pytest.fixture(
    scope="module", params=[actor_critic, ppo_kl, ppo_clip], ids=lambda s: s.__name__
)
def partial_run(request, tmp_path_factory):
    """The rollouts, 7 steps of 3 copies each, and the copies of one training run."""
    flags = ["--total-steps", "400", "--num-envs", "3", "--rollout-steps", "7", *RAW]
    args = arguments(request.param, tmp_path_factory.mktemp("partial"), *flags)
    return watched_run(request.param, args)


def test_the_valid_rows_of_a_run_are_exactly_the_steps_taken(partial_run):
    """None is lost between two rollouts, none is in twice, none is made up."""
    rollouts, copies = partial_run
    for copy, env in enumerate(copies):
        rows = [line for rollout in rollouts for line in lines(rollout, copy)]
        assert rows == [line[1:] for line in env.diary]
    assert len(copies) == 3 and len(rollouts) > 10


def test_the_row_after_a_step_is_what_it_led_to_also_at_an_episodes_end(partial_run):
    """obs[t + 1] is of the same episode, one step on: never the next episode's."""
    rollouts, _ = partial_run
    ends = 0
    for rollout in rollouts:
        for t, copy in zip(*np.nonzero(rollout.valid)):
            assert tuple(rollout.obs[t + 1, copy] - rollout.obs[t, copy]) == (0, 1)
            ends += rollout.done[t, copy]
    assert ends > 20


def test_the_row_after_an_episodes_end_is_masked_also_in_the_next_rollout(partial_run):
    rollouts, _ = partial_run
    valid = np.concatenate([rollout.valid for rollout in rollouts])
    done = np.concatenate([rollout.done for rollout in rollouts])
    assert valid[0].all()
    np.testing.assert_array_equal(valid[1:], ~done[:-1])
    assert not done[~valid].any()  # a reset ends nothing
    assert any(rollout.done[-1].any() for rollout in rollouts[:-1])
    assert any(not rollout.valid[0].all() for rollout in rollouts[1:])


def test_steps_counts_real_steps_only(partial_run):
    rollouts, copies = partial_run
    for rollout in rollouts:
        assert rollout.steps == rollout.valid.sum()
    taken = sum(len(env.diary) for env in copies)
    assert sum(rollout.steps for rollout in rollouts) == taken
    assert taken < sum(rollout.valid.size for rollout in rollouts)


def test_episodes_holds_each_raw_return_and_length_once(partial_run):
    rollouts, copies = partial_run
    found = [episode for rollout in rollouts for episode in rollout.episodes]
    expected = [pair for env in copies for pair in returns_and_lengths(env.diary)]
    assert sorted(found) == sorted(expected)


class KnownValues(nn.Module):
    """V(s) = 100 · episode + step, so that a wrong V(s') is far off."""

    def __init__(self):
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(()))

    def forward(self, obs):
        return 100 * obs[..., 0] + obs[..., 1] + self.offset


@pytest.mark.parametrize(
    "script, one_step",
    [
        (actor_critic, ["--n-steps", "1"]),
        (actor_critic, ["--gae-lambda", "0"]),
        (ppo_kl, ["--gae-lambda", "0"]),
        (ppo_clip, ["--gae-lambda", "0"]),
    ],
)
def test_a_time_limit_bootstraps_with_the_episodes_own_final_observation(
    script, one_step, tmp_path
):
    """The critic's TD target is r + γ V(s'), and r alone where s' is terminal.

    update() reports its loss, the mean of (V(s) - target)²; the diaries give the same
    mean, step by step.
    """
    flags = ["--num-envs", "3", "--rollout-steps", "80", "--total-steps", "240", *RAW]
    args = arguments(script, tmp_path, *flags, *one_step)
    rollouts, copies = watched_run(script, args)
    rollout = rollouts[0]
    taken = []
    for copy, env in enumerate(copies):
        taken += env.diary[: rollout.valid[:, copy].sum()]
    squares, truncations, terminations = [], 0, 0
    for _, episode, number, _, reward, terminated, truncated, led_to in taken:
        target = reward
        if not terminated:
            target += args.gamma * (100 * led_to[0] + led_to[1])
        squares.append((100 * episode + number - target) ** 2)
        truncations, terminations = truncations + truncated, terminations + terminated
    assert truncations > 5 and terminations > 5

    envs = script.make_envs(args, 3)
    policy, critic = script.Policy(envs, [4], 1.0), KnownValues()
    standing = torch.optim.SGD([*policy.parameters(), *critic.parameters()], lr=0.0)
    beta = [1.0] if script is ppo_kl else []
    scalars = script.update(args, policy, critic, standing, rollout, *beta)
    assert scalars["train/value_loss"] == pytest.approx(np.mean(squares), rel=1e-5)


# Whole trajectories: reinforce.py, vpg_baseline.py


@pytest.fixture(
    scope="module", params=[reinforce, vpg_baseline], ids=lambda s: s.__name__
)
def whole_run(request, tmp_path_factory):
    """The rollouts, one trajectory of each of 3 copies, and the copies of one run."""
    flags = ["--total-steps", "500", "--num-envs", "3", *RAW]
    args = arguments(request.param, tmp_path_factory.mktemp("whole"), *flags)
    return watched_run(request.param, args)


def of_iteration(iteration, env):
    """The lines of a copy's diary since the iteration's reset with a seed."""
    return [line for line in env.diary if line[0] == iteration]


def test_each_copy_gives_exactly_its_first_whole_trajectory(whole_run):
    """From the seeded reset to the end: never cut, never left out for being long."""
    rollouts, copies = whole_run
    for iteration, rollout in enumerate(rollouts):
        for copy, env in enumerate(copies):
            taken = of_iteration(iteration, env)
            first = [line[1:] for line in taken if line[1] == taken[0][1]]
            assert lines(rollout, copy) == first
            *_, terminated, truncated, _ = first[-1]
            assert terminated or truncated
    assert len(copies) == 3 and len(rollouts) > 10


def test_long_trajectories_are_met_as_often_as_they_are_drawn(whole_run):
    """Keeping those that finish first would meet the short ones more often."""
    rollouts, _ = whole_run
    lengths = [n for rollout in rollouts for n in rollout.valid.sum(axis=0)]
    standard_error = np.sqrt((9**2 - 1) / 12 / len(lengths))
    assert abs(np.mean(lengths) - 5) < 4 * standard_error  # drawn from 1, ..., 9
    assert set(lengths) == set(range(1, 10))


def test_steps_counts_the_steps_after_a_copys_trajectory_too(whole_run):
    """They are simulated, so they are paid for, though nobody learns from them."""
    rollouts, copies = whole_run
    for iteration, rollout in enumerate(rollouts):
        taken = sum(len(of_iteration(iteration, env)) for env in copies)
        assert rollout.steps == taken
    assert sum(rollout.steps - rollout.valid.sum() for rollout in rollouts) > 0


def test_episodes_holds_the_raw_return_and_length_of_each_trajectory(whole_run):
    rollouts, copies = whole_run
    for iteration, rollout in enumerate(rollouts):
        diaries = [of_iteration(iteration, env) for env in copies]
        expected = [returns_and_lengths(diary)[0] for diary in diaries]
        assert sorted(rollout.episodes) == sorted(expected)


@pytest.mark.parametrize("script", [reinforce, vpg_baseline, actor_critic, ppo_clip])
def test_max_episode_steps_sets_the_horizon(script, tmp_path):
    """The limit shows as truncated, not as terminated."""
    flags = ["--env", "Endless-v0", "--num-envs", "2", "--max-episode-steps", "7", *RAW]
    args = arguments(script, tmp_path, *flags, "--total-steps", "520")
    rollout = watched_run(script, args)[0][0]
    assert rollout.episodes and set(length for _, length in rollout.episodes) == {7}
    assert not rollout.terminated.any()
    lengths = [
        line[1] + 1 for copy in (0, 1) for line in lines(rollout, copy) if line[5]
    ]
    assert lengths and set(lengths) == {7}


def test_max_episode_steps_sets_the_horizon_of_a_vectorized_environment_too(tmp_path):
    """CartPole-v1 has a vector version of its own, which no wrapper limits."""
    flags = ["--env", "CartPole-v1", "--num-envs", "4", "--max-episode-steps", "12"]
    args = arguments(reinforce, tmp_path, *flags, "--total-steps", "100")
    envs = reinforce.make_envs(args, 4)
    policy = reinforce.Policy(envs, [4], 1.0)
    rollout = reinforce.collect_trajectories(args, envs, policy, seed=0)
    assert max(length for _, length in rollout.episodes) == 12
    assert (rollout.done & ~rollout.terminated)[11].any()


@pytest.mark.parametrize("script", [reinforce, vpg_baseline])
def test_a_trajectory_that_outlasts_the_run_is_an_error_naming_the_flag(
    script, tmp_path, capsys
):
    args = arguments(script, tmp_path, "--env", "Endless-v0", "--total-steps", "50")
    with pytest.raises(SystemExit) as stopped:
        script.train(args)
    assert stopped.value.code == 2
    assert "--max-episode-steps" in capsys.readouterr().err
    assert {len(env.diary) for env in COPIES} == {51}  # one step more than the budget


@pytest.mark.parametrize("script", [reinforce, vpg_baseline])
def test_a_last_batch_may_overshoot_the_budget_when_no_trajectory_does(
    script, tmp_path
):
    """8 trajectories of 20 steps are more than 100 steps, yet each alone is not."""
    flags = ["--env", "Endless-v0", "--max-episode-steps", "20", "--num-envs", "8"]
    args = arguments(script, tmp_path, *flags, "--total-steps", "100", *RAW)
    rollouts, _ = watched_run(script, args)
    assert [rollout.steps for rollout in rollouts] == [8 * 20]


# Actions


def policy_for(space, hidden_sizes=(8,)):
    """A policy with random parameters, for observations of 4 numbers."""
    envs = SimpleNamespace(
        single_observation_space=spaces.Box(-1, 1, (4,)), single_action_space=space
    )
    torch.manual_seed(0)
    policy = reinforce.Policy(envs, list(hidden_sizes), 1.0)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return policy


@pytest.mark.parametrize("hidden_sizes", [(), (8,), (8, 6)], ids=str)
def test_sampled_actions_are_as_frequent_as_the_distribution_says(hidden_sizes):
    """100,000 draws in one state: χ² with 4 degrees of freedom, p = 1e-4 at 23.5."""
    policy = policy_for(spaces.Discrete(5), hidden_sizes)
    state = 0.3 * torch.randn(1, 4)
    with torch.no_grad():
        expected = 100_000 * policy.distribution(state).probs[0].numpy()
    assert expected.min() > 100
    drawn = policy.sampler()(state.expand(100_000, 4).numpy())
    assert drawn.shape == (100_000,) and drawn.dtype == np.int64
    counted = np.bincount(drawn, minlength=5)
    assert ((counted - expected) ** 2 / expected).sum() < 23.5


@pytest.mark.parametrize("hidden_sizes", [(), (8,), (8, 6)], ids=str)
@pytest.mark.parametrize("shape", [(), (3,), (2, 3)], ids=str)
def test_sampled_actions_are_normal_around_the_distributions_mean(shape, hidden_sizes):
    """Scaled by mean and std of the distribution, they are the generator's noise."""
    policy = policy_for(spaces.Box(-1, 1, shape), hidden_sizes)
    obs = 3 * torch.randn(1000, 4)
    with torch.no_grad():
        gaussian = policy.distribution(obs).base_dist
    torch.manual_seed(1)
    drawn = policy.sampler()(obs.numpy())
    assert drawn.shape == (1000, *shape) and drawn.dtype == np.float32
    torch.manual_seed(1)
    rng = np.random.default_rng(torch.randint(2**62, ()).item())
    noise = (drawn - gaussian.mean.numpy()) / gaussian.stddev.numpy()
    expected = rng.standard_normal(noise.shape, np.float32)
    np.testing.assert_allclose(noise, expected, atol=1e-3)


def test_sampling_follows_the_parameters_and_knows_the_activation():
    policy = policy_for(spaces.Discrete(5))
    obs = np.ones((100, 4))
    assert not (policy.sampler()(obs) == 3).all()
    with torch.no_grad():
        policy.network[-1].bias[3] += 100
    assert (policy.sampler()(obs) == 3).all()
    linear, tanh, last = policy.network
    for others in [linear, torch.nn.ReLU(), last], [linear, tanh, last, tanh]:
        policy.network = torch.nn.Sequential(*others)
        with pytest.raises(AssertionError):
            policy.sampler()


@pytest.mark.parametrize("shape", [(), (1,), (6,), (2, 3)], ids=str)
@pytest.mark.parametrize("variance", [1.0, 2.0])
def test_the_first_noise_has_one_square_length_however_many_actions(variance, shape):
    """E|a - mean|², measured on 20,000 samples (standard error of 1 % or less)."""
    envs = SimpleNamespace(
        single_observation_space=spaces.Box(-1, 1, (4,)),
        single_action_space=spaces.Box(-1, 1, shape),
    )
    policy = reinforce.Policy(envs, [8], variance)
    torch.manual_seed(0)
    with torch.no_grad():
        mean = policy.distribution(torch.ones(1, 4)).mean
    noise = policy.sampler()(np.ones((20_000, 4))) - mean.numpy()
    square_length = (noise**2).reshape(20_000, -1).sum(-1).mean()
    assert square_length == pytest.approx(variance, rel=0.06)


@pytest.mark.parametrize(
    "script", [reinforce, vpg_baseline, actor_critic, ppo_kl, ppo_clip]
)
def test_a_run_starts_with_the_initial_variance(script, tmp_path):
    """Two numbers an action: Σσ² = 8 is σ = 2 for each; with α = 0 it stays there."""
    flags = "--env Space-v0 --num-envs 2 --total-steps 520 --learning-rate 0"
    args = arguments(script, tmp_path, *flags.split(), "--initial-variance", "8")
    register_space_env(spaces.Box(-1, 1, (3,), np.float32), spaces.Box(-1, 1, (2,)))
    policy, _ = script.train(args)
    assert policy.log_std.tolist() == pytest.approx([np.log(2)] * 2)


def received_and_kept(space, samples, tmp_path):
    """What a Space-v0 gets of these sampled actions, and what the rollout keeps."""
    flags = ["--num-envs", "1", "--rollout-steps", str(len(samples))]
    args = arguments(ppo_clip, tmp_path, "--env", "Space-v0", *flags)
    register_space_env(spaces.Box(-1, 1, (1,), np.float32), space, length=1000)
    envs = ppo_clip.make_envs(args, 1)
    remaining = iter(samples)

    def sample(obs):
        return next(remaining)[None]

    policy = SimpleNamespace(sampler=lambda: sample)
    obs, _ = envs.reset(seed=0)
    rollout = ppo_clip.collect_rollout(args, envs, policy, obs, np.array([False]))
    return np.array(COPIES[0].received), rollout.actions[:, 0]


def test_box_actions_are_stretched_from_plus_minus_one_to_the_bounds(tmp_path):
    """1 is high, -1 is low, beyond is clipped; the rollout keeps what was sampled."""
    space = spaces.Box(np.float32([-2, 0]), np.float32([3, 10]))
    samples = np.float32([[1, 1], [-1, -1], [3, 3], [-3, -1.5], [0, 0.5]])
    expected = [[3, 10], [-2, 0], [3, 10], [-2, 0], [0.5, 7.5]]
    received, kept = received_and_kept(space, samples, tmp_path)
    np.testing.assert_allclose(received, expected, rtol=1e-6)
    np.testing.assert_array_equal(kept, samples)


@pytest.mark.parametrize("low, high", [(-0.2, 1.2), (-2.0, 0.7), (0.1, 0.3)])
def test_rounding_takes_no_action_past_its_bound(low, high, tmp_path):
    """Stretched by a middle and a half that are rounded, 1 can be a bit above high."""
    space = spaces.Box(np.float32([low]), np.float32([high]))
    samples = np.float32([[-5], [-1], [1], [5]])
    received, _ = received_and_kept(space, samples, tmp_path)
    assert received.dtype == np.float32 and all(map(space.contains, received))
    np.testing.assert_allclose(received[:, 0], [low, low, high, high], rtol=1e-6)


def test_unbounded_box_actions_arrive_as_they_were_sampled(tmp_path):
    space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    samples = np.float32([[7.5, -1234.0], [0.0, 1e-3]])
    received, kept = received_and_kept(space, samples, tmp_path)
    np.testing.assert_array_equal(received, samples)
    np.testing.assert_array_equal(kept, samples)


def test_half_bounded_box_actions_are_only_clipped(tmp_path):
    space = spaces.Box(0, np.inf, (1,), np.float32)
    samples = np.float32([[-3], [0.25], [40]])
    received, kept = received_and_kept(space, samples, tmp_path)
    np.testing.assert_array_equal(received, np.float32([[0], [0.25], [40]]))
    np.testing.assert_array_equal(kept, samples)


def test_discrete_actions_begin_at_the_spaces_start(tmp_path):
    received, kept = received_and_kept(
        spaces.Discrete(3, start=5), np.array([0, 1, 2, 0]), tmp_path
    )
    assert received.tolist() == [5, 6, 7, 5]
    assert kept.tolist() == [0, 1, 2, 0]


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(2),
        spaces.Discrete(4, start=-2),
        spaces.Box(-2, 3, (), np.float32),
        spaces.Box(-2, 3, (1,), np.float32),
        spaces.Box(-2, 3, (2, 2), np.float64),
        spaces.Box(0, np.inf, (2,), np.float32),
        spaces.Box(-np.inf, np.inf, (2,), np.float32),
    ],
    ids=str,
)
@pytest.mark.parametrize("script", [reinforce, ppo_clip])
def test_the_policy_acts_in_every_discrete_and_box_space(script, space, tmp_path):
    """The environment itself checks that each action lies in its space."""
    flags = ["--env", "Space-v0", "--num-envs", "2", "--total-steps", "520"]
    args = arguments(script, tmp_path, *flags)
    register_space_env(spaces.Box(-1, 1, (3,), np.float32), space)
    policy, history = script.train(args)
    assert set(history) == {5.0}
    assert len(COPIES[0].received) > 100
    batch = policy.distribution(torch.zeros(6, 3))
    assert batch.log_prob(batch.sample()).shape == (6,)  # one event for each row


# Observations

IMAGE = spaces.Box(0, 255, (4, 4, 3), np.uint8)
BOX = spaces.Box(-1, 1, (2, 3), np.float32)


def space_envs(space, tmp_path, *flags):
    """Two copies of Space-v0 with these observations, and the arguments."""
    args = arguments(ppo_clip, tmp_path, "--env", "Space-v0", *flags)
    register_space_env(space, spaces.Discrete(2))
    return ppo_clip.make_envs(args, 2), args


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-1, 1, (3,), np.float32),
        spaces.Box(-1, 1, (), np.float32),
        BOX,
        IMAGE,
        spaces.Discrete(4),
        spaces.Discrete(3, start=5),
        spaces.Dict(box=BOX, choice=spaces.Discrete(3)),
        spaces.Tuple([spaces.Discrete(2), spaces.Dict(image=IMAGE, box=BOX)]),
        spaces.MultiDiscrete([2, 3]),
        spaces.MultiBinary(3),
    ],
    ids=str,
)
def test_every_observation_arrives_flat_and_as_float(space, tmp_path):
    envs, args = space_envs(space, tmp_path, "--no-normalize-observations")
    obs, _ = envs.reset(seed=3)
    for _ in range(8):
        expected = [spaces.flatten(space, env.shown[-1]) for env in COPIES]
        np.testing.assert_array_equal(obs, expected)
        assert envs.single_observation_space.shape == obs.shape[1:]
        tensor = ppo_clip.to_tensor(obs, args)
        assert tensor.dtype == torch.float32
        np.testing.assert_array_equal(tensor.numpy(), np.float32(expected))
        obs, *_ = envs.step(np.zeros(2, int))


def test_discrete_observations_are_one_hot_and_never_normalised(tmp_path):
    """Normalising a one-hot code would blow up the states that are rarely met."""
    envs, _ = space_envs(spaces.Discrete(4), tmp_path)
    assert "observation" not in envs.statistics
    obs, _ = envs.reset(seed=3)
    for _ in range(8):
        np.testing.assert_array_equal(obs, np.eye(4)[[env.shown[-1] for env in COPIES]])
        obs, *_ = envs.step(np.zeros(2, int))


@pytest.mark.parametrize(
    "space", [BOX, IMAGE, spaces.Dict(a=BOX, b=spaces.Discrete(3))], ids=str
)
def test_observations_are_normalised_by_the_statistics_of_all_that_were_shown(
    space, tmp_path
):
    envs, _ = space_envs(space, tmp_path)
    obs, _ = envs.reset(seed=3)
    for _ in range(60):
        obs, *_ = envs.step(np.zeros(2, int))
    shown = [spaces.flatten(space, one) for env in COPIES for one in env.shown]
    mean, var = np.mean(shown, axis=0), np.var(shown, axis=0)
    statistics = envs.statistics["observation"]
    np.testing.assert_allclose(statistics.mean, mean, atol=1e-3, rtol=1e-4)
    np.testing.assert_allclose(statistics.var, var, atol=1e-3, rtol=1e-4)
    last = np.array([spaces.flatten(space, env.shown[-1]) for env in COPIES])
    np.testing.assert_allclose(obs, (last - mean) / np.sqrt(var), atol=1e-2)


def test_normalised_observations_are_clipped_at_ten(tmp_path):
    envs, _ = space_envs(spaces.Box(-1e6, 1e6, (1,), np.float32), tmp_path)
    envs.statistics["observation"].count = 1e9  # so that it stays at mean 0 and std 1
    obs, _ = envs.reset(seed=3)
    np.testing.assert_array_equal(
        obs[:, 0], [10 * np.sign(e.shown[0][0]) for e in COPIES]
    )


def watch_envs(monkeypatch, script):
    """A list into which go the environments that the script makes from now on."""
    made, make_envs = [], script.make_envs

    def watched_make_envs(*given, **named):
        made.append(make_envs(*given, **named))
        return made[-1]

    monkeypatch.setattr(script, "make_envs", watched_make_envs)
    return made


def test_statistics_move_in_training_and_stand_still_in_evaluation(
    monkeypatch, tmp_path
):
    """Evaluation sees through the same glasses as training did at its end."""
    made = watch_envs(monkeypatch, ppo_clip)
    flags = ["--total-steps", "200", "--num-envs", "2", "--rollout-steps", "50"]
    args = arguments(ppo_clip, tmp_path, *flags)
    ppo_clip.train(args)
    ppo_clip.evaluate(args, f"{args.run_dir}/checkpoint.pt")
    training, evaluation = (envs.statistics for envs in made)
    path = f"{args.run_dir}/checkpoint.pt"
    saved = torch.load(path, weights_only=True)["statistics"]
    assert set(training) == set(saved) == {"observation", "return"}
    assert set(evaluation) == {"observation"}  # rewards are not normalised there
    for statistics in training["observation"], evaluation["observation"]:
        mean, var, count = saved["observation"]
        np.testing.assert_array_equal(statistics.mean, mean.numpy())
        np.testing.assert_array_equal(statistics.var, var.numpy())
        assert statistics.count == count.item()
        assert count > 200 and mean[0] > 1 and var[1] > 1
    mean, var, count = saved["return"]
    assert training["return"].var == var.item() and count > 200


# Rewards


@pytest.mark.parametrize("script", [reinforce, ppo_clip])
def test_logged_returns_are_raw_while_the_rewards_are_normalised(
    script, monkeypatch, tmp_path
):
    made = watch_envs(monkeypatch, script)
    flags = ["--total-steps", "300", "--num-envs", "2", "--no-normalize-observations"]
    rollout_steps = ["--rollout-steps", "50"] if script is ppo_clip else []
    args = arguments(script, tmp_path, *flags, *rollout_steps)
    rollouts, _ = watched_run(script, args)
    for rollout in rollouts:
        raw = (1 + rollout.obs[:-1, :, 1])[rollout.valid]  # the environment's rule
        normalised = rollout.rewards[rollout.valid]
        ratio = raw / normalised
        assert (ratio > 0).all()  # divided by a standard deviation, not shifted
    scale = np.sqrt(made[0].statistics["return"].var)
    assert ratio[-1] == pytest.approx(scale, rel=1e-6)
    found = [episode for rollout in rollouts for episode in rollout.episodes]
    possible = {(n * (n + 1) / 2, n) for n in range(1, 10)}  # 1 + 2 + ... + n
    assert found and set(found) <= possible


@pytest.mark.parametrize("gamma", [0.5, 0.9])
def test_rewards_are_divided_by_the_std_of_the_running_discounted_return(
    gamma, tmp_path
):
    """Every step earns 1, and no episode ends: the t-th return is Σ γ^k over k < t."""
    flags = ["--env", "Space-v0", "--gamma", str(gamma)]
    args = arguments(ppo_clip, tmp_path, *flags)
    space = spaces.Box(-1, 1, (1,), np.float32)
    register_space_env(space, spaces.Discrete(2), length=1000)
    envs = ppo_clip.make_envs(args, 2)
    envs.reset(seed=0)
    returns, running = [], 0.0
    for _ in range(40):
        _, reward, *_ = envs.step(np.zeros(2, int))
        running = 1 + gamma * running
        returns.append(running)
    assert reward == pytest.approx(1 / np.std(returns), rel=0.01)


def test_normalised_rewards_are_clipped_at_ten(tmp_path):
    """1 divided by a standard deviation of 1/4 is 4, by one of 1/100 it is 100."""
    args = arguments(ppo_clip, tmp_path, "--env", "Space-v0")
    space = spaces.Box(-1, 1, (1,), np.float32)
    register_space_env(space, spaces.Discrete(2), length=1000)
    envs = ppo_clip.make_envs(args, 2)
    envs.reset(seed=0)
    statistics = envs.statistics["return"]
    for std, expected in (0.25, 4), (0.01, 10):
        statistics.var, statistics.count = std**2, 1e12  # one step changes nothing
        _, reward, *_ = envs.step(np.zeros(2, int))
        assert reward == pytest.approx(expected, rel=1e-3)


def test_evaluated_returns_are_raw_and_of_whole_episodes(tmp_path):
    flags = ["--total-steps", "200", "--num-envs", "2", "--rollout-steps", "50"]
    args = arguments(ppo_clip, tmp_path, *flags, "--eval-episodes", "25")
    ppo_clip.train(args)
    COPIES.clear()
    returns = ppo_clip.evaluate(args, f"{args.run_dir}/checkpoint.pt")
    first_episodes = [returns_and_lengths(env.diary)[0] for env in COPIES]
    assert len(returns) == len(COPIES) == 25
    assert sorted(returns) == sorted(total for total, _ in first_episodes)


# Vectorization


def test_sync_and_async_copies_give_the_same_rollout(tmp_path):
    rollouts = []
    for vectorization in "sync", "async":
        flags = ["--env", "Pendulum-v1", "--vectorization", vectorization]
        args = arguments(ppo_clip, tmp_path, *flags, "--rollout-steps", "250")
        envs = ppo_clip.make_envs(args, 2)
        torch.manual_seed(0)
        policy = ppo_clip.Policy(envs, [8], 1.0)
        obs, _ = envs.reset(seed=0)
        done = np.zeros(2, bool)
        rollouts.append(ppo_clip.collect_rollout(args, envs, policy, obs, done))
        envs.close()
    for one, other in zip(*rollouts):
        np.testing.assert_array_equal(one, other)
    assert len(rollouts[0].episodes) == 2

"""What the scripts learn from: every step once, and nothing that is not a step.

The counting environment says in its observation which episode and which step it is in,
and keeps a diary of the steps that it took. Whatever the rollouts hold is compared with
the diaries. What the scripts share word for word (test_shared_text.py) is tested in one
of them.
"""

import multiprocessing
import os
import signal
import sys
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from support import (
    COPIES,
    PARTIAL,
    WHOLE,
    checkpoint,
    each,
    every_script,
    register_space_env,
    spaces_of,
    train_and_watch,
    watch,
)
from torch import nn
from torch.distributions import Categorical

import ppo_clip
import reinforce

RAW = ["--no-normalize-observations", "--no-normalize-rewards"]


@pytest.fixture(autouse=True)
def no_copies_yet():
    COPIES.clear()


def arguments(script, tmp_path, *flags):
    """The arguments of a run on Counting-v0, unless the flags name another one."""
    args = script.parse_args(["--env", "Counting-v0", "--hidden-sizes", "4", *flags])
    args.run_dir = str(tmp_path / "run")
    return args


def lines(rollout, copy):
    """The valid rows of one copy in the form of a diary."""
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


@pytest.fixture(scope="module", params=PARTIAL, ids=lambda s: s.__name__)
def partial_run(request, tmp_path_factory):
    """The rollouts, 7 steps of 3 copies each, and the copies of one training run."""
    COPIES.clear()
    flags = ["--total-steps", "400", "--num-envs", "3", "--rollout-steps", "7", *RAW]
    args = arguments(request.param, tmp_path_factory.mktemp("partial"), *flags)
    rollouts, _ = train_and_watch(request.param, args)
    return rollouts, list(COPIES)


def test_the_valid_rows_of_a_run_are_exactly_the_steps_taken(partial_run):
    """None is lost between two rollouts, none is in twice, none is made up.

    The row after a step is what it led to, also at an episode's end: the same episode,
    one step on.
    """
    rollouts, copies = partial_run
    for copy, env in enumerate(copies):
        rows = [line for rollout in rollouts for line in lines(rollout, copy)]
        assert rows == env.diary
        assert sum(terminated for *_, terminated, _, _ in rows) > 5
        assert sum(truncated for *_, truncated, _ in rows) > 5
    assert len(copies) == 3 and len(rollouts) > 10


def test_the_row_after_an_episodes_end_is_masked_also_in_the_next_rollout(partial_run):
    rollouts, _ = partial_run
    valid = np.concatenate([rollout.valid for rollout in rollouts])
    done = np.concatenate([rollout.done for rollout in rollouts])
    assert valid[0].all()
    np.testing.assert_array_equal(valid[1:], ~done[:-1])
    assert not done[~valid].any()  # a reset ends nothing
    assert any(rollout.done[-1].any() for rollout in rollouts[:-1])
    assert any(not rollout.valid[0].all() for rollout in rollouts[1:])


def test_a_partial_run_counts_its_real_steps_and_each_raw_episode_once(partial_run):
    rollouts, copies = partial_run
    for rollout in rollouts:
        assert rollout.num_steps == rollout.valid.sum()
    taken = sum(len(env.diary) for env in copies)
    assert sum(rollout.num_steps for rollout in rollouts) == taken >= 400
    assert taken < sum(rollout.valid.size for rollout in rollouts)
    found = [episode for rollout in rollouts for episode in rollout.episodes]
    expected = [pair for env in copies for pair in returns_and_lengths(env.diary)]
    assert sorted(found) == sorted(expected)


# Whole trajectories: reinforce.py, vpg_baseline.py


@pytest.fixture(scope="module", params=WHOLE, ids=lambda s: s.__name__)
def whole_run(request, tmp_path_factory):
    """[(rollout, each copy's diary of that iteration), ...] of one training run."""
    COPIES.clear()
    flags = ["--total-steps", "500", "--num-envs", "3", *RAW]
    args = arguments(request.param, tmp_path_factory.mktemp("whole"), *flags)
    rollouts, _ = train_and_watch(request.param, args)
    assert len(COPIES) == 3 and len(rollouts) > 10

    def diary(copy, k):
        """From the episode that iteration k began with to that of the next one."""
        first = rollouts[k].obs[0, copy, 0]
        after = rollouts[k + 1].obs[0, copy, 0] if k + 1 < len(rollouts) else np.inf
        return [line for line in COPIES[copy].diary if first <= line[0] < after]

    indices = range(len(rollouts))
    return [(rollouts[k], [diary(copy, k) for copy in range(3)]) for k in indices]


def test_each_copy_gives_exactly_its_first_whole_trajectory(whole_run):
    """From the reset to the end: never cut, never left out for being long."""
    for rollout, diaries in whole_run:
        for copy, diary in enumerate(diaries):
            first = [line for line in diary if line[0] == diary[0][0]]
            assert lines(rollout, copy) == first
            assert rollout.obs[0, copy, 1] == 0
            *_, terminated, truncated, _ = first[-1]
            assert terminated or truncated


def test_long_trajectories_are_met_as_often_as_they_are_drawn(whole_run):
    """Keeping those that finish first would meet the short ones more often."""
    lengths = [n for rollout, _ in whole_run for n in rollout.valid.sum(axis=0)]
    standard_error = np.sqrt((9**2 - 1) / 12 / len(lengths))
    assert abs(np.mean(lengths) - 5) < 4 * standard_error  # drawn from 1, ..., 9
    assert set(lengths) == set(range(1, 10))


def test_steps_after_a_copys_trajectory_count_but_its_first_episode_alone_is_kept(
    whole_run,
):
    """They are simulated, so they are paid for, though nobody learns from them."""
    for rollout, diaries in whole_run:
        assert rollout.num_steps == sum(map(len, diaries))
        expected = [returns_and_lengths(diary)[0] for diary in diaries]
        assert sorted(rollout.episodes) == sorted(expected)
        assert len(rollout.rewards) == max(length for _, length in expected)
    assert any(rollout.num_steps > rollout.valid.sum() for rollout, _ in whole_run)


@each([reinforce, ppo_clip])
def test_max_episode_steps_sets_the_horizon(script, tmp_path):
    """The limit shows as truncated, not as terminated."""
    flags = ["--env", "Endless-v0", "--num-envs", "2", "--max-episode-steps", "7", *RAW]
    args = arguments(script, tmp_path, *flags, "--total-steps", "520")
    rollout = train_and_watch(script, args)[0][0]
    assert rollout.episodes and {length for _, length in rollout.episodes} == {7}
    assert not rollout.terminated.any()
    ends = [line for copy in (0, 1) for line in lines(rollout, copy) if line[5]]
    assert ends and {line[1] + 1 for line in ends} == {7}


def test_max_episode_steps_sets_the_horizon_of_a_vectorized_environment_too(tmp_path):
    """CartPole-v1 has a vector version of its own, which no wrapper limits."""
    flags = ["--env", "CartPole-v1", "--num-envs", "4", "--max-episode-steps", "12"]
    args = arguments(reinforce, tmp_path, *flags)
    envs = reinforce.make_envs(args, 4)
    envs.reset(seed=0)
    policy = reinforce.Policy(envs, [4], 1.0)
    rollout = reinforce.collect_trajectories(args, envs, policy)
    assert max(length for _, length in rollout.episodes) == 12
    assert (rollout.done & ~rollout.terminated)[11].any()


def test_a_trajectory_that_outlasts_the_run_is_an_error_naming_the_flag(tmp_path):
    args = arguments(reinforce, tmp_path, "--env", "Endless-v0", "--total-steps", "50")
    with pytest.raises(reinforce.UsageError, match="--max-episode-steps"):
        reinforce.train(args)
    assert sum(len(env.diary) for env in COPIES) <= 50 + args.num_envs
    assert all(env.closed for env in COPIES)


def test_a_last_batch_may_overshoot_the_budget_when_no_trajectory_does(tmp_path):
    """8 trajectories of 12 steps are more than 95 steps, yet each alone is not."""
    flags = ["--env", "Endless-v0", "--max-episode-steps", "12", "--num-envs", "8"]
    args = arguments(reinforce, tmp_path, *flags, "--total-steps", "95", *RAW)
    rollouts, _ = train_and_watch(reinforce, args)
    assert [rollout.num_steps for rollout in rollouts] == [8 * 12]


def test_a_trajectory_of_ten_thousand_steps_is_remarked_upon_once(capsys):
    obs, no, steps = np.zeros((1, 1)), np.zeros(1, bool), iter(range(1, 10_002))
    info = {reinforce.STATS: {"r": [0.0], "l": [0]}}
    envs = SimpleNamespace(
        reset=lambda: (obs, {}),
        step=lambda action: (obs, np.ones(1), no, no | (next(steps) > 10_000), info),
    )
    args = reinforce.parse_args(["--num-envs", "1"])
    fixed = SimpleNamespace(sample=lambda: torch.zeros(1, dtype=int))
    policy = SimpleNamespace(distribution=lambda obs: fixed)
    rollout = reinforce.collect_trajectories(args, envs, policy)
    assert len(rollout.rewards) == 10_001
    assert "".join(capsys.readouterr()).count("--max-episode-steps") == 1


# Sampling


def collect(script, args, policy):
    """One rollout of whole trajectories, or of args.rollout_steps steps."""
    envs = script.make_envs(args, args.num_envs)
    obs, _ = envs.reset(seed=0)
    if script in WHOLE:
        return script.collect_trajectories(args, envs, policy)
    return script.collect_rollout(args, envs, policy, obs, np.zeros(len(obs), bool))


def policy_for(space):
    """A policy with random parameters, for observations of 1 number."""
    torch.manual_seed(0)
    policy = ppo_clip.Policy(spaces_of(space, observation=1), [8], 1.0)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return policy


@each([reinforce, ppo_clip])
@pytest.mark.parametrize(
    "space", [spaces.Discrete(5), spaces.Box(-9, 9, (2, 3))], ids=["discrete", "box"]
)
def test_actions_are_drawn_from_the_policys_distribution(script, space, tmp_path):
    """10,000 draws in one state, always the same, which is Discrete(1).

    χ² with 4 degrees of freedom: p = 1e-4 at 23.5. Noise of mean 0 and variance 1.
    """
    register_space_env(spaces.Discrete(1), space, length=100)
    flags = ["--env", "Space-v0", "--num-envs", "100", "--rollout-steps", "100"]
    flags = flags if script is ppo_clip else flags[:-2]
    policy = policy_for(space)
    actions = collect(script, arguments(script, tmp_path, *flags), policy).actions
    assert actions.shape == (100, 100, *space.shape)
    with torch.no_grad():
        distribution = policy.distribution(torch.ones(1, 1))
    if isinstance(space, spaces.Discrete):
        expected = 10_000 * distribution.probs[0].numpy()
        counted = np.bincount(actions.flatten(), minlength=5)
        assert expected.min() > 10
        assert ((counted - expected) ** 2 / expected).sum() < 23.5
    else:
        noise = (actions - distribution.mean.numpy()) / distribution.stddev.numpy()
        assert abs(noise.mean(axis=(0, 1))).max() < 0.04  # 4 standard errors
        assert noise.var(axis=(0, 1)) == pytest.approx(np.ones(space.shape), abs=0.06)
        assert abs(np.corrcoef(noise.reshape(-1, 6).T) - np.eye(6)).max() < 0.04


@each([reinforce, ppo_clip])
def test_an_action_is_drawn_for_the_observation_that_stands_beside_it(script, tmp_path):
    """This policy does what the observation says: the parity of the step's number."""

    def distribution(obs):
        odd = obs[:, 1] % 2
        return Categorical(logits=1e3 * torch.stack([1 - odd, odd], dim=-1))

    args = arguments(script, tmp_path, "--num-envs", "4", *RAW)
    rollout = collect(script, args, SimpleNamespace(distribution=distribution))
    expected = rollout.obs[:-1, :, 1] % 2
    np.testing.assert_array_equal(rollout.actions, expected)
    for copy, env in enumerate(COPIES):
        received = [line[2] for line in env.diary if line[1] == 1]
        assert received and set(received) == {1}, copy


# The networks at first


def test_weights_are_orthogonal_and_biases_0_at_first():
    """W Wᵀ or WᵀW is gain² times the identity: √2 inside, 0.01 and 1 at the end."""
    envs = spaces_of(spaces.Discrete(5), observation=4)
    for network, last_gain in [
        (ppo_clip.Policy(envs, [8, 6], 1.0).network, 0.01),
        (ppo_clip.ValueFunction(envs, [8, 6]).network, 1.0),
        (ppo_clip.mlp([4, 8, 6, 5], last_gain=3.0), 3.0),
    ]:
        kinds = [nn.Linear, nn.Tanh, nn.Linear, nn.Tanh, nn.Linear]
        assert [type(layer) for layer in network] == kinds
        sizes = [(layer.in_features, layer.out_features) for layer in network[::2]]
        assert sizes[:2] == [(4, 8), (8, 6)]
        for layer, gain in zip(network[::2], [2**0.5, 2**0.5, last_gain]):
            W = (
                layer.weight
                if layer.in_features > layer.out_features
                else layer.weight.T
            )
            torch.testing.assert_close(W @ W.T, gain**2 * torch.eye(len(W)))
            assert not layer.bias.any()
    assert ppo_clip.ValueFunction(envs, [8])(torch.ones(7, 4)).shape == (7,)
    probs = ppo_clip.Policy(envs, [8], 1.0).distribution(torch.randn(99, 4)).probs
    assert probs.shape == (99, 5) and (probs - 1 / 5).abs().max() < 0.01


@pytest.mark.parametrize("shape", [(), (1,), (6,), (2, 3)], ids=str)
def test_the_first_noise_has_one_square_length_however_many_actions(shape):
    """E|a - mean|² = Σσ², in each state; an action is one event for each row."""
    for variance in 1.0, 2.0:
        envs = spaces_of(spaces.Box(-1, 1, shape), observation=4)
        policy = ppo_clip.Policy(envs, [8], variance)
        distribution = policy.distribution(torch.randn(7, 4))
        assert distribution.batch_shape == (7,) and distribution.event_shape == shape
        variances = distribution.variance.reshape(7, -1)
        assert variances.sum(-1).tolist() == pytest.approx([variance] * 7)
        assert variances.std().item() < 1e-6 or shape in [(), (1,)]


@every_script
def test_a_run_starts_with_the_initial_variance_and_the_hidden_sizes(script, tmp_path):
    """Two numbers an action: Σσ² = 8 is σ = 2 for each; with α = 0 it stays there."""
    flags = "--env Space-v0 --num-envs 1 --learning-rate 0 --initial-variance 8"
    args = arguments(script, tmp_path, *flags.split())
    args.total_steps, args.rollout_steps, args.hidden_sizes = 20, 10, [5, 7]
    register_space_env(spaces.Box(-1, 1, (3,), np.float32), spaces.Box(-1, 1, (2,)))
    policy, _ = script.train(args)
    assert policy.log_std.tolist() == pytest.approx([np.log(2)] * 2)
    networks = [policy.network.state_dict()]
    if script is not reinforce:
        networks.append(checkpoint(args.run_dir)["value_function"])
    for state in networks:
        shapes = [w.shape for name, w in state.items() if "weight" in name]
        assert shapes[:2] == [(5, 3), (7, 5)] and len(shapes) == 3


# Actions


def received_and_kept(space, samples, tmp_path):
    """What a Space-v0 gets of these sampled actions, and what the rollout keeps."""
    register_space_env(spaces.Box(-1, 1, (1,), np.float32), space, length=1000)
    flags = ["--env", "Space-v0", "--num-envs", "1"]
    args = arguments(ppo_clip, tmp_path, *flags, "--rollout-steps", str(len(samples)))
    remaining = (torch.as_tensor(sample)[None] for sample in samples)
    scripted = SimpleNamespace(sample=lambda: next(remaining))
    policy = SimpleNamespace(distribution=lambda obs: scripted)
    rollout = collect(ppo_clip, args, policy)
    return np.array(COPIES[-1].received), rollout.actions[:, 0]


@pytest.mark.parametrize(
    "space, samples, expected",
    [
        pytest.param(
            spaces.Box(np.float32([-2, 0]), np.float32([3, 10])),
            [[1, 1], [-1, -1], [3, 3], [-3, -1.5], [0, 0.5]],
            [[3, 10], [-2, 0], [3, 10], [-2, 0], [0.5, 7.5]],
            id="stretched from [-1, 1] to the bounds; beyond is clipped",
        ),
        pytest.param(
            spaces.Box(-np.inf, np.inf, (2,), np.float32),
            [[7.5, -1234.0], [0.0, 1e-3]],
            [[7.5, -1234.0], [0.0, 1e-3]],
            id="without bounds they arrive as they are",
        ),
        pytest.param(
            spaces.Box(0, np.inf, (1,), np.float32),
            [[-3], [0.25], [40]],
            [[0], [0.25], [40]],
            id="with one bound they are only clipped",
        ),
        pytest.param(
            spaces.Box(np.float32([-3e38, -5]), np.float32([3e38, 5])),
            [[7.5, 1], [-0.25, -1]],
            [[7.5, 5], [-0.25, -5]],
            id="each dimension for itself; huge bounds are none",
        ),
        pytest.param(
            spaces.Box(-2, 3, (2, 2), np.float64),
            [[[1, 0], [-1, 9]], [[0, 0], [0, 0]]],
            [[[3, 0.5], [-2, 3]], [[0.5, 0.5], [0.5, 0.5]]],
            id="of any shape and precision",
        ),
        pytest.param(spaces.Box(-2, 3, ()), [1, 0.2], [3, 1], id="or of none"),
    ],
)
def test_box_actions_are_fitted_to_their_bounds(space, samples, expected, tmp_path):
    """The rollout keeps what was sampled: that is what the policy has a density for."""
    received, kept = received_and_kept(space, np.float32(samples), tmp_path)
    assert received.dtype == space.dtype and all(
        space.contains(np.array(a)) for a in received
    )
    np.testing.assert_allclose(received, expected, rtol=1e-6)
    np.testing.assert_array_equal(kept, np.float32(samples))


def test_rounding_takes_no_action_past_its_bound(tmp_path):
    """Stretched by a middle and a half that are rounded, 1 can be a bit above high."""
    for low, high in (-0.2, 1.2), (-2.0, 0.7), (0.1, 0.3):
        space = spaces.Box(np.float32([low]), np.float32([high]))
        samples = np.float32([[-5], [-1], [1], [5]])
        received, _ = received_and_kept(space, samples, tmp_path)
        assert received.dtype == np.float32 and all(map(space.contains, received))
        np.testing.assert_allclose(received[:, 0], [low, low, high, high], rtol=1e-6)


def test_discrete_actions_begin_at_the_spaces_start(tmp_path):
    space = spaces.Discrete(3, start=5)
    received, kept = received_and_kept(space, np.array([0, 1, 2, 0]), tmp_path)
    assert received.tolist() == [5, 6, 7, 5]
    assert kept.tolist() == [0, 1, 2, 0]


def test_actions_may_be_numbers_or_matrices(tmp_path):
    """The environment itself checks that each action lies in its space."""
    for shape in (), (2, 2):
        flags = "--env Space-v0 --num-envs 2 --rollout-steps 50 --total-steps 150"
        args = arguments(ppo_clip, tmp_path / str(shape), *flags.split())
        action_space = spaces.Box(-2, 3, shape, np.float64)
        register_space_env(spaces.Box(-1, 1, (3,), np.float32), action_space)
        policy, history = ppo_clip.train(args)
        assert {total for _, total in history} == {5.0}
        assert len(COPIES[-1].received) > 50
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
        spaces.Discrete(3, start=5),
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
    expected = [10 * np.sign(env.shown[0][0]) for env in COPIES]
    np.testing.assert_array_equal(obs[:, 0], expected)


def test_statistics_move_in_training_and_stand_still_in_evaluation(
    monkeypatch, tmp_path
):
    """Evaluation sees through the same glasses as training did at its end."""
    made = watch(monkeypatch, ppo_clip, "make_envs")
    flags = ["--total-steps", "200", "--num-envs", "2", "--rollout-steps", "50"]
    args = arguments(ppo_clip, tmp_path, *flags)
    ppo_clip.train(args)
    ppo_clip.evaluate(args, f"{args.run_dir}/checkpoint.pt")
    training, evaluation = (envs.statistics for _, envs in made)
    saved = checkpoint(args.run_dir)
    assert set(training) == {"observation", "return"}
    assert set(evaluation) == {"observation"}  # rewards are not normalised there
    for statistics in training["observation"], evaluation["observation"]:
        mean, var, count = saved["observation"]
        np.testing.assert_array_equal(statistics.mean, mean)
        np.testing.assert_array_equal(statistics.var, var)
        assert statistics.count == count > 200 and mean[0] > 1 and var[1] > 1
    _, var, count = saved["return"]
    assert training["return"].var == var and count > 200


# Rewards


@each([reinforce, ppo_clip])
def test_episodes_hold_raw_returns_while_the_rewards_are_normalised(
    script, monkeypatch, tmp_path
):
    made = watch(monkeypatch, script, "make_envs")
    flags = ["--total-steps", "300", "--num-envs", "2", "--no-normalize-observations"]
    rollout_steps = ["--rollout-steps", "50"] if script is ppo_clip else []
    args = arguments(script, tmp_path, *flags, *rollout_steps)
    rollouts, _ = train_and_watch(script, args)
    for rollout in rollouts:
        raw = (1 + rollout.obs[:-1, :, 1])[rollout.valid]  # the environment's rule
        normalised = rollout.rewards[rollout.valid]
        ratio = raw / normalised
        assert (ratio > 0).all()  # divided by a standard deviation, not shifted
    _, envs = made[0]
    scale = np.sqrt(envs.statistics["return"].var)
    assert ratio[-1] == pytest.approx(scale, rel=1e-6)
    found = [episode for rollout in rollouts for episode in rollout.episodes]
    possible = {(n * (n + 1) / 2, n) for n in range(1, 10)}  # 1 + 2 + ... + n
    assert found and set(found) <= possible


def test_rewards_are_divided_by_the_std_of_the_running_discounted_return(tmp_path):
    """Every step earns 1, and no episode ends: the t-th return is Σ γ^k over k < t."""
    space = spaces.Box(-1, 1, (1,), np.float32)
    register_space_env(space, spaces.Discrete(2), length=1000)
    for gamma in 0.5, 0.9:
        flags = ["--env", "Space-v0", "--gamma", str(gamma)]
        envs = ppo_clip.make_envs(arguments(ppo_clip, tmp_path, *flags), 2)
        envs.reset(seed=0)
        returns, running = [], 0.0
        for _ in range(40):
            _, reward, *_ = envs.step(np.zeros(2, int))
            running = 1 + gamma * running
            returns.append(running)
        assert reward == pytest.approx(1 / np.std(returns), rel=0.01)
    statistics = envs.statistics["return"]
    for std, expected in (0.25, 4), (0.01, 10):  # 1 / 0.01 is clipped at 10
        statistics.var, statistics.count = std**2, 1e12  # one step changes nothing
        _, reward, *_ = envs.step(np.zeros(2, int))
        assert reward == pytest.approx(expected, rel=1e-3)


def test_evaluated_returns_are_raw_and_of_whole_episodes(tmp_path):
    """All episodes of one copy, in their order, and then it is closed."""
    flags = ["--total-steps", "200", "--num-envs", "2", "--rollout-steps", "50"]
    args = arguments(ppo_clip, tmp_path, *flags, "--eval-episodes", "25")
    ppo_clip.train(args)
    COPIES.clear()
    returns = ppo_clip.evaluate(args, f"{args.run_dir}/checkpoint.pt")
    (env,) = COPIES
    assert returns.tolist() == [total for total, _ in returns_and_lengths(env.diary)]
    assert len(returns) == 25 and env.closed


# Vectorization


def kind_of_envs(tmp_path, env, mode, **options):
    args = arguments(ppo_clip, tmp_path, "--env", env, "--vectorization", mode)
    envs = ppo_clip.make_envs(args, 2, **options)
    envs.close()
    return type(envs.unwrapped)


def test_vectorization_names_how_the_copies_are_run(tmp_path):
    sync, asynchronous = gym.vector.SyncVectorEnv, gym.vector.AsyncVectorEnv
    assert kind_of_envs(tmp_path, "CartPole-v1", "sync") is sync
    assert kind_of_envs(tmp_path, "CartPole-v1", "async") is asynchronous
    assert kind_of_envs(tmp_path, "Counting-v0", "auto") is sync
    own = kind_of_envs(tmp_path, "CartPole-v1", "auto")
    assert own.__name__ == "CartPoleVectorEnv"
    assert kind_of_envs(tmp_path, "CartPole-v1", "async", training=False) is sync


def test_sync_and_async_copies_give_the_same_rollout(tmp_path):
    """Also if Ctrl-C reaches the processes of the copies, which is not for them."""
    rollouts = []
    for vectorization in "sync", "async":
        flags = ["--env", "Pendulum-v1", "--vectorization", vectorization]
        args = arguments(ppo_clip, tmp_path, *flags, "--rollout-steps", "250")
        envs = ppo_clip.make_envs(args, 2)
        torch.manual_seed(0)
        policy = ppo_clip.Policy(envs, [8], 1.0)
        obs, _ = envs.reset(seed=0)
        if sys.platform != "win32":
            for process in multiprocessing.active_children():
                os.kill(process.pid, signal.SIGINT)
        done = np.zeros(2, bool)
        rollouts.append(ppo_clip.collect_rollout(args, envs, policy, obs, done))
        envs.close()
    for one, other in zip(*rollouts):
        np.testing.assert_array_equal(one, other)
    assert len(rollouts[0].episodes) == 2

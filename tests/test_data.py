"""What the scripts learn from: every step once, and nothing that is not a step.

The counting environment shows which episode and which step it is in, and keeps a diary
of its steps, with which rollouts are compared. What the scripts share word for word
(test_shared_text.py) is tested in one of them.
"""

from types import SimpleNamespace

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
    short_args,
    spaces_of,
    train_and_watch,
    watch,
)
from torch import nn

import ppo_clip
import reinforce


@pytest.fixture(autouse=True)
def no_copies_yet():
    COPIES.clear()


def raw_args(script, tmp_path, **changes):
    """A short run on Counting-v0, without a time limit and without normalisation."""
    raw = {"env": "Counting-v0", "max_episode_steps": None}
    raw |= {"normalize_observations": False, "normalize_rewards": False}
    return short_args(script, tmp_path / "run", **raw | changes)


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


@each(PARTIAL)
def test_valid_rows_of_partial_trajectories_are_the_steps_taken(script, tmp_path):
    """None is lost between two rollouts, none is in twice, none is made up.

    The row after a step is what it led to, also at an episode's end. The row after an
    end is masked, also in the next rollout. Only real steps and episodes count.
    """
    args = raw_args(script, tmp_path, num_envs=3, rollout_steps=7)
    rollouts, _ = train_and_watch(script, args)
    assert len(COPIES) == 3 and len(rollouts) > 10
    for copy, env in enumerate(COPIES):
        rows = [line for rollout in rollouts for line in lines(rollout, copy)]
        assert rows == env.diary
        assert sum(terminated for *_, terminated, _, _ in rows) > 5
        assert sum(truncated for *_, truncated, _ in rows) > 5
    valid = np.concatenate([rollout.valid for rollout in rollouts])
    done = np.concatenate([rollout.done for rollout in rollouts])
    assert valid[0].all() and not done[~valid].any()  # a reset ends nothing
    np.testing.assert_array_equal(valid[1:], ~done[:-1])
    assert any(rollout.done[-1].any() for rollout in rollouts[:-1])
    assert all(rollout.num_steps == rollout.valid.sum() for rollout in rollouts)
    found = [episode for rollout in rollouts for episode in rollout.episodes]
    assert sorted(found) == sorted(pair for env in COPIES for pair in env.ended)


@each(WHOLE)
def test_each_copy_gives_exactly_its_first_whole_trajectory(script, tmp_path):
    """From the reset to the end: never cut, never left out for being long.

    The steps after it are counted, though nobody learns from them.
    """
    args = raw_args(script, tmp_path, num_envs=3)
    rollouts, _ = train_and_watch(script, args)
    assert len(COPIES) == 3 and len(rollouts) > 10
    starts = [rollout.obs[0, :, 0] for rollout in rollouts] + [np.full(3, np.inf)]
    lengths = []
    for rollout, begin, end in zip(rollouts, starts, starts[1:]):
        episodes, num_steps = [], 0
        for copy, env in enumerate(COPIES):
            taken = [line for line in env.diary if begin[copy] <= line[0] < end[copy]]
            first = [line for line in taken if line[0] == begin[copy]]
            assert lines(rollout, copy) == first and first[0][1] == 0
            assert first[-1][4] or first[-1][5]
            episodes.append((sum(line[3] for line in first), len(first)))
            num_steps += len(taken)
        assert sorted(rollout.episodes) == sorted(episodes)
        assert rollout.num_steps == num_steps >= rollout.valid.sum()
        assert len(rollout.rewards) == max(length for _, length in episodes)
        lengths += [length for _, length in episodes]
    assert set(lengths) == set(range(1, 10))  # drawn with equal chances
    standard_error = np.sqrt((9**2 - 1) / 12 / len(lengths))
    assert abs(np.mean(lengths) - 5) < 4 * standard_error


@pytest.mark.parametrize("env", ["Endless-v0", "CartPole-v1"])
@each([reinforce, ppo_clip])
def test_max_episode_steps_sets_the_horizon(script, env, tmp_path):
    """It shows as truncated; also in the vector version that CartPole-v1 has."""
    args = raw_args(script, tmp_path, env=env, max_episode_steps=7)
    rollout = train_and_watch(script, args)[0][0]
    assert {length for _, length in rollout.episodes} == {7}
    assert rollout.done[6].all()  # no pole can fall over so soon
    assert not rollout.terminated.any()


def test_a_trajectory_that_outlasts_the_run_is_an_error_and_a_batch_is_none(tmp_path):
    """8 trajectories of 12 steps are more than 95 steps, yet each alone is not."""
    changes = {"env": "Endless-v0", "num_envs": 8, "total_steps": 95}
    args = raw_args(reinforce, tmp_path, **changes, max_episode_steps=12)
    rollouts, _ = train_and_watch(reinforce, args)
    assert [rollout.num_steps for rollout in rollouts] == [8 * 12]
    COPIES.clear()
    args = raw_args(reinforce, tmp_path / "endless", **changes)
    with pytest.raises(reinforce.UsageError, match="--max-episode-steps"):
        reinforce.train(args)
    assert sum(len(env.diary) for env in COPIES) <= 95 + args.num_envs
    assert all(env.closed for env in COPIES)


def test_a_trajectory_of_ten_thousand_steps_is_remarked_upon_once(capsys):
    obs, no, steps = np.zeros((1, 1)), np.zeros(1, bool), iter(range(1, 10_002))
    info = {reinforce.STATS: {"r": [0.0], "l": [0]}}
    envs = SimpleNamespace(
        reset=lambda: (obs, {}),
        step=lambda action: (obs, np.ones(1), no, no | (next(steps) > 10_000), info),
    )
    args = reinforce.parse_args(["--num-envs", "1"])
    policy = scripted_policy(lambda obs: torch.zeros(1, dtype=int))
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


def scripted_policy(sample):
    """A policy whose sampled action is sample(obs)."""
    return SimpleNamespace(
        distribution=lambda obs: SimpleNamespace(sample=lambda: sample(obs))
    )


@each([reinforce, ppo_clip])
def test_an_action_is_drawn_for_the_observation_that_stands_beside_it(script, tmp_path):
    """This policy samples what the observation says: the parity of the step's number.

    It has no other way to act than distribution(obs).sample().
    """
    policy = scripted_policy(lambda obs: obs[:, 1].long() % 2)
    rollout = collect(script, raw_args(script, tmp_path), policy)
    np.testing.assert_array_equal(rollout.actions, rollout.obs[:-1, :, 1] % 2)
    received = [line[2] for env in COPIES for line in env.diary if line[1] == 1]
    assert received and set(received) == {1}


# The networks at first


def test_weights_are_orthogonal_and_biases_0_at_first():
    """W Wᵀ or WᵀW is gain² times the identity: √2 inside, 0.01 and 1 at the end."""
    envs = spaces_of(spaces.Discrete(5), observation=4)
    policy = ppo_clip.Policy(envs, [8, 6], 1.0)
    value_function = ppo_clip.ValueFunction(envs, [8, 6])
    for network, outputs, last_gain in [
        (policy.network, 5, 0.01),
        (value_function.network, 1, 1.0),
    ]:
        kinds = [nn.Linear, nn.Tanh, nn.Linear, nn.Tanh, nn.Linear]
        assert [type(layer) for layer in network] == kinds
        sizes = [layer.weight.shape for layer in network[::2]]
        assert sizes == [(8, 4), (6, 8), (outputs, 6)]
        for layer, gain in zip(network[::2], [2**0.5, 2**0.5, last_gain]):
            W = layer.weight.detach().numpy()
            W = W if W.shape[0] < W.shape[1] else W.T
            np.testing.assert_allclose(W @ W.T, gain**2 * np.eye(len(W)), atol=1e-6)
            assert not layer.bias.any()
    assert value_function(torch.ones(7, 4)).shape == (7,)
    obs = torch.randn(99, 4)
    probs = policy.distribution(obs).probs
    assert probs.shape == (99, 5) and (probs - 1 / 5).abs().max() < 0.01
    nn.init.normal_(policy.network[-1].weight)
    probs = policy.distribution(obs).probs
    torch.testing.assert_close(probs, policy.network(obs).softmax(dim=1))


def test_the_first_noise_has_one_square_length_however_many_actions():
    """E|a - mean|² = Σσ², in each state; an action is one event for each row."""
    obs = torch.randn(7, 4)
    for shape in (), (1,), (6,), (2, 3):
        for variance in 1.0, 2.0:
            envs = spaces_of(spaces.Box(-1, 1, shape), observation=4)
            policy = ppo_clip.Policy(envs, [8], variance)
            nn.init.normal_(policy.network[-1].weight)  # means that are not near 0
            distribution = policy.distribution(obs)
            mean = distribution.mean.reshape(7, -1)
            torch.testing.assert_close(mean, policy.network(obs))
            assert (distribution.batch_shape, distribution.event_shape) == ((7,), shape)
            variances = distribution.variance.reshape(7, -1)
            expected = np.full(variances.shape, variance / variances.shape[1])
            np.testing.assert_allclose(variances.detach(), expected, rtol=1e-5)


@every_script
def test_a_run_starts_with_the_initial_variance_and_the_hidden_sizes(script, tmp_path):
    """Two numbers an action: Σσ² = 8 is σ = 2 for each; with α = 0 it stays there."""
    register_space_env(spaces.Box(-1, 1, (3,), np.float32), spaces.Box(-1, 1, (2,)))
    changes = {"env": "Space-v0", "initial_variance": 8.0, "hidden_sizes": [5, 7]}
    changes |= {"total_steps": 20, "rollout_steps": 10, "learning_rate": 0.0}
    policy, _ = script.train(args := raw_args(script, tmp_path, **changes))
    assert policy.log_std.tolist() == pytest.approx([np.log(2)] * 2)
    saved = checkpoint(args.run_dir)
    for network in ["policy"] + ["value_function"] * (script is not reinforce):
        weights = [w for name, w in saved[network].items() if "weight" in name]
        assert [w.shape for w in weights][:2] == [(5, 3), (7, 5)] and len(weights) == 3


# Actions


def received_and_kept(space, samples, tmp_path):
    """What a Space-v0 gets of these sampled actions, and what the rollout keeps."""
    register_space_env(spaces.Box(-1, 1, (1,), np.float32), space, length=1000)
    changes = {"num_envs": 1, "rollout_steps": len(samples)}
    args = raw_args(ppo_clip, tmp_path, env="Space-v0", **changes)
    remaining = (torch.as_tensor(sample)[None] for sample in samples)
    rollout = collect(ppo_clip, args, scripted_policy(lambda obs: next(remaining)))
    return np.array(COPIES[-1].received), rollout.actions[:, 0]


def box(low, high):
    return spaces.Box(np.float32(low), np.float32(high))


FOUR = [[-5], [-1], [1], [5]]  # samples below, at and above the ends of [-1, 1]
ANY_SHAPE = spaces.Box(-2, 3, (), np.float32), spaces.Box(-2, 3, (2, 2), np.float64)


@pytest.mark.parametrize(
    "space, samples, expected",
    [
        # stretched from [-1, 1] to the bounds, each dimension for itself
        (box([-2, 0], [3, 9]), [[1, 1], [-1, 0]], [[3, 9], [-2, 4.5]]),
        # no rounding takes an action past its bound, and it is clipped there
        (box([-0.2], [1.2]), FOUR, [[-0.2], [-0.2], [1.2], [1.2]]),
        (box([-2.0], [0.7]), FOUR, [[-2.0], [-2.0], [0.7], [0.7]]),
        (box([0.1], [0.3]), FOUR, [[0.1], [0.1], [0.3], [0.3]]),
        # without bounds they arrive as they are, with one bound they are only clipped
        (box([-np.inf], [np.inf]), [[7.5], [-1234], [1e-3]], [[7.5], [-1234], [1e-3]]),
        (box([0], [np.inf]), [[-3], [0.25], [40]], [[0], [0.25], [40]]),
        # huge bounds are none
        (box([-3e38, -5], [3e38, 5]), [[7.5, 1], [-0.25, -1]], [[7.5, 5], [-0.25, -5]]),
        # of any shape and precision
        (ANY_SHAPE[0], [1, 0.2], [3, 1]),
        (ANY_SHAPE[1], [[[1, 0], [-1, 9]]] * 2, [[[3, 0.5], [-2, 3]]] * 2),
        # Discrete actions begin at the space's start
        (spaces.Discrete(3, start=5), [0, 1, 2, 0], [5, 6, 7, 5]),
    ],
    ids=str,
)
def test_actions_are_fitted_to_their_space(space, samples, expected, tmp_path):
    """The rollout keeps what was sampled: that is what the policy has a density for."""
    if isinstance(space, spaces.Box):
        samples = np.float32(samples)
    received, kept = received_and_kept(space, samples, tmp_path)
    assert received.dtype == space.dtype
    assert all(space.contains(np.array(action)) for action in received)
    np.testing.assert_allclose(received, expected, rtol=1e-6)
    np.testing.assert_array_equal(kept, samples)


# Observations

IMAGE = spaces.Box(0, 255, (4, 4, 3), np.uint8)
BOX = spaces.Box(-1, 1, (2, 3), np.float32)
MIXED = spaces.Tuple([spaces.Discrete(2), spaces.Dict(image=IMAGE, box=BOX)])
ONE_DIMENSION, NUMBER = (spaces.Box(-1, 1, shape, np.float32) for shape in [(3,), ()])
OTHERS = [spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(3), spaces.Discrete(3, 5)]


def space_envs(space, tmp_path, length=5, **changes):
    """Two copies of Space-v0 with these observations, and the arguments."""
    register_space_env(space, spaces.Discrete(2), length)
    args = raw_args(ppo_clip, tmp_path, env="Space-v0", **changes)
    return ppo_clip.make_envs(args, 2), args


def flat(space):
    """What the copies show now."""
    return np.array([spaces.flatten(space, env.shown[-1]) for env in COPIES])


@pytest.mark.parametrize(
    "space", [ONE_DIMENSION, NUMBER, BOX, IMAGE, MIXED, *OTHERS], ids=str
)
def test_every_observation_arrives_flat_and_as_float(space, tmp_path):
    """A Discrete one is one-hot, and is never normalised: rare states would blow up."""
    normalize = isinstance(space, spaces.Discrete)
    envs, args = space_envs(space, tmp_path, normalize_observations=normalize)
    obs, _ = envs.reset(seed=3)
    for _ in range(8):
        np.testing.assert_array_equal(obs, flat(space))
        assert envs.single_observation_space.shape == obs.shape[1:]
        tensor = ppo_clip.to_tensor(obs, args)
        assert tensor.dtype == torch.float32
        np.testing.assert_array_equal(tensor.numpy(), np.float32(obs))
        obs, *_ = envs.step(np.zeros(2, int))
    assert envs.statistics == {}


@pytest.mark.parametrize("space", [BOX, IMAGE, MIXED], ids=str)
def test_observations_are_normalised_by_all_that_were_shown(space, tmp_path):
    envs, _ = space_envs(space, tmp_path, normalize_observations=True)
    obs, _ = envs.reset(seed=3)
    for _ in range(60):
        obs, *_ = envs.step(np.zeros(2, int))
    shown = [spaces.flatten(space, one) for env in COPIES for one in env.shown]
    mean, var = np.mean(shown, axis=0), np.var(shown, axis=0)
    statistics = envs.statistics["observation"]
    np.testing.assert_allclose(statistics.mean, mean, atol=1e-3, rtol=1e-4)
    np.testing.assert_allclose(statistics.var, var, atol=1e-3, rtol=1e-4)
    np.testing.assert_allclose(obs, (flat(space) - mean) / np.sqrt(var), atol=1e-2)
    statistics.var, statistics.count = 1e-12 + 0 * var, 1e12  # stays so in one step
    obs, *_ = envs.step(np.zeros(2, int))
    assert (abs(obs) == 10).mean() > 0.9  # clipped


def test_statistics_are_saved_and_stand_still_in_evaluation(monkeypatch, tmp_path):
    """Its returns are raw, those of the episodes of one copy, which is closed then."""
    made = watch(monkeypatch, ppo_clip, "make_envs")
    args = short_args(ppo_clip, tmp_path, env="Counting-v0", eval_episodes=25)
    ppo_clip.train(args)
    returns = ppo_clip.evaluate(args, tmp_path)
    assert returns.tolist() == [total for total, _ in COPIES[-1].ended]
    assert len(returns) == 25 and COPIES[-1].closed and len(COPIES) == 3
    training, evaluation = (envs.statistics for _, envs in made)
    assert set(training) == {"observation", "return"}
    assert set(evaluation) == {"observation"}  # rewards are not normalised there
    saved = checkpoint(tmp_path)
    for name, rms in [*training.items(), *evaluation.items()]:
        for one, other in zip(saved[name], (rms.mean, rms.var, rms.count)):
            np.testing.assert_array_equal(one, other)
        assert rms.count > 500 and np.all(rms.var > 0.1)


# Rewards


def test_rewards_are_divided_by_the_std_of_the_running_discounted_return(tmp_path):
    """Every step earns 1, and no episode ends: the t-th return is Σ γ^k over k < t."""
    for gamma in 0.5, 0.9:
        changes = {"gamma": gamma, "normalize_rewards": True}
        envs, _ = space_envs(BOX, tmp_path, length=1000, **changes)
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


# Vectorization


def test_vectorization_names_how_the_copies_are_run(tmp_path):
    for env, mode, training, expected in [
        ("CartPole-v1", "sync", True, "SyncVectorEnv"),
        ("CartPole-v1", "async", True, "AsyncVectorEnv"),
        ("CartPole-v1", "async", False, "SyncVectorEnv"),  # evaluation has one copy
        ("CartPole-v1", "auto", True, "CartPoleVectorEnv"),  # its own
        ("Counting-v0", "auto", True, "SyncVectorEnv"),
    ]:
        args = raw_args(ppo_clip, tmp_path, env=env, vectorization=mode)
        envs = ppo_clip.make_envs(args, 2, training)
        envs.close()
        assert type(envs.unwrapped).__name__ == expected

"""C17, C18, C19: what PPO does to a batch, measured on real runs on CartPole-v1.

    L_θk(θ)    = Ê[ r_t(θ) Â_t ]
    L^CLIP(θ)  = Ê[ min(r_t(θ) Â_t, clip(r_t(θ), 1-ε, 1+ε) Â_t) ]

C17: on the line from θ_k through θ_{k+1} the clipped objective is a lower bound of the
unclipped one; it rises to about where the update ended and falls beyond, while the
unclipped one goes on rising and would lead the policy far away.
C18: β finds its size within a few iterations from a hundredth and from the hundredfold
of β_0; some iterations violate the constraint on the KL (over 1.5 δ), most don't.
C19: the vanilla policy gradient throws a batch away after one step, PPO takes many
steps, and comes further by them with as many environment steps.
"""

import copy

import numpy as np
import pytest
import torch
from tabular import report

import actor_critic
import ppo_clip
import ppo_kl
import reinforce
import vpg_baseline
from common import generalized_advantages, normalize

# more iterations in a short run than with the defaults
T = "--rollout-steps 128 --epochs 10 --learning-rate 1e-3 --gae-lambda 0.97"


def updates(script, flags, run_dir, iterations=None):
    """args, and for every update of a run: θ_k, θ_{k+1}, its batch, V, its scalars.

    The run is the script's own train(); it stops after so many iterations, or at its
    end. V has shape (T + 1, N) and is the critic's before the update.
    """
    args = script.parse_args([*flags.split(), "--run-dir", str(run_dir)])
    seen, stop, original = [], [], script.update

    def watched(args, policy, value_function, optimizer, rollout, *beta):
        with torch.no_grad():
            values = value_function(script.to_tensor(rollout.obs, args)).numpy()
        before = copy.deepcopy(policy)
        scalars = original(args, policy, value_function, optimizer, rollout, *beta)
        seen.append((before, copy.deepcopy(policy), rollout, values, scalars))
        if len(seen) == iterations:
            stop.append(True)
        return scalars

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(script, "update", watched)
        script.train(args, stop)
    return args, seen


# C17


def along_the_update(args, before, after, rollout, values, alphas):
    """L_θk, L^CLIP and the KL at θ_k + α (θ_{k+1} - θ_k): three rows."""
    data = rollout.rewards, values, rollout.terminated, rollout.done
    advantages = generalized_advantages(*data, args.gamma, args.gae_lambda)
    advantages = normalize(advantages, rollout.valid)[rollout.valid]
    advantages = torch.as_tensor(advantages).float()
    obs = ppo_clip.to_tensor(rollout.obs, args)[:-1][rollout.valid]
    actions = torch.as_tensor(rollout.actions[rollout.valid])
    start = torch.nn.utils.parameters_to_vector(before.parameters())
    end = torch.nn.utils.parameters_to_vector(after.parameters())
    policy, rows = copy.deepcopy(before), []
    with torch.no_grad():
        old = before.distribution(obs)
        for alpha in alphas:
            theta = start + alpha * (end - start)
            torch.nn.utils.vector_to_parameters(theta, policy.parameters())
            new = policy.distribution(obs)
            ratio = (new.log_prob(actions) - old.log_prob(actions)).exp()
            clipped = ppo_clip.clipped_surrogate(ratio, advantages, args.clip_epsilon)
            unclipped = ppo_kl.surrogate(ratio, advantages)
            kl = torch.distributions.kl_divergence(old, new)
            rows.append([x.mean().item() for x in (unclipped, clipped, kl)])
    return np.array(rows).T


ALPHAS = np.linspace(-0.5, 3, 71)


# Seeds 0 to 9, updates 1 and 10: the maximum is at α = 0.85 to 1.30; at α = 1 there is
# 0.92 to 1.00 of it, at α = 3 less than nothing in 19 of 20.
@pytest.mark.parametrize("seed", range(2))
def test_C17_the_clipped_objective_is_a_lower_bound_that_turns_down_past_the_update(
    seed, tmp_path, record_property
):
    args, seen = updates(
        ppo_clip, f"--seed {seed} {T}", tmp_path / "run", iterations=10
    )
    for before, after, rollout, values, _ in seen[0], seen[9]:
        unclipped, clipped, kl = along_the_update(
            args, before, after, rollout, values, ALPHAS
        )
        here, there = np.argmin(abs(ALPHAS)), np.argmin(abs(ALPHAS - 1))
        # at θ_k they are one, in value and slope; elsewhere one bounds the other
        assert unclipped[here] == pytest.approx(clipped[here], abs=1e-6)
        slopes = [(x[here + 1] - x[here - 1]) / 0.1 for x in (unclipped, clipped)]
        assert slopes[0] == pytest.approx(slopes[1], rel=0.05) and slopes[0] > 0
        assert (clipped <= unclipped + 1e-6).all()
        assert kl[here] == pytest.approx(0, abs=1e-6) and kl[there] > 0.001
        # the clipped one has its top near the update, the unclipped one far beyond
        top = ALPHAS[clipped.argmax()]
        if seed == 0:
            at = round(top, 2)
            report(record_property, C17_maximum_of_the_clipped_objective_at=at)
        assert 0.5 < top < 2
        assert clipped[there] > 0.7 * clipped.max()
        assert clipped[-1] < 0
        assert ALPHAS[unclipped.argmax()] == ALPHAS[-1]


# C18


# Seeds 0 to 9: the KL reaches the band, or leaps over it, in iteration 7 at the latest
# from either β_0; then the median of β is 0.16 to 0.78; 0.08 to 0.42 of all iterations
# violate the constraint.
@pytest.mark.parametrize("beta", [0.01, 100.0])
def test_C18_beta_adapts_fast_and_most_iterations_keep_the_constraint_on_the_KL(
    beta, tmp_path, record_property
):
    flags = f"--beta {beta} --total-steps 40000 {T}"
    args, seen = updates(ppo_kl, flags, tmp_path / "run")
    kl = np.array([scalars["train/kl"] for *_, scalars in seen])
    betas = np.array([scalars["train/beta"] for *_, scalars in seen])
    violated = kl >= 1.5 * args.target_kl
    inside = ~violated & (kl > args.target_kl / 1.5)
    adapted = np.argmin(violated) if beta < 1 else np.argmax(kl > args.target_kl / 1.5)
    report(
        record_property,
        C18_kl_over_delta=np.round(kl[:12] / args.target_kl, 2).tolist(),
        C18_iterations_to_the_band=int(adapted) + 1,
        C18_share_that_violates=round(violated.mean(), 2),
    )
    if beta > 1:
        assert (kl[:5] < args.target_kl / 1.5).all()  # much too tight at first
        assert (betas[1:6] == beta / 2.0 ** np.arange(1, 6)).all()
    assert adapted <= 10
    assert inside.any()
    assert violated.any() and violated.mean() < 0.5
    assert 0.02 < np.median(betas[10:25]) < 2  # from either side to the same size


# C19


def policy_steps_per_batch(script, run_dir, monkeypatch):
    """How many steps the policy takes in each update of a short run."""
    seen, update, gradient_step = [], script.update, script.gradient_step

    def watched_update(*inputs):
        seen.append(0)
        return update(*inputs)

    def watched_step(args, optimizer, loss, *networks):
        seen[-1] += any(isinstance(network, script.Policy) for network in networks)
        gradient_step(args, optimizer, loss, *networks)

    monkeypatch.setattr(script, "update", watched_update)
    monkeypatch.setattr(script, "gradient_step", watched_step)
    flags = ["--total-steps", "5000", "--run-dir", str(run_dir)]
    script.train(script.parse_args(flags))
    return seen


@pytest.mark.parametrize("script", [reinforce, vpg_baseline, actor_critic])
def test_C19_the_policy_gradient_throws_a_batch_away_after_one_step(
    script, tmp_path, monkeypatch
):
    steps = policy_steps_per_batch(script, tmp_path / "run", monkeypatch)
    assert len(steps) >= 2 and set(steps) == {1}


@pytest.mark.parametrize("script", [ppo_kl, ppo_clip])
def test_C19_PPO_takes_many_steps_on_each_batch(
    script, tmp_path, monkeypatch, record_property
):
    # 2048 rows less the reset rows make 7 minibatches, 2048 of them 8; 5 epochs
    steps = policy_steps_per_batch(script, tmp_path / "run", monkeypatch)
    report(record_property, C19_steps_on_a_batch=max(steps))
    assert len(steps) >= 2 and set(steps) <= {35, 40}


ONE_STEP = "--epochs 1 --minibatch-size 1000000"


def return_after(steps, script, seed, run_dir, flags=""):
    """Mean return of the last 20 episodes of a run over so many environment steps."""
    given = f"--seed {seed} --total-steps {steps} {flags}".split()
    args = script.parse_args([*given, "--run-dir", str(run_dir)])
    _, history = script.train(args)
    return np.mean(history[-20:])


# Seeds 0 to 9: ppo_kl 500, ppo_clip 474 to 500; with one step on a batch 32 to 60.
@pytest.mark.parametrize("script", [ppo_kl, ppo_clip])
def test_C19_many_steps_on_a_batch_come_further_than_one(
    script, tmp_path, record_property
):
    """Nothing else differs: the same PPO, batches, critic and step size."""
    many = return_after(30_000, script, 0, tmp_path / "many")
    one = return_after(30_000, script, 0, tmp_path / "one", ONE_STEP)
    report(record_property, C19_return=round(many), C19_return_of_one_step=round(one))
    assert many > one + 200


@pytest.mark.slow
@pytest.mark.parametrize("script", [ppo_kl, ppo_clip])
def test_C19_many_steps_on_a_batch_come_further_on_each_of_ten_seeds(script, tmp_path):
    many, one = (
        [return_after(30_000, script, i, tmp_path / f"{i}{f}", f) for i in range(10)]
        for f in ("", ONE_STEP)
    )
    print(f"many: {np.round(many)}, one: {np.round(one)}")
    assert (np.array(many) > np.array(one) + 200).all()


# Seeds 0 to 9: vpg_baseline 207 to 416, actor_critic 500.
def test_C19_small_batches_make_up_for_single_steps(tmp_path, record_property):
    """The vanilla policy gradient stays behind; the actor-critic does not.

    Its critic lets it learn from batches an eighth the size, so it takes eight steps
    where PPO collects one batch. That is the other way to more steps.
    """
    vanilla, actor = (
        return_after(30_000, script, 0, tmp_path / script.__name__)
        for script in (vpg_baseline, actor_critic)
    )
    report(
        record_property,
        C19_return_of_vpg_baseline=round(vanilla),
        C19_return_of_actor_critic=round(actor),
    )
    assert 100 < vanilla < 450 < actor

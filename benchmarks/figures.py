"""Draws the lecture's figures from the project's own functions and runs.

    pip install matplotlib
    python benchmarks/figures.py

What is drawn is what tests/lecture/ asserts: the numbers come from those tests' own
helpers, with fixed seeds. The pictures go to benchmarks/figures/.
"""

import sys
import tempfile
from pathlib import Path

import matplotlib
import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "lecture")]
matplotlib.use("Agg")

import matplotlib.pyplot as plt
import test_04_advantage_bias_variance as blends
import test_05_step_size as hill
import test_06_distance as distance
import test_09_importance_sampling as sampling
import test_10_ppo_measured as measured
from report import STYLES
from tabular import transition_matrix

import actor_critic
import ppo_clip
import ppo_kl

FOLDER = ROOT / "benchmarks" / "figures"
# the same colour for the same thing in all figures
CLIPPED, KL = STYLES["ppo_clip"][1], STYLES["ppo_kl"][1]
PLAIN = STYLES["actor_critic"][1]  # the policy gradient, and the unclipped objective
BIAS, VARIANCE, GRAY = "#2ca02c", "#d62728", "#7f7f7f"


def panels(count, width=4.2):
    """A row of empty panels, each (width, 3.2) inches."""
    _, axes = plt.subplots(
        1, count, figsize=(width * count, 3.2), squeeze=False, layout="constrained"
    )
    for ax in axes[0]:
        ax.spines[["top", "right"]].set_visible(False)
    return axes[0]


def save(name):
    plt.savefig(FOLDER / name, dpi=110)
    plt.close()


def collapse():
    """C7: J(θ) of the corridor; one large step, and as long a way in small steps."""
    left, right = panels(2)
    thetas = np.linspace(-4, 10, 400)
    left.plot(thetas, [hill.J(theta) for theta in thetas], color=GRAY, lw=1)
    many = f"{hill.K} steps of 0.1 a batch"
    runs = [
        (actor_critic, 10.0, PLAIN, "o-", "policy gradient, 1 step of 10"),
        (ppo_kl, 10.0 / hill.K, KL, "s-", f"PPO-KL, {many}"),
        (ppo_clip, 10.0 / hill.K, CLIPPED, "^-", f"PPO-Clip, {many}"),
    ]
    for script, alpha, color, style, label in runs:
        path = hill.learn(script, alpha, seed=0, iterations=12)
        heights = [hill.J(theta) for theta in path]
        shown = len([theta for theta in path if theta < 10])
        left.plot(path[:shown], heights[:shown], style, color=color, ms=4, lw=1)
        right.plot(heights, style, color=color, label=label, ms=4)
    left.text(hill.SLOPE, hill.J(hill.SLOPE), r"$\theta_0$ ", ha="right")
    left.set(xlabel=r"$\theta$", ylabel=r"$J(\theta)$, expected return")
    right.set(xlabel="iteration k", ylabel=r"$J(\theta_k)$")
    right.legend(frameon=False, fontsize=8, loc="center right")
    save("collapse.png")


def sigmoid():
    """C6: the same Δθ at three places of the family π_θ(1) = σ(θ)."""
    left, right = panels(2)
    thetas, starts = np.linspace(-4, 9, 200), np.linspace(-4, 8, 61)
    left.plot(thetas, 1 / (1 + np.exp(-thetas)), color=GRAY, lw=1)

    def kl(theta):
        ends = distance.sigmoid_policy(theta), distance.sigmoid_policy(theta + 1)
        return distance.logged_kl(*ends)

    right.semilogy(starts, [kl(theta) for theta in starts], color=KL)
    for theta, marker in (-0.5, "o"), (2.5, "s"), (6.0, "^"):
        ends = np.array([theta, theta + 1])
        left.plot(ends, 1 / (1 + np.exp(-ends)), f"{marker}-", color="black", lw=3)
        right.plot(theta, kl(theta), marker, color="black", ms=8)
    label = r"$\pi_\theta(1) = \sigma(\theta)$"
    left.set(
        xlabel=r"$\theta$", ylabel=label, title=r"three steps of $\Delta\theta = 1$"
    )
    label = r"$D_{KL}(\pi_\theta \| \pi_{\theta+1})$"
    right.set(xlabel=r"$\theta$", ylabel=label, title="how far they move the policy")
    save("sigmoid.png")


def clip():
    """C16: one term of L^CLIP as a function of r."""
    epsilon = ppo_clip.parse_args([]).clip_epsilon
    ratio = torch.linspace(0, 2, 201)
    for ax, advantage in zip(panels(2, width=3.6), (1.0, -1.0)):
        A = torch.full_like(ratio, advantage)
        unclipped = ppo_kl.surrogate(ratio, A)
        clipped = ppo_clip.clipped_surrogate(ratio, A, epsilon)
        ax.plot(ratio, unclipped, "--", color=PLAIN, label=r"$r\,\hat{A}$")
        ax.plot(ratio, clipped, color=CLIPPED, lw=2.5, label=r"$L^{CLIP}$")
        ax.plot(1, advantage, "o", color="black", ms=5)
        bound = 1 + epsilon if advantage > 0 else 1 - epsilon
        ax.axvline(bound, color=GRAY, lw=0.8, ls=":")
        sign, name = (">", r"1 + \epsilon") if advantage > 0 else ("<", r"1 - \epsilon")
        ax.text(bound, ax.get_ylim()[0], f" ${name}$", color=GRAY, va="bottom")
        ax.set(xlabel="$r$", title=rf"$\hat{{A}} {sign} 0$")
        ax.legend(frameon=False, loc="upper left" if advantage > 0 else "upper right")
    save("clip.png")


def interpolation():
    """C17: the objectives on the line from θ_k through θ_{k+1}."""
    alphas = np.linspace(-0.5, 3, 141)
    with tempfile.TemporaryDirectory() as folder:
        args, seen = measured.updates(ppo_clip, measured.T, f"{folder}/run", 10)
    left, right = panels(2)
    for ax, k in (left, 0), (right, 9):
        unclipped, clipped, kl = measured.along_the_update(args, *seen[k][:4], alphas)
        mean = r"$\hat{E}[r\,\hat{A}]$"
        ax.plot(alphas, unclipped, "--", color=PLAIN, label=mean)
        ax.plot(alphas, clipped, color=CLIPPED, lw=2.5, label=r"$L^{CLIP}$")
        ax.plot(alphas, kl, color=KL, label=r"$\bar{D}_{KL}(\theta \| \theta_k)$")
        ax.set_ylim(-0.04, 0.12)
        for alpha, name in (0, r"$\theta_k$"), (1, r"$\theta_{k+1}$"):
            ax.axvline(alpha, color=GRAY, lw=0.8, ls=":")
            ax.text(alpha, 0.12, f" {name}", color=GRAY, va="top")
        line = r"$\alpha$ in $\theta_k + \alpha\,(\theta_{k+1} - \theta_k)$"
        ax.set(xlabel=line, title=f"CartPole-v1, update {k + 1}")
    right.legend(frameon=False, fontsize=8, loc=(0.2, 0.6))
    save("interpolation.png")


def bias_variance():
    """C4: squared bias and variance of Â^(n), and of the λ-blend."""
    settings = [("n", blends.N_STEPS, ["1", "2", "3", r"$\infty$"])]
    settings += [("λ", blends.LAMBDAS, [str(lam) for lam in blends.LAMBDAS])]
    for ax, (kind, values, labels) in zip(panels(2), settings):
        both = blends.all_problems(kind, values)
        for rows, color, name in zip(
            both, (BIAS, VARIANCE), ("squared bias", "variance")
        ):
            ax.plot(labels, rows.mean(axis=0), "o-", color=color, label=name)
        symbol = rf"$\hat{{A}}^{{({kind})}}$"
        ax.set(xlabel=f"${kind}$", title=symbol)
        ax.set_ylim(bottom=0)
        ax.legend(frameon=False)
    save("bias_variance.png")


def importance_weights():
    """C15: variance of the weights of whole trajectories, and of one step's ratio."""
    mdp, pi, other = sampling.close_policies(0)
    horizons = np.arange(1, 1001)
    whole = sampling.second_moments(mdp, pi, other, len(horizons)) - 1
    single, at_t = [], mdp.mu
    for _ in horizons:
        single.append(at_t @ (pi**2 / other).sum(axis=1) - 1)
        at_t = at_t @ transition_matrix(mdp, other)
    (ax,) = panels(1, width=6.5)
    ax.semilogy(
        horizons, whole, color=VARIANCE, label=r"$\prod_t r_t$, of a whole trajectory"
    )
    ax.semilogy(horizons, single, color=CLIPPED, label=r"$r_t$, the ratio of one step")
    difference = np.abs(pi - other).max()
    ax.set(
        xlabel="horizon $T$",
        ylabel="variance of the weight",
        title=rf"two policies, at most {difference:.2f} apart in any $\pi(a|s)$",
    )
    ax.legend(frameon=False)
    save("importance_weights.png")


def main():
    FOLDER.mkdir(exist_ok=True)
    torch.set_num_threads(1)
    for draw in (
        collapse,
        sigmoid,
        clip,
        interpolation,
        bias_variance,
        importance_weights,
    ):
        draw()


if __name__ == "__main__":
    main()

"""Draws the figures of docs/lecture.md from the project's own functions and runs.

    pip install matplotlib scipy
    python benchmarks/figures.py

What is drawn is what tests/lecture asserts: the numbers come from measured.py, which
those tests use too, with fixed seeds. The pictures go to benchmarks/figures.
"""

import math
import sys
import tempfile
from pathlib import Path

import matplotlib

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "lecture")]
matplotlib.use("Agg")

import matplotlib.pyplot as plt
import measured
import numpy as np
import torch
from plot import STYLES

import actor_critic
import ppo_clip
import ppo_kl

FOLDER = ROOT / "benchmarks" / "figures"
# the same colour for the same thing in all figures
CLIPPED, KL = STYLES["ppo_clip"][1], STYLES["ppo_kl"][1]
PLAIN = STYLES["actor_critic"][1]  # the policy gradient, and the unclipped objective
BARE, BIAS, GRAY = "#d62728", "#2ca02c", "#7f7f7f"
VARIANCE = BARE


def panels(count, width=4.6, height=3.4):
    """A row of empty panels."""
    size = (width * count, height)
    _, axes = plt.subplots(1, count, figsize=size, squeeze=False, layout="constrained")
    for ax in axes[0]:
        ax.spines[["top", "right"]].set_visible(False)
    return axes[0]


def save(name):
    plt.savefig(FOLDER / name, dpi=120)
    plt.close()


def collapse():
    """C7: one large step, and as long a way in small steps, on the corridor's hill."""
    alpha, K = 0.3, measured.K
    runs = [
        (actor_critic, K * alpha, "", PLAIN, "o-", r"one step of $K\alpha$"),
        (ppo_clip, alpha, "--clip-epsilon inf", BARE, "x-", "bare ratio"),
        (ppo_kl, alpha, "", KL, "s-", "KL penalty"),
        (ppo_clip, alpha, "", CLIPPED, "^-", "clip"),
    ]
    left, right = panels(2)
    thetas = np.linspace(-4.5, 9, 400)
    left.plot(thetas, [measured.J(theta) for theta in thetas], color=GRAY, lw=1)
    for script, step, flags, color, style, label in runs:
        if label != runs[0][-1]:
            label = rf"$K$ steps of $\alpha$, {label}"
        path = measured.learn(script, step, seed=0, iterations=12, flags=flags)
        heights = [measured.J(theta) for theta in path]
        right.plot(heights, style, color=color, label=label, ms=5, lw=1.2)
        end, height = path[1], heights[1]
        if end < thetas[-1]:
            left.plot(end, height, style[0], color=color, ms=8)
        else:  # beyond the right border
            left.plot(thetas[-1], height, ">", color=color, ms=8, clip_on=False)
            label = rf"$\theta_1 = {end:.0f}$"
            left.text(thetas[-1], height + 1.5, label, color=color, ha="right")
    start = measured.SLOPE, measured.J(measured.SLOPE)
    left.plot(*start, "o", color="black", ms=6)
    left.text(start[0] - 0.3, start[1], r"$\theta_0$", ha="right", va="bottom")
    left.set(xlabel=r"$\theta$", ylabel="expected return")
    left.set_title(r"$\theta_0$, and $\theta_1$ after the first batch", fontsize=10)
    right.set(xlabel="batches", ylabel="expected return", ylim=(-52, 12))
    right.set_yticks(range(-50, 0, 10))
    right.set_title(rf"$K = {K}$ and $\alpha = {alpha}$, plain SGD", fontsize=10)
    right.legend(frameon=False, fontsize=8, loc="upper left", ncols=2)
    save("collapse.png")


def sigmoid():
    """C6: the same step at three places of the family π_θ(1) = σ(θ)."""
    left, right = panels(2)
    thetas, starts = np.linspace(-4, 8, 200), np.linspace(-4, 7, 61)
    left.plot(thetas, measured.sigmoid(thetas), color=GRAY, lw=1)

    def kl(theta):
        ends = measured.sigmoid_logits(theta), measured.sigmoid_logits(theta + 1)
        return measured.logged_kl(*ends)

    right.semilogy(starts, [kl(theta) for theta in starts], color=GRAY, lw=1)
    for theta, marker, color in (-0.5, "o", BARE), (2.5, "s", PLAIN), (6, "^", BIAS):
        ends = np.array([theta, theta + 1])
        left.plot(ends, measured.sigmoid(ends), f"{marker}-", color=color, lw=3)
        right.plot(theta, kl(theta), marker, color=color, ms=9)
    left.set(xlabel=r"$\theta$", ylabel=r"$\pi_\theta(1) = \sigma(\theta)$")
    left.set_title(r"three steps of 1 in $\theta$", fontsize=10)
    right.set(xlabel=r"$\theta$ before the step", ylabel="KL divergence")
    right.set_title("how far such a step moves the policy", fontsize=10)
    save("sigmoid.png")


def clip():
    """C16: one term of L^CLIP as a function of r."""
    epsilon = ppo_clip.parse_args([]).clip_epsilon
    ratio = torch.linspace(0, 2, 201)
    for ax, advantage in zip(panels(2, width=3.8), (1.0, -1.0)):
        A = torch.full_like(ratio, advantage)
        unclipped = ppo_clip.clipped_surrogate(ratio, A, math.inf)
        clipped = ppo_clip.clipped_surrogate(ratio, A, epsilon)
        ax.plot(ratio, unclipped, "--", color=PLAIN, label=r"unclipped, $r\,\hat{A}$")
        ax.plot(ratio, clipped, color=CLIPPED, lw=2.5, label="clipped")
        ax.plot(1, advantage, "o", color="black", ms=5)
        corners = [(1 - epsilon, r"$1-\epsilon$", "right")]
        corners += [(1 + epsilon, r"$1+\epsilon$", "left")]
        low = ax.get_ylim()[0]
        for corner, name, side in corners:
            ax.axvline(corner, color=GRAY, lw=0.8, ls=":")
            ax.text(corner, low, f" {name} ", color=GRAY, ha=side, va="bottom")
        sign = ">" if advantage > 0 else "<"
        ax.set(xlabel="ratio $r$", ylabel="objective")
        ax.set_title(rf"advantage $\hat{{A}} {sign} 0$", fontsize=10)
        where = "upper left" if advantage > 0 else "upper right"
        ax.legend(frameon=False, fontsize=9, loc=where)
    save("clip.png")


def interpolation():
    """C17: the objectives on the line from θ_k through θ_{k+1}."""
    alphas = np.linspace(-0.5, 2.5, 121)
    with tempfile.TemporaryDirectory() as folder:
        args, seen = measured.updates(ppo_clip, measured.SHORT, f"{folder}/run", 10)
    left, right = panels(2)
    for ax, k in (left, 0), (right, 9):
        unclipped, clipped, kl = measured.along_the_update(args, *seen[k][:4], alphas)
        ax.plot(alphas, unclipped, "--", color=PLAIN, label="unclipped objective")
        ax.plot(alphas, clipped, color=CLIPPED, lw=2.5, label="clipped objective")
        ax.plot(alphas, kl, ":", color=KL, lw=2, label="KL divergence")
        top = 2.2 * clipped.max()
        ax.set_ylim(-0.4 * top, top)
        for alpha, name in (0, r"$\theta_k$"), (1, r"$\theta_{k+1}$"):
            ax.axvline(alpha, color=GRAY, lw=0.8, ls=":")
            ax.text(alpha, top, f" {name}", color=GRAY, va="top")
        ax.set_xlabel(r"$\alpha$ in $\theta_k + \alpha\,(\theta_{k+1} - \theta_k)$")
        ax.set_title(f"CartPole-v1, update {k + 1}", fontsize=10)
    handles, labels = left.get_legend_handles_labels()
    where = {"loc": "outside lower center", "ncols": 3}
    left.figure.legend(handles, labels, frameon=False, fontsize=9, **where)
    save("interpolation.png")


def bias_variance():
    """C4: squared bias and variance of Â^(n), and of the λ-blend."""
    infinity = r"$\infty$"
    settings = [("n", measured.N_STEPS, "number of steps $n$")]
    settings += [("λ", measured.LAMBDAS, r"$\lambda$")]
    for ax, (kind, values, name) in zip(panels(2), settings):
        labels = [infinity if x == math.inf else str(x) for x in values]
        bias, variance = measured.bias_and_variance(kind, values)
        ax.plot(labels, bias.mean(axis=0), "o-", color=BIAS, label="squared bias")
        ax.plot(labels, variance.mean(axis=0), "s-", color=VARIANCE, label="variance")
        ax.set(xlabel=name, ylim=(-0.02, 0.62))
        title = "$n$-step advantages" if kind == "n" else r"$\lambda$-blend (GAE)"
        ax.set_title(title, fontsize=10)
        ax.legend(frameon=False, fontsize=9, loc="upper left")
    save("bias_variance.png")


def importance_weights():
    """C15: variance of the weights of whole trajectories, and of one step's ratio."""
    mdp, pi, other = measured.close_policies(0)
    horizons = np.arange(1, 1001)
    whole, single = measured.weight_variances(mdp, pi, other, len(horizons))
    (ax,) = panels(1, width=6.5)
    ax.semilogy(
        horizons, whole, color=BARE, label="whole trajectory: product of ratios"
    )
    ax.semilogy(horizons, single, color=CLIPPED, label="one step: a single ratio")
    difference = np.abs(pi - other).max()
    ax.set(xlabel="horizon", ylabel="variance of the weight")
    title = f"two policies that differ by at most {difference:.2f} in any probability"
    ax.set_title(title, fontsize=10)
    ax.legend(frameon=False, fontsize=9)
    save("importance_weights.png")


def main():
    FOLDER.mkdir(exist_ok=True)
    torch.set_num_threads(1)
    figures = [collapse, sigmoid, clip, interpolation, bias_variance]
    for draw in [*figures, importance_weights]:
        draw()


if __name__ == "__main__":
    main()

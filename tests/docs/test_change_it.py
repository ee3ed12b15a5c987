"""docs/change_it.md: each recipe, applied to a copy of a script, does what it says."""

import importlib.util
import inspect
import re
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "change_it.md").read_text(encoding="utf-8")
RECIPES = dict(
    re.findall(r"<!-- recipe: (.+?) -->\n```diff\n(.*?)```", PAGE, re.DOTALL)
)
SCRIPTS = ["reinforce", "vpg_baseline", "actor_critic", "ppo_kl", "ppo_clip"]
STEPS = 600


class Shapes(gym.Env):
    """Images whose brightness says which action is right; ten steps an episode."""

    observation_space = spaces.Box(0, 255, (16, 16, 3), np.uint8)
    action_space = spaces.Discrete(2)

    def image(self):
        self.bright = int(self.np_random.integers(2))
        image = self.np_random.integers(0, 100, (16, 16, 3)) + 150 * self.bright
        return image.astype(np.uint8)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self.image(), {}

    def step(self, action):
        reward = float(action == self.bright)
        self.time += 1
        return self.image(), reward, False, self.time == 10, {}


gym.register("Shapes-v0", Shapes, disable_env_checker=True)


def applied(diff, source):
    """source with the hunks of a diff, which are separated by @@, applied by text."""
    for hunk in diff.split("@@\n"):
        lines = hunk.splitlines(keepends=True)
        assert all(line[0] in "+- \n" for line in lines), hunk
        old = "".join(line[1:] for line in lines if line[0] in "- ")
        new = "".join(line[1:] or "\n" for line in lines if line[0] in "+ ")
        assert source.count(old) == 1, old
        source = source.replace(old, new)
    return source


@pytest.fixture
def changed(tmp_path):
    """changed(script, recipe): a copy of the script with the recipe, imported."""

    def changed(script, recipe):
        source = (ROOT / f"{script}.py").read_text(encoding="utf-8")
        path = tmp_path / f"{script}.py"
        path.write_text(applied(RECIPES[recipe], source), encoding="utf-8")
        spec = importlib.util.spec_from_file_location(f"{script}_{tmp_path.name}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return changed


def arguments(module, folder, *more, env="CartPole-v1"):
    flags = ["--env", env, "--num-envs", 2, "--max-episode-steps", 50]
    flags += ["--total-steps", STEPS, "--run-dir", folder]
    if "rollout" in inspect.signature(module.update).parameters and hasattr(
        module, "collect_rollout"
    ):
        flags += ["--rollout-steps", 100]
    return module.parse_args([str(x) for x in [*flags, *more]])


def trained(module, folder, *more, env="CartPole-v1"):
    """The policy and history of a short run, which also evaluates and resumes."""
    args = arguments(module, folder, *more, env=env)
    policy, history = module.train(args)
    assert np.isfinite(module.evaluate(args, folder)).all()
    again = ["--resume", folder, "--total-steps", 2 * STEPS]
    module.train(module.parse_args([str(x) for x in again]))
    return policy, history


def test_every_recipe_is_tested_and_has_its_place_on_the_page():
    assert list(RECIPES) == ["relu", "images", "trunk", "early stopping", "squashed"]
    for target in re.findall(r"\]\(#([^)]+)\)", PAGE):
        titles = re.findall(r"^## (.+)$", PAGE, re.MULTILINE)
        assert target in [title.lower().replace(" ", "-") for title in titles]


@pytest.mark.parametrize("script", SCRIPTS)
def test_relu(script, changed, tmp_path):
    module = changed(script, "relu")
    policy, _ = trained(module, tmp_path / "run", "--hidden-sizes", 32, 32, 32)
    kinds = [type(layer) for layer in policy.network]
    assert kinds == [nn.Linear, nn.ReLU] * 3 + [nn.Linear]


@pytest.mark.parametrize("script", SCRIPTS)
def test_images(script, changed, tmp_path):
    module = changed(script, "images")
    flags = ["--no-normalize-observations", "--seed", 1]
    policy, _ = trained(module, tmp_path / "run", *flags, env="Shapes-v0")
    # a pixel is where it was in the image, and its channel is a channel of the network
    image = np.zeros(module.IMAGE)
    image[3, 5, 1] = 255
    seen = policy.network[0](torch.tensor(image.reshape(1, -1)))
    assert seen.shape == (1, 3, 16, 16)
    assert seen[0, 1, 3, 5] == 1 and seen.sum() == 1


def test_images_are_learnt_from(changed, tmp_path):
    module = changed("ppo_clip", "images")
    flags = ["--no-normalize-observations", "--total-steps", 4000]
    args = arguments(module, tmp_path / "run", *flags, env="Shapes-v0")
    _, history = module.train(args)
    first, last = [returns for _, returns in history[:20]], history[-20:]
    assert np.mean(first) < 7.5  # 5 by chance, 10 at best
    assert np.mean([returns for _, returns in last]) > 9


def test_a_shared_trunk(changed, tmp_path):
    module = changed("ppo_clip", "trunk")
    policy, _ = trained(module, tmp_path / "run")
    obs = torch.randn(7, 4)
    assert policy.value(obs).shape == (7,)
    # both heads read the trunk, and neither reads the other head
    trunk = list(policy.trunk.parameters())
    for output, own, other in [
        (policy.value(obs).sum(), policy.value_head, policy.policy_head),
        (
            policy.distribution(obs).logits[:, 0].sum(),
            policy.policy_head,
            policy.value_head,
        ),
    ]:
        policy.zero_grad()
        output.backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trunk)
        assert all(p.grad is not None for p in own.parameters())
        assert all(p.grad is None for p in other.parameters())
    # one optimiser holds all parameters; the checkpoint has no other network
    saved = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert "value_function" not in saved and "critic_optimizer" not in saved
    assert len(saved["optimizer"]["state"]) == len(list(policy.parameters()))


@pytest.mark.parametrize("target, epochs", [(0.0, 1), (1e9, 5)])
def test_early_stopping(target, epochs, changed, tmp_path, monkeypatch):
    module = changed("ppo_clip", "early stopping")
    flags = ["--target-kl", target, "--epochs", 5, "--minibatch-size", 1000]
    steps, updates, step, update = [], [], module.gradient_step, module.update
    monkeypatch.setattr(
        module, "gradient_step", lambda *given: steps.append(1) or step(*given)
    )
    monkeypatch.setattr(
        module, "update", lambda *given: updates.append(1) or update(*given)
    )
    module.train(arguments(module, tmp_path / "run", *flags))
    assert len(updates) > 1
    assert len(steps) == 2 * epochs * len(updates)  # policy and critic, one minibatch


def test_early_stopping_that_never_stops_changes_nothing(changed, tmp_path):
    import ppo_clip

    module = changed("ppo_clip", "early stopping")
    never = arguments(module, tmp_path / "never", "--target-kl", 1e9)
    plain = arguments(ppo_clip, tmp_path / "plain")
    one, other = module.train(never), ppo_clip.train(plain)
    assert one[1] == other[1]
    for a, b in zip(one[0].parameters(), other[0].parameters()):
        assert torch.equal(a, b)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_squashed_gaussian(script, changed, tmp_path):
    module = changed(script, "squashed")
    flags = ["--entropy-coefficient", 0.01, "--max-episode-steps", 20]
    policy, _ = trained(module, tmp_path / "run", *flags, env="Pendulum-v1")
    actions = policy.distribution(torch.randn(1000, 3) * 10).sample()
    assert actions.abs().max() < 1


def test_the_squashed_gaussian_is_a_distribution(changed):
    module = changed("ppo_clip", "squashed")
    mean, std = torch.tensor([[0.3], [-2.0]]), torch.tensor([[0.8], [1.5]])

    def squashed(mean, std):
        normal = torch.distributions.Normal(mean, std)
        return module.SquashedNormal(torch.distributions.Independent(normal, 1))

    distribution = squashed(mean, std)
    # its density adds up to 1, over a grid that is even before the tanh
    x = torch.linspace(-7, 7, 20001).reshape(-1, 1, 1).double()
    y = x.tanh()
    exact = squashed(mean.double(), std.double())
    density = exact.log_prob(y.expand(-1, 2, 1)).exp()
    width = (1 - y[..., 0] ** 2) * (x[1] - x[0])[0]  # of y
    assert torch.allclose((density * width).sum(0), torch.ones(2).double(), atol=1e-3)
    # entropy and KL divergence: sums over that grid
    entropy = -(density * density.log() * width).sum(0)
    torch.manual_seed(0)
    sampled = torch.stack([distribution.entropy() for _ in range(4000)]).mean(0)
    assert torch.allclose(sampled, entropy.float(), atol=0.1)
    other = squashed(mean.double() + 0.5, std.double())
    logs = exact.log_prob(y.expand(-1, 2, 1)) - other.log_prob(y.expand(-1, 2, 1))
    kl = torch.distributions.kl_divergence(exact, other)
    assert torch.allclose(kl, (density * logs * width).sum(0), atol=1e-3)
    # its mode is the median: half of the samples lie below
    samples = distribution.sample((4000,))
    below = (samples < distribution.mode).float().mean(0)
    assert (below - 0.5).abs().max() < 0.04
    # at the bounds the log-probability is finite
    far = squashed(torch.tensor([[50.0]]), torch.tensor([[1.0]])).sample()
    assert far < 1 and torch.isfinite(distribution.log_prob(far)).all()


def test_the_glossary_names_things_that_exist():
    glossary = PAGE.split("## Glossary")[1].split("## Exercises")[0]
    names = [f"{script}.py" for script in SCRIPTS] + ["common.py"]
    sources = "".join((ROOT / name).read_text(encoding="utf-8") for name in names)
    for text in re.findall(r"`([^`]+)`", glossary):
        assert text in sources, text


def test_the_exercises_name_tests_that_exist():
    exercises = PAGE.split("## Exercises")[1]
    tests = "".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")
    )
    assert re.findall(r"^(\d+)\. ", exercises, re.MULTILINE) == list(
        map(str, range(1, 11))
    )
    for answer in re.findall(r"\*Answer:\*\s+(.*?)(?=\n\d|\Z)", exercises, re.DOTALL):
        names = re.findall(r"`(test_[a-zA-Z]\w+)`", answer)
        assert names
        for name in names:
            assert f"def {name}" in tests, name

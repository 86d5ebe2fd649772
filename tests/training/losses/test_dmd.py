"""DMD's gradient against the analytic score of a Gaussian mixture; a one-step student lands on the teacher's modes."""

from __future__ import annotations

import torch

from training.losses.dmd import clean, decoupled_gradient, euler, gradient, guided, matching_loss, score
from training.losses.flow_matching import flow_matching_loss, interpolate

MODES = torch.tensor([[-2.0, 0.0], [2.0, 0.0], [0.0, 2.5]], dtype=torch.float64)
SPREAD = 0.4


def mixture_log_density(x, t, modes=MODES):
    """log p_t of the mixture with equal weights, [B]."""
    variance = ((1 - t) * SPREAD) ** 2 + t**2
    away = (x[:, None] - (1 - t)[:, None, None] * modes.to(x)).square().sum(2)
    return torch.logsumexp(-away / (2 * variance[:, None]) - variance[:, None].log(), 1)


def mixture_velocity(modes=MODES):
    """The mixture's exact flow: E[ε − x0 | x_t]."""

    def velocity(x, t):
        variance = (((1 - t) * SPREAD) ** 2 + t**2)[:, None]
        centred = x[:, None] - (1 - t)[:, None, None] * modes.to(x)
        share = torch.softmax(-centred.square().sum(2) / (2 * variance), 1)[..., None]
        t_, v_ = t[:, None, None], variance[..., None]
        return (share * (t_ * centred / v_ - modes.to(x) - (1 - t_) * SPREAD**2 * centred / v_)).sum(1)

    return velocity


def test_the_gradient_is_the_difference_of_the_analytic_scores():
    rng = torch.Generator().manual_seed(0)
    moved = MODES[[1, 2]] + 0.3
    x, noise = (torch.randn(64, 2, generator=rng, dtype=torch.float64) for _ in range(2))
    t = torch.rand(64, generator=rng, dtype=torch.float64) * 0.96 + 0.02
    x_t = interpolate(x, noise, t).requires_grad_()
    scores = [torch.autograd.grad(mixture_log_density(x_t, t, m).sum(), x_t)[0] for m in (MODES, moved)]
    real, fake = mixture_velocity(), mixture_velocity(moved)
    for analytic, velocity in zip(scores, (real, fake)):
        torch.testing.assert_close(score(x_t, velocity(x_t, t), t), analytic, atol=1e-5, rtol=1e-5)
    pull = gradient(x, noise, t, fake, real)
    scale = (x - clean(real, x_t, t)).abs().mean(1, keepdim=True)
    expected = (t**2 / (1 - t))[:, None] * (scores[1] - scores[0]) / scale
    torch.testing.assert_close(pull, expected.detach(), atol=1e-5, rtol=1e-5)
    single = gradient(x.float(), noise.float(), t.float(), fake, real)
    assert float((single.double() - expected).abs().max() / expected.abs().max()) < 1e-5


def test_the_loss_hands_the_gradient_to_the_student():
    x, g = torch.randn(3, 4, requires_grad=True), torch.randn(3, 4)
    matching_loss(x, g).sum().backward()
    torch.testing.assert_close(x.grad, g / 4, atol=1e-6, rtol=1e-5)


def test_decoupled_parts_sum_to_the_guided_gradient():
    rng = torch.Generator().manual_seed(1)
    x, noise = (torch.randn(16, 2, generator=rng, dtype=torch.float64) for _ in range(2))
    t = torch.rand(16, generator=rng, dtype=torch.float64) * 0.9 + 0.05
    teacher = (mixture_velocity(MODES[:1]), mixture_velocity())
    fake, x_t = mixture_velocity(MODES[1:]), interpolate(x, noise, t)
    own = (x - clean(teacher[0], x_t, t)).abs().mean(1, keepdim=True)
    guided_scale = (x - clean(guided(teacher, 3.0), x_t, t)).abs().mean(1, keepdim=True)
    parts = decoupled_gradient(x, noise, t, fake, teacher, 3.0, guidance_noise=noise, guidance_t_B=t)
    torch.testing.assert_close(parts * own, gradient(x, noise, t, fake, guided(teacher, 3.0)) * guided_scale)
    assert guided(teacher, 1.0) is teacher[0]
    alone = decoupled_gradient(x, noise, t, fake, teacher, 1.0, guidance_noise=noise, guidance_t_B=t)
    torch.testing.assert_close(alone, gradient(x, noise, t, fake, teacher[0]))


def test_euler_stops_where_it_is_told():
    x, times = torch.ones(2, 1), torch.tensor([1.0, 0.6, 0.3, 0.0])
    times_seen = []

    def velocity(x_t, t):
        times_seen.append(float(t[0]))
        return x_t

    moved = euler(velocity, x, times, 2)
    assert torch.equal(torch.tensor(times_seen), times[:2])
    torch.testing.assert_close(moved, torch.full((2, 1), 0.6 * 0.7))


def test_a_one_step_student_lands_on_the_modes_as_the_teacher_does():
    """Both roles start from a flow-matched network, whose single step lands between the modes."""
    torch.manual_seed(0)
    modes, batch, steps = MODES[:2], 256, 1500
    teacher = mixture_velocity(modes)

    def network() -> torch.nn.Module:
        return torch.nn.Sequential(
            torch.nn.Linear(4, 96), torch.nn.SiLU(), torch.nn.Linear(96, 96), torch.nn.SiLU(), torch.nn.Linear(96, 2)
        )

    def velocity(net):
        return lambda x, t: net(torch.cat([x, t[:, None], t[:, None] ** 2], 1))

    def near(x: torch.Tensor) -> tuple[float, torch.Tensor]:
        distance = torch.cdist(x, modes.float())
        share = torch.bincount(distance.argmin(1), minlength=2) / len(x)
        return float((distance.min(1).values < 3 * SPREAD).float().mean()), share

    student, fake = network(), network()
    start = torch.optim.Adam(fake.parameters(), lr=3e-3)
    for _ in range(300):
        x0 = modes.float()[torch.randint(2, (batch,))] + SPREAD * torch.randn(batch, 2)
        flow_matching_loss(velocity(fake), x0, torch.randn(batch, 2), torch.rand(batch)).mean().backward()
        start.step()
        start.zero_grad()
    student.load_state_dict(fake.state_dict())
    noise, every = torch.randn(3000, 2), torch.ones(3000)
    with torch.no_grad():
        before, _ = near(clean(velocity(student), noise, every))
        taught, taught_share = near(euler(teacher, noise, torch.linspace(1, 0, 41), 40))
    optimizers = [torch.optim.Adam(n.parameters(), betas=(0.8, 0.95)) for n in (student, fake)]
    for step in range(steps):
        for optimizer, rate in zip(optimizers, (3e-3, 4e-3)):
            optimizer.param_groups[0]["lr"] = rate * (1 - 0.9 * step / steps)
        x, x_noise = clean(velocity(student), torch.randn(batch, 2), torch.ones(batch)), torch.randn(batch, 2)
        if step % 5 == 4:
            optimizer, t = optimizers[0], 0.02 + 0.96 * torch.rand(batch)
            loss = matching_loss(x, gradient(x, x_noise, t, velocity(fake), teacher)).mean()
        else:
            optimizer = optimizers[1]
            loss = flow_matching_loss(velocity(fake), x.detach(), x_noise, torch.rand(batch)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        landed, share = near(clean(velocity(student), noise, every))
    assert before < 0.4 and taught > 0.97 and landed > 0.85 * taught, (before, taught, landed)
    assert (share - taught_share).abs().max() < 0.1

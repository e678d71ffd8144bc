"""Golden files of kestrel-train: optimisers step by step, schedulers over whole sequences, the focal loss, clipping, averages
of weights, and metrics and calibration of given logits."""
import math

import numpy as np
import torch
import torch.nn.functional as F

from record import save

SEED = 0


def rates(sequence, **options):
    p = torch.nn.Parameter(torch.zeros(1))
    opt = torch.optim.SGD([p], lr=1.0)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(opt, **options)
    out = []
    for metric in sequence:
        scheduler.step(metric)
        out.append(opt.param_groups[0]["lr"])
    return torch.tensor(out, dtype=torch.float64)


def plateau():
    rng = np.random.default_rng(SEED)
    sequences = {
        "falling": [1.0 / (i + 1) for i in range(40)],
        "flat": [1.0] * 40,
        "rising": [0.1 * i for i in range(40)],
        # Improvements just below and just above the threshold.
        "creeping_below": [1.0 * (1 - 0.9e-4) ** i for i in range(40)],
        "creeping_above": [1.0 * (1 - 1.1e-4) ** i for i in range(40)],
        "sawtooth": [1.0 - 0.01 * i + 0.5 * (i % 5) for i in range(40)],
        "negative": [-0.01 * i for i in range(40)],
        "nan_and_inf": [math.inf, 1.0, math.nan, math.nan, math.nan, math.nan, math.nan, 0.5, math.inf, -math.inf] * 4,
        "noise": list(rng.normal(1.0, 0.2, 40)),
    }
    options = {
        "reference": dict(mode="min", factor=0.1, patience=3, threshold=1e-4),
        "max_abs": dict(mode="max", factor=0.5, patience=2, threshold=0.05, threshold_mode="abs"),
        "max_rel": dict(mode="max", factor=0.5, patience=0, threshold=0.1),
        "cooldown": dict(mode="min", factor=0.3, patience=1, cooldown=3, threshold_mode="abs", threshold=1e-3),
        "floor": dict(mode="min", factor=0.1, patience=0, min_lr=1e-3, eps=1e-4),
        "eps": dict(mode="min", factor=0.99, patience=0, eps=0.02),
    }
    out = {}
    for s, sequence in sequences.items():
        out[f"metric.{s}"] = torch.tensor(sequence, dtype=torch.float64)
        for o, option in options.items():
            out[f"lr.{o}.{s}"] = rates(sequence, **option)
    save("kestrel-train", "reduce_on_plateau", out, SEED)


def metrics():
    torch.manual_seed(SEED)
    logits = torch.randn(60, 5)
    logits[::7, 2] = logits[::7].max(1).values  # ties
    targets = torch.randint(0, 5, (60,))
    batches = [slice(0, 25), slice(25, 50), slice(50, 60)]
    losses = [F.cross_entropy(logits[b], targets[b]) for b in batches]
    predicted = logits.argmax(1)
    confusion = torch.zeros(5, 5, dtype=torch.int64)
    for t, p in zip(targets, predicted):
        confusion[t, p] += 1
    save("kestrel-train", "metrics", {
        "logits": logits,
        "targets": targets,
        "loss": torch.stack(losses).mean().reshape(1),
        "predicted": predicted,
        "confusion": confusion,
        "accuracy": (predicted == targets).double().mean().reshape(1),
    }, SEED)


def calibration():
    """Top-k, precision, recall, F1, expected calibration error and temperature; scikit-learn has the scores of a class."""
    from sklearn.metrics import precision_recall_fscore_support

    torch.manual_seed(SEED)
    classes, images = 8, 400
    targets = torch.randint(0, classes - 1, (images,))  # the last class has no image
    logits = torch.randn(images, classes)
    logits[torch.arange(images), targets] += 1.5
    logits *= 3.0  # too sure of itself
    logits[:, 3] -= 9.0  # a class that is never predicted
    out = {"logits": logits, "targets": targets}
    for k in (1, 2, 5, 8):
        hit = logits.topk(k).indices.eq(targets[:, None]).any(1)
        out[f"top{k}"] = hit.double().mean().reshape(1)
    scores = precision_recall_fscore_support(targets, logits.argmax(1), labels=range(classes), zero_division=0)
    for name, values in zip(("precision", "recall", "f1", "support"), scores):
        out[name] = torch.tensor(values)

    # The reference: L-BFGS on the logarithm of the temperature, in float64.
    z = logits.double()
    log_t = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    opt = torch.optim.LBFGS([log_t], max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-15, line_search_fn="strong_wolfe")

    def closure():
        opt.zero_grad()
        loss = F.cross_entropy(z / log_t.exp(), targets)
        loss.backward()
        return loss

    opt.step(closure)
    temperature = log_t.exp().detach()
    out["temperature"] = temperature
    for name, t in (("raw", torch.ones(1, dtype=torch.float64)), ("scaled", temperature)):
        confidence, predicted = (z / t).softmax(1).max(1)
        right = predicted.eq(targets)
        edges = torch.linspace(0, 1, 16, dtype=torch.float64)
        bins, ece = [], 0.0
        for low, high in zip(edges[:-1], edges[1:]):
            inside = confidence.gt(low) & confidence.le(high)
            n = int(inside.sum())
            row = [n, confidence[inside].mean().item(), right[inside].double().mean().item()] if n else [0, 0.0, 0.0]
            bins.append(row)
            ece += n / images * abs(row[2] - row[1])
        out[f"{name}.bins"] = torch.tensor(bins, dtype=torch.float64)
        out[f"{name}.ece"] = torch.tensor([ece], dtype=torch.float64)
    save("kestrel-train", "calibration", out, SEED)


class Lion(torch.optim.Optimizer):
    """Algorithm 2 of Chen et al. 2023; PyTorch has no Lion."""

    def __init__(self, params, lr, beta1, beta2, weight_decay):
        super().__init__(params, dict(lr=lr, beta1=beta1, beta2=beta2, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                m = self.state[p].setdefault("exp_avg", torch.zeros_like(p))
                c = group["beta1"] * m + (1 - group["beta1"]) * p.grad
                p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(group["lr"] * c.sign())
                m.mul_(group["beta2"]).add_(p.grad, alpha=1 - group["beta2"])


class Lookahead:
    """Algorithm 1 of Zhang et al. 2019; PyTorch has no Lookahead."""

    def __init__(self, inner, k, alpha, total_steps=1, power=0.0):
        self.inner, self.k, self.alpha, self.steps = inner, k, alpha, 0
        self.total_steps, self.power = total_steps, power
        self.slow = [[p.detach().clone() for p in g["params"]] for g in inner.param_groups]

    @torch.no_grad()
    def step(self):
        self.inner.step()
        self.steps += 1
        if self.steps % self.k == 0:
            alpha = 1 - (1 - self.alpha) * (self.steps / self.total_steps) ** self.power
            for group, slow in zip(self.inner.param_groups, self.slow):
                for p, s in zip(group["params"], slow):
                    s.add_(alpha * (p - s))
                    p.copy_(s)


OPTIMIZERS = {
    "sgd": lambda g: torch.optim.SGD(g, lr=0.1),
    "sgd_momentum": lambda g: torch.optim.SGD(g, lr=0.1, momentum=0.9, dampening=0.2),
    "sgd_nesterov": lambda g: torch.optim.SGD(g, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda g: torch.optim.Adam(g, lr=0.01, betas=(0.8, 0.95)),
    "adamw": lambda g: torch.optim.AdamW(g, lr=0.01, betas=(0.8, 0.95)),
    "rmsprop": lambda g: torch.optim.RMSprop(g, lr=0.01, alpha=0.9),
    "rmsprop_centered": lambda g: torch.optim.RMSprop(g, lr=0.01, alpha=0.9, momentum=0.8, centered=True),
    "lion": lambda g: Lion(g, lr=0.01, beta1=0.9, beta2=0.99, weight_decay=0.0),
    "lookahead": lambda g: Lookahead(torch.optim.SGD(g, lr=0.1, momentum=0.9), k=3, alpha=0.5),
    "lookahead_decay": lambda g: Lookahead(torch.optim.SGD(g, lr=0.1, momentum=0.9), 2, 0.2, total_steps=STEPS, power=3.0),
}
STEPS = 7


def optimizers():
    """Two groups, of other weight decay and learning rate; gradients that do not depend on the parameters."""
    torch.manual_seed(SEED)
    a, b, wide, tall = torch.randn(4, 3), torch.randn(5), torch.randn(4, 2, 3, 3), torch.randn(8, 1, 2, 2)
    grads = {"a": torch.randn(STEPS, 4, 3), "b": torch.randn(STEPS, 5),
             "wide": torch.randn(STEPS, 4, 2, 3, 3), "tall": torch.randn(STEPS, 8, 1, 2, 2)}
    out = {"a": a, "b": b, "wide": wide, "tall": tall} | {f"grad.{k}": v for k, v in grads.items()}

    def run(name, params, optimizer, shapes=None):
        steps = {k: [] for k in params}
        for i in range(STEPS):
            for k, p in params.items():
                p.grad = grads[k][i].reshape(p.shape).clone()
            optimizer.step()
            for k, p in params.items():
                steps[k].append(p.detach().clone().reshape(out[k].shape))
        out.update({f"{name}.{k}": torch.stack(v) for k, v in steps.items()})

    for name, make in OPTIMIZERS.items():
        p, q = torch.nn.Parameter(a.clone()), torch.nn.Parameter(b.clone())
        groups = [{"params": [p], "weight_decay": 0.05}, {"params": [q], "weight_decay": 0.0, "lr": 0.02}]
        run(name, {"a": p, "b": q}, make(groups))

    # A convolution's weight is its rows flattened. The iteration is in bfloat16 in PyTorch, for speed on its devices: here
    # its matrix stays in f32, so that every other operation can be compared to rounding; and once more as it is.
    muon = {
        "muon": dict(lr=0.02, weight_decay=0.1),
        "muon_plain": dict(lr=0.02, weight_decay=0.0, momentum=0.4, nesterov=False, adjust_lr_fn="match_rms_adamw"),
    }
    bfloat16 = torch.bfloat16
    for rounding in (False, True):
        for name, option in muon.items():
            params = {k: torch.nn.Parameter(out[k].flatten(1).clone()) for k in ("wide", "tall")}
            torch.bfloat16 = bfloat16 if rounding else torch.float32
            run(name + ("_bfloat16" if rounding else ""), params, torch.optim.Muon(params.values(), **option))
            torch.bfloat16 = bfloat16
    save("kestrel-train", "optimizers", out, SEED)


def lr_schedulers():
    """Rates of two groups at the start and after each step."""
    S = torch.optim.lr_scheduler

    def warmed(inner, total, start):
        return lambda o: S.SequentialLR(
            o, [S.LinearLR(o, start_factor=start, total_iters=total), inner(o)], milestones=[total])

    cosine = lambda o: S.CosineAnnealingLR(o, 9, eta_min=1e-3)
    one_cycle = lambda **k: lambda o: S.OneCycleLR(o, [0.4, 0.1], total_steps=40, cycle_momentum=False, **k)
    cases = {
        "step": lambda o: S.StepLR(o, 4, gamma=0.3),
        "multi_step": lambda o: S.MultiStepLR(o, [3, 11, 11, 25], gamma=0.5),
        "cosine": cosine,
        "cosine_one": lambda o: S.CosineAnnealingLR(o, 1),
        "restarts": lambda o: S.CosineAnnealingWarmRestarts(o, 5, eta_min=1e-4),
        "restarts_growing": lambda o: S.CosineAnnealingWarmRestarts(o, 3, T_mult=2),
        "one_cycle": one_cycle(),
        "one_cycle_linear": one_cycle(anneal_strategy="linear", pct_start=0.25, div_factor=10.0, final_div_factor=100.0),
        "one_cycle_three_phase": one_cycle(three_phase=True, pct_start=0.4),
        "warmup_step": warmed(lambda o: S.StepLR(o, 4, gamma=0.3), 5, 0.1),
        "warmup_cosine": warmed(cosine, 7, 0.01),
        "warmup_one": warmed(cosine, 1, 0.5),
        "warmup_restarts": warmed(lambda o: S.CosineAnnealingWarmRestarts(o, 5), 3, 1 / 3),
    }
    out = {}
    for name, make in cases.items():
        groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (0.4, 0.1)]
        optimizer = torch.optim.SGD(groups, lr=1.0)
        scheduler = make(optimizer)
        rates = [[g["lr"] for g in optimizer.param_groups]]
        for _ in range(39):
            optimizer.step()
            scheduler.step()
            rates.append([g["lr"] for g in optimizer.param_groups])
        out[name] = torch.tensor(rates, dtype=torch.float64)
    save("kestrel-train", "lr_schedulers", out, SEED)


def focal_loss():
    torch.manual_seed(SEED)
    logits, classes = (torch.randn(7, 5, dtype=torch.float64) * 3), torch.randint(5, (7,))
    soft, weights = (torch.randn(7, 5, dtype=torch.float64)).softmax(1), torch.rand(5, dtype=torch.float64)
    out = {"logits": logits, "classes": classes, "soft": soft, "weights": weights}
    for gamma in (0.0, 0.5, 2.0):
        for kind in ("classes", "soft"):
            x = logits.clone().requires_grad_()
            t = F.one_hot(classes, 5) if kind == "classes" else soft
            logp = F.log_softmax(x, 1)
            loss = -(t * weights * (1 - logp.exp()) ** gamma * logp).sum(1).mean()
            loss.backward()
            out |= {f"{kind}.{gamma}.loss": loss, f"{kind}.{gamma}.dlogits": x.grad}
    save("kestrel-train", "focal_loss", out, SEED)


def grad_clip():
    torch.manual_seed(SEED)
    grads = {"a": torch.randn(4, 3), "b": torch.randn(5), "c": torch.randn(2, 2, 2)}
    out = {f"grad.{k}": g for k, g in grads.items()}

    def params():
        made = {k: torch.nn.Parameter(torch.zeros_like(g)) for k, g in grads.items()}
        for k, p in made.items():
            p.grad = grads[k].clone()
        return made

    for max_norm in (0.5, 100.0):
        made = params()
        norm = torch.nn.utils.clip_grad_norm_(made.values(), max_norm)
        out |= {f"norm.{max_norm}": norm} | {f"norm.{max_norm}.{k}": p.grad for k, p in made.items()}
    made = params()
    torch.nn.utils.clip_grad_value_(made.values(), 0.3)
    out |= {f"value.{k}": p.grad for k, p in made.items()}
    save("kestrel-train", "grad_clip", out, SEED)


def averages():
    """A module with a parameter and a buffer, through ten updates."""
    torch.manual_seed(SEED)
    swa = torch.optim.swa_utils

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(3, 4))
            self.register_buffer("running_mean", torch.zeros(3))

    weights, buffers = torch.randn(10, 3, 4), torch.randn(10, 3)
    out = {"weight": weights, "running_mean": buffers}
    for name, fn in {"ema": swa.get_ema_multi_avg_fn(0.9), "ema_fast": swa.get_ema_multi_avg_fn(0.3),
                     "swa": swa.get_swa_multi_avg_fn()}.items():
        net = Net()
        average = swa.AveragedModel(net, multi_avg_fn=fn, use_buffers=True)
        steps = {"weight": [], "running_mean": []}
        for w, b in zip(weights, buffers):
            with torch.no_grad():
                net.weight.copy_(w)
                net.running_mean.copy_(b)
            average.update_parameters(net)
            steps["weight"].append(average.module.weight.detach().clone())
            steps["running_mean"].append(average.module.running_mean.clone())
        out |= {f"{name}.{k}": torch.stack(v) for k, v in steps.items()}
    save("kestrel-train", "averages", out, SEED)


if __name__ == "__main__":
    plateau()
    metrics()
    optimizers()
    lr_schedulers()
    focal_loss()
    grad_clip()
    averages()
    calibration()

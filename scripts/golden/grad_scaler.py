"""Golden sequence of torch.amp.GradScaler: the scale after each step, and which steps were made."""
import torch
from record import save

SEED = 27
CRATE = "kestrel-train"


def run(steps, **options):
    """Which gradients are infinite, the scale after each update, its count of good steps, and the parameter."""
    scaler = torch.amp.GradScaler("cpu", **options)
    param = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([param], lr=0.125)
    infinite = torch.rand(steps) < 0.15
    infinite[:5] = torch.tensor([True, True, False, True, False])
    scales, tracked, params = [], [], []
    for bad in infinite:
        optimizer.zero_grad()
        scaler.scale((param * torch.tensor([1e-3, -2e-3, 5e-4])).sum()).backward()
        if bad:
            param.grad[1] = float("inf")
        scaler.step(optimizer)
        scaler.update()
        state = scaler.state_dict()
        scales.append(state["scale"])
        tracked.append(state["_growth_tracker"])
        params.append(param.detach().clone())
    return {"infinite": infinite.to(torch.uint8), "scales": torch.tensor(scales), "growth_trackers": torch.tensor(tracked),
            "params": torch.stack(params)}


def main():
    torch.manual_seed(SEED)
    tensors = {}
    for name, steps, options in [
        ("defaults", 40, {}),
        ("often", 120, {"growth_interval": 3}),
        ("odd", 60, {"init_scale": 1000.0, "growth_factor": 1.7, "backoff_factor": 0.3, "growth_interval": 2}),
        ("bounded", 24, {"init_scale": 2.0**125, "growth_interval": 1}),
    ]:
        tensors |= {f"{name}.{key}": value for key, value in run(steps, **options).items()}
    save(CRATE, "grad_scaler", tensors, SEED)


main()

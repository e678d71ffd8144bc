"""Golden tensors of the ops in kestrel-kernels, in f32: inputs, outputs, gradients."""
import torch
import torch.nn.functional as F
from record import save

SEED = 20
CRATE = "kestrel-kernels"


def leaf(*shape):
    return torch.randn(*shape).requires_grad_()


def conv2d():
    # name, x, weight, stride, padding, dilation, groups, bias
    cases = [
        ("same", (2, 5, 9, 7), (6, 5, 3, 3), 1, 1, 1, 1, True),
        ("stem", (1, 3, 19, 21), (8, 3, 7, 7), 2, 3, 1, 1, False),
        ("strided", (2, 4, 9, 8), (6, 4, 3, 3), 2, 1, 1, 1, True),
        ("dilated", (2, 4, 10, 9), (4, 4, 3, 2), 1, 2, 2, 1, True),
        ("grouped", (3, 6, 7, 7), (9, 2, 3, 3), 2, 1, 1, 3, True),
        ("depthwise", (2, 4, 8, 8), (4, 1, 3, 3), 1, 1, 1, 4, False),
        ("pointwise", (2, 6, 5, 7), (4, 6, 1, 1), 1, 0, 1, 1, True),
        ("downsample", (2, 6, 7, 8), (4, 6, 1, 1), 2, 0, 1, 1, False),
        ("wide", (1, 2, 20, 30), (3, 2, 3, 3), 1, 1, 1, 1, True),
        # Channels enough for Winograd transforms.
        ("winograd", (2, 9, 9, 7), (6, 9, 3, 3), 1, 1, 1, 1, True),
        ("winograd_strided", (2, 8, 9, 8), (5, 8, 3, 3), 2, 1, 1, 1, False),
        ("winograd_valid", (1, 17, 6, 10), (9, 17, 3, 3), 1, 0, 1, 1, True),
    ]
    tensors = {}
    for name, x, weight, stride, padding, dilation, groups, has_bias in cases:
        x, weight = leaf(*x), leaf(*weight)
        bias = leaf(weight.shape[0]) if has_bias else None
        y = F.conv2d(x, weight, bias, stride, padding, dilation, groups)
        dy = torch.randn_like(y)
        y.backward(dy)
        tensors |= {f"{name}.x": x, f"{name}.weight": weight, f"{name}.y": y, f"{name}.dy": dy,
                    f"{name}.dx": x.grad, f"{name}.dweight": weight.grad,
                    f"{name}.config": torch.tensor([stride, padding, dilation, groups])}
        if has_bias:
            tensors |= {f"{name}.bias": bias, f"{name}.dbias": bias.grad}
    save(CRATE, "conv2d", tensors, SEED)


def batch_norm():
    tensors = {}
    for name, training in [("train", True), ("eval", False)]:
        x, weight, bias = leaf(4, 3, 5, 7), leaf(3), leaf(3)
        mean, var = torch.randn(3), torch.rand(3) + 0.5
        tensors |= {f"{name}.running_mean": mean.clone(), f"{name}.running_var": var.clone()}
        for _ in range(2 if training else 1):
            x.grad = weight.grad = bias.grad = None
            y = F.batch_norm(x, mean, var, weight, bias, training, 0.1, 1e-5)
            dy = torch.randn_like(y)
            y.backward(dy)
        tensors |= {f"{name}.x": x, f"{name}.weight": weight, f"{name}.bias": bias, f"{name}.y": y, f"{name}.dy": dy,
                    f"{name}.dx": x.grad, f"{name}.dweight": weight.grad, f"{name}.dbias": bias.grad,
                    f"{name}.new_running_mean": mean, f"{name}.new_running_var": var}
    save(CRATE, "batch_norm", tensors, SEED)


def max_pool2d():
    tensors = {}
    # name, x, kernel, stride, padding; values are rounded, so that windows hold ties
    for name, x, kernel, stride, padding in [
        ("halve", (2, 3, 8, 6), 2, 2, 0),
        ("stem", (2, 3, 11, 9), 3, 2, 1),
        ("overlap", (1, 2, 6, 7), 3, 1, 1),
        ("ragged", (1, 2, 7, 5), 2, 2, 0),
    ]:
        x = (torch.randn(*x) * 2).round().requires_grad_()
        y = F.max_pool2d(x, kernel, stride, padding)
        dy = torch.randn_like(y)
        y.backward(dy)
        tensors |= {f"{name}.x": x, f"{name}.y": y, f"{name}.dy": dy, f"{name}.dx": x.grad,
                    f"{name}.config": torch.tensor([kernel, stride, padding])}
    save(CRATE, "max_pool2d", tensors, SEED)


def avg_pool2d():
    tensors = {}
    # name, x, kernel, stride, padding, count_include_pad
    for name, x, kernel, stride, padding, count_include_pad in [
        ("halve", (2, 3, 8, 6), 2, 2, 0, True),
        ("overlap", (1, 2, 7, 6), 3, 2, 1, True),
        ("inside", (2, 3, 7, 5), 3, 2, 1, False),
        ("apart", (1, 2, 8, 9), 2, 3, 1, False),
        ("pixel", (2, 2, 1, 1), 3, 1, 1, False),
    ]:
        x = leaf(*x)
        y = F.avg_pool2d(x, kernel, stride, padding, count_include_pad=count_include_pad)
        dy = torch.randn_like(y)
        y.backward(dy)
        tensors |= {f"{name}.x": x, f"{name}.y": y, f"{name}.dy": dy, f"{name}.dx": x.grad,
                    f"{name}.config": torch.tensor([kernel, stride, padding, int(count_include_pad)])}
    # name, x, output size
    for name, x, out in [
        ("adaptive_global", (2, 3, 7, 7), (1, 1)),
        ("adaptive_divides", (1, 2, 8, 6), (4, 3)),
        ("adaptive_uneven", (2, 3, 7, 5), (3, 4)),
        ("adaptive_larger", (1, 2, 3, 1), (7, 2)),
    ]:
        x = leaf(*x)
        y = F.adaptive_avg_pool2d(x, out)
        dy = torch.randn_like(y)
        y.backward(dy)
        tensors |= {f"{name}.x": x, f"{name}.y": y, f"{name}.dy": dy, f"{name}.dx": x.grad,
                    f"{name}.config": torch.tensor(out)}
    save(CRATE, "avg_pool2d", tensors, SEED)


def cross_entropy():
    logits, targets = (torch.randn(7, 10) * 5).requires_grad_(), torch.randint(10, (7,))
    loss = F.cross_entropy(logits, targets)
    loss.backward()
    tensors = {"logits": logits, "targets": targets, "loss": loss, "dlogits": logits.grad.clone()}
    # The same logits against classes and against probabilities, with each combination of the options.
    weights, probabilities = torch.rand(10) + 0.1, (torch.randn(7, 10) * 2).softmax(1)
    tensors |= {"class_weights": weights, "probabilities": probabilities}
    for kind, of in [("classes", targets), ("probabilities", probabilities)]:
        for weighted in [False, True]:
            for smoothing in [0.0, 0.1, 1.0]:
                logits.grad = None
                loss = F.cross_entropy(logits, of, weights if weighted else None, label_smoothing=smoothing)
                loss.backward()
                name = f"{kind}.{'weighted' if weighted else 'plain'}.{smoothing}"
                tensors |= {f"{name}.loss": loss, f"{name}.dlogits": logits.grad.clone()}
    save(CRATE, "cross_entropy", tensors, SEED)


def linear():
    tensors = {}
    # name, rows, inputs, outputs, bias, relu
    for name, rows, inputs, outputs, has_bias, relu in [
        ("plain", 5, 18, 7, False, False),
        ("bias", 17, 9, 12, True, False),
        ("relu", 6, 20, 11, True, True),
        ("relu_without_bias", 3, 7, 65, False, True),
    ]:
        x, weight = leaf(rows, inputs), leaf(outputs, inputs)
        bias = leaf(outputs) if has_bias else None
        y = F.linear(x, weight, bias)
        y = F.relu(y) if relu else y
        dy = torch.randn_like(y)
        y.backward(dy)
        tensors |= {f"{name}.x": x, f"{name}.weight": weight, f"{name}.y": y, f"{name}.dy": dy,
                    f"{name}.dx": x.grad, f"{name}.dweight": weight.grad}
        if has_bias:
            tensors |= {f"{name}.bias": bias, f"{name}.dbias": bias.grad}
    save(CRATE, "linear", tensors, SEED)


def gelu():
    tensors = {}
    for name, scale in [("normal", 1.0), ("far", 4.0)]:
        x = (torch.randn(3, 5, 7) * scale).requires_grad_()
        y = F.gelu(x)
        dy = torch.randn_like(y)
        y.backward(dy)
        tensors |= {f"{name}.x": x, f"{name}.y": y, f"{name}.dy": dy, f"{name}.dx": x.grad}
    save(CRATE, "gelu", tensors, SEED)


def sgd():
    # name, momentum, dampening, weight_decay, nesterov
    tensors = {}
    for name, momentum, dampening, weight_decay, nesterov in [
        ("plain", 0.0, 0.0, 0.0, False),
        ("decay", 0.0, 0.0, 0.05, False),
        ("momentum", 0.9, 0.0, 0.05, False),
        ("dampening", 0.8, 0.3, 0.0, False),
        ("nesterov", 0.9, 0.0, 0.05, True),
    ]:
        param = torch.nn.Parameter(torch.randn(4, 5))
        tensors |= {f"{name}.param": param.detach().clone()}
        optimizer = torch.optim.SGD([param], lr=0.1, momentum=momentum, dampening=dampening,
                                    weight_decay=weight_decay, nesterov=nesterov)
        grads, params = [], []
        for _ in range(5):
            param.grad = torch.randn_like(param)
            optimizer.step()
            grads.append(param.grad.clone())
            params.append(param.detach().clone())
        tensors |= {f"{name}.grads": torch.stack(grads), f"{name}.y": torch.stack(params)}
        if momentum != 0.0:
            tensors |= {f"{name}.momentum_buffer": optimizer.state[param]["momentum_buffer"]}
    save(CRATE, "sgd", tensors, SEED)


def adam():
    param = torch.nn.Parameter(torch.randn(6, 5))
    tensors = {"param": param.detach().clone()}
    optimizer = torch.optim.Adam([param], lr=0.01, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05)
    grads, params = [], []
    for _ in range(10):
        param.grad = torch.randn_like(param)
        optimizer.step()
        grads.append(param.grad.clone())
        params.append(param.detach().clone())
    state = optimizer.state[param]
    tensors |= {"grads": torch.stack(grads), "params": torch.stack(params),
                "exp_avg": state["exp_avg"], "exp_avg_sq": state["exp_avg_sq"]}
    save(CRATE, "adam", tensors, SEED)


if __name__ == "__main__":
    for make in (conv2d, batch_norm, max_pool2d, avg_pool2d, cross_entropy, linear, gelu, sgd, adam):
        torch.manual_seed(SEED)
        make()

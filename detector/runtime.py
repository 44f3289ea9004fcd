"""The networks as executed: OpenVINO on CPU, torch on CUDA or MPS.

Views in, evidence out; what evidence means is `ensemble`'s. The only place that loads an inference engine,
and torch only for its own backend.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from detector.ensemble import Expert, Plan
from detector.errors import InvalidArtefact, InvalidSettings

Device = Literal["cpu", "cuda", "mps"]
Precision = Literal["f32", "bf16"]
Network = Callable[[NDArray[np.uint8]], NDArray[np.float32]]  # (n, 3, s, s) -> (n, grid, grid)

ALIGNMENT = 8  # bytes: every weight file starts at a multiple of it once laid end to end
VIEWS_AT_ONCE = {"cpu": 4, "cuda": 128, "mps": 32}  # bounds memory: on a CPU CLIP takes 55 MB more at 8


class Runtime:
    """Every expert of a plan, loaded; `score` is safe for one caller at a time."""

    def __init__(self, plan: Plan, networks: Sequence[Network], device: Device) -> None:
        self.plan = plan
        self.device = device
        self._networks = tuple(networks)

    def score(self, views: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(n, v, 3, size, size) uint8 -> (n, plan.width) float32 evidence, rows in order."""
        columns = []
        for expert, network in zip(self.plan.experts, self._networks, strict=True):
            shown = views[:, list(expert.views)].reshape(-1, *views.shape[2:])
            step = VIEWS_AT_ONCE[self.device]
            chunks = [network(shown[at : at + step]) for at in range(0, len(shown), step)]
            columns.append(np.concatenate(chunks).reshape(len(views), -1))
        return np.concatenate(columns, axis=1)


def load_runtime(
    folder: Path,
    plan: Plan,
    device: Literal["auto"] | Device = "auto",
    precision: Precision = "f32",
    threads: int = 0,
) -> Runtime:
    """Load a plan's networks from a verified model folder onto `device` and run each once to warm it."""
    chosen = find_device(device)
    if chosen == "cpu":
        networks = [_openvino(folder, expert, precision, threads) for expert in plan.experts]
    else:
        networks = [_torch(folder, expert, chosen) for expert in plan.experts]
    runtime = Runtime(plan, networks, chosen)
    runtime.score(np.zeros((1, len(plan.views), 3, plan.size, plan.size), np.uint8))
    return runtime


def read_constants(folder: Path, weights: Sequence[str]) -> NDArray[np.uint8]:
    """Weight files laid end to end, each padded to ALIGNMENT: what an IR's constant offsets count in."""
    files = [(folder / name).read_bytes() for name in weights]
    return np.frombuffer(b"".join(data + bytes(-len(data) % ALIGNMENT) for data in files), np.uint8)


def find_device(wanted: Literal["auto"] | Device, asked_by: str = "model.device") -> Device:
    """Auto takes a GPU only where torch is installed and finds one; `asked_by` names the setting in an error."""
    if wanted == "cpu":
        return "cpu"
    try:
        import torch
    except ImportError:
        if wanted == "auto":
            return "cpu"
        raise InvalidSettings(f"{asked_by} is {wanted}, but torch is not installed (extra `gpu`).") from None
    present: dict[Device, bool] = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        return next((device for device, found in present.items() if found), "cpu")
    if not present[wanted]:
        raise InvalidSettings(f"{asked_by} is {wanted}, but this machine has none that torch can use.")
    return wanted


def compile_expert(
    folder: Path, expert: Expert, precision: Precision, threads: int, hint: str = "LATENCY", shape: Sequence[int] = ()
) -> Any:
    """An expert's network as OpenVINO runs it on the CPU; `shape` (n, 3, s, s) where it is always the same."""
    import openvino

    core = openvino.Core()
    constants = openvino.Tensor(read_constants(folder, expert.weights))
    try:
        model = core.read_model((folder / expert.network).read_bytes(), constants)
        if shape:
            model.reshape(list(shape))
        # Group size 0: activations stay float. Quantised by the batch, they would make scores depend on it.
        options = {
            "INFERENCE_PRECISION_HINT": precision,
            "PERFORMANCE_HINT": hint,
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
        }
        if threads:
            options["INFERENCE_NUM_THREADS"] = str(threads)
        return core.compile_model(model, "CPU", options)
    except RuntimeError:
        raise InvalidArtefact(f"The model's {expert.network} can't be run by this version of OpenVINO.") from None


def _openvino(folder: Path, expert: Expert, precision: Precision, threads: int) -> Network:
    request = compile_expert(folder, expert, precision, threads).create_infer_request()

    def run(views: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.array(request.infer([views], share_inputs=True)[0])

    return run


def _torch(folder: Path, expert: Expert, device: Device) -> Network:
    import torch
    from safetensors.torch import load_file

    from detector.networks import build

    state = {name: tensor for part in expert.weights for name, tensor in load_file(folder / part).items()}
    module = build(expert.architecture)
    module.load_state_dict({name: state[name] for name in module.state_dict()})
    module.eval().to(device)

    def run(views: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            evidence: NDArray[np.float32] = module(torch.from_numpy(views).to(device)).float().cpu().numpy()
        return evidence

    return run

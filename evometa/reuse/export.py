"""Write a trained candidate as files that adapt with PyTorch alone."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn

from evometa.errors import EvometaError
from evometa.learner import Meta
from evometa.learner.gradient import GradientLearner
from evometa.learner.prototypes import Prototypes
from evometa.network import Network, Norm
from evometa.records import derive_seed
from evometa.reuse.card import model_card
from evometa.reuse.learner import FewShotLearner, Progress, trained
from evometa.reuse.stored import StoredRun
from evometa.rule import GradientRule, python_source
from evometa.rule.gradient import layer_of
from evometa.store import read_confirmed
from evometa.task.protocol import Batch, EpisodeBatch, Task

PLAIN = Path(__file__).parent / "plain"
TOLERANCE = 1e-5  # of the largest output, in double precision


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export has written.

    Attributes:
        folder: where.
        difference: largest difference between its outputs and those of the search-time learner on
            unseen tasks, as a share of the largest output.
    """

    folder: Path
    difference: float


def export(
    run: StoredRun, candidate_id: str, folder: Path, *, progress: Progress | None = None
) -> Exported:
    """Write a candidate's weights, network and rule, with a model card and an example.

    The result is checked: on meta-validation tasks, its outputs must be those of the learner that
    was searched.

    Args:
        run: the run.
        candidate_id: of the candidate.
        folder: what to create; must not exist, or be empty.
        progress: called while it is trained, if it must be.

    Raises:
        EvometaError: if there is something at `folder`, or the candidate cannot be written in a
            form that PyTorch alone can run; says why.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise EvometaError(f"{folder} exists and is not empty; export to another folder")
    read_confirmed(run.place)  # which the card will need: better to fail now
    learner, now = trained(run, candidate_id, device="cpu", progress=progress)
    task, family = run.file.study.task, learner.learner
    generator = torch.Generator().manual_seed(derive_seed(run.settings.seed, "export"))
    episodes = task.episodes("meta-validation", 2, generator)
    existed = folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        facts = _facts(learner, task, episodes)
        for norm in facts["programs"]:
            torch.export.save(_program(learner, episodes, norm), folder / f"network_{norm}.pt2")
        _write_weights(learner, folder)
        (folder / "learner.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
        kind = "prototypes" if isinstance(family, Prototypes) else "gradient"
        shutil.copyfile(PLAIN / f"{kind}.py", folder / "learner.py")
        shutil.copyfile(PLAIN / "network.py", folder / "network.py")
        shutil.copyfile(PLAIN / "example.py", folder / "example.py")
        if isinstance(family, GradientLearner):
            (folder / "rule.py").write_text(_rule_source(family), encoding="utf-8")
        _write_task(episodes, folder)
        difference = _check(learner, episodes, folder)
        card = model_card(run, candidate_id, learner, now, difference)
        (folder / "README.md").write_text(card, encoding="utf-8")
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if existed:
            folder.mkdir(exist_ok=True)
        if isinstance(error, OSError):
            raise EvometaError(f"{folder} cannot be written: {error}") from error
        raise
    return Exported(folder, difference)


def _facts(learner: FewShotLearner, task: Task, episodes: EpisodeBatch) -> dict[str, Any]:
    """Return what learner.json says."""
    family = learner.learner
    if not isinstance(family, GradientLearner | Prototypes):
        raise EvometaError(f"learners of the kind {type(family).__name__} cannot be exported")
    facts: dict[str, Any] = {
        "sample": list(learner.example.leaves[0].shape),
        "classes": learner.outputs is None,
        "outputs": learner.outputs,
        "norm": family.norm,
        "batch_norm": family.network.has_batch_norm,
        "statistics": list(family.network.statistics),
        "programs": _norms(family.norm, family.network),
    }
    if isinstance(family, Prototypes):
        return {**facts, "distance": family.distance}
    rule = family.rule
    if not isinstance(rule, GradientRule):
        raise EvometaError(f"rules of the kind {type(rule).__name__} cannot be exported")
    params = learner.meta["params"]
    chosen = rule.adapting(params)
    layers = list(dict.fromkeys(layer_of(name) for name in chosen))
    ordered = [name for layer in layers for name in chosen if layer_of(name) == layer]
    sizes = [sum(params[n].numel() for n in ordered if layer_of(n) == layer) for layer in layers]
    loss = rule.loss if rule.loss != "task" else _name_of_loss(task, episodes)
    return {
        **facts,
        "steps": rule.steps,
        "rates": rule.rates,
        "loss": loss,
        "extras": rule.extras,
        "adapting": ordered,
        "layers": layers,
        "sizes": sizes,
    }


def _norms(norm: str, network: Network) -> list[str]:
    """Return which forms of the network are needed: see `network.py` of the export."""
    if not network.has_batch_norm or norm == "transductive":
        return ["record"]
    return ["stored"] if norm == "per-step" else ["record", "stored"]


def _name_of_loss(task: Task, episodes: EpisodeBatch) -> str:
    """Return which of PyTorch's losses the task's is, as far as numbers can tell."""
    targets = episodes.query.targets[0]
    generator = torch.Generator().manual_seed(0)
    if targets.is_floating_point():
        outputs = torch.randn(targets.shape, generator=generator)
        known: dict[str, Callable[..., Tensor]] = {"squared": F.mse_loss, "huber": F.huber_loss}
    else:
        outputs = torch.randn((len(targets), int(targets.max()) + 1), generator=generator)
        known = {"cross_entropy": F.cross_entropy}
    for name, function in known.items():
        loss = task.loss(partial(_known, outputs), Batch(None, targets))
        if torch.allclose(loss, function(outputs, targets)):
            return name
    raise EvometaError(
        f"the loss of {type(task).__name__} is none of {', '.join(known)}, so an export could not "
        "adapt by it; use load_learner"
    )


def _known(outputs: Tensor, inputs: Any) -> Tensor:
    del inputs
    return outputs


class _Function(nn.Module):
    """A network as what `torch.export` takes."""

    def __init__(self, network: Network, norm: Norm) -> None:
        super().__init__()
        self._network = (network, norm)  # in a tuple, so that it is no part of this module

    def forward(
        self, params: dict[str, Tensor], buffers: dict[str, Tensor], inputs: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the outputs, and the buffers after the call."""
        network, norm = self._network
        return network(params, buffers, inputs, norm=norm, training=False)


def _program(learner: FewShotLearner, episodes: EpisodeBatch, norm: Norm) -> Any:
    """Return the network as a program of parameters, buffers and any number of inputs.

    Raises:
        EvometaError: if `torch.export` cannot take it.
    """
    family = learner.learner
    assert isinstance(family, GradientLearner | Prototypes)
    own = family.network
    params = {name: value.detach() for name, value in own.params.items()}
    arguments = (params, dict(own.buffers), episodes.support.inputs[0])
    shapes = (
        dict.fromkeys(params),
        dict.fromkeys(own.buffers),
        {0: torch.export.Dim("examples", min=1)},
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module: nn.Module = _Function(own, norm)
            return torch.export.export(module, arguments, dynamic_shapes=shapes)
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise EvometaError(
            f"torch.export cannot take the network, for any number of examples: {lines[0]}; "
            "use load_learner"
        ) from error


def _write_weights(learner: FewShotLearner, folder: Path) -> None:
    tensors = {
        f"{part}/{name}": value.detach().contiguous().clone()
        for part in ("params", "learned", "constants", "buffers")
        for name, value in learner.meta[part].items()
    }
    (folder / "weights.safetensors").write_bytes(save(tensors))


def _write_task(episodes: EpisodeBatch, folder: Path) -> None:
    """Write one task for the example."""
    (support, labels), (query, answers) = (
        (side.inputs[0].contiguous(), side.targets[0].contiguous()) for side in episodes
    )
    tensors = {
        "support_inputs": support,
        "support_targets": labels,
        "query_inputs": query,
        "query_targets": answers,
    }
    (folder / "task.safetensors").write_bytes(save(tensors))


def _rule_source(learner: GradientLearner) -> str:
    assert isinstance(learner.rule, GradientRule)
    try:
        return python_source(learner.rule)
    except ValueError as error:
        raise EvometaError(f"the rule cannot be written as Python: {error}") from error


def _check(learner: FewShotLearner, episodes: EpisodeBatch, folder: Path) -> float:
    """Return how far the export's outputs are from the learner's, as a share of the largest.

    Raises:
        EvometaError: if they are not the same.
    """
    plain = _load(folder).Learner(folder)
    plain.network.meta = plain.meta = _double(plain.meta)
    meta = _double(learner.meta)  # rounding, which adapting can amplify, must not look like a fault
    largest = worst = 0.0
    prepared = learner.learner
    for row in range(len(episodes.support.inputs)):
        inputs, targets = episodes.support.inputs[row].double(), episodes.support.targets[row]
        targets = targets.double() if targets.is_floating_point() else targets
        queries = episodes.query.inputs[row].double()
        with torch.no_grad():
            wanted = prepared.predict(prepared.adapt(meta, Batch(inputs, targets)), queries)
            found = plain.adapt(inputs, targets).outputs(queries)
        largest = max(largest, float(wanted.abs().max()))
        worst = max(worst, float((wanted - found).abs().max()))
    share = worst / max(largest, 1e-12)
    if not share <= TOLERANCE:
        raise EvometaError(
            f"the export does not compute what the search did: outputs differ by {share:.2g} of "
            "the largest. This is a fault of evometa; please report it with the genome"
        )
    return share


def _double(meta: Meta) -> dict[str, dict[str, Tensor]]:
    return {
        part: {n: v.double() if v.is_floating_point() else v for n, v in tensors.items()}
        for part, tensors in meta.items()
    }


def _load(folder: Path) -> ModuleType:
    """Import an export's `learner` as a stranger would, and leave no trace of it."""
    names = ("network", "rule", "learner")
    hidden: Mapping[str, ModuleType] = {n: sys.modules.pop(n) for n in names if n in sys.modules}
    sys.path.insert(0, str(folder))
    bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    importlib.invalidate_caches()
    try:
        return importlib.import_module("learner")
    finally:
        sys.dont_write_bytecode = bytecode
        sys.path.remove(str(folder))
        for name in names:
            sys.modules.pop(name, None)
        sys.modules.update(hidden)
